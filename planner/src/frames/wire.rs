//! Frames as bytes, for a scheduler of the same version. Called by `../session/frames.rs`.
//!
//! The steps of a plan are flat, each beside those that it reads: a message of protobuf may nest 100 levels, which is about 45 steps. What
//! comes from a client is bytes: their number and depth are bounded here, what they say is checked by `size.rs` as in a plan that never
//! left its process, and a panic over them is an error (`../session/frames.rs`).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, new_empty_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchemaRef, ScalarValue, TableReference};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{AggregateUDF, Expr, Extension, LogicalPlan, ScalarUDF, UserDefinedLogicalNodeCore};
use datafusion_proto::logical_plan::{AsLogicalPlan, LogicalExtensionCodec};
use datafusion_proto::protobuf::LogicalPlanNode;
use prost::Message;
use serde::{Deserialize, Serialize};
use windrow_core::{Error, ErrorKind};

use super::size::STEPS_MAX;
use super::{FileFormatOptions, Frames, ReadFiles, Stub, StubTable};
use crate::codec::wire::{scalar_from_bytes, scalar_to_bytes, schema_from_bytes, schema_to_bytes};
use crate::diagnose::ours;
use crate::python::{self, PythonFunction, PythonMap, PythonStyle};

/// Queries over frames over queries: as many as the views that a scope takes in each other.
const QUERIES_MAX: u32 = 32;

/// One frame.
#[derive(Debug, Serialize, Deserialize)]
struct WireFrame {
    name: String,
    /// Its steps, each after those that it reads; the last one is the frame.
    steps: Vec<Bytes>,
}

/// What a step reads that is no step.
#[derive(Debug, Serialize, Deserialize)]
enum WireStub {
    Table(String),
    Query {
        text: String,
        frames: Vec<WireFrame>,
    },
    Files(Box<WireFiles>),
    /// A list of values for each column.
    Rows {
        count: u64,
        columns: Vec<Vec<Bytes>>,
    },
}

/// A step that is none of DataFusion's.
#[derive(Debug, Serialize, Deserialize)]
enum WireStep {
    /// The input of another, by its number.
    Step(u32),
    /// A Python function over rows.
    Python(Bytes),
}

#[derive(Debug, Serialize, Deserialize)]
struct WireFiles {
    format: FileFormatOptions,
    paths: Vec<String>,
    schema: Option<Bytes>,
    /// A schema of the columns.
    hive_partitions: Bytes,
    extension: Option<String>,
    options: Vec<(String, String)>,
}

/// Frames as bytes.
///
/// # Errors
/// `Unsupported` for what cannot be sent.
pub fn frames_to_bytes(frames: &Frames) -> windrow_core::Result<Bytes> {
    let encoded = encode(frames, 0).and_then(|frames| to_bytes(&frames));
    encoded.map(Bytes::from).map_err(|error| {
        let what = super::plan_error(error);
        Error::unsupported(format!("the frame cannot be sent to a scheduler: {}", what.message)).with_source(what)
    })
}

/// The frames of [`frames_to_bytes`].
///
/// # Errors
/// `InvalidQuery` for bytes that are none.
pub(crate) fn frames_from_bytes(bytes: &[u8], context: &TaskContext) -> Result<Frames> {
    decode(from_bytes(bytes)?, context, 0).map_err(|error| match error {
        // What DataFusion takes for a mistake of its own is one of whoever made the bytes.
        DataFusionError::Internal(_) => none(),
        error => error,
    })
}

fn encode(frames: &Frames, depth: u32) -> Result<Vec<WireFrame>> {
    check_depth(depth)?;
    frames.iter().map(|(name, plan)| Ok(WireFrame { name: name.to_owned(), steps: steps(plan, depth)? })).collect()
}

/// Without recursion: whoever made the plan may have a small stack.
fn steps(plan: &LogicalPlan, depth: u32) -> Result<Vec<Bytes>> {
    // A parent is before its children.
    let mut nodes = vec![(plan, Vec::new())];
    let mut at = 0;
    while let Some((node, _)) = nodes.get(at) {
        let inputs = node.inputs();
        let first = nodes.len();
        let places = first..first + inputs.len();
        nodes.extend(inputs.into_iter().map(|input| (input, Vec::new())));
        if let Some((_, children)) = nodes.get_mut(at) {
            children.extend(places);
        }
        at += 1;
        if nodes.len() > STEPS_MAX {
            return Err(too_much());
        }
    }
    let count = nodes.len();
    let codec = Codec { steps: Vec::new(), depth };
    nodes.iter().rev().map(|(node, children)| step(node, children, count, &codec)).collect()
}

