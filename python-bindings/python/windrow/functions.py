"""The functions of SQL, by their names: ``functions.upper(col("name"))``, ``functions.sum("fare")``. Texts among the arguments are texts
where a function takes values, and the first argument, if it is a text, is a column.

:func:`names` lists them all; :doc:`SQL's own documentation <https://datafusion.apache.org/user-guide/sql/>` says what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from windrow import _windrow
from windrow._expr import Expr, col, lit

__all__ = ["call", "count", "names"]


@cache
def _kinds() -> dict[str, str]:
    return dict(_windrow.function_names())


def names() -> list[str]:
    """The names of all functions."""
    return sorted(_kinds())


def call(name: str, /, *arguments: Any, distinct: bool = False) -> Expr:
    """A function by its name. The first argument, if it is a text, is a column; the column has the name of that column."""
    first = [col(argument) if isinstance(argument, str) else lit(argument) for argument in arguments[:1]]
    values = [*first, *map(lit, arguments[1:])]
    made = _windrow.Expr.call(name, [value._expr for value in values], distinct)
    return Expr(made, values[0].name if values else name)


def count() -> Expr:
    """How many rows a group has."""
    return Expr(_windrow.Expr.call("count", [_windrow.Expr.literal(1)]), "count")


def __getattr__(name: str) -> Callable[..., Expr]:
    if name.startswith("_") or name not in _kinds():
        raise AttributeError(f"module 'windrow.functions' has no attribute {name!r}")

    def function(*arguments: Any, distinct: bool = False) -> Expr:
        return call(name, *arguments, distinct=distinct)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The function {name} of SQL, of the kind {_kinds()[name]}."
    return function


def __dir__() -> list[str]:
    return [*globals(), *_kinds()]
