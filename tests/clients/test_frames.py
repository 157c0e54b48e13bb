"""Data frames: polars and pandas read queries and write tables, and what comes back is the frame that went."""

import datetime
import decimal

import adbc_driver_manager
import pandas
import polars
import polars.testing
import pytest

FRAME = polars.DataFrame(
    {
        "number": [1, 2, None],
        "ratio": [0.5, None, -1.25],
        "text": ["x", "", "a text of more than twelve bytes"],
        "flag": [True, False, None],
        "day": [datetime.date(2026, 11, 22), None, datetime.date(1969, 1, 1)],
        "moment": [datetime.datetime(2026, 11, 22, 1, 2, 3, 456789), None, datetime.datetime(1900, 1, 1)],
        "price": [decimal.Decimal("12.34"), None, decimal.Decimal("-0.01")],
        "bytes": [b"\x00\xff", None, b""],
    },
    schema_overrides={"price": polars.Decimal(10, 2)},
)

# Polars.


def test_polars_reads_a_query(connection):
    frame = polars.read_database(
        "SELECT value AS a, CAST(value AS VARCHAR) AS b FROM generate_series(1, 3) ORDER BY 1", connection
    )
    polars.testing.assert_frame_equal(frame, polars.DataFrame({"a": [1, 2, 3], "b": ["1", "2", "3"]}))


def test_polars_reads_a_query_with_parameters(connection):
    sql = "SELECT value AS a FROM generate_series(1, 10) WHERE value > ? AND value < ? ORDER BY 1"
    frame = polars.read_database(sql, connection, execute_options={"parameters": (3, 6)})
    assert frame.to_dict(as_series=False) == {"a": [4, 5]}


def test_polars_reads_in_batches(connection):
    batches = polars.read_database(
        "SELECT value AS a FROM generate_series(1, 100000)", connection, iter_batches=True, batch_size=10_000
    )
    assert polars.concat(batches)["a"].sum() == 100_000 * 100_001 // 2


def test_polars_writes_a_frame_in_each_mode(connection, name):
    def write(mode, frame=FRAME):
        return frame.write_database(name, connection, engine="adbc", if_table_exists=mode)

    def read():
        return polars.read_database(f"SELECT * FROM {name}", connection)

    assert write("fail") in (3, -1)
    polars.testing.assert_frame_equal(read(), FRAME, check_row_order=False)
    with pytest.raises(adbc_driver_manager.Error):
        write("fail")
    write("append")
    polars.testing.assert_frame_equal(read(), polars.concat([FRAME, FRAME]), check_row_order=False)
    other = polars.DataFrame({"only": ["x"]})
    write("replace", other)
    polars.testing.assert_frame_equal(read(), other)


def test_polars_appends_to_a_table_that_is_not_there_by_making_it(connection, name):
    FRAME.write_database(name, connection, engine="adbc", if_table_exists="append")
    assert polars.read_database(f"SELECT count(*) AS n FROM {name}", connection)["n"].to_list() == [3]


def test_polars_writes_into_a_schema(connection, name):
    schema = connection.adbc_current_db_schema
    FRAME.write_database(f"{schema}.{name}", connection, engine="adbc")
    assert polars.read_database(f"SELECT count(*) AS n FROM {schema}.{name}", connection)["n"].to_list() == [3]


# Pandas.

PANDAS = pandas.DataFrame(
    {"a": [1, 2, 3], "b": ["x", None, "z"], "c": [0.5, 1.5, -2.0], "d": pandas.to_datetime(["2026-11-22"] * 3)}
)


def test_pandas_reads_a_query(connection):
    frame = pandas.read_sql("SELECT value AS a, value * 0.5 AS b FROM generate_series(1, 3) ORDER BY 1", connection)
    assert frame.to_dict("list") == {"a": [1, 2, 3], "b": [0.5, 1.0, 1.5]}


@pytest.mark.parametrize(
    "sql", ["SELECT '%' AS a -- _ \\ '\n", "SELECT 'ü' AS a WHERE 'x' LIKE '\\%' OR 1 = 1", "SELECT 1 AS a" + " " * 4000]
)
def test_pandas_sends_any_query_as_the_pattern_of_a_table(connection, sql):
    assert len(pandas.read_sql(sql, connection)) == 1


def test_pandas_reads_a_table(connection, name):
    PANDAS.to_sql(name, connection, index=False)
    for read in (pandas.read_sql, pandas.read_sql_table):
        frame = read(name, connection).sort_values("a", ignore_index=True)
        assert frame[["a", "c"]].to_dict("list") == PANDAS[["a", "c"]].to_dict("list")


def test_pandas_writes_a_frame_in_each_mode(connection, name):
    def count():
        return pandas.read_sql(f"SELECT count(*) AS n, count(b) AS b FROM {name}", connection).to_dict("list")

    PANDAS.to_sql(name, connection, index=False)
    assert count() == {"n": [3], "b": [2]}
    with pytest.raises(ValueError, match="already exists"):
        PANDAS.to_sql(name, connection, index=False)
    PANDAS.to_sql(name, connection, index=False, if_exists="append")
    assert count() == {"n": [6], "b": [4]}
    PANDAS.to_sql(name, connection, index=False, if_exists="replace")
    assert count() == {"n": [3], "b": [2]}


def test_pandas_gets_back_what_it_wrote(connection, name):
    PANDAS.to_sql(name, connection, index=False)
    frame = pandas.read_sql(f"SELECT * FROM {name} ORDER BY a", connection)
    pandas.testing.assert_frame_equal(frame, PANDAS, check_dtype=False)
