//! The operator that writes: each partition of its input goes into files of its own, and its result is one row per file. Next:
//! `partition.rs`.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Statistics, internal_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, StatisticsArgs,
};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::format::Format;
use super::partition::PartitionFiles;
use super::publish::{WrittenFile, files_schema, files_to_batch};

/// What is written and where. The same for all partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WriteSpec {
    /// The store: `file:///`, `s3://bucket`.
    pub(crate) store: String,
    /// The folder in the store that files are written to until they are published.
    pub(crate) staging: String,
    /// The number of this write, which begins the names of its files.
    pub(crate) write: String,
    /// What the files are.
    pub(crate) format: Format,
    /// The columns whose values name the folders of a file; they are not in the file.
    pub(crate) keys: Vec<String>,
    /// Columns, by index, that may hold no null.
    pub(crate) not_null: Vec<u32>,
    /// A file ends when it is about this large.
    pub(crate) file_bytes_max: u64,
    /// The first partition writes a file even if it has no row, so that the columns are known.
    pub(crate) needs_file: bool,
}

/// Writes its input's rows into files and tells their names.
#[derive(Debug, Clone)]
pub(crate) struct WriteExec {
    input: Arc<dyn ExecutionPlan>,
    spec: Arc<WriteSpec>,
    /// The stage's partition that the first one of this plan is.
    first: u32,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

impl WriteExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, spec: Arc<WriteSpec>, first: u32) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(files_schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input, spec, first, metrics: ExecutionPlanMetricsSet::new(), properties: Arc::new(properties) }
    }

    pub(crate) fn spec(&self) -> &Arc<WriteSpec> {
        &self.spec
    }

    pub(crate) fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    pub(crate) fn first(&self) -> u32 {
        self.first
    }
}

/// Whether a plan writes files: another run of it names other files, so its rows are not compared.
#[must_use]
pub fn writes_files(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.exists(|node| Ok(node.is::<WriteExec>())).unwrap_or(true)
}

async fn write(
    mut input: SendableRecordBatchStream,
    spec: Arc<WriteSpec>,
    partition: u32,
    context: Arc<TaskContext>,
    metrics: (BaselineMetrics, ExecutionPlanMetricsSet),
) -> Result<RecordBatch> {
    let (baseline, set) = metrics;
    let needs_file = spec.needs_file && partition == 0;
    let mut files = PartitionFiles::new(spec, partition, &input.schema(), &context)?;
    while let Some(batch) = input.try_next().await? {
        let timer = baseline.elapsed_compute().timer();
        files.write(&batch).await?;
        timer.done();
    }
    // The operators' memory is free before the files are completed.
    drop(input);
    let written = files.finish(needs_file).await?;
    let bytes = written.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
    MetricBuilder::new(&set).global_counter("bytes_written").add(usize::try_from(bytes).unwrap_or(usize::MAX));
    baseline.record_output(written.len());
    files_to_batch(&written)
}

impl DisplayAs for WriteExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "WriteExec: format={}", self.spec.format.name())?;
        if !self.spec.keys.is_empty() {
            write!(f, ", folders=[{}]", self.spec.keys.join(", "))?;
        }
        match kind {
            // What is encoded and decoded must be the same to the last option.
            DisplayFormatType::Verbose => write!(f, ", first={}, {:?}", self.first, self.spec),
            _ => Ok(()),
        }
    }
}

impl ExecutionPlan for WriteExec {
    fn name(&self) -> &'static str {
        "WriteExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 1]>::try_from(children) {
            Ok([input]) => Ok(Arc::new(Self::new(input, Arc::clone(&self.spec), self.first))),
            Err(_) => internal_err!("WriteExec has one child"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let metrics = (BaselineMetrics::new(&self.metrics, partition), self.metrics.clone());
        let place = u32::try_from(partition).unwrap_or(u32::MAX).saturating_add(self.first);
        let row = futures::stream::once(write(input, Arc::clone(&self.spec), place, context, metrics));
        Ok(Box::pin(RecordBatchStreamAdapter::new(files_schema(), row)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&files_schema())))
    }
}

/// The files that rows of [`files_schema`] name.
pub(super) fn files_of_batch(batch: &RecordBatch) -> Option<Vec<WrittenFile>> {
    use arrow::array::AsArray;
    use arrow::datatypes::UInt64Type;
    let paths = batch.column_by_name("path")?.as_string_opt::<i32>()?;
    let rows = batch.column_by_name("rows")?.as_primitive_opt::<UInt64Type>()?;
    let bytes = batch.column_by_name("bytes")?.as_primitive_opt::<UInt64Type>()?;
    let files = paths.iter().zip(rows.values()).zip(bytes.values());
    files.map(|((path, &rows), &bytes)| Some(WrittenFile { path: path?.to_owned(), rows, bytes })).collect()
}
