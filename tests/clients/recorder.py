"""A Flight SQL server that runs nothing: it writes down what a client sends, one line a call, and answers so that it goes on.

Messages are shown by name and fields, credentials by their scheme alone. Next: test_recorder.py, which records every driver at
what users do with it and compares with the folder golden/.
"""

import base64
import threading

import pyarrow as pa
from pyarrow import flight

from proto import pack, pack_any, unpack, unpack_any

# Headers of every call, which say nothing about the protocol.
COMMON = {"user-agent", "content-type", "te", "grpc-accept-encoding", "accept-encoding", "grpc-encoding", "grpc-timeout"}

# What actions carry: these without `Any`.
BARE = {
    "CancelFlightInfo": "CancelFlightInfoRequest",
    "RenewFlightEndpoint": "RenewFlightEndpointRequest",
    "SetSessionOptions": "SetSessionOptionsRequest",
    "GetSessionOptions": "GetSessionOptionsRequest",
    "CloseSession": "CloseSessionRequest",
}

READS = ("SELECT", "VALUES", "WITH", "SHOW", "EXPLAIN")

ROWS = pa.table({"a": pa.array([1, 2, 3], pa.int64()), "b": ["x", "y", "z"]})

SQL_INFO_VALUE = pa.dense_union(
    [
        pa.field("string_value", pa.string()),
        pa.field("bool_value", pa.bool_()),
        pa.field("bigint_value", pa.int64()),
        pa.field("int32_bitmask", pa.int32()),
        pa.field("string_list", pa.list_(pa.string())),
        pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
    ]
)


class _Headers(flight.ServerMiddlewareFactory):
    """Keeps each call's headers for its handler, and logs the handshake, which has none."""

    def __init__(self, recorder, answers):
        self.recorder = recorder
        self.answers = answers

    def start_call(self, info, headers):
        if info.method == flight.FlightMethod.HANDSHAKE:
            self.recorder.log("Handshake", headers)
            return _CallHeaders(headers, {"authorization": "Bearer recorded"})
        return _CallHeaders(headers, {} if {"authorization", "cookie"} & headers.keys() else self.answers)


class _CallHeaders(flight.ServerMiddleware):
    def __init__(self, headers, answers):
        self.headers = headers
        self.answers = answers

    def sending_headers(self):
        return self.answers


class _AnyLogin(flight.ServerAuthHandler):
    """Lets everybody in."""

    def authenticate(self, outgoing, incoming):
        outgoing.write(b"recorded")

    def is_valid(self, token):
        return ""


