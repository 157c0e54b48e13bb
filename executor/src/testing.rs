//! What the tests of this crate share: executors with a transport between them, and the smallest scheduler that runs a stage graph.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::expressions::col;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use windrow_core::failure::Failed;
use windrow_core::ids::{AttemptId, AttemptNumber, Epoch, ExecutorId, Generation, Incarnation, JobId, StageId, TaskId};
use windrow_core::message::{Command, Report};
use windrow_core::stage::{Stage, StageGraph};
use windrow_core::task::{InputGroup, InputVector, JobStage, Outcome, SegmentKey, Slice, TaskMetrics, TaskSpec};
use windrow_core::transport::{FetchRequest, ShuffleTransport};

use crate::memory::ExecutorPool;
use crate::shuffle::read::lost;
use crate::shuffle::store::ShuffleStore;
use crate::spill::SpillDir;
use crate::{Executor, ExecutorOptions, timer};

/// The incarnation that test executors are registered with.
pub(crate) const INCARNATION: Incarnation = Incarnation(7);

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A store with its directory, of `limit` bytes.
pub(crate) struct StoreFixture {
    pub(crate) store: Arc<ShuffleStore>,
    pub(crate) parent: tempfile::TempDir,
}

pub(crate) fn store(limit: usize, spill_limit: u64) -> StoreFixture {
    let parent = tempfile::tempdir().unwrap();
    let spill = SpillDir::create(parent.path(), spill_limit).unwrap();
    let store = ShuffleStore::new(Arc::new(ExecutorPool::new(limit, 60)), spill, Handle::current());
    store.begin(INCARNATION);
    StoreFixture { store, parent }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            timer::sleep(Duration::from_millis(2)).await;
        }
    };
    timer::deadline(PATIENCE, holds).await.unwrap_or_else(|| panic!("not within {PATIENCE:?}: {what}"));
}

pub(crate) fn attempt(stage: u32, number: u32) -> AttemptId {
    AttemptId {
        job: JobId(1),
        stage: StageId(stage),
        generation: Generation(0),
        task: TaskId(number),
        attempt: AttemptNumber { epoch: Epoch(1), number },
    }
}

pub(crate) fn keys(batch: &RecordBatch, name: &str) -> Vec<Arc<dyn PhysicalExpr>> {
    vec![col(name, &batch.schema()).unwrap()]
}

/// Reads the other executors' stores directly.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<BTreeMap<ExecutorId, Arc<ShuffleStore>>>);

impl ShuffleTransport<RecordBatch> for Peers {
    fn fetch(&self, request: FetchRequest) -> BoxStream<'static, Result<(u32, RecordBatch), Failed>> {
        let (executor, incarnation) = (request.groups[0].executor, request.groups[0].incarnation);
        let store = Arc::clone(&self.0.lock()[&executor]);
        let keys: Vec<SegmentKey> = request.keys().collect();
        stream::iter(keys)
            .flat_map(move |key| {
                let batches = store.stream(incarnation, key).map_ok(move |batch| (key.partition, batch));
                batches.map_err(move |cause| lost(&key, executor, incarnation, cause))
            })
            .boxed()
    }
}

/// Executors with a transport between them.
pub(crate) struct Cluster {
    pub(crate) executors: Vec<Arc<Executor>>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) metrics: Vec<(StageId, TaskMetrics)>,
    _parent: tempfile::TempDir,
    next: u32,
}

impl Cluster {
    /// `count` executors of `slots` slots and `memory` bytes.
    pub(crate) fn start(count: u32, slots: u32, memory: u64) -> Self {
        let peers = Arc::new(Peers::default());
        let cluster = Self::with_transport(count, slots, memory, Arc::clone(&peers) as _);
        for (executor, id) in cluster.executors.iter().zip(0..) {
            peers.0.lock().insert(ExecutorId(id), Arc::clone(executor.store()));
        }
        cluster
    }

