//! The operator that has a Python function called, by workers that it finds through the task's session configuration. Next:
//! `executor/src/python.rs`.
//!
//! ```text
//! input -> batches of batch_size rows -> a call each, several at a time -> results, in the order of the input
//! ```
//!
//! A call runs to its end whether or not somebody asks for its result: who waits for a worker never waits for one that a stream keeps
//! which nobody reads.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{BatchCoalescer, cast};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Statistics, internal_datafusion_err, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, Partitioning, PhysicalExpr,
};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputDistributionRequirements, PlanProperties,
    StatisticsArgs, apply_expression_roots,
};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use windrow_core::Failed;

use super::function::plain_schema;
use super::node::with_column;
use super::{PythonFunction, PythonStyle};

/// Calls Python functions for the attempts of one executor. Implemented by `executor/src/python.rs`.
pub trait PythonRunner: Debug + Send + Sync {
    /// How many calls of `function` run at a time.
    fn concurrency(&self, function: &PythonFunction) -> usize;

    /// What `function` makes of `rows`, the first of which is the partition's row `first`. Dropping the future ends the call, and with it
    /// the worker that it runs in.
    fn call(
        &self,
        function: Arc<PythonFunction>,
        rows: RecordBatch,
        first: u64,
    ) -> BoxFuture<'static, Result<Vec<RecordBatch>, Failed>>;
}

/// The extension of a task's `SessionConfig` that carries its runner.
#[derive(Debug, Clone)]
pub struct PythonRunners(pub Arc<dyn PythonRunner>);

/// Calls a Python function for each batch.
#[derive(Debug, Clone)]
pub(crate) struct PythonMapExec {
    input: Arc<dyn ExecutionPlan>,
    parts: Arc<Parts>,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

/// What calls need to know.
#[derive(Debug)]
struct Parts {
    function: Arc<PythonFunction>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    output: String,
    /// The order of rows that a function of rows is given, where the query says one; then all of them are in one partition.
    order: Option<LexOrdering>,
    /// What a worker is given.
    given: SchemaRef,
    schema: SchemaRef,
}

impl PythonMapExec {
    /// The rows that a function makes, or those of `input` with the column `output` that it makes of `arguments`.
    pub(crate) fn try_new(
        input: Arc<dyn ExecutionPlan>,
        function: Arc<PythonFunction>,
        arguments: Vec<Arc<dyn PhysicalExpr>>,
        output: String,
        order: Option<LexOrdering>,
    ) -> Result<Self> {
        let columns = input.schema();
        let (schema, given) = if function.style == PythonStyle::Batches {
            (Arc::clone(&function.schema), plain_schema(&columns))
        } else {
            let given = arguments.iter().enumerate().map(|(index, argument)| {
                Ok(argument.return_field(&columns)?.as_ref().clone().with_name(format!("argument_{index}")))
            });
            let given = Schema::new(given.collect::<Result<Vec<Field>>>()?);
            let value = function.value()?.as_ref().clone().with_name(&output);
            (Arc::new(with_column(&columns, value)), plain_schema(&Arc::new(given)))
        };
        let properties = Arc::new(properties(&input, &function, &schema)?);
        let parts = Arc::new(Parts { function, arguments, output, order, given, schema });
        Ok(Self { input, parts, metrics: ExecutionPlanMetricsSet::new(), properties })
    }

    pub(crate) fn function(&self) -> &Arc<PythonFunction> {
        &self.parts.function
    }

    pub(crate) fn arguments(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.parts.arguments
    }