/// One step, whose inputs are named by their numbers.
fn step(node: &LogicalPlan, children: &[usize], count: usize, codec: &Codec) -> Result<Bytes> {
    let mut children = children.iter();
    let alone = node.clone().map_children(|child| {
        let place = children.next().ok_or_else(|| ours(Error::internal("a step with more inputs than it has")))?;
        // Steps are counted from the last.
        let index = count - 1 - place;
        Ok(Transformed::yes(Step { index, plan: Arc::new(child) }.into_plan()))
    })?;
    Ok(LogicalPlanNode::try_from_logical_plan(&alone.data, codec)?.encode_to_vec().into())
}

fn decode(frames: Vec<WireFrame>, context: &TaskContext, depth: u32) -> Result<Frames> {
    check_depth(depth)?;
    let mut decoded = Vec::with_capacity(frames.len().min(STEPS_MAX));
    for frame in frames {
        if frame.steps.len() > STEPS_MAX {
            return Err(too_much());
        }
        let mut codec = Codec { steps: Vec::new(), depth };
        for bytes in &frame.steps {
            let node = LogicalPlanNode::decode(bytes.as_ref()).map_err(|_why| none())?;
            let plan = node.try_into_logical_plan(context, &codec)?;
            let whole = plan.map_children(|child| Ok(Step::unwrap(child)))?;
            codec.steps.push(Some(Arc::new(whole.data)));
        }
        let plan = codec.steps.pop().flatten().ok_or_else(none)?;
        decoded.push((frame.name, Arc::unwrap_or_clone(plan)));
    }
    Ok(decoded.into_iter().collect())
}

fn check_depth(depth: u32) -> Result<()> {
    if depth <= QUERIES_MAX {
        return Ok(());
    }
    let what = format!("queries over frames are nested more than {QUERIES_MAX} deep");
    Err(ours(Error::new(ErrorKind::InvalidQuery, what)))
}

fn too_much() -> DataFusionError {
    ours(Error::new(ErrorKind::InvalidQuery, format!("the frame has more than {STEPS_MAX} steps")))
}

fn none() -> DataFusionError {
    ours(Error::new(ErrorKind::InvalidQuery, "the bytes are no frames"))
}

fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|error| DataFusionError::External(Box::new(error)))
}

fn from_bytes<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|_why| none())
}

/// The input of a step, in its encoding.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Step {
    index: usize,
    plan: Arc<LogicalPlan>,
}

impl Step {
    fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// What an input stands for.
    fn unwrap(plan: LogicalPlan) -> Transformed<LogicalPlan> {
        let step = match &plan {
            LogicalPlan::Extension(extension) => {
                extension.node.as_any().downcast_ref::<Self>().map(|step| Arc::clone(&step.plan))
            }
            _ => None,
        };
        match step {
            Some(step) => Transformed::yes(Arc::unwrap_or_clone(step)),
            None => Transformed::no(plan),
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("index", &self.index).finish_non_exhaustive()
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.index.partial_cmp(&other.index)
    }
}

impl UserDefinedLogicalNodeCore for Step {
    fn name(&self) -> &str {
        "Step"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        self.plan.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Step: {}", self.index)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, _inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(self.clone())
    }
}

/// What DataFusion leaves to us: the inputs of steps, and stubs.
#[derive(Debug)]
struct Codec {
    /// Those that were decoded.
    steps: Vec<Option<Arc<LogicalPlan>>>,
    depth: u32,
}

impl LogicalExtensionCodec for Codec {
    fn try_decode(&self, bytes: &[u8], inputs: &[LogicalPlan], _context: &TaskContext) -> Result<Extension> {
        let index = match from_bytes(bytes)? {
            WireStep::Step(index) => usize::try_from(index).map_err(|_why| none())?,
            WireStep::Python(function) => return python_step(&function, inputs),
        };
        let plan = self.steps.get(index).and_then(Option::as_ref).ok_or_else(none)?;
        Ok(Extension { node: Arc::new(Step { index, plan: Arc::clone(plan) }) })
    }

    fn try_encode(&self, node: &Extension, bytes: &mut Vec<u8>) -> Result<()> {
        if let Some(map) = node.node.as_any().downcast_ref::<PythonMap>() {
            bytes.extend(to_bytes(&WireStep::Python(map.function().to_bytes()?.into()))?);
            return Ok(());
        }
        let Some(step) = node.node.as_any().downcast_ref::<Step>() else {
            return Err(ours(Error::unsupported(format!("a step of the kind {} cannot be sent", node.node.name()))));
        };
        let index = u32::try_from(step.index).map_err(|_why| too_much())?;
        bytes.extend(to_bytes(&WireStep::Step(index))?);
        Ok(())
    }

    fn try_encode_udf(&self, node: &ScalarUDF, bytes: &mut Vec<u8>) -> Result<()> {
        if let Some(function) = python::function_of(node) {
            bytes.extend(function.to_bytes()?);
        }
        Ok(())
    }

    fn try_decode_udf(&self, _name: &str, bytes: &[u8]) -> Result<Arc<ScalarUDF>> {
        Ok(Arc::new(python::marker(Arc::new(PythonFunction::from_bytes(bytes)?))))
    }

