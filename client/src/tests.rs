//! Whole engines: in this process, and behind a listener on loopback. What is asked of one is asked of the other.

use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::StreamExt;
use windrow_core::config::QueryConfig;
use windrow_executor::timer::{deadline, sleep};

use crate::{ConnectOptions, ErrorKind, LocalCluster, Session, connect};

/// Rows that no query is done with before it is told to end.
const ENDLESS: &str =
    "SELECT count(*) FROM generate_series(1, 10000000) AS a(x), generate_series(1, 10000000) AS b(y) WHERE x + y = 7";

/// Memory for the small engines of these tests.
const MEMORY: u64 = 256 << 20;

async fn embedded(executors: u32, slots: u32) -> Session {
    ConnectOptions { executors, slots: Some(slots), memory_limit: Some(MEMORY), ..ConnectOptions::default() }
        .connect()
        .await
        .unwrap()
}

async fn cluster(executors: u32) -> LocalCluster {
    LocalCluster::builder().executors(executors).slots(1).memory_limit(MEMORY).start().await.unwrap()
}

/// The only column of all rows.
async fn numbers(session: &Session, sql: &str) -> Vec<i64> {
    let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

async fn slots_used(session: &Session) -> u32 {
    session.status().await.unwrap().executors.iter().map(|executor| executor.slots_used).sum()
}

async fn wait_until_slots_used(session: &Session, condition: impl Fn(u32) -> bool, limit: Duration) {
    let reached = async {
        while !condition(slots_used(session).await) {
            sleep(Duration::from_millis(2)).await;
        }
    };
    deadline(limit, reached).await.expect("the number of used slots changes in time");
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn answers(session: &Session) {
    assert_eq!(numbers(session, "SELECT 1;").await, [1]);
    assert_eq!(numbers(session, "VALUES (3), (1), (2) ORDER BY 1").await, [1, 2, 3]);
    let sums = "SELECT sum(x) FROM generate_series(1, 1000) AS t(x) GROUP BY x % 3 ORDER BY 1";
    assert_eq!(numbers(session, sums).await, [166_500, 166_833, 167_167]);
}

#[tokio::test]
async fn an_embedded_engine_answers() {
    for (executors, slots) in [(1, 1), (1, 3), (2, 1)] {
        let session = embedded(executors, slots).await;
        answers(&session).await;
        assert_eq!(session.url(), None);
        session.close().await;
    }
}

#[tokio::test]
async fn a_remote_session_answers_as_an_embedded_one() {
    let cluster = cluster(2).await;
    let remote = connect(Some(&cluster.url())).await.unwrap();
    answers(&remote).await;
    answers(&cluster.session().await.unwrap()).await;
    assert_eq!(remote.url(), Some(cluster.url().as_str()));
    assert_eq!(remote.status().await.unwrap().executors.len(), 2);
    assert!(remote.names().await.unwrap().functions.iter().any(|name| name == "count"));
    remote.close().await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn errors_come_back_with_kind_position_and_suggestion() {
    let cluster = cluster(1).await;
    for session in [cluster.session().await.unwrap(), connect(Some(&cluster.url())).await.unwrap()] {
        session.sql("CREATE TEMPORARY TABLE orders AS VALUES (1)").await.unwrap().collect().await.unwrap();
        let error = session.sql("SELECT *\nFROM ordrs").await.unwrap_err();
        assert_eq!((error.kind, error.context.suggestion.as_deref()), (ErrorKind::NotFound, Some("orders")), "{error}");
        assert_eq!(error.context.span.map(|span| (span.start_line, span.start_column)), Some((2, 6)));
        assert_eq!(session.sql("SELEC 1").await.unwrap_err().kind, ErrorKind::InvalidQuery);
        assert_eq!(session.sql("SELECT 1; SELECT 2").await.unwrap_err().kind, ErrorKind::InvalidQuery);
        let ended = session.sql("SELECT 1 / (x - 3) FROM generate_series(1, 5) AS t(x)").await.unwrap().collect().await;
        assert!(matches!(ended.unwrap_err().kind, ErrorKind::Data | ErrorKind::InvalidQuery));
    }
}

#[tokio::test]
async fn nobody_at_an_url_is_an_error_that_says_what_to_do() {
    // A port that was free a moment ago: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = connect(Some(&format!("grpc://127.0.0.1:{port}"))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains(&format!("grpc://127.0.0.1:{port}")), "{error}");
    assert!(error.context.help.unwrap().contains("windrow local"));
}

#[tokio::test]
async fn options_that_do_not_go_together_are_refused() {
    let none = ConnectOptions { executors: 0, ..ConnectOptions::default() };
    assert_eq!(none.connect().await.unwrap_err().kind, ErrorKind::InvalidConfig);
    let both = ConnectOptions { url: Some("grpc://127.0.0.1:1".to_owned()), slots: Some(1), ..ConnectOptions::default() };
    assert_eq!(both.connect().await.unwrap_err().kind, ErrorKind::InvalidConfig);
    assert_eq!(LocalCluster::builder().executors(0).start().await.unwrap_err().kind, ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn settings_belong_to_their_session() {
    let cluster = cluster(1).await;
    let query = QueryConfig { partitions: 3, ..QueryConfig::default() };
    let remote = ConnectOptions { url: Some(cluster.url()), query, ..ConnectOptions::default() }.connect().await.unwrap();
    for session in [cluster.session().await.unwrap(), remote] {
        session.set("windrow.query.partitions", "5").await.unwrap();
        let error = session.set("windrow.query.partition", "5").await.unwrap_err();
        assert_eq!(error.context.suggestion.as_deref(), Some("windrow.query.partitions"));
    }
}

#[tokio::test]
async fn a_file_becomes_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("numbers.csv");
    std::fs::write(&path, "n\n1\n2\n4\n").unwrap();
    let cluster = cluster(1).await;
    for session in [cluster.session().await.unwrap(), connect(Some(&cluster.url())).await.unwrap()] {
        session.add_file("numbers", path.to_str().unwrap()).await.unwrap();
        assert_eq!(numbers(&session, "SELECT sum(n) FROM numbers").await, [7]);
        let missing = session.add_file("t", folder.path().join("number.csv").to_str().unwrap()).await.unwrap_err();
        assert_eq!((missing.kind, missing.context.suggestion.as_deref()), (ErrorKind::NotFound, Some("numbers.csv")));
    }
}

#[tokio::test]
async fn dropping_a_query_frees_its_slots() {
    let cluster = cluster(2).await;
    let watcher = cluster.session().await.unwrap();
    for session in [cluster.session().await.unwrap(), connect(Some(&cluster.url())).await.unwrap()] {
        let query = session.sql(ENDLESS).await.unwrap();
        wait_until_slots_used(&watcher, |used| used > 0, Duration::from_secs(20)).await;
        drop(query);
        wait_until_slots_used(&watcher, |used| used == 0, Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_cancelled_query_ends_as_cancelled() {
    let cluster = cluster(1).await;
    let watcher = cluster.session().await.unwrap();
    for session in [cluster.session().await.unwrap(), connect(Some(&cluster.url())).await.unwrap()] {
        let mut query = session.sql(ENDLESS).await.unwrap();
        wait_until_slots_used(&watcher, |used| used > 0, Duration::from_secs(20)).await;
        let progress = async {
            while query.progress().tasks_total == 0 {
                sleep(Duration::from_millis(2)).await;
            }
        };
        deadline(Duration::from_secs(20), progress).await.expect("progress is heard");
        query.cancel().await;
        let end = deadline(Duration::from_secs(5), query.next()).await.expect("the rows end in time");
        assert_eq!(end.expect("an error").unwrap_err().kind, ErrorKind::Cancelled);
        wait_until_slots_used(&watcher, |used| used == 0, Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn many_queries_leave_no_open_files() {
    let session = embedded(1, 2).await;
    let sql = "SELECT sum(x) FROM generate_series(1, 100) AS t(x) GROUP BY x % 7";
    for _ in 0..20 {
        assert_eq!(numbers(&session, sql).await.len(), 7);
    }
    let before = open_files();
    for _ in 0..200 {
        assert_eq!(numbers(&session, sql).await.len(), 7);
    }
    // Other tests of this process open and close files meanwhile; a leak of one a query would be 200.
    assert!(open_files() < before + 100, "{before} files were open before, {} are now", open_files());
}

#[tokio::test]
async fn a_query_outlives_its_session() {
    let query = embedded(1, 1).await.sql("SELECT 1").await.unwrap();
    assert_eq!(query.collect().await.unwrap().iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 1);
}

#[test]
fn a_session_may_be_dropped_after_its_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let session = runtime.block_on(embedded(1, 1));
    drop(runtime);
    drop(session);
}

#[tokio::test]
async fn sessions_of_a_cluster_end_with_it() {
    let cluster = cluster(1).await;
    let (local, remote) = (cluster.session().await.unwrap(), connect(Some(&cluster.url())).await.unwrap());
    cluster.shutdown().await;
    let sql = "SELECT sum(x) FROM generate_series(1, 10) AS t(x)";
    for session in [local, remote] {
        let ended = match session.sql(sql).await {
            Ok(query) => query.collect().await.map(drop),
            Err(error) => Err(error),
        };
        assert_eq!(ended.unwrap_err().kind, ErrorKind::Unavailable);
    }
}
