//! What goes over a worker's socket, as `_worker.py` describes it.

use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use windrow_planner::{PythonFormat, PythonFunction, PythonStyle};

/// Most bytes of one message. 2 GiB: what arrays of text count with 32 bits.
pub(super) const BYTES_MAX: u64 = 2 << 30;
/// What a stream has beside its arrays, of a schema of common size.
const ENVELOPE_BYTES: usize = 4 << 10;
/// A letter, and the length of what follows.
pub(super) const HEAD_BYTES: usize = 9;

/// The head of a message.
pub(super) fn head(kind: u8, length: usize) -> [u8; HEAD_BYTES] {
    let mut head = [kind; HEAD_BYTES];
    let (_, number) = head.split_at_mut(1);
    number.copy_from_slice(&(length as u64).to_le_bytes());
    head
}

/// What a head says: the kind, and the length of what follows.
pub(super) fn read_head(head: [u8; HEAD_BYTES]) -> (u8, u64) {
    let [kind, length @ ..] = head;
    (kind, u64::from_le_bytes(length))
}

/// What went wrong in a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    /// `raised`, `wrong`, `memory`, or `load` for what happened before any row.
    pub(super) kind: String,
    pub(super) line: String,
    pub(super) traceback: String,
}

impl Report {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let [kind, line, traceback] = <[String; 3]>::try_from(texts(body)?).ok()?;
        Some(Self { kind, line, traceback })
    }

    pub(super) fn is_memory(&self) -> bool {
        self.kind == "memory"
    }
}

/// What a worker says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) python: String,
    pub(super) pyarrow: String,
    pub(super) cloudpickle: String,
    /// Why it cannot work.
    pub(super) wrong: String,
}

impl Hello {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let [python, pyarrow, cloudpickle, wrong] = <[String; 4]>::try_from(texts(body)?).ok()?;
        Some(Self { python, pyarrow, cloudpickle, wrong })
    }
}

/// The parts of a message.
fn texts(mut body: &[u8]) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    while !body.is_empty() {
        let (length, rest) = body.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        parts.push(String::from_utf8_lossy(part).into_owned());
        body = rest;
    }
    Some(parts)
}

/// What a worker is told of the function that it calls.
pub(super) fn load(function: &PythonFunction) -> Result<Vec<u8>, ArrowError> {
    let style = match function.style {
        PythonStyle::Batches => "batches",
        PythonStyle::Values => "values",
        PythonStyle::Groups => "groups",
    };
    let format = match function.format {
        PythonFormat::Arrow => "arrow",
        PythonFormat::Pandas => "pandas",
        PythonFormat::Polars => "polars",
        PythonFormat::Numpy => "numpy",
    };
    let memory = function.memory.unwrap_or(0).to_string();
    let schema = stream(&function.worker_schema(), None)?;
    let mut body = Vec::new();
    for part in [style.as_bytes(), format.as_bytes(), memory.as_bytes(), &schema, &function.pickle] {
        let length =
            u32::try_from(part.len()).map_err(|_why| ArrowError::InvalidArgumentError("a function of 4 GiB".to_owned()))?;
        body.extend(length.to_le_bytes());
        body.extend(part);
    }
    Ok(body)
}

/// Rows for a worker.
pub(super) fn batch(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    stream(&rows.schema(), Some(rows))
}

fn stream(schema: &Schema, rows: Option<&RecordBatch>) -> Result<Vec<u8>, ArrowError> {
    // Room for all of it: what grows is copied.
    let arrays = rows.into_iter().flat_map(RecordBatch::columns).map(|column| column.to_data().get_slice_memory_size());
    let room = arrays.sum::<Result<usize, _>>()? + ENVELOPE_BYTES;
    let mut writer = StreamWriter::try_new(Vec::with_capacity(room), schema)?;
    if let Some(rows) = rows {
        writer.write(rows)?;
    }
    writer.finish()?;
    writer.into_inner()
}

/// The rows of a worker's messages, which have the columns that it was told. The arrays stay in the messages' memory.
pub(super) fn results(messages: Vec<Vec<u8>>, columns: &SchemaRef) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut batches = Vec::new();
    for message in messages {
        let mut decoder = StreamDecoder::new();
        let mut buffer = Buffer::from_vec(message);
        while !buffer.is_empty() {
            if let Some(batch) = decoder.decode(&mut buffer)? {
                check(&batch, columns)?;
                batches.push(batch);
            }
        }
        decoder.finish()?;
    }
    Ok(batches)
}

/// A worker checks this, too, and knows better words; but it is the user's.
fn check(batch: &RecordBatch, columns: &SchemaRef) -> Result<(), ArrowError> {
    let given = batch.schema();
    let fits = given.fields().len() == columns.fields().len()
        && given.fields().iter().zip(columns.fields()).all(|(given, wants)| given.data_type() == wants.data_type());
    if fits { Ok(()) } else { Err(ArrowError::SchemaError(format!("the columns {given} in place of {columns}"))) }
}
