"""Frames of the caller as tables of a statement."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from windrow import _windrow
from windrow._errors import InvalidQueryError
from windrow._query import Query
from windrow._table import is_arrow

_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>")
# Objects of which the rows are kept although nobody tells when they are gone.
_KEPT_MAX = 64


def found_in(caller: FrameType, name: str) -> Any | None:
    """The variable of that name in the caller's own frame, then in its module, if it is a table; never one further out."""
    frames = [caller]
    # Before Python 3.12, a comprehension has a frame of its own, below that of the function whose variables it sees.
    while frames[-1].f_code.co_name in _COMPREHENSIONS and (outer := frames[-1].f_back) is not None:
        frames.append(outer)
    for variables in (*(frame.f_locals for frame in frames), caller.f_globals):
        if name in variables:
            value = variables[name]
            return value if not isinstance(value, type) and is_arrow(value) else None
    return None


class Scanned:
    """The rows of Python's objects in temporary tables of a session: written once for each object, dropped when it is gone."""

    def __init__(self, session: _windrow.Session) -> None:
        self._session = session
        self._lock = threading.RLock()
        self._count = 0
        self._tables: dict[int, tuple[str, Any]] = {}
        self._gone: list[str] = []

    def table(self, data: Any) -> str:
        """The table with the rows of ``data``, as SQL text."""
        if not is_arrow(data):
            raise InvalidQueryError(
                f"an object of the type {type(data).__name__} in the place of a table",
                hint="give a frame of pandas or polars, a table of pyarrow, or anything else with __arrow_c_stream__",
            )
        if isinstance(data, Query):
            data = data.result()
        with self._lock:
            self._drop_gone()
            known = self._tables.get(id(data))
            if known is not None and _same(known[1], data):
                if _is_fixed(data):
                    return f'temp."{known[0]}"'
                name = known[0]
            else:
                self._count += 1
                name = f"_frame_{self._count}"
            self._session.ingest(name, data, "replace", True)
            self._tables[id(data)] = (name, self._reference(data, name))
            self._bound()
            return f'temp."{name}"'

    @contextmanager
    def named(self, frames: Mapping[str, Any]) -> Iterator[None]:
        """While it lasts, the frames are tables of their names, which hide shared ones."""
        if not frames:
            yield
            return
        # Another thread may have another frame of the same name.
        with self._lock:
            views = []
            try:
                for name, data in frames.items():
                    view = 'temp."' + name.replace('"', '""') + '"'
                    self._run(f"CREATE OR REPLACE TEMPORARY VIEW {view} AS SELECT * FROM {self.table(data)}")
                    views.append(view)
                yield
            finally:
                for view in views:
                    self._run(f"DROP VIEW IF EXISTS {view}")

    @contextmanager
    def settled(self) -> Iterator[None]:
        """While it lasts, no frame of another thread is a table of its name."""
        with self._lock:
            yield

    def forget(self) -> None:
        """Lets go of all objects; their tables end with the session."""
        with self._lock:
            self._tables.clear()
            self._gone.clear()

    def _reference(self, data: Any, name: str) -> Any:
        key = id(data)

        def gone(_reference: object) -> None:
            # May come at any moment, also while this thread holds the lock.
            self._tables.pop(key, None)
            self._gone.append(name)

        try:
            return weakref.ref(data, gone)
        except TypeError:
            return lambda: data

    def _bound(self) -> None:
        held = [key for key, (_name, reference) in list(self._tables.items()) if not isinstance(reference, weakref.ref)]
        for key in held[: max(0, len(held) - _KEPT_MAX)]:
            self._gone.append(self._tables.pop(key)[0])

    def _drop_gone(self) -> None:
        while self._gone:
            self._run(f'DROP TABLE IF EXISTS temp."{self._gone.pop()}"')

    def _run(self, text: str) -> None:
        self._session.sql(text).collect()


def _same(reference: Any, data: Any) -> bool:
    return reference() is data


def _is_fixed(data: Any) -> bool:
    """Whether its rows never change: those of Arrow do not, those of pandas do."""
    kind = type(data)
    return kind.__module__.partition(".")[0] == "pyarrow" or f"{kind.__module__}.{kind.__name__}" == "windrow._table.Table"
