//! TPC-H, query by query in turn: DataFusion in this process, Windrow embedded, and Windrow on two executor processes of one slot.
//! Prints seconds (median of the runs) and ratios to DataFusion, then the same as one JSON line.
//!
//! `cargo bench --workspace --bench tpch -- --data=DIR [--program=target/release/windrow] [--runs=3]`, where `windrow tpch
//! --scale 1 --output DIR` makes the data. Rows are counted, and a count that differs ends the bench: a wrong answer has no speed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use serde_json::json;
use windrow::{ConnectOptions, LocalCluster, Session};
use windrow_benches::Series;
use windrow_benches::queries::{Failure, TPCH_TABLES, tpch};
use windrow_core::clock::Stopwatch;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Partitions of DataFusion and slots of Windrow: the same cores for everybody.
const SLOTS: u32 = 2;

/// One engine: its name and the way to run a query on it.
enum Engine {
    DataFusion(SessionContext),
    Windrow(&'static str, Session),
}

impl Engine {
    fn name(&self) -> &'static str {
        match self {
            Self::DataFusion(_) => "datafusion",
            Self::Windrow(name, _) => name,
        }
    }

    /// Runs a query to its last row: how long it took, and how many rows there were.
    async fn run(&self, sql: &str) -> Result<(Duration, usize), Failure> {
        let watch = Stopwatch::start();
        let batches = match self {
            Self::DataFusion(context) => context.sql(sql).await?.collect().await?,
            Self::Windrow(_, session) => session.sql(sql).await?.collect().await?,
        };
        Ok((watch.elapsed(), batches.iter().map(|batch| batch.num_rows()).sum()))
    }
}

fn main() -> Result<(), Failure> {
    windrow_benches::keep_pages();
    tokio::runtime::Builder::new_multi_thread().worker_threads(SLOTS as usize).enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Failure> {
    let option = |name: &str| std::env::args().find_map(|argument| argument.strip_prefix(name).map(str::to_owned));
    let Some(data) = option("--data=") else {
        println!("tpch: skipped; make data with `windrow tpch --scale 1 --output DIR` and add `-- --data=DIR`");
        return Ok(());
    };
    let runs = option("--runs=").map_or(Ok(3), |text| text.parse::<usize>())?;
    let data = PathBuf::from(data).canonicalize()?;
    let mut engines = vec![datafusion(&data).await?, embedded(&data).await?];
    let mut cluster = None;
    if let Some(program) = option("--program=") {
        let started = LocalCluster::builder().executors(2).slots(1).processes(program).start().await?;
        engines.push(Engine::Windrow("2 processes", prepared(windrow::connect(Some(&started.url())).await?, &data).await?));
        cluster = Some(started);
    }
    compare(&engines, runs).await?;
    drop(engines);
    if let Some(cluster) = cluster {
        cluster.shutdown().await;
    }
    Ok(())
}

async fn datafusion(data: &Path) -> Result<Engine, Failure> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(SLOTS as usize));
    for table in TPCH_TABLES {
        let folder = data.join(table).display().to_string();
        context.register_parquet(table, folder, ParquetReadOptions::default()).await?;
    }
    Ok(Engine::DataFusion(context))
}

async fn embedded(data: &Path) -> Result<Engine, Failure> {
    let options = ConnectOptions { slots: Some(SLOTS), ..ConnectOptions::default() };
    Ok(Engine::Windrow("embedded", prepared(options.connect().await?, data).await?))
}

async fn prepared(session: Session, data: &Path) -> Result<Session, Failure> {
    for table in TPCH_TABLES {
        let folder = data.join(table);
        let sql = format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}/'", folder.display());
        session.sql(&sql).await?.collect().await?;
    }
    Ok(session)
}

/// Each query on each engine in turn, `runs` times after one that does not count.
async fn compare(engines: &[Engine], runs: usize) -> Result<(), Failure> {
    let mut totals = vec![Duration::ZERO; engines.len()];
    let mut rows = Vec::new();
    println!("{:<6} {}", "query", engines.iter().map(|engine| format!("{:>14}", engine.name())).collect::<String>());
    for (name, sql) in tpch()? {
        let mut seconds: Vec<Vec<Duration>> = vec![Vec::new(); engines.len()];
        let mut expected = None;
        for run in 0..=runs {
            for (engine, times) in engines.iter().zip(&mut seconds) {
                let (elapsed, count) = engine.run(&sql).await.map_err(|error| format!("{name} on {}: {error}", engine.name()))?;
                if *expected.get_or_insert(count) != count {
                    return Err(format!("{name}: {} has {count} rows, not {expected:?}", engine.name()).into());
                }
                if run > 0 {
                    times.push(elapsed);
                }
            }
        }
        let medians: Vec<Duration> = seconds.into_iter().map(|times| Series::new("", times).percentile(50)).collect();
        totals.iter_mut().zip(&medians).for_each(|(total, median)| *total += *median);
        println!("{name}    {}", medians.iter().map(|median| format!("{:>12.3} s", median.as_secs_f64())).collect::<String>());
        rows.push(json!({"query": name, "seconds": medians.iter().map(Duration::as_secs_f64).collect::<Vec<_>>()}));
    }
    let base = totals.first().map_or(1.0, Duration::as_secs_f64);
    let ratios: Vec<f64> = totals.iter().map(|total| total.as_secs_f64() / base).collect();
    println!("total  {}", totals.iter().map(|total| format!("{:>12.3} s", total.as_secs_f64())).collect::<String>());
    println!("ratio  {}", ratios.iter().map(|ratio| format!("{ratio:>12.2} x")).collect::<String>());
    let names: Vec<&str> = engines.iter().map(Engine::name).collect();
    println!("{}", json!({"bench": "tpch", "engines": names, "runs": runs, "queries": rows, "ratios": ratios}));
    Ok(())
}
