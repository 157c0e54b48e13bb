"""The same lines over ``windrow.dataframe`` and ``dask.dataframe``, in turn: read, filter, group by, join, sort over TPC-H data, each on two
processes of one thread. Target: 15 times as fast in total.

``windrow tpch --scale 1 --output DIR``, then ``python python-bindings/benches/against_dask.py DIR``, with an interpreter that has windrow
and ``dask[complete]``. Decimals become floats first, which Dask has no other way to compute with.
"""

import argparse
import json
import os
import statistics
import tempfile
import time

import dask.dataframe
import numpy as np
import pandas as pd
from dask.distributed import Client as DaskClient
from dask.distributed import LocalCluster as DaskCluster

import windrow.dataframe


def read(dd, data):
    return dd.read_parquet(f"{data}/lineitem/").sum(numeric_only=True).compute()


def filter(dd, data):
    rows = dd.read_parquet(f"{data}/lineitem/")
    rows = rows[(rows["l_quantity"] < 24) & (rows["l_discount"] > 0.05) & (rows["l_shipmode"] == "RAIL")]
    return rows[["l_orderkey", "l_extendedprice"]].compute()


def group_by(dd, data):
    rows = dd.read_parquet(f"{data}/lineitem/")
    wanted = {"l_quantity": "sum", "l_extendedprice": "mean", "l_discount": "max"}
    return rows.groupby(["l_returnflag", "l_linestatus"]).agg(wanted).compute()


def group_by_many(dd, data):
    rows = dd.read_parquet(f"{data}/lineitem/")
    return rows.groupby("l_partkey").agg({"l_quantity": "sum"}).compute()


def join(dd, data):
    orders = dd.read_parquet(f"{data}/orders/")[["o_orderkey", "o_orderpriority"]]
    rows = dd.read_parquet(f"{data}/lineitem/")[["l_orderkey", "l_extendedprice"]]
    joined = rows.merge(orders, left_on="l_orderkey", right_on="o_orderkey")
    return joined.groupby("o_orderpriority").agg({"l_extendedprice": "sum"}).compute()


def sort(dd, data):
    rows = dd.read_parquet(f"{data}/lineitem/")[["l_orderkey", "l_linenumber", "l_extendedprice"]]
    return rows.sort_values(["l_extendedprice", "l_orderkey", "l_linenumber"]).compute()


OPERATIONS = [read, filter, group_by, group_by_many, join, sort]


def prepared(source, target):
    """The tables with decimals as floats."""
    with windrow.connect(slots=2) as client:
        client.set(partitions=4)
        for table in ("lineitem", "orders"):
            rows = client.read_parquet(f"{source}/{table}/*.parquet")
            decimals = {name: "float64" for name, of in rows.dtypes.items() if of.lower().startswith("decimal")}
            rows.cast(decimals).write_parquet(f"{target}/{table}/")


def plain(result):
    """What both are compared by: the values, sorted where the operation gives no order."""
    values = result.reset_index() if isinstance(result.index, pd.MultiIndex) or result.index.name else result
    values = values.to_frame().T if isinstance(values, pd.Series) else values
    return values.reset_index(drop=True)


def same(ours, theirs, is_sorted):
    """Whether both gave the same rows; dates and names of index columns aside."""
    ours, theirs = plain(ours), plain(theirs)
    columns = sorted(set(ours.columns) & set(theirs.columns))
    ours, theirs = ours[columns], theirs[columns]
    if not is_sorted:
        ours, theirs = (one.sort_values(columns).reset_index(drop=True) for one in (ours, theirs))
    if len(ours) != len(theirs) or not columns:
        return False
    return all(
        np.allclose(ours[name].astype(float), theirs[name].astype(float))
        if ours[name].dtype.kind in "if"
        else list(ours[name].astype(str)) == list(theirs[name].astype(str))
        for name in columns
    )


def timed(operation, dd, data):
    """The result with its seconds."""
    start = time.perf_counter()
    result = operation(dd, data)
    return result, time.perf_counter() - start


def main():
    """Prints the medians, their ratio, and one line of JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("data", help="a folder with TPC-H as Parquet, one folder a table")
    arguments.add_argument("--runs", type=int, default=3)
    given = arguments.parse_args()
    os.environ["WINDROW_PROGRESS"] = "0"
    seconds = {operation.__name__: {"windrow": [], "dask": []} for operation in OPERATIONS}
    with tempfile.TemporaryDirectory() as data:
        prepared(given.data, data)
        with (
            windrow.LocalCluster(n_workers=2, threads_per_worker=1) as ours,
            windrow.Client(ours),
            DaskCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as theirs,
            DaskClient(theirs),
        ):
            for run in range(given.runs):
                for operation in OPERATIONS:
                    here, ours_took = timed(operation, windrow.dataframe, data)
                    there, theirs_took = timed(operation, dask.dataframe, data)
                    name = operation.__name__
                    seconds[name]["windrow"].append(ours_took)
                    seconds[name]["dask"].append(theirs_took)
                    if run == 0:
                        assert same(here, there, operation is sort), f"{name} differs:\n{here}\n{there}"
    medians = {name: {engine: statistics.median(took) for engine, took in both.items()} for name, both in seconds.items()}
    medians["total"] = {engine: sum(both[engine] for both in medians.values()) for engine in ("windrow", "dask")}
    for name, both in medians.items():
        print(f"{name:14} windrow {both['windrow']:7.3f} s   dask {both['dask']:7.3f} s   {both['dask'] / both['windrow']:5.1f}x")
    print(json.dumps(medians))


if __name__ == "__main__":
    main()