    pub(crate) fn output(&self) -> &str {
        &self.parts.output
    }
}

/// The order that a query says for its rows, as a plan has it that is not optimized yet: there, a sort makes one partition.
pub(super) fn order_of(input: &Arc<dyn ExecutionPlan>) -> Result<Option<LexOrdering>> {
    let is_sorted = input.output_partitioning().partition_count() == 1 && input.exists(|node| Ok(node.is::<SortExec>()))?;
    Ok(input.output_ordering().filter(|_order| is_sorted).cloned())
}

/// Rows stay where they are and in their order; where they stay what they are, too, that is known.
fn properties(input: &Arc<dyn ExecutionPlan>, function: &PythonFunction, schema: &SchemaRef) -> Result<PlanProperties> {
    let partitions = input.output_partitioning().partition_count();
    let (equivalence, partitioning) = if function.style == PythonStyle::Batches {
        (EquivalenceProperties::new(Arc::clone(schema)), Partitioning::UnknownPartitioning(partitions))
    } else {
        // Its columns are the first ones, so that expressions over them mean the same.
        let orderings = input.equivalence_properties().oeq_class().iter().cloned();
        (
            EquivalenceProperties::new_with_orderings(Arc::clone(schema), orderings.collect::<Vec<_>>()),
            input.output_partitioning().clone(),
        )
    };
    Ok(PlanProperties::new(equivalence, partitioning, EmissionType::Incremental, input.boundedness()))
}

/// A batch of a partition and where it begins.
struct Chunk {
    rows: RecordBatch,
    first: u64,
}

/// The rows of `input` as batches of `size` rows, but for the last.
fn regroup(input: SendableRecordBatchStream, size: usize) -> impl Stream<Item = Result<Chunk>> + Send {
    struct Groups {
        input: SendableRecordBatchStream,
        /// Without columns, there is nothing to copy.
        held: Option<BatchCoalescer>,
        is_over: bool,
        first: u64,
    }
    let schema = input.schema();
    let held = (!schema.fields().is_empty()).then(|| BatchCoalescer::new(schema, size));
    let groups = Groups { input, held, is_over: false, first: 0 };
    stream::try_unfold(groups, |mut groups| async move {
        loop {
            let rows = match groups.held.as_mut().and_then(BatchCoalescer::next_completed_batch) {
                Some(rows) => rows,
                None if groups.is_over => return Ok(None),
                None => match (groups.input.try_next().await?, groups.held.as_mut()) {
                    (Some(rows), None) => rows,
                    (None, None) => return Ok(None),
                    (Some(rows), Some(held)) => {
                        held.push_batch(rows)?;
                        continue;
                    }
                    (None, Some(held)) => {
                        held.finish_buffered_batch()?;
                        groups.is_over = true;
                        continue;
                    }
                },
            };
            if rows.num_rows() > 0 {
                let first = groups.first;
                groups.first += rows.num_rows() as u64;
                return Ok(Some((Chunk { rows, first }, groups)));
            }
        }
    })
}

impl Parts {
    /// What a worker is given of these rows.
    fn given(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = if self.function.style == PythonStyle::Batches {
            rows.columns().to_vec()
        } else {
            let count = rows.num_rows();
            self.arguments.iter().map(|argument| argument.evaluate(rows)?.into_array(count)).collect::<Result<_>>()?
        };
        let columns = columns.iter().zip(self.given.fields()).map(|(column, field)| as_type(column, field));
        batch(&self.given, columns.collect::<Result<_>>()?, rows.num_rows())
    }

    /// The rows that come of what a worker gave for `rows`.
    fn results(&self, rows: &RecordBatch, given: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        if self.function.style == PythonStyle::Batches {
            let given = given.into_iter().filter(|batch| batch.num_rows() > 0);
            return given.map(|given| self.typed(&self.schema, &given, Vec::new())).collect();
        }
        match given.as_slice() {
            [values] if values.num_rows() == rows.num_rows() => {
                self.typed(&self.schema, values, rows.columns().to_vec()).map(|rows| vec![rows])
            }
            given => {
                let count: usize = given.iter().map(RecordBatch::num_rows).sum();
                internal_err!("'{}' gave {count} values for {} rows", self.function.name, rows.num_rows())
            }
        }
    }

    /// A batch of `before` and the columns of `given`.
    fn typed(&self, schema: &SchemaRef, given: &RecordBatch, before: Vec<ArrayRef>) -> Result<RecordBatch> {
        let fields = schema.fields().iter().skip(before.len());
        let made = given.columns().iter().zip(fields).map(|(column, field)| as_type(column, field));
        let made = made.collect::<Result<Vec<_>>>()?;
        let columns: Vec<ArrayRef> = before.into_iter().chain(made).collect();
        if columns.len() != schema.fields().len() {
            return internal_err!("'{}' gave {} columns", self.function.name, given.num_columns());
        }
        batch(schema, columns, given.num_rows())
    }

