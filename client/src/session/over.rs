//! Statements over frames, wherever the coordinator is. Next: `../remote/over.rs`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use windrow_core::Result;
use windrow_planner::Frames;

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
}
