//! Lazy dataframes over executors in processes of their own, and against a scheduler elsewhere.

use std::path::Path;

use windrow::{LocalCluster, Session};
use windrow_core::config::Config;
use windrow_tests::frames::{Tables, cases, oracle};
use windrow_tests::{engine, fixtures};

use crate::answers::processes;
use crate::program;

fn data() -> &'static Path {
    fixtures::folder(env!("CARGO_TARGET_TMPDIR"))
}

async fn compare(session: &Session) {
    let tables = Tables::open(session, data(), false).await.unwrap();
    let oracle = oracle(data(), false).await.unwrap();
    let mut wrong = Vec::new();
    let cases = cases();
    for case in &cases {
        wrong.extend(case.difference(&tables, &oracle, false).await);
    }
    assert!(wrong.is_empty(), "{} of {} frames are wrong\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_equal_sql_on_two_processes() {
    let cluster = processes(2).await;
    let session = cluster.session().await.unwrap();
    engine::cut(&session, 5).await;
    compare(&session).await;
    drop(session);
    cluster.shutdown().await;
}

/// The scheduler takes no plans: frames go there as SQL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_equal_sql_at_a_scheduler_that_takes_no_plans() {
    let cluster = processes(2).await;
    let session = windrow::connect(Some(&cluster.url())).await.unwrap();
    engine::cut(&session, 5).await;
    let tables = Tables::open(&session, data(), false).await.unwrap();
    let oracle = oracle(data(), false).await.unwrap();
    let (mut refused, mut wrong) = (0, Vec::new());
    for case in &cases() {
        match case.difference(&tables, &oracle, false).await {
            Some(difference) if difference.contains("takes no plans") => refused += 1,
            difference => wrong.extend(difference),
        }
    }
    // What has no safe form in SQL is refused, and nothing is wrong.
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused < cases().len(), "some are sent");
    session.close().await;
    cluster.shutdown().await;
}

/// The scheduler takes plans: frames go there as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_equal_sql_at_a_scheduler_that_takes_plans() {
    let mut config = Config::default();
    config.security.accept_plans = true;
    let builder = LocalCluster::builder().config(config).executors(2).slots(1).memory_limit(512 << 20);
    let cluster = builder.processes(program::path()).start().await.unwrap();
    let session = windrow::connect(Some(&cluster.url())).await.unwrap();
    engine::cut(&session, 5).await;
    compare(&session).await;
    session.close().await;
    cluster.shutdown().await;
}
