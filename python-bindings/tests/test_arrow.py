"""Arrow at the border: every type, no copies where there need be none, streams that wait for their reader."""

import datetime as dt
import decimal

import duckdb
import pandas
import polars
import pyarrow as pa
import pytest

import windrow

NUMBERS = [
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint16(),
    pa.uint32(),
    pa.uint64(),
    pa.float32(),
    pa.float64(),
]
DAY = dt.date(2026, 11, 22)
MOMENT = dt.datetime(2026, 11, 22, 1, 2, 3)

# For each type of Arrow: values, one of which is null.
TYPES = {
    **{str(of): (of, [1, None, 3]) for of in NUMBERS},
    "float16": (pa.float16(), [1.5, None, -2.0]),
    "bool": (pa.bool_(), [True, None, False]),
    "null": (pa.null(), [None, None, None]),
    "string": (pa.string(), ["a", None, "\u00fc" * 20]),
    "large_string": (pa.large_string(), ["a", None, "\u00fc" * 20]),
    "string_view": (pa.string_view(), ["a", None, "\u00fc" * 20]),
    "binary": (pa.binary(), [b"a", None, b"\x00" * 20]),
    "large_binary": (pa.large_binary(), [b"a", None, b"\x00" * 20]),
    "binary_view": (pa.binary_view(), [b"a", None, b"\x00" * 20]),
    "fixed_size_binary": (pa.binary(3), [b"abc", None, b"xyz"]),
    "date32": (pa.date32(), [DAY, None, dt.date(1, 1, 1)]),
    "date64": (pa.date64(), [DAY, None, dt.date(1969, 1, 1)]),
    "time32_s": (pa.time32("s"), [dt.time(1, 2, 3), None, dt.time()]),
    "time32_ms": (pa.time32("ms"), [dt.time(1, 2, 3, 4000), None, dt.time()]),
    "time64_us": (pa.time64("us"), [dt.time(1, 2, 3, 4), None, dt.time()]),
    "time64_ns": (pa.time64("ns"), [dt.time(1, 2, 3, 4), None, dt.time()]),
    **{f"timestamp_{unit}": (pa.timestamp(unit), [MOMENT, None, dt.datetime(1969, 1, 1)]) for unit in ("s", "ms", "us", "ns")},
    "timestamp_utc": (pa.timestamp("us", "UTC"), [MOMENT.replace(tzinfo=dt.timezone.utc), None]),
    "timestamp_zone": (pa.timestamp("us", "Europe/Berlin"), [MOMENT.replace(tzinfo=dt.timezone.utc), None]),
    **{f"duration_{unit}": (pa.duration(unit), [dt.timedelta(days=1, seconds=2), None]) for unit in ("s", "ms", "us", "ns")},
    "interval": (pa.month_day_nano_interval(), [(1, 2, 3), None]),
    "decimal32": (pa.decimal32(7, 2), [decimal.Decimal("1.25"), None]),
    "decimal64": (pa.decimal64(15, 2), [decimal.Decimal("1.25"), None]),
    "decimal128": (pa.decimal128(38, 10), [decimal.Decimal("-1.2500000001"), None]),
    "decimal256": (pa.decimal256(76, 10), [decimal.Decimal("-1.2500000001"), None]),
    "list": (pa.list_(pa.int32()), [[1, None], None, []]),
    "large_list": (pa.large_list(pa.string()), [["a", None], None, []]),
    "fixed_size_list": (pa.list_(pa.int64(), 2), [[1, 2], None, [3, 4]]),
    "list_view": (pa.list_view(pa.int32()), [[1, None], None, []]),
    "large_list_view": (pa.large_list_view(pa.int32()), [[1, None], None, []]),
    "struct": (pa.struct({"a": pa.int32(), "b": pa.string()}), [{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
    "map": (pa.map_(pa.string(), pa.int32()), [[("a", 1), ("b", None)], None, []]),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), ["a", None, "a"]),
    "list_of_structs": (pa.list_(pa.struct({"a": pa.list_(pa.int8())})), [[{"a": [1]}, {"a": None}], None]),
}


def array(kind):
    of, values = TYPES[kind]
    if kind == "float16":
        import numpy

        values = [None if value is None else numpy.float16(value) for value in values]
    return pa.array(values, of)


@pytest.mark.parametrize("kind", TYPES)
def test_a_table_gives_every_type_back_as_it_was(kind):
    before = pa.table({"x": array(kind)})
    after = pa.table(windrow.Table(before))
    assert after.schema == before.schema
    assert after.equals(before)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_becomes_values_of_python(kind):
    _of, values = TYPES[kind]
    assert windrow.Table(pa.table({"x": array(kind)}))["x"] == values


def test_unions_and_runs_become_values_of_python():
    union = pa.UnionArray.from_sparse(pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])])
    assert windrow.Table(pa.table({"x": union}))["x"] == [1, "b", 3]
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"]))
    assert windrow.Table(pa.table({"x": runs}))["x"] == ["a", "a", "b"]


