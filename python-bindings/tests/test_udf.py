"""Functions of Python on executors: what they compute, and what happens when they fail, die, or never end."""

import os
import signal
import threading
import time

import numpy
import pandas
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import windrow
from conftest import client_of, is_running
from windrow import col

ROWS = 100_000


@pytest.fixture(params=["embedded", "cluster", "remote"])
def spot(request):
    """A client of an engine here, and of one whose executors are processes, from here and from afar."""
    with client_of(request.param, request) as client:
        yield client


@pytest.fixture(scope="module")
def table():
    """Rows with numbers, text, moments and nulls."""
    random = numpy.random.default_rng(7)
    x = random.integers(0, 1000, ROWS)
    return pa.table(
        {
            "id": pa.array(range(ROWS), pa.int64()),
            "k": pa.array(x % 7, pa.int32()),
            "x": pa.array(x, pa.float64(), mask=x % 13 == 0),
            "name": pa.array([None if one % 11 == 0 else f"name {one}" for one in x]),
            "at": pa.array(x * 1_000_000, pa.timestamp("us")),
        }
    )


@pytest.fixture(scope="module")
def files(table, tmp_path_factory):
    """The rows in several files, so that there are several tasks."""
    import pyarrow.parquet

    folder = tmp_path_factory.mktemp("rows")
    for number in range(8):
        part = table.slice(number * ROWS // 8, ROWS // 8)
        pyarrow.parquet.write_table(part, folder / f"{number}.parquet")
    return f"{folder}/"


@pytest.fixture
def frame(spot, files):
    """Those files, in six partitions."""
    spot.set({"partitions": 6, "small_input": "0B"})
    return spot.read_parquet(files)


def workers(children_of=None):
    """The processes of Python workers that descend from this one."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and is_running(int(entry)):
            try:
                with open(f"/proc/{entry}/cmdline") as line:
                    if "windrow/_worker.py" in line.read():
                        found.append(int(entry))
            except OSError:
                continue
    return found


# What they compute


def test_batches_of_arrow(frame, table):
    def score(batch):
        return pa.record_batch({"id": batch["id"], "score": pc.multiply(batch["x"], 2.0), "name": batch["name"]})

    scored = frame.map_batches(score, schema={"id": "int64", "score": "float64", "name": "string"}).sort("id").to_arrow()
    assert scored["id"].to_pylist() == table["id"].to_pylist()
    assert scored["score"].to_pylist() == pc.multiply(table["x"], 2.0).to_pylist()
    assert scored["name"].to_pylist() == table["name"].to_pylist()


def test_batches_of_pandas_polars_and_numpy(frame, table):
    def of_pandas(batch):
        assert isinstance(batch, pandas.DataFrame)
        return batch[batch["k"] == 3][["id", "x"]]

    def of_polars(batch):
        assert isinstance(batch, polars.DataFrame)
        return batch.filter(polars.col("k") == 3).select("id", "x")

    def of_numpy(batch):
        chosen = batch["k"] == 3
        return {"id": batch["id"][chosen], "x": batch["x"][chosen]}

    wants = table.filter(pc.equal(table["k"], 3)).select(["id", "x"]).sort_by("id").to_pydict()
    for function, format in ((of_pandas, "pandas"), (of_polars, "polars"), (of_numpy, "numpy")):
        given = frame.map_batches(function, {"id": "int64", "x": "float64"}, format=format).sort("id").to_pydict()
        assert given == wants, format


def test_batches_have_the_size_that_was_asked_for_and_any_number_of_rows_comes_back(frame):
    def sizes(batch):
        yield pa.record_batch({"size": [batch.num_rows]})
        yield pa.record_batch({"size": pa.array([], pa.int64())})
        yield pa.table({"size": [-batch.num_rows]})

    made = frame.map_batches(sizes, {"size": "int64"}, batch_size=1000).to_pydict()["size"]
    assert sum(made) == 0 and sum(one for one in made if one > 0) == ROWS
    assert max(made) == 1000 and sum(one == 1000 for one in made) >= ROWS // 1000 - 8


def test_steps_before_and_after(frame, table):
    def double(batch):
        return batch.set_column(1, "x", pc.multiply(batch["x"], 2.0))

    chosen = frame.filter(col("k") < 3).select("k", "x")
    made = chosen.map_batches(double, schema=chosen).group_by("k").agg(col("x").sum()).sort("k").to_pydict()
    wants = table.filter(pc.less(table["k"], 3)).group_by("k").aggregate([("x", "sum")]).sort_by("k").to_pydict()
    assert made == {"k": wants["k"], "x": [2 * one for one in wants["x_sum"]]}


def test_rows_keep_their_order(spot):
    rows = windrow.DataFrame.sort(spot.from_dict({"x": [3, 1, 2, 5, 4]}), "x", descending=True)
    assert rows.map_batches(lambda batch: batch, rows, batch_size=2).to_pydict() == {"x": [5, 4, 3, 2, 1]}


def test_no_rows_and_no_columns(spot):
    empty = spot.from_dict({"x": [1, 2]}).filter(col("x") > 5)
    assert empty.map_batches(lambda batch: batch, empty).to_pydict() == {"x": []}
    assert empty.map_batches(lambda batch: batch, empty).count() == 0


def test_every_type_goes_there_and_back(spot):
    rows = pa.table(
        {
            "a": pa.array([1, None], pa.uint8()),
            "b": pa.array(["x", None], pa.string()),
            "c": pa.array([b"x", None], pa.binary()),
            "d": pa.array([[1, 2], None], pa.list_(pa.int64())),
            "e": pa.array([{"x": 1, "y": "z"}, None], pa.struct([("x", pa.int64()), ("y", pa.string())])),
            "f": pa.array([1, None], pa.timestamp("us", "UTC")),
            "g": pa.array([1, None], pa.decimal128(10, 2)),
            "h": pa.array([True, None]),
            "i": pa.array([1, None], pa.date32()),
            "j": pa.array(["x", None], pa.string_view()),
            "k": pa.array([["x"], None], pa.list_(pa.string())),
        }
    )
    frame = spot.from_arrow(rows)
    assert frame.map_batches(lambda batch: batch, schema=frame).to_pylist() == rows.to_pylist()


def test_an_object_of_a_class_is_made_once_in_each_worker(frame, tmp_path):
    class Model:
        def __init__(self, folder, add=0):
            self.add = add
            with open(f"{folder}/{os.getpid()}", "a") as made:
                made.write("x")

        def __call__(self, batch):
            return pa.record_batch({"pid": pa.array([os.getpid()] * batch.num_rows), "x": pc.add(batch["id"], self.add)})

    made = frame.map_batches(
        Model, {"pid": "int64", "x": "int64"}, init_args=(str(tmp_path),), init_kwargs={"add": 5}, concurrency=1, batch_size=500
    )
    rows = made.to_pydict()
    assert sum(rows["x"]) == sum(range(ROWS)) + 5 * ROWS
    logs = {int(name): (tmp_path / name).read_text() for name in os.listdir(tmp_path)}
    assert set(rows["pid"]) <= set(logs) and set(logs.values()) == {"x"}
    assert len(logs) <= 2 and os.getpid() not in logs


def test_workers_are_used_again_by_the_next_query(client):
    frame = client.from_dict({"x": [1]}).map_batches(lambda _batch: pa.record_batch({"pid": [os.getpid()]}), {"pid": "int64"})
    assert frame.to_pydict() == frame.to_pydict()


def test_what_is_printed_and_read_disturbs_nothing(spot, capfd):
    def noisy(batch):
        import sys

        print("x" * 100_000)
        os.write(1, b"B" * 1000)
        print("to standard error", file=sys.stderr)
        assert sys.stdin.read() == ""
        return batch

    frame = spot.from_dict({"x": list(range(10_000))})
    assert frame.map_batches(noisy, frame, batch_size=500).count() == 10_000


# Functions in expressions


def test_a_function_of_columns(frame, table):
    @windrow.udf(returns="float64")
    def fee(x, k):
        return pc.add(pc.multiply(x, 2.0), k)

    wants = pc.add(pc.multiply(table["x"], 2.0), table["k"]).to_pylist()
    made = frame.select(col("id"), (fee(col("x"), "k") + 1).alias("fee"), fee("x", "k").alias("plain")).sort("id").to_pydict()
    assert made["plain"] == wants
    assert made["fee"] == [None if one is None else one + 1 for one in wants]
    assert frame.filter(fee("x", "k") > 1990).count() == sum(one is not None and one > 1990 for one in wants)


def test_functions_of_pandas_polars_and_numpy(frame, table):
    for format in ("pandas", "polars", "numpy"):

        @windrow.udf(returns="int64", format=format)
        def square(x):
            return x * x

        made = frame.select(col("id"), square("k").alias("made")).sort("id").to_pydict()["made"]
        assert made == [one * one for one in table["k"].to_pylist()], format


def test_a_function_in_sql(frame, spot, table):
    @windrow.udf(returns="string")
    def shout(text):
        return pc.utf8_upper(text)

    @windrow.udaf(returns="float64", format="numpy")
    def middle(values):
        return float(numpy.nanmedian(values))

    spot.register_udf(shout)
    spot.register_udf(middle)
    made = spot.sql("SELECT shout(name) AS n, count(*) AS c FROM frame WHERE k = 2 GROUP BY shout(name) ORDER BY n").to_pydict()
    chosen = table.filter(pc.equal(table["k"], 2))
    wants = chosen.append_column("n", pc.utf8_upper(chosen["name"])).group_by("n").aggregate([("n", "count")])
    assert len(made["n"]) == len(wants["n"]) and set(made["n"]) == set(wants["n"].to_pylist())
    made = spot.sql("SELECT k, middle(x) AS m FROM frame GROUP BY k ORDER BY k").to_pydict()
    assert made["m"] == table.to_pandas().groupby("k")["x"].median().tolist()


def test_a_scheduler_that_takes_no_plans_knows_functions_of_sql(scheduler_without_plans):
    @windrow.udf(returns="int64", name="abs")
    def other(x):
        return pc.multiply(x, 100)

    @windrow.udf(returns="int64")
    def twice(x):
        return pc.multiply(x, 2)

    with windrow.connect(scheduler_without_plans.url) as client:
        frame = client.from_dict({"x": [1, 2]})
        # By its name, this would be another function.
        for refused in (frame.map_batches(lambda batch: batch, frame), frame.select(other("x").alias("y"))):
            with pytest.raises(windrow.UnsupportedError, match="accept_plans"):
                refused.collect()
        client.register_udf(twice)
        assert client.sql("SELECT twice(x) AS y FROM frame ORDER BY y").to_pydict() == {"y": [2, 4]}
        with pytest.raises(windrow.InvalidQueryError, match="'abs' is a function of SQL"):
            client.register_udf(other)


def test_a_function_of_groups(frame, table):
    @windrow.udaf(returns="float64", format="pandas")
    def weighted(values, weights):
        return (values * weights).sum()

    made = frame.group_by("k").agg(weighted("x", "id").alias("w"), col("x").count().alias("n")).sort("k").to_pandas()
    wants = table.to_pandas().assign(w=lambda rows: rows["x"] * rows["id"]).groupby("k").agg(w=("w", "sum"), n=("x", "count"))
    assert numpy.allclose(made["w"], wants["w"]) and made["n"].tolist() == wants["n"].tolist()


def test_words_of_dask(files, table):
    import windrow.dataframe as dd

    with windrow.connect(slots=2):
        df = dd.read_parquet(files + "*.parquet")
        made = df.map_partitions(lambda rows, add: rows.assign(y=rows["id"] + add), 10)
        assert made.columns == [*table.column_names, "y"]
        assert made["y"].sum().compute() == sum(range(ROWS)) + 10 * ROWS
        named = df.map_partitions(lambda rows: rows[["id"]], meta={"id": "i8"})
        assert len(named.compute()) == ROWS
        pairs = df.assign(both=df.apply(lambda row: row["id"] * 2, axis=1, meta=("both", "int64"))).compute()
        assert (pairs["both"] == pairs["id"] * 2).all()


# What is refused before anything runs


def test_what_cannot_be_sent_is_refused_at_once(client):
    frame = client.from_dict({"x": [1]})
    lock = threading.Lock()
    with pytest.raises(windrow.InvalidQueryError, match="cannot be sent"):
        frame.map_batches(lambda batch: (lock, batch)[1], frame)
    with pytest.raises(windrow.InvalidQueryError, match="no function"):
        frame.map_batches("score", frame)
    with pytest.raises(windrow.InvalidQueryError, match="init_args are for a class"):
        frame.map_batches(lambda batch: batch, frame, init_args=(1,))
    with pytest.raises(windrow.InvalidQueryError, match="no schema"):
        frame.map_batches(lambda batch: batch, 5)
    with pytest.raises(windrow.InvalidQueryError, match="batch_size = 0"):
        frame.map_batches(lambda batch: batch, frame, batch_size=0)
    with pytest.raises(windrow.InvalidConfigError, match="format = 'arow'"):
        frame.map_batches(lambda batch: batch, frame, format="arow")


def test_without_a_setting_there_are_no_functions(python):
    script = """
import windrow
from windrow import _windrow
session = _windrow.Session.connect(slots=1)
client = windrow.Client._of(session, "Embedded", True)
frame = client.from_dict({"x": [1]})
try:
    frame.map_batches(lambda batch: batch, frame).collect()
except windrow.DeniedError as error:
    print(error)
"""
    said, wrong = python(script).communicate(timeout=60)
    assert "executor.python is not set" in said, wrong


# What goes wrong


def test_an_exception_is_shown_with_its_rows(frame):
    def fragile(batch):
        if 54_321 in batch["id"].to_pylist():
            raise KeyError("no such zone")
        return batch

    with pytest.raises(windrow.InvalidQueryError) as caught:
        frame.map_batches(fragile, frame, batch_size=1000).collect()
    message = str(caught.value)
    assert "'fragile' failed with rows" in message and "KeyError: 'no such zone'" in message
    assert "in fragile" in message and "test_udf.py" in message and "_worker" not in message
    first, last = message.partition("rows ")[2].partition(" of")[0].split("..")
    assert int(last) - int(first) <= 1000


def test_a_wrong_result_names_its_column(spot):
    frame = spot.from_dict({"x": [1, 2]})
    for function, message in (
        (lambda batch: pa.record_batch({"y": batch["x"]}), "'x' of its schema is not in"),
        (lambda batch: batch.append_column("y", batch["x"]), "'y' that it gave is not in its schema"),
        (lambda batch: {"x": ["a", "b"]}, "'x' that it gave is string, and its schema says int64"),
        (lambda batch: {"x": [1.5, 2.5]}, "'x' that it gave is double, not int64"),
        (lambda batch: 5, "gave a int, which is no batch"),
    ):
        with pytest.raises(windrow.InvalidQueryError) as caught:
            frame.map_batches(function, {"x": "int64"}).collect()
        assert message in str(caught.value)

    @windrow.udf(returns="int64")
    def short(x):
        return x.slice(1)

    with pytest.raises(windrow.InvalidQueryError, match="gave 1 values for 2 rows"):
        frame.select(short("x")).collect()


def test_what_fails_while_it_is_loaded_says_so(client):
    class Broken:
        def __init__(self):
            raise RuntimeError("no model")

        def __call__(self, batch):
            return batch

    frame = client.from_dict({"x": [1]})
    with pytest.raises(windrow.InvalidQueryError, match="'Broken' cannot be loaded: RuntimeError: no model"):
        frame.map_batches(Broken, frame).collect()


def test_a_worker_that_dies_once_costs_nothing(frame, tmp_path):
    marker = str(tmp_path / "died")

    def dies(batch):
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return batch.select(["id"])
        os._exit(7)

    made = frame.map_batches(dies, {"id": "int64"}, batch_size=5000).to_pydict()["id"]
    assert sorted(made) == list(range(ROWS)) and os.path.exists(marker)


def test_a_function_that_always_kills_its_worker_is_reported_and_the_executor_lives(frame, spot):
    def kills(batch):
        print("about to die")
        os._exit(7)

    with pytest.raises(windrow.InvalidQueryError) as caught:
        frame.map_batches(kills, {"id": "int64"}).collect()
    message = str(caught.value)
    assert "ended its process with rows" in message and "exit code 7" in message and "about to die" in message

    def crashes(batch):
        os.kill(os.getpid(), signal.SIGSEGV)

    with pytest.raises(windrow.InvalidQueryError, match="signal 11"):
        frame.map_batches(crashes, {"id": "int64"}).collect()
    assert frame.count() == ROWS


def test_more_memory_than_a_worker_may_take_is_an_error_with_the_figures(spot):
    def greedy(batch):
        return batch if bytearray(1 << 30) else None

    frame = spot.from_dict({"x": [1]})
    with pytest.raises(windrow.ResourcesExhaustedError) as caught:
        frame.map_batches(greedy, frame, memory="64MB", batch_size=100).collect()
    assert "memory = 64000000 bytes" in str(caught.value) and "batch_size = 100" in str(caught.value)
    assert frame.map_batches(lambda batch: batch, frame, memory="64MB").count() == 1


def test_a_loop_without_end_ends_with_its_query(spot, until):
    def endless(batch):
        while True:
            pass

    frame = spot.from_dict({"x": [1]})
    before = set(workers())
    query = frame.map_batches(endless, frame, concurrency=1).submit()
    until(lambda: set(workers()) - before, "a worker has started")
    [worker] = set(workers()) - before
    query.cancel()
    with pytest.raises(windrow.CancelledError):
        query.result()
    until(lambda: not is_running(worker), "the worker is gone")


def test_a_time_limit_ends_what_never_ends(client, until):
    def holds_the_lock(batch):
        import re

        return re.match(r"(a+)+$", "a" * 60 + "b")

    frame = client.from_dict({"x": [1]})
    client.set({"time_limit": "1s"})
    before = set(workers())
    with pytest.raises(windrow.Error, match="time_limit"):
        frame.map_batches(holds_the_lock, frame).collect()
    until(lambda: not set(workers()) - before, "the worker is gone")


class Slow:
    """Takes its time, and says which process does."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, batch):
        open(f"{self.folder}/{os.getpid()}", "a").close()
        time.sleep(0.02)
        return batch.select(["id"])


def test_workers_that_are_killed_change_no_row(frame, until, tmp_path):
    query = frame.map_batches(Slow, {"id": "int64"}, batch_size=1000, init_args=(str(tmp_path),)).submit()
    until(lambda: os.listdir(tmp_path), "a worker works")
    os.kill(int(os.listdir(tmp_path)[0]), signal.SIGKILL)
    assert sorted(query.result().to_pydict()["id"]) == list(range(ROWS))


def test_an_executor_that_is_killed_changes_no_row_and_leaves_no_worker(files, until, tmp_path):
    with windrow.LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="256MB") as cluster:
        with windrow.Client(cluster) as client:
            client.set({"partitions": 6, "small_input": "0B"})
            before = set(workers())
            rows = client.read_parquet(files)
            query = rows.map_batches(Slow, {"id": "int64"}, batch_size=1000, init_args=(str(tmp_path),)).submit()
            until(lambda: len(os.listdir(tmp_path)) >= 2, "a worker of each executor works")
            old = {int(name) for name in os.listdir(tmp_path)}
            cluster.kill(0)
            assert sorted(query.result().to_pydict()["id"]) == list(range(ROWS))
            until(lambda: sum(is_running(one) for one in old) < len(old), "the workers of the dead executor are gone")
    until(lambda: not set(workers()) - before, "no worker is left")


