//! A client that goes away frees every slot, byte and file within a second.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use windrow::{ClusterStatus, Session};
use windrow_tests::{engine, wait};

use crate::answers::{self, data};
use crate::program::{self, LIMIT, Process};

const SECOND: Duration = Duration::from_secs(1);

/// Runs for minutes on these clusters, in many partitions, with shuffled rows.
const LONG: &str = "SELECT a.l_suppkey, count(*), sum(a.l_quantity * b.l_quantity) \
    FROM lineitem a JOIN lineitem b ON a.l_linenumber = b.l_linenumber GROUP BY a.l_suppkey";

/// Makes two billion rows of few input batches and counts them: a join that would never hand its thread back by itself.
const BUSY: &str = "SELECT count(*) FROM lineitem a JOIN lineitem b ON a.l_linenumber = b.l_linenumber";

/// Tries as many pairs and keeps none: a join that has nothing to hand over between two batches of its input.
const FRUITLESS: &str = "SELECT count(*) FROM lineitem a JOIN lineitem b ON a.l_linenumber = b.l_linenumber \
    AND a.l_orderkey + b.l_orderkey < 0";

fn used(status: &ClusterStatus) -> u32 {
    status.executors.iter().map(|executor| executor.slots_used).sum()
}

fn held(status: &ClusterStatus) -> u64 {
    status.executors.iter().map(|executor| executor.store_bytes + executor.disk_bytes).sum()
}

/// Files below `folder`.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

async fn busy(session: &Session) {
    wait::until("slots in use", LIMIT, async || (used(&session.status().await.unwrap()) > 0).then_some(())).await;
}

async fn idle(session: &Session, limit: Duration) {
    wait::until("free slots", limit, async || (used(&session.status().await.unwrap()) == 0).then_some(())).await;
    // Bytes are as of the last heartbeat, which comes every second.
    wait::until("empty stores", 3 * SECOND, async || (held(&session.status().await.unwrap()) == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_or_cancelled_query_frees_its_slots_within_a_second() {
    let cluster = answers::processes(2).await;
    let session = cluster.session().await.unwrap();
    answers::prepare(&session, &data().await.folder, 7).await;
    for (sql, cancel) in [LONG, BUSY, FRUITLESS].into_iter().flat_map(|sql| [(sql, false), (sql, true)]) {
        let query = session.sql(sql).await.unwrap();
        busy(&session).await;
        if cancel {
            query.cancel().await;
            assert_eq!(query.collect().await.unwrap_err().kind, windrow::ErrorKind::Cancelled);
        } else {
            drop(query);
        }
        idle(&session, SECOND).await;
    }
    let (_, batches) = engine::run(&session, "SELECT count(*) FROM nation").await.unwrap();
    assert_eq!(windrow_tests::rows::cells(&batches)[0][0].to_string(), "25");
    drop(session);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_client_frees_its_slots_and_files() {
    let (scheduler, url) = Process::listening(&["scheduler", "--bind", "127.0.0.1:0"]);
    let spill = program::scratch("killed-client");
    let executor = Process::silent(&[
        "executor",
        "--scheduler",
        url.trim_start_matches("grpc://"),
        "--slots",
        "2",
        "--memory-limit",
        "256MB",
        "--spill-dir",
        &spill.to_string_lossy(),
    ]);
    let session = windrow::connect(Some(&url)).await.unwrap();
    wait::until("the executor", LIMIT, async || (session.status().await.unwrap().executors.len() == 1).then_some(())).await;
    let folder = &data().await.folder;
    let table = format!("CREATE EXTERNAL TABLE lineitem STORED AS PARQUET LOCATION '{}/lineitem/'", folder.display());
    let script = format!("{table}; SET windrow.query.small_input = '0B'; {LONG}");
    let before = files(&spill).len(); // the executor's mark of its process
    let client = Process::silent(&["sql", "--connect", &url, "-c", &script]);
    busy(&session).await;
    client.kill();
    // The system tells of a process's end when it gets to it.
    idle(&session, 3 * SECOND).await;
    wait::until("no spill files", 3 * SECOND, async || (files(&spill).len() <= before).then_some(())).await;
    executor.kill();
    scheduler.kill();
}