# What a query keeps as another type, or cannot keep.
CHANGED = {"string": "string_view", "large_string": "string_view", "binary": "binary_view", "large_binary": "binary_view"}


def registered(client, table):
    client.register("given", table)
    return client.sql("SELECT * FROM given").to_arrow()


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_passes_through_a_table_of_the_engine(client, kind):
    before = pa.table({"x": array(kind)})
    try:
        after = registered(client, before)
    except windrow.UnsupportedError as refused:
        assert kind in ("interval", "list_view", "large_list_view"), refused
        assert refused.hint
        return
    assert windrow.Table(after)["x"] == windrow.Table(before)["x"]


def addresses(table):
    """Where the buffers of values are, of columns without nulls."""
    return [[buffer.address for buffer in chunk.buffers()[1:]] for column in pa.table(table).columns for chunk in column.chunks]


def primitives():
    return pa.table({str(of): pa.array([n % 100 for n in range(1000)], of) for of in NUMBERS})


def test_numbers_are_not_copied_on_their_way_in_and_out():
    before = primitives()
    table = windrow.Table(before)
    assert addresses(table) == addresses(before)
    assert addresses(table.slice(0, 1000)) == addresses(before)


def test_numbers_of_a_result_are_not_copied_by_pyarrow_and_polars(client):
    table = client.sql("SELECT value AS n, value * 0.5 AS half FROM generate_series(1, 1000)").result()
    assert addresses(table) == addresses(table.to_arrow())
    assert sum(len(batch) for batch in table.batches()) == table.num_rows == 1000
    # Neither does polars copy numbers when it gives them to pyarrow.
    assert addresses(table.to_polars().to_arrow()) == addresses(table)


def test_numbers_of_polars_are_not_copied():
    frame = polars.DataFrame({"n": range(1000), "half": [n / 2 for n in range(1000)]})
    assert addresses(windrow.Table(frame)) == addresses(frame.to_arrow())


def test_numbers_of_pandas_are_not_copied_on_their_way_out():
    table = windrow.Table(pa.table({"n": pa.array(range(1000), pa.int64()), "half": [n / 2 for n in range(1000)]}))
    for frame in (table.to_pandas(), table.to_pandas(zero_copy_only=True)):
        assert [[frame[name].to_numpy().__array_interface__["data"][0]] for name in table.columns] == addresses(table)
    # The rows are shared, so that nobody may write into them, and pandas copies before it does.
    frame = table.to_pandas()
    frame["n"] += 1
    assert frame["n"].tolist() == list(range(1, 1001)) and table["n"] == list(range(1000))
    together = table.to_pandas(split_blocks=False)
    assert together["half"].tolist() == table["half"]


def test_duckdb_reads_and_writes():
    table = windrow.Table(pa.table({"n": [1, 2, 3]}))
    connection = duckdb.connect()
    connection.register("ours", pa.table(table))
    assert connection.sql("SELECT sum(n) FROM ours").fetchall() == [(6,)]
    relation = connection.sql("SELECT i AS n, i::VARCHAR AS t FROM range(5) r(i)")
    assert windrow.Table(relation).to_pydict() == {"n": [0, 1, 2, 3, 4], "t": ["0", "1", "2", "3", "4"]}


def test_frames_go_through_a_query_and_back(anywhere):
    frame = pandas.DataFrame({"n": [1, 2, 3], "t": ["a", "b", None], "d": pandas.to_datetime(["2026-01-01", "2026-01-02", None])})
    back = anywhere.sql("SELECT * FROM frame ORDER BY n").to_pandas()
    assert back["n"].tolist() == [1, 2, 3]
    assert back["t"].isna().tolist() == [False, False, True]
    assert back["d"].tolist()[:2] == frame["d"].tolist()[:2]
    series = polars.DataFrame({"n": [1, 2], "l": [[1], [2, 3]], "s": [{"a": 1}, {"a": 2}]})
    assert anywhere.sql("SELECT * FROM series ORDER BY n").to_polars().equals(series)


