//! TPC-H on three executor processes that are killed and stopped at random moments: every answer is compared with DataFusion's, and
//! one that fails or differs fails the bench.
//!
//! `cargo bench --workspace --bench faults -- --data=DIR [--program=target/release/windrow] [--kills=200] [--stops=50] [--minutes=0]
//! [--seed=1]`
//!
//! First the queries run undisturbed, then once more while one executor is killed halfway. Then queries run until all kills and stops
//! have struck, and at least for so many minutes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use serde_json::json;
use windrow::{ExecutorState, LocalCluster, Session};
use windrow_benches::queries::{Failure, TPCH_TABLES, held, lines, program_of_this_build, tpch};
use windrow_core::clock::Stopwatch;
use windrow_core::rand::{Rng, seeded};
use windrow_executor::timer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXECUTORS: usize = 3;

/// Between two faults, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 200..4_000;

/// How long an executor is stopped, in milliseconds: from what nobody notices to what it is declared dead for.
const STOPPED_MS: std::ops::Range<u64> = 100..14_000;

/// The longest that executors may take to come back.
const RETURN_WITHIN: Duration = Duration::from_secs(60);

/// A query, what it is called, and its answer.
struct Asked {
    name: String,
    sql: String,
    expected: Vec<String>,
}

fn main() -> Result<(), Failure> {
    windrow_benches::keep_pages();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Failure> {
    let option = |name: &str| std::env::args().find_map(|argument| argument.strip_prefix(name).map(str::to_owned));
    let number = |name: &str, default: u64| option(name).map_or(Ok(default), |text| text.parse::<u64>());
    let program = option("--program=").map_or_else(program_of_this_build, |path| Ok(PathBuf::from(path)))?;
    let Some(data) = option("--data=").map(PathBuf::from) else {
        println!("no data: `windrow tpch --scale 1 --output DIR` makes some; add `-- --data=DIR`");
        return Ok(());
    };
    let (kills, stops, seed) = (number("--kills=", 200)?, number("--stops=", 50)?, number("--seed=", 1)?);
    let least = Duration::from_secs(60 * number("--minutes=", 0)?);
    let asked = ask(&data).await?;

    let mut builder = LocalCluster::builder().executors(u32::try_from(EXECUTORS)?).slots(1).memory_limit(2 << 30);
    builder = builder.processes(&program);
    let cluster = Arc::new(builder.start().await?);
    let session = cluster.session().await?;
    for table in TPCH_TABLES {
        let sql = format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}/'", data.join(table).display());
        session.sql(&sql).await?.collect().await?;
    }
    halfway(&cluster, &session, &asked).await?;

    let struck = Arc::new(Struck::default());
    let striking = tokio::spawn(strike(Arc::clone(&cluster), Arc::clone(&struck), kills, stops, seeded(seed)));
    let (mut queries, mut wrong, watch) = (0_u64, Vec::new(), Stopwatch::start());
    let own = [std::process::id()];
    let mut early = None;
    for one in asked.iter().cycle() {
        if striking.is_finished() && watch.elapsed() >= least {
            break;
        }
        if let Err(failure) = check(&session, one).await {
            println!("{}: {failure}", one.name);
            wrong.push(format!("{}: {failure}", one.name));
        }
        queries += 1;
        if early.is_none() && watch.elapsed() >= least / 10 && queries >= 100 {
            early = held(&own).first().copied();
        }
    }
    striking.await??;
    complete(&cluster).await?;
    timer::sleep(Duration::from_secs(2)).await;
    let late = held(&own).first().copied();
    let status = cluster.status();
    let counter = |name: &str| status.counters.iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value);
    let left: u64 = status.executors.iter().map(|one| u64::from(one.slots_used) + one.store_bytes + one.disk_bytes).sum();
    let (killed, stopped) = (struck.kills.load(Ordering::Relaxed), struck.stops.load(Ordering::Relaxed));
    println!(
        "{queries} queries in {:.0} s under {killed} kills and {stopped} stops, seed {seed}: {} failed or wrong",
        watch.elapsed().as_secs_f64(),
        wrong.len()
    );
    let (lost, rerun, copies) = (counter("partitions_lost"), counter("partitions_rerun"), counter("copies"));
    println!("{lost} partitions lost, {rerun} run again, {copies} copies; {} executors lost", counter("executors_lost"));
    println!(
        "left behind: {left} slots and bytes; the coordinator's resident bytes and open files: {early:?}, at the end {late:?}"
    );
    println!(
        "{}",
        json!({"bench": "faults", "queries": queries, "kills": killed, "stops": stopped, "wrong": wrong, "lost": lost,
            "rerun": rerun, "copies": copies, "left": left, "early": early, "late": late, "seed": seed})
    );
    drop(session);
    if let Some(cluster) = Arc::into_inner(cluster) {
        cluster.shutdown().await;
    }
    if wrong.is_empty() && left == 0 { Ok(()) } else { Err("a query failed, or something was left behind".into()) }
}

