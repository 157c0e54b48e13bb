"""The messages of Arrow Flight and Flight SQL, packed and unpacked by hand: a table of their fields and thirty lines of protobuf.

The numbers are those of Flight.proto and FlightSql.proto. Nothing here is shared with the server under test, so that a message
that both ends get wrong alike is found. Next: raw.py, which sends them.
"""

import struct

PREFIX = "type.googleapis.com/arrow.flight.protocol.sql."

# For each message its fields as number: (name, kind). A kind is that of protobuf, the name of another message, or a list of one
# kind for a repeated field. "map" is map<string, string>, and a "Value" is a SessionOptionValue.
KEYS = {1: ("catalog", "string"), 2: ("db_schema", "string"), 3: ("table", "string")}
MESSAGES = {
    # Flight.proto
    "BasicAuth": {2: ("username", "string"), 3: ("password", "string")},
    "FlightDescriptor": {1: ("type", "int"), 2: ("cmd", "bytes"), 3: ("path", ["string"])},
    "Ticket": {1: ("ticket", "bytes")},
    "Location": {1: ("uri", "string")},
    "Timestamp": {1: ("seconds", "int"), 2: ("nanos", "int")},
    "FlightEndpoint": {
        1: ("ticket", "Ticket"),
        2: ("location", ["Location"]),
        3: ("expiration_time", "Timestamp"),
        4: ("app_metadata", "bytes"),
    },
    "FlightInfo": {
        1: ("schema", "bytes"),
        2: ("flight_descriptor", "FlightDescriptor"),
        3: ("endpoint", ["FlightEndpoint"]),
        4: ("total_records", "int"),
        5: ("total_bytes", "int"),
        6: ("ordered", "bool"),
        7: ("app_metadata", "bytes"),
    },
    "PollInfo": {
        1: ("info", "FlightInfo"),
        2: ("flight_descriptor", "FlightDescriptor"),
        3: ("progress", "double"),
        4: ("expiration_time", "Timestamp"),
    },
    "CancelFlightInfoRequest": {1: ("info", "FlightInfo")},
    "CancelFlightInfoResult": {1: ("status", "int")},
    "RenewFlightEndpointRequest": {1: ("endpoint", "FlightEndpoint")},
    "Strings": {1: ("values", ["string"])},
    "Value": {
        1: ("string_value", "string"),
        2: ("bool_value", "bool"),
        3: ("int64_value", "sfixed64"),
        4: ("double_value", "double"),
        5: ("string_list_value", "Strings"),
    },
    "OptionEntry": {1: ("key", "string"), 2: ("value", "Value")},  # an entry of a map
    "SetSessionOptionsRequest": {1: ("session_options", ["OptionEntry"])},
    "OptionError": {1: ("value", "int")},
    "ErrorEntry": {1: ("key", "string"), 2: ("value", "OptionError")},
    "SetSessionOptionsResult": {1: ("errors", ["ErrorEntry"])},
    "GetSessionOptionsRequest": {},
    "GetSessionOptionsResult": {1: ("session_options", ["OptionEntry"])},
    "CloseSessionRequest": {},
    "CloseSessionResult": {1: ("status", "int")},
    # FlightSql.proto
    "CommandGetSqlInfo": {1: ("info", ["int"])},
    "CommandGetXdbcTypeInfo": {1: ("data_type", "int")},
    "CommandGetCatalogs": {},
    "CommandGetDbSchemas": {1: ("catalog", "string"), 2: ("db_schema_filter_pattern", "string")},
    "CommandGetTables": {
        1: ("catalog", "string"),
        2: ("db_schema_filter_pattern", "string"),
        3: ("table_name_filter_pattern", "string"),
        4: ("table_types", ["string"]),
        5: ("include_schema", "bool"),
    },
    "CommandGetTableTypes": {},
    "CommandGetPrimaryKeys": KEYS,
    "CommandGetExportedKeys": KEYS,
    "CommandGetImportedKeys": KEYS,
    "CommandGetCrossReference": {
        1: ("pk_catalog", "string"),
        2: ("pk_db_schema", "string"),
        3: ("pk_table", "string"),
        4: ("fk_catalog", "string"),
        5: ("fk_db_schema", "string"),
        6: ("fk_table", "string"),
    },
    "ActionCreatePreparedStatementRequest": {1: ("query", "string"), 2: ("transaction_id", "bytes")},
    "ActionCreatePreparedStatementResult": {
        1: ("prepared_statement_handle", "bytes"),
        2: ("dataset_schema", "bytes"),
        3: ("parameter_schema", "bytes"),
        4: ("is_update", "bool"),
    },
    "SubstraitPlan": {1: ("plan", "bytes"), 2: ("version", "string")},
    "ActionCreatePreparedSubstraitPlanRequest": {1: ("plan", "SubstraitPlan"), 2: ("transaction_id", "bytes")},
    "CommandStatementSubstraitPlan": {1: ("plan", "SubstraitPlan"), 2: ("transaction_id", "bytes")},
    "ActionClosePreparedStatementRequest": {1: ("prepared_statement_handle", "bytes")},
    "ActionBeginTransactionRequest": {},
    "CommandStatementQuery": {1: ("query", "string"), 2: ("transaction_id", "bytes")},
    "TicketStatementQuery": {1: ("statement_handle", "bytes")},
    "CommandPreparedStatementQuery": {1: ("prepared_statement_handle", "bytes")},
    "CommandStatementUpdate": {1: ("query", "string"), 2: ("transaction_id", "bytes")},
    "CommandPreparedStatementUpdate": {1: ("prepared_statement_handle", "bytes")},
    "TableDefinitionOptions": {1: ("if_not_exist", "int"), 2: ("if_exists", "int")},
    "CommandStatementIngest": {
        1: ("table_definition_options", "TableDefinitionOptions"),
        2: ("table", "string"),
        3: ("schema", "string"),
        4: ("catalog", "string"),
        5: ("temporary", "bool"),
        6: ("transaction_id", "bytes"),
        1000: ("options", "map"),
    },
    "DoPutUpdateResult": {1: ("record_count", "int")},
    "DoPutPreparedStatementResult": {1: ("prepared_statement_handle", "bytes")},
    "ActionCancelQueryRequest": {1: ("info", "bytes")},
    "ActionCancelQueryResult": {1: ("result", "int")},
    # google.protobuf
    "Any": {1: ("type_url", "string"), 2: ("value", "bytes")},
    "MapEntry": {1: ("key", "string"), 2: ("value", "string")},
}

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def varint(value):
    """A number in groups of seven bits; a negative one as 64 bits."""
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def pack(message, **fields):
    """The bytes of a message. Fields of other messages are dictionaries; None is left out, an empty one is not."""
    numbers = {name: (number, kind) for number, (name, kind) in MESSAGES[message].items()}
    encoded = b""
    for name, value in fields.items():
        number, kind = numbers[name]
        if value is None:
            continue
        if kind == "map":
            encoded += b"".join(_field(number, "MapEntry", {"key": key, "value": text}) for key, text in value.items())
        elif kind == ["int"]:
            encoded += _field(number, "bytes", b"".join(map(varint, value)))  # packed, as proto3 writes it
        elif isinstance(kind, list):
            encoded += b"".join(_field(number, kind[0], one) for one in value)
        else:
            encoded += _field(number, kind, value)
    return encoded