def test_a_requested_schema_is_honoured(anywhere):
    query = anywhere.sql("SELECT value AS n FROM generate_series(1, 3)")
    wanted = pa.schema({"n": pa.int32()})
    assert pa.RecordBatchReader.from_stream(query, schema=wanted).read_all().schema == wanted


def test_a_stream_waits_for_its_reader_and_dropping_it_cancels(anywhere, until):
    # Rows leave a partition when it is complete: 40 million of them in 200 partitions of the result's stage.
    anywhere.set(partitions=200, small_input="1B", broadcast_limit="1B")
    anywhere.register("many", pa.table({"n": range(200_000), "k": [n % 1000 for n in range(200_000)]}))
    query = anywhere.sql("SELECT a.n AS a, b.n AS b FROM many AS a JOIN many AS b ON a.k = b.k")
    reader = pa.RecordBatchReader.from_stream(query)
    assert reader.read_next_batch().num_rows > 0
    until(lambda: query.state == "running", "the query runs")
    rows = query.progress().rows
    reader.close()
    del reader
    until(lambda: query.state == "cancelled", "the query is cancelled")
    assert rows < 20_000_000


def test_a_stream_is_read_once_and_a_result_as_often_as_wanted(anywhere):
    query = anywhere.sql("SELECT 1 AS n")
    assert pa.table(query).num_rows == 1
    with pytest.raises(windrow.NotFoundError, match="read already"):
        pa.table(query)
    with pytest.raises(windrow.NotFoundError, match="read already"):
        query.result()
    kept = anywhere.sql("SELECT 1 AS n")
    assert kept.result() == kept.result() == windrow.Table(kept)


def test_a_query_that_failed_has_no_rows_whoever_asks_again(anywhere):
    text = "SELECT 1 / (value - value) AS n FROM generate_series(1, 3)"
    for read in (windrow.Query.result, list, windrow.Query.to_pydict, pa.table):
        query = anywhere.sql(text)
        with pytest.raises(Exception, match="(?i)divi"):
            read(query)
        for again in (windrow.Query.result, list, windrow.Query.to_pydict, pa.table):
            with pytest.raises((windrow.Error, pa.ArrowException)):
                again(query)


def test_batches_are_read_once_and_a_reader_may_pause(anywhere):
    query = anywhere.sql("SELECT value FROM generate_series(1, 50000)")
    first = next(iter(query))
    assert len(first) + sum(map(len, query)) == 50_000
    with pytest.raises(windrow.NotFoundError, match="read already"):
        list(query)
    kept = anywhere.sql("SELECT value FROM generate_series(1, 50000)")
    kept.result()
    assert sum(map(len, kept)) == sum(map(len, kept)) == 50_000


def test_a_query_gives_batch_after_batch(anywhere):
    seen = [len(batch) for batch in anywhere.sql("SELECT value FROM generate_series(1, 100000)")]
    assert sum(seen) == 100_000
    assert len(seen) > 1


def test_a_table_is_sliced(client):
    table = client.sql("SELECT value AS n, value * 10 AS m FROM generate_series(0, 99999) ORDER BY n").result()
    assert table.shape == (100_000, 2)
    assert table[99_990:]["n"] == list(range(99_990, 100_000))
    assert table[5] == {"n": 5, "m": 50}
    assert table[-1] == {"n": 99_999, "m": 999_990}
    assert table.head(2).to_pylist() == [{"n": 0, "m": 0}, {"n": 1, "m": 10}]
    assert table.tail(1)["m"] == [999_990]
    assert table.select("m").columns == ["m"]
    assert table[3:3].shape == (0, 2)
    assert table[50_000:60_000] == windrow.Table(pa.table(table).slice(50_000, 10_000))
    with pytest.raises(windrow.NotFoundError, match="did you mean 'm'") as refused:
        table["mm"]
    assert isinstance(refused.value, KeyError)
    with pytest.raises(IndexError):
        table[100_000]


def test_a_table_shows_some_rows_and_escapes_what_is_in_them():
    evil = "<script>alert(1)</script>\x1b[2J"
    table = windrow.Table(pa.table({evil: [evil] * 12, "n": pa.array([None, *range(11)], pa.int64())}))
    text, html = repr(table), table._repr_html_()
    assert "\x1b" not in text and "\x1b" not in html
    assert "<script>" not in html
    assert "... 2 more rows" in text and "12 rows, 2 columns" in text
    assert "null" in text


def test_other_objects_are_refused():
    with pytest.raises(windrow.InvalidQueryError, match="type list"):
        windrow.Table([1, 2])
    with pytest.raises(windrow.InvalidQueryError, match="type dict"):
        windrow.register("x", {"a": [1]})
