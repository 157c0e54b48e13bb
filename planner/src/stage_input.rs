//! The one leaf of ours in a serialized plan: it stands for the output of another stage. It reads through a [`StageInputSource`],
//! which the executor puts into the task's session configuration, so that no reader is ever serialized. Next: `codec.rs`.
//!
//! ```text
//! producer: 3 partitions, hash exchange of 4 segments        consumer: StageInputExec
//!   p0  [s0 s1 s2 s3]                                          Partitioned, 4 partitions: partition 2 reads s2 of p0, p1, p2
//!   p1  [s0 s1 s2 s3]
//!   p2  [s0 s1 s2 s3]
//!
//! producer: 3 partitions, one segment each
//!   p0 [s0]   p1 [s0]   p2 [s0]                                Whole, 3 partitions: partition 2 reads s0 of p2, in its order
//! ```
//!
//! A partitioned input claims no order, because rows of several producers arrive side by side. A whole input keeps each producer
//! partition's order, so that the operator that merges them stays DataFusion's own.

use std::fmt::{self, Debug, Formatter};
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, internal_datafusion_err, internal_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, StatisticsArgs, apply_expression_roots,
};
use futures::StreamExt;

use crate::equivalence::Equivalence;

/// Which part of a stage input one partition of the leaf reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputPart {
    /// This segment of every producer partition.
    Segment(u32),
    /// Segment 0 of this producer partition.
    Producer(u32),
}

/// Opens stage inputs for one attempt. Implemented by `executor/src/shuffle/read.rs`.
pub trait StageInputSource: Debug + Send + Sync {
    /// The rows of `part` of the stage's input number `input`. Rows of one producer partition keep their order.
    ///
    /// # Errors
    /// `DataFusionError::External` holding a `windrow_core::Failed`; the stream's errors are of the same form.
    fn open(&self, input: u32, part: InputPart, schema: SchemaRef) -> Result<SendableRecordBatchStream>;
}

/// The extension of a task's `SessionConfig` that carries its source.
#[derive(Debug, Clone)]
pub struct StageInputs(pub Arc<dyn StageInputSource>);

/// How a stage input is read.
#[derive(Debug, Clone)]
pub enum LeafRead {
    /// Partition `i` reads segment `i` of every producer partition of a hash exchange by these keys, over the leaf's schema.
    Partitioned {
        /// The exchange's keys; an exchange without keys has none.
        keys: Vec<Arc<dyn PhysicalExpr>>,
    },
    /// Partition `i` reads segment 0 of producer partition `i`, in its order.
    Whole,
}

/// The output of another stage as a leaf of this one. Holds a range of its partitions, so that it can be narrowed.
#[derive(Debug, Clone)]
pub struct StageInputExec {
    input: u32,
    read: LeafRead,
    total: u32,
    range: Range<u32>,
    equivalence: Equivalence,
    statistics: Option<Arc<Statistics>>,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

impl StageInputExec {
    /// The stage's input number `input`, read segment by segment: `count` partitions, hash partitioned by `keys`, in no order.
    /// Keeps what holds of `producer`'s rows wherever they are.
    ///
    /// # Errors
    /// `Internal` if `count` is zero or what is known of the producer contradicts itself.
    pub fn partitioned(
        input: u32,
        producer: &Arc<dyn ExecutionPlan>,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        count: u32,
    ) -> Result<Self> {
        let equivalence = Equivalence::of_rows(producer.equivalence_properties());
        Self::try_new(input, LeafRead::Partitioned { keys }, producer.schema(), count, equivalence)
    }

    /// The stage's input number `input`, read producer partition by producer partition, each in the producer's order.
    ///
    /// # Errors
    /// `Internal` if the producer has no partition or what is known of it contradicts itself.
    pub fn whole(input: u32, producer: &Arc<dyn ExecutionPlan>) -> Result<Self> {
        let count = u32::try_from(producer.output_partitioning().partition_count())
            .map_err(|error| internal_datafusion_err!("a stage with too many partitions: {error}"))?;
        let equivalence = Equivalence::of_partitions(producer.equivalence_properties());
        Self::try_new(input, LeafRead::Whole, producer.schema(), count, equivalence)
    }

    /// A leaf from its parts; [`Self::partitioned`] and [`Self::whole`] derive them from the producer.
    ///
    /// # Errors
    /// `Internal` if `count` is zero or the equivalences contradict each other.
    pub(crate) fn try_new(input: u32, read: LeafRead, schema: SchemaRef, count: u32, equivalence: Equivalence) -> Result<Self> {
        if count == 0 {
            return internal_err!("stage input {input} has no partitions");
        }
        let properties = Arc::new(properties(equivalence.to_properties(schema)?, &read, count));
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { input, read, total: count, range: 0..count, equivalence, statistics: None, metrics, properties })
    }

