//! What tests share: small tables as files, an executor with committed output, and waiting for a condition.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use tokio::sync::mpsc;
use windrow_core::config::{ExecutorConfig, QueryConfig};
use windrow_core::ids::{AttemptId, AttemptNumber, Epoch, ExecutorId, Generation, Incarnation, JobId, StageId, TaskId};
use windrow_core::message::{Command, Report};
use windrow_core::rand::unique;
use windrow_core::stage::StageGraph;
use windrow_core::task::{InputGroup, JobStage, Outcome, Slice, TaskSpec};
use windrow_core::transport::ShuffleTransport;
use windrow_executor::{Executor, ExecutorOptions, timer};
use windrow_planner::{ClusterShape, Planned, PlannerSession, SessionOptions};

use crate::transport::InProcessTransport;

/// How long a condition may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const EXECUTOR: ExecutorId = ExecutorId(7);
pub(crate) const INCARNATION: Incarnation = Incarnation(3);

/// A folder of CSV files that goes with its value.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    pub(crate) rows: u64,
}

impl Table {
    /// `files` files of `rows` rows each: `id` counts up, `one` is 1, `name` is text of about `width` bytes.
    pub(crate) fn new(files: u64, rows: u64, width: usize) -> Self {
        let path = std::env::temp_dir().join(format!("windrow-flight-test-{:016x}", unique()));
        std::fs::create_dir_all(&path).unwrap();
        for file in 0..files {
            let mut text = String::from("id,one,name\n");
            for row in file * rows..(file + 1) * rows {
                writeln!(text, "{row},1,n{:0>width$}", row % 97).unwrap();
            }
            std::fs::write(path.join(format!("{file}.csv")), text).unwrap();
        }
        Self { path, rows: files * rows }
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.path
    }

    /// The table as it stands in FROM.
    pub(crate) fn name(&self) -> String {
        format!("'{}/*.csv'", self.path.display())
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // A folder that is left behind is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Options of an executor for tests: two slots and little memory.
pub(crate) fn options(name: &str) -> ExecutorOptions {
    ExecutorOptions { slots: 2, memory_limit: 512 << 20, ..ExecutorOptions::new(name, &ExecutorConfig::default()) }
}

/// Settings with which even small inputs are cut into stages.
pub(crate) fn cut_everything(partitions: u32) -> QueryConfig {
    let none = "0B".parse().unwrap();
    QueryConfig { partitions, small_input: none, broadcast_limit: "0B".parse().unwrap(), ..QueryConfig::default() }
}

/// Awaits a condition, looking again and again.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            timer::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timer::deadline(PATIENCE, wait).await.is_some(), "not in time: {what}");
}

/// The stages of a query.
pub(crate) async fn planned(sql: &str, partitions: u32) -> StageGraph {
    let options = SessionOptions { query: cut_everything(partitions), ..Default::default() };
    let session = PlannerSession::new(options).unwrap();
    match session.plan(sql, ClusterShape { executors: 2, slots: 4 }).await.unwrap() {
        Planned::Job(job) => job.graph,
        other => panic!("not a job: {other:?}"),
    }
}

/// An executor that has committed the first stage of a query, in attempts of two partitions.
#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) executor: Arc<Executor>,
    pub(crate) groups: Vec<InputGroup>,
    pub(crate) segments: u32,
}

impl Producer {
    pub(crate) async fn run(sql: &str, partitions: u32) -> Self {
        let graph = planned(sql, partitions).await;
        let stage = graph.stages.first().unwrap();
        assert!(stage.inputs.is_empty() && !stage.whole, "{}", stage.display);
        let (sender, mut reports) = mpsc::channel(64);
        let transport: Arc<dyn ShuffleTransport<RecordBatch>> = InProcessTransport::new();
        let executor = Executor::start(options("producer"), transport, sender).unwrap();
        executor.handle(Command::Registered { epoch: Epoch(1), executor: EXECUTOR, incarnation: INCARNATION });
        let of_stage = JobStage { job: JobId(1), stage: stage.id };
        executor.handle(Command::Template {
            stage: of_stage,
            template: stage.template.clone(),
            settings: graph.settings.clone(),
        });
        let mut groups = Vec::new();
        for (task, start) in (0..stage.partitions).step_by(2).enumerate() {
            let slice = Slice { start, end: stage.partitions.min(start + 2) };
            let attempt = attempt(stage.id, u32::try_from(task).unwrap());
            let range = start as usize..slice.end as usize;
            let partition_inputs = stage.partition_inputs.get(range).map(<[_]>::to_vec).unwrap_or_default();
            let (partitions, exchange) = (stage.partitions, stage.exchange);
            let spec = TaskSpec { attempt, slice, partitions, exchange, inputs: vec![], partition_inputs };
            executor.handle(Command::Launch(Box::new(spec)));
            let partitions = slice.iter().collect();
            groups.push(InputGroup { attempt, executor: EXECUTOR, incarnation: INCARNATION, address: None, partitions });
        }
        for _ in 0..groups.len() {
            ended(&mut reports).await;
        }
        Self { executor, groups, segments: stage.exchange.segments() }
    }

    /// The groups with an address for the network.
    pub(crate) fn groups_at(&self, address: &str) -> Vec<InputGroup> {
        self.groups.iter().cloned().map(|group| InputGroup { address: Some(address.to_owned()), ..group }).collect()
    }
}

/// Waits until one attempt has succeeded.
async fn ended(reports: &mut mpsc::Receiver<Report>) {
    loop {
        match timer::deadline(PATIENCE, reports.recv()).await.unwrap().unwrap() {
            Report::AttemptEnded { outcome: Outcome::Succeeded, .. } => return,
            Report::AttemptEnded { outcome: Outcome::Failed(failed), .. } => panic!("{failed}"),
            _ => {}
        }
    }
}

fn attempt(stage: StageId, task: u32) -> AttemptId {
    let attempt = AttemptNumber { epoch: Epoch(1), number: task };
    AttemptId { job: JobId(1), stage, generation: Generation(0), task: TaskId(task), attempt }
}
