//! Statements over frames, wherever the coordinator is. Next: `../remote/over.rs`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use windrow_core::Result;
use windrow_planner::{Frames, IngestTarget};

use super::{At, Session};
use crate::query::Query;

/// A statement over frames: its query, and what stands around that.
#[derive(Debug, Clone)]
pub(crate) struct Over {
    pub(crate) before: String,
    pub(crate) query: String,
    pub(crate) after: String,
    /// What the query may name as tables.
    pub(crate) frames: Frames,
}

impl Over {
    /// The statement's text.
    pub(crate) fn text(&self) -> String {
        [self.before.as_str(), &self.query, &self.after].concat()
    }
}

impl Session {
    /// Starts a statement over frames.
    ///
    /// # Errors
    /// As [`Self::sql`].
    pub(crate) async fn sql_over(&self, over: &Over) -> Result<Query> {
        match &self.at {
            At::Here { session, engine } => {
                Ok(Query::local(session.execute_over(&over.text(), &over.frames).await?, Arc::clone(engine)))
            }
            At::Elsewhere(session) => session.execute_over(over).await.map(Query::remote),
        }
    }

    /// The columns of a statement's rows, without running it.
    ///
    /// # Errors
    /// As [`Self::sql`].
    pub(crate) async fn schema_over(&self, over: &Over) -> Result<SchemaRef> {
        match &self.at {
            At::Here { session, .. } => Ok(session.describe_over(&over.text(), &over.frames).await?.schema),
            At::Elsewhere(session) => session.schema_over(over).await,
        }
    }

    /// Writes rows of these columns into a table; returns how many. They are visible together, after the last one came.
    ///
    /// # Errors
    /// Those of the stream; `InvalidQuery` for a table or columns that do not fit; those of the store. Then nothing has changed.
    pub(crate) async fn ingest(
        &self,
        target: IngestTarget,
        schema: SchemaRef,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<u64> {
        match &self.at {
            At::Here { session, .. } => session.ingest(target, schema, rows).await,
            At::Elsewhere(session) => session.ingest(target, rows).await,
        }
    }
}
