//! A Python function: its code, what it is given, what it gives, and what it may use. Next: `call.rs`.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use bytes::Bytes;
use datafusion::error::{DataFusionError, Result};
use serde::{Deserialize, Serialize};
use windrow_core::{Error, ErrorKind};

use crate::codec::wire::{schema_from_bytes, schema_to_bytes};
use crate::diagnose::ours;

/// Most rows that a function is given at a time: what Arrow counts in 31 bits, and a batch in memory.
const BATCH_ROWS_MAX: u32 = 16 << 20;
/// Most workers of one function on one executor.
const CONCURRENCY_MAX: u32 = 1024;

/// What a function is called with, and what it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PythonStyle {
    /// Rows, and rows: any number of them.
    Batches,
    /// A column for each argument, and one column of as many values.
    Values,
    /// All values of a group for each argument, and one value.
    Groups,
}

/// As what rows and columns are given to a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PythonFormat {
    /// Of pyarrow.
    Arrow,
    /// Of pandas.
    Pandas,
    /// Of polars.
    Polars,
    /// Arrays of NumPy, rows as a dictionary of them.
    Numpy,
}

/// A Python function and how it is run.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PythonFunction {
    /// What plans and errors call it.
    pub name: String,
    /// The function, or a class with its arguments, as the Python package pickled it. Opaque to everybody but Python workers.
    pub pickle: Bytes,
    /// What it is called with.
    pub style: PythonStyle,
    /// As what.
    pub format: PythonFormat,
    /// The columns of what it gives; one, unless it is given rows.
    pub schema: SchemaRef,
    /// Rows that it is given at a time.
    pub batch_size: u32,
    /// Workers that each executor runs it in; without it, as many as the executor has slots.
    pub concurrency: Option<u32>,
    /// Bytes that each worker may take for it.
    pub memory: Option<u64>,
    /// Whether the same rows give the same result each time.
    pub deterministic: bool,
    /// The version of Python that pickled it.
    pub python: String,
    /// The version of cloudpickle that did.
    pub cloudpickle: String,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    name: String,
    pickle: Bytes,
    style: PythonStyle,
    format: PythonFormat,
    schema: Bytes,
    batch_size: u32,
    concurrency: Option<u32>,
    memory: Option<u64>,
    deterministic: bool,
    python: String,
    cloudpickle: String,
}

impl PythonFunction {
    /// Checks what a client said of it.
    ///
    /// # Errors
    /// `InvalidQuery` for what cannot be.
    pub fn check(&self) -> windrow_core::Result<()> {
        let invalid = |what: String| Err(Error::new(ErrorKind::InvalidQuery, what));
        let Self { name, schema, .. } = self;
        if !(1..=BATCH_ROWS_MAX).contains(&self.batch_size) {
            return invalid(format!("batch_size = {} for '{name}' is not between 1 and {BATCH_ROWS_MAX}", self.batch_size));
        }
        if self.concurrency.is_some_and(|workers| !(1..=CONCURRENCY_MAX).contains(&workers)) {
            let workers = self.concurrency.unwrap_or_default();
            return invalid(format!("concurrency = {workers} for '{name}' is not between 1 and {CONCURRENCY_MAX}"));
        }
        if self.style != PythonStyle::Batches && schema.fields().len() != 1 {
            return invalid(format!("'{name}' gives {} columns in place of one value", schema.fields().len()));
        }
        let twice = schema
            .fields()
            .iter()
            .enumerate()
            .find(|(index, field)| schema.fields().iter().take(*index).any(|before| before.name() == field.name()));
        match twice {
            Some((_, field)) => invalid(format!("the schema of '{name}' has two columns '{}'", field.name())),
            None => Ok(()),
        }
    }

    /// The one column that it gives, if it is not given rows.
    ///
    /// # Errors
    /// `Internal` if there is none.
    pub(crate) fn value(&self) -> Result<&Arc<Field>> {
        self.schema.fields().first().ok_or_else(|| ours(Error::internal(format!("'{}' gives no value", self.name))))
    }

    /// Its bytes, for [`Self::from_bytes`].
    ///
    /// # Errors
    /// `Internal` for a schema that cannot be written.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let wire = Wire {
            name: self.name.clone(),
            pickle: self.pickle.clone(),
            style: self.style,
            format: self.format,
            schema: schema_to_bytes(&self.schema)?,
            batch_size: self.batch_size,
            concurrency: self.concurrency,
            memory: self.memory,
            deterministic: self.deterministic,
            python: self.python.clone(),
            cloudpickle: self.cloudpickle.clone(),
        };
        postcard::to_stdvec(&wire).map_err(|error| DataFusionError::External(Box::new(error)))
    }

    /// The function of [`Self::to_bytes`], which may come from a client.
    ///
    /// # Errors
    /// `InvalidQuery` for bytes that are none.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let none = || ours(Error::new(ErrorKind::InvalidQuery, "the bytes are no Python function"));
        let wire: Wire = postcard::from_bytes(bytes).map_err(|_why| none())?;
        let function = Self {
            schema: schema_from_bytes(&wire.schema).map_err(|_why| none())?,
            name: wire.name,
            pickle: wire.pickle,
            style: wire.style,
            format: wire.format,
            batch_size: wire.batch_size,
            concurrency: wire.concurrency,
            memory: wire.memory,
            deterministic: wire.deterministic,
            python: wire.python,
            cloudpickle: wire.cloudpickle,
        };
        function.check().map_err(ours)?;
        Ok(function)
    }

    /// The columns that a worker is asked for: those of types that every pyarrow computes with.
    #[must_use]
    pub fn worker_schema(&self) -> SchemaRef {
        plain_schema(&self.schema)
    }
}

/// The same columns without Arrow's views, which many functions of Python's libraries do not take.
pub(crate) fn plain_schema(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(plain_field).collect();
    if schema.fields().iter().zip(&fields).all(|(field, plain)| field == plain) {
        return Arc::clone(schema);
    }
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn plain_field(field: &Arc<Field>) -> Arc<Field> {
    let plain = plain_type(field.data_type());
    if plain == *field.data_type() { Arc::clone(field) } else { Arc::new(field.as_ref().clone().with_data_type(plain)) }
}

fn plain_type(of: &DataType) -> DataType {
    match of {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(field) | DataType::ListView(field) => DataType::List(plain_field(field)),
        DataType::LargeList(field) | DataType::LargeListView(field) => DataType::LargeList(plain_field(field)),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(plain_field(field), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect::<Fields>()),
        DataType::Map(field, sorted) => DataType::Map(plain_field(field), *sorted),
        other => other.clone(),
    }
}

impl fmt::Debug for PythonFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonFunction").field("name", &self.name).field("style", &self.style).finish_non_exhaustive()
    }
}

/// Any order will do, if only equal ones are equal in it.
impl PartialOrd for PythonFunction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self == other {
            return Some(Ordering::Equal);
        }
        let order = (&self.name, &self.pickle).cmp(&(&other.name, &other.pickle));
        (order != Ordering::Equal).then_some(order)
    }
}
