"""What the tests share: where the cluster is, connections to it, and names for tables that nobody else uses.

`WINDROW_URL` is the cluster's address and `WINDROW_PROGRAM` the program; `WINDROW_TOKEN` is sent as bearer token if it is set. To
run by hand: `windrow local` in one terminal, `WINDROW_URL=grpc://... WINDROW_PROGRAM=... pytest` in another.
"""

import json
import os
import subprocess
import time
import uuid

import adbc_driver_flightsql.dbapi as adbc
import pytest

import tpch as tpch_queries
from raw import Client

# How long what must happen soon may take before a test fails.
LIMIT = 10.0


def required(variable):
    value = os.environ.get(variable)
    if not value:
        pytest.exit(f"{variable} is not set: see conftest.py", returncode=2)
    return value


@pytest.fixture(scope="session")
def url():
    return required("WINDROW_URL")


@pytest.fixture(scope="session")
def options():
    """The driver's options: who connects, and how long it waits."""
    token = os.environ.get("WINDROW_TOKEN")
    header = {"adbc.flight.sql.authorization_header": f"Bearer {token}"} if token else {}
    # The driver waits for ever unless it is told otherwise.
    return header | {f"adbc.flight.sql.rpc.timeout_seconds.{call}": "30" for call in ("fetch", "query", "update")}


@pytest.fixture(scope="session")
def windrow():
    """Runs the program and returns what it prints."""

    def run(*arguments):
        command = [required("WINDROW_PROGRAM"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"})
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def connect(url, options):
    """Opens connections, which are closed after the test."""
    connections = []

    def open_one(**more):
        connection = adbc.connect(url, db_kwargs=options | more, autocommit=True)
        connections.append(connection)
        return connection

    yield open_one
    for connection in connections:
        connection.close()


@pytest.fixture
def connection(connect):
    return connect()


@pytest.fixture
def cursor(connection):
    with connection.cursor() as cursor:
        yield cursor


@pytest.fixture
def client(url):
    """Flight without a driver."""
    with Client(url, os.environ.get("WINDROW_TOKEN")) as client:
        yield client


@pytest.fixture
def name():
    """A table's name."""
    return f"t_{uuid.uuid4().hex}"


@pytest.fixture
def slots_used(windrow, url):
    """How many partitions the cluster computes now."""

    def count():
        status = json.loads(windrow("status", "--connect", url, "--json"))
        return sum(executor["slots_used"] for executor in status["executors"])

    return count


@pytest.fixture
def until():
    """Waits for a condition that nobody announces, and returns the seconds that it took."""

    def wait(condition, what, limit=LIMIT):
        start = time.monotonic()
        while not condition():
            assert time.monotonic() - start < limit, f"waited {limit} s in vain: {what}"
        return time.monotonic() - start

    return wait


@pytest.fixture(scope="session")
def tpch(windrow, tmp_path_factory):
    """The statements that declare the tables of TPC-H."""
    folder = tmp_path_factory.mktemp("tpch")
    windrow("tpch", "--scale", "0.01", "--output", folder)
    return tpch_queries.declared(folder)
