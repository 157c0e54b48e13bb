"""Flight SQL call by call over `pyarrow.flight`, whose stack is that of C++: what a driver does, without the driver."""

import pyarrow as pa
from pyarrow import flight

from proto import pack, pack_any, unpack, unpack_any

# Actions whose bodies and results travel without `Any`.
BARE = {"CancelFlightInfo", "RenewFlightEndpoint", "SetSessionOptions", "GetSessionOptions", "CloseSession"}


class Client:
    """A connection that sends a bearer token, if there is one, and what cookies it was given."""

    def __init__(self, url, token=None, **options):
        self.cookies = {}
        self.url = url
        self.headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        self.flight = flight.connect(url, middleware=[_Cookies(self.cookies)], **options)

    def __enter__(self):
        return self

    def __exit__(self, *_why):
        self.flight.close()

    @property
    def options(self):
        return flight.FlightCallOptions(timeout=60, headers=self.headers)

    def info(self, command, **fields):
        """GetFlightInfo of a command."""
        descriptor = flight.FlightDescriptor.for_command(pack_any(command, **fields))
        return self.flight.get_flight_info(descriptor, self.options)

    def schema(self, command, **fields):
        """GetSchema of a command."""
        descriptor = flight.FlightDescriptor.for_command(pack_any(command, **fields))
        return self.flight.get_schema(descriptor, self.options).schema

    def get(self, ticket):
        """DoGet of a ticket, read to its end."""
        return self.flight.do_get(ticket, self.options).read_all()

    def read(self, info):
        """All rows of a result, endpoint after endpoint, each at the first of its locations as the JDBC driver reads them."""
        return pa.concat_tables(self.get_endpoint(endpoint) for endpoint in info.endpoints)

    def get_endpoint(self, endpoint):
        """The rows of one endpoint."""
        place = endpoint.locations[0].uri.decode() if endpoint.locations else ""
        if not place or place.startswith("arrow-flight-reuse-connection:"):
            return self.get(endpoint.ticket)
        with flight.connect(place) as elsewhere:
            return elsewhere.do_get(endpoint.ticket, self.options).read_all()

    def query(self, sql):
        """The rows of a statement that is not prepared."""
        return self.read(self.info("CommandStatementQuery", query=sql))

    def prepare(self, sql):
        """CreatePreparedStatement, with its schemas decoded."""
        (result,) = self.act("CreatePreparedStatement", query=sql)
        for name in ("dataset_schema", "parameter_schema"):
            encoded = result.get(name)
            result[name] = pa.ipc.read_schema(pa.py_buffer(encoded)) if encoded else None
        return result

    def close(self, handle):
        """ClosePreparedStatement."""
        assert self.act("ClosePreparedStatement", prepared_statement_handle=handle) == []

    def put(self, command, rows, **fields):
        """DoPut of a command with rows, and the message of its answer."""
        descriptor = flight.FlightDescriptor.for_command(pack_any(command, **fields))
        writer, reader = self.flight.do_put(descriptor, rows.schema, self.options)
        with writer:
            for batch in rows.to_batches():
                writer.write_batch(batch)
            writer.done_writing()
            answer = reader.read()
            answer = answer.to_pybytes() if answer is not None else b""
        return unpack(
            "DoPutPreparedStatementResult" if command == "CommandPreparedStatementQuery" else "DoPutUpdateResult", answer
        )

    def update(self, sql):
        """DoPut of a statement, and how many rows it says that it changed."""
        return self.put("CommandStatementUpdate", pa.table({}), query=sql).get("record_count", 0)

    def act(self, action, **fields):
        """An action and its results as dictionaries."""
        if action in BARE:
            body = pack(f"{action}Request", **fields)
        else:
            body = pack_any(f"Action{action}Request", **fields)
        results = self.flight.do_action(flight.Action(action, body), self.options)
        bodies = [result.body.to_pybytes() for result in results]
        if action == "RenewFlightEndpoint":
            return [unpack("FlightEndpoint", body) for body in bodies]
        if action in BARE:
            return [unpack(f"{action}Result", body) for body in bodies]
        return [unpack_any(body)[1] for body in bodies]


class _Cookies(flight.ClientMiddlewareFactory):
    """Sends back what `set-cookie` gave, as drivers do."""

    def __init__(self, cookies):
        self.cookies = cookies

    def start_call(self, info):
        return _CookiesOfCall(self.cookies)


class _CookiesOfCall(flight.ClientMiddleware):
    def __init__(self, cookies):
        self.cookies = cookies

    def sending_headers(self):
        shown = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {"cookie": shown} if shown else {}

    def received_headers(self, headers):
        for cookie in headers.get("set-cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name.strip()] = value.strip()


def same(first, second):
    """Whether two schemas are the same in names, types, nullability and metadata."""
    return first.equals(second, check_metadata=True)
