"""The 22 queries of TPC-H: a driver gets the rows that the program itself prints."""

import csv
import datetime
import decimal
import io

import pyarrow as pa
import pytest

from tpch import CUT, QUERIES


def parsed(text, kind):
    """A cell of the program's CSV as the value that a client gets."""
    if text == "":
        return None
    if pa.types.is_decimal(kind):
        return decimal.Decimal(text)
    if pa.types.is_date(kind):
        return datetime.date.fromisoformat(text)
    if pa.types.is_floating(kind):
        return pytest.approx(float(text), rel=1e-12)
    return int(text) if pa.types.is_integer(kind) else text


END = "end of a query"


@pytest.fixture(scope="module")
def printed(windrow, tpch):
    """What the program prints for each query, with the engine in its own process."""
    texts = [text for file in QUERIES for text in (file.read_text(), f"SELECT '{END}' AS \"{END}\"")]
    commands = [argument for text in tpch + texts for argument in ("-c", text)]
    answers = windrow("sql", *commands, "--format", "csv").split(f"{END}\n{END}\n")
    return {file: csv.reader(io.StringIO(answer)) for file, answer in zip(QUERIES, answers[:-1], strict=True)}


@pytest.mark.parametrize("file", QUERIES, ids=lambda file: file.stem)
def test_a_driver_gets_the_rows_that_the_program_prints(file, printed, tpch, cursor):
    for statement in tpch + CUT:
        cursor.execute(statement)
    cursor.execute(file.read_text())
    rows = cursor.fetch_arrow_table()
    header, *lines = printed[file]
    assert rows.column_names == header
    expected = [tuple(parsed(cell, kind) for cell, kind in zip(line, rows.schema.types, strict=True)) for line in lines]
    assert [tuple(row.values()) for row in rows.to_pylist()] == expected


def test_all_queries_are_there():
    assert [file.stem for file in QUERIES] == [f"q{number:02}" for number in range(1, 23)]
