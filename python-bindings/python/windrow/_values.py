"""Values of Python's library, for the extension module: moments out of numbers, and what a value is before it becomes Arrow's."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Callable
from typing import Any

_EPOCH = dt.datetime(1970, 1, 1)
_EPOCH_UTC = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_EPOCH_DAY = _EPOCH.toordinal()
_MICROSECOND = dt.timedelta(microseconds=1)
_MICROS = 1_000_000


def _span(number: int, per_second: int) -> dt.timedelta:
    """A number of parts of a second. Nanoseconds are cut to microseconds, the finest that Python's classes know."""
    return dt.timedelta(microseconds=number * _MICROS // per_second)


def dates(per_day: int = 1) -> Callable[[int], dt.date]:
    return lambda number: dt.date.fromordinal(number // per_day + _EPOCH_DAY)


def times(per_second: int) -> Callable[[int], dt.time]:
    return lambda number: (_EPOCH + _span(number, per_second)).time()


def durations(per_second: int) -> Callable[[int], dt.timedelta]:
    return lambda number: _span(number, per_second)


def timestamps(per_second: int, zone: str | None) -> Callable[[int], dt.datetime]:
    if zone is None:
        return lambda number: _EPOCH + _span(number, per_second)
    there = _zone(zone)
    return lambda number: (_EPOCH_UTC + _span(number, per_second)).astimezone(there)


def _zone(name: str) -> dt.tzinfo:
    if name.upper() in ("UTC", "Z", "+00:00"):
        return dt.timezone.utc
    if name[0] in "+-":
        digits = name[1:].replace(":", "")
        offset = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:4] or 0))
        return dt.timezone(-offset if name[0] == "-" else offset)
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


def describe(value: Any) -> tuple[str, Any]:
    """What a parameter's value is, with what the extension module makes an array of."""
    if value is None:
        return "null", None
    plain = _plain(value)
    if plain is not None:
        return plain
    if isinstance(value, dt.datetime):
        return _moment(value)
    if isinstance(value, dt.date):
        return "date", value.toordinal() - _EPOCH_DAY
    if isinstance(value, dt.time):
        return "time", (dt.datetime.combine(_EPOCH, value.replace(tzinfo=None)) - _EPOCH) // _MICROSECOND
    if isinstance(value, dt.timedelta):
        return "duration", value // _MICROSECOND
    if isinstance(value, decimal.Decimal):
        return _decimal(value)
    if isinstance(value, uuid.UUID):
        return "text", str(value)
    return _composed(value)


def _plain(value: Any) -> tuple[str, Any] | None:
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int):
        return _whole(value)
    if isinstance(value, float):
        return "float", value
    if isinstance(value, str):
        return "text", str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes", bytes(value)
    return None


def _whole(value: int) -> tuple[str, Any]:
    value = int(value)
    if -(2**63) <= value < 2**64:
        return "int", value
    return _decimal(decimal.Decimal(value))


def _moment(value: dt.datetime) -> tuple[str, Any]:
    if value != value:  # pandas.NaT
        return "null", None
    if value.tzinfo is None:
        return "timestamp", (value - _EPOCH) // _MICROSECOND
    return "timestamp_utc", (value - _EPOCH_UTC) // _MICROSECOND


def _decimal(value: decimal.Decimal) -> tuple[str, Any]:
    if not value.is_finite():
        raise ValueError(f"{value} is no decimal number of SQL")
    _sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    scale = max(0, -exponent)
    precision = max(len(digits) + max(0, exponent), scale, 1)
    if precision > 38:
        raise ValueError(f"{value} has more than the 38 digits of SQL's decimal numbers")
    return "decimal", (f"{value:f}", precision, scale)


def _composed(value: Any) -> tuple[str, Any]:
    if isinstance(value, dict):
        return "struct", [(str(name), part) for name, part in value.items()]
    if isinstance(value, (list, tuple)):
        return "list", list(value)
    if hasattr(value, "__arrow_c_array__"):
        if len(value) != 1:
            raise ValueError(f"an array of {len(value)} values as a parameter, which takes one; give it as a list")
        return "array", value
    if hasattr(value, "as_py"):  # a scalar of pyarrow
        return describe(value.as_py())
    if type(value).__name__ == "NAType":  # pandas.NA
        return "null", None
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # a scalar or an array of numpy
        return describe(value.tolist())
    if hasattr(value, "to_list"):
        return "list", value.to_list()
    raise TypeError(f"a parameter of the type {type(value).__name__}; give a number, a text, a date, a list or a dict")
