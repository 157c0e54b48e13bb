"""Plans in the Substrait format instead of SQL: made by the format's own library, sent by the driver and by hand.

The cluster of this file accepts plans; test_flight.py asks one that does not.
"""

import adbc_driver_manager
import pyarrow as pa
import pytest
from pyarrow import flight
from substrait.builders import type as types
from substrait.builders.extended_expression import aggregate_function, column, literal, scalar_function
from substrait.builders.plan import aggregate, filter, join, project, read_named_table, set, sort
from substrait.extension_registry import ExtensionRegistry
from substrait.gen.proto import algebra_pb2, plan_pb2

from raw import same

FUNCTIONS = "https://github.com/substrait-io/substrait/blob/main/extensions/functions_"
NO_ROWS = pa.table({})


@pytest.fixture(scope="module")
def registry():
    return ExtensionRegistry(load_default_extensions=True)


@pytest.fixture
def sales(client, name):
    """A table of four rows, and its name."""
    client.update(
        f"CREATE TABLE {name} AS SELECT * FROM (VALUES (1, 'Bern', 1.5), (2, 'Oslo', 2.5), (3, 'Bern', 3.5), (4, NULL, 4.5))"
        " AS v (id, city, price)"
    )
    yield name
    client.update(f"DROP TABLE {name}")


def read(name):
    columns = [types.i64(), types.string(), types.fp64()]
    return read_named_table(name, types.named_struct(["id", "city", "price"], types.struct(columns)))


def above(plan, price):
    condition = scalar_function(f"{FUNCTIONS}comparison.yaml", "gt", [column("price"), literal(price, types.fp64())])
    return filter(plan, condition)


def by_city(plan):
    total = aggregate_function(f"{FUNCTIONS}arithmetic.yaml", "sum", [column("price")], alias=["total"])
    return sort(aggregate(plan, [column("city")], [total]), [column("city")])


def made(plan, registry):
    return plan(registry).SerializeToString()


@pytest.fixture
def plan(sales, registry):
    """The total of each city, and its answer."""
    return made(by_city(above(read(sales), 2.0)), registry)


ANSWER = [("Bern", 3.5), ("Oslo", 2.5), (None, 4.5)]


def rows(table):
    return [tuple(row.values()) for row in table.to_pylist()]


def test_the_server_says_which_versions_it_reads(client):
    info = client.read(client.info("CommandGetSqlInfo", info=[5, 6, 7]))
    said = dict(zip(info["info_name"].to_pylist(), info["value"].to_pylist(), strict=True))
    assert said[5] is True
    oldest, newest = (tuple(int(part) for part in said[code].split(".")) for code in (6, 7))
    assert oldest < newest
    listed = {action.type for action in client.flight.list_actions(client.options)}
    assert "CreatePreparedSubstraitPlan" in listed


def test_a_plan_by_the_driver(cursor, plan):
    cursor.execute(plan)
    assert rows(cursor.fetch_arrow_table()) == ANSWER
    cursor.execute(plan)
    assert cursor.fetchall() == ANSWER


def test_a_plan_by_the_drivers_own_calls(connection, plan):
    with adbc_driver_manager.AdbcStatement(connection.adbc_connection) as statement:
        statement.set_substrait_plan(plan)
        statement.prepare()
        stream, _ = statement.execute_query()
        assert rows(pa.RecordBatchReader._import_from_c(stream.address).read_all()) == ANSWER
        statement.set_substrait_plan(plan)
        assert statement.execute_update() == -1


