//! Prepared statements without state in the server: a handle seals the statement and the rows of values bound to it, so that any
//! coordinator with the cluster's key can run it, also after a restart. Next: `update.rs`.

use std::io::Cursor;

use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::SubstraitPlan;
use arrow_flight::sql::server::PeekableFlightDataStream;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use windrow_auth::SealError;
use windrow_core::clock::unix_millis;
use windrow_core::{Error, ErrorKind, Result};
use windrow_planner::check_substrait_version;

use super::SqlService;
use super::incoming::Incoming;
use super::plan_proto::CommandPlan;
use crate::session::Request;

/// Bytes of the values that a handle carries; it travels with each call.
const BOUND_MAX: usize = 1 << 20;

/// How long a handle can be used. A week: pools of connections keep prepared statements for days.
const HANDLE_MILLIS: u64 = 7 * 24 * 3600 * 1000;

/// What handles are sealed for.
pub(super) const PURPOSE: &str = "prepared statement";

/// A prepared statement, as its handle carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Prepared {
    /// The statement, or the plan in its place.
    pub(super) request: Request,
    /// The bound values as an Arrow IPC stream.
    bound: Option<Vec<u8>>,
}

impl Prepared {
    /// `text` without values.
    pub(super) fn new(text: String) -> Self {
        Self { request: Request::Sql(text), bound: None }
    }

    /// A plan without values.
    ///
    /// # Errors
    /// `InvalidQuery` if there is no plan; `Unsupported` in a transaction, and for a version that is not read.
    pub(super) fn plan(plan: Option<SubstraitPlan>, transaction: Option<&Bytes>) -> Result<Self> {
        if transaction.is_some_and(|transaction| !transaction.is_empty()) {
            return Err(Error::unsupported("there are no transactions: every statement sees the files as they are"));
        }
        let plan = plan.ok_or_else(|| Error::new(ErrorKind::InvalidQuery, "a command for a Substrait plan without the plan"))?;
        check_substrait_version(&plan.version)?;
        Ok(Self { request: Request::Substrait(plan.plan), bound: None })
    }

    /// A statement over a client's plans.
    ///
    /// # Errors
    /// `Unsupported` for plans of another version.
    pub(super) fn over(command: CommandPlan) -> Result<Self> {
        command.check_version()?;
        Ok(Self { request: Request::Frames { text: command.text, frames: command.frames }, bound: None })
    }

    /// The statement with `rows` in place of what was bound before.
    ///
    /// # Errors
    /// `ResourcesExhausted` if the values are too large for a handle.
    pub(super) fn bind(self, rows: Option<&RecordBatch>) -> Result<Self> {
        let Some(rows) = rows else { return Ok(Self { bound: None, ..self }) };
        let unwritten = |source| Error::internal("bound values cannot be encoded").with_source(source);
        let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref()).map_err(unwritten)?;
        writer.write(rows).map_err(unwritten)?;
        let bytes = writer.into_inner().map_err(unwritten)?;
        if bytes.len() > BOUND_MAX {
            let what = format!("the bound values have {} bytes, at most {BOUND_MAX} are possible", bytes.len());
            return Err(Error::new(ErrorKind::ResourcesExhausted, what).with_help("write them into a table and join it"));
        }
        Ok(Self { bound: Some(bytes), ..self })
    }

    /// The bound values; `None` if nothing was bound.
    ///
    /// # Errors
    /// `NotFound` if the handle carries none that can be read.
    pub(super) fn rows(&self) -> Result<Option<RecordBatch>> {
        let Some(bytes) = &self.bound else { return Ok(None) };
        let mut reader = StreamReader::try_new(Cursor::new(bytes.as_slice()), None).map_err(|_why| unknown())?;
        reader.next().transpose().map_err(|_why| unknown())
    }
}

fn unknown() -> Error {
    Error::new(ErrorKind::NotFound, "no such prepared statement").with_help("prepare it again")
}

/// The values in the body of a DoPut.
pub(super) enum Body {
    /// There are none: drivers send nothing if there is nothing to bind, or a batch without columns.
    Empty,
    /// As they come; without rows if only their columns are there.
    Values(BoxStream<'static, Result<RecordBatch>>),
}

/// What the body of a DoPut holds, once its beginning is there.
///
/// # Errors
/// `Data` if it cannot be read.
pub(super) async fn body(data: PeekableFlightDataStream) -> Result<Body> {
    let mut batches = Incoming::new(data);
    let first = batches.try_next().await?;
    let has_columns = batches.schema().is_some_and(|schema| !schema.fields().is_empty());
    if !has_columns {
        return Ok(Body::Empty);
    }
    let first = stream::iter(first.map(Ok));
    Ok(Body::Values(first.chain(batches).boxed()))
}

/// All values of a DoPut as one batch; `None` if there are none.
///
/// # Errors
/// `Data` if they cannot be read, `ResourcesExhausted` if they are too large to keep.
pub(super) async fn all_values(data: PeekableFlightDataStream) -> Result<Option<RecordBatch>> {
    let Body::Values(mut values) = body(data).await? else { return Ok(None) };
    let (mut batches, mut bytes) = (Vec::new(), 0_usize);
    while let Some(batch) = values.try_next().await? {
        bytes = bytes.saturating_add(batch.get_array_memory_size());
        if bytes > 8 * BOUND_MAX {
            let what = format!("the bound values have more than {BOUND_MAX} bytes");
            return Err(Error::new(ErrorKind::ResourcesExhausted, what).with_help("write them into a table and join it"));
        }
        batches.push(batch);
    }
    let Some(first) = batches.first() else { return Ok(None) };
    let schema = first.schema();
    concat_batches(&schema, &batches)
        .map(Some)
        .map_err(|source| Error::new(ErrorKind::Data, "the batches of bound values differ in their columns").with_source(source))
}

impl SqlService {
    /// The handle of a prepared statement.
    ///
    /// # Errors
    /// `Internal` if it cannot be encoded.
    pub(super) fn seal(&self, prepared: &Prepared) -> Result<Bytes> {
        let expires = unix_millis().saturating_add(HANDLE_MILLIS);
        self.prepared.seal(prepared, expires).map(Bytes::from)
    }

    /// The prepared statement of a handle.
    ///
    /// # Errors
    /// `NotFound` if it is not a handle of ours, or is too old.
    pub(super) fn open(&self, handle: &[u8]) -> Result<Prepared> {
        self.prepared.open(handle, unix_millis()).map_err(|why| match why {
            SealError::NotOurs => unknown(),
            SealError::Expired => {
                Error::new(ErrorKind::NotFound, "this prepared statement is older than a week").with_help("prepare it again")
            }
        })
    }
}