def test_no_process_is_left(python, until):
    script = """
import os, signal, sys, time, windrow
client = windrow.connect(slots=2)
frame = client.from_dict({"x": list(range(100))})
def children(batch):
    import subprocess
    subprocess.Popen(["sleep", "1000"])
    return {"pid": [os.getpid()]}
pids = frame.map_batches(children, {"pid": "int64"}, format="numpy").to_pydict()["pid"]
print(pids[0], flush=True)
if sys.argv[1:] == ["close"] or os.environ["HOW"] == "close":
    client.close()
    print("closed", flush=True)
else:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(1000)
"""
    for how in ("close", "kill"):
        process = python(script, env={"HOW": how})
        worker = int(process.stdout.readline())
        if how == "close":
            assert process.stdout.readline() == "closed\n"
            assert not is_running(worker)
        until(lambda worker=worker: not is_running(worker), "the worker is gone")
        until(lambda worker=worker: not group(worker), "what the worker has started is gone")


def group(leader):
    """The living processes of a group."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    fields = stat.read().rpartition(")")[2].split()
                if int(fields[2]) == leader and fields[0] != "Z":
                    found.append(int(entry))
            except OSError:
                continue
    return found


# What a worker may see


def test_a_worker_sees_no_secret_of_its_executors_environment(python):
    script = """
import os, windrow
client = windrow.connect(slots=1)
frame = client.from_dict({"x": [1]})
def look(batch):
    return {"name": list(os.environ), "value": list(os.environ.values())}
seen = frame.map_batches(look, {"name": "string", "value": "string"}, format="numpy").to_pydict()
print("SECRET" in seen["name"], "hunter2" in seen["value"], "PATH" in seen["name"])
"""
    said, wrong = python(script, env={"SECRET": "hunter2", "AWS_SECRET_ACCESS_KEY": "hunter2"}).communicate(timeout=60)
    assert said.split() == ["False", "False", "True"], wrong


def test_a_worker_dumps_no_core_and_takes_no_rights(client):
    def look(batch):
        import resource

        with open("/proc/self/status") as status:
            [rights] = [line.split()[1] for line in status if line.startswith("NoNewPrivs")]
        return {"core": [resource.getrlimit(resource.RLIMIT_CORE)[1]], "rights": [int(rights)]}

    frame = client.from_dict({"x": [1]})
    seen = frame.map_batches(look, {"core": "int64", "rights": "int64"}, format="numpy").to_pydict()
    assert seen == {"core": [0], "rights": [1]}
