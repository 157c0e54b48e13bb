//! The operator that makes a runtime filter: one row for each partition of its input, with the Bloom filter of the partition's keys.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, UInt64Array};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, internal_err};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, StatisticsArgs, apply_expression_roots,
};
use futures::TryStreamExt;

use super::bloom;

/// Most keys of one partition. Beyond 8 million a filter fits no cache, and what has so many keys seldom drops many rows.
pub(crate) const KEYS_MAX: u64 = 8 << 20;

/// Makes one row of each input partition: the Bloom filter of its keys, or null if there are too many or no memory to collect them.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeFilterBuildExec {
    input: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    keys_max: u64,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

impl RuntimeFilterBuildExec {
    /// A filter of the values of `keys`, which are over the schema of `input`, if no partition has more than `keys_max` of them.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, keys: Vec<Arc<dyn PhysicalExpr>>, keys_max: u64) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(bloom::schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            input,
            keys,
            keys_max: keys_max.min(KEYS_MAX),
            metrics: ExecutionPlanMetricsSet::new(),
            properties: Arc::new(properties),
        }
    }

    pub(crate) fn keys(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.keys
    }

    pub(crate) fn keys_max(&self) -> u64 {
        self.keys_max
    }
}

async fn build(
    mut input: SendableRecordBatchStream,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    keys_max: u64,
    partition: usize,
    context: Arc<TaskContext>,
    metrics: BaselineMetrics,
) -> Result<RecordBatch> {
    let memory = MemoryConsumer::new(format!("RuntimeFilterBuildExec[{partition}]")).register(context.memory_pool());
    let mut all: Vec<u64> = Vec::new();
    let mut buffer = Vec::new();
    let mut complete = true;
    while let Some(batch) = input.try_next().await? {
        let timer = metrics.elapsed_compute().timer();
        let values: Vec<ArrayRef> =
            keys.iter().map(|key| key.evaluate(&batch)?.into_array(batch.num_rows())).collect::<Result<_>>()?;
        let hashes = bloom::hashes(&values, batch.num_rows(), &mut buffer)?;
        if (all.len() + hashes.len()) as u64 > keys_max || memory.try_grow(size_of_val(hashes)).is_err() {
            complete = false;
            break;
        }
        all.extend(hashes);
        // Rows of one key often lie together.
        all.dedup();
        timer.done();
    }
    let timer = metrics.elapsed_compute().timer();
    let filter = if complete { Some(bloom::to_bytes(&all)) } else { None };
    timer.done();
    let filter: ArrayRef = Arc::new(BinaryArray::from_iter([filter]));
    let keys: ArrayRef = Arc::new(UInt64Array::from_iter_values([all.len() as u64]));
    metrics.record_output(1);
    Ok(RecordBatch::try_new(bloom::schema(), vec![filter, keys])?)
}

impl DisplayAs for RuntimeFilterBuildExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.keys.iter().map(ToString::to_string).collect();
        write!(f, "RuntimeFilterBuildExec: keys=[{}]", keys.join(", "))
    }
}

impl ExecutionPlan for RuntimeFilterBuildExec {
    fn name(&self) -> &'static str {
        "RuntimeFilterBuildExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
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
        match <[_; 1]>::try_from(children) {
            Ok([input]) => Ok(Arc::new(Self::new(input, self.keys.clone(), self.keys_max))),
            Err(_) => internal_err!("RuntimeFilterBuildExec has one child"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let row = futures::stream::once(build(input, self.keys.clone(), self.keys_max, partition, context, metrics));
        Ok(Box::pin(RecordBatchStreamAdapter::new(bloom::schema(), row)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&bloom::schema())))
    }
}
