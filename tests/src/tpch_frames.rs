//! Queries of TPC-H as dataframes, step for step what their texts say.

use windrow::frame::functions::{avg, count, date_part, sum};
use windrow::frame::{DataFrame, Expr, Join, JoinKind, ScalarValue, SortExpr, col, lit};
use windrow::{Result, Session};

/// A query as a frame, by its number.
pub type Query = (usize, fn(&Tables) -> Result<DataFrame>);

/// Those that are written as frames.
pub const QUERIES: [Query; 8] = [(1, q01), (3, q03), (5, q05), (6, q06), (9, q09), (10, q10), (13, q13), (18, q18)];

/// A frame of each table.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the frame of the table of its name")]
pub struct Tables {
    pub customer: DataFrame,
    pub lineitem: DataFrame,
    pub nation: DataFrame,
    pub orders: DataFrame,
    pub part: DataFrame,
    pub partsupp: DataFrame,
    pub region: DataFrame,
    pub supplier: DataFrame,
}

impl Tables {
    /// The tables that `session` has.
    ///
    /// # Errors
    /// The engine's own.
    pub async fn of(session: &Session) -> Result<Self> {
        Ok(Self {
            customer: session.table("customer").await?,
            lineitem: session.table("lineitem").await?,
            nation: session.table("nation").await?,
            orders: session.table("orders").await?,
            part: session.table("part").await?,
            partsupp: session.table("partsupp").await?,
            region: session.table("region").await?,
            supplier: session.table("supplier").await?,
        })
    }
}

fn date(year: i32, month: u32, day: u32) -> Expr {
    // Days since 1970, by the proleptic Gregorian calendar.
    let shifted = if month > 2 { year } else { year - 1 };
    let (era, month) = (shifted.div_euclid(400), i32::try_from(month).unwrap());
    let of_era = shifted - era * 400;
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + i32::try_from(day).unwrap() - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    lit(ScalarValue::Date32(Some(days)))
}

fn revenue() -> Expr {
    col("l_extendedprice") * (lit(1_i64) - col("l_discount"))
}

fn up(name: &str) -> SortExpr {
    col(name).sort(true, false)
}

fn down(name: &str) -> SortExpr {
    col(name).sort(false, true)
}

fn inner(left: &str, right: &str) -> Join {
    Join { on: vec![(left.to_owned(), right.to_owned())], ..Join::default() }
}

fn columns(names: &[&str]) -> Vec<Expr> {
    names.iter().map(|name| col(*name)).collect()
}

fn q01(t: &Tables) -> Result<DataFrame> {
    let groups = t.lineitem.filter(col("l_shipdate").lt_eq(date(1998, 9, 2)))?.aggregate(
        columns(&["l_returnflag", "l_linestatus"]),
        vec![
            sum(col("l_quantity")).alias("sum_qty"),
            sum(col("l_extendedprice")).alias("sum_base_price"),
            sum(revenue()).alias("sum_disc_price"),
            sum(revenue() * (lit(1_i64) + col("l_tax"))).alias("sum_charge"),
            avg(col("l_quantity")).alias("avg_qty"),
            avg(col("l_extendedprice")).alias("avg_price"),
            avg(col("l_discount")).alias("avg_disc"),
            count(lit(1_i64)).alias("count_order"),
        ],
    )?;
    groups.sort(vec![up("l_returnflag"), up("l_linestatus")])
}

fn q03(t: &Tables) -> Result<DataFrame> {
    let customer = t.customer.filter(col("c_mktsegment").eq(lit("BUILDING")))?;
    let orders = t.orders.filter(col("o_orderdate").lt(date(1995, 3, 15)))?;
    let lines = t.lineitem.filter(col("l_shipdate").gt(date(1995, 3, 15)))?;
    let joined = customer.join(&orders, inner("c_custkey", "o_custkey"))?.join(&lines, inner("o_orderkey", "l_orderkey"))?;
    let keys = vec![col("o_orderkey").alias("l_orderkey"), col("o_orderdate"), col("o_shippriority")];
    let groups = joined.aggregate(keys, vec![sum(revenue()).alias("revenue")])?;
    let top = groups.top_k(10, vec![down("revenue"), up("o_orderdate"), up("l_orderkey")])?;
    top.select(columns(&["l_orderkey", "revenue", "o_orderdate", "o_shippriority"]))
}

