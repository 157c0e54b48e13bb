"""Rows that clients send: each mode, each kind of text, and what a stream that breaks off leaves behind."""

import adbc_driver_manager
import pandas
import polars
import pyarrow as pa
import pytest

ROWS = pa.table({"a": pa.array([1, 2, 3], pa.int64()), "b": ["x", None, "z"]})


def rows(cursor, sql):
    return cursor.execute(sql).fetchall()


def test_create_makes_a_table_that_was_not_there(cursor, name):
    assert cursor.adbc_ingest(name, ROWS, mode="create") == 3
    assert cursor.execute(f"SELECT * FROM {name} ORDER BY a").fetch_arrow_table().to_pydict() == ROWS.to_pydict()
    with pytest.raises(adbc_driver_manager.ProgrammingError):
        cursor.adbc_ingest(name, ROWS, mode="create")
    assert rows(cursor, f"SELECT count(*) FROM {name}") == [(3,)]


def test_append_adds_to_a_table_that_is_there(cursor, name):
    with pytest.raises(adbc_driver_manager.ProgrammingError):
        cursor.adbc_ingest(name, ROWS, mode="append")
    cursor.adbc_ingest(name, ROWS, mode="create")
    assert cursor.adbc_ingest(name, ROWS, mode="append") == 3
    assert rows(cursor, f"SELECT count(*), sum(a), count(b) FROM {name}") == [(6, 12, 4)]


def test_replace_leaves_the_new_rows_alone(cursor, name):
    cursor.adbc_ingest(name, ROWS, mode="replace")
    other = pa.table({"c": [1.5]})
    assert cursor.adbc_ingest(name, other, mode="replace") == 1
    assert cursor.execute(f"SELECT * FROM {name}").fetch_arrow_table().to_pydict() == {"c": [1.5]}


def test_create_append_does_what_is_needed(cursor, name):
    for count in (3, 6):
        cursor.adbc_ingest(name, ROWS, mode="create_append")
        assert rows(cursor, f"SELECT count(*) FROM {name}") == [(count,)]


def test_a_temporary_table_is_its_sessions_own(connect, name):
    mine, other = connect(), connect()
    with mine.cursor() as cursor:
        cursor.adbc_ingest(name, ROWS, temporary=True)
        assert rows(cursor, f"SELECT count(*) FROM {name}") == [(3,)]
    with other.cursor() as cursor, pytest.raises(adbc_driver_manager.ProgrammingError):
        cursor.execute(f"SELECT count(*) FROM {name}")


def test_a_temporary_table_is_in_no_schema(connection, cursor, name):
    with pytest.raises(adbc_driver_manager.ProgrammingError):
        cursor.adbc_ingest(name, ROWS, temporary=True, db_schema_name=connection.adbc_current_db_schema)


def test_a_table_is_named_by_catalog_and_schema(connection, cursor, name):
    place = {"catalog_name": connection.adbc_current_catalog, "db_schema_name": connection.adbc_current_db_schema}
    cursor.adbc_ingest(name, ROWS, **place)
    assert rows(cursor, f"SELECT count(*) FROM {name}") == [(3,)]


def test_a_name_is_taken_as_it_is_written(cursor, name):
    odd = f'{name} With "quotes" and ü'
    cursor.adbc_ingest(odd, ROWS)
    quoted = odd.replace('"', '""')
    assert rows(cursor, f'SELECT count(*) FROM "{quoted}"') == [(3,)]


def test_columns_match_by_name(cursor, name):
    cursor.adbc_ingest(name, ROWS)
    cursor.adbc_ingest(name, pa.table({"b": ["new"], "a": pa.array([4], pa.int64())}), mode="append")
    cursor.adbc_ingest(name, pa.table({"a": pa.array([5], pa.int64())}), mode="append")
    assert rows(cursor, f"SELECT a, b FROM {name} WHERE a > 3 ORDER BY a") == [(4, "new"), (5, None)]


def test_a_column_that_is_not_there_is_refused_with_the_nearest(cursor, name):
    cursor.adbc_ingest(name, pa.table({"price": [1.5]}))
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="price"):
        cursor.adbc_ingest(name, pa.table({"prize": [1.5]}), mode="append")


def test_a_value_that_does_not_fit_is_refused(cursor, name):
    cursor.adbc_ingest(name, pa.table({"a": pa.array([1], pa.int16())}))
    cursor.adbc_ingest(name, pa.table({"a": pa.array([2], pa.int64())}), mode="append")
    with pytest.raises(adbc_driver_manager.Error):
        cursor.adbc_ingest(name, pa.table({"a": pa.array([1 << 40], pa.int64())}), mode="append")
    assert rows(cursor, f"SELECT sum(a), count(*) FROM {name}") == [(3, 2)]


def test_no_rows_make_an_empty_table(cursor, name):
    assert cursor.adbc_ingest(name, pa.record_batch({"a": pa.array([], pa.int64())})) in (0, -1)
    assert cursor.execute(f"SELECT * FROM {name}").fetch_arrow_table().schema.names == ["a"]


