"""What the tests share: clients in the three forms that the engine has, and waiting for what nobody announces.

They run against the installed package. By hand: `pip install ./python-bindings -r python-bindings/tests/requirements.txt`, then
`pytest python-bindings/tests`.
"""

import os
import subprocess
import sys
import time

import pytest

import windrow

# How long what must happen soon may take before a test fails.
LIMIT = 20.0


@pytest.fixture
def client():
    """An engine in this process."""
    with windrow.connect(slots=2, memory_limit="512MB") as client:
        yield client


@pytest.fixture(scope="session")
def cluster():
    """Two executors, each a process."""
    with windrow.LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="256MB") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def scheduler_without_plans():
    """A cluster whose clients in other processes send SQL, frames as well."""
    # This process is the executor's, with all that the tests have imported.
    with windrow.LocalCluster(
        n_workers=1, threads_per_worker=2, memory_limit="1GB", processes=False, accept_plans=False
    ) as cluster:
        yield cluster


@pytest.fixture(params=["embedded", "cluster", "remote", "text"])
def anywhere(request):
    """A client of each kind, for statements."""
    with client_of(request.param, request) as client:
        yield client


@pytest.fixture(params=["embedded", "cluster", "remote"])
def anywhere_with_plans(request):
    """A client of each kind that takes frames of every form."""
    with client_of(request.param, request) as client:
        yield client


def client_of(kind, request):
    """A client of this kind."""
    if kind == "embedded":
        return windrow.connect(slots=2, memory_limit="512MB")
    if kind == "cluster":
        return windrow.Client(request.getfixturevalue("cluster"))
    there = request.getfixturevalue("cluster" if kind == "remote" else "scheduler_without_plans")
    return windrow.connect(there.url)


@pytest.fixture
def until():
    """Waits for a condition that nobody announces, and returns the seconds that it took."""

    def wait(condition, what, limit=LIMIT):
        start = time.monotonic()
        while not condition():
            assert time.monotonic() - start < limit, f"waited {limit} s in vain: {what}"
            time.sleep(0.01)
        return time.monotonic() - start

    return wait


@pytest.fixture
def python(tmp_path):
    """Starts a script in another interpreter."""
    started = []

    def start(script, **more):
        file = tmp_path / f"script_{len(started)}.py"
        file.write_text(script)
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "WINDROW_PROGRESS": "0"} | more.pop("env", {})
        process = subprocess.Popen(
            [sys.executable, str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            **more,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def is_running(pid):
    """Whether a process is there and not a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
