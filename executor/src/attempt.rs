//! Runs one attempt: decodes its plan, executes all partitions at once, writes their rows to the shuffle. Next: `shuffle/write.rs`.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;
use datafusion::scalar::ScalarValue;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use windrow_core::clock::Stopwatch;
use windrow_core::failure::{CancelReason, Failed};
use windrow_core::ids::{ExecutorId, Incarnation, JobId};
use windrow_core::message::Report;
use windrow_core::stage::InputRead;
use windrow_core::task::{PartitionStat, TaskMetrics, TaskSpec};
use windrow_core::transport::ShuffleTransport;
use windrow_core::{Error, ErrorKind, Failure};
use windrow_planner::task_plan::session_config;
use windrow_planner::{InputPart, PythonRunners, StageInputs, Stores, TaskPlan, decode_task};

use crate::classify::{classify, exhausted, join, panicked};
use crate::executor::Template;
use crate::grace::with_joins_that_fit;
use crate::python::PythonWorkers;
use crate::query_memory::{Queries, QueryPool, QueryUse};
use crate::shuffle::broadcast::Broadcasts;
use crate::shuffle::checksum::RowChecksum;
use crate::shuffle::read::ShuffleReader;
use crate::shuffle::store::ShuffleStore;
use crate::shuffle::write::PartitionWriter;
use crate::stoppable::with_joins_that_stop;
use crate::window_views::with_windows_that_let_go;

/// What all attempts of an executor share.
#[derive(Debug)]
pub(crate) struct Services {
    store: Arc<ShuffleStore>,
    transport: Arc<dyn ShuffleTransport<RecordBatch>>,
    reports: mpsc::Sender<Report>,
    window: u64,
    broadcasts: Arc<Broadcasts>,
    queries: Arc<Queries>,
    /// Most bytes that a sort may take in advance for its merge.
    sort_reservation: usize,
    python: Arc<PythonWorkers>,
    /// DataFusion's functions, and an environment whose object stores and file-metadata cache every attempt uses.
    session: SessionState,
}

/// Most bytes of Parquet footers and page indexes that an executor keeps: 256 MiB, some thousand files. Nobody accounts them, so they
/// are at most a sixteenth of a small executor's memory.
const METADATA_CACHE_BYTES: usize = 256 << 20;

impl Services {
    pub(crate) fn new(
        store: Arc<ShuffleStore>,
        transport: Arc<dyn ShuffleTransport<RecordBatch>>,
        reports: mpsc::Sender<Report>,
        window: u64,
        slots: u32,
        stores: Arc<Stores>,
        python: Arc<PythonWorkers>,
    ) -> Result<Self, Error> {
        // An eighth of a slot's share: many slots would otherwise take a small pool before any row is sorted.
        let sort_reservation = store.pool().limit() / (8 * slots.max(1) as usize);
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::clone(store.pool()) as Arc<dyn MemoryPool>)
            .with_object_store_registry(stores)
            .with_metadata_cache_limit(METADATA_CACHE_BYTES.min(store.pool().limit() / 16))
            .build_arc()
            .map_err(|source| Error::new(ErrorKind::Internal, source.to_string()))?;
        let session = SessionStateBuilder::new().with_default_features().with_runtime_env(environment).build();
        let broadcasts = Arc::new(Broadcasts::new(Arc::clone(store.pool())));
        Ok(Self { store, transport, reports, window, broadcasts, queries: Arc::default(), sort_reservation, python, session })
    }

    pub(crate) fn python(&self) -> &Arc<PythonWorkers> {
        &self.python
    }

    pub(crate) fn store(&self) -> &Arc<ShuffleStore> {
        &self.store
    }

    /// What the queries of its attempts hold.
    pub(crate) fn queries(&self) -> &Arc<Queries> {
        &self.queries
    }

    pub(crate) fn reports(&self) -> &mpsc::Sender<Report> {
        &self.reports
    }

    /// Drops what was fetched once for several attempts, of a job or of all.
    pub(crate) fn forget_broadcasts(&self, job: Option<JobId>) {
        self.broadcasts.forget(job);
    }

    /// An environment with temporary files of its own, that go when it is dropped, and the pool as `query` may use it.
    fn environment(&self, query: &Arc<QueryUse>) -> Result<Arc<RuntimeEnv>, Failed> {
        let disk = self.store.spill().disk_manager().map_err(|error| classify(&error))?;
        let shared = self.session.runtime_env();
        Ok(Arc::new(RuntimeEnv {
            memory_pool: Arc::new(QueryPool::new(Arc::clone(self.store.pool()), Arc::clone(query))),
            disk_manager: Arc::new(disk),
            cache_manager: Arc::clone(&shared.cache_manager),
            object_store_registry: Arc::clone(&shared.object_store_registry),
        }))
    }
}

/// One attempt, ready to run.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) spec: TaskSpec,
    pub(crate) template: Arc<Template>,
    pub(crate) executor: ExecutorId,
    pub(crate) incarnation: Incarnation,
    pub(crate) services: Arc<Services>,
}

