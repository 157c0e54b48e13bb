//! The 22 queries of TPC-H in every shape, against the oracle: embedded, on executors in processes of their own, and on a cluster
//! started by hand. `WINDROW_TPCH_DATA=DIR` takes the tables that `windrow tpch --scale 1 --output DIR` wrote in place of small ones,
//! and leaves the partitions to the planner.

use std::path::{Path, PathBuf};

use tokio::sync::OnceCell;
use windrow::{ConnectOptions, LocalCluster, Session};
use windrow_tests::rows::Answer;
use windrow_tests::{engine, oracle, tpch};

use crate::program::{self, LIMIT, Process};

/// The tables and what the oracle answers over them.
#[derive(Debug)]
pub(crate) struct Data {
    /// One folder a table.
    pub(crate) folder: PathBuf,
    queries: Vec<(u32, String)>,
    expected: Vec<Answer>,
}

/// Tables of any scale that somebody made.
fn given() -> Option<PathBuf> {
    std::env::var_os("WINDROW_TPCH_DATA").map(PathBuf::from)
}

/// TPC-H at scale 0.02, written once a process, unless tables are given.
pub(crate) async fn data() -> &'static Data {
    static DATA: OnceCell<Data> = OnceCell::const_new();
    DATA.get_or_init(|| async {
        let folder = given().unwrap_or_else(|| {
            let folder = program::scratch("tpch");
            tpch::write(&folder, 0.02, &[]);
            folder
        });
        let oracle = oracle::over(&folder, &tpch::TABLES).await.unwrap();
        let queries = tpch::queries();
        let mut expected = Vec::new();
        for (_, sql) in &queries {
            let (schema, batches) = oracle::run(&oracle, sql).await.unwrap();
            expected.push(Answer::new(&schema, &batches));
        }
        Data { folder, queries, expected }
    })
    .await
}

impl Data {
    /// The text of one query.
    pub(crate) fn sql(&self, number: usize) -> &str {
        &self.queries[number - 1].1
    }

    /// What differs from the oracle's answer to query `number`.
    pub(crate) fn difference(&self, number: usize, answer: &Answer) -> Option<String> {
        answer.difference(&self.expected[number - 1])
    }
}

/// `executors` processes of one slot.
pub(crate) async fn processes(executors: u32) -> LocalCluster {
    let builder = LocalCluster::builder().executors(executors).slots(1).memory_limit(512 << 20).processes(program::path());
    builder.start().await.unwrap()
}

/// Declares the tables in `session` and has every query over small tables cut into `partitions` partitions.
pub(crate) async fn prepare(session: &Session, folder: &Path, partitions: u32) {
    if given().is_none() {
        engine::cut(session, partitions).await;
    }
    for table in tpch::TABLES {
        let location = folder.join(table);
        let sql = format!("CREATE OR REPLACE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}/'", location.display());
        engine::run(session, &sql).await.unwrap();
    }
}

async fn check_all(session: &Session) {
    let data = data().await;
    let mut wrong = Vec::new();
    for number in 1..=22 {
        let (schema, batches) = match engine::run(session, data.sql(number)).await {
            Ok(answer) => answer,
            Err(error) => {
                wrong.push(format!("q{number:02}: {:?}: {error}", error.kind));
                continue;
            }
        };
        wrong.extend(data.difference(number, &Answer::new(&schema, &batches)).map(|text| format!("q{number:02}: {text}")));
    }
    assert!(wrong.is_empty(), "{} of 22 queries are wrong\n{}", wrong.len(), wrong.join("\n"));
}

async fn all_22_embedded_in(slots: u32) {
    let options = ConnectOptions { slots: Some(slots), memory_limit: Some(512 << 20), ..ConnectOptions::default() };
    let session = options.connect().await.unwrap();
    prepare(&session, &data().await.folder, 5).await;
    check_all(&session).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_22_embedded_in_1_slot() {
    all_22_embedded_in(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_22_embedded_in_2_slots() {
    all_22_embedded_in(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_22_embedded_in_4_slots() {
    all_22_embedded_in(4).await;
}

async fn all_22_on(executors: u32) {
    let cluster = processes(executors).await;
    let session = cluster.session().await.unwrap();
    prepare(&session, &data().await.folder, 5).await;
    check_all(&session).await;
    drop(session);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_22_on_1_process() {
    all_22_on(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_22_on_2_processes() {
    all_22_on(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_22_on_3_processes() {
    all_22_on(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_22_on_a_scheduler_and_two_executors_started_by_hand() {
    let (scheduler, url) = Process::listening(&["scheduler", "--bind", "127.0.0.1:0"]);
    let address = url.trim_start_matches("grpc://");
    let spill = program::scratch("by-hand");
    let executors = ["one", "two"].map(|name| {
        let spill = spill.join(name);
        let arguments = ["executor", "--scheduler", address, "--slots", "1", "--memory-limit", "512MB", "--name", name];
        Process::silent(&[&arguments[..], &["--spill-dir", &spill.to_string_lossy()]].concat())
    });
    let session = windrow::connect(Some(&url)).await.unwrap();
    let session = &session;
    windrow_tests::wait::until("two executors", LIMIT, async || {
        (session.status().await.unwrap().executors.len() == 2).then_some(())
    })
    .await;
    prepare(session, &data().await.folder, 5).await;
    check_all(session).await;
    executors.into_iter().for_each(Process::kill);
    scheduler.kill();
}
