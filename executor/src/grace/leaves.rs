//! The children that a join of ours gives to DataFusion's: streams that exist already, and a probe side that tells when it is first
//! read. Next: `split.rs`.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{internal_datafusion_err, internal_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use parking_lot::Mutex;

use super::build::Grant;

/// A stream of each partition, given before the partition is executed and taken then.
pub(super) struct StreamsExec {
    properties: Arc<PlanProperties>,
    streams: Vec<Mutex<Option<SendableRecordBatchStream>>>,
}

impl StreamsExec {
    pub(super) fn new(schema: SchemaRef, partitions: usize) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let streams = std::iter::repeat_with(Mutex::default).take(partitions).collect();
        Self { properties: Arc::new(properties), streams }
    }

    /// One partition with this stream.
    pub(super) fn of(stream: SendableRecordBatchStream) -> Arc<Self> {
        let exec = Self::new(stream.schema(), 1);
        exec.give(0, stream);
        Arc::new(exec)
    }

    pub(super) fn give(&self, partition: usize, stream: SendableRecordBatchStream) {
        if let Some(place) = self.streams.get(partition) {
            *place.lock() = Some(stream);
        }
    }
}

impl fmt::Debug for StreamsExec {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamsExec").field("partitions", &self.streams.len()).finish()
    }
}

impl DisplayAs for StreamsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "StreamsExec: partitions={}", self.streams.len())
    }
}

impl ExecutionPlan for StreamsExec {
    fn name(&self) -> &'static str {
        "StreamsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
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
        if children.is_empty() { Ok(self) } else { internal_err!("StreamsExec is a leaf") }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("StreamsExec is a leaf") }
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let stream = self.streams.get(partition).and_then(|place| place.lock().take());
        stream.ok_or_else(|| internal_datafusion_err!("partition {partition} was not given, or executed twice"))
    }
}

/// The probe side of a join, as it is; the grant for the build side ends when a row is first asked for.
#[derive(Debug)]
pub(super) struct ProbeExec {
    input: Arc<dyn ExecutionPlan>,
    /// One a partition, or one for all.
    grants: Arc<Vec<Mutex<Grant>>>,
}

impl ProbeExec {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, grants: Arc<Vec<Mutex<Grant>>>) -> Self {
        Self { input, grants }
    }
}

impl DisplayAs for ProbeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "ProbeExec")
    }
}

impl ExecutionPlan for ProbeExec {
    fn name(&self) -> &'static str {
        "ProbeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
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
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) if children.is_empty() => Ok(Arc::new(Self { input, grants: Arc::clone(&self.grants) })),
            _ => internal_err!("ProbeExec has one child"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context)?;
        let grant = self.grants.get(partition).or_else(|| self.grants.first()).map(|grant| grant.lock().clone());
        Ok(grant.unwrap_or_default().end_at(rows))
    }
}
