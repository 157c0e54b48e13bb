"""What Python programs do through `adbc_driver_flightsql`, call by call as its DB-API offers them."""

import datetime
import decimal
import json
import subprocess
import sys
import threading
import time

import adbc_driver_manager
import pyarrow as pa
import pyarrow.compute
import pytest

# Runs for many minutes on two slots: ten billion pairs of rows, in stages. Its first rows come at its end.
LONG = (
    "SELECT a.value % 7, count(*) FROM generate_series(1, 300000) a JOIN generate_series(1, 300000) b "
    "ON a.value % 9 = b.value % 9 GROUP BY 1"
)

# Gives ten rows at once and then none for very long: of its two partitions, the second counts very far and keeps nothing.
ENDLESS = (
    "SELECT value FROM generate_series(1, 10) UNION ALL "
    "SELECT value FROM generate_series(1, 100000000000000) WHERE value % 7 = 8"
)

# Makes a query of little data run in stages of several partitions.
CUT = ["SET windrow.query.partitions = 4", "SET windrow.query.small_input = '0B'"]


def rows(cursor, sql, parameters=None):
    return cursor.execute(sql, parameters).fetchall()


@pytest.fixture
def cut(cursor):
    for statement in CUT:
        cursor.execute(statement)
    return cursor


# Connecting.


def test_the_server_says_who_it_is(connection, windrow):
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "Windrow"
    assert info["vendor_version"] == windrow("--version").split()[-1]
    assert info["driver_name"].startswith("ADBC Flight SQL Driver")


def test_connections_are_many_and_closed_in_any_order(connect):
    connections = [connect() for _ in range(8)]
    for connection in connections[::2]:
        connection.close()
    for connection in connections[1::2]:
        with connection.cursor() as cursor:
            assert rows(cursor, "SELECT 42") == [(42,)]


# Statements without parameters.


def test_execute_gives_rows_with_names_and_types(cursor):
    cursor.execute("SELECT CAST(1 AS BIGINT) AS a, 'x' AS b UNION ALL SELECT 2, NULL ORDER BY a")
    assert [(column[0], column[1]) for column in cursor.description] == [("a", pa.int64()), ("b", pa.string())]
    assert cursor.fetchone() == (1, "x")
    assert cursor.fetchmany(5) == [(2, None)]
    assert cursor.fetchone() is None


def test_one_cursor_runs_one_statement_after_another(cursor):
    for number in range(20):
        assert rows(cursor, f"SELECT {number}") == [(number,)]


def test_a_result_without_rows_has_its_schema(cursor):
    table = cursor.execute("SELECT CAST(1 AS INT) AS a WHERE 1 = 2").fetch_arrow_table()
    assert (table.num_rows, table.schema.field("a").type) == (0, pa.int32())


def test_a_large_result_comes_whole(cursor):
    table = cursor.execute("SELECT value, repeat('x', 100) AS text FROM generate_series(1, 200000)").fetch_arrow_table()
    assert table.num_rows == 200_000
    assert pa.compute.sum(table["value"]).as_py() == 200_000 * 200_001 // 2


def test_rows_arrive_while_the_query_runs(cut, until, slots_used):
    cut.execute(ENDLESS)
    assert len(cut.fetchmany(10)) == 10
    assert slots_used() > 0
    cut.close()
    assert until(lambda: slots_used() == 0, "free slots") < 1.5  # a second, and the time to ask


# Parameters.


def test_execute_binds_one_row_of_parameters(cursor):
    assert rows(cursor, "SELECT ? + 1, ? || '!'", (41, "x")) == [(42, "x!")]
    assert rows(cursor, "SELECT $2, $1", (1, "x")) == [("x", 1)]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**40),
        1.5,
        "text with 'quotes', ? and $1",
        b"\x00\xff",
        decimal.Decimal("12.340"),
        datetime.date(2026, 11, 22),
        datetime.time(1, 2, 3),
        datetime.datetime(2026, 11, 22, 1, 2, 3, 456),
    ],
    ids=repr,
)
def test_a_bound_value_comes_back_as_itself(cursor, value):
    assert rows(cursor, "SELECT ?", (value,)) == [(value,)]