    pub(crate) fn with_transport(count: u32, slots: u32, memory: u64, transport: Arc<dyn ShuffleTransport<RecordBatch>>) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let (sender, reports) = mpsc::channel(1024);
        let executors = (0..count).map(|id| {
            let options = ExecutorOptions {
                name: format!("e{id}"),
                slots,
                memory_limit: memory,
                spill_dir: parent.path().to_owned(),
                spill_limit: 10 << 30,
                // Small pools evict from the first byte on, so that small tests see it.
                evict_from_percent: if memory < 1 << 30 { 1 } else { 60 },
                fetch_window: 8 << 20,
                stores: Arc::default(),
                python: None,
            };
            let executor = Executor::start(options, Arc::clone(&transport), sender.clone()).unwrap();
            executor.handle(Command::Registered { epoch: Epoch(1), executor: ExecutorId(id), incarnation: INCARNATION });
            executor
        });
        let executors = executors.collect();
        Self { executors, reports, metrics: Vec::new(), _parent: parent, next: 0 }
    }

    pub(crate) async fn report(&mut self) -> Report {
        timer::deadline(PATIENCE, self.reports.recv()).await.expect("a report in time").expect("a live executor")
    }

    /// The directory below which all executors spill.
    pub(crate) fn spill_parent(&self) -> &std::path::Path {
        self._parent.path()
    }

    /// Runs a graph, stage after stage, in tasks of at most `slice` partitions dealt to the executors in turn; returns the rows of
    /// the result in partition order.
    pub(crate) async fn run(&mut self, graph: &StageGraph, slice: u32) -> Result<Vec<RecordBatch>, Failed> {
        let mut committed: Vec<BTreeMap<u32, (AttemptId, ExecutorId)>> = Vec::new();
        for stage in &graph.stages {
            let outputs = self.run_stage(stage, graph, slice, &committed).await?;
            committed.push(outputs);
        }
        let mut rows = Vec::new();
        for (partition, (attempt, executor)) in committed.pop().unwrap_or_default() {
            let key = SegmentKey { attempt, partition, segment: 0 };
            let store = self.executors[executor.0 as usize].store();
            rows.extend(store.read(INCARNATION, &key).await.expect("a committed result"));
        }
        Ok(rows)
    }

    async fn run_stage(
        &mut self,
        stage: &Stage,
        graph: &StageGraph,
        slice: u32,
        committed: &[BTreeMap<u32, (AttemptId, ExecutorId)>],
    ) -> Result<BTreeMap<u32, (AttemptId, ExecutorId)>, Failed> {
        let job_stage = JobStage { job: JobId(1), stage: stage.id };
        for executor in &self.executors {
            let (template, settings) = (stage.template.clone(), graph.settings.clone());
            executor.handle(Command::Template { stage: job_stage, template, settings });
        }
        let inputs: Vec<InputVector> = stage
            .inputs
            .iter()
            .map(|input| InputVector { read: input.read, groups: Arc::new(groups(&committed[input.stage.0 as usize])) })
            .collect();
        let step = if stage.whole { stage.partitions } else { slice };
        let mut waiting = BTreeMap::new();
        for start in (0..stage.partitions).step_by(step as usize) {
            let slice = Slice { start, end: stage.partitions.min(start + step) };
            let attempt = attempt(stage.id.0, self.next);
            let executor = ExecutorId(self.next % self.executors.len() as u32);
            self.next += 1;
            let partition_inputs = stage.partition_inputs.iter().take(slice.end as usize).skip(start as usize).cloned();
            let spec = TaskSpec {
                attempt,
                slice,
                partitions: stage.partitions,
                exchange: stage.exchange,
                inputs: inputs.clone(),
                partition_inputs: partition_inputs.collect(),
            };
            self.executors[executor.0 as usize].handle(Command::Launch(Box::new(spec)));
            waiting.insert(attempt, executor);
        }
        self.await_stage(stage, waiting).await
    }

    async fn await_stage(
        &mut self,
        stage: &Stage,
        mut waiting: BTreeMap<AttemptId, ExecutorId>,
    ) -> Result<BTreeMap<u32, (AttemptId, ExecutorId)>, Failed> {
        let mut outputs = BTreeMap::new();
        let mut failed = None;
        while !waiting.is_empty() {
            match self.report().await {
                Report::PartitionDone { attempt, partition, stat, .. } => {
                    assert_eq!(stat.segment_bytes.len(), stage.exchange.segments() as usize);
                    outputs.insert(partition, (attempt, waiting[&attempt]));
                }
                Report::AttemptEnded { attempt, outcome, metrics, .. } => {
                    waiting.remove(&attempt);
                    self.metrics.push((stage.id, *metrics));
                    if let Outcome::Failed(failure) = outcome {
                        failed.get_or_insert(failure);
                    }
                }
                other => panic!("unexpected report {other:?}"),
            }
        }
        match failed {
            Some(failed) => Err(failed),
            None => {
                assert_eq!(outputs.len(), stage.partitions as usize);
                Ok(outputs)
            }
        }
    }
}

fn groups(outputs: &BTreeMap<u32, (AttemptId, ExecutorId)>) -> Vec<InputGroup> {
    let mut groups: Vec<InputGroup> = Vec::new();
    for (partition, (attempt, executor)) in outputs {
        match groups.iter_mut().find(|group| group.attempt == *attempt) {
            Some(group) => group.partitions.push(*partition),
            None => groups.push(InputGroup {
                attempt: *attempt,
                executor: *executor,
                incarnation: INCARNATION,
                address: None,
                partitions: vec![*partition],
            }),
        }
    }
    groups
}
