//! The coordinator: `event = next().await; for action in step(event) { perform(action) }`, the only loop.

use std::sync::Arc;

use crate::{Executor, ExecutorOptions};
use arrow::datatypes::SchemaRef;
use windrow_core::config::{QueryConfig, SchedulerConfig};
use windrow_core::ids::JobId;
use windrow_core::stage::StageGraph;
use windrow_core::{Error, Result};

use crate::results::Statement;
use crate::session::CoordinatorSession;
use crate::status::ClusterStatus;

/// What a coordinator is started with.
#[derive(Debug, Clone, Default)]
pub struct CoordinatorOptions {
    /// The scheduler's settings.
    pub scheduler: SchedulerConfig,
    /// The settings that sessions begin with.
    pub query: QueryConfig,
}

/// The coordinator of one cluster, in any process.
#[derive(Debug)]
pub struct Coordinator {}

impl Coordinator {
    /// Starts the loop on the current runtime.
    ///
    /// # Errors
    /// `InvalidConfig` if a setting does not fit.
    pub fn start(_options: CoordinatorOptions) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {}))
    }

    /// Opens a session with `settings` over the coordinator's own, each as `(windrow.query.key, value)`.
    ///
    /// # Errors
    /// `InvalidConfig` for an unknown key or a value that does not fit.
    pub async fn open_session(self: &Arc<Self>, _settings: &[(String, String)]) -> Result<Arc<CoordinatorSession>> {
        Err(Error::unsupported("open_session"))
    }

    /// Starts an executor in this process and joins it to the cluster.
    ///
    /// # Errors
    /// `InvalidConfig` if an option does not fit, `Unavailable` if its threads or its spill directory cannot be had.
    pub fn add_local_executor(self: &Arc<Self>, _options: ExecutorOptions) -> Result<Arc<Executor>> {
        Err(Error::unsupported("add_local_executor"))
    }

    /// The cluster at this moment.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        ClusterStatus::default()
    }

    /// Cancels a job. Nothing happens if it is unknown or over.
    pub fn cancel(&self, _job: JobId) {}

    /// Submits a hand-made graph, for benches and tests: no planning, `schema` is what its result stage writes.
    ///
    /// # Errors
    /// `Internal` if the graph is not valid, `ResourcesExhausted` if the queue of jobs is full.
    pub async fn submit_graph(self: &Arc<Self>, _graph: StageGraph, _schema: SchemaRef) -> Result<Statement> {
        Err(Error::unsupported("submit_graph"))
    }

    /// Ends every job and the local executors, and tells the others to leave.
    pub async fn shutdown(&self) {}
}
