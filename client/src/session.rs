//! First arrow: a text arrives and becomes a running query. Next: `query.rs`, and `flight-server/src/session.rs` behind it.

mod over;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::Stream;
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::timer;
use windrow_flight::{ClusterStatus, CoordinatorSession, ExecutorState};
use windrow_planner::{IngestTarget, Names};

use crate::engine::Engine;
use crate::files::{self, Look, quote};
use crate::query::Query;
use crate::remote::RemoteSession;

pub(crate) use over::Over;

/// Between two looks at who is there.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One client's settings and catalog. Cheap to clone; clones share both, and queries of one session may run side by side.
#[derive(Debug, Clone)]
pub struct Session {
    at: At,
}

/// Where the coordinator is.
#[derive(Debug, Clone)]
enum At {
    Here { session: Arc<CoordinatorSession>, engine: Arc<Engine> },
    Elsewhere(Arc<RemoteSession>),
}

impl Session {
    /// Opens a session of an engine in this process, and shares its life.
    pub(crate) async fn local(engine: Arc<Engine>) -> Result<Self> {
        let session = engine.open_session().await?;
        Ok(Self { at: At::Here { session, engine } })
    }

    pub(crate) fn remote(session: RemoteSession) -> Self {
        Self { at: At::Elsewhere(Arc::new(session)) }
    }

    /// Starts exactly one statement; a `;` at its end is allowed. Returns once it is planned, before its rows are there.
    ///
    /// # Errors
    /// `InvalidQuery` with a position and a suggestion, `NotFound`, `Unsupported`, `Data`, `Unavailable`.
    pub async fn sql(&self, text: &str) -> Result<Query> {
        self.sql_with(text, None).await
    }

    /// As [`Self::sql`], with the values of the statement's parameters: a column for each, by position, or by name for those that the
    /// text names, and one row.
    ///
    /// # Errors
    /// As [`Self::sql`]; `InvalidQuery` for values that are missing, too many, or of no use for their parameter.
    pub async fn sql_with(&self, text: &str, values: Option<&RecordBatch>) -> Result<Query> {
        match (&self.at, values) {
            (At::Here { session, engine }, _) => Ok(Query::local(session.execute_with(text, values).await?, Arc::clone(engine))),
            (At::Elsewhere(session), None) => session.execute(text).await.map(Query::remote),
            (At::Elsewhere(session), Some(values)) => session.execute_with(text, values).await.map(Query::remote),
        }
    }

    /// Writes rows into a table; returns how many. They are visible together, after the last one came.
    ///
    /// # Errors
    /// Those of the stream; `InvalidQuery` for a table or columns that do not fit; those of the store. Then nothing has changed.
    pub async fn ingest(
        &self,
        target: IngestTarget,
        schema: SchemaRef,
        rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    ) -> Result<u64> {
        match &self.at {
            At::Here { session, .. } => session.ingest(target, schema, rows).await,
            At::Elsewhere(session) => session.ingest(target, schema, rows).await,
        }
    }

    /// Names for completion: tables with their columns, functions, settings.
    ///
    /// # Errors
    /// `Unavailable` if the scheduler does not answer.
    pub async fn names(&self) -> Result<Names> {
        match &self.at {
            At::Here { session, .. } => session.names().await,
            At::Elsewhere(session) => session.names().await,
        }
    }

    /// The cluster's executors, jobs and counters at this moment.
    ///
    /// # Errors
    /// `Unavailable` if the scheduler does not answer.
    pub async fn status(&self) -> Result<ClusterStatus> {
        match &self.at {
            At::Here { engine, .. } => Ok(engine.status()),
            At::Elsewhere(session) => session.status().await,
        }
    }

    /// Ends the query with this number, as [`Session::status`] and `system.queries` show it, whichever session runs it; whether it was
    /// running. Everybody may end their own, an administrator each.
    ///
    /// # Errors
    /// `NotFound` if there is none, or it is somebody else's.
    pub async fn cancel(&self, query: u64) -> Result<bool> {
        match &self.at {
            At::Here { engine, .. } => engine.cancel(query),
            At::Elsewhere(session) => session.cancel(query).await,
        }
    }