    async fn call(self: Arc<Self>, chunk: Chunk, runners: Arc<PythonRunners>, held: MemoryReservation) -> Result<Called> {
        held.try_grow(chunk.rows.get_array_memory_size())?;
        let given = self.given(&chunk.rows)?;
        let function = Arc::clone(&self.function);
        let made =
            runners.0.call(function, given, chunk.first).await.map_err(|failed| DataFusionError::External(Box::new(failed)))?;
        let rows = self.results(&chunk.rows, made)?;
        held.try_resize(rows.iter().map(RecordBatch::get_array_memory_size).sum())?;
        Ok(Called { rows, held })
    }
}

/// Rows that somebody is to be given, and the memory that they take until then.
struct Called {
    rows: Vec<RecordBatch>,
    held: MemoryReservation,
}

impl Called {
    fn into_stream(self) -> impl Stream<Item = Result<RecordBatch>> + Send {
        let Self { rows, held } = self;
        // Held until the last one is taken.
        stream::iter(rows).map(move |batch| {
            let _held = &held;
            Ok(batch)
        })
    }
}

fn as_type(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { Ok(cast(column, field.data_type())?) }
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

impl DisplayAs for PythonMapExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        let Parts { function, arguments, output, .. } = self.parts.as_ref();
        write!(f, "PythonMapExec: {}", function.name)?;
        if function.style != PythonStyle::Batches {
            let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
            write!(f, "({}) AS {output}", arguments.join(", "))?;
        }
        write!(f, ", batch_size={}", function.batch_size)?;
        if let Some(workers) = function.concurrency {
            write!(f, ", concurrency={workers}")?;
        }
        if let Some(bytes) = function.memory {
            write!(f, ", memory={bytes}")?;
        }
        if function.deterministic { Ok(()) } else { write!(f, ", deterministic=false") }
    }
}

impl ExecutionPlan for PythonMapExec {
    fn name(&self) -> &'static str {
        "PythonMapExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let is_ordered = self.parts.order.is_some();
        let rows = if is_ordered { Distribution::SinglePartition } else { Distribution::UnspecifiedDistribution };
        InputDistributionRequirements::new(vec![rows])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.parts.order.clone().map(OrderingRequirements::from)]
    }

    /// Optimizers take an order that is kept for one of the same columns, and those of a function of rows are its own.
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![self.parts.function.style != PythonStyle::Batches]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(&self.parts.arguments, f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 1]>::try_from(children) {
            Ok([input]) => {
                let Parts { function, arguments, output, order, .. } = self.parts.as_ref();
                let (function, arguments) = (Arc::clone(function), arguments.clone());
                Ok(Arc::new(Self::try_new(input, function, arguments, output.clone(), order.clone())?))
            }
            Err(_) => internal_err!("PythonMapExec has one child"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(runners) = context.session_config().get_extension::<PythonRunners>() else {
            return internal_err!("a task without workers for its Python functions");
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let consumer = MemoryConsumer::new(format!("PythonMapExec[{partition}]"));
        let memory = consumer.register(context.memory_pool());
        let input = self.input.execute(partition, context)?;
        let parts = Arc::clone(&self.parts);
        // One more than run at a time, so that no worker waits for rows.
        let ahead = runners.0.concurrency(&parts.function) + 1;
        let size = usize::try_from(parts.function.batch_size).unwrap_or(usize::MAX);
        let calls = regroup(input, size).map_ok(move |chunk| {
            let call = Arc::clone(&parts).call(chunk, Arc::clone(&runners), memory.new_empty());
            let call = SpawnedTask::spawn(call);
            async move { call.await.map_err(|ended| internal_datafusion_err!("a call of a Python function ended: {ended}"))? }
        });
        let rows = calls.try_buffered(ahead).map_ok(Called::into_stream).try_flatten().inspect_ok(move |batch| {
            metrics.record_output(batch.num_rows());
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.parts.schema), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.parts.schema)))
    }
}
