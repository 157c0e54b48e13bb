"""Queries of TPC-H as frames: the rows are those of their texts."""

import datetime as dt
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

import windrow
from windrow import col
from windrow import functions as F

QUERIES = Path(__file__).parents[2] / "cli" / "queries" / "tpch"
TABLES = ("customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier")
REVENUE = col("l_extendedprice") * (1 - col("l_discount"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tables at a hundredth of the benchmark's smallest size."""
    folder = tmp_path_factory.mktemp("tpch")
    make = "from windrow._cli import main; main()"
    subprocess.run([sys.executable, "-c", make, "tpch", "--scale", "0.01", "--parts", "2", "--output", str(folder)], check=True)
    return folder


@pytest.fixture(scope="module", params=["embedded", "cluster"])
def client(request, folder):
    if request.param == "embedded":
        client = windrow.connect(slots=2, memory_limit="512MB")
    else:
        client = windrow.Client(request.getfixturevalue("cluster"))
    with client:
        client.set(small_input="1B", partitions=3)
        yield client


class Tables:
    def __init__(self, client, folder):
        for name in TABLES:
            setattr(self, name, client.read_parquet(f"{folder}/{name}/"))


def q01(t):
    lines = t.lineitem.filter(col("l_shipdate") <= dt.date(1998, 9, 2))
    return (
        lines.group_by("l_returnflag", "l_linestatus")
        .agg(
            sum_qty=col("l_quantity").sum(),
            sum_base_price=col("l_extendedprice").sum(),
            sum_disc_price=REVENUE.sum(),
            sum_charge=(REVENUE * (1 + col("l_tax"))).sum(),
            avg_qty=col("l_quantity").mean(),
            avg_price=col("l_extendedprice").mean(),
            avg_disc=col("l_discount").mean(),
            count_order=F.count(),
        )
        .sort("l_returnflag", "l_linestatus")
    )


def q03(t):
    customer = t.customer.filter(col("c_mktsegment") == "BUILDING")
    orders = t.orders.filter(col("o_orderdate") < dt.date(1995, 3, 15))
    lines = t.lineitem.filter(col("l_shipdate") > dt.date(1995, 3, 15))
    joined = customer.join(orders, left_on="c_custkey", right_on="o_custkey").join(
        lines, left_on="o_orderkey", right_on="l_orderkey"
    )
    groups = joined.group_by(col("o_orderkey").alias("l_orderkey"), "o_orderdate", "o_shippriority").agg(revenue=REVENUE.sum())
    top = groups.sort(col("revenue").desc(), "o_orderdate", "l_orderkey").head(10)
    return top.select("l_orderkey", "revenue", "o_orderdate", "o_shippriority")


def q05(t):
    orders = t.orders.filter(col("o_orderdate") >= dt.date(1994, 1, 1), col("o_orderdate") < dt.date(1995, 1, 1))
    asia = t.region.filter(t.region.r_name == "ASIA").join(t.nation, left_on="r_regionkey", right_on="n_regionkey")
    suppliers = t.supplier.join(asia, left_on="s_nationkey", right_on="n_nationkey")
    lines = t.customer.join(orders, left_on="c_custkey", right_on="o_custkey").join(
        t.lineitem, left_on="o_orderkey", right_on="l_orderkey"
    )
    joined = lines.join(suppliers, left_on=["l_suppkey", "c_nationkey"], right_on=["s_suppkey", "s_nationkey"])
    return joined.group_by("n_name").agg(revenue=REVENUE.sum()).sort("revenue", descending=True)


def q06(t):
    lines = t.lineitem.filter(
        col("l_shipdate") >= dt.date(1994, 1, 1),
        col("l_shipdate") < dt.date(1995, 1, 1),
        col("l_discount").between(Decimal("0.05"), Decimal("0.07")),
        col("l_quantity") < 24,
    )
    return lines.select(revenue=(col("l_extendedprice") * col("l_discount")).sum())


def q09(t):
    green = t.part.filter(col("p_name").str.like("%green%"))
    lines = t.lineitem.join(green, left_on="l_partkey", right_on="p_partkey").join(
        t.supplier, left_on="l_suppkey", right_on="s_suppkey"
    )
    lines = lines.join(t.partsupp, left_on=["l_suppkey", "l_partkey"], right_on=["ps_suppkey", "ps_partkey"])
    lines = lines.join(t.orders, left_on="l_orderkey", right_on="o_orderkey").join(
        t.nation, left_on="s_nationkey", right_on="n_nationkey"
    )
    profit = lines.select(
        nation="n_name",
        o_year=col("o_orderdate").dt.year(),
        amount=REVENUE - col("ps_supplycost") * col("l_quantity"),
    )
    return profit.group_by("nation", "o_year").agg(sum_profit=col("amount").sum()).sort("nation", col("o_year").desc())


def q10(t):
    orders = t.orders.filter(col("o_orderdate") >= dt.date(1993, 10, 1), col("o_orderdate") < dt.date(1994, 1, 1))
    returned = t.lineitem.filter(col("l_returnflag") == "R")
    joined = t.customer.join(orders, left_on="c_custkey", right_on="o_custkey").join(
        returned, left_on="o_orderkey", right_on="l_orderkey"
    )
    joined = joined.join(t.nation, left_on="c_nationkey", right_on="n_nationkey")
    groups = joined.group_by("c_custkey", "c_name", "c_acctbal", "c_phone", "n_name", "c_address", "c_comment").agg(
        revenue=REVENUE.sum()
    )
    top = groups.sort("revenue", "c_custkey", descending=[True, False]).head(20)
    return top.select("c_custkey", "c_name", "revenue", "c_acctbal", "n_name", "c_address", "c_phone", "c_comment")


def q13(t):
    orders = t.orders.filter(~col("o_comment").str.like("%special%requests%"))
    joined = t.customer.join(orders, left_on="c_custkey", right_on="o_custkey", how="left")
    counts = joined.group_by("c_custkey").agg(c_count=col("o_orderkey").count())
    return counts.group_by("c_count").agg(custdist=F.count()).sort("custdist", "c_count", descending=True)


def q18(t):
    large = t.lineitem.group_by("l_orderkey").agg(q=col("l_quantity").sum()).filter(col("q") > 300)
    orders = t.orders.join(large, left_on="o_orderkey", right_on="l_orderkey", how="semi")
    joined = t.customer.join(orders, left_on="c_custkey", right_on="o_custkey").join(
        t.lineitem, left_on="o_orderkey", right_on="l_orderkey"
    )
    groups = joined.group_by("c_name", "c_custkey", "o_orderkey", "o_orderdate", "o_totalprice").agg(
        sum_qty=col("l_quantity").sum()
    )
    return groups.sort("o_totalprice", "o_orderdate", "o_orderkey", descending=[True, False, False]).head(100)


@pytest.mark.parametrize("query", [q01, q03, q05, q06, q09, q10, q13, q18])
def test_a_query_as_frames_gives_the_rows_of_its_text(client, folder, query):
    tables = Tables(client, folder)
    ours = query(tables).collect()
    text = (QUERIES / f"{query.__name__}.sql").read_text()
    expected = client.frame(text, **{name: getattr(tables, name) for name in TABLES}).collect()
    assert len(expected) > 0 or query is q18  # few orders are that large
    assert ours.columns == expected.columns
    assert ours.to_pylist() == expected.to_pylist()