class Recorder(flight.FlightServerBase):
    """The server. A result has `parts` endpoints, each at the `locations`. `tells_updates` is whether prepare says `is_update`,
    as older servers do not. A call without credentials is answered with the headers `answers`."""

    def __init__(self, parts=1, tells_updates=True, answers=None, locations=()):
        self.lines = []
        self.lock = threading.Lock()
        self.parts = parts
        self.locations = list(locations)
        self.tells_updates = tells_updates
        self.options = {}
        middleware = {"headers": _Headers(self, answers or {})}
        super().__init__("grpc://127.0.0.1:0", auth_handler=_AnyLogin(), middleware=middleware)
        self.uri = f"grpc://127.0.0.1:{self.port}"

    def log(self, text, headers):
        shown = [f"{name}: {_header(name, values[0])}" for name, values in sorted(headers.items()) if name not in COMMON]
        with self.lock:
            self.lines.append(text + "".join(f" [{header}]" for header in shown))

    def _called(self, context, text):
        self.log(text, context.get_middleware("headers").headers)

    def transcript(self):
        """The calls so far. Those that a client makes at once, and so in any order, are sorted."""
        with self.lock:
            lines, run = [], []
            for line in self.lines + [None]:
                if line is not None and line.startswith("DoGet"):
                    run.append(line)
                    continue
                lines += sorted(run) + ([] if line is None else [line])
                run = []
            return lines

    # The calls.

    def get_flight_info(self, context, descriptor):
        self._called(context, f"GetFlightInfo {_descriptor(descriptor)}")
        name, fields = unpack_any(descriptor.command)
        if name.startswith("CommandGet"):
            return flight.FlightInfo(
                self._metadata(name, fields).schema, descriptor, [flight.FlightEndpoint(descriptor.command, [])]
            )
        text = fields.get("query") or fields["prepared_statement_handle"].decode()
        rows = ROWS if _is_read(text) else ROWS.slice(0, 0).select([])
        endpoints = [flight.FlightEndpoint(f"part {part}", self.locations) for part in range(self.parts)]
        return flight.FlightInfo(rows.schema, descriptor, endpoints)

    def get_schema(self, context, descriptor):
        self._called(context, f"GetSchema {_descriptor(descriptor)}")
        return flight.SchemaResult(ROWS.schema)

    def do_get(self, context, ticket):
        if ticket.ticket.startswith(b"part "):
            self._called(context, f"DoGet {ticket.ticket.decode()}")
            return flight.RecordBatchStream(ROWS)
        name, fields = unpack_any(ticket.ticket)
        self._called(context, f"DoGet {_message(name, fields)}")
        return flight.RecordBatchStream(self._metadata(name, fields))

    def do_put(self, context, descriptor, reader, writer):
        name, fields = unpack_any(descriptor.command)
        try:
            rows = reader.read_all()
            sent = f"{rows.num_rows} rows of {_schema(rows.schema)}"
        except OSError as error:
            assert "never sent a data message" in str(error), error
            rows, sent = None, "no data"
        self._called(context, f"DoPut {_message(name, fields)}, {sent}")
        if name == "CommandPreparedStatementQuery":
            handle = fields["prepared_statement_handle"].decode()
            bound = handle if handle.endswith(" (bound)") else handle + " (bound)"
            writer.write(pack("DoPutPreparedStatementResult", prepared_statement_handle=bound.encode()))
        else:
            writer.write(pack("DoPutUpdateResult", record_count=rows.num_rows if rows is not None else 0))

    def list_actions(self, context):
        self._called(context, "ListActions")
        return []

    def do_action(self, context, action):
        body = action.body.to_pybytes()
        if action.type in BARE:
            name, fields = BARE[action.type], unpack(BARE[action.type], body)
        else:
            name, fields = unpack_any(body) if body else ("empty", {})
        self._called(context, f"DoAction {action.type} {_message(name, fields)}")
        if action.type == "CreatePreparedStatement":
            query = fields["query"]
            is_read = _is_read(query)
            yield pack_any(
                "ActionCreatePreparedStatementResult",
                prepared_statement_handle=query.encode(),
                dataset_schema=ROWS.schema.serialize().to_pybytes() if is_read else b"",
                is_update=not is_read if self.tells_updates else None,
            )
        elif action.type == "SetSessionOptions":
            self.options.update({entry["key"]: entry.get("value", {}) for entry in fields["session_options"]})
            yield pack("SetSessionOptionsResult", errors=[])
        elif action.type == "GetSessionOptions":
            entries = [{"key": key, "value": value} for key, value in self.options.items()]
            yield pack("GetSessionOptionsResult", session_options=entries)
        elif action.type == "CloseSession":
            yield pack("CloseSessionResult", status=1)

    def _metadata(self, name, fields):
        if name == "CommandGetSqlInfo":
            codes = [code for code in fields["info"] if code in (0, 8)]
            children = [pa.array(["Recorder"] * codes.count(0)), pa.array([], pa.bool_()), pa.array([], pa.int64())]
            children += [pa.array([0] * codes.count(8), pa.int32()), pa.array([], SQL_INFO_VALUE[4].type)]
            children += [pa.array([], SQL_INFO_VALUE[5].type)]
            kinds = pa.array([0 if code == 0 else 3 for code in codes], pa.int8())
            offsets = pa.array([0] * len(codes), pa.int32())
            values = pa.UnionArray.from_dense(kinds, offsets, children, [field.name for field in SQL_INFO_VALUE])
            return _required({"info_name": pa.array(codes, pa.uint32()), "value": values})
        if name == "CommandGetCatalogs":
            return _required({"catalog_name": pa.array(["windrow"])})
        if name == "CommandGetTableTypes":
            return _required({"table_type": pa.array(["TABLE"])})
        if name == "CommandGetDbSchemas":
            return _required({"catalog_name": pa.array(["windrow"]), "db_schema_name": pa.array(["public"])}, {"catalog_name"})
        columns = {"catalog_name": "windrow", "db_schema_name": "public", "table_name": "t", "table_type": "TABLE"}
        columns = {name: pa.array([value]) for name, value in columns.items()}
        if fields.get("include_schema"):
            columns["table_schema"] = pa.array([ROWS.schema.serialize().to_pybytes()], pa.binary())
        return _required(columns, {"catalog_name", "db_schema_name"})


def _required(columns, nullable=()):
    """A table whose columns may not be null, as the specification says of most."""
    fields = [pa.field(name, column.type, nullable=name in nullable) for name, column in columns.items()]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def _is_read(text):
    return text.lstrip().upper().startswith(READS)


def _header(name, value):
    if name == "authorization":
        scheme, _, rest = str(value).partition(" ")
        return f"Basic {base64.b64decode(rest).decode().partition(':')[0]}" if scheme == "Basic" else f"{scheme} {rest}"
    return value if isinstance(value, str) else "binary"


def _descriptor(descriptor):
    if descriptor.descriptor_type == flight.DescriptorType.PATH:
        return f"path {descriptor.path}"
    return _message(*unpack_any(descriptor.command))


def _message(name, fields):
    shown = ", ".join(f"{field}={_shown(value)}" for field, value in fields.items() if value != [] and value != {})
    return f"{name}({shown})"


def _shown(value):
    if isinstance(value, bytes):
        return repr(value.decode(errors="replace"))
    return repr(value)


def _schema(schema):
    fields = [f"{field.name} {field.type}{'' if field.nullable else ' not null'}" for field in schema]
    metadata = sorted(key.decode() for key in schema.metadata or {})
    return "(" + ", ".join(fields) + ")" + (f" with metadata {', '.join(metadata)}" if metadata else "")
