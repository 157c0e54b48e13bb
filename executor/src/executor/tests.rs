//! Tests of whole attempts: plans from the planner, run on real executors by the smallest scheduler.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::SessionContext;
use futures::stream::{self, BoxStream, StreamExt};
use windrow_core::Failure;
use windrow_core::config::QueryConfig;
use windrow_core::ids::StageId;
use windrow_core::stage::{Exchange, InputRead};
use windrow_core::task::{InputGroup, InputVector, SegmentKey, Slice};
use windrow_core::transport::FetchRequest;
use windrow_planner::{ClusterShape, Planned, PlannerSession, SessionOptions, StageInputExec, encode_stage};

use super::*;
use crate::testing::{Cluster, INCARNATION, attempt, eventually};

/// A folder with a table `t` of four Parquet files, and a plain DataFusion over it.
async fn table() -> (tempfile::TempDir, SessionContext) {
    let dir = tempfile::tempdir().unwrap();
    let context = SessionContext::new();
    for file in 0..4 {
        let path = dir.path().join(format!("t/{file}.parquet"));
        let sql = format!(
            "COPY (SELECT value % 997 AS k, value AS v, 'a name that is longer than a view ' || (value % 31) AS name
             FROM generate_series({}, {}) AS s(value)) TO '{}'",
            file * 30_000,
            file * 30_000 + 29_999,
            path.display()
        );
        context.sql(&sql).await.unwrap().collect().await.unwrap();
    }
    let t = dir.path().join("t/").display().to_string();
    context.register_parquet("t", t, Default::default()).await.unwrap();
    (dir, context)
}

async fn planned(dir: &std::path::Path, sql: &str, partitions: u32) -> windrow_planner::PlannedJob {
    let config = QueryConfig { partitions, small_input: bytesize(0), ..QueryConfig::default() };
    let session = PlannerSession::new(SessionOptions { query: config, ..Default::default() }).unwrap();
    let create = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}/t/'", dir.display());
    let shape = ClusterShape { executors: 2, slots: 4 };
    session.plan(&create, shape).await.unwrap();
    match session.plan(sql, shape).await.unwrap() {
        Planned::Job(job) => job,
        other => panic!("not a job: {other:?}"),
    }
}

fn bytesize<T: std::str::FromStr<Err: std::fmt::Debug>>(bytes: u64) -> T {
    format!("{bytes}B").parse().unwrap()
}

/// Compares a query's rows with plain DataFusion's; returns the bytes on disk when the last stage had ended.
async fn check(sql: &str, partitions: u32, slots: u32, memory: u64) -> u64 {
    let (dir, context) = table().await;
    let expected = context.sql(sql).await.unwrap().collect().await.unwrap();
    let job = planned(dir.path(), sql, partitions).await;
    assert!(partitions == 1 || job.graph.stages.len() > 1, "one stage proves little");
    let mut cluster = Cluster::start(2, slots, memory);
    let rows = cluster.run(&job.graph, slots).await.unwrap();
    let (rows, expected) = (pretty_format_batches(&rows).unwrap(), pretty_format_batches(&expected).unwrap());
    assert_eq!(rows.to_string(), expected.to_string());
    assert!(cluster.metrics.iter().any(|(_, metrics)| !metrics.operators.is_empty()));
    let on_disk = cluster.executors.iter().map(|executor| executor.store().disk_bytes()).sum();
    for executor in &cluster.executors {
        executor.handle(Command::ReleaseJob { job: JobId(1) });
    }
    for executor in &cluster.executors {
        // Memory first and files after it, on another thread.
        eventually("everything is given back", || executor.store().pool().reserved() == 0).await;
        eventually("every file is removed", || executor.store().disk_bytes() == 0).await;
        executor.shutdown().await;
    }
    on_disk
}

const AGGREGATE: &str = "SELECT k, count(*), sum(v), min(name), max(name) FROM t GROUP BY k ORDER BY k";
const JOIN: &str = "SELECT a.k, count(*), sum(b.v) FROM t a JOIN t b ON a.v = b.v + 1 GROUP BY a.k ORDER BY a.k";
const SCALAR: &str = "SELECT count(*) AS n FROM t WHERE v > (SELECT avg(v) FROM t)";

#[tokio::test]
async fn an_aggregate_over_one_partition_equals_plain_datafusion() {
    check(AGGREGATE, 1, 1, 1 << 30).await;
}

#[tokio::test]
async fn an_aggregate_over_three_partitions_equals_plain_datafusion() {
    check(AGGREGATE, 3, 2, 1 << 30).await;
}

#[tokio::test]
async fn an_aggregate_over_129_partitions_equals_plain_datafusion() {
    check(AGGREGATE, 129, 2, 1 << 30).await;
}

#[tokio::test]
async fn a_join_equals_plain_datafusion() {
    check(JOIN, 7, 1, 1 << 30).await;
}

