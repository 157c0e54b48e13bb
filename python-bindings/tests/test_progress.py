"""How far a query is, as people see it."""

import io
import os
import pty
import subprocess
import sys

import windrow
from windrow import _progress


def facts(done, total, state="running"):
    zero = dict.fromkeys(("rows", "shuffle_bytes", "spill_bytes", "retries", "reruns"), 0)
    return {"state": state, "stages_done": 0, "stages": 2, "tasks_done": done, "tasks": total} | zero


def test_a_query_tells_how_far_it_is(anywhere, until):
    query = anywhere.sql("SELECT value % 10 AS k, count(*) FROM generate_series(1, 2000000) GROUP BY k")
    until(lambda: query.progress().tasks > 0, "its tasks are known")
    assert 0 <= query.progress().fraction <= 1
    query.result()
    until(lambda: query.progress().state == "succeeded", "its end is known")
    assert query.progress().fraction == 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_is_drawn_after_a_second_never_goes_back_and_is_taken_away(monkeypatch):
    terminal, now = Terminal(), [100.0]
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    display = _progress.display()
    assert display is not None
    for seconds, done in ((0.5, 1), (1.1, 5), (1.2, 6), (1.4, 3), (2.0, 10)):
        now[0] = 100 + seconds
        display(facts(done, 10))
    drawn = terminal.getvalue().split("\r\x1b[2K")[1:]
    assert [line[1:21].count("=") for line in drawn] == [10, 10, 20]
    assert "50%" in drawn[0] and "stage 0 of 2" in drawn[0]
    display.close()
    assert terminal.getvalue().endswith("\r\x1b[2K")


def test_nothing_is_drawn_where_nobody_looks(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert _progress.display() is None
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("WINDROW_PROGRESS", "0")
    assert _progress.display() is None


def test_the_bar_of_a_notebook_is_html():
    progress = _progress.Progress(**facts(5, 10))
    assert "width:50%" in _progress.html(0.5, progress, 2.0)
    assert "50%" in str(progress)


def test_a_terminal_sees_the_line_of_a_long_query():
    script = (
        "import windrow; c = windrow.connect(slots=1)\n"
        "import threading; q = c.sql('SELECT count(*) FROM generate_series(1, 100000000000) WHERE random() < 2')\n"
        "threading.Timer(2.0, q.cancel).start()\n"
        "try:\n    q.result()\nexcept windrow.CancelledError:\n    pass\n"
    )
    leader, follower = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "WINDROW_PROGRESS"}
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.DEVNULL, stderr=follower, env=environment)
    os.close(follower)
    seen = b""
    try:
        while chunk := os.read(leader, 4096):
            seen += chunk
    except OSError:
        pass  # the other end is closed
    os.close(leader)
    assert process.wait(timeout=20) == 0
    assert b"stage" in seen and b"rows" in seen
    assert seen.endswith(b"\r\x1b[2K")


def test_windrow_has_names_for_all_of_it():
    assert windrow.Progress is _progress.Progress