fn q05(t: &Tables) -> Result<DataFrame> {
    let orders = t.orders.filter(col("o_orderdate").gt_eq(date(1994, 1, 1)).and(col("o_orderdate").lt(date(1995, 1, 1))))?;
    let asia = t.region.filter(col("r_name").eq(lit("ASIA")))?.join(&t.nation, inner("r_regionkey", "n_regionkey"))?;
    let suppliers = t.supplier.join(&asia, inner("s_nationkey", "n_nationkey"))?;
    let lines =
        t.customer.join(&orders, inner("c_custkey", "o_custkey"))?.join(&t.lineitem, inner("o_orderkey", "l_orderkey"))?;
    let on =
        [("l_suppkey", "s_suppkey"), ("c_nationkey", "s_nationkey")].map(|(left, right)| (left.to_owned(), right.to_owned()));
    let joined = lines.join(&suppliers, Join { on: on.to_vec(), ..Join::default() })?;
    joined.aggregate(columns(&["n_name"]), vec![sum(revenue()).alias("revenue")])?.sort(vec![down("revenue")])
}

fn q06(t: &Tables) -> Result<DataFrame> {
    let year = col("l_shipdate").gt_eq(date(1994, 1, 1)).and(col("l_shipdate").lt(date(1995, 1, 1)));
    let cheap = col("l_discount").between(lit(0.05), lit(0.07)).and(col("l_quantity").lt(lit(24_i64)));
    t.lineitem.filter(year.and(cheap))?.select(vec![sum(col("l_extendedprice") * col("l_discount")).alias("revenue")])
}

fn q09(t: &Tables) -> Result<DataFrame> {
    let green = t.part.filter(col("p_name").like(lit("%green%")))?;
    let lines = t.lineitem.join(&green, inner("l_partkey", "p_partkey"))?.join(&t.supplier, inner("l_suppkey", "s_suppkey"))?;
    let on = [("l_suppkey", "ps_suppkey"), ("l_partkey", "ps_partkey")].map(|(left, right)| (left.to_owned(), right.to_owned()));
    let lines = lines.join(&t.partsupp, Join { on: on.to_vec(), ..Join::default() })?;
    let lines = lines.join(&t.orders, inner("l_orderkey", "o_orderkey"))?.join(&t.nation, inner("s_nationkey", "n_nationkey"))?;
    let profit = lines.select(vec![
        col("n_name").alias("nation"),
        date_part(lit("YEAR"), col("o_orderdate")).alias("o_year"),
        (revenue() - col("ps_supplycost") * col("l_quantity")).alias("amount"),
    ])?;
    let groups = profit.aggregate(columns(&["nation", "o_year"]), vec![sum(col("amount")).alias("sum_profit")])?;
    groups.sort(vec![up("nation"), down("o_year")])
}

fn q10(t: &Tables) -> Result<DataFrame> {
    let orders = t.orders.filter(col("o_orderdate").gt_eq(date(1993, 10, 1)).and(col("o_orderdate").lt(date(1994, 1, 1))))?;
    let returned = t.lineitem.filter(col("l_returnflag").eq(lit("R")))?;
    let joined = t.customer.join(&orders, inner("c_custkey", "o_custkey"))?.join(&returned, inner("o_orderkey", "l_orderkey"))?;
    let joined = joined.join(&t.nation, Join { kind: JoinKind::Inner, ..inner("c_nationkey", "n_nationkey") })?;
    let keys = columns(&["c_custkey", "c_name", "c_acctbal", "c_phone", "n_name", "c_address", "c_comment"]);
    let top = joined.aggregate(keys, vec![sum(revenue()).alias("revenue")])?.top_k(20, vec![down("revenue"), up("c_custkey")])?;
    top.select(columns(&["c_custkey", "c_name", "revenue", "c_acctbal", "n_name", "c_address", "c_phone", "c_comment"]))
}

fn q13(t: &Tables) -> Result<DataFrame> {
    let orders = t.orders.filter(col("o_comment").not_like(lit("%special%requests%")))?;
    let joined = t.customer.join(&orders, Join { kind: JoinKind::Left, ..inner("c_custkey", "o_custkey") })?;
    let counts = joined.aggregate(columns(&["c_custkey"]), vec![count(col("o_orderkey")).alias("c_count")])?;
    let groups = counts.aggregate(columns(&["c_count"]), vec![count(lit(1_i64)).alias("custdist")])?;
    groups.sort(vec![down("custdist"), down("c_count")])
}

fn q18(t: &Tables) -> Result<DataFrame> {
    let large = t
        .lineitem
        .aggregate(columns(&["l_orderkey"]), vec![sum(col("l_quantity")).alias("q")])?
        .filter(col("q").gt(lit(300_i64)))?;
    let orders = t.orders.join(&large, Join { kind: JoinKind::Semi, ..inner("o_orderkey", "l_orderkey") })?;
    let joined =
        t.customer.join(&orders, inner("c_custkey", "o_custkey"))?.join(&t.lineitem, inner("o_orderkey", "l_orderkey"))?;
    let keys = columns(&["c_name", "c_custkey", "o_orderkey", "o_orderdate", "o_totalprice"]);
    let groups = joined.aggregate(keys, vec![sum(col("l_quantity")).alias("sum_qty")])?;
    groups.top_k(100, vec![down("o_totalprice"), up("o_orderdate"), up("o_orderkey")])
}
