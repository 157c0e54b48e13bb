"""Types as people write them: ``"int64"``, ``float``, ``"timestamp[us, UTC]"``, or those of pyarrow."""

from __future__ import annotations

import datetime as dt
import decimal
import re
from typing import Any

from windrow import _windrow
from windrow._errors import InvalidQueryError

_PYTHON: dict[Any, str] = {
    int: "Int64",
    float: "Float64",
    str: "Utf8View",
    bool: "Boolean",
    bytes: "BinaryView",
    dt.date: "Date32",
    dt.datetime: "Timestamp(us)",
    dt.time: "Time64(us)",
    dt.timedelta: "Duration(us)",
    decimal.Decimal: "Decimal128(38, 10)",
}

_NAMES = {
    **{f"{sign}int{bits}": f"{'U' if sign else ''}Int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"Float{bits}" for bits in (16, 32, 64)},
    "int": "Int64",
    "bigint": "Int64",
    "float": "Float64",
    "double": "Float64",
    "bool": "Boolean",
    "boolean": "Boolean",
    "str": "Utf8View",
    "string": "Utf8View",
    "object": "Utf8View",
    "text": "Utf8View",
    "binary": "BinaryView",
    "bytes": "BinaryView",
    "date": "Date32",
    "date32": "Date32",
    "time": "Time64(us)",
    "datetime": "Timestamp(us)",
    "timestamp": "Timestamp(us)",
    "duration": "Duration(us)",
}

_MOMENT = re.compile(r"(?:timestamp|datetime|datetime64)\[(s|ms|us|ns)(?:,\s*(.+))?\]")
_DECIMAL = re.compile(r"decimal\((\d+),\s*(-?\d+)\)")


def type_of(given: Any) -> Any:
    """An object with ``__arrow_c_schema__`` for what ``given`` means."""
    if hasattr(given, "__arrow_c_schema__"):
        return given
    if given in _PYTHON:
        return _Type(_PYTHON[given])
    if not isinstance(given, str):
        given = getattr(given, "name", given)  # a type of numpy
    if not isinstance(given, str):
        raise InvalidQueryError(f"{given!r} is no type", hint="write 'int64', 'float64', 'string', 'date', or a type of pyarrow")
    return _Type(_arrow(given))


def _arrow(text: str) -> str:
    lower = text.strip().lower()
    if lower in _NAMES:
        return _NAMES[lower]
    if moment := _MOMENT.fullmatch(text.strip()):
        unit, zone = moment.groups()
        return f"Timestamp({unit})" if zone is None else f'Timestamp({unit}, "{zone}")'
    if number := _DECIMAL.fullmatch(lower):
        precision, scale = number.groups()
        return f"Decimal{128 if int(precision) <= 38 else 256}({precision}, {scale})"
    return text


class _Type:
    """A type by its name in Arrow."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __arrow_c_schema__(self) -> object:
        return _windrow.parse_type(self._name)
