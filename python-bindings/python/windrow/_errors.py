"""What goes wrong: one class for each thing that you do about it."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = [
    "CancelledError",
    "DataError",
    "DeniedError",
    "Error",
    "InternalError",
    "InvalidConfigError",
    "InvalidQueryError",
    "NotFoundError",
    "Position",
    "ResourcesExhaustedError",
    "UnavailableError",
    "UnsupportedError",
]


class Position(NamedTuple):
    """A place in the text of a statement. Lines and columns count from 1; the end is one past the last character."""

    line: int
    column: int
    end_line: int
    end_column: int


class Error(Exception):
    """The base of all errors of Windrow. ``str(error)`` shows the statement with a caret under the place, and what to do.

    Attributes:
        kind: the name of the class without ``Error``.
        message: one sentence.
        hint: what to do next, where something is known.
        suggestion: the nearest known name, where a name is unknown.
        position: where in the statement, where known.
        text: the statement.
        query_id: the number of the query that failed, as ``system.queries`` shows it.
    """

    kind = "Internal"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        suggestion: str | None = None,
        position: tuple[int, int, int, int] | None = None,
        text: str | None = None,
        query_id: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.suggestion = suggestion
        self.position = Position(*position) if position is not None else None
        self.text = text
        self.query_id = query_id

    def __str__(self) -> str:
        lines = [self.message]
        lines += _caret(self.text, self.position)
        if self.suggestion is not None:
            lines.append(f"  did you mean {self.suggestion!r}?")
        if self.hint is not None:
            lines.append(f"  help: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        facts = (self.message, self.hint, self.suggestion, self.position, self.text, self.query_id)
        return _restored, (type(self), *facts)


class InvalidQueryError(Error):
    """Correct the query: syntax, unknown names, types that do not fit."""

    kind = "InvalidQuery"


class InvalidConfigError(Error, ValueError):
    """Correct a setting or an argument."""

    kind = "InvalidConfig"


class NotFoundError(Error, KeyError):
    """Check the name or the path."""

    kind = "NotFound"


class DeniedError(Error):
    """Ask for the right to it."""

    kind = "Denied"


class UnsupportedError(Error):
    """Write it another way: Windrow cannot do this yet."""

    kind = "Unsupported"


class ResourcesExhaustedError(Error):
    """Raise a limit that the message names, or ask for less."""

    kind = "ResourcesExhausted"


class UnavailableError(Error):
    """Check the cluster or the network and try again."""

    kind = "Unavailable"


class CancelledError(Error):
    """Nothing: somebody cancelled."""

    kind = "Cancelled"


class DataError(Error):
    """Repair or replace the input that the message names."""

    kind = "Data"


class InternalError(Error):
    """Report it: a bug of ours."""

    kind = "Internal"


_CLASSES: dict[str, type[Error]] = {
    one.kind: one
    for one in (
        InvalidQueryError,
        InvalidConfigError,
        NotFoundError,
        DeniedError,
        UnsupportedError,
        ResourcesExhaustedError,
        UnavailableError,
        CancelledError,
        DataError,
        InternalError,
    )
}


def make(kind: str, message: str, **facts: Any) -> Error:
    """The error of a kind; called by the extension module."""
    return _CLASSES.get(kind, InternalError)(message, **facts)


def _restored(
    of: type[Error],
    message: str,
    hint: str | None,
    suggestion: str | None,
    position: Position | None,
    text: str | None,
    query_id: int | None,
) -> Error:
    return of(message, hint=hint, suggestion=suggestion, position=position, text=text, query_id=query_id)


def _caret(text: str | None, position: Position | None) -> list[str]:
    """The line of the statement at the position, with carets under the place."""
    lines = text.splitlines() if text is not None else []
    if position is None or not 1 <= position.line <= len(lines):
        return []
    line = lines[position.line - 1]
    end = position.end_column if position.end_line == position.line else len(line) + 1
    width = max(1, end - position.column)
    number = str(position.line)
    # Tabs stay tabs, so that the carets are under what they mean.
    indent = "".join("\t" if c == "\t" else " " for c in line[: position.column - 1])
    return [
        f"  line {position.line}, column {position.column}",
        f"  {number} | {line}",
        f"  {' ' * len(number)} | {indent}{'^' * width}",
    ]
