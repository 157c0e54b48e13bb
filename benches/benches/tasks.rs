//! What a task costs beyond its work: a stage of many partitions without rows on one slot, so that each partition is a task of its
//! own, end to end through scheduler, coordinator, executor and store.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use windrow_benches::{Series, print};
use windrow_core::clock::Stopwatch;
use windrow_core::config::SchedulerConfig;
use windrow_core::ids::StageId;
use windrow_core::stage::{Exchange, InputRead, Stage, StageGraph, StageInput};
use windrow_executor::ExecutorOptions;
use windrow_flight::{Coordinator, CoordinatorOptions};
use windrow_planner::{EncodedStage, StageInputExec, encode_stage};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TASKS: u32 = 5_000;
const RUNS: usize = 5;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    windrow_benches::keep_pages();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Failure> {
    // Otherwise partitions without rows share a slot, and tasks are few.
    let scheduler = SchedulerConfig { slice_bytes: "0B".parse()?, ..SchedulerConfig::default() };
    let coordinator = Coordinator::start(CoordinatorOptions { scheduler, ..CoordinatorOptions::default() })?;
    let directory = tempfile::tempdir()?;
    coordinator.add_local_executor(ExecutorOptions {
        name: "bench".to_owned(),
        slots: 1,
        memory_limit: 1 << 30,
        spill_dir: directory.path().to_owned(),
        spill_limit: 1 << 30,
        evict_from_percent: 60,
        fetch_window: 8 << 20,
        stores: Arc::default(),
        python: None,
    })?;
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
    let graph = graph(&schema)?;
    let mut whole = Vec::new();
    for _ in 0..=RUNS {
        let watch = Stopwatch::start();
        let mut statement = coordinator.submit_graph(graph.clone(), Arc::clone(&schema)).await?;
        while let Some(batch) = statement.next().await {
            batch?;
        }
        whole.push(watch.elapsed());
    }
    let per_task = whole.iter().skip(1).map(|elapsed| *elapsed / TASKS).collect();
    print(&format!("a task without work, {TASKS} in one stage"), &[Series::new("end to end, per task", per_task)]);
    coordinator.shutdown().await;
    Ok(())
}

/// One partition without rows, divided by hash into `TASKS` partitions: each is a task that reads its segment, finds nothing and
/// commits nothing. A last stage of one partition reads them all.
fn graph(schema: &Arc<Schema>) -> Result<StageGraph, Failure> {
    let key: Arc<dyn PhysicalExpr> = Arc::new(Column::new("x", 0));
    let source: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[vec![]], Arc::clone(schema), None)?;
    let tasks: Arc<dyn ExecutionPlan> = Arc::new(StageInputExec::partitioned(0, &source, vec![Arc::clone(&key)], TASKS)?);
    let merged: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(Arc::new(StageInputExec::whole(0, &tasks)?)));
    let divided = StageInput { stage: StageId(0), read: InputRead::Partitioned { offset: 0, count: TASKS } };
    let whole = StageInput { stage: StageId(1), read: InputRead::Whole };
    Ok(StageGraph {
        stages: vec![
            stage(0, 1, vec![], Exchange::Hash { partitions: TASKS }, &source, &[key])?,
            stage(1, TASKS, vec![divided], Exchange::Merge, &tasks, &[])?,
            stage(2, 1, vec![whole], Exchange::Result, &merged, &[])?,
        ],
        settings: vec![],
    })
}

fn stage(
    id: u32,
    partitions: u32,
    inputs: Vec<StageInput>,
    exchange: Exchange,
    plan: &Arc<dyn ExecutionPlan>,
    keys: &[Arc<dyn PhysicalExpr>],
) -> Result<Stage, Failure> {
    let EncodedStage { template, partition_inputs } = encode_stage(plan, keys, &|_| None, &SessionContext::new().task_ctx())?;
    Ok(Stage { inputs, template, partition_inputs, ..Stage::new(StageId(id), partitions, exchange) })
}