def test_a_bound_value_has_the_type_of_its_place(cursor, name):
    cursor.execute(f"CREATE TABLE {name} AS SELECT CAST(1 AS INT) AS a, DATE '2026-01-01' AS d")
    assert rows(cursor, f"SELECT count(*) FROM {name} WHERE a = ? AND d < ?", (1, "2026-06-01")) == [(1,)]
    assert rows(cursor, f"SELECT count(*) FROM {name} WHERE a IN (?, ?) LIMIT ?", (1, 2, 5)) == [(1,)]


def test_question_marks_in_text_and_comments_are_not_parameters(cursor):
    assert rows(cursor, 'SELECT \'?\', ? -- why?\n, /* ? */ "?" FROM (SELECT 3 AS "?")', (2,)) == [("?", 2, 3)]


def test_a_statement_is_bound_again_on_its_bound_handle(cursor):
    for number in range(5):
        assert rows(cursor, "SELECT ? * 2", (number,)) == [(number * 2,)]


def test_a_statement_is_bound_again_with_another_type(cursor):
    assert rows(cursor, "SELECT ?", (1,)) == [(1,)]
    assert rows(cursor, "SELECT ?", ("x",)) == [("x",)]


def test_several_rows_of_parameters_are_one_result_in_their_order(cursor):
    bound = pa.table({"0": list(range(50))})
    assert rows(cursor, "SELECT CAST(? AS BIGINT) * 3 AS a", bound) == [(number * 3,) for number in range(50)]


def test_named_parameters_are_bound_by_name(cursor):
    bound = pa.table({"high": [2], "low": [1]})
    assert rows(cursor, "SELECT CAST($low AS BIGINT), CAST($high AS BIGINT)", bound) == [(1, 2)]


def test_a_wrong_number_of_parameters_is_refused(cursor):
    for parameters in [(1,), (1, 2, 3)]:
        with pytest.raises(adbc_driver_manager.ProgrammingError):
            cursor.execute("SELECT ?, ?", parameters).fetchall()


def test_prepare_says_what_parameters_there_are(cursor, name):
    cursor.execute(f"CREATE TABLE {name} (a INT, b VARCHAR)")
    schema = cursor.adbc_prepare(f"SELECT * FROM {name} WHERE a > ? AND b = ?")
    assert [field.type for field in schema][0] == pa.int32()
    assert len(schema) == 2


# Statements that change something.


def test_ddl_and_dml_run_once(cursor, name):
    cursor.execute(f"CREATE TABLE {name} (a BIGINT, b VARCHAR)")
    cursor.execute(f"INSERT INTO {name} VALUES (1, 'x'), (2, 'y')")
    assert cursor.rowcount == 2
    assert rows(cursor, f"SELECT * FROM {name} ORDER BY a") == [(1, "x"), (2, "y")]
    cursor.execute(f"INSERT INTO {name} VALUES (?, ?)", (3, "z"))
    assert rows(cursor, f"SELECT count(*), max(b) FROM {name}") == [(3, "z")]
    cursor.execute(f"DROP TABLE {name}")
    with pytest.raises(adbc_driver_manager.ProgrammingError):
        cursor.execute(f"SELECT * FROM {name}")


def test_executemany_is_one_execution(cursor, name):
    cursor.execute(f"CREATE TABLE {name} (a BIGINT, b VARCHAR)")
    cursor.executemany(f"INSERT INTO {name} VALUES (?, ?)", [(number, str(number)) for number in range(1000)])
    assert cursor.rowcount == 1000
    assert rows(cursor, f"SELECT count(*), sum(a), max(b) FROM {name}") == [(1000, 499500, "999")]


def test_executemany_that_fails_changes_nothing(cursor, name):
    cursor.execute(f"CREATE TABLE {name} (a BIGINT)")
    with pytest.raises(adbc_driver_manager.Error):
        cursor.executemany(f"INSERT INTO {name} VALUES (10 / ?)", [(1,), (2,), (0,)])
    assert rows(cursor, f"SELECT count(*) FROM {name}") == [(0,)]


def test_parameters_that_are_too_large_for_a_message_change_nothing(connect, name):
    connection = connect()
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {name} (a BIGINT)")
        with pytest.raises(adbc_driver_manager.Error):
            cursor.executemany(f"INSERT INTO {name} VALUES (?)", pa.record_batch({"0": pa.array(range(5_000_000))}))
    with connection.cursor() as cursor:
        assert rows(cursor, f"SELECT count(*) FROM {name}") == [(0,)]