#[tokio::test]
async fn a_join_with_its_shuffle_on_disk_equals_plain_datafusion() {
    // Room for the hash tables of all tasks, 3 MB each, as they run side by side; segments are evicted from the first hundredth on.
    assert!(check(JOIN, 7, 1, 64 << 20).await > 0, "nothing was evicted");
}

#[tokio::test]
async fn a_scalar_subquery_equals_plain_datafusion() {
    check(SCALAR, 3, 1, 1 << 30).await;
}

#[tokio::test]
async fn a_scalar_subquery_without_a_row_is_null() {
    check("SELECT count(*) AS n FROM t WHERE v > (SELECT v FROM t WHERE v < 0)", 3, 1, 1 << 30).await;
}

#[tokio::test]
async fn two_rows_of_a_scalar_subquery_are_the_users_error() {
    let (dir, _) = table().await;
    let job = planned(dir.path(), "SELECT count(*) FROM t WHERE v > (SELECT v FROM t)", 3).await;
    let mut cluster = Cluster::start(2, 1, 1 << 30);
    let failed = cluster.run(&job.graph, 1).await.unwrap_err();
    assert_eq!(failed.failure, Failure::Fatal { kind: ErrorKind::InvalidQuery });
    assert_eq!(failed.message, "scalar subquery returned more than one row");
}

#[tokio::test]
async fn a_division_by_zero_is_the_users_error() {
    let (dir, _) = table().await;
    let job = planned(dir.path(), "SELECT k, sum(1 / (v - v)) FROM t GROUP BY k", 3).await;
    let mut cluster = Cluster::start(2, 2, 1 << 30);
    let failed = cluster.run(&job.graph, 2).await.unwrap_err();
    assert_eq!(failed.failure, Failure::Fatal { kind: ErrorKind::Data }, "{failed}");
    assert!(failed.message.to_lowercase().contains("divide by zero"), "{failed}");
}

#[tokio::test]
async fn a_truncated_file_is_the_datas_error_and_names_the_file() {
    let (dir, _) = table().await;
    let job = planned(dir.path(), AGGREGATE, 3).await;
    let path = dir.path().join("t/2.parquet");
    // The same length and time as planned for, so that only the content is wrong.
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, vec![0_u8; bytes.len()]).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_modified(modified).unwrap();
    let mut cluster = Cluster::start(2, 2, 1 << 30);
    let failed = cluster.run(&job.graph, 2).await.unwrap_err();
    assert_eq!(failed.failure, Failure::Fatal { kind: ErrorKind::Data }, "{failed}");
    assert!(failed.message.contains("2.parquet"), "{failed}");
}

#[tokio::test]
async fn an_unparsable_csv_value_is_the_datas_error_and_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = String::from("k,v\n");
    // Beyond the rows that the types are inferred from.
    (0..5000).for_each(|row| rows.push_str(&format!("{},{row}\n", row % 7)));
    rows.push_str("1,not a number\n");
    std::fs::create_dir(dir.path().join("t")).unwrap();
    std::fs::write(dir.path().join("t/broken.csv"), rows).unwrap();
    let create = format!(
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{}/t/' OPTIONS ('format.has_header' 'true')",
        dir.path().display()
    );
    let config = QueryConfig { partitions: 3, small_input: bytesize(0), ..QueryConfig::default() };
    let session = PlannerSession::new(SessionOptions { query: config, ..Default::default() }).unwrap();
    let shape = ClusterShape { executors: 2, slots: 4 };
    session.plan(&create, shape).await.unwrap();
    let planned = session.plan("SELECT k, sum(v) FROM t GROUP BY k", shape).await.unwrap();
    let Planned::Job(job) = planned else { panic!("not a job: {planned:?}") };
    let failed = Cluster::start(2, 2, 1 << 30).run(&job.graph, 2).await.unwrap_err();
    assert_eq!(failed.failure, Failure::Fatal { kind: ErrorKind::Data }, "{failed}");
    assert!(failed.message.contains("broken.csv") && failed.message.contains("not a number"), "{failed}");
}

#[tokio::test]
async fn a_file_that_was_removed_is_not_found_and_named() {
    let (dir, _) = table().await;
    let job = planned(dir.path(), AGGREGATE, 3).await;
    std::fs::remove_file(dir.path().join("t/1.parquet")).unwrap();
    let failed = Cluster::start(2, 2, 1 << 30).run(&job.graph, 2).await.unwrap_err();
    assert_eq!(failed.failure, Failure::Fatal { kind: ErrorKind::NotFound }, "{failed}");
    assert!(failed.message.contains("1.parquet"), "{failed}");
}

/// One column of numbers.
fn numbers() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

/// A transport whose streams panic, or never end after some rows.
#[derive(Debug, Default)]
struct Stuck {
    panics: bool,
    batches: i64,
}

impl ShuffleTransport<RecordBatch> for Stuck {
    fn fetch(&self, _request: FetchRequest) -> BoxStream<'static, Result<(u32, RecordBatch), Failed>> {
        let (panics, schema) = (self.panics, numbers());
        let rows = stream::iter(0..self.batches).map(move |from| {
            let column = arrow::array::Int64Array::from_iter_values((0..8192).map(|row| row * 1009 % 8191 + from));
            Ok((0, RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)]).unwrap()))
        });
        let end = stream::once(async move {
            assert!(!panics, "on purpose");
            std::future::pending().await
        });
        rows.chain(end).boxed()
    }
}

