//! First arrow: a text arrives and becomes a running query. Next: `query.rs`, and `flight-server/src/coordinator.rs` behind it.

use windrow_core::{Error, Result};
use windrow_planner::Names;

use crate::query::Query;
use crate::status::ClusterStatus;

/// One client's settings and catalog. Cheap to clone; clones share both, and queries of one session may run side by side.
#[derive(Debug, Clone)]
pub struct Session {}

impl Session {
    /// Starts exactly one statement; a `;` at its end is allowed. Returns once it is planned, before its rows are there.
    ///
    /// # Errors
    /// `InvalidQuery` with a position and a suggestion, `NotFound`, `Unsupported`, `Data`, `Unavailable`.
    pub async fn sql(&self, _text: &str) -> Result<Query> {
        Err(Error::unsupported("queries"))
    }

    /// Names for completion: tables with their columns, functions, settings.
    ///
    /// # Errors
    /// `Unavailable` if the scheduler does not answer.
    pub async fn names(&self) -> Result<Names> {
        Err(Error::unsupported("names"))
    }

    /// The cluster's executors, jobs and counters at this moment.
    ///
    /// # Errors
    /// `Unavailable` if the scheduler does not answer.
    pub async fn status(&self) -> Result<ClusterStatus> {
        Err(Error::unsupported("status"))
    }

    /// Makes the file or folder at `path` a table of this session; a table of that name is replaced.
    ///
    /// # Errors
    /// `NotFound` with the nearest name, `Unsupported` for an extension that is none of ours, and those of [`Self::sql`].
    pub async fn add_file(&self, _table: &str, _path: &str) -> Result<()> {
        Err(Error::unsupported("files"))
    }

    /// Sets `windrow.query.<key>` for this session.
    ///
    /// # Errors
    /// `InvalidConfig` for an unknown key, with the nearest one, or a value that does not fit.
    pub async fn set(&self, _key: &str, _value: &str) -> Result<()> {
        Err(Error::unsupported("settings"))
    }

    /// The scheduler's url; `None` if the engine runs in this process.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        None
    }

    /// Ends the session and waits until what it owns is gone: with the last session of an engine in this process, its executors
    /// and their spill folders. Dropping does the same without waiting.
    pub async fn close(self) {}
}
