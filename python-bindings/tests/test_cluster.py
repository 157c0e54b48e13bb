"""Clusters that change their size by themselves, and files that say where they are."""

import os
import stat

import pytest

import windrow
from windrow import _adaptive

ENDLESS = "SELECT count(*) FROM generate_series(1, 100000000000) WHERE random() < 2"


@pytest.mark.parametrize(
    ("queries", "expected"),
    [
        ([], 2),
        ([("succeeded", 9, 9), ("failed", 90, 1), ("cancelled", 90, 1)], 2),
        ([("queued", 0, 0)], 2),
        ([("running", 12, 4)], 4),
        ([("running", 12, 3)], 5),
        ([("running", 6, 0), ("queued", 8, 0)], 7),
        ([("running", 400, 0)], 8),
        ([("running", 5, 5)] * 5, 3),
    ],
)
def test_as_many_executors_are_wanted_as_tasks_keep_busy(queries, expected):
    status = {"queries": [{"state": state, "tasks": tasks, "tasks_done": done} for state, tasks, done in queries]}
    assert _adaptive.wanted(status, slots=2, minimum=2, maximum=8) == expected


def test_a_cluster_adapts_to_its_work(until):
    with (
        windrow.LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="128MB") as cluster,
        windrow.Client(cluster) as client,
    ):
        adaptive = cluster.adapt(minimum=1, maximum=2, interval=0.05)
        assert adaptive.is_running and "Maximum: 2" in repr(adaptive)
        queries = [client.sql(ENDLESS), client.sql(ENDLESS)]
        until(lambda: len(cluster.executors) == 2, "it grows")
        for query in queries:
            query.cancel()
        until(lambda: len(cluster.executors) == 1, "it shrinks")
        assert client.sql("SELECT 1 AS n").to_pydict() == {"n": [1]}
        cluster.scale(2)
        assert not adaptive.is_running and len(cluster.executors) == 2
        assert adaptive.error is None
        second = cluster.adapt(minimum=1, maximum=3)
    assert not second.is_running


def test_how_a_cluster_may_not_adapt():
    with windrow.LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="128MB", processes=False) as cluster:
        with pytest.raises(windrow.UnsupportedError, match="leave") as refused:
            cluster.adapt(1, 2)
        assert "processes=True" in refused.value.hint
    with pytest.raises(windrow.UnavailableError, match="closed"):
        cluster.adapt(1, 2)
    with windrow.LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="128MB") as cluster:
        for wrong in ({"minimum": 0}, {"minimum": 3, "maximum": 2}, {"interval": 0}):
            with pytest.raises(windrow.InvalidConfigError):
                cluster.adapt(**wrong)


def test_a_scheduler_file_says_where_a_cluster_is(python, tmp_path, monkeypatch):
    file = tmp_path / "scheduler.json"
    cluster = windrow.LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="128MB", scheduler_file=file)
    with cluster:
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
        assert os.listdir(tmp_path) == ["scheduler.json"]
        for open_one in (windrow.connect, windrow.Client):
            with open_one(scheduler_file=file) as client:
                assert client.url == cluster.url
                assert client.sql("SELECT 1 AS n").to_pydict() == {"n": [1]}
        # Whoever may read the file needs nothing else: not even the home in which the cluster's secret lies.
        script = "import windrow\nprint(windrow.connect(scheduler_file={!r}).sql('SELECT 2 AS n').to_pydict())"
        other = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
        said, wrong = python(script.format(str(file)), env=other).communicate(timeout=60)
        assert said == "{'n': [2]}\n", wrong
        with pytest.raises(windrow.InvalidConfigError, match="one of them"):
            windrow.connect("grpc://127.0.0.1:1", scheduler_file=file)
    assert not file.exists()
    with pytest.raises(windrow.NotFoundError, match="no scheduler file"):
        windrow.connect(scheduler_file=file)
    for text in ("{", "[]", '{"address": 5}'):
        file.write_text(text)
        with pytest.raises(windrow.InvalidConfigError, match="scheduler file"):
            windrow.connect(scheduler_file=file)