    fn try_encode_udaf(&self, node: &AggregateUDF, bytes: &mut Vec<u8>) -> Result<()> {
        if let Some(function) = python::aggregate_of(node) {
            bytes.extend(function.to_bytes()?);
        }
        Ok(())
    }

    fn try_decode_udaf(&self, _name: &str, bytes: &[u8]) -> Result<Arc<AggregateUDF>> {
        Ok(Arc::new(python::marker_aggregate(Arc::new(PythonFunction::from_bytes(bytes)?))))
    }

    fn try_decode_table_provider(
        &self,
        bytes: &[u8],
        _name: &TableReference,
        schema: SchemaRef,
        context: &TaskContext,
    ) -> Result<Arc<dyn TableProvider>> {
        let stub = match from_bytes(bytes)? {
            WireStub::Table(name) => Stub::Table(name),
            WireStub::Query { text, frames } => Stub::Query { text, frames: decode(frames, context, self.depth + 1)? },
            WireStub::Files(files) => Stub::Files(files.decode()?),
            WireStub::Rows { count, columns } => Stub::Rows(vec![rows(count, &columns, &schema)?]),
        };
        Ok(Arc::new(StubTable::new(stub, schema)))
    }

    fn try_encode_table_provider(&self, name: &TableReference, table: Arc<dyn TableProvider>, bytes: &mut Vec<u8>) -> Result<()> {
        let Some(table) = table.downcast_ref::<StubTable>() else {
            return Err(ours(Error::unsupported(format!("the table '{name}' is this process's own"))));
        };
        let stub = match table.stub() {
            Stub::Table(name) => WireStub::Table(name.clone()),
            Stub::Query { text, frames } => WireStub::Query { text: text.clone(), frames: encode(frames, self.depth + 1)? },
            Stub::Files(files) => WireStub::Files(Box::new(WireFiles::of(files)?)),
            Stub::Rows(batches) => values(batches, table.columns().fields().len())?,
        };
        bytes.extend(to_bytes(&stub)?);
        Ok(())
    }
}

/// A step that calls a Python function over rows.
fn python_step(function: &[u8], inputs: &[LogicalPlan]) -> Result<Extension> {
    let function = PythonFunction::from_bytes(function)?;
    let ([input], PythonStyle::Batches) = (inputs, function.style) else { return Err(none()) };
    match PythonMap::batches(Arc::new(input.clone()), Arc::new(function))? {
        LogicalPlan::Extension(step) => Ok(step),
        _ => Err(none()),
    }
}

impl WireFiles {
    fn of(files: &ReadFiles) -> Result<Self> {
        let ReadFiles { format, paths, schema, hive_partitions, extension, options } = files.clone();
        let partitions: Vec<Field> =
            hive_partitions.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect();
        Ok(Self {
            format,
            paths,
            schema: schema.map(|schema| schema_to_bytes(&schema)).transpose()?,
            hive_partitions: schema_to_bytes(&Schema::new(partitions))?,
            extension,
            options,
        })
    }

    fn decode(self) -> Result<ReadFiles> {
        let Self { format, paths, schema, hive_partitions, extension, options } = self;
        let partitions = schema_from_bytes(&hive_partitions)?;
        let partitions: Vec<(String, DataType)> =
            partitions.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
        let schema = schema.map(|bytes| schema_from_bytes(&bytes)).transpose()?;
        Ok(ReadFiles { format, paths, schema, hive_partitions: partitions, extension, options })
    }
}

/// Rows value by value: the decoder of Arrow's own format believes the lengths that it reads.
fn values(batches: &[RecordBatch], columns: usize) -> Result<WireStub> {
    let mut values: Vec<Vec<Bytes>> = vec![Vec::new(); columns];
    let mut count = 0_u64;
    for batch in batches {
        count += batch.num_rows() as u64;
        for (values, column) in values.iter_mut().zip(batch.columns()) {
            for row in 0..batch.num_rows() {
                values.push(scalar_to_bytes(&ScalarValue::try_from_array(column, row)?)?);
            }
        }
    }
    Ok(WireStub::Rows { count, columns: values })
}

fn rows(count: u64, columns: &[Vec<Bytes>], schema: &SchemaRef) -> Result<RecordBatch> {
    let count = usize::try_from(count).map_err(|_why| none())?;
    if columns.len() != schema.fields().len() || columns.iter().any(|values| values.len() != count) {
        return Err(none());
    }
    let column = |(values, field): (&Vec<Bytes>, &Arc<Field>)| -> Result<ArrayRef> {
        if values.is_empty() {
            return Ok(new_empty_array(field.data_type()));
        }
        let values = values.iter().map(|value| scalar_from_bytes(value)).collect::<Result<Vec<_>>>()?;
        ScalarValue::iter_to_array(values)
    };
    let columns = columns.iter().zip(schema.fields()).map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|_why| none())
}
