//! The coordinator with executors in its own process: statements from text to rows, cancelling, losses, and what status shows.

mod stores;

use std::sync::Arc;

use arrow::array::{Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use windrow_core::message::build;

use super::*;
use crate::status::{ExecutorState, JobState};
use crate::testing::{Table, cut_everything, eventually, options, planned};

fn start(partitions: u32) -> Arc<Coordinator> {
    Coordinator::start(CoordinatorOptions { query: cut_everything(partitions), ..CoordinatorOptions::default() }).unwrap()
}

async fn cluster(executors: u32, partitions: u32) -> (Arc<Coordinator>, Arc<CoordinatorSession>) {
    let coordinator = start(partitions);
    for number in 0..executors {
        coordinator.add_local_executor(options(&format!("e{number}"))).unwrap();
    }
    let session = coordinator.open_session(&[]).await.unwrap();
    (coordinator, session)
}

async fn rows(statement: Statement) -> Result<Vec<RecordBatch>> {
    timer::deadline(crate::testing::PATIENCE, statement.try_collect()).await.expect("a statement ends")
}

/// All integers of a column, in order.
fn integers(batches: &[RecordBatch], column: usize) -> Vec<i64> {
    let columns = batches.iter().map(|batch| cast(batch.column(column), &DataType::Int64).unwrap());
    columns.flat_map(|array| array.as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()).collect()
}

fn counter(coordinator: &Coordinator, name: &str) -> u64 {
    coordinator.status().counters.into_iter().find(|(known, _)| known == name).unwrap().1
}

fn used(coordinator: &Coordinator) -> u32 {
    coordinator.status().executors.iter().map(|executor| executor.slots_used).sum()
}

/// Registered like an executor that is somewhere else, with nobody behind it.
fn registration(name: &str) -> Registration {
    let address = "127.0.0.1:1".to_owned();
    Registration { name: name.to_owned(), slots: 2, memory_bytes: 1, address, build: build().to_owned(), pid: 1, clients: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_runs_in_stages_on_two_executors() {
    let table = Table::new(4, 2_000, 10);
    let (coordinator, session) = cluster(2, 4).await;
    let sql = format!("SELECT name, sum(one) AS s FROM {} GROUP BY name ORDER BY name", table.name());
    let statement = session.execute(&sql).await.unwrap();
    let job = statement.job.unwrap();
    let batches = rows(statement).await.unwrap();
    assert_eq!(integers(&batches, 1).iter().sum::<i64>(), 8_000);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 97);
    eventually("the job is released and slots are free", || used(&coordinator) == 0).await;
    let status = coordinator.status();
    let ended = status.jobs.iter().find(|known| known.id == job).unwrap();
    assert_eq!((ended.progress.state, ended.sql.as_str()), (JobState::Succeeded, sql.as_str()));
    assert!(ended.progress.stages_total >= 2 && ended.progress.stages_done == ended.progress.stages_total);
    assert!(status.executors.iter().all(|executor| executor.state == ExecutorState::Alive && executor.slots == 2));
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_in_partition_order() {
    let table = Table::new(4, 3_000, 5);
    let (coordinator, session) = cluster(2, 4).await;
    let statement = session.execute(&format!("SELECT id FROM {} ORDER BY id DESC", table.name())).await.unwrap();
    let ids = integers(&rows(statement).await.unwrap(), 0);
    assert_eq!(ids, (0..12_000).rev().collect::<Vec<_>>());
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_without_rows_and_settings_need_no_executor() {
    let coordinator = start(4);
    let session = coordinator.open_session(&[("windrow.query.partitions".into(), "3".into())]).await.unwrap();
    let shown = rows(session.execute("SHOW windrow.query.partitions").await.unwrap()).await.unwrap();
    assert!(format!("{shown:?}").contains('3'));
    session.set_directory("/tmp/it's").await.unwrap();
    let shown = rows(session.execute("SHOW windrow.query.directory").await.unwrap()).await.unwrap();
    assert!(format!("{shown:?}").contains("it's"), "{shown:?}");
    let error = session.set("windrow.query.partition", "3").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidConfig);
    assert_eq!(session.set("x = 1; --", "3").await.unwrap_err().kind, ErrorKind::InvalidQuery);
    assert_eq!(coordinator.open_session(&[("nonsense".into(), "1".into())]).await.unwrap_err().kind, ErrorKind::InvalidConfig);
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_waits_for_the_first_executor() {
    let coordinator = start(2);
    let session = coordinator.open_session(&[]).await.unwrap();
    let table = Table::new(2, 10, 1);
    let sql = format!("SELECT count(*) FROM {}", table.name());
    let (statement, _) = tokio::join!(session.execute(&sql), async {
        tokio::task::yield_now().await;
        coordinator.add_local_executor(options("late")).unwrap()
    });
    assert_eq!(integers(&rows(statement.unwrap()).await.unwrap(), 0), [20]);
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_executor_a_query_ends_with_a_clear_error() {
    let mut options = CoordinatorOptions::default();
    options.scheduler.no_executor_deadline = Duration::from_millis(50);
    let coordinator = Coordinator::start(options).unwrap();
    let session = coordinator.open_session(&[]).await.unwrap();
    let table = Table::new(1, 10, 1);
    let error = session.execute(&format!("SELECT count(*) FROM {}", table.name())).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.context.help.unwrap().contains("windrow executor"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_error_ends_the_statement() {
    let table = Table::new(2, 10, 1);
    let (coordinator, session) = cluster(1, 2).await;
    let statement = session.execute(&format!("SELECT 1 / (id - id) FROM {}", table.name())).await.unwrap();
    let error = rows(statement).await.unwrap_err();
    assert!(error.message.to_lowercase().contains("zero"), "{error}");
    assert_ne!(error.kind, ErrorKind::Internal);
    eventually("slots are free", || used(&coordinator) == 0).await;
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_or_cancelling_a_statement_frees_everything() {
    let table = Table::new(4, 4_000, 10);
    let (coordinator, session) = cluster(2, 4).await;
    // Sixteen million pairs: nobody waits for them.
    let endless = format!("SELECT count(*) FROM {0} a JOIN {0} b ON a.one = b.one JOIN {0} c ON a.one = c.one", table.name());
    let statement = session.execute(&endless).await.unwrap();
    eventually("it runs", || used(&coordinator) > 0).await;
    let begin = windrow_core::clock::Stopwatch::start();
    drop(statement);
    eventually("slots are free", || used(&coordinator) == 0).await;
    assert!(begin.elapsed() < Duration::from_secs(5), "freed after {:?}", begin.elapsed());

    let mut statement = session.execute(&endless).await.unwrap();
    let mut progress = statement.progress();
    eventually("it runs again", || used(&coordinator) > 0).await;
    coordinator.cancel(statement.job.unwrap());
    let error = statement.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
    let over = timer::deadline(crate::testing::PATIENCE, progress.wait_for(|progress| progress.state.is_over())).await;
    assert_eq!(over.unwrap().unwrap().state, JobState::Cancelled);
    drop(statement);
    eventually("slots are free again", || used(&coordinator) == 0).await;
    let status = coordinator.status();
    assert!(status.jobs.iter().all(|job| job.progress.state == JobState::Cancelled), "{:?}", status.jobs);
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_analyze_measures_every_stage() {
    let table = Table::new(4, 500, 10);
    let (coordinator, session) = cluster(2, 4).await;
    let sql = format!("EXPLAIN ANALYZE SELECT name, count(*) FROM {} GROUP BY name", table.name());
    let statement = session.execute(&sql).await.unwrap();
    let schema = Arc::clone(&statement.schema);
    let batches = rows(statement).await.unwrap();
    assert_eq!(batches[0].schema(), schema);
    let text = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    assert!(text.contains("output_rows"), "{text}");
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_statements_in_a_row_leave_nothing() {
    let table = Table::new(2, 100, 5);
    let (coordinator, session) = cluster(2, 2).await;
    let sql = format!("SELECT one, count(*) FROM {} GROUP BY one", table.name());
    for _ in 0..30 {
        assert_eq!(integers(&rows(session.execute(&sql).await.unwrap()).await.unwrap(), 1), [200]);
    }
    let executors = || coordinator.status().executors;
    eventually("stores are empty", || executors().iter().all(|executor| executor.store_bytes == 0 && executor.slots_used == 0))
        .await;
    assert_eq!(counter(&coordinator, "jobs_succeeded"), 30);
    assert_eq!(counter(&coordinator, "attempts_failed"), 0);
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_made_by_hand_runs_without_planning() {
    let table = Table::new(2, 10, 5);
    let (coordinator, _session) = cluster(1, 2).await;
    let graph = planned(&format!("SELECT id FROM {} ORDER BY id", table.name()), 2).await;
    let schema = Arc::new(arrow::datatypes::Schema::empty());
    let statement = coordinator.submit_graph(graph.clone(), Arc::clone(&schema)).await.unwrap();
    assert_eq!(integers(&rows(statement).await.unwrap(), 0), (0..20).collect::<Vec<_>>());
    let mut broken = graph;
    broken.stages.pop();
    assert!(coordinator.submit_graph(broken, schema).await.is_err());
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_keeps_its_number_and_gets_a_new_incarnation() {
    let coordinator = start(2);
    let link = || {
        let (sender, commands) = mpsc::channel(16);
        (Link::Network(sender), commands)
    };
    let ((first_link, mut first_commands), (second_link, _second)) = (link(), link());
    let first = coordinator.connect(registration("a"), first_link).unwrap();
    let second = coordinator.connect(registration("a"), second_link).unwrap();
    assert_eq!(first.member.executor, second.member.executor);
    assert!(first.member.incarnation < second.member.incarnation);
    use windrow_core::message::Command;
    assert!(matches!(first_commands.recv().await.unwrap(), Command::Registered { .. }));
    let fence = first_commands.recv().await.unwrap();
    assert_eq!(fence, Command::Fence { incarnation: first.member.incarnation });
    drop(first);
    let alive = |expected| coordinator.status().executors.iter().filter(|e| e.state == ExecutorState::Alive).count() == expected;
    assert!(alive(1), "the loss of a connection before is not the loss of this one");
    drop(second);
    eventually("a lost connection is noticed at once", || alive(0)).await;
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_with_a_reason() {
    let coordinator = start(2);
    let refused = |change: fn(&mut Registration)| {
        let mut registration = registration("a");
        change(&mut registration);
        coordinator.connect(registration, Link::Network(mpsc::channel(1).0)).unwrap_err().message
    };
    assert!(refused(|r| r.build = "windrow 0.0.0".into()).contains("windrow 0.0.0"));
    assert!(refused(|r| r.build = "windrow 0.0.0".into()).contains(build()));
    assert!(refused(|r| r.name.clear()).contains("name"));
    assert!(refused(|r| r.slots = 0).contains("slots"));
    assert!(refused(|r| r.slots = u32::MAX).contains("slots"));
    assert!(refused(|r| r.address.clear()).contains("address"));
    coordinator.add_local_executor(options("local")).unwrap();
    assert!(refused(|_| {}).contains("one process"));
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_shutdown_statements_end() {
    let table = Table::new(2, 4_000, 10);
    let (coordinator, session) = cluster(1, 2).await;
    let sql = format!("SELECT count(*) FROM {0} a JOIN {0} b ON a.one = b.one JOIN {0} c ON a.one = c.one", table.name());
    let statement = session.execute(&sql).await.unwrap();
    coordinator.shutdown().await;
    assert_eq!(rows(statement).await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(session.execute(&sql).await.unwrap_err().kind, ErrorKind::Unavailable);
}
