//! Queries that do not fit into memory, on two executor processes of one slot with a limit: how long they take, and how much of each
//! process was resident at most. Rows are compared with DataFusion without a limit; a difference is a failure, and with one the bench fails.
//!
//! `cargo bench --workspace --bench memory -- [--program=target/release/windrow] [--limit=64MB] [--data=DIR] [--only=q18] [--embedded]
//! [--repeats=0]`
//!
//! With `--embedded`, each query runs in a process that is executor and client in one, with two slots.
//!
//! Without a folder: a sort, a group by of as many keys as rows, a window and joins over tables of ten times the limit that are made
//! for it; `--rows=50000000` makes them larger. With a folder that `windrow tpch` filled: its queries. `--repeats=1000` then runs one
//! query of each kind that often and reports what the processes hold at the end beside what they held after a tenth of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use serde_json::json;
use windrow::{LocalCluster, Session};
use windrow_benches::queries::{Failure, Named, TPCH_TABLES, held, lines, program_of_this_build, rounded, status, tpch};
use windrow_core::clock::Stopwatch;
use windrow_core::config::parse_size;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const OWN_TABLES: [&str; 3] = ["big", "other", "few"];

/// About what a row of the tables made here takes in memory.
const ROW_BYTES: u64 = 80;

/// Tables made here are this many times the limit.
const TIMES: u64 = 10;

/// What the tables made here are asked. Every column is needed, and the answers are small.
const OWN_QUERIES: [(&str, &str); 6] = [
    ("sort", "SELECT sum(n * (k % 1000)) FROM (SELECT k, row_number() OVER (ORDER BY t, k) AS n FROM big)"),
    ("group by", "SELECT count(*), sum(c), max(m) FROM (SELECT k, count(*) AS c, max(t) AS m FROM big GROUP BY k)"),
    ("window", "SELECT sum(s), max(t) FROM (SELECT t, sum(v) OVER (PARTITION BY g ORDER BY k) AS s FROM big)"),
    ("join", "SELECT count(*), sum(a.v + b.v), max(a.t), max(b.t) FROM big a JOIN other b ON a.k = b.k"),
    (
        "full join",
        "SELECT count(*), count(a.k), count(b.k), max(a.t), max(b.t) FROM big a FULL JOIN other b ON a.k = b.k AND a.v < b.v",
    ),
    ("join, one hot key", "SELECT count(*), sum(a.v), max(a.t), max(b.t) FROM big a JOIN few b ON a.hot = b.k"),
];