def test_a_script_runs_in_order_and_stops_at_its_first_error(cursor, name):
    cursor.executescript(f"CREATE TABLE {name} (a BIGINT); INSERT INTO {name} VALUES (1); INSERT INTO {name} VALUES (2);")
    assert rows(cursor, f"SELECT sum(a) FROM {name}") == [(3,)]
    with pytest.raises(adbc_driver_manager.ProgrammingError):
        cursor.executescript(f"INSERT INTO {name} VALUES (4); SELECT nothing; INSERT INTO {name} VALUES (8)")
    assert rows(cursor, f"SELECT sum(a) FROM {name}") == [(7,)]


def test_a_query_holds_one_statement(cursor):
    with pytest.raises(adbc_driver_manager.ProgrammingError):
        cursor.execute("SELECT 1; SELECT 2")


# The catalog.


@pytest.fixture
def table(cursor, name):
    cursor.execute(f"CREATE TABLE {name} (a BIGINT NOT NULL, b VARCHAR, d DATE)")
    return name


def test_get_objects_goes_as_deep_as_it_is_asked(connection, table):
    catalog, schema = connection.adbc_current_catalog, connection.adbc_current_db_schema

    def objects(depth, **filters):
        return connection.adbc_get_objects(depth=depth, **filters).read_all().to_pylist()

    catalogs = {found["catalog_name"]: found["catalog_db_schemas"] for found in objects("catalogs")}
    assert catalog in catalogs and catalogs[catalog] is None
    schemas = {found["catalog_name"]: found["catalog_db_schemas"] for found in objects("db_schemas")}
    assert schema in [found["db_schema_name"] for found in schemas[catalog]]
    for depth in ("tables", "all"):
        (found,) = tables(objects(depth, table_name_filter=table))
        assert (found["table_name"], found["table_type"]) == (table, "TABLE")
        assert (found["table_columns"] is None) == (depth == "tables")
    assert [column["column_name"] for column in found["table_columns"]] == ["a", "b", "d"]
    assert [column["ordinal_position"] for column in found["table_columns"]] == [1, 2, 3]


def tables(catalogs):
    schemas = [schema for catalog in catalogs for schema in catalog["catalog_db_schemas"] or []]
    return [table for schema in schemas for table in schema["db_schema_tables"] or []]


def test_get_objects_filters_by_patterns(connection, table):
    def names(**filters):
        return [found["table_name"] for found in tables(connection.adbc_get_objects(**filters).read_all().to_pylist())]

    schema = connection.adbc_current_db_schema
    assert names(table_name_filter=table[:-1] + "_") == [table]
    assert names(table_name_filter="%" + table[2:]) == [table]
    assert names(table_name_filter=table, db_schema_filter=schema, table_types_filter=["TABLE"]) == [table]
    assert names(table_name_filter=table, table_types_filter=["VIEW"]) == []
    assert names(table_name_filter=table, db_schema_filter="no such") == []
    assert names(table_name_filter="SELECT * FROM t WHERE a LIKE 'x%'") == []


def test_table_types_are_listed(connection):
    assert {"TABLE", "VIEW"} <= set(connection.adbc_get_table_types())


def test_the_schema_of_a_table_is_that_of_its_rows(connection, cursor, table):
    described = connection.adbc_get_table_schema(table)
    cursor.execute(f"SELECT * FROM {table}")
    read = cursor.fetch_arrow_table().schema
    assert described.names == read.names == ["a", "b", "d"]
    assert described.types == read.types == [pa.int64(), pa.string(), pa.date32()]
    assert [field.nullable for field in described] == [False, True, True]


def test_a_table_that_is_not_there_has_no_schema(connection):
    with pytest.raises(adbc_driver_manager.ProgrammingError):
        connection.adbc_get_table_schema("no_such_table")


def test_the_schema_of_a_query_is_known_without_running_it(cursor):
    for sql in ("SELECT 1 AS a, 'x' AS b, 1.5 AS c", LONG):
        described = cursor.adbc_execute_schema(sql)
        assert len(described) > 1
    sql = "SELECT value AS a, CAST(value AS VARCHAR) AS b FROM generate_series(1, 3)"
    assert cursor.adbc_execute_schema(sql).equals(cursor.execute(sql).fetch_arrow_table().schema, check_metadata=True)