    /// Asks an executor to leave: it gets no new work, finishes what it runs, and goes when nobody needs what it holds, at the latest
    /// after half a minute; no query notices. Returns once it is asked; [`Session::status`] shows when it has left.
    ///
    /// # Errors
    /// `NotFound` if no executor has this name, `Unavailable` if it is gone, `Unsupported` if it lives in the scheduler's process.
    pub async fn drain(&self, executor: &str) -> Result<()> {
        match &self.at {
            At::Here { engine, .. } => engine.drain(executor).await,
            At::Elsewhere(session) => session.drain(executor).await,
        }
    }

    /// Waits until an executor is gone, for at most `limit`; false if it is still there.
    ///
    /// # Errors
    /// As [`Session::status`].
    pub async fn wait_until_gone(&self, executor: &str, limit: Duration) -> Result<bool> {
        let gone = async {
            loop {
                let status = self.status().await?;
                let there = status.executors.iter().find(|known| known.name == executor);
                if there.is_none_or(|known| matches!(known.state, ExecutorState::Dead | ExecutorState::Left)) {
                    return Ok(true);
                }
                timer::sleep(LOOK_EVERY).await;
            }
        };
        timer::deadline(limit, gone).await.unwrap_or(Ok(false))
    }

    /// Makes the file or folder at `path` a table of this session; a table of that name is replaced. A relative path begins at
    /// this process's working directory.
    ///
    /// # Errors
    /// `NotFound` with the nearest name, `Unsupported` for an extension that is none of ours, and those of [`Self::sql`].
    pub async fn add_file(&self, table: &str, path: &str) -> Result<()> {
        let look = match &self.at {
            At::Elsewhere(session) if !session.is_on_this_machine() => Look::Elsewhere,
            At::Elsewhere(_) | At::Here { .. } => Look::Here,
        };
        let text = files::create_table(table, path, &working_directory()?, look)?;
        self.sql(&text).await?.collect().await.map(drop)
    }

    /// Sets one setting of this session by its full name, such as `windrow.query.partitions`.
    ///
    /// # Errors
    /// `InvalidConfig` for an unknown name, with the nearest one, or a value that does not fit.
    pub async fn set(&self, name: &str, value: &str) -> Result<()> {
        match &self.at {
            At::Here { session, .. } => session.set(name, value).await,
            At::Elsewhere(_) => self.sql(&format!("SET {name} = {}", quote(value, '\''))).await?.collect().await.map(drop),
        }
    }

    /// The scheduler's url; `None` if the engine runs in this process.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        match &self.at {
            At::Here { .. } => None,
            At::Elsewhere(session) => Some(session.url()),
        }
    }

    /// Ends the engine in this process, with all that runs on it, and waits until it is gone, whoever else holds it. A session of a
    /// scheduler elsewhere ends as with [`Self::close`].
    pub async fn shutdown(self) {
        if let At::Here { engine, .. } = &self.at {
            engine.shutdown().await;
        }
        self.close().await;
    }

    /// Ends the session and waits until what it alone owns is gone: with the last session of an engine in this process, its
    /// executors and their spill folders. Dropping does the same without waiting.
    pub async fn close(self) {
        match self.at {
            At::Here { session, engine } => {
                drop(session);
                if let Some(engine) = Arc::into_inner(engine) {
                    engine.shutdown().await;
                }
            }
            At::Elsewhere(session) => {
                if let Some(session) = Arc::into_inner(session) {
                    session.close().await;
                }
            }
        }
    }
}

/// Where relative paths begin.
pub(crate) fn working_directory() -> Result<PathBuf> {
    std::env::current_dir()
        .map_err(|source| Error::new(ErrorKind::NotFound, format!("the working directory is gone: {source}")).with_source(source))
}
