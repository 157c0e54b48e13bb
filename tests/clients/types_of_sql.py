"""Every Arrow type that SQL can produce, each with an expression, the type that clients get for it, and its value."""

import datetime
import decimal

import pandas
import pyarrow as pa

DAY = datetime.date(2026, 11, 22)
MOMENT = datetime.datetime(2026, 11, 22, 1, 2, 3)
UTC = datetime.UTC

# For each type: the expression, the type that a client gets, and the value. DataFusion takes two constant moments that differ in
# their zone alone for the same expression, and does not encode a constant Float16: so the seconds differ, and one is computed.
# The encoder of arrow-flight declares large lists as lists.
TYPES = {
    "Boolean": ("true", pa.bool_(), True),
    "Int8": ("arrow_cast(-8, 'Int8')", pa.int8(), -8),
    "Int16": ("arrow_cast(-16, 'Int16')", pa.int16(), -16),
    "Int32": ("arrow_cast(-32, 'Int32')", pa.int32(), -32),
    "Int64": ("arrow_cast(-9223372036854775808, 'Int64')", pa.int64(), -(2**63)),
    "UInt8": ("arrow_cast(255, 'UInt8')", pa.uint8(), 255),
    "UInt16": ("arrow_cast(65535, 'UInt16')", pa.uint16(), 65535),
    "UInt32": ("arrow_cast(4294967295, 'UInt32')", pa.uint32(), 2**32 - 1),
    "UInt64": ("arrow_cast(18446744073709551615, 'UInt64')", pa.uint64(), 2**64 - 1),
    "Float16": ("arrow_cast(value * 1.5, 'Float16')", pa.float16(), 1.5),
    "Float32": ("arrow_cast(1.5, 'Float32')", pa.float32(), 1.5),
    "Float64": ("arrow_cast(-0.1, 'Float64')", pa.float64(), -0.1),
    "Decimal32": ("arrow_cast('1.25', 'Decimal32(5, 2)')", pa.decimal32(5, 2), decimal.Decimal("1.25")),
    "Decimal64": ("arrow_cast('1.25', 'Decimal64(15, 2)')", pa.decimal64(15, 2), decimal.Decimal("1.25")),
    "Decimal128": ("arrow_cast('-1.250', 'Decimal128(38, 3)')", pa.decimal128(38, 3), decimal.Decimal("-1.250")),
    "Decimal256": ("arrow_cast('1.25', 'Decimal256(50, 2)')", pa.decimal256(50, 2), decimal.Decimal("1.25")),
    "Utf8": ("arrow_cast('ü', 'Utf8')", pa.string(), "ü"),
    "LargeUtf8": ("arrow_cast('x', 'LargeUtf8')", pa.large_string(), "x"),
    "Utf8View": ("arrow_cast('a text of more than twelve bytes', 'Utf8View')", pa.string(), "a text of more than twelve bytes"),
    "Binary": ("arrow_cast(X'00ff', 'Binary')", pa.binary(), b"\x00\xff"),
    "LargeBinary": ("arrow_cast(X'00ff', 'LargeBinary')", pa.large_binary(), b"\x00\xff"),
    "BinaryView": ("arrow_cast(X'00ff', 'BinaryView')", pa.binary(), b"\x00\xff"),
    "FixedSizeBinary": ("arrow_cast(X'00ff', 'FixedSizeBinary(2)')", pa.binary(2), b"\x00\xff"),
    "Date32": ("arrow_cast('2026-11-22', 'Date32')", pa.date32(), DAY),
    "Date64": ("arrow_cast('2026-11-22', 'Date64')", pa.date64(), DAY),
    "Time32s": ("arrow_cast('01:02:03', 'Time32(Second)')", pa.time32("s"), MOMENT.time()),
    "Time32ms": ("arrow_cast('01:02:03', 'Time32(Millisecond)')", pa.time32("ms"), MOMENT.time()),
    "Time64us": ("arrow_cast('01:02:03', 'Time64(Microsecond)')", pa.time64("us"), MOMENT.time()),
    "Time64ns": ("arrow_cast('01:02:03', 'Time64(Nanosecond)')", pa.time64("ns"), MOMENT.time()),
    "Timestamps": ("arrow_cast('2026-11-22T01:02:03', 'Timestamp(Second, None)')", pa.timestamp("s"), MOMENT),
    "Timestampms": ("arrow_cast('2026-11-22T01:02:03', 'Timestamp(Millisecond, None)')", pa.timestamp("ms"), MOMENT),
    "Timestampus": ("arrow_cast('2026-11-22T01:02:03', 'Timestamp(Microsecond, None)')", pa.timestamp("us"), MOMENT),
    "Timestampns": (
        "arrow_cast('2026-11-22T01:02:03', 'Timestamp(Nanosecond, None)')",
        pa.timestamp("ns"),
        pandas.Timestamp(MOMENT),
    ),
    "TimestampUtc": (
        "arrow_cast('2026-11-22T01:02:04Z', 'Timestamp(Microsecond, Some(\"UTC\"))')",
        pa.timestamp("us", "UTC"),
        MOMENT.replace(second=4, tzinfo=UTC),
    ),
    "TimestampZone": (
        "arrow_cast('2026-11-22T01:02:04Z', 'Timestamp(Millisecond, Some(\"Europe/Berlin\"))')",
        pa.timestamp("ms", "Europe/Berlin"),
        MOMENT.replace(second=4, tzinfo=UTC),
    ),
    "Duration": ("arrow_cast(5, 'Duration(Second)')", pa.duration("s"), datetime.timedelta(seconds=5)),
    "Interval": (
        "INTERVAL '1 month 2 days 3 seconds'",
        pa.month_day_nano_interval(),
        pa.MonthDayNano([1, 2, 3_000_000_000]),
    ),
    "List": ("make_array(1, NULL, 3)", pa.list_(pa.int64()), [1, None, 3]),
    "LargeList": ("arrow_cast(make_array(1, 2), 'LargeList(Int64)')", pa.list_(pa.int64()), [1, 2]),
    "FixedSizeList": ("arrow_cast(make_array(1, 2), 'FixedSizeList(2, Int64)')", pa.list_(pa.int64(), 2), [1, 2]),
    "ListOfLists": ("make_array(make_array('x'), NULL)", pa.list_(pa.list_(pa.string())), [["x"], None]),
    "Struct": (
        "named_struct('n', CAST(1 AS BIGINT), 't', 'x')",
        pa.struct([("n", pa.int64()), ("t", pa.string())]),
        {"n": 1, "t": "x"},
    ),
    "Map": ("MAP {'k': 1}", pa.map_(pa.string(), pa.int64()), [("k", 1)]),
    "Dictionary": ("arrow_cast('x', 'Dictionary(Int32, Utf8)')", pa.string(), "x"),
    "Null": ("NULL", pa.null(), None),
}


def query(*kinds):
    """A row of values and a row of nulls, so that a constant becomes no schema of its own."""
    columns = ", ".join(f'CASE WHEN value = 1 THEN {TYPES[kind][0]} END AS "{kind}"' for kind in kinds)
    return f"SELECT {columns} FROM generate_series(1, 2) ORDER BY value"
