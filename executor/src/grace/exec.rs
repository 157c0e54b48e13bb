//! The operator: a hash join whose build side is collected by itself, and that joins on disk what does not fit. Next: `build.rs`.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{JoinType, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{LexOrdering, PhysicalExpr};
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::limit::LimitStream;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, SpillMetrics};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, TryFutureExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::build::{Collected, Collection, Grant, collect};
use super::leaves::{ProbeExec, StreamsExec};
use super::pieces::{Joiner, join_parts};
use super::split::{Met, Part, Splitter};
use crate::spill::SpillDir;

/// The part of the pool that a piece of a join may take although the pool refuses, and its bounds in bytes: without it nothing could
/// go on while others hold everything.
const LEAST_PART: usize = 64;
const LEAST_BYTES: (usize, usize) = (1 << 20, 16 << 20);

/// A hash join that does not fail for memory while there is disk. Runs once.
pub(super) struct GraceHashJoinExec {
    join: HashJoinExec,
    parts: Arc<Parts>,
}

/// What the streams of all partitions share.
struct Parts {
    join: HashJoinExec,
    /// The same join over a build side that was collected.
    resident: Arc<dyn ExecutionPlan>,
    collected: Arc<StreamsExec>,
    grants: Arc<Vec<Mutex<Grant>>>,
    spill: Arc<SpillDir>,
    metrics: ExecutionPlanMetricsSet,
    /// The one build of a join whose partitions share it.
    shared: Mutex<Option<SharedBuild>>,
}

type SharedBuild = Shared<BoxFuture<'static, Result<Built, Arc<DataFusionError>>>>;

/// What became of the build side.
#[derive(Clone)]
enum Built {
    /// It was given to the resident join.
    Resident,
    /// It is on disk.
    Spilled(Arc<Vec<Part>>),
}

impl GraceHashJoinExec {
    /// A join that gives the rows of `join` and spills to `spill`.
    pub(super) fn try_new(join: &HashJoinExec, spill: &Arc<SpillDir>) -> Result<Self> {
        let shares_build = *join.partition_mode() == PartitionMode::CollectLeft;
        let builds = join.left().output_partitioning().partition_count();
        let collected = Arc::new(StreamsExec::new(join.left().schema(), builds));
        let grants: Arc<Vec<Mutex<Grant>>> = Arc::new(std::iter::repeat_with(Mutex::default).take(builds).collect());
        let probe = Arc::new(ProbeExec::new(Arc::clone(join.right()), Arc::clone(&grants)));
        let mut resident = join.builder();
        if !shares_build && builds > 1 {
            // Its filter waits for all partitions, of which one may go to disk.
            resident = resident.reset_state();
        }
        let resident =
            resident.with_new_children(vec![Arc::clone(&collected) as _, probe])?.recompute_properties().build_exec()?;
        let parts = Parts {
            join: join.builder().build()?,
            resident,
            collected,
            grants,
            spill: Arc::clone(spill),
            metrics: ExecutionPlanMetricsSet::new(),
            shared: Mutex::default(),
        };
        Ok(Self { join: join.builder().build()?, parts: Arc::new(parts) })
    }
}

impl fmt::Debug for GraceHashJoinExec {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GraceHashJoinExec").field(&self.join).finish()
    }
}

impl DisplayAs for GraceHashJoinExec {
    fn fmt_as(&self, form: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Grace")?;
        self.join.fmt_as(form, f)
    }
}

impl ExecutionPlan for GraceHashJoinExec {
    fn name(&self) -> &'static str {
        "GraceHashJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.join.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.join.maintains_input_order()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.join.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.join.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let join = Arc::new(self.join.builder().build()?).replace_children(children, options)?;
        match join.downcast_ref::<HashJoinExec>() {
            Some(join) => Ok(Arc::new(Self::try_new(join, &self.parts.spill)?)),
            None => internal_err!("a hash join with other children is another operator"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let mode = datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(mode))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let parts = Arc::clone(&self.parts);
        let build = parts.build(partition, &context)?;
        let schema = self.schema();
        let rows = async move {
            match build.await? {
                Built::Resident => parts.resident.execute(partition, context),
                Built::Spilled(left) => parts.join_spilled(partition, context, &left).await,
            }
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::once(rows).try_flatten())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        let mut metrics = self.parts.resident.metrics().unwrap_or_default();
        self.parts.metrics.clone_inner().iter().for_each(|metric| metrics.push(Arc::clone(metric)));
        Some(metrics)
    }

    fn fetch(&self) -> Option<usize> {
        self.join.fetch()
    }
}

