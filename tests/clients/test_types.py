"""Every type that SQL can produce: the same values in pyarrow, polars and pandas."""

import datetime

import pandas
import polars
import pyarrow as pa
import pytest

from types_of_sql import TYPES, query

# What the libraries read themselves; pyarrow reads all of it.
NOT_IN_POLARS = {"Interval", "Decimal256", "Map", "Float16"}
NOT_IN_PANDAS = {"Interval"}


def plain(kind):
    """A type without the names and the nullability of its items, which are the server's to choose."""
    if pa.types.is_list(kind):
        return pa.list_(plain(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(plain(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain(kind.value_type), kind.list_size)
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, plain(field.type)) for field in kind])
    return pa.map_(plain(kind.key_type), plain(kind.item_type)) if pa.types.is_map(kind) else kind


@pytest.mark.parametrize("kind", TYPES)
def test_a_type_comes_with_its_values(cursor, kind):
    _expression, expected, value = TYPES[kind]
    table = cursor.execute(query(kind)).fetch_arrow_table()
    assert plain(table.schema.field(kind).type) == expected
    first, second = table[kind].to_pylist()
    assert (first, second) == (value, None)


def test_polars_reads_every_type_that_it_knows(connection):
    kinds = [kind for kind in TYPES if kind not in NOT_IN_POLARS]
    frame = polars.read_database(query(*kinds), connection)
    for kind in kinds:
        first, second = frame[kind].to_list()
        value = TYPES[kind][2]
        if isinstance(value, list):
            assert list(first) == value
        elif kind == "Date64":
            assert first == datetime.datetime.combine(value, datetime.time())
        else:
            assert first == value, kind
        assert second is None


def test_pandas_reads_every_type_that_it_knows(connection):
    kinds = [kind for kind in TYPES if kind not in NOT_IN_PANDAS]
    frame = pandas.read_sql(query(*kinds), connection)
    assert list(frame.columns) == kinds
    assert len(frame) == 2
    for kind in ("Int64", "Float64", "Utf8", "Utf8View", "Decimal128", "Date32", "Boolean", "Dictionary"):
        assert frame[kind][0] == TYPES[kind][2], kind
        assert pandas.isna(frame[kind][1]), kind
