//! The operator that applies a runtime filter: it reads the filter, then passes the rows whose keys may be in it.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray};
use arrow::compute::BatchCoalescer;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, StatisticsArgs, apply_expression_roots,
};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use super::bloom::{self, KeyFilter};

/// A batch of which more than this share passes, in percent, does not pay for the test of its rows.
const USELESS_PERCENT: usize = 80;

/// Batches that pass untested after a batch of which too many rows passed. Then another is tried: data is seldom the same throughout.
const UNTESTED_BATCHES: usize = 15;

/// Drops rows of its second child whose keys are not in the filter that its first child reads. It may let through rows that are not
/// in it: the join above decides.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeFilterExec {
    filter: Arc<dyn ExecutionPlan>,
    input: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    routed: bool,
    /// The filter, read by the first partition that needs it.
    read: Arc<OnceCell<Option<KeyFilter>>>,
    metrics: ExecutionPlanMetricsSet,
}

impl RuntimeFilterExec {
    /// Tests `keys`, over the schema of `input`, by the rows of `filter`, each from one partition of a build. With `routed`, those
    /// partitions are an exchange's by just these keys.
    pub(crate) fn new(
        filter: Arc<dyn ExecutionPlan>,
        input: Arc<dyn ExecutionPlan>,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        routed: bool,
    ) -> Self {
        Self { filter, input, keys, routed, read: Arc::default(), metrics: ExecutionPlanMetricsSet::new() }
    }

    pub(crate) fn keys(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.keys
    }

    pub(crate) fn routed(&self) -> bool {
        self.routed
    }
}

async fn read(filter: Arc<dyn ExecutionPlan>, routed: bool, context: Arc<TaskContext>) -> Result<Option<KeyFilter>> {
    let mut rows: Vec<BinaryArray> = Vec::new();
    for partition in 0..filter.output_partitioning().partition_count() {
        let mut stream = filter.execute(partition, Arc::clone(&context))?;
        while let Some(batch) = stream.try_next().await? {
            rows.extend(batch.columns().iter().filter_map(|column| column.as_binary_opt::<i32>().cloned()));
        }
    }
    KeyFilter::from_rows(&rows, routed)
}

/// The rows of one partition on their way through the filter.
struct Filtering {
    input: SendableRecordBatchStream,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    filter: Arc<OnceCell<Option<KeyFilter>>>,
    output: BatchCoalescer,
    hashes: Vec<u64>,
    untested: usize,
    ended: bool,
    metrics: BaselineMetrics,
    dropped: Count,
}

impl Filtering {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.output.next_completed_batch() {
                self.metrics.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
            if self.ended {
                return Ok(None);
            }
            match self.input.next().await {
                Some(batch) => self.push(batch?)?,
                None => {
                    self.ended = true;
                    self.output.finish_buffered_batch()?;
                }
            }
        }
    }

    fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let compute = self.metrics.elapsed_compute().clone();
        let _timer = compute.timer();
        let Some(Some(filter)) = self.filter.get() else { return Ok(self.output.push_batch(batch)?) };
        if self.untested > 0 {
            self.untested -= 1;
            return Ok(self.output.push_batch(batch)?);
        }
        let rows = batch.num_rows();
        let keys: Vec<ArrayRef> = self.keys.iter().map(|key| key.evaluate(&batch)?.into_array(rows)).collect::<Result<_>>()?;
        let passes = filter.matches(bloom::hashes(&keys, rows, &mut self.hashes)?);
        let passed = passes.true_count();
        if passed * 100 > rows * USELESS_PERCENT {
            self.untested = UNTESTED_BATCHES;
            return Ok(self.output.push_batch(batch)?);
        }
        self.dropped.add(rows - passed);
        if passed > 0 {
            self.output.push_batch_with_filter(batch, &passes)?;
        }
        Ok(())
    }
}

impl DisplayAs for RuntimeFilterExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.keys.iter().map(ToString::to_string).collect();
        write!(f, "RuntimeFilterExec: keys=[{}]", keys.join(", "))
    }
}

impl ExecutionPlan for RuntimeFilterExec {
    fn name(&self) -> &'static str {
        "RuntimeFilterExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false, true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.filter, &self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(&self.keys, f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 2]>::try_from(children) {
            Ok([filter, input]) => Ok(Arc::new(Self::new(filter, input, self.keys.clone(), self.routed))),
            Err(_) => internal_err!("RuntimeFilterExec has two children"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        let batch_size = context.session_config().batch_size();
        let filtering = Filtering {
            input: self.input.execute(partition, Arc::clone(&context))?,
            keys: self.keys.clone(),
            filter: Arc::clone(&self.read),
            // A large batch passes as it is, without a copy.
            output: BatchCoalescer::new(self.schema(), batch_size).with_biggest_coalesce_batch_size(Some(batch_size / 2)),
            hashes: Vec::new(),
            untested: 0,
            ended: false,
            metrics: BaselineMetrics::new(&self.metrics, partition),
            dropped: MetricBuilder::new(&self.metrics).counter("dropped_rows", partition),
        };
        let (cell, filter, routed) = (Arc::clone(&self.read), Arc::clone(&self.filter), self.routed);
        let rows = async move {
            cell.get_or_try_init(|| read(filter, routed, context)).await?;
            Ok::<_, DataFusionError>(futures::stream::try_unfold(filtering, |mut filtering| async move {
                Ok(filtering.next().await?.map(|batch| (batch, filtering)))
            }))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(rows).try_flatten())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        match inputs.get(1) {
            Some(input) => Ok(Arc::new(Statistics::clone(input).to_inexact())),
            None => Ok(Arc::new(Statistics::new_unknown(&self.schema()))),
        }
    }
}