def test_joins_unions_and_expressions(client, sales, registry):
    left = project(read(sales), [column("id", alias="left_id"), column("city")])
    right = project(read(sales), [column("id", alias="right_id"), column("price")])
    matches = scalar_function(f"{FUNCTIONS}comparison.yaml", "equal", [column("left_id"), column("right_id")])
    joined = join(left, right, matches, algebra_pb2.JoinRel.JOIN_TYPE_INNER)
    twice = scalar_function(f"{FUNCTIONS}arithmetic.yaml", "multiply", [column("price"), literal(2.0, types.fp64())])
    doubled = sort(project(joined, [column("left_id"), twice]), [column("left_id")])
    assert rows(query(client, made(doubled, registry))) == [(1, 3.0), (2, 5.0), (3, 7.0), (4, 9.0)]
    both = set([read(sales), above(read(sales), 4.0)], algebra_pb2.SetRel.SET_OP_UNION_ALL)
    assert query(client, made(both, registry)).num_rows == 5


def query(client, plan):
    return client.read(client.info("CommandStatementSubstraitPlan", plan={"plan": plan}))


def test_every_message_has_the_one_schema_of_the_plan(client, plan):
    info = client.info("CommandStatementSubstraitPlan", plan={"plan": plan})
    assert info.schema.names == ["city", "total"]
    assert same(info.schema, client.schema("CommandStatementSubstraitPlan", plan={"plan": plan}))
    table = client.read(info)
    assert same(info.schema, table.schema) and rows(table) == ANSWER
    (prepared,) = client.act("CreatePreparedSubstraitPlan", plan={"plan": plan})
    assert prepared["is_update"] is False
    assert same(pa.ipc.read_schema(pa.py_buffer(prepared["dataset_schema"])), info.schema)
    assert len(pa.ipc.read_schema(pa.py_buffer(prepared["parameter_schema"]))) == 0


def test_a_handle_of_a_plan_is_one_like_others(client, plan):
    (prepared,) = client.act("CreatePreparedSubstraitPlan", plan={"plan": plan})
    handle = prepared["prepared_statement_handle"]
    for _ in range(2):
        info = client.info("CommandPreparedStatementQuery", prepared_statement_handle=handle)
        assert rows(client.read(info)) == ANSWER
    bound = client.put("CommandPreparedStatementQuery", pa.table({"0": [1]}), prepared_statement_handle=handle)
    with pytest.raises(pa.ArrowInvalid, match="0 parameters"):
        client.info("CommandPreparedStatementQuery", prepared_statement_handle=bound["prepared_statement_handle"])
    client.close(handle)


def test_a_plan_that_is_put_runs_to_its_end(client, plan):
    assert client.put("CommandStatementSubstraitPlan", NO_ROWS, plan={"plan": plan}) == {"record_count": -1}
    with pytest.raises(pa.ArrowNotImplementedError, match=r"0\.10000\.0"):
        client.put("CommandStatementSubstraitPlan", NO_ROWS, plan={"plan": plan, "version": "0.10000.0"})
    with pytest.raises(pa.ArrowNotImplementedError, match="transactions"):
        client.put("CommandStatementSubstraitPlan", NO_ROWS, plan={"plan": plan}, transaction_id=b"x")


def test_plans_that_cannot_be_used_are_refused_in_a_line(client, sales, registry, plan):
    newer = plan_pb2.Plan.FromString(plan)
    newer.version.minor_number = 10_000
    file = plan_pb2.Plan.FromString(made(read(sales), registry))
    files = file.relations[0].root.input.read.local_files
    files.items.add().uri_file = "file:///etc/passwd"
    for bad, kind, says in [
        (b"", pa.ArrowInvalid, "empty plan"),
        (b"garbage", pa.ArrowInvalid, "no Substrait plan"),
        (plan[: len(plan) // 2], pa.ArrowInvalid, "plan"),
        (newer.SerializeToString(), pa.ArrowNotImplementedError, "0.10000.0"),
        (file.SerializeToString(), pa.ArrowNotImplementedError, "by their names"),
        (made(read("no_such_table"), registry), (flight.FlightError, pa.ArrowException), "no_such_table"),
    ]:
        with pytest.raises(kind, match=says) as caught:
            query(client, bad)
        assert len(str(caught.value)) < 4096
    assert rows(query(client, plan)) == ANSWER
