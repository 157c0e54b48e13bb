"""One schema for a query: in what prepare, GetFlightInfo and GetSchema say, and before the rows of each endpoint. A driver
refuses rows whose schema differs from the one announced in no more than a column's nullability.
"""

import pytest

from raw import same
from tpch import CUT, QUERIES
from types_of_sql import TYPES, query


def check(client, sql):
    """That every message about `sql` has one schema. Returns the rows of each endpoint."""
    prepared = client.prepare(sql)
    info = client.info("CommandPreparedStatementQuery", prepared_statement_handle=prepared["prepared_statement_handle"])
    rows = [client.get_endpoint(endpoint) for endpoint in info.endpoints]
    schemas = {
        "prepare": prepared["dataset_schema"],
        "FlightInfo, not prepared": client.info("CommandStatementQuery", query=sql).schema,
        "GetSchema": client.schema("CommandStatementQuery", query=sql),
    }
    schemas |= {f"DoGet {number}": part.schema for number, part in enumerate(rows)}
    different = {step: schema for step, schema in schemas.items() if not same(schema, info.schema)}
    assert not different, f"FlightInfo has {info.schema}"
    assert rows
    return rows


@pytest.mark.parametrize("file", QUERIES, ids=lambda file: file.stem)
def test_a_query_of_tpch_has_one_schema(file, tpch, client):
    for statement in tpch + CUT:
        client.update(statement)
    check(client, file.read_text())


@pytest.mark.parametrize("kind", TYPES)
def test_a_type_has_one_schema(client, kind):
    check(client, query(kind))


@pytest.mark.parametrize("partitions", [1, 7])
def test_all_types_in_one_table_have_one_schema(client, partitions):
    for statement in (f"SET windrow.query.partitions = {partitions}", "SET windrow.query.small_input = '0B'"):
        client.update(statement)
    rows = query(*TYPES).replace("ORDER BY value", "")
    assert sum(part.num_rows for part in check(client, f"{rows} UNION ALL {rows}")) == 4