def _field(number, kind, value):
    if kind in ("int", "bool"):
        return varint(number << 3 | VARINT) + varint(int(value))
    if kind in ("double", "sfixed64"):
        return varint(number << 3 | FIXED64) + struct.pack("<d" if kind == "double" else "<q", value)
    if kind == "string":
        value = value.encode()
    elif kind != "bytes":
        value = pack(kind, **value)
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def unpack(message, encoded):
    """A message as a dictionary of the fields that are there; repeated ones are always."""
    fields = MESSAGES[message]
    found = {name: {} if kind == "map" else [] for name, kind in fields.values() if kind == "map" or isinstance(kind, list)}
    for number, wire, value in _fields(encoded):
        if number not in fields:
            raise ValueError(f"{message} has no field {number}")
        name, kind = fields[number]
        if kind == "map":
            entry = unpack("MapEntry", value)
            found[name][entry.get("key", "")] = entry.get("value", "")
        elif kind == ["int"]:
            found[name] += _varints(value) if wire == BYTES else [value]
        elif isinstance(kind, list):
            found[name].append(_value(kind[0], wire, value))
        else:
            found[name] = _value(kind, wire, value)
    return found


def _fields(encoded):
    position = 0
    while position < len(encoded):
        key, position = _varint(encoded, position)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, position = _varint(encoded, position)
        elif wire in (FIXED64, FIXED32):
            end = position + (8 if wire == FIXED64 else 4)
            value, position = encoded[position:end], end
        elif wire == BYTES:
            length, position = _varint(encoded, position)
            value, position = encoded[position : position + length], position + length
            if len(value) != length:
                raise ValueError("a message ends in the middle of a field")
        else:
            raise ValueError(f"no field has the wire type {wire}")
        yield number, wire, value


def _varint(encoded, position):
    value = shift = 0
    while True:
        byte = encoded[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _varints(encoded):
    values, position = [], 0
    while position < len(encoded):
        value, position = _varint(encoded, position)
        values.append(value)
    return values


def _value(kind, wire, value):
    expected = {"int": VARINT, "bool": VARINT, "double": FIXED64, "sfixed64": FIXED64}.get(kind, BYTES)
    if wire != expected:
        raise ValueError(f"a field of kind {kind} has the wire type {wire}")
    if kind == "int":
        return value - (1 << 64) if value >> 63 else value
    if kind == "bool":
        return bool(value)
    if kind in ("double", "sfixed64"):
        return struct.unpack("<d" if kind == "double" else "<q", value)[0]
    if kind == "string":
        return value.decode()
    return value if kind == "bytes" else unpack(kind, value)


def pack_any(message, **fields):
    """A message of Flight SQL in `Any`: how commands, tickets and most actions travel."""
    return pack("Any", type_url=PREFIX + message, value=pack(message, **fields))


def unpack_any(encoded):
    """The name and the fields of a message in `Any`."""
    outer = unpack("Any", encoded)
    if not outer.get("type_url", "").startswith(PREFIX):
        raise ValueError(f"not a message of Flight SQL: {outer}")
    name = outer["type_url"].removeprefix(PREFIX)
    return name, unpack(name, outer.get("value", b""))
