//! A statement that takes longer than it may is ended, says why, and leaves nothing.

use std::path::Path;
use std::time::Duration;

use windrow::{ErrorKind, Session};
use windrow_executor::timer;
use windrow_tests::{engine, wait};

use crate::cancel::files;
use crate::program::{self, LIMIT, Process};

/// Does not end by itself: the stage of its result looks for the next row forever.
const ENDLESS: &str = "SELECT value FROM generate_series(1, 9000000000000000000) WHERE value % 1000000007 = 1000000008";

async fn run(session: &Session, sql: &str) -> windrow::Result<()> {
    session.sql(sql).await?.collect().await.map(drop)
}

/// Neither slots nor bytes are held.
async fn is_idle(session: &Session) {
    let idle = async || {
        let executors = session.status().await.unwrap().executors;
        executors.iter().all(|one| one.slots_used == 0 && one.store_bytes + one.disk_bytes == 0).then_some(())
    };
    wait::until("free slots and empty stores", LIMIT, idle).await;
}

fn written(folder: &Path) -> Vec<String> {
    files(folder).iter().map(|file| file.display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m14_a_statement_that_takes_too_long_is_ended_and_leaves_nothing() {
    let (folder, warehouse) = (program::scratch("time-limit"), program::scratch("time-limit-warehouse"));
    let warehouse_name = warehouse.to_string_lossy().into_owned();
    let bound = [("WINDROW_SCHEDULER__TIME_LIMIT_MAX", "3s"), ("WINDROW_SCHEDULER__WAREHOUSE", &warehouse_name)];
    let (_scheduler, url) = Process::listening_with(&["scheduler", "--bind", "127.0.0.1:0"], &bound);
    let address = url.trim_start_matches("grpc://");
    let _executor = Process::silent(&["executor", "--scheduler", address, "--slots", "2", "--memory-limit", "256MB"]);
    let session = windrow::connect(Some(&url)).await.unwrap();
    wait::until("the executor", LIMIT, async || (session.status().await.unwrap().executors.len() == 1).then_some(())).await;

    run(&session, "SET windrow.query.time_limit = '1s'").await.unwrap();
    let copy = format!("COPY ({ENDLESS}) TO '{}' STORED AS PARQUET", folder.join("copy").display());
    let create = format!("CREATE TABLE never AS {ENDLESS}");
    for sql in [ENDLESS, &copy, &create, &format!("EXPLAIN ANALYZE {ENDLESS}")] {
        let ended = timer::deadline(LIMIT, run(&session, sql)).await.expect("it is ended in time").unwrap_err();
        assert_eq!(ended.kind, ErrorKind::ResourcesExhausted, "{sql}: {ended}");
        assert!(ended.message.contains("ran for 1s, which is windrow.query.time_limit"), "{sql}: {ended}");
        assert!(ended.context.help.as_ref().unwrap().contains("SET windrow.query.time_limit"), "{ended:?}");
        is_idle(&session).await;
    }
    let gone = async || (written(&folder).is_empty() && written(&warehouse).is_empty()).then_some(());
    wait::until("nothing written", LIMIT, gone).await;
    assert_eq!(run(&session, "SELECT * FROM never").await.unwrap_err().kind, ErrorKind::NotFound);

    // No session gets beyond the scheduler's own bound.
    for limit in ["none", "1h"] {
        run(&session, &format!("SET windrow.query.time_limit = '{limit}'")).await.unwrap();
        let ended = timer::deadline(LIMIT, run(&session, ENDLESS)).await.expect("it is ended in time").unwrap_err();
        assert!(ended.message.contains("ran for 3s, which is scheduler.time_limit_max"), "{ended}");
    }
    // What is quick is not touched, and a result may be read for longer than it was computed for.
    run(&session, "SET windrow.query.time_limit = '500ms'").await.unwrap();
    let query = session.sql("SELECT count(*) AS n FROM generate_series(1, 1000)").await.unwrap();
    timer::sleep(Duration::from_millis(1500)).await;
    query.collect().await.unwrap();
    let (_, batches) = engine::run(&session, "SELECT 7 AS n").await.unwrap();
    assert_eq!(windrow_tests::rows::cells(&batches)[0][0].to_string(), "7");
    is_idle(&session).await;
}