/// An attempt of two partitions that sort what the transport gives them.
fn launch_reader(cluster: &Cluster) -> AttemptId {
    let schema = numbers();
    let producer: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(schema).with_partitions(2));
    let plan: Arc<dyn ExecutionPlan> = Arc::new(StageInputExec::whole(0, &producer).unwrap());
    let context = SessionContext::new().task_ctx();
    let encoded = encode_stage(&plan, &[], &|_| None, &context).unwrap();
    let id = attempt(1, 0);
    let stage = JobStage { job: id.job, stage: StageId(1) };
    let away = InputGroup {
        attempt: attempt(0, 0),
        executor: ExecutorId(9),
        incarnation: INCARNATION,
        address: None,
        partitions: vec![0, 1],
    };
    let spec = TaskSpec {
        attempt: id,
        slice: Slice { start: 0, end: 2 },
        partitions: 2,
        exchange: Exchange::Merge,
        inputs: vec![InputVector { read: InputRead::Whole, groups: Arc::new(vec![away]) }],
        partition_inputs: Vec::new(),
    };
    cluster.executors[0].handle(Command::Template { stage, template: encoded.template, settings: Vec::new() });
    cluster.executors[0].handle(Command::Launch(Box::new(spec)));
    id
}

fn running(executor: &Executor) -> Vec<AttemptId> {
    match executor.heartbeat() {
        Report::Heartbeat { running, .. } => running,
        other => panic!("not a heartbeat: {other:?}"),
    }
}

/// Files and folders below the executor's directory, besides its owner's file.
fn left_on_disk(cluster: &Cluster) -> usize {
    let own = std::fs::read_dir(cluster.spill_parent()).unwrap().next().unwrap().unwrap().path();
    std::fs::read_dir(own).unwrap().count() - 1
}

#[tokio::test]
async fn cancelling_frees_slots_and_files_and_is_reported() {
    let transport = Stuck { batches: 100, ..Stuck::default() };
    let mut cluster = Cluster::with_transport(1, 2, 2 << 20, Arc::new(transport));
    let id = launch_reader(&cluster);
    // A spill file is made before its first bytes are written and counted.
    eventually("the sorts have spilled", || cluster.executors[0].store().disk_bytes() > 0).await;
    assert!(left_on_disk(&cluster) > 0);
    assert_eq!(running(&cluster.executors[0]), [id]);
    cluster.executors[0].handle(Command::Cancel { attempt: id, why: CancelReason::Client });
    let Report::AttemptEnded { attempt, outcome, .. } = cluster.report().await else { panic!("another report") };
    assert_eq!((attempt, outcome), (id, Outcome::Failed(Failed::cancelled(CancelReason::Client))));
    assert_eq!(running(&cluster.executors[0]), []);
    eventually("its files are gone", || left_on_disk(&cluster) == 0).await;
    assert_eq!(cluster.executors[0].store().disk_bytes(), 0);
    let parent = cluster.spill_parent().to_owned();
    cluster.executors[0].shutdown().await;
    assert_eq!(std::fs::read_dir(parent).unwrap().count(), 0, "the executor's directory is gone");
}

#[tokio::test]
async fn a_panic_ends_its_attempt_and_not_the_executor() {
    let mut cluster = Cluster::with_transport(1, 2, 1 << 30, Arc::new(Stuck { panics: true, ..Stuck::default() }));
    for _ in 0..2 {
        let id = launch_reader(&cluster);
        let Report::AttemptEnded { attempt, outcome: Outcome::Failed(failed), .. } = cluster.report().await else {
            panic!("another report")
        };
        assert_eq!((attempt, &failed.failure), (id, &Failure::Panic), "{failed}");
        assert_eq!(running(&cluster.executors[0]), []);
    }
}

#[tokio::test]
async fn a_fenced_executor_drops_its_work_and_its_outputs() {
    let mut cluster = Cluster::with_transport(1, 2, 1 << 30, Arc::new(Stuck::default()));
    let id = launch_reader(&cluster);
    cluster.executors[0].handle(Command::Fence { incarnation: Incarnation(INCARNATION.0 - 1) });
    assert_eq!(running(&cluster.executors[0]), [id], "a fence of another incarnation changes nothing");
    cluster.executors[0].handle(Command::Fence { incarnation: INCARNATION });
    let Report::AttemptEnded { outcome, .. } = cluster.report().await else { panic!("another report") };
    assert_eq!(outcome, Outcome::Failed(Failed::cancelled(CancelReason::Stale)));
    let key = SegmentKey { attempt: id, partition: 0, segment: 0 };
    let read = cluster.executors[0].store().read(INCARNATION, &key).await;
    assert_eq!(read, Err(windrow_core::failure::LostCause::Fenced));
}
