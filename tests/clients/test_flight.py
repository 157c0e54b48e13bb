"""Flight SQL without a driver: the calls of the JDBC driver in its order, and what no Python driver asks for."""

import pyarrow as pa
import pytest
from pyarrow import flight

from raw import Client, same

NO_ROWS = pa.table({})

# SqlInfo codes by the type that drivers cast the value to, whatever the code's text says.
STRINGS = {0, 1, 2, 6, 7, 504, 513, 514, 529, 530, 531}
TRUE = {4, 9, 10, 501, 502, 506, 515, 516, 518, 520, 521, 523, 524, 532, 539, 556, 572}
FALSE = {3, 5, 11, 500, 519, 527, 536, 537, 563, 565, 566, 573, 574, 575, 576}
INT32 = {8, 100, 101, 522, 525, 526, 528, 533, 534, 535, 538, 540, 564, 567, 568, 569, 570, 571}
INT64 = {503, 505, 507, *range(541, 556), 557, 558, 559, 560, 561, 562}
LISTS = {508, 509, 510, 511, 512}
MAPS = {517}
CHILD = {"string_value": STRINGS, "bool_value": TRUE | FALSE, "bigint_value": INT64, "int32_bitmask": INT32}
CHILD |= {"string_list": LISTS, "int32_to_int32_list_map": MAPS}

