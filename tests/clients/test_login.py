"""Who may connect: names and passwords, bearer tokens, and encryption with the certificates of `windrow certs init`.

These tests start a scheduler and an executor of their own, since the cluster of the other files is one user's.
"""

import os
import re
import subprocess
import time

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pyarrow as pa
import pytest
from pyarrow import flight

from conftest import required

PASSWORD = "correct horse battery staple"
ADDRESS = re.compile(r"(127\.0\.0\.1:[1-9]\d*)")


def program(*arguments, **options):
    command = [required("WINDROW_PROGRAM"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout


class Process:
    """A long-running one, which is over when it is left. Settings are those of `[security]`."""

    def __init__(self, printed, *arguments, **settings):
        command = [required("WINDROW_PROGRAM"), *map(str, arguments)]
        variables = {f"WINDROW_SECURITY__{name.upper()}": str(value) for name, value in settings.items()}
        self.printed = printed
        with printed.open("wb") as output:
            environment = os.environ | variables | {"NO_COLOR": "1"}
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)

    def __enter__(self):
        return self

    def __exit__(self, *_why):
        self.process.kill()
        self.process.wait()

    def ended(self, limit):
        """Whether it ends by itself within so many seconds."""
        try:
            return self.process.wait(limit) is not None
        except subprocess.TimeoutExpired:
            return False

    def address(self, limit=30):
        """The first address that it prints."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline and not self.ended(0.05):
            if found := ADDRESS.search(self.printed.read_text()):
                return found.group(1)
        raise AssertionError(f"it printed no address:\n{self.printed.read_text()}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("login")
    program("certs", "init", "--output", folder / "certs")
    program(
        "user", "add", "alice", "--role", "writer", "--users-file", folder / "users", "--password-stdin", input=PASSWORD + "\n"
    )
    program(
        "user", "add", "rita", "--role", "reader", "--users-file", folder / "users", "--password-stdin", input=PASSWORD + "\n"
    )
    program("secret", "create", "--output", folder / "secret")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    certs = folder / "certs"
    both = {"secret_file": folder / "secret", "tls_ca": certs / "ca.pem"}
    serving = {"users_file": folder / "users", "tls_certificate": certs / "server.pem", "tls_key": certs / "server-key.pem"}
    working = {"tls_certificate": certs / "executor.pem", "tls_key": certs / "executor-key.pem"}
    with Process(folder / "scheduler.log", "scheduler", "--bind", "127.0.0.1:0", **both, **serving) as scheduler:
        address = scheduler.address()
        executor = ["executor", "--scheduler", address, "--slots", "2", "--memory-limit", "256MB"]
        with Process(folder / "executor.log", *executor, **both, **working):
            yield f"grpc+tls://{address}"


@pytest.fixture(scope="module")
def authority(folder):
    return (folder / "certs/ca.pem").read_text()


@pytest.fixture
def login(server, authority):
    """Opens connections, which are closed after the test."""
    opened = []

    def connect(**options):
        base = {"adbc.flight.sql.client_option.tls_root_certs": authority, "adbc.flight.sql.rpc.timeout_seconds.query": "30"}
        opened.append(adbc.connect(server, db_kwargs=base | options, autocommit=True))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def one(connection, sql="SELECT 42"):
    with connection.cursor() as cursor:
        return cursor.execute(sql).fetchall()


def test_the_right_password_connects(login):
    assert one(login(username="alice", password=PASSWORD)) == [(42,)]


def test_an_unknown_user_and_a_wrong_password_are_told_the_same(login):
    told = []
    for username, password in [("alice", "wrong"), ("nobody", PASSWORD), ("alice", ""), ("", "")]:
        with pytest.raises(adbc_driver_manager.ProgrammingError) as caught:
            one(login(username=username, password=password))
        told.append(str(caught.value))
    assert len(set(told[:3])) == 1
    assert not any(PASSWORD in text or "alice" in text for text in told)


def test_nobody_connects_without_credentials(login):
    with pytest.raises(adbc_driver_manager.ProgrammingError):
        one(login())
    with pytest.raises(adbc_driver_manager.ProgrammingError):
        one(login(**{"adbc.flight.sql.authorization_header": "Bearer ws1.garbage"}))


@pytest.fixture
def client(server, authority):
    with flight.connect(server, tls_root_certs=authority) as client:
        yield client


def test_the_bearer_of_a_handshake_is_used_again_by_other_connections(login, client):
    name, value = client.authenticate_basic_token("alice", PASSWORD)
    assert (name, value[:7]) == (b"authorization", b"Bearer ")
    for _ in range(2):
        assert one(login(**{"adbc.flight.sql.authorization_header": value.decode()})) == [(42,)]


def test_two_handshakes_give_two_bearers(client):
    first, second = (client.authenticate_basic_token("alice", PASSWORD) for _ in range(2))
    assert first != second


def test_a_bearer_with_a_changed_byte_is_refused(client, login):
    _name, value = client.authenticate_basic_token("alice", PASSWORD)
    text = value.decode()
    middle = len(text) // 2
    changed = text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]
    with pytest.raises(adbc_driver_manager.ProgrammingError):
        one(login(**{"adbc.flight.sql.authorization_header": changed}))


def test_every_call_without_credentials_is_refused(client):
    command = flight.FlightDescriptor.for_command(b"")
    schema = pa.schema([("a", pa.int64())])
    calls = {
        "GetFlightInfo": lambda: client.get_flight_info(command),
        "GetSchema": lambda: client.get_schema(command),
        "DoGet": lambda: client.do_get(flight.Ticket(b"")).read_all(),
        "DoPut": lambda: client.do_put(command, schema)[1].read(),
        "DoExchange": lambda: client.do_exchange(command)[1].read_all(),
        "ListFlights": lambda: list(client.list_flights()),
        "ListActions": lambda: list(client.list_actions()),
    }
    for action in ("CreatePreparedStatement", "CloseSession", "windrow.status", "windrow.drain", "NoSuchAction"):
        calls[action] = lambda action=action: list(client.do_action(flight.Action(action, b"")))
    answered = {}
    for name, call in calls.items():
        try:
            call()
        except flight.FlightUnauthenticatedError:
            continue
        except Exception as error:
            if "unauthenticated" not in str(error):  # pyarrow raises OSError from GetSchema
                answered[name] = error
        else:
            answered[name] = "no error"
    assert not answered


def test_a_reader_may_read_and_not_write(login):
    connection = login(username="rita", password=PASSWORD)
    assert one(connection) == [(42,)]
    with pytest.raises(adbc_driver_manager.ProgrammingError), connection.cursor() as cursor:
        cursor.execute("CREATE TABLE of_a_reader AS SELECT 1 AS a")


def test_a_result_is_its_owners(login, client):
    with login(username="alice", password=PASSWORD).cursor() as cursor:
        partitions, _schema = cursor.adbc_execute_partitions("SELECT 1 AS a")
    with login(username="alice", password=PASSWORD).cursor() as cursor:
        cursor.adbc_read_partition(partitions[0])
        assert cursor.fetchall() == [(1,)]
    with login(username="rita", password=PASSWORD).cursor() as cursor, pytest.raises(adbc_driver_manager.Error):
        cursor.adbc_read_partition(partitions[0])
        cursor.fetchall()


def test_a_client_that_does_not_trust_the_authority_does_not_connect(server):
    with pytest.raises(adbc_driver_manager.Error):
        adbc.connect(server, db_kwargs={"username": "alice", "password": PASSWORD}, autocommit=True)


def test_a_client_without_encryption_does_not_connect(server):
    plain = server.replace("grpc+tls", "grpc")
    with pytest.raises(adbc_driver_manager.Error):
        adbc.connect(plain, db_kwargs={"username": "alice", "password": PASSWORD}, autocommit=True)
