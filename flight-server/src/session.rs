//! A client's session on the coordinator: a statement arrives, is planned, and becomes rows or a job. Next: `coordinator/mod.rs`.

use std::sync::Arc;

use windrow_core::ids::SessionId;
use windrow_core::{Error, Result};
use windrow_planner::Names;

use crate::coordinator::Coordinator;
use crate::results::Statement;

/// Settings and catalog of one client. Cheap to share behind an `Arc`; statements may run side by side.
#[derive(Debug)]
pub struct CoordinatorSession {
    id: SessionId,
    coordinator: Arc<Coordinator>,
}

impl CoordinatorSession {
    pub(crate) fn new(id: SessionId, coordinator: Arc<Coordinator>) -> Self {
        Self { id, coordinator }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The coordinator it belongs to.
    #[must_use]
    pub fn coordinator(&self) -> &Arc<Coordinator> {
        &self.coordinator
    }

    /// Plans exactly one statement and submits its job, if it needs one. Returns after planning; rows follow in the statement.
    ///
    /// # Errors
    /// Those of planning; `Unavailable` if no executor is connected in time.
    pub async fn execute(&self, _sql: &str) -> Result<Statement> {
        Err(Error::unsupported("execute"))
    }

    /// Names for completion.
    ///
    /// # Errors
    /// `Internal` if the catalog cannot be read.
    pub async fn names(&self) -> Result<Names> {
        Err(Error::unsupported("names"))
    }

    /// Sets one setting, as `SET key = 'value'` does.
    ///
    /// # Errors
    /// `InvalidConfig` for an unknown key or a value that does not fit.
    pub async fn set(&self, _key: &str, _value: &str) -> Result<()> {
        Err(Error::unsupported("set"))
    }

    /// The folder that relative paths in queries are read from.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub async fn set_directory(&self, directory: &str) -> Result<()> {
        self.set("windrow.query.directory", directory).await
    }
}