# Results in parts.

READER = """
import sys, pyarrow, adbc_driver_flightsql.dbapi as adbc
url, header = sys.argv[1:3]
options = {"adbc.flight.sql.authorization_header": header} if header else {}
with adbc.connect(url, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
    cursor.adbc_read_partition(sys.stdin.buffer.read())
    print(sum(cursor.fetch_arrow_table()["a"].to_pylist()))
"""


def test_partitions_are_read_by_another_process_after_the_statement_is_closed(connect, url, options):
    connection = connect()
    with connection.cursor() as cursor:
        for statement in CUT:
            cursor.execute(statement)
        sql = "SELECT value % 100 AS a FROM generate_series(1, 10000) GROUP BY 1"
        partitions, schema = cursor.adbc_execute_partitions(sql)
    assert schema.names == ["a"]
    sums = []
    for partition in partitions:
        command = [sys.executable, "-c", READER, url, options.get("adbc.flight.sql.authorization_header", "")]
        sums.append(int(subprocess.run(command, input=partition, capture_output=True, check=True).stdout))
    assert sum(sums) == sum(range(100))


def test_partitions_are_read_twice_with_the_same_rows(connection):
    with connection.cursor() as cursor:
        partitions, _schema = cursor.adbc_execute_partitions("SELECT value AS a FROM generate_series(1, 1000)")
    for _ in range(2):
        found = []
        for partition in partitions:
            with connection.cursor() as cursor:
                cursor.adbc_read_partition(partition)
                found += [value for (value,) in cursor.fetchall()]
        assert sorted(found) == list(range(1, 1001))


def test_a_query_is_polled_until_all_its_partitions_are_there(connection, cut):
    with connection.cursor() as cursor:
        cursor.adbc_statement.set_options(**{"adbc.statement.exec.incremental": "true"})
        pairs = "generate_series(1, 1000) a CROSS JOIN generate_series(1, 1000) b"
        sql = f"SELECT a.value % 50 AS a, count(*) AS n FROM {pairs} GROUP BY 1"
        partitions, progress = [], []
        while True:
            more, _schema = cursor.adbc_execute_partitions(sql)
            if not more:
                break
            progress.append(cursor.adbc_statement.get_option_float("adbc.statement.exec.progress"))
            partitions += more
    assert progress == sorted(progress)
    found = []
    for partition in partitions:
        with connection.cursor() as cursor:
            cursor.adbc_read_partition(partition)
            found += cursor.fetchall()
    assert sorted(found) == [(number, 20_000) for number in range(50)]


# Cancelling.


def test_cancel_from_another_thread_frees_the_cluster_within_a_second(cut, slots_used, until):
    failed = []

    def run():
        try:
            cut.execute(LONG).fetchall()
        except adbc_driver_manager.Error as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: slots_used() > 0, "the query runs")
    cut.adbc_cancel()
    cancelled = time.monotonic()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(failed[0], adbc_driver_manager.OperationalError)
    until(lambda: slots_used() == 0, "free slots")
    assert time.monotonic() - cancelled < 1.5