def test_a_stream_without_a_batch_is_refused(connect, name):
    """The driver sends nothing at all then, not even the table's name."""
    with connect().cursor() as cursor, pytest.raises(adbc_driver_manager.Error):
        cursor.adbc_ingest(name, ROWS.slice(0, 0))
    with connect().cursor() as cursor, pytest.raises(adbc_driver_manager.ProgrammingError):
        cursor.execute(f"SELECT * FROM {name}")


def test_many_batches_are_one_table(cursor, name):
    batches = [pa.record_batch({"a": pa.array(range(start, start + 1000), pa.int64())}) for start in range(0, 200_000, 1000)]
    assert cursor.adbc_ingest(name, pa.RecordBatchReader.from_batches(batches[0].schema, batches)) == 200_000
    assert rows(cursor, f"SELECT count(*), count(DISTINCT a), max(a) FROM {name}") == [(200_000, 200_000, 199_999)]


TEXTS = {"utf8": pa.string(), "large_utf8": pa.large_string(), "utf8_view": pa.string_view()}


@pytest.mark.parametrize("kind", TEXTS)
def test_every_kind_of_text_is_taken(cursor, name, kind):
    cursor.adbc_ingest(name, pa.table({"b": pa.array(["x", None, "a text of more than twelve bytes"], TEXTS[kind])}))
    assert rows(cursor, f"SELECT b FROM {name} ORDER BY b") == [("a text of more than twelve bytes",), ("x",), (None,)]
    for other in TEXTS.values():
        cursor.adbc_ingest(name, pa.table({"b": pa.array(["again"], other)}), mode="append")
    assert rows(cursor, f"SELECT count(*) FROM {name} WHERE b = 'again'") == [(3,)]


def test_dictionaries_are_taken(cursor, name):
    cursor.adbc_ingest(name, pa.table({"b": pa.array(["x", "y", "x", None]).dictionary_encode()}))
    assert rows(cursor, f"SELECT b, count(*) FROM {name} GROUP BY b ORDER BY b") == [("x", 2), ("y", 1), (None, 1)]


def test_a_polars_frame_is_taken_as_it_is(cursor, name):
    frame = polars.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [None, [1, 2]]})
    cursor.adbc_ingest(name, frame)
    assert cursor.execute(f"SELECT * FROM {name} ORDER BY a").fetch_polars().equals(frame)


def test_a_pandas_frame_is_taken_with_its_metadata_left_behind(cursor, name):
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    cursor.adbc_ingest(name, pa.Table.from_pandas(frame, preserve_index=False))
    table = cursor.execute(f"SELECT * FROM {name} ORDER BY a").fetch_arrow_table()
    assert table.to_pydict() == frame.to_dict("list")
    assert b"pandas" not in (table.schema.metadata or {})


# Streams that break off.


def too_large():
    """A good batch, and one that the driver refuses to send because its message would be above 16 MiB."""
    batches = [pa.record_batch({"a": pa.array(range(count), pa.int64())}) for count in (1, 5_000_000)]
    return pa.RecordBatchReader.from_batches(batches[0].schema, batches)


def failing():
    """A source that fails after a batch."""
    schema = pa.schema({"a": pa.int64()})

    def batches():
        yield pa.record_batch({"a": pa.array([1], pa.int64())})
        raise ValueError("the source failed")

    return pa.RecordBatchReader.from_batches(schema, batches())


@pytest.mark.parametrize("source", [too_large, failing])
@pytest.mark.parametrize("mode", ["replace", "append", "create_append"])
def test_a_stream_that_breaks_off_leaves_the_table_as_it_was(connect, name, source, mode):
    with connect().cursor() as cursor:
        cursor.adbc_ingest(name, pa.table({"a": pa.array([7], pa.int64())}))
    with connect().cursor() as cursor, pytest.raises(adbc_driver_manager.Error):
        cursor.adbc_ingest(name, source(), mode=mode)
    with connect().cursor() as cursor:
        assert rows(cursor, f"SELECT a FROM {name}") == [(7,)]


@pytest.mark.parametrize("source", [too_large, failing])
def test_a_stream_that_breaks_off_makes_no_table(connect, name, source):
    with connect().cursor() as cursor, pytest.raises(adbc_driver_manager.Error):
        cursor.adbc_ingest(name, source(), mode="create")
    with connect().cursor() as cursor, pytest.raises(adbc_driver_manager.ProgrammingError):
        cursor.execute(f"SELECT a FROM {name}")


def test_much_data_in_batches_is_taken(cursor, name):
    """Above the limit of one message, and below it batch by batch."""
    batches = pa.table({"a": pa.array(range(5_000_000), pa.int64())}).to_batches(max_chunksize=500_000)
    assert cursor.adbc_ingest(name, pa.RecordBatchReader.from_batches(batches[0].schema, batches)) == 5_000_000
    (found,) = rows(cursor, f"SELECT count(*), sum(a), min(a), max(a) FROM {name}")
    assert found == (5_000_000, 4_999_999 * 2_500_000, 0, 4_999_999)