impl Attempt {
    /// Runs to the end: success, the first failure, or `cancel`. When it returns, nothing of it runs any more, and output that was
    /// not reported done is gone.
    pub(crate) async fn run(self, cancel: &CancellationToken) -> (Result<(), Failed>, TaskMetrics) {
        let id = self.spec.attempt;
        let span = tracing::info_span!("attempt", job = %id.job, stage = %id.stage, attempt = %id, slice = ?self.spec.slice);
        let watch = Stopwatch::start();
        let mut progress = Progress::default();
        let query = self.services.queries.of(id.job, self.template.memory_limit);
        let result = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Failed::cancelled(CancelReason::Stale)),
            failed = query.ended() => Err(failed),
            result = AssertUnwindSafe(self.work(&mut progress, &query, cancel)).catch_unwind().instrument(span.clone()) => {
                result.unwrap_or_else(|payload| Err(panicked(payload.as_ref())))
            }
        };
        progress.partitions.shutdown().await;
        let mut metrics = progress.metrics();
        metrics.micros = u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX);
        if result.is_err() {
            for partition in self.spec.slice.iter().filter(|partition| !progress.reported.contains(partition)) {
                self.services.store.release_output((id, partition));
            }
        }
        let result = result.map_err(|failed| exhausted(failed, self.services.store.pool()));
        span.in_scope(|| match &result {
            Ok(()) => tracing::debug!(rows = metrics.rows, micros = metrics.micros, "attempt succeeded"),
            Err(failed) => tracing::debug!(%failed, "attempt failed"),
        });
        (result, metrics)
    }

    async fn work(&self, progress: &mut Progress, query: &Arc<QueryUse>, cancel: &CancellationToken) -> Result<(), Failed> {
        let reader = Arc::new(self.reader());
        let scalars = self.scalars(&reader).await?;
        let shared = self.shared_context()?;
        let plan = self.decode(&scalars, &shared, cancel)?;
        let context = self.context(&shared, reader, query)?;
        progress.plan = Some(Arc::clone(&plan.plan));
        for (index, partition) in self.spec.slice.iter().enumerate() {
            let run = run_partition(self.partition(index, partition, &plan, &context)?);
            progress.partitions.spawn(run.in_current_span());
        }
        while let Some(ended) = progress.partitions.join_next().await {
            let (partition, stat) = ended.map_err(|error| join(&error))??;
            progress.rows += stat.rows;
            progress.bytes += stat.bytes();
            let report = Report::PartitionDone { incarnation: self.incarnation, attempt: self.spec.attempt, partition, stat };
            // Without a listener nobody will read the output; the executor is going away.
            if self.services.reports.send(report).await.is_err() {
                return Err(Failed::cancelled(CancelReason::Stale));
            }
            progress.reported.insert(partition);
        }
        Ok(())
    }

    fn reader(&self) -> ShuffleReader {
        let (services, inputs) = (&self.services, self.spec.inputs.clone());
        let (store, transport) = (Arc::clone(&services.store), Arc::clone(&services.transport));
        // A stage of several tasks reads its whole inputs several times.
        let broadcasts = (self.spec.slice.len() < self.spec.partitions).then(|| Arc::clone(&services.broadcasts));
        ShuffleReader::new((self.executor, self.incarnation), inputs, store, transport, services.window).sharing(broadcasts)
    }

    /// The values of scalar inputs, by input index.
    async fn scalars(&self, reader: &ShuffleReader) -> Result<Vec<(u32, ScalarValue)>, Failed> {
        let mut scalars = Vec::new();
        for (index, input) in self.spec.inputs.iter().enumerate() {
            if input.read == InputRead::Scalar {
                let index = u32::try_from(index).map_err(|_too_many| Failed::internal("more inputs than a u32 counts"))?;
                scalars.push((index, scalar(reader, index).await?));
            }
        }
        Ok(scalars)
    }

    /// The job's settings and all functions: what a plan is decoded with.
    fn shared_context(&self) -> Result<Arc<TaskContext>, Failed> {
        if let Some(context) = self.template.context.get() {
            return Ok(Arc::clone(context));
        }
        let mut config = session_config(&self.template.settings).map_err(|error| Failed::fatal(&error))?;
        let sort = &mut config.options_mut().execution.sort_spill_reservation_bytes;
        *sort = (*sort).min(self.services.sort_reservation);
        let context = Arc::new(TaskContext::from(&self.services.session).with_session_config(config));
        Ok(Arc::clone(self.template.context.get_or_init(|| context)))
    }

    /// What the plan runs with: inputs and memory of its own, and no functions, which it holds itself by now.
    fn context(
        &self,
        shared: &TaskContext,
        reader: Arc<ShuffleReader>,
        query: &Arc<QueryUse>,
    ) -> Result<Arc<TaskContext>, Failed> {
        let config = shared.session_config().clone().with_extension(Arc::new(StageInputs(reader)));
        let config = config.with_extension(Arc::new(PythonRunners(self.services.python.runner())));
        let (id, environment) = (Some(self.spec.attempt.to_string()), self.services.environment(query)?);
        let session = shared.session_id();
        Ok(Arc::new(TaskContext::new(
            id,
            session,
            config,
            Default::default(),
            Default::default(),
            Default::default(),
            Default::default(),
            environment,
        )))
    }

    fn decode(
        &self,
        scalars: &[(u32, ScalarValue)],
        context: &TaskContext,
        cancel: &CancellationToken,
    ) -> Result<TaskPlan, Failed> {
        let spec = &self.spec;
        let decode = || decode_task(&self.template.plan, spec.slice, spec.partitions, &spec.partition_inputs, scalars, context);
        let plan = std::panic::catch_unwind(AssertUnwindSafe(decode)).map_err(|payload| panicked(payload.as_ref()))?;
        let TaskPlan { plan, hash_keys } = plan.map_err(|error| match error.kind {
            ErrorKind::Internal => Failed::internal(error.to_string()),
            _ => Failed::fatal(&error),
        })?;
        let plan = with_joins_that_stop(plan, cancel).map_err(|error| classify(&error))?;
        let plan = with_joins_that_fit(plan, self.services.store.spill()).map_err(|error| classify(&error))?;
        let plan = with_windows_that_let_go(plan).map_err(|error| classify(&error))?;
        let plan = TaskPlan { plan, hash_keys };
        let count = plan.plan.properties().output_partitioning().partition_count();
        if count != spec.slice.len() as usize {
            let sentence = format!("the plan of {} has {count} partitions for a slice of {}", spec.attempt, spec.slice.len());
            return Err(Failed::internal(sentence));
        }
        Ok(plan)
    }

    fn partition(
        &self,
        index: usize,
        partition: u32,
        plan: &TaskPlan,
        context: &Arc<TaskContext>,
    ) -> Result<PartitionRun, Failed> {
        let key = (self.spec.attempt, partition);
        let schema = plan.plan.schema();
        let (store, exchange) = (&self.services.store, self.spec.exchange);
        let writer = PartitionWriter::new(store, self.incarnation, key, exchange, &plan.hash_keys, schema)?;
        let writer = writer.with_checksum(RowChecksum::of(&plan.plan));
        Ok(PartitionRun { index, partition, plan: Arc::clone(&plan.plan), context: Arc::clone(context), writer })
    }
}