# What the value of a code may be, in this order: drivers know the third child by its number.
SQL_INFO = [
    ("string_value", pa.string()),
    ("bool_value", pa.bool_()),
    ("bigint_value", pa.int64()),
    ("int32_bitmask", pa.int32()),
    ("string_list", pa.list_(pa.string())),
    ("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
]


def names(schema):
    return [(field.name, field.type) for field in schema]


@pytest.fixture
def cut(client):
    """A session whose queries run in stages of several partitions."""
    client.act(
        "SetSessionOptions", session_options=[text("windrow.query.partitions", "4"), text("windrow.query.small_input", "0B")]
    )
    return client


def text(key, value):
    return {"key": key, "value": {"string_value": value}}


PARTS = "SELECT value % 100 AS a, count(*) AS n FROM generate_series(1, 10000) GROUP BY 1"


# The JDBC driver.


def test_the_sequence_of_the_jdbc_driver(client, name):
    """Connect with a catalog, a batch of inserts, a query with parameters read from each location, metadata, close."""
    options = session(client)
    assert client.act("SetSessionOptions", session_options=[text("catalog", options["catalog"])]) == [{"errors": []}]
    client.read(client.info("CommandGetSqlInfo", info=[]))

    created = client.prepare(f"CREATE TABLE {name} (a BIGINT, b VARCHAR)")
    assert created["is_update"] and not created["dataset_schema"]
    done = client.put("CommandPreparedStatementUpdate", NO_ROWS, prepared_statement_handle=created["prepared_statement_handle"])
    assert done.get("record_count", 0) == 0
    client.close(created["prepared_statement_handle"])

    inserted = client.prepare(f"INSERT INTO {name} VALUES (?, ?)")
    assert inserted["is_update"] and inserted["parameter_schema"].types == [pa.int64(), pa.string()]
    batch = pa.table({"0": [1, 2, 3], "1": ["x", "y", None]})
    handle = inserted["prepared_statement_handle"]
    assert client.put("CommandPreparedStatementUpdate", batch, prepared_statement_handle=handle) == {"record_count": 3}
    client.close(handle)

    queried = client.prepare(f"SELECT a, b FROM {name} WHERE a > ? ORDER BY a")
    assert queried["is_update"] is False and names(queried["dataset_schema"]) == [("a", pa.int64()), ("b", pa.string())]
    bound = client.put(
        "CommandPreparedStatementQuery", pa.table({"0": [1]}), prepared_statement_handle=queried["prepared_statement_handle"]
    )
    info = client.info("CommandPreparedStatementQuery", prepared_statement_handle=bound["prepared_statement_handle"])
    assert client.read(info).to_pydict() == {"a": [2, 3], "b": ["y", None]}
    client.close(bound["prepared_statement_handle"])

    tables = client.read(client.info("CommandGetTables", table_name_filter_pattern=name, include_schema=True))
    assert tables["table_name"].to_pylist() == [name]
    assert client.act("CloseSession") == [{"status": 1}]


def session(client):
    """The session's options, each as the value that it holds."""
    (result,) = client.act("GetSessionOptions")
    return {entry["key"]: next(iter(entry.get("value", {}).values()), None) for entry in result["session_options"]}


def test_closing_a_session_twice_is_no_error(client):
    client.query("SELECT 1")
    for _ in range(2):
        (result,) = client.act("CloseSession")
        assert result["status"] in (1, 2)


def test_a_located_endpoint_answers_what_a_new_connection_asks(cut):
    """The JDBC driver opens a connection to each location, and begins it as every other one."""
    info = cut.info("CommandStatementQuery", query=PARTS)
    places = {location.uri.decode() for endpoint in info.endpoints for location in endpoint.locations}
    for place in places - {"arrow-flight-reuse-connection://?"}:
        with Client(place) as executor:
            executor.headers = cut.headers
            executor.act("SetSessionOptions", session_options=[text("catalog", "windrow")])
            executor.act("CloseSession")


# The server's information.


def test_the_servers_information_has_the_schema_that_drivers_expect(client):
    info = client.info("CommandGetSqlInfo", info=[8])
    rows = client.read(info)
    assert same(info.schema, rows.schema)
    code, value = info.schema
    assert (code.name, code.type, value.name, value.type.mode) == ("info_name", pa.uint32(), "value", "dense")
    assert names(value.type) == SQL_INFO
    assert rows["info_name"].to_pylist() == [8]
    assert rows["value"].chunk(0).type_codes.to_pylist() == [3]
    assert rows["value"].to_pylist() == [0]


def test_the_whole_information_is_there_each_value_of_its_type(client):
    rows = client.read(client.info("CommandGetSqlInfo", info=[]))
    found = {}
    for chunk in rows.to_batches():
        values = chunk.column("value")
        for code, kind, value in zip(
            chunk["info_name"].to_pylist(), values.type_codes.to_pylist(), values.to_pylist(), strict=True
        ):
            assert code not in found, f"{code} is there twice"
            found[code] = (values.type.field(kind).name, value)
    for child, codes in CHILD.items():
        wrong = {code: found.get(code) for code in codes if found.get(code, ("nothing",))[0] != child}
        assert not wrong, f"not of {child}"
    assert found.keys() == set().union(*CHILD.values())
    assert {code for code in TRUE if not found[code][1]} == set()
    assert {code for code in FALSE if found[code][1]} == set()
    assert (found[0][1], found[504][1], found[8][1]) == ("Windrow", '"', 0)
    assert all(found[code][1] for code in LISTS | MAPS)


def test_information_is_given_in_part(client):
    rows = client.read(client.info("CommandGetSqlInfo", info=[0, 504]))
    assert dict(zip(rows["info_name"].to_pylist(), rows["value"].to_pylist(), strict=True)) == {0: "Windrow", 504: '"'}


# Metadata. The names are those that the JDBC driver has written down in its code.

METADATA = {
    "CommandGetCatalogs": [("catalog_name", pa.string())],
    "CommandGetDbSchemas": [("catalog_name", pa.string()), ("db_schema_name", pa.string())],
    "CommandGetTableTypes": [("table_type", pa.string())],
    "CommandGetTables": [
        ("catalog_name", pa.string()),
        ("db_schema_name", pa.string()),
        ("table_name", pa.string()),
        ("table_type", pa.string()),
    ],
    "CommandGetPrimaryKeys": [
        ("catalog_name", pa.string()),
        ("db_schema_name", pa.string()),
        ("table_name", pa.string()),
        ("column_name", pa.string()),
        ("key_name", pa.string()),
        ("key_sequence", pa.int32()),
    ],
}
KEYS = [
    (f"{side}_{part}", pa.string())
    for side in ("pk", "fk")
    for part in ("catalog_name", "db_schema_name", "table_name", "column_name")
]
KEYS += [("key_sequence", pa.int32()), ("fk_key_name", pa.string()), ("pk_key_name", pa.string())]
KEYS += [("update_rule", pa.uint8()), ("delete_rule", pa.uint8())]


@pytest.mark.parametrize("command", METADATA)
def test_metadata_has_its_schema_at_each_step(client, command):
    fields = {"table": "t"} if command == "CommandGetPrimaryKeys" else {}
    info = client.info(command, **fields)
    assert names(info.schema) == METADATA[command]
    assert same(client.schema(command, **fields), info.schema)
    for endpoint in info.endpoints:
        assert same(client.get_endpoint(endpoint).schema, info.schema)


@pytest.mark.parametrize("command", ["CommandGetExportedKeys", "CommandGetImportedKeys", "CommandGetCrossReference"])
def test_foreign_keys_are_none_with_their_schema(client, command):
    fields = {"pk_table": "t", "fk_table": "u"} if command == "CommandGetCrossReference" else {"table": "t"}
    rows = client.read(client.info(command, **fields))
    assert names(rows.schema) == KEYS
    assert rows.num_rows == 0


def test_the_types_of_columns_are_listed(client):
    rows = client.read(client.info("CommandGetXdbcTypeInfo"))
    assert rows.column_names[:3] == ["type_name", "data_type", "column_size"]
    assert rows.num_rows > 5


def test_the_schema_of_a_table_is_in_an_encapsulated_message(client, name):
    client.update(f"CREATE TABLE {name} (a BIGINT NOT NULL, b VARCHAR)")
    rows = client.read(client.info("CommandGetTables", table_name_filter_pattern=name, include_schema=True))
    assert rows.column_names == ["catalog_name", "db_schema_name", "table_name", "table_type", "table_schema"]
    (row,) = rows.to_pylist()
    schema = pa.ipc.read_schema(pa.py_buffer(row["table_schema"]))
    assert names(schema) == [("a", pa.int64()), ("b", pa.string())]
    assert [field.nullable for field in schema] == [False, True]


@pytest.mark.parametrize(("catalog", "found"), [(None, True), ("", False), ("no such catalog", False)])
def test_no_catalog_is_all_and_an_empty_name_is_those_without(client, catalog, found):
    rows = client.read(client.info("CommandGetDbSchemas", catalog=catalog))
    assert (rows.num_rows > 0) == found


# Statements.


@pytest.mark.parametrize(
    "sql", ["SELECT 1 AS a", "VALUES (1)", "EXPLAIN SELECT 1", "SHOW windrow.query.partitions", "DESCRIBE x"]
)
def test_a_statement_with_rows_is_no_update(client, name, sql):
    if sql == "DESCRIBE x":
        client.update(f"CREATE TABLE {name} (a BIGINT)")
        sql = f"DESCRIBE {name}"
    prepared = client.prepare(sql)
    assert prepared["is_update"] is False
    assert len(prepared["dataset_schema"]) > 0
    info = client.info("CommandPreparedStatementQuery", prepared_statement_handle=prepared["prepared_statement_handle"])
    assert same(info.schema, prepared["dataset_schema"])
    assert same(client.read(info).schema, prepared["dataset_schema"])


@pytest.mark.parametrize(
    "sql",
    ["CREATE TABLE {} (a INT)", "CREATE VIEW {} AS SELECT 1", "DROP TABLE IF EXISTS {}", "SET windrow.query.partitions = 2"],
)
def test_a_statement_without_rows_is_an_update(client, name, sql):
    prepared = client.prepare(sql.format(name))
    assert prepared["is_update"] is True
    assert not prepared["dataset_schema"]


def test_a_statement_that_writes_runs_once_on_the_path_of_queries_too(client, name):
    client.update(f"CREATE TABLE {name} (a BIGINT)")
    info = client.info("CommandStatementQuery", query=f"INSERT INTO {name} VALUES (1), (2)")
    for _ in range(2):
        assert client.read(info).to_pydict() == {"count": [2]}
    client.info("CommandStatementQuery", query=f"INSERT INTO {name} VALUES (3)")  # and nobody reads
    client.schema("CommandStatementQuery", query=f"INSERT INTO {name} VALUES (4)")
    client.prepare(f"INSERT INTO {name} VALUES (5)")
    assert sorted(client.query(f"SELECT a FROM {name}")["a"].to_pylist()) == [1, 2, 3]


def test_an_update_counts_its_rows(client, name):
    assert client.update(f"CREATE TABLE {name} (a BIGINT)") == 0
    assert client.update(f"INSERT INTO {name} VALUES (1), (2), (3)") == 3


def test_get_schema_of_a_query_is_the_schema_of_its_rows(client):
    sql = "SELECT 1 AS a, 'x' AS b, CAST(1.5 AS DECIMAL(10, 2)) AS c"
    assert same(client.schema("CommandStatementQuery", query=sql), client.query(sql).schema)
    prepared = client.prepare(sql)
    handle = prepared["prepared_statement_handle"]
    assert same(client.schema("CommandPreparedStatementQuery", prepared_statement_handle=handle), prepared["dataset_schema"])


def test_a_column_says_the_name_of_its_type(client):
    field = client.info("CommandStatementQuery", query="SELECT CAST(1.5 AS DECIMAL(10, 2)) AS c").schema.field("c")
    assert {b"ARROW:FLIGHT:SQL:TYPE_NAME", b"ARROW:FLIGHT:SQL:PRECISION", b"ARROW:FLIGHT:SQL:SCALE"} <= field.metadata.keys()
    assert (field.metadata[b"ARROW:FLIGHT:SQL:PRECISION"], field.metadata[b"ARROW:FLIGHT:SQL:SCALE"]) == (b"10", b"2")


def test_a_path_names_a_table(client, name):
    client.update(f"CREATE TABLE {name} AS SELECT 7 AS a")
    options = session(client)
    for path in ([name], [options["schema"], name], [options["catalog"], options["schema"], name]):
        info = client.flight.get_flight_info(flight.FlightDescriptor.for_path(*path), client.options)
        assert client.read(info).to_pydict() == {"a": [7]}


# Results.


def test_a_result_has_several_endpoints_and_is_read_again(cut):
    info = cut.info("CommandStatementQuery", query=PARTS)
    assert len(info.endpoints) > 1
    assert all(endpoint.expiration_time is not None for endpoint in info.endpoints)
    first, second = cut.read(info), cut.read(info)
    assert first.equals(second)
    assert sorted(first["a"].to_pylist()) == list(range(100))


def test_an_ordered_result_has_one_endpoint(cut):
    info = cut.info("CommandStatementQuery", query=PARTS + " ORDER BY a")
    assert len(info.endpoints) == 1
    assert cut.read(info)["a"].to_pylist() == list(range(100))


def test_an_endpoint_is_renewed(cut):
    info = cut.info("CommandStatementQuery", query=PARTS)
    endpoint = info.endpoints[0]
    (renewed,) = cut.act("RenewFlightEndpoint", endpoint=endpoint_fields(endpoint))
    assert renewed["expiration_time"]["seconds"] >= int(endpoint.expiration_time.as_py().timestamp())
    assert cut.get(flight.Ticket(renewed["ticket"]["ticket"])).equals(cut.get(endpoint.ticket))


def endpoint_fields(endpoint):
    return {
        "ticket": {"ticket": endpoint.ticket.ticket},
        "location": [{"uri": location.uri.decode()} for location in endpoint.locations],
        "app_metadata": endpoint.app_metadata,
    }


def info_fields(info):
    """What CancelFlightInfo must know of a result."""
    return {"endpoint": [endpoint_fields(endpoint) for endpoint in info.endpoints], "app_metadata": info.app_metadata}


# Runs for many minutes: its first partition has ten rows, and the other counts very far and keeps nothing.
ENDLESS = (
    "SELECT value FROM generate_series(1, 10) UNION ALL "
    "SELECT value FROM generate_series(1, 100000000000000) WHERE value % 7 = 8"
)


def test_a_result_is_cancelled_by_its_flight_info_from_another_connection(cut, url, slots_used, until):
    info = cut.info("CommandStatementQuery", query=ENDLESS)
    until(lambda: slots_used() > 0, "the query runs")
    with Client(url) as other:
        other.headers, other.cookies["arrow_flight_session_id"] = cut.headers, cut.cookies.get("arrow_flight_session_id", "")
        for _ in range(2):
            (result,) = other.act("CancelFlightInfo", info=info_fields(info))
            assert result["status"] in (1, 2)
    assert until(lambda: slots_used() == 0, "free slots") < 1.5
    with pytest.raises(flight.FlightError):
        cut.read(info)


def test_cancelling_what_was_never_there_is_not_found(client):
    with pytest.raises((flight.FlightError, pa.ArrowKeyError)):
        client.act("CancelFlightInfo", info={"app_metadata": b"no such job", "endpoint": []})


def test_unexpired_results_are_listed(cut):
    info = cut.info("CommandStatementQuery", query=PARTS)
    listed = list(cut.flight.list_flights(b"", cut.options))
    assert info.app_metadata in [found.app_metadata for found in listed]


def test_closing_a_session_frees_its_results(cut):
    info = cut.info("CommandStatementQuery", query=PARTS)
    cut.act("CloseSession")
    with pytest.raises((flight.FlightError, pa.ArrowKeyError)):
        cut.read(info)


# The session.


def test_session_options_are_typed_and_erased(client):
    before = session(client)
    assert {"catalog", "schema", "windrow.query.partitions"} <= before.keys()
    wanted = [{"key": "windrow.query.partitions", "value": {"int64_value": 3}}]
    wanted.append({"key": "windrow.query.runtime_filters", "value": {"bool_value": False}})
    assert client.act("SetSessionOptions", session_options=wanted) == [{"errors": []}]
    assert int(session(client)["windrow.query.partitions"]) == 3
    client.act(
        "SetSessionOptions",
        session_options=[{"key": key, "value": {}} for key in ("windrow.query.partitions", "windrow.query.runtime_filters")],
    )
    assert session(client) == before


def test_each_bad_option_is_in_the_answer_and_the_others_hold(client):
    wanted = [
        text("windrow.query.no_such_setting", "1"),
        text("windrow.query.partitions", "many"),
        text("windrow.query.small_input", "1B"),
    ]
    (result,) = client.act("SetSessionOptions", session_options=wanted)
    errors = {entry["key"]: entry["value"]["value"] for entry in result["errors"]}
    assert errors == {"windrow.query.no_such_setting": 1, "windrow.query.partitions": 2}
    assert session(client)["windrow.query.small_input"] != "8MB"


# What is listed, and what is not there.


def test_exactly_the_actions_that_are_there_are_listed(client):
    listed = {action.type for action in client.flight.list_actions(client.options)}
    sql = {"CreatePreparedStatement", "CreatePreparedSubstraitPlan", "ClosePreparedStatement", "CancelQuery"}
    bare = {"CancelFlightInfo", "RenewFlightEndpoint", "SetSessionOptions", "GetSessionOptions", "CloseSession"}
    # Of plans too, where they are accepted, which is not here.
    assert {action for action in listed if not action.startswith("windrow.")} == (sql | bare) - {"CreatePreparedSubstraitPlan"}


@pytest.mark.parametrize("plan", [b"", b"garbage"])
def test_a_plan_is_refused_with_the_flag_that_accepts_it(client, plan):
    for call in (
        lambda: client.info("CommandStatementSubstraitPlan", plan={"plan": plan}),
        lambda: client.schema("CommandStatementSubstraitPlan", plan={"plan": plan}),
        lambda: client.put("CommandStatementSubstraitPlan", NO_ROWS, plan={"plan": plan}),
        lambda: client.act("CreatePreparedSubstraitPlan", plan={"plan": plan}),
    ):
        with pytest.raises(pa.ArrowNotImplementedError, match="--accept-plans"):
            call()


@pytest.mark.parametrize("action", ["BeginTransaction", "NoSuchAction"])
def test_an_action_that_is_not_there_is_unimplemented(client, action):
    with pytest.raises(pa.ArrowNotImplementedError):
        list(client.flight.do_action(flight.Action(action, b""), client.options))


@pytest.mark.parametrize("ticket", [b"", b"garbage", b"\x00" * 64])
def test_a_ticket_of_nobody_is_refused(client, ticket):
    with pytest.raises((flight.FlightError, pa.ArrowException)) as caught:
        client.get(flight.Ticket(ticket))
    assert "panic" not in str(caught.value)


def test_a_ticket_with_a_flipped_byte_is_refused(cut):
    ticket = cut.info("CommandStatementQuery", query=PARTS).endpoints[0].ticket.ticket
    for position in range(0, len(ticket), 7):
        flipped = bytearray(ticket)
        flipped[position] ^= 0x55
        with pytest.raises((flight.FlightError, pa.ArrowException)):
            cut.get(flight.Ticket(bytes(flipped)))


def test_a_command_of_nobody_is_refused_in_one_line(client):
    for command in (b"", b"garbage", b"\xff" * 100):
        with pytest.raises((flight.FlightError, pa.ArrowException)) as caught:
            client.flight.get_flight_info(flight.FlightDescriptor.for_command(command), client.options)
        assert len(str(caught.value)) < 4096
