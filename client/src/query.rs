//! A running query: its schema, its rows as they come, its progress, its end. Dropping it cancels. Next: `control.rs`, `remote.rs`, and
//! `flight-server/src/results.rs` behind it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::{Stream, StreamExt, TryStreamExt};
use windrow_core::Result;
use windrow_flight::Statement;

use crate::control::QueryControl;
use crate::engine::Engine;
use crate::remote::RemoteQuery;

pub use windrow_flight::JobProgress as Progress;

/// A running query, read as a stream of batches in the result's order. Dropping it ends the work everywhere.
#[derive(Debug)]
pub struct Query {
    schema: SchemaRef,
    rows: Rows,
    control: QueryControl,
}

#[derive(Debug)]
enum Rows {
    /// The engine lives at least as long as its query. Fields are dropped in order: first the statement.
    Local {
        statement: Statement,
        _engine: Arc<Engine>,
    },
    Remote(Box<RemoteQuery>),
}

impl Query {
    pub(crate) fn local(statement: Statement, engine: Arc<Engine>) -> Self {
        let control = QueryControl::local(&statement);
        Self { schema: Arc::clone(&statement.schema), rows: Rows::Local { statement, _engine: engine }, control }
    }

    pub(crate) fn remote(query: RemoteQuery) -> Self {
        let control = QueryControl::remote(query.control());
        Self { schema: query.schema(), rows: Rows::Remote(Box::new(query)), control }
    }

    /// The columns of the rows.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The next rows, `None` after the last.
    ///
    /// # Errors
    /// Why the query failed.
    pub async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        self.next().await.transpose()
    }

    /// All remaining rows.
    ///
    /// # Errors
    /// Why the query failed.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.try_collect().await
    }

    /// Ends the query; its rows then end with an error of kind [`Cancelled`](windrow_core::ErrorKind::Cancelled). Harmless after
    /// its end.
    pub async fn cancel(&self) {
        self.control.cancel().await;
    }

    /// How far it is. A remote query's is asked for from the first call on, and is of a moment ago.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.control.progress()
    }

    /// What ends it and says how far it is, while somebody else reads its rows.
    #[must_use]
    pub fn control(&self) -> QueryControl {
        self.control.clone()
    }
}

impl Stream for Query {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.rows {
            Rows::Local { statement, .. } => statement.poll_next_unpin(context),
            Rows::Remote(query) => query.poll_next_unpin(context),
        }
    }
}
