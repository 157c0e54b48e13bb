"""Beginnings and ends: nothing is left behind, whoever ends and however."""

import os
import signal
import subprocess
import sys

import pytest

import windrow
from conftest import is_running


def test_a_cluster_begins_and_ends(until):
    cluster = windrow.LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="128MB")
    pids = cluster.pids()
    assert len(set(pids)) == 2 and all(map(is_running, pids)) and os.getpid() not in pids
    assert [one["slots"] for one in cluster.executors] == [1, 1]
    client = windrow.Client(cluster)
    assert client.sql("SELECT count(*) AS n FROM generate_series(1, 1000)").to_pydict() == {"n": [1000]}
    assert client.cluster is cluster
    client.close()
    assert all(map(is_running, pids))
    cluster.close()
    assert not any(map(is_running, pids))
    assert cluster.status == client.status == "closed"
    cluster.close()
    client.close()
    with pytest.raises(windrow.UnavailableError, match="closed"):
        client.sql("SELECT 1")
    with pytest.raises(windrow.UnavailableError, match="closed"):
        windrow.Client(cluster)


def test_shutdown_ends_both():
    cluster = windrow.LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="128MB")
    pids = cluster.pids()
    windrow.Client(cluster).shutdown()
    assert not any(map(is_running, pids))


def test_a_client_alone_has_a_cluster_of_its_own():
    with windrow.Client(n_workers=1, threads_per_worker=1, memory_limit="128MB") as client:
        assert client.cluster is not None
        pids = client.cluster.pids()
        assert client.sql("SELECT 1 AS n").to_pydict() == {"n": [1]}
    assert not any(map(is_running, pids))


def test_executors_in_this_process(until):
    with windrow.LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="128MB", processes=False) as cluster:
        assert cluster.pids() == [None, None]
        with windrow.Client(cluster) as client:
            assert client.sql("SELECT 1 AS n").to_pydict() == {"n": [1]}
        cluster.scale(3)
        assert len(cluster.executors) == 3
        with pytest.raises(windrow.UnsupportedError):
            cluster.scale(1)


def test_a_cluster_is_scaled_while_it_works(until):
    text = "SELECT value % 7 AS k, count(*) AS n FROM generate_series(1, 3000000) GROUP BY k ORDER BY k"
    with (
        windrow.LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="128MB") as cluster,
        windrow.Client(cluster) as client,
    ):
        expected = client.sql(text).result()
        running = client.sql(text)
        cluster.scale(3)
        assert running.result() == expected
        names = {one["name"] for one in cluster.executors}
        assert len(names) == len(set(cluster.pids())) == 3
        running = client.sql(text)
        before = cluster.pids()
        cluster.scale(1)
        assert running.result() == expected
        assert len(cluster.executors) == 1
        assert [is_running(pid) for pid in before] == [True, False, False]
        cluster.scale(2)
        assert {one["name"] for one in cluster.executors}.issuperset({"executor-0"})
        assert client.sql(text).result() == expected
        client.wait_for_executors(2)


def test_an_executor_that_dies_is_started_again(until):
    with (
        windrow.LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="128MB") as cluster,
        windrow.Client(cluster) as client,
    ):
        first = cluster.pids()[0]
        cluster.kill(0)
        assert client.sql("SELECT count(*) AS n FROM generate_series(1, 100000)").to_pydict() == {"n": [100_000]}
        until(lambda: cluster.pids()[0] not in (first, None), "the executor is back")
        assert cluster.deaths()


SCRIPT = """
import os, sys, windrow
cluster = windrow.LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="128MB", spill_dir={folder!r})
client = windrow.Client(cluster)
print(*cluster.pids(), flush=True)
query = client.sql("SELECT count(*) FROM generate_series(1, 100000000000) WHERE random() < 2")
{then}
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_a_process_that_is_killed(python, until, tmp_path, how):
    process = python(SCRIPT.format(folder=str(tmp_path / "spill"), then="query.result()"))
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2 and all(map(is_running, pids))
    process.send_signal(how)
    process.wait(timeout=20)
    took = until(lambda: not any(map(is_running, pids)), "the executors end with their parent")
    assert took < 5
    until(lambda: not list((tmp_path / "spill").glob("*")), "no spill folder is left")


def test_nothing_is_left_of_a_process_that_ends(python, until, tmp_path):
    process = python(SCRIPT.format(folder=str(tmp_path / "spill"), then="del query"))
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert process.wait(timeout=20) == 0, process.stderr.read()
    assert not any(map(is_running, pids))
    assert not list((tmp_path / "spill").glob("*"))


FORK = """
import os, sys, windrow
client = windrow.connect(slots=1)
assert client.sql("SELECT 1 AS n").to_pydict() == {"n": [1]}
child = os.fork()
if child == 0:
    code = 1
    try:
        client.sql("SELECT 1")
    except windrow.UnsupportedError as error:
        code = 0 if "spawn" in error.hint else 2
    try:
        windrow.connect()
    except windrow.UnsupportedError:
        del client
        sys.exit(code)
    sys.exit(3)
_pid, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert client.sql("SELECT 1 AS n").to_pydict() == {"n": [1]}
"""


def test_a_forked_process_is_told_what_to_do(python):
    process = python(FORK)
    _out, said = process.communicate(timeout=30)
    assert process.returncode == 0, said


def test_the_program_comes_with_the_package():
    program = os.path.join(os.path.dirname(sys.executable), "windrow")
    done = subprocess.run(
        [program, "sql", "-c", "SELECT 41 + 1 AS n", "--format", "csv"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["n", "42"]
    wrong = subprocess.run([program, "sql", "-c", "SELEC"], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 1
    version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60)
    assert version.stdout.split() == ["windrow", windrow.__version__]


def test_what_is_shown_are_facts_and_never_a_query(cluster, until):
    text = repr(cluster)
    for line in ("Status: running", "Total threads: 2", "Workers: 2 (executors)", "Using processes: True", "Running queries: 0"):
        assert line in text
    assert "512.00 MB" in text
    with windrow.Client(cluster) as client:
        for line in ("Client ID: Client-", "Connection method: Cluster object", "Cluster type: windrow.LocalCluster"):
            assert line in repr(client)
        assert "<table>" in client._repr_html_()
        query = client.sql("SELECT value AS n FROM generate_series(1, 10)")
        until(lambda: query.id in [one["id"] for one in client.queries()], "the query is known")
        known = [one["id"] for one in client.queries()]
        assert "n: Int64" in repr(query) and "not computed" in repr(client.from_dict({"n": [1]}))
        assert "n" in query._repr_html_() and repr(client) and repr(cluster)
        assert [one["id"] for one in client.queries()] == known
    with windrow.connect(slots=1) as client:
        assert "Connection method: Embedded" in repr(client)


def test_resources_are_those_that_the_machine_and_slurm_allow(monkeypatch):
    from windrow import _machine

    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1024")
    assert _machine.cores() == 1
    assert _machine.memory_limit("auto", 2) == 1024 * 1_048_576 * 3 // 4 // 2
    assert _machine.memory_limit("2GB", 2) == 2_000_000_000
    assert _machine.memory_limit(0.5, 2) == 1024 * 1_048_576 * 3 // 4 // 2
    monkeypatch.undo()
    assert _machine.cores() <= len(os.sched_getaffinity(0))


def test_importing_the_package_imports_nothing_large():
    script = "import sys, windrow; print(*(m for m in ('pyarrow', 'pandas', 'polars', 'numpy', 'asyncio') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == ""
