//! The 22 queries of TPC-H against the oracle over the same files: for partition counts around the powers of two, with far more
//! tasks than slots, with empty partitions (257 partitions of seven files), and with empty tables.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use tokio::sync::OnceCell;
use windrow::{LocalCluster, Session};
use windrow_tests::rows::Answer;
use windrow_tests::{engine, fixtures, oracle, tpch};

/// 60,000 rows of lineitem: enough for every query but a few to have rows, few enough for 257 partitions nine times over.
const SCALE: f64 = 0.01;

/// Queries of one session that run side by side.
const SIDE_BY_SIDE: usize = 3;

struct Data {
    folder: PathBuf,
    queries: Vec<(u32, String)>,
    expected: Vec<Answer>,
}

async fn data() -> &'static Data {
    static DATA: OnceCell<Data> = OnceCell::const_new();
    DATA.get_or_init(|| async {
        let folder = fixtures::scratch(env!("CARGO_TARGET_TMPDIR"), "tpch");
        tpch::write(&folder, SCALE, &[]);
        let expected = expected(&folder).await;
        let empty = expected.iter().filter(|answer| answer.rows.is_empty()).count();
        assert!(empty <= 3, "{empty} queries of 22 have no rows at this scale, which proves too little");
        Data { folder, queries: tpch::queries(), expected }
    })
    .await
}

/// What the oracle answers over the tables of `folder`, in the order of the queries.
async fn expected(folder: &Path) -> Vec<Answer> {
    let oracle = oracle::over(folder, &tpch::TABLES).await.unwrap();
    let mut answers = Vec::new();
    for (number, sql) in tpch::queries() {
        let (schema, batches) = oracle::run(&oracle, &sql).await.unwrap_or_else(|error| panic!("oracle, q{number:02}: {error}"));
        answers.push(comparable(&sql, Answer::new(&schema, &batches)));
    }
    answers
}

/// Only an ORDER BY gives rows an order.
fn comparable(sql: &str, answer: Answer) -> Answer {
    if sql.to_uppercase().contains("ORDER BY") { answer } else { answer.sorted() }
}

async fn open(cluster: &LocalCluster, folder: &Path, partitions: u32) -> Session {
    let session = engine::session(cluster, partitions).await;
    open_tables(&session, folder).await;
    session
}

async fn open_tables(session: &Session, folder: &Path) {
    for table in tpch::TABLES {
        let location = folder.join(table);
        let sql = format!("CREATE OR REPLACE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}/'", location.display());
        engine::run(session, &sql).await.unwrap();
    }
}

/// What is wrong with Windrow's answers, one line a query.
async fn differences(session: &Session, queries: &[(u32, String)], expected: &[Answer]) -> Vec<String> {
    let mut running = Vec::new();
    for ((number, sql), expected) in queries.iter().zip(expected) {
        running.push(difference(session, *number, sql, expected));
    }
    stream::iter(running).buffered(SIDE_BY_SIDE).filter_map(std::future::ready).collect().await
}

async fn difference(session: &Session, number: u32, sql: &str, expected: &Answer) -> Option<String> {
    let difference = match engine::run(session, sql).await {
        Ok((schema, batches)) => comparable(sql, Answer::new(&schema, &batches)).difference(expected)?,
        Err(error) => format!("{:?}: {error}", error.kind),
    };
    Some(format!("q{number:02}: {difference}"))
}

async fn all_queries_with(partitions: u32) {
    all_queries_on(engine::cluster(2).await, partitions, &[]).await;
}

/// No join is broadcast because of what planning knows, and partitions of little data share a slot.
async fn all_queries_by_measured_sizes(partitions: u32) {
    let settings = ["datafusion.execution.collect_statistics = false"];
    all_queries_on(engine::cluster_by_default(2).await, partitions, &settings).await;
}

async fn all_queries_on(cluster: LocalCluster, partitions: u32, settings: &[&str]) {
    let data = data().await;
    let session = engine::session(&cluster, partitions).await;
    for setting in settings {
        engine::run(&session, &format!("SET {setting}")).await.unwrap();
    }
    open_tables(&session, &data.folder).await;
    let wrong = differences(&session, &data.queries, &data.expected).await;
    drop(session);
    cluster.shutdown().await;
    assert!(wrong.is_empty(), "{partitions} partitions: {} of 22 queries are wrong\n{}", wrong.len(), wrong.join("\n"));
}

macro_rules! partition_counts {
    ($with:ident: $($name:ident: $partitions:literal)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() { $with($partitions).await; })*
    };
}

partition_counts! {
    all_queries_by_measured_sizes:
    all_22_by_measured_sizes_with_2_partitions: 2
    all_22_by_measured_sizes_with_7_partitions: 7
    all_22_by_measured_sizes_with_129_partitions: 129
}

partition_counts! {
    all_queries_with:
    all_22_with_1_partition: 1
    all_22_with_2_partitions: 2
    all_22_with_3_partitions: 3
    all_22_with_127_partitions: 127
    all_22_with_128_partitions: 128
    all_22_with_129_partitions: 129
    all_22_with_255_partitions: 255
    all_22_with_256_partitions: 256
    all_22_with_257_partitions: 257
}

/// Each table empty in turn, then all of them: files without rows, so that whole stages have none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_22_with_empty_tables() {
    let cluster = engine::cluster(2).await;
    let mut wrong = Vec::new();
    let mut cases = tpch::TABLES.iter().map(std::slice::from_ref).collect::<Vec<_>>();
    cases.push(&tpch::TABLES);
    for empty in cases {
        let name = if empty.len() == 1 { empty[0] } else { "all tables" };
        let folder = fixtures::scratch(env!("CARGO_TARGET_TMPDIR"), "tpch-empty");
        tpch::write(&folder, SCALE / 10.0, empty);
        let expected = expected(&folder).await;
        let session = open(&cluster, &folder, 3).await;
        let differences = differences(&session, &tpch::queries(), &expected).await;
        wrong.extend(differences.into_iter().map(|difference| format!("{name} empty, {difference}")));
        fs::remove_dir_all(&folder).unwrap();
    }
    cluster.shutdown().await;
    assert!(wrong.is_empty(), "{} answers are wrong\n{}", wrong.len(), wrong.join("\n"));
}

/// Many clients at once on two slots: nobody gets another's rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_side_by_side_get_their_own_rows() {
    let data = data().await;
    let cluster = Arc::new(engine::cluster(2).await);
    let picked = [1_usize, 3, 6, 12, 14, 18];
    let clients = picked.map(|number| {
        let cluster = Arc::clone(&cluster);
        tokio::spawn(async move {
            let session = open(&cluster, &data.folder, 7).await;
            let range = number - 1..number;
            differences(&session, &data.queries[range.clone()], &data.expected[range]).await
        })
    });
    let mut wrong = Vec::new();
    for client in clients {
        wrong.extend(client.await.unwrap());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