/// What an attempt has come to.
#[derive(Debug, Default)]
struct Progress {
    partitions: JoinSet<Result<(u32, PartitionStat), Failed>>,
    plan: Option<Arc<dyn ExecutionPlan>>,
    /// Partitions that were reported done.
    reported: BTreeSet<u32>,
    rows: u64,
    bytes: u64,
}

impl Progress {
    fn metrics(&self) -> TaskMetrics {
        let mut metrics = TaskMetrics { rows: self.rows, shuffle_bytes: self.bytes, ..TaskMetrics::default() };
        if let Some(plan) = &self.plan {
            collect_metrics(plan, &mut 0, &mut metrics);
        }
        metrics
    }
}

/// Adds the metrics of `plan` and what is below it, in pre-order.
fn collect_metrics(plan: &Arc<dyn ExecutionPlan>, index: &mut u32, into: &mut TaskMetrics) {
    let operator = *index;
    *index += 1;
    for metric in plan.metrics().map(|set| set.aggregate_by_name().timestamps_removed()).iter().flat_map(|set| set.iter()) {
        let value = metric.value().as_usize() as u64;
        if matches!(metric.value(), MetricValue::SpilledBytes(_)) {
            into.spill_bytes += value;
        }
        into.operators.push((operator, metric.value().name().to_owned(), value));
    }
    for child in plan.children() {
        collect_metrics(child, index, into);
    }
}

/// One partition of a plan and where its rows go.
struct PartitionRun {
    /// The plan's partition.
    index: usize,
    /// The stage's partition.
    partition: u32,
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    writer: PartitionWriter,
}

async fn run_partition(run: PartitionRun) -> Result<(u32, PartitionStat), Failed> {
    let PartitionRun { index, partition, plan, context, mut writer } = run;
    let mut rows = plan.execute(index, context).map_err(|error| classify(&error))?;
    drop(plan);
    while let Some(batch) = rows.next().await {
        writer.push(batch.map_err(|error| classify(&error))?).await?;
    }
    // The operators' memory is free before the last batches are copied together.
    drop(rows);
    Ok((partition, writer.finish().await?))
}

/// The one value of a scalar input; NULL if it has no row.
async fn scalar(reader: &ShuffleReader, input: u32) -> Result<ScalarValue, Failed> {
    let mut batches = reader.read(input, InputPart::Segment(0))?;
    let mut value = None;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            if value.is_some() {
                let kind = ErrorKind::InvalidQuery;
                return Err(Failed::new(Failure::Fatal { kind }, "scalar subquery returned more than one row"));
            }
            let column = batch.columns().first().ok_or_else(|| Failed::internal("a scalar without a column"))?;
            value = Some(ScalarValue::try_from_array(column, row).map_err(|error| classify(&error))?);
        }
    }
    Ok(value.unwrap_or(ScalarValue::Null))
}
