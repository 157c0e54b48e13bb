//! `kill -9` in the middle of a query: the result is the same, and no more partitions run again than were lost. That exactly those
//! run again that are needed is proved on the scheduler, in `scheduler/src/tests.rs`.

use std::time::Duration;

use arrow::record_batch::RecordBatch;
use windrow::{LocalCluster, Progress, Query, Session};
use windrow_tests::rows::Answer;
use windrow_tests::wait;

use crate::answers::{self, data};
use crate::program::{self, LIMIT, Process};

/// Many, so that a query takes long enough to be met by a kill.
const PARTITIONS: u32 = 65;

/// What one query with one kill came to.
struct Run {
    at_kill: Progress,
    end: Progress,
}

async fn wait_for(query: &Query, committed: u32) -> Progress {
    wait::until("progress", LIMIT, async || {
        let progress = query.progress();
        (progress.tasks_done >= committed || progress.state.is_over()).then_some(progress)
    })
    .await
}

async fn all(query: &mut Query) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    while let Some(batch) = query.next_batch().await.unwrap() {
        batches.push(batch);
    }
    batches
}

/// Waits until every executor is there, which the supervisor sees to after a kill.
async fn complete(cluster: &LocalCluster) {
    wait::until("all executors", LIMIT, async || {
        let alive = cluster.status().executors.iter().filter(|e| e.state == windrow::ExecutorState::Alive).count();
        (alive == 3 && cluster.pids().iter().all(Option::is_some)).then_some(())
    })
    .await;
}

/// Runs query `number` and kills executor `victim` once `committed` partitions are done; the answer must be the oracle's.
async fn run(cluster: &LocalCluster, session: &Session, number: usize, committed: u32, victim: usize) -> Run {
    let data = data().await;
    complete(cluster).await;
    let mut query = session.sql(data.sql(number)).await.unwrap();
    let at_kill = wait_for(&query, committed).await;
    cluster.kill(victim).await.unwrap();
    let schema = query.schema();
    let batches = all(&mut query).await;
    let end = query.progress();
    if let Some(difference) = data.difference(number, &Answer::new(&schema, &batches)) {
        panic!("q{number:02} with executor {victim} killed after {committed} partitions: {difference}");
    }
    assert!(end.reruns <= end.lost, "q{number:02}: {} partitions ran again, though only {} were lost", end.reruns, end.lost);
    assert!(end.lost <= u64::from(end.tasks_total), "{} of {} partitions lost in one death", end.lost, end.tasks_total);
    Run { at_kill, end }
}

/// Rounds of kills before a test gives up on meeting a running query.
const ROUNDS_MAX: u32 = 28;