/// What DataFusion answers.
async fn ask(data: &Path) -> Result<Vec<Asked>, Failure> {
    let reference = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    for table in TPCH_TABLES {
        reference.register_parquet(table, data.join(table).display().to_string(), ParquetReadOptions::default()).await?;
    }
    let mut asked = Vec::new();
    for (name, sql) in tpch()? {
        let expected = lines(&reference.sql(&sql).await?.collect().await?)?;
        asked.push(Asked { name, sql, expected });
    }
    Ok(asked)
}

async fn check(session: &Session, asked: &Asked) -> Result<(), Failure> {
    let answer = session.sql(&asked.sql).await?.collect().await?;
    if lines(&answer)? == asked.expected { Ok(()) } else { Err("another answer than DataFusion's".into()) }
}

/// All queries once, undisturbed, and once more with one of the executors killed halfway.
async fn halfway(cluster: &Arc<LocalCluster>, session: &Session, asked: &[Asked]) -> Result<(), Failure> {
    let all = async || {
        let watch = Stopwatch::start();
        for one in asked {
            check(session, one).await?;
        }
        Ok::<_, Failure>(watch.elapsed())
    };
    all().await?;
    let quiet = all().await?;
    let killer = tokio::spawn({
        let cluster = Arc::clone(cluster);
        async move {
            timer::sleep(quiet / 2).await;
            let watch = Stopwatch::start();
            let lost = |status: windrow::ClusterStatus| {
                status.counters.iter().find(|(name, _)| name == "executors_lost").map_or(0, |c| c.1)
            };
            let before = lost(cluster.status());
            let killed = cluster.kill(1).await;
            while lost(cluster.status()) == before {
                timer::sleep(Duration::from_millis(1)).await;
            }
            killed.map(|()| watch.elapsed())
        }
    });
    let hurt = all().await?;
    let noticed = killer.await??;
    let ratio = hurt.as_secs_f64() / quiet.as_secs_f64();
    println!(
        "undisturbed {:.2} s; with one of {EXECUTORS} killed halfway {:.2} s, {ratio:.2} times; noticed after {:.0} ms",
        quiet.as_secs_f64(),
        hurt.as_secs_f64(),
        noticed.as_secs_f64() * 1000.0
    );
    complete(cluster).await
}

/// Faults that struck.
#[derive(Default)]
struct Struck {
    kills: AtomicU64,
    stops: AtomicU64,
}

async fn strike(cluster: Arc<LocalCluster>, struck: Arc<Struck>, kills: u64, stops: u64, mut rng: Rng) -> Result<(), Failure> {
    let (mut kills_left, mut stops_left) = (kills, stops);
    while kills_left + stops_left > 0 {
        timer::sleep(Duration::from_millis(rng.u64(PAUSE_MS))).await;
        complete(&cluster).await?;
        let victim = rng.usize(..EXECUTORS);
        if rng.u64(..kills_left + stops_left) < kills_left {
            kills_left -= 1;
            cluster.kill(victim).await?;
            struck.kills.fetch_add(1, Ordering::Relaxed);
        } else if let Some(pid) = cluster.pids().get(victim).copied().flatten() {
            stops_left -= 1;
            signal(pid, "STOP").await?;
            timer::sleep(Duration::from_millis(rng.u64(STOPPED_MS))).await;
            signal(pid, "CONT").await?;
            struck.stops.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

async fn signal(pid: u32, name: &str) -> Result<(), Failure> {
    let status = tokio::process::Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().await?;
    if status.success() { Ok(()) } else { Err(format!("kill -{name} {pid} failed").into()) }
}

/// Waits until every executor is there.
async fn complete(cluster: &LocalCluster) -> Result<(), Failure> {
    let there = async {
        loop {
            let alive = cluster.status().executors.iter().filter(|one| one.state == ExecutorState::Alive).count();
            if alive == EXECUTORS && cluster.pids().iter().all(Option::is_some) {
                return;
            }
            timer::sleep(Duration::from_millis(10)).await;
        }
    };
    timer::deadline(RETURN_WITHIN, there).await.ok_or_else(|| "the executors did not come back".into())
}
