//! The operator that applies a runtime filter: it reads the filter, then passes the rows whose keys may be in it.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use arrow::array::ArrayRef;
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
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::bloom::{self, KeyFilter};
use super::place::column;
use super::push::{is_selective, push};

/// A batch of which more than this share passes, in percent, does not pay for the test of its rows.
const USELESS_PERCENT: usize = 80;

/// Batches that pass untested after a batch of which too many rows passed. Then another is tried: data is seldom the same throughout.
const UNTESTED_BATCHES: usize = 15;

/// How a filter is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilterUse {
    /// The filter's rows come from the partitions of an exchange by just these keys.
    pub(crate) routed: bool,
    /// How many values the key can have, if it is one column and that is known.
    pub(crate) domain: Option<u64>,
    /// Only inside of the scan: the join that the filter is of is in the same stage and tests the rows itself.
    pub(crate) in_scan_only: bool,
}

/// Drops rows of its second child whose keys are not in the filter that its first child reads. It may let through rows that are not
/// in it: the join above decides.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeFilterExec {
    filter: Arc<dyn ExecutionPlan>,
    input: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    how: FilterUse,
    /// Made by the first partition that needs it.
    ready: Arc<OnceCell<Ready>>,
    metrics: ExecutionPlanMetricsSet,
}

/// What the partitions share once the filter has been read.
#[derive(Debug)]
struct Ready {
    /// The filter, if rows are to be tested here.
    filter: Option<Arc<KeyFilter>>,
    /// The input, with the filter inside of its scan if few rows pass it.
    input: Arc<dyn ExecutionPlan>,
}

impl RuntimeFilterExec {
    /// Tests `keys`, over the schema of `input`, by the rows of `filter`, each from one partition of a build.
    pub(crate) fn new(
        filter: Arc<dyn ExecutionPlan>,
        input: Arc<dyn ExecutionPlan>,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        how: FilterUse,
    ) -> Self {
        Self { filter, input, keys, how, ready: Arc::default(), metrics: ExecutionPlanMetricsSet::new() }
    }

    pub(crate) fn keys(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.keys
    }

    pub(crate) fn how(&self) -> FilterUse {
        self.how
    }

    /// The same operator, its metrics included, over another input of the same rows.
    pub(super) fn with_input(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        Self { input, ready: Arc::default(), ..self.clone() }
    }

    async fn make_ready(self, context: Arc<TaskContext>) -> Result<Ready> {
        let mut rows = Vec::new();
        for partition in 0..self.filter.output_partitioning().partition_count() {
            let stream = self.filter.execute(partition, Arc::clone(&context))?;
            rows.extend(stream.try_collect::<Vec<_>>().await?);
        }
        let Some(filter) = KeyFilter::from_rows(&rows, self.how.routed)? else {
            return Ok(Ready { filter: None, input: self.input });
        };
        let filter = Arc::new(filter);
        let columns: Option<Vec<usize>> = self.keys.iter().map(column).collect();
        if let Some(columns) = columns.filter(|_| is_selective(&filter, self.how.domain))
            && let Some(input) = push(&self.input, &columns, &filter)?
        {
            return Ok(Ready { filter: None, input });
        }
        Ok(Ready { filter: Some(filter).filter(|_| !self.how.in_scan_only), input: self.input })
    }
}

/// The rows of one partition on their way through the filter.
struct Filtering {
    input: SendableRecordBatchStream,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<KeyFilter>>,
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
        let Some(filter) = &self.filter else { return Ok(self.output.push_batch(batch)?) };
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
        write!(f, "RuntimeFilterExec: keys=[{}]", keys.join(", "))?;
        if self.how.in_scan_only { write!(f, ", in_scan_only") } else { Ok(()) }
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
            Ok([filter, input]) => Ok(Arc::new(Self::new(filter, input, self.keys.clone(), self.how))),
            Err(_) => internal_err!("RuntimeFilterExec has two children"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let this = self.clone();
        let rows = async move {
            let ready = Arc::clone(&this.ready);
            let ready = ready.get_or_try_init(|| this.clone().make_ready(Arc::clone(&context))).await?;
            let batch_size = context.session_config().batch_size();
            let filtering = Filtering {
                input: ready.input.execute(partition, context)?,
                keys: this.keys.clone(),
                filter: ready.filter.clone(),
                // A large batch passes as it is, without a copy.
                output: BatchCoalescer::new(this.schema(), batch_size).with_biggest_coalesce_batch_size(Some(batch_size / 2)),
                hashes: Vec::new(),
                untested: 0,
                ended: false,
                metrics: BaselineMetrics::new(&this.metrics, partition),
                dropped: MetricBuilder::new(&this.metrics).counter("dropped_rows", partition),
            };
            Ok::<_, DataFusionError>(futures::stream::try_unfold(filtering, |mut filtering| async move {
                Ok(filtering.next().await?.map(|batch| (batch, filtering)))
            }))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), futures::stream::once(rows).try_flatten())))
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