impl Parts {
    /// Collects the build side of a partition, once if all partitions share it.
    fn build(self: &Arc<Self>, partition: usize, context: &Arc<TaskContext>) -> Result<BoxFuture<'static, Result<Built>>> {
        if *self.join.partition_mode() != PartitionMode::CollectLeft {
            return Ok(self.collect(partition, context)?.boxed());
        }
        let mut shared = self.shared.lock();
        let build = match shared.as_ref() {
            Some(build) => build.clone(),
            None => shared.insert(self.collect(0, context)?.map_err(Arc::new).boxed().shared()).clone(),
        };
        Ok(build.map_err(DataFusionError::Shared).boxed())
    }

    fn collect(
        self: &Arc<Self>,
        partition: usize,
        context: &Arc<TaskContext>,
    ) -> Result<impl Future<Output = Result<Built>> + Send + 'static> {
        let mut rows = self.join.left().execute(partition, Arc::clone(context))?;
        let reservation = self.reservation(partition, context);
        let (parts, least) = (Arc::clone(self), least(context));
        Ok(async move {
            match collect(&mut rows, reservation, least).await? {
                Collection::Whole(Collected { batches, size, reservation }) => {
                    let grant = Grant::new(reservation);
                    if let Some(place) = parts.grants.get(partition) {
                        *place.lock() = grant.clone();
                    }
                    let batches = stream::iter(batches.into_iter().map(Ok));
                    let batches = Box::pin(RecordBatchStreamAdapter::new(rows.schema(), batches));
                    parts.collected.give(partition, grant.hand_over(batches, size));
                    Ok(Built::Resident)
                }
                Collection::Refused(Collected { batches, reservation, .. }) => {
                    let keys = parts.join.on().iter().map(|(left, _)| Arc::clone(left)).collect();
                    let mut splitter = Splitter::new(keys, rows.schema(), 0, &parts.spill, parts.spill_metrics(partition))?;
                    for batch in batches {
                        splitter.add(batch)?;
                    }
                    drop(reservation);
                    splitter.add_all(&mut rows).await?;
                    let (left, _) = splitter.finish()?;
                    Ok(Built::Spilled(Arc::new(left)))
                }
            }
        })
    }

    fn reservation(&self, partition: usize, context: &Arc<TaskContext>) -> MemoryReservation {
        MemoryConsumer::new(format!("HashJoinBuild[{partition}]")).with_can_spill(true).register(context.memory_pool())
    }

    fn spill_metrics(&self, partition: usize) -> SpillMetrics {
        SpillMetrics::new(&self.metrics, partition)
    }

    /// Divides the probe side like the build side, and joins part by part.
    async fn join_spilled(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
        left: &[Part],
    ) -> Result<SendableRecordBatchStream> {
        let schema = self.join.schema();
        let Some((right, met)) = self.split_probe(partition, &context).await? else {
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::empty())));
        };
        // NOT IN: a null on the other side leaves no row, and no null is not in anything but the empty set.
        if self.join.null_aware && met.null_keys {
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::empty())));
        }
        let joiner = Joiner {
            join: self.join.builder().reset_state().build()?,
            context: Arc::clone(&context),
            spill: Arc::clone(&self.spill),
            metrics: self.spill_metrics(partition),
            joined: MetricBuilder::new(&self.metrics).counter("pieces_joined", partition),
            least: least(&context),
            partition,
            drop_null_keys: self.join.null_aware && met.rows,
        };
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let counted = baseline.clone();
        let rows = join_parts(joiner, left, right).inspect_ok(move |batch| counted.record_output(batch.num_rows()));
        let rows: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema, rows));
        let rows = match self.join.properties().output_ordering() {
            // Pieces come in no order, and the operators above were promised one.
            Some(ordering) => sorted(rows, ordering.clone(), context)?,
            None => rows,
        };
        Ok(match self.join.fetch() {
            Some(fetch) => {
                Box::pin(LimitStream::new(rows, 0, Some(fetch), BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0)))
            }
            None => rows,
        })
    }

    /// A join that emits rows of a build side that several partitions share emits them all in the first, which reads all probe
    /// partitions: only then is it known which rows have no partner.
    /// `None` for the others.
    async fn split_probe(&self, partition: usize, context: &Arc<TaskContext>) -> Result<Option<(Vec<Part>, Met)>> {
        let probes = match (self.join.partition_mode(), emits_left(*self.join.join_type())) {
            (PartitionMode::CollectLeft, true) if partition > 0 => return Ok(None),
            (PartitionMode::CollectLeft, true) => 0..self.join.right().output_partitioning().partition_count(),
            _ => partition..partition + 1,
        };
        let keys = self.join.on().iter().map(|(_, right)| Arc::clone(right)).collect();
        let mut splitter = Splitter::new(keys, self.join.right().schema(), 0, &self.spill, self.spill_metrics(partition))?;
        for probe in probes {
            splitter.add_all(&mut self.join.right().execute(probe, Arc::clone(context))?).await?;
        }
        splitter.finish().map(Some)
    }
}

/// Whether rows of the left side come out that found no partner, or once however many they found.
fn emits_left(join: JoinType) -> bool {
    match join {
        JoinType::Left | JoinType::Full | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => true,
        JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => false,
    }
}

fn sorted(
    rows: SendableRecordBatchStream,
    ordering: LexOrdering,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    let input: Arc<dyn ExecutionPlan> = StreamsExec::of(rows);
    SortExec::new(ordering, input).execute(0, context)
}

fn least(context: &Arc<TaskContext>) -> usize {
    let limit = match context.memory_pool().memory_limit() {
        MemoryLimit::Finite(limit) => limit,
        MemoryLimit::Infinite | MemoryLimit::Unknown => usize::MAX,
    };
    (limit / LEAST_PART).clamp(LEAST_BYTES.0, LEAST_BYTES.1)
}