fn main() -> Result<(), Failure> {
    windrow_benches::keep_pages();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Failure> {
    let option = |name: &str| std::env::args().find_map(|argument| argument.strip_prefix(name).map(str::to_owned));
    let program = option("--program=").map_or_else(program_of_this_build, |path| Ok(PathBuf::from(path)))?;
    let limit = parse_size(&option("--limit=").unwrap_or_else(|| "64MB".to_owned()))?;
    let rows = option("--rows=").map_or(Ok(TIMES * limit / ROW_BYTES), |text| text.parse::<u64>())?;
    let repeats = option("--repeats=").map_or(Ok(0), |text| text.parse::<usize>())?;
    let made = tempfile::tempdir()?;
    let only = option("--only=").unwrap_or_default();
    let (data, tables, mut queries) = match option("--data=") {
        Some(data) => (PathBuf::from(data).canonicalize()?, &TPCH_TABLES[..], tpch()?),
        None => {
            make(made.path(), rows).await?;
            let queries = OWN_QUERIES.iter().map(|(name, sql)| ((*name).to_owned(), (*sql).to_owned())).collect();
            (made.path().to_owned(), &OWN_TABLES[..], queries)
        }
    };
    queries.retain(|(name, _)| name.contains(&only));
    let reference = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    for table in tables {
        reference.register_parquet(*table, data.join(table).display().to_string(), ParquetReadOptions::default()).await?;
    }
    if std::env::args().any(|argument| argument == "--embedded") {
        return embedded(&program, &reference, &data, tables, &queries, limit).await;
    }
    let cluster = LocalCluster::builder().executors(2).slots(1).memory_limit(limit).processes(&program).start().await?;
    let result = measure(&cluster, &reference, &data, tables, &queries, limit, repeats).await;
    cluster.shutdown().await;
    result
}

/// `big` and `other` of `rows` rows with two thirds of their keys in common; half of `big.hot` is one key, and `few` has each key once.
async fn make(folder: &Path, rows: u64) -> Result<(), Failure> {
    let context = SessionContext::new();
    let text = |name: &str| format!("concat('{name}, and something to make it a row of some size: ', value)");
    let big = format!(
        "SELECT value AS k, value * 7919 % 1000003 AS v, value % 100000 AS g, \
         CASE WHEN value % 2 = 0 THEN 1 ELSE value END AS hot, {} AS t FROM generate_series(1, {rows})",
        text("big")
    );
    let other = format!(
        "SELECT value + {} AS k, value * 104729 % 1000003 AS v, {} AS t FROM generate_series(1, {rows})",
        rows / 3,
        text("other")
    );
    let few = format!("SELECT value AS k, {} AS t FROM generate_series(1, {})", text("few"), rows / 2);
    for (table, select) in [("big", big), ("other", other), ("few", few)] {
        let path = folder.join(table);
        context.sql(&format!("COPY ({select}) TO '{}/' STORED AS PARQUET", path.display())).await?.collect().await?;
    }
    Ok(())
}

async fn measure(
    cluster: &LocalCluster,
    reference: &SessionContext,
    data: &Path,
    tables: &[&str],
    queries: &[Named],
    limit: u64,
    repeats: usize,
) -> Result<(), Failure> {
    let session = cluster.session().await?;
    for table in tables {
        let sql = format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}/'", data.join(table).display());
        session.sql(&sql).await?.collect().await?;
    }
    let pids: Vec<u32> = cluster.pids().into_iter().flatten().collect();
    println!("{:<20} {:>10} {:>24}   limit {} MB", "", "seconds", "resident at most, MB", limit / 1_000_000);
    let mut figures = Figures::default();
    for (name, sql) in queries {
        let expected = lines(&reference.sql(sql).await?.collect().await?)?;
        forget_peaks(&pids);
        let watch = Stopwatch::start();
        let answer = match session.sql(sql).await {
            Ok(query) => query.collect().await,
            Err(error) => Err(error),
        };
        let elapsed = watch.elapsed();
        let peaks: Vec<u64> = pids.iter().map(|pid| status(*pid, "VmHWM:")).collect();
        let failure = match answer {
            Ok(answer) if lines(&answer)? == expected => None,
            Ok(_) => Some("other rows than DataFusion without a limit".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        figures.add(name, elapsed.as_secs_f64(), peaks, failure);
    }
    figures.sum_up(limit);
    let drift = repeated(&session, queries, &pids, repeats).await?;
    figures.end("memory", limit, &drift)
}

/// What the queries took, printed as it comes.
#[derive(Default)]
struct Figures {
    queries: Vec<serde_json::Value>,
    worst: u64,
    failed: usize,
}

impl Figures {
    /// A query that took `seconds` and `peaks` bytes of each process.
    fn add(&mut self, name: &str, seconds: f64, peaks: Vec<u64>, failure: Option<String>) {
        let shown: Vec<String> = peaks.iter().map(|bytes| (bytes / 1_000_000).to_string()).collect();
        println!("{name:<20} {seconds:>10.2} {:>24} {}", shown.join(" "), failure.as_deref().unwrap_or_default());
        self.worst = peaks.iter().copied().fold(self.worst, u64::max);
        self.failed += usize::from(failure.is_some());
        self.queries.push(json!({"query": name, "seconds": seconds, "resident_max": peaks, "failure": failure}));
    }

    fn share(&self, limit: u64) -> f64 {
        self.worst as f64 / limit as f64
    }

    fn sum_up(&self, limit: u64) {
        let (percent, count) = (self.share(limit) * 100.0, self.queries.len());
        println!("resident at most: {percent:.0} % of the limit; {} of {count} queries done", count - self.failed);
    }

    /// Prints everything as one line of JSON; an error if a query failed.
    fn end(&self, bench: &str, limit: u64, repeated: &serde_json::Value) -> Result<(), Failure> {
        let share = self.share(limit);
        println!(
            "{}",
            json!({"bench": bench, "limit": limit, "queries": self.queries, "resident_share": share, "repeated": repeated})
        );
        if self.failed == 0 { Ok(()) } else { Err(format!("{} queries failed", self.failed).into()) }
    }
}

/// Each query in a process of its own that is executor and client in one, with two slots.
async fn embedded(
    program: &Path,
    reference: &SessionContext,
    data: &Path,
    tables: &[&str],
    queries: &[Named],
    limit: u64,
) -> Result<(), Failure> {
    println!("{:<20} {:>10} {:>24}   limit {} MB, embedded", "", "seconds", "resident at most, MB", limit / 1_000_000);
    let mut figures = Figures::default();
    for (name, sql) in queries {
        let expected = reference.sql(sql).await?.collect().await?;
        let mut command = tokio::process::Command::new(program);
        command.args(["sql", "--slots", "2", "--format", "csv", "--memory-limit"]).arg(limit.to_string());
        for table in tables {
            let folder = data.join(table);
            command.args(["-c", &format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}/'", folder.display())]);
        }
        command.args(["-c", sql]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let watch = Stopwatch::start();
        let child = command.spawn()?;
        let pid = child.id().unwrap_or_default();
        let (mut peak, mut output) = (0, std::pin::pin!(child.wait_with_output()));
        let output = loop {
            tokio::select! {
                output = &mut output => break output?,
                () = windrow_executor::timer::sleep(Duration::from_millis(5)) => peak = peak.max(status(pid, "VmHWM:")),
            }
        };
        let elapsed = watch.elapsed().as_secs_f64();
        let failure = if !output.status.success() {
            Some(String::from_utf8_lossy(&output.stderr).into_owned())
        } else if csv_lines(&String::from_utf8(output.stdout)?) != csv_lines(&to_csv(&expected)?) {
            Some("other rows than DataFusion without a limit".to_owned())
        } else {
            None
        };
        figures.add(name, elapsed, vec![peak], failure);
    }
    figures.sum_up(limit);
    figures.end("memory, embedded", limit, &json!(null))
}

fn to_csv(batches: &[RecordBatch]) -> Result<String, Failure> {
    let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(Vec::new());
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    Ok(String::from_utf8(writer.into_inner())?)
}

/// Rows in any order, sums of floats rounded.
fn csv_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().skip(1).map(|line| line.split(',').map(rounded).collect::<Vec<_>>().join(",")).collect();
    lines.sort_unstable();
    lines
}

/// Runs the queries in turn, `repeats` in all, and compares what the processes hold after a tenth with what they hold at the end.
async fn repeated(session: &Session, queries: &[Named], pids: &[u32], repeats: usize) -> Result<serde_json::Value, Failure> {
    if repeats == 0 {
        return Ok(json!(null));
    }
    let (mut early, watch) = (Vec::new(), Stopwatch::start());
    for (index, (name, sql)) in queries.iter().cycle().take(repeats).enumerate() {
        session.sql(sql).await?.collect().await.map_err(|error| format!("{name}, run {index}: {error}"))?;
        if index + 1 == repeats.div_ceil(10) {
            early = held(pids);
        }
    }
    let late = held(pids);
    println!(
        "\n{repeats} queries in {:.0} s; after a tenth of them and at the end:",
        watch.elapsed().max(Duration::ZERO).as_secs_f64()
    );
    for (pid, (early, late)) in pids.iter().zip(early.iter().zip(&late)) {
        println!(
            "executor {pid}: resident {} and {} MB, open files {} and {}",
            early.0 / 1_000_000,
            late.0 / 1_000_000,
            early.1,
            late.1
        );
    }
    let of = |held: &[(u64, usize)]| {
        held.iter().map(|(bytes, files)| json!({"resident": bytes, "open_files": files})).collect::<Vec<_>>()
    };
    Ok(json!({"queries": repeats, "after_a_tenth": of(&early), "at_the_end": of(&late)}))
}

/// Lets the system measure each process's peak anew.
fn forget_peaks(pids: &[u32]) {
    for pid in pids {
        // Where this is not allowed, peaks are those since the start: larger, never smaller.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}
