"""How far a query is, drawn by ourselves: a line on the terminal's standard error, or a bar in a notebook, after one second."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from html import escape
from typing import Any, TextIO

from windrow import _text

# Seconds before anything is drawn, and between two drawings.
_FIRST = 1.0
_EVERY = 0.25


@dataclass(frozen=True)
class Progress:
    """How far a query is.

    Attributes:
        state: ``queued``, ``running``, ``succeeded``, ``failed`` or ``cancelled``.
        stages_done, stages: stages that are complete, and all.
        tasks_done, tasks: partitions that are complete, over all stages, and all.
        rows: rows that its tasks have made so far.
        shuffle_bytes, spill_bytes: bytes that went from task to task, and to disk for want of memory.
        retries, reruns: attempts that did not succeed, and partitions that were computed again.
    """

    state: str
    stages_done: int
    stages: int
    tasks_done: int
    tasks: int
    rows: int
    shuffle_bytes: int
    spill_bytes: int
    retries: int
    reruns: int

    @property
    def fraction(self) -> float:
        """From 0 to 1; 1 only at the end."""
        if self.state == "succeeded":
            return 1.0
        return min(0.99, self.tasks_done / self.tasks) if self.tasks else 0.0

    def __str__(self) -> str:
        parts = [f"{self.fraction:4.0%}", f"stage {self.stages_done} of {self.stages}", f"{self.rows:,} rows"]
        if self.shuffle_bytes:
            parts.append(f"{_text.size(self.shuffle_bytes)} shuffled")
        if self.spill_bytes:
            parts.append(f"{_text.size(self.spill_bytes)} spilled")
        if self.retries:
            parts.append(_text.plural(self.retries, "retry").replace("retrys", "retries"))
        return "  ".join(parts)


class Display:
    """Shows the progress of one query while somebody waits for it. Called ten times a second."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._next = self._start + _FIRST
        self._done = 0.0
        self._shown: _Line | _Bar | None = None

    def __call__(self, facts: dict[str, Any]) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY
        progress = Progress(**facts)
        # Lost outputs are computed again; what people see never goes back.
        self._done = max(self._done, progress.fraction)
        if self._shown is None:
            self._shown = _place()
        if self._shown is not None:
            self._shown.draw(self._done, progress, now - self._start)

    def close(self) -> None:
        """Takes away what was drawn."""
        if self._shown is not None:
            self._shown.clear()
            self._shown = None


def display() -> Display | None:
    """What shows the progress of a query; ``None`` where nobody would see it, or ``WINDROW_PROGRESS=0`` hides it."""
    if os.environ.get("WINDROW_PROGRESS") == "0":
        return None
    return Display() if _in_notebook() or _is_terminal(sys.stderr) else None


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _in_notebook() -> bool:
    # Whoever is in a notebook has IPython loaded; nobody else pays for the question.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def _place() -> _Line | _Bar | None:
    if _in_notebook():
        return _Bar()
    return _Line(sys.stderr) if _is_terminal(sys.stderr) else None


class _Line:
    """One line at the bottom of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def draw(self, done: float, progress: Progress, seconds: float) -> None:
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            columns = 80
        filled = round(20 * done)
        text = f"[{'=' * filled}{' ' * (20 - filled)}] {progress}  {_left(done, seconds)}"
        self._write("\r\x1b[2K" + text[: columns - 1])

    def clear(self) -> None:
        self._write("\r\x1b[2K")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # the terminal is gone; the query is not


class _Bar:
    """A bar in the output of a notebook's cell."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html = HTML
        self._handle = display(HTML(""), display_id=True)

    def draw(self, done: float, progress: Progress, seconds: float) -> None:
        self._show(html(done, progress, seconds))

    def clear(self) -> None:
        self._show("")

    def _show(self, text: str) -> None:
        if self._handle is not None:
            self._handle.update(self._html(text))


def html(done: float, progress: Progress, seconds: float) -> str:
    """The bar."""
    text = escape(f"{progress}  {_left(done, seconds)}")
    return (
        "<div style='max-width:40em;border:1px solid #888'>"
        f"<div style='width:{done:.0%};background:#4a90d9;height:0.5em'></div></div><pre>{text}</pre>"
    )


def _left(done: float, seconds: float) -> str:
    if done < 0.05:
        return f"{seconds:.0f} s"
    return f"{seconds:.0f} s, about {seconds * (1 - done) / done:.0f} s left"