    /// The same leaf with what is known of the producer's rows and bytes; column statistics are not kept.
    #[must_use]
    pub fn with_size(mut self, rows: Precision<usize>, bytes: Precision<usize>) -> Self {
        let unknown = Statistics::new_unknown(&self.schema());
        self.statistics = Some(Arc::new(unknown.with_num_rows(rows).with_total_byte_size(bytes)));
        self
    }

    /// The same leaf with only these of its partitions.
    ///
    /// # Errors
    /// `Internal` if the range is empty or not one of this leaf.
    pub fn narrowed(&self, range: Range<u32>) -> Result<Self> {
        let held = self.range.end - self.range.start;
        if range.start >= range.end || range.end > held {
            return internal_err!("stage input {} with {held} partitions narrowed to {range:?}", self.input);
        }
        let range = self.range.start + range.start..self.range.start + range.end;
        let eq = self.properties.equivalence_properties().clone();
        let properties = Arc::new(properties(eq, &self.read, range.end - range.start));
        let statistics = None; // of all partitions: they say nothing about these
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { range, properties, statistics, metrics, ..self.clone() })
    }

    /// The same leaf for another input of the stage.
    #[must_use]
    pub(crate) fn with_input(&self, input: u32) -> Self {
        Self { input, metrics: ExecutionPlanMetricsSet::new(), ..self.clone() }
    }

    /// The index of the stage's input.
    #[must_use]
    pub fn input(&self) -> u32 {
        self.input
    }

    /// How it is read.
    #[must_use]
    pub fn read(&self) -> &LeafRead {
        &self.read
    }

    /// How many partitions the input has before narrowing: the exchange's count, or the producer's partitions.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }

    pub(crate) fn range(&self) -> &Range<u32> {
        &self.range
    }

    pub(crate) fn equivalence(&self) -> &Equivalence {
        &self.equivalence
    }

    pub(crate) fn statistics(&self) -> Option<&Arc<Statistics>> {
        self.statistics.as_ref()
    }

    fn part(&self, partition: usize) -> Result<InputPart> {
        let index = u32::try_from(partition).ok().and_then(|partition| self.range.start.checked_add(partition));
        match (index.filter(|index| self.range.contains(index)), &self.read) {
            (Some(index), LeafRead::Partitioned { .. }) => Ok(InputPart::Segment(index)),
            (Some(index), LeafRead::Whole) => Ok(InputPart::Producer(index)),
            (None, _) => internal_err!("stage input {} has no partition {partition}", self.input),
        }
    }
}

fn properties(equivalence: EquivalenceProperties, read: &LeafRead, count: u32) -> PlanProperties {
    let partitioning = match read {
        LeafRead::Partitioned { keys } if !keys.is_empty() => Partitioning::Hash(keys.clone(), count as usize),
        LeafRead::Partitioned { .. } | LeafRead::Whole => Partitioning::UnknownPartitioning(count as usize),
    };
    PlanProperties::new(equivalence, partitioning, EmissionType::Incremental, Boundedness::Bounded)
        .with_scheduling_type(SchedulingType::Cooperative)
}

impl DisplayAs for StageInputExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "StageInputExec: input={}, partitions=", self.input)?;
        if self.range == (0..self.total) {
            write!(f, "{}", self.total)?;
        } else {
            write!(f, "{}..{} of {}", self.range.start, self.range.end, self.total)?;
        }
        match &self.read {
            LeafRead::Partitioned { keys } => {
                let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
                write!(f, ", read=hash[{}]", keys.join(", "))
            }
            LeafRead::Whole => match self.properties.output_ordering() {
                Some(ordering) => write!(f, ", read=whole, ordering=[{ordering}]"),
                None => write!(f, ", read=whole"),
            },
        }
    }
}

impl ExecutionPlan for StageInputExec {
    fn name(&self) -> &'static str {
        "StageInputExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        match &self.read {
            LeafRead::Partitioned { keys } => apply_expression_roots(keys, f),
            LeafRead::Whole => Ok(TreeNodeRecursion::Continue),
        }
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("StageInputExec is a leaf") }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("StageInputExec is a leaf") }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let part = self.part(partition)?;
        let Some(source) = context.session_config().get_extension::<StageInputs>() else {
            return internal_err!("a task without a source for its stage inputs");
        };
        let stream = source.0.open(self.input, part, self.schema())?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let counted = stream.inspect(move |batch| {
            if let Ok(batch) = batch {
                metrics.record_output(batch.num_rows());
            }
        });
        Ok(make_cooperative(Box::pin(RecordBatchStreamAdapter::new(self.schema(), counted))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        match (&self.statistics, args.partition()) {
            (Some(statistics), None) => Ok(Arc::clone(statistics)),
            _ => Ok(Arc::new(Statistics::new_unknown(&self.schema()))),
        }
    }
}
