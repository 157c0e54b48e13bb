//! `windrow demo`: a little TPC-H data, a cluster of two executors in this process, three queries, and what to try next. Needs
//! nothing and leaves nothing.

use std::io::{self, Write};
use std::path::Path;

use windrow::{ConnectOptions, Error, ErrorKind, Session, StatementText};
use windrow_core::clock::Stopwatch;
use windrow_core::config::QueryConfig;

use crate::args::DemoArguments;
use crate::end::End;
use crate::interrupt::Interrupt;
use crate::shell::render::Format;
use crate::statement::{self, Manner};
use crate::{bench, terminal, tpch};

/// How many executors the cluster has, and slots each.
const EXECUTORS: u32 = 2;

const COUNT: &str = "\
SELECT l_returnflag AS flag, count(*) AS items, sum(l_quantity) AS quantity, avg(l_extendedprice) AS price
FROM lineitem
GROUP BY l_returnflag
ORDER BY l_returnflag";

const JOIN: &str = "\
SELECT n_name AS nation, count(DISTINCT c_custkey) AS customers,
       CAST(sum(l_extendedprice * (1 - l_discount)) AS DECIMAL(18, 2)) AS revenue
FROM customer
JOIN orders ON o_custkey = c_custkey
JOIN lineitem ON l_orderkey = o_orderkey
JOIN nation ON n_nationkey = c_nationkey
WHERE o_orderdate >= DATE '1995-01-01'
GROUP BY n_name
ORDER BY revenue DESC
LIMIT 5";

const WINDOW: &str = "\
SELECT year, segment, revenue, rank() OVER (PARTITION BY year ORDER BY revenue DESC) AS place
FROM (
  SELECT extract(year FROM o_orderdate) AS year, c_mktsegment AS segment, sum(o_totalprice) AS revenue
  FROM orders JOIN customer ON o_custkey = c_custkey
  WHERE o_orderdate < DATE '1994-01-01'
  GROUP BY extract(year FROM o_orderdate), c_mktsegment
)
ORDER BY year, place
LIMIT 6";

/// Runs `windrow demo`.
pub(crate) async fn run(arguments: DemoArguments) -> Result<(), End> {
    let mut interrupt = Interrupt::listen()?;
    let folder = tempfile::Builder::new()
        .prefix("windrow-demo-")
        .tempdir()
        .map_err(|source| Error::new(ErrorKind::Data, format!("no temporary folder: {source}")).with_source(source))?;
    let end = show(folder.path(), arguments.scale, &mut interrupt).await;
    if arguments.keep {
        let kept = folder.keep();
        say(&format!("\nThe data stays in {}", kept.display()))?;
    }
    end
}

async fn show(folder: &Path, scale: f64, interrupt: &mut Interrupt) -> Result<(), End> {
    generate(folder, scale, interrupt).await?;
    let session = tokio::select! {
        session = connect(folder) => session?,
        asked = interrupt.asked() => return Err(statement::stopped(asked)),
    };
    let end = queries(&session, interrupt).await;
    session.close().await;
    end?;
    say("
What to try next:
  windrow                                          a shell with the engine in this process
  windrow sql sales.csv                            a file of yours as a table
  windrow local --executors 4                      a cluster of processes on this machine
  windrow tpch --scale 1 --output tpch             more data, and `windrow bench tpch --data tpch`")
}

async fn generate(folder: &Path, scale: f64, interrupt: &mut Interrupt) -> Result<(), End> {
    let watch = Stopwatch::start();
    let options = tpch::Options { scale, output: folder.to_owned(), format: tpch::Format::Parquet, parts: 4 };
    let work = tokio::task::spawn_blocking(move || tpch::generate(&options));
    let tables = tokio::select! {
        tables = work => tables.map_err(|source| Error::internal("the generator ended early").with_source(source))?,
        asked = interrupt.asked() => return Err(statement::stopped(asked)),
    }
    .map_err(End::starting)?;
    let rows: u64 = tables.iter().map(|table| table.rows).sum();
    let bytes: u64 = tables.iter().map(|table| table.bytes).sum();
    say(&format!(
        "Generated TPC-H at scale {scale}: {} tables, {}, {} of Parquet in {:.1} s",
        tables.len(),
        terminal::plural(rows, "row"),
        terminal::size(bytes),
        watch.elapsed().as_secs_f64()
    ))
}

/// A cluster that divides even small queries, so that there are stages to see.
async fn connect(folder: &Path) -> Result<Session, End> {
    let mut query = QueryConfig::default();
    query.set("small_input", "0")?;
    query.set("broadcast_limit", "0")?;
    let options = ConnectOptions { executors: EXECUTORS, query, ..ConnectOptions::default() };
    let session = options.connect().await.map_err(End::connecting)?;
    bench::add_tables(&session, folder).await?;
    let status = session.status().await?;
    let slots: u32 = status.executors.iter().map(|executor| executor.slots).sum();
    say(&format!(
        "Started {} in this process, {}",
        terminal::plural(u64::from(EXECUTORS), "executor"),
        terminal::plural(u64::from(slots), "slot")
    ))?;
    Ok(session)
}

async fn queries(session: &Session, interrupt: &mut Interrupt) -> Result<(), End> {
    ask(session, "An aggregation. Each executor groups the rows it reads, then the groups change hands.", COUNT, interrupt)
        .await?;
    let plan = format!("EXPLAIN {JOIN}");
    ask(session, "A join of four tables. Its stages; each exchange moves rows between executors:", &plan, interrupt).await?;
    ask(session, "The same join, run.", JOIN, interrupt).await?;
    ask(session, "A window function over a join.", WINDOW, interrupt).await
}

async fn ask(session: &Session, remark: &str, text: &str, interrupt: &mut Interrupt) -> Result<(), End> {
    let shown = text.replace('\n', "\n         ");
    say(&format!("\n-- {remark}\nwindrow> {shown};"))?;
    let manner = Manner { format: Format::Table, timing: false, summary: true, progress: false, name: "demo".to_owned() };
    statement::run(session, &StatementText { text: text.to_owned(), line: 1, column: 1 }, &manner, interrupt).await
}

fn say(line: &str) -> Result<(), End> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}