async fn kill_in_every_stage(number: usize) {
    let data = data().await;
    let cluster = answers::processes(3).await;
    let session = cluster.session().await.unwrap();
    answers::prepare(&session, &data.folder, PARTITIONS).await;
    let mut quiet = session.sql(data.sql(number)).await.unwrap();
    all(&mut quiet).await;
    let total = quiet.progress().tasks_total;
    assert!(total > 2 * PARTITIONS, "{total} partitions are too few to be killed in between");
    let (mut fired, mut lost, mut reran) = (0, 0, 0);
    // A short query may end before the kill: such a round proves nothing and does not count.
    for round in 0..ROUNDS_MAX {
        let committed = (round % 7) * total / 7;
        let run = run(&cluster, &session, number, committed, usize::try_from(round % 3).unwrap()).await;
        fired += u32::from(!run.at_kill.state.is_over());
        lost += run.end.lost;
        reran += run.end.reruns;
        if round >= 6 && fired >= 4 && reran > 0 {
            break;
        }
    }
    assert!(fired >= 4, "only {fired} kills met a running query");
    assert!(reran > 0, "no kill of q{number:02} lost an output, so this proves nothing");
    println!("faults fired: {fired}, partitions lost: {lost}, run again: {reran}");
    drop(session);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_executor_changes_nothing_in_nested_aggregates() {
    kill_in_every_stage(18).await;
}

/// Kills while rows are on their way to the client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_executor_neither_loses_nor_repeats_a_row_of_a_long_result() {
    let data = data().await;
    let cluster = answers::processes(3).await;
    let session = cluster.session().await.unwrap();
    answers::prepare(&session, &data.folder, PARTITIONS).await;
    let sql = "SELECT l_orderkey, l_linenumber FROM lineitem JOIN orders ON l_orderkey = o_orderkey WHERE l_quantity > 1";
    let mut quiet = session.sql(sql).await.unwrap();
    let expected = Answer::new(&quiet.schema(), &all(&mut quiet).await).sorted();
    assert!(expected.rows.len() > 100_000, "{} rows", expected.rows.len());
    for victim in 0..3 {
        complete(&cluster).await;
        let mut query = session.sql(sql).await.unwrap();
        let schema = query.schema();
        let mut batches = vec![query.next_batch().await.unwrap().unwrap()];
        cluster.kill(victim).await.unwrap();
        batches.extend(all(&mut query).await);
        let answer = Answer::new(&schema, &batches).sorted();
        assert_eq!(answer.difference(&expected), None, "executor {victim} killed after the first rows");
    }
    drop(session);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_parent_leaves_no_child() {
    let (parent, url) = Process::listening(&["local", "--executors", "3", "--slots", "1", "--port", "0"]);
    let session = windrow::connect(Some(&url)).await.unwrap();
    wait::until("three executors", LIMIT, async || (session.status().await.unwrap().executors.len() == 3).then_some(())).await;
    let children = program::descendants(parent.pid());
    assert!(children.len() >= 3, "{children:?}");
    parent.kill();
    program::gone(&children).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_waits_for_the_executors_that_come_back() {
    let data = data().await;
    let cluster = answers::processes(1).await;
    let session = cluster.session().await.unwrap();
    answers::prepare(&session, &data.folder, PARTITIONS).await;
    let mut reruns = 0;
    // A kill may come when all is done. Fewer than count as a crash loop.
    for _ in 0..4 {
        let mut query = session.sql(data.sql(21)).await.unwrap();
        wait_for(&query, 3).await;
        cluster.kill(0).await.unwrap();
        let schema = query.schema();
        let batches = windrow_executor::timer::deadline(Duration::from_secs(60), all(&mut query)).await.unwrap();
        assert_eq!(data.difference(21, &Answer::new(&schema, &batches)), None);
        reruns += query.progress().reruns;
        if reruns > 0 {
            break;
        }
    }
    assert!(reruns > 0, "the only executor died with its outputs");
    drop(session);
    cluster.shutdown().await;
}

/// The rows of a folder, read by single-node DataFusion.
async fn rows_of(folder: &std::path::Path) -> Answer {
    let sql = format!("SELECT * FROM '{}/'", folder.display());
    let (schema, batches) = windrow_tests::oracle::run(&windrow_tests::oracle::session(), &sql).await.unwrap();
    Answer::new(&schema, &batches).sorted()
}

/// Kills while files are written: what is published is what the attempts that won wrote, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_executor_neither_loses_nor_repeats_a_row_that_is_written() {
    let data = data().await;
    let cluster = answers::processes(3).await;
    let session = cluster.session().await.unwrap();
    answers::prepare(&session, &data.folder, PARTITIONS).await;
    let folder = program::scratch("killed-writes");
    let query =
        "SELECT l_orderkey, l_linenumber, count(*) AS n FROM lineitem JOIN orders ON l_orderkey = o_orderkey GROUP BY 1, 2";
    let quiet = folder.join("quiet");
    all(&mut session.sql(&format!("COPY ({query}) TO '{}/' STORED AS PARQUET", quiet.display())).await.unwrap()).await;
    let expected = rows_of(&quiet).await;
    assert!(expected.rows.len() > 50_000, "{} rows", expected.rows.len());
    std::fs::create_dir(folder.join("table")).unwrap();
    let create = format!(
        "CREATE EXTERNAL TABLE written (l_orderkey BIGINT, l_linenumber INT, n BIGINT) STORED AS PARQUET LOCATION '{}/table/'",
        folder.display()
    );
    all(&mut session.sql(&create).await.unwrap()).await;
    let (mut fired, mut lost) = (0, 0);
    for round in 0..9_u32 {
        complete(&cluster).await;
        let target = folder.join(if round % 3 == 2 { "table".to_owned() } else { format!("copy-{round}") });
        let sql = match round % 3 {
            2 => format!("INSERT OVERWRITE written {query}"),
            _ => format!("COPY ({query}) TO '{}/' STORED AS PARQUET", target.display()),
        };
        let mut statement = session.sql(&sql).await.unwrap();
        let at_kill = wait_for(&statement, PARTITIONS * (2 + round / 3)).await;
        cluster.kill(usize::try_from(round % 3).unwrap()).await.unwrap();
        let count = windrow_tests::rows::cells(&all(&mut statement).await)[0][0].to_string();
        fired += u32::from(!at_kill.state.is_over());
        lost += statement.progress().lost;
        assert_eq!(count, expected.rows.len().to_string(), "round {round}");
        if let Some(difference) = rows_of(&target).await.difference(&expected) {
            panic!("round {round}: {difference}");
        }
        assert!(!target.join("_windrow").exists(), "round {round}: staging is left behind");
    }
    println!("faults fired: {fired}, partitions lost: {lost}");
    assert!(fired >= 3, "only {fired} kills met a running write");
    drop(session);
    cluster.shutdown().await;
}

/// A write that is given up leaves nothing that a reader sees.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_write_leaves_nothing() {
    let data = data().await;
    let cluster = answers::processes(2).await;
    let session = cluster.session().await.unwrap();
    answers::prepare(&session, &data.folder, PARTITIONS).await;
    let folder = program::scratch("cancelled-writes");
    for round in 0..3 {
        let target = folder.join(format!("copy-{round}"));
        let sql = format!("COPY (SELECT * FROM lineitem ORDER BY l_orderkey % 17) TO '{}/' STORED AS PARQUET", target.display());
        let sql = if round == 0 { sql.replace("ORDER BY l_orderkey % 17", "") } else { sql };
        let statement = session.sql(&sql).await.unwrap();
        wait_for(&statement, 1 + round * 20).await;
        let is_over = statement.progress().state.is_over();
        drop(statement);
        if !is_over {
            let left = || std::fs::read_dir(&target).into_iter().flatten().count();
            wait::until("an empty folder", LIMIT, async || (left() == 0).then_some(())).await;
        }
    }
    drop(session);
    cluster.shutdown().await;
}
