"""Python functions over many rows: what the way to them costs, how large batches should be, and a model that scores rows on one and on two
executors. Where dask and daft are installed, their ways cost is measured in turn with ours. Target: half of Dask's or less.

``python python-bindings/benches/functions.py``, with an interpreter that has windrow[udf] and scikit-learn.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import windrow
from windrow import col

SCHEMA = {"id": "int64", "fare": "float64", "miles": "float64"}
FILES = 8


def write(folder, rows):
    """Rows in files of equal size."""
    chance = np.random.default_rng(7)
    for number, ids in enumerate(np.array_split(np.arange(rows), FILES)):
        columns = {"id": ids, "fare": chance.uniform(3, 90, len(ids)), "miles": chance.exponential(3, len(ids))}
        pq.write_table(pa.table(columns), f"{folder}/part-{number}.parquet", row_group_size=128 * 1024)


def same(batch):
    """A function without work."""
    return batch


class Model:
    """Scores rows; made once in each process."""

    def __init__(self):
        from sklearn.linear_model import LinearRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import PolynomialFeatures

        chance = np.random.default_rng(1)
        known = chance.uniform(0, 90, (1000, 2))
        self.model = make_pipeline(PolynomialFeatures(5), LinearRegression()).fit(known, known[:, 0] * 0.2 + known[:, 1])

    def __call__(self, batch):
        return {"id": batch["id"], "tip": self.model.predict(np.column_stack([batch["fare"], batch["miles"]]))}


def in_turn(ways, runs):
    """The median seconds of each way, measured in turn after a round that does not count. All give the same number."""
    seconds = {name: [] for name in ways}
    results = {}
    for run in range(runs + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            results[name] = work()
            if run:
                seconds[name].append(time.perf_counter() - start)
    assert len(set(results.values())) == 1, results
    return {name: statistics.median(took) for name, took in seconds.items()}


def total(frame, column="id"):
    """The sum of a column, for which all batches have to come back."""
    return int(frame.agg(col(column).sum().alias("sum")).collect()["sum"][0])


def ways(folder, given):
    """A function without work, by each engine on two processes of one thread, or as it runs by itself."""
    import windrow.dataframe as dd

    columns = col("id").sum().alias("sum")

    @windrow.udf(returns="int64")
    def same_values(values):
        return values

    with contextlib.ExitStack() as open_:
        cluster = open_.enter_context(windrow.LocalCluster(n_workers=2, threads_per_worker=1))
        client = open_.enter_context(windrow.Client(cluster))
        rows = client.read_parquet(f"{folder}/*.parquet")
        measured = {
            "windrow map_batches": lambda: total(rows.map_batches(same, SCHEMA)),
            "windrow map_batches, 64k rows": lambda: total(rows.map_batches(same, SCHEMA, batch_size=65536)),
            "windrow map_partitions (pandas)": lambda: total(dd.read_parquet(f"{folder}/*.parquet").map_partitions(same)),
            "windrow udf, one column": lambda: int(rows.select(same_values("id").alias("id")).agg(columns).collect()["sum"][0]),
        }
        if importlib.util.find_spec("dask"):
            import dask.dataframe
            from dask.distributed import Client, LocalCluster

            theirs = open_.enter_context(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None))
            open_.enter_context(Client(theirs))
            # Every column is asked for, or Dask might not read it.
            measured["dask map_partitions"] = lambda: int(
                dask.dataframe.read_parquet(folder).map_partitions(same).sum().compute()["id"]
            )
        if importlib.util.find_spec("daft"):
            import daft

            returned = daft.func.batch(return_dtype=daft.DataType.int64())(same)

            def by_daft():
                read = daft.read_parquet(f"{folder}/*.parquet")
                return read.select(returned(read["id"]).alias("id")).sum("id").to_pydict()["id"][0]

            measured["daft udf, one column"] = by_daft
        seconds = in_turn(measured, given.runs)
    for name, took in seconds.items():
        print(f"{name:34} {took:7.2f} s  {given.rows / took / 1e6:7.1f} million rows/s")
    return seconds


def batches(folder, given):
    """The same by rows a batch, for the forms that a batch may have."""
    seconds = {}
    with windrow.LocalCluster(n_workers=2, threads_per_worker=1) as cluster, windrow.Client(cluster) as client:
        rows = client.read_parquet(f"{folder}/*.parquet")
        for form in ("arrow", "numpy", "pandas"):
            sizes = {
                size: lambda size=size, form=form: total(rows.map_batches(same, SCHEMA, batch_size=size, format=form))
                for size in (512, 2048, 8192, 32768, 131072)
            }
            seconds[form] = in_turn(sizes, given.runs)
            for size, took in seconds[form].items():
                print(f"{form:8} {size:7} rows a batch {took:7.2f} s  {given.rows / took / 1e6:7.1f} million rows/s")
    return seconds


def model(folder, given):
    """A model of scikit-learn, on one and on two executors of one slot."""
    with contextlib.ExitStack() as open_:
        measured = {}
        for executors in (1, 2):
            cluster = open_.enter_context(windrow.LocalCluster(n_workers=executors, threads_per_worker=1))
            rows = open_.enter_context(windrow.Client(cluster)).read_parquet(f"{folder}/*.parquet")
            measured[executors] = lambda rows=rows: total(
                rows.map_batches(Model, {"id": "int64", "tip": "float64"}, format="numpy")
            )
        seconds = in_turn(measured, given.runs)
    for executors, took in seconds.items():
        print(f"model, {executors} executors {took:7.2f} s  {given.rows / took / 1e6:7.1f} million rows/s")
    return seconds


def main():
    """Prints tables and one line of JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=10_000_000)
    arguments.add_argument("--runs", type=int, default=3)
    given = arguments.parse_args()
    os.environ["WINDROW_PROGRESS"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        write(folder, given.rows)
        print(json.dumps({"ways": ways(folder, given), "batches": batches(folder, given), "model": model(folder, given)}))


if __name__ == "__main__":
    main()
