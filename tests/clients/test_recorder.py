"""What drivers send, compared with what they sent when the server was written for them: the golden logs, a folder for each driver
and version, a file for each thing that users do.

A new version of a driver finds no folder and fails. `WINDROW_RECORD=1 pytest test_recorder.py` writes one; the difference to the
folder before it is what the server must be looked at for.
"""

import importlib.metadata
import os
import pathlib
import warnings

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pandas
import polars
import pyarrow as pa
import pytest

from recorder import Recorder

GOLDEN = pathlib.Path(__file__).parent / "golden"
FRAME = {"a": [1, 2], "b": ["x", "y"]}

DRIVER = "adbc-driver-flightsql"
SCENARIOS = {}

# Where nobody reads the rows, the driver may have begun to fetch them before it is closed, or not.
UNREAD = {"leaving_rows_unread", "executing_ddl_where_prepare_does_not_tell_updates"}


def scenario(driver, **recorder):
    """Registers the function as one recording of `driver`; `recorder` is how the recorder answers."""

    def register(function):
        SCENARIOS[(driver, function.__name__)] = (function, recorder)
        return function

    return register


def connect(recorder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that autocommit cannot be switched off
        return adbc.connect(recorder.uri, **options)


@scenario(DRIVER)
def connecting(recorder):
    connect(recorder).close()


@scenario(DRIVER)
def connecting_with_autocommit(recorder):
    adbc.connect(recorder.uri, autocommit=True).close()


@scenario(DRIVER)
def connecting_with_a_password(recorder):
    with connect(recorder, db_kwargs={"username": "alice", "password": "secret"}) as connection:
        connection.adbc_get_table_types()


@scenario(DRIVER)
def connecting_with_a_token(recorder):
    with connect(recorder, db_kwargs={"adbc.flight.sql.authorization_header": "Bearer token"}) as connection:
        connection.adbc_get_table_types()


@scenario(DRIVER, answers={"authorization": "Bearer first"})
def connecting_to_a_server_that_answers_with_a_token(recorder):
    with connect(recorder) as connection:
        connection.adbc_get_table_types()


@scenario(DRIVER, answers={"set-cookie": "arrow_flight_session_id=1"})
def connecting_to_a_server_that_sets_a_cookie(recorder):
    with connect(recorder) as connection:
        connection.adbc_get_table_types()
    with connect(recorder, db_kwargs={"adbc.flight.sql.rpc.with_cookie_middleware": "true"}) as connection:
        connection.adbc_get_table_types()


@scenario(DRIVER, parts=3)
def executing(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetch_arrow_table().num_rows == 9


@scenario(DRIVER)
def executing_the_same_text_twice(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1").fetchall()
        cursor.execute("SELECT 1").fetchall()


@scenario(DRIVER)
def executing_with_parameters(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT ?, ?", (1, "x")).fetchall()


@scenario(DRIVER)
def executing_with_other_parameters(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT ?", (1,)).fetchall()
        cursor.execute("SELECT ?", (2.5,)).fetchall()


@scenario(DRIVER)
def executing_with_named_parameters(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.NotSupportedError, match="bind_by_name"):  # the driver's own refusal
            cursor.execute("SELECT $low, $high", {"low": 1, "high": 2})
        cursor.execute("SELECT $low, $high", pa.table({"high": [2], "low": [1]})).fetchall()


@scenario(DRIVER)
def executing_with_rows_of_parameters(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT ?", pa.table({"0": [1, 2, 3]})).fetchall()


@scenario(DRIVER)
def executing_ddl(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a BIGINT)")


@scenario(DRIVER, tells_updates=False)
def executing_ddl_where_prepare_does_not_tell_updates(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a BIGINT)")


@scenario(DRIVER)
def executing_an_update_with_parameters(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (?)", (1,))


@scenario(DRIVER)
def executing_many(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (?, ?)", [(1, "x"), (2, "y")])


@scenario(DRIVER)
def executing_a_script(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.executescript("DROP TABLE t; DROP TABLE u")


@scenario(DRIVER)
def committing_and_rolling_back(recorder):
    with connect(recorder) as connection:
        for end in (connection.commit, connection.rollback):
            try:
                end()
            except adbc_driver_manager.Error:
                pass


@scenario(DRIVER)
def preparing(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.adbc_prepare("SELECT ?")


@scenario(DRIVER)
def asking_for_the_schema_of_a_query(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        assert cursor.adbc_execute_schema("SELECT 1").names == ["a", "b"]


@scenario(DRIVER, parts=2)
def executing_partitions(recorder):
    with connect(recorder) as connection:
        with connection.cursor() as cursor:
            partitions, _schema = cursor.adbc_execute_partitions("SELECT 1")
        for partition in partitions:
            with connection.cursor() as cursor:
                cursor.adbc_read_partition(partition)
                cursor.fetchall()


@scenario(DRIVER)
def getting_objects(recorder):
    with connect(recorder) as connection:
        for depth in ("catalogs", "db_schemas", "tables", "all"):
            connection.adbc_get_objects(depth=depth).read_all()


@scenario(DRIVER)
def getting_objects_by_name(recorder):
    with connect(recorder) as connection:
        filters = {"catalog_filter": "windrow", "db_schema_filter": "pub%", "table_name_filter": "t_"}
        connection.adbc_get_objects(
            depth="all", table_types_filter=["TABLE", "VIEW"], column_name_filter="a", **filters
        ).read_all()


@scenario(DRIVER)
def getting_the_schema_of_a_table(recorder):
    with connect(recorder) as connection:
        connection.adbc_get_table_schema("t")
        connection.adbc_get_table_schema("t", catalog_filter="windrow", db_schema_filter="public")


@scenario(DRIVER)
def getting_table_types_and_information(recorder):
    with connect(recorder) as connection:
        connection.adbc_get_table_types()
        connection.adbc_get_info()


@scenario(DRIVER)
def using_a_catalog_and_a_schema(recorder):
    with connect(recorder) as connection:
        connection.adbc_current_catalog = "windrow"
        connection.adbc_current_db_schema = "public"
        assert connection.adbc_current_catalog == "windrow"
        assert connection.adbc_current_db_schema == "public"


@scenario(DRIVER)
def setting_session_options(recorder):
    with connect(recorder) as connection:
        prefix = "adbc.flight.sql.session.option"
        options = {f"{prefix}.windrow.query.partitions": "3", f"{prefix}bool.windrow.query.runtime_filters": "true"}
        options[f"{prefix}erase.windrow.query.partitions"] = ""
        options |= {f"{prefix}.number": 3, f"{prefix}.fraction": 0.5, f"{prefix}stringlist.names": '["a", "b"]'}
        for name, value in options.items():
            connection.adbc_connection.set_options(**{name: value})
        connection.adbc_connection.get_option(f"{prefix}s")


@scenario(DRIVER)
def ingesting(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        for mode in ("create", "append", "replace", "create_append"):
            cursor.adbc_ingest("t", pa.table(FRAME), mode=mode)


@scenario(DRIVER)
def ingesting_elsewhere(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("t", pa.table(FRAME), mode="create", catalog_name="windrow", db_schema_name="public")
        cursor.adbc_ingest("t", pa.table(FRAME), mode="create", temporary=True)


@scenario(DRIVER)
def ingesting_again_with_a_cursor(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("t", pa.table(FRAME), mode="append", db_schema_name="public")
        cursor.adbc_ingest("t", pa.table(FRAME), temporary=True)
        cursor.adbc_ingest("t", pa.table(FRAME))


@scenario(DRIVER)
def ingesting_in_batches(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        batches = pa.table(FRAME).to_batches(max_chunksize=1)
        cursor.adbc_ingest("t", pa.RecordBatchReader.from_batches(batches[0].schema, batches))


@scenario(DRIVER, parts=2)
def reading_from_other_servers(recorder):
    with Recorder(locations=()) as other:
        recorder.locations = [other.uri, "arrow-flight-reuse-connection://?"]
        with connect(recorder, db_kwargs={"adbc.flight.sql.authorization_header": "Bearer token"}) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1").fetchall()
        recorder.lines.append("the other server:")
        recorder.lines += other.transcript()


@scenario(DRIVER)
def ingesting_a_batch_that_is_too_large_for_a_message(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        batches = [pa.record_batch({"a": pa.array(range(rows), pa.int64())}) for rows in (1, 5_000_000)]
        with pytest.raises(adbc_driver_manager.Error, match="trying to send message larger than max"):
            cursor.adbc_ingest("t", pa.RecordBatchReader.from_batches(batches[0].schema, batches))


@scenario(DRIVER)
def cancelling_what_is_not_running(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.adbc_cancel()
        connection.adbc_cancel()


@scenario(DRIVER)
def leaving_rows_unread(recorder):
    with connect(recorder) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@scenario(DRIVER)
def cloning_a_connection(recorder):
    with connect(recorder) as connection, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with connection.adbc_clone() as clone, clone.cursor() as cursor:
            cursor.execute("SELECT 1").fetchall()


@scenario("pandas")
def reading_a_query(recorder):
    with connect(recorder) as connection:
        pandas.read_sql("SELECT a FROM t", connection)


@scenario("pandas")
def reading_a_table(recorder):
    with connect(recorder) as connection:
        pandas.read_sql_table("t", connection)


@scenario("pandas")
def writing_a_table(recorder):
    with connect(recorder) as connection:
        for mode in ("append", "replace"):
            pandas.DataFrame(FRAME).to_sql("t", connection, index=False, if_exists=mode)
        pandas.DataFrame(FRAME).to_sql("new", connection, index=False)


@scenario("polars")
def reading_a_query_into_a_frame(recorder):
    with connect(recorder) as connection:
        polars.read_database("SELECT a FROM t", connection)


@scenario("polars")
def reading_a_query_with_parameters_into_a_frame(recorder):
    with connect(recorder) as connection:
        polars.read_database("SELECT ?", connection, execute_options={"parameters": (1,)})


@scenario("polars")
def writing_a_frame(recorder):
    with connect(recorder) as connection:
        for mode in ("fail", "append", "replace"):
            polars.DataFrame(FRAME).write_database("t", connection, engine="adbc", if_table_exists=mode)


@pytest.mark.parametrize(("driver", "name"), SCENARIOS, ids=lambda part: str(part))
def test_a_driver_sends_what_it_sent_before(driver, name):
    function, options = SCENARIOS[(driver, name)]
    with Recorder(**options) as recorder:
        function(recorder)
        lines = [line for line in recorder.transcript() if name not in UNREAD or not line.startswith("DoGet part")]
    sent = "\n".join(lines) + "\n"
    file = GOLDEN / f"{driver}-{importlib.metadata.version(driver)}" / f"{name}.log"
    if os.environ.get("WINDROW_RECORD"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(sent)
    assert file.exists(), f"no recording {file.relative_to(GOLDEN)}: see the comment at the top of test_recorder.py"
    assert sent == file.read_text()


def test_every_recording_is_made():
    kept = {str(file.relative_to(GOLDEN)) for file in GOLDEN.glob("*/*.log")}
    made = {f"{driver}-{importlib.metadata.version(driver)}/{name}.log" for driver, name in SCENARIOS}
    older = {file for file in kept if file.partition("/")[0] not in {made_one.partition("/")[0] for made_one in made}}
    assert kept - older == made
