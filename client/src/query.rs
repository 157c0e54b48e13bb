//! A running query: its schema, its rows as they come, its progress, its end. Dropping it cancels. Next: `remote.rs`.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::Stream;
use windrow_core::{Error, Result};

pub use crate::status::JobProgress as Progress;

/// A running query, read as a stream of batches in the result's order. Dropping it ends the work everywhere.
#[derive(Debug)]
pub struct Query {}

impl Query {
    /// The columns of the rows.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::new(arrow::datatypes::Schema::empty())
    }

    /// The next rows, `None` after the last.
    ///
    /// # Errors
    /// Why the query failed.
    pub async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        Err(Error::unsupported("results"))
    }

    /// All remaining rows.
    ///
    /// # Errors
    /// Why the query failed.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        Err(Error::unsupported("results"))
    }

    /// Ends the query; the stream then ends with [`windrow_core::ErrorKind::Cancelled`]. Harmless after the end.
    pub async fn cancel(&self) {}

    /// How far it is; for a remote query as of a moment ago.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress::default()
    }
}

impl Stream for Query {
    type Item = Result<RecordBatch>;

    fn poll_next(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}