def test_killing_a_client_in_the_middle_of_its_rows_frees_the_cluster(url, options, slots_used, until):
    script = (
        "import sys, adbc_driver_flightsql.dbapi as adbc\n"
        "options = {'adbc.flight.sql.authorization_header': sys.argv[2]} if sys.argv[2] else {}\n"
        "cursor = adbc.connect(sys.argv[1], db_kwargs=options, autocommit=True).cursor()\n"
        "for statement in sys.argv[3:]: cursor.execute(statement)\n"
        "cursor.fetchmany(10); print('reading', flush=True); sys.stdin.read()\n"
    )
    header = options.get("adbc.flight.sql.authorization_header", "")
    command = [sys.executable, "-c", script, url, header, *CUT, ENDLESS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout.readline() == "reading\n"
        client.kill()
    assert until(lambda: slots_used() == 0, "free slots") < 2


# The session.


def option(connection, key):
    return connection.adbc_connection.get_option(f"adbc.flight.sql.session.option.{key}")


def set_option(connection, key, value, kind=""):
    connection.adbc_connection.set_options(**{f"adbc.flight.sql.session.option{kind}.{key}": value})


def test_session_options_are_set_and_read(connection, cursor):
    set_option(connection, "windrow.query.partitions", "3")
    assert int(option(connection, "windrow.query.partitions")) == 3
    assert rows(cursor, "SHOW windrow.query.partitions")[0][-1] == "3"
    set_option(connection, "windrow.query.partitions", 5)
    assert int(option(connection, "windrow.query.partitions")) == 5
    set_option(connection, "windrow.query.runtime_filters", "false", "bool")
    options = json.loads(connection.adbc_connection.get_option("adbc.flight.sql.session.options"))
    assert str(options["windrow.query.runtime_filters"]).lower() == "false"
    assert {"catalog", "schema"} <= options.keys()


def test_an_erased_option_has_its_default(connection):
    before = option(connection, "windrow.query.small_input")
    set_option(connection, "windrow.query.small_input", "1B")
    assert option(connection, "windrow.query.small_input") != before
    set_option(connection, "windrow.query.small_input", "", "erase")
    assert option(connection, "windrow.query.small_input") == before


def test_a_bad_option_is_refused(connection):
    for key, value in [("windrow.query.no_such_setting", "1"), ("windrow.query.partitions", "many")]:
        with pytest.raises(adbc_driver_manager.Error):
            set_option(connection, key, value)


def test_sessions_of_two_connections_are_two(connect):
    first, second = connect(), connect()
    set_option(first, "windrow.query.partitions", "7")
    assert str(option(second, "windrow.query.partitions")) != "7"
    with first.cursor() as cursor:
        cursor.execute("SET windrow.query.partitions = 9")
    assert str(option(first, "windrow.query.partitions")) == "9"


def test_the_current_schema_is_where_names_are_looked_up(connection, cursor, name):
    catalog = connection.adbc_current_catalog
    cursor.execute(f"CREATE SCHEMA s_{name}")
    cursor.execute(f"CREATE TABLE s_{name}.{name} AS SELECT 1 AS a")
    connection.adbc_current_db_schema = f"s_{name}"
    assert (connection.adbc_current_catalog, connection.adbc_current_db_schema) == (catalog, f"s_{name}")
    assert rows(cursor, f"SELECT a FROM {name}") == [(1,)]
    with pytest.raises(adbc_driver_manager.Error):
        connection.adbc_current_catalog = "no_such_catalog"


# Errors.


@pytest.mark.parametrize(
    ("sql", "kind", "words"),
    [
        ("SELEC 1", adbc_driver_manager.ProgrammingError, "SELEC"),
        ("SELECT * FROM no_such_table", adbc_driver_manager.ProgrammingError, "no_such_table"),
        ("SELECT no_such_column FROM (SELECT 1 AS a)", adbc_driver_manager.ProgrammingError, "no_such_column"),
        ("SELECT no_such_function(1)", adbc_driver_manager.ProgrammingError, "no_such_function"),
        ("SET windrow.query.no_such_setting = 1", adbc_driver_manager.ProgrammingError, "no_such_setting"),
        ("BEGIN", adbc_driver_manager.NotSupportedError, ""),
        ("SELECT 1 / (value - 1) FROM generate_series(1, 2)", adbc_driver_manager.OperationalError, "zero"),
        ("SELECT CAST(text AS INT) FROM (VALUES ('no number')) AS t(text)", adbc_driver_manager.OperationalError, "no number"),
    ],
)
def test_an_error_is_of_its_class_and_one_line_long(cursor, sql, kind, words):
    with pytest.raises(kind) as caught:
        cursor.execute(sql).fetchall()
    message = str(caught.value)
    assert words in message
    assert len(message.strip().splitlines()) == 1, message
    assert len(message) < 1500


def test_a_connection_lives_on_after_an_error(cursor):
    for _ in range(3):
        with pytest.raises(adbc_driver_manager.ProgrammingError):
            cursor.execute("SELECT * FROM no_such_table")
        assert rows(cursor, "SELECT 1") == [(1,)]


def test_an_error_comes_out_of_execute(cursor):
    with pytest.raises(adbc_driver_manager.OperationalError):
        cursor.execute("SELECT 1 / (value - value) FROM generate_series(1, 2)")
