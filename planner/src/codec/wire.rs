//! What the codec adds to DataFusion's encoding, as plain data: the template, our nodes, and how the parts of a node that have no
//! DataFusion type are written. Next: `encode.rs`, `decode.rs`.

use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use datafusion::common::stats::Precision;
use datafusion::common::{Constraint, Constraints, DataFusionError, ScalarValue, internal_datafusion_err};
use datafusion::error::Result;
use datafusion_proto::protobuf;
use prost::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::runtime_filter::apply::FilterUse;
use crate::scan::Scan;
use crate::write::WriteSpec;

/// A stage's plan. Nodes are flat, children before their parents, so that no message nests deeper than one node's expressions:
/// protobuf stops at 100 levels, which is about 45 operators.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Template {
    /// The plan's partition count.
    pub(crate) partitions: u32,
    /// The schema of its rows.
    pub(crate) schema: Bytes,
    /// The root is the last one.
    pub(crate) nodes: Vec<Node>,
    /// The keys of the stage's hash exchange, over the schema.
    pub(crate) hash_keys: Vec<Bytes>,
}

/// One operator: DataFusion's encoding, with an [`OurNode::Child`] for each of its children.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    /// A `PhysicalPlanNode`.
    pub(crate) proto: Bytes,
    /// What that encoding loses.
    pub(crate) lost: Lost,
    /// Decoded when its parent asks for it, because a scalar subquery above it puts values in its scope.
    pub(crate) scoped: bool,
}

/// What DataFusion's encoding of an operator loses, put back after decoding.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Lost {
    /// Nothing.
    Nothing,
    /// Files and options of a scan.
    Scan(Box<Scan>),
    /// A fetch beyond 32 bits.
    Fetch(u64),
    /// The skip and fetch of a global limit, beyond 32 bits.
    Limit(u64, Option<u64>),
    /// That there are no partitions at all.
    NoPartitions,
    /// That a series shows no column, and its orders.
    Series { projected_away: bool, orderings: Vec<Vec<SortKey>> },
}

/// The payload of an extension node of ours.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum OurNode {
    /// The template's node of this index.
    Child(u32),
    /// A `StageInputExec`.
    Input(Box<Input>),
    /// A `RecursiveQueryExec`; its terms are the node's inputs.
    Recursive { name: String, schema: Bytes, is_distinct: bool },
    /// A `RuntimeFilterBuildExec` by these keys of its input's rows, if they are not too many.
    FilterBuild { keys: Vec<Bytes>, keys_max: u64 },
    /// A `RuntimeFilterExec`; its inputs are the filter and the rows, whose keys these are.
    Filter { keys: Vec<Bytes>, how: FilterUse },
    /// A `WriteExec` of the partitions from `first` on; its input is the rows.
    Write { spec: Box<WriteSpec>, first: u32 },
    /// A `PythonMapExec`; its input is the rows that the arguments are over.
    Python { function: Bytes, arguments: Vec<Bytes>, output: String },
    /// A `WorkTableExec`.
    WorkTable { name: String, schema: Bytes, projection: Option<Vec<u32>> },
}

/// A `StageInputExec`; expressions are over its schema.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Input {
    pub(crate) input: u32,
    pub(crate) schema: Bytes,
    pub(crate) total: u32,
    pub(crate) range: (u32, u32),
    /// The keys, if it is read by segment.
    pub(crate) keys: Option<Vec<Bytes>>,
    pub(crate) orderings: Vec<Vec<SortKey>>,
    pub(crate) classes: Vec<Vec<Bytes>>,
    pub(crate) constants: Vec<(Bytes, Across)>,
    /// Primary keys (true) and unique keys.
    pub(crate) constraints: Vec<(bool, Vec<u64>)>,
    /// Rows and bytes, if anything is known.
    pub(crate) size: Option<(Known, Known)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SortKey {
    pub(crate) expr: Bytes,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Across {
    Heterogeneous,
    Uniform(Option<Bytes>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Known {
    Exact(u64),
    Inexact(u64),
    Absent,
}

/// The payload of an extension expression of ours. Fields are schemas of one field.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum OurExpr {
    /// The value of a scalar input, of this type and nullability.
    Scalar { input: u32, field: Bytes },
    /// A cast of the expression's input to this field. DataFusion encodes the type alone and forgets nullability and metadata, which
    /// unions and recursive queries rely on.
    Cast { field: Bytes, safe: bool },
}

pub(crate) fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|error| DataFusionError::External(Box::new(error)))
}

pub(crate) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|error| internal_datafusion_err!("an encoded plan that is none: {error}"))
}

pub(crate) fn decode_message<M: Message + Default>(bytes: &[u8]) -> Result<M> {
    M::decode(bytes).map_err(|error| internal_datafusion_err!("an encoded plan that is none: {error}"))
}

pub(crate) fn schema_to_bytes(schema: &Schema) -> Result<Bytes> {
    let schema: protobuf::Schema = schema.try_into()?;
    Ok(schema.encode_to_vec().into())
}

pub(crate) fn schema_from_bytes(bytes: &[u8]) -> Result<SchemaRef> {
    let schema: Schema = (&decode_message::<protobuf::Schema>(bytes)?).try_into()?;
    Ok(schema.into())
}

pub(crate) fn scalar_to_bytes(value: &ScalarValue) -> Result<Bytes> {
    let value: protobuf::ScalarValue = value.try_into()?;
    Ok(value.encode_to_vec().into())
}

pub(crate) fn scalar_from_bytes(bytes: &[u8]) -> Result<ScalarValue> {
    Ok((&decode_message::<protobuf::ScalarValue>(bytes)?).try_into()?)
}

impl From<Precision<usize>> for Known {
    fn from(precision: Precision<usize>) -> Self {
        match precision {
            Precision::Exact(value) => Self::Exact(value as u64),
            Precision::Inexact(value) => Self::Inexact(value as u64),
            Precision::Absent => Self::Absent,
        }
    }
}

impl From<Known> for Precision<usize> {
    fn from(known: Known) -> Self {
        let known = match known {
            Known::Exact(value) => usize::try_from(value).ok().map(Self::Exact),
            Known::Inexact(value) => usize::try_from(value).ok().map(Self::Inexact),
            Known::Absent => None,
        };
        known.unwrap_or(Self::Absent)
    }
}

pub(crate) fn constraints_to_wire(constraints: &Constraints) -> Vec<(bool, Vec<u64>)> {
    let indices = |indices: &[usize]| indices.iter().map(|index| *index as u64).collect();
    let wire = constraints.iter().map(|constraint| match constraint {
        Constraint::PrimaryKey(columns) => (true, indices(columns)),
        Constraint::Unique(columns) => (false, indices(columns)),
    });
    wire.collect()
}

pub(crate) fn constraints_from_wire(wire: Vec<(bool, Vec<u64>)>) -> Constraints {
    let constraints = wire.into_iter().map(|(primary, columns)| {
        let columns = columns.into_iter().map(|column| column as usize).collect();
        if primary { Constraint::PrimaryKey(columns) } else { Constraint::Unique(columns) }
    });
    Constraints::new_unverified(constraints.collect())
}
