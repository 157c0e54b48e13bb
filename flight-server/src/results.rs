//! Rows on their way to the client, in partition order, as the partitions of the result stage are committed. Next: `sql.rs`.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::stream::{BoxStream, Stream};
use tokio::sync::watch;
use windrow_core::Result;
use windrow_core::ids::JobId;

use crate::status::JobProgress;

/// A statement that was planned: its rows are a stream. Dropping it cancels its job.
pub struct Statement {
    /// The schema of its rows.
    pub schema: SchemaRef,
    /// The job that makes them; `None` for statements that the coordinator answers itself.
    pub job: Option<JobId>,
    rows: BoxStream<'static, Result<RecordBatch>>,
    progress: watch::Receiver<JobProgress>,
}

impl Statement {
    /// How far its job is, as it changes.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<JobProgress> {
        self.progress.clone()
    }
}

impl Stream for Statement {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.rows.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").field("schema", &self.schema).field("job", &self.job).finish_non_exhaustive()
    }
}
