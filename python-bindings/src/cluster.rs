//! A cluster on this machine. Next: `client/src/local_cluster.rs`.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::RwLock;
use windrow::{Error, ErrorKind, LocalCluster};

use crate::error::raise;
use crate::runtime::{Hosted, runtime, wait};
use crate::session::Session;
use crate::status;

/// Starts, scales and ends executors on this machine.
#[pyclass(module = "windrow._windrow", frozen)]
pub(crate) struct Cluster {
    inner: Hosted<Arc<RwLock<Option<LocalCluster>>>>,
    url: String,
}

#[pymethods]
impl Cluster {
    /// Starts `executors` of `slots` each; as processes of `program`, if one is named.
    #[staticmethod]
    #[pyo3(signature = (executors, slots, memory_limit, port=0, program=None, arguments=Vec::new(), spill_dir=None, state_dir=None, accept_plans=true, python=None))]
    #[expect(clippy::too_many_arguments, reason = "each is one keyword in Python")]
    fn start(
        py: Python<'_>,
        executors: u32,
        slots: u32,
        memory_limit: u64,
        port: u16,
        program: Option<PathBuf>,
        arguments: Vec<String>,
        spill_dir: Option<PathBuf>,
        state_dir: Option<PathBuf>,
        accept_plans: bool,
        python: Option<PathBuf>,
    ) -> PyResult<Self> {
        let mut config = windrow_core::config::load(None).map_err(|error| raise(py, &error, None))?;
        config.security.accept_plans = accept_plans;
        let (of_config, memory_of_config) = (config.executor.slots, config.executor.memory_limit.as_u64());
        config.executor.python = config.executor.python.or(python);
        let mut builder = LocalCluster::builder().config(config).executors(executors).port(port);
        builder = builder.slots(if slots == 0 { of_config } else { slots });
        builder = builder.memory_limit(if memory_limit == 0 { memory_of_config } else { memory_limit });
        if let Some(folder) = spill_dir {
            builder = builder.spill_dir(folder);
        }
        if let Some(folder) = state_dir {
            builder = builder.state_dir(folder);
        }
        if let Some(program) = program {
            builder = builder.processes(program).leading_arguments(arguments);
        }
        let cluster = wait(py, builder.start())?.map_err(|error| raise(py, &error, None))?;
        let url = cluster.url();
        Ok(Self { inner: Hosted::new(Arc::new(RwLock::new(Some(cluster)))), url })
    }

    /// Where clients connect.
    #[getter]
    fn url(&self) -> &str {
        &self.url
    }

    /// A token with which clients of other kinds log in as the cluster's owner.
    fn token(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, LocalCluster::token)
    }

    /// A session that reaches the scheduler without the network.
    fn session(&self, py: Python<'_>) -> PyResult<Session> {
        let inner = Arc::clone(&self.inner);
        let opened = wait(py, async move {
            match inner.read().await.as_ref() {
                Some(cluster) => cluster.session().await,
                None => Err(closed()),
            }
        });
        opened?.map(Session::new).map_err(|error| raise(py, &error, None))
    }

    /// Executors, queries and counters at this moment.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let now = self.with(py, |cluster| Ok(cluster.status()))?;
        status::status(py, &now)
    }

    /// The process of each executor; `None` while one is down, or if it lives in this process.
    fn pids(&self, py: Python<'_>) -> PyResult<Vec<Option<u32>>> {
        self.with(py, |cluster| Ok(cluster.pids()))
    }

    /// Why executors ended so far, as pairs of name and cause.
    fn deaths(&self, py: Python<'_>) -> PyResult<Vec<(String, String)>> {
        self.with(py, |cluster| Ok(cluster.deaths()))
    }

    /// Kills one executor as `kill -9` does; it is started again.
    fn kill(&self, py: Python<'_>, index: usize) -> PyResult<()> {
        let inner = Arc::clone(&self.inner);
        let killed = wait(py, async move {
            match inner.read().await.as_ref() {
                Some(cluster) => cluster.kill(index).await,
                None => Err(closed()),
            }
        });
        killed?.map_err(|error| raise(py, &error, None))
    }

    /// Changes the number of executors.
    fn scale(&self, py: Python<'_>, executors: u32) -> PyResult<()> {
        let inner = Arc::clone(&self.inner);
        let scaled = wait(py, async move {
            match inner.write().await.as_mut() {
                Some(cluster) => cluster.scale(executors).await,
                None => Err(closed()),
            }
        });
        scaled?.map_err(|error| raise(py, &error, None))
    }

    /// Ends everything and waits until it is gone. Harmless when done before.
    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        let inner = Arc::clone(&self.inner);
        // A task of its own: what was begun is brought to its end even if nobody waits for it any more.
        let ending = runtime(py)?.spawn(async move {
            if let Some(cluster) = inner.write().await.take() {
                cluster.shutdown().await;
            }
        });
        wait(py, ending).map(drop)
    }
}

impl Cluster {
    fn with<T: Send>(&self, py: Python<'_>, look: impl FnOnce(&LocalCluster) -> windrow::Result<T> + Send) -> PyResult<T> {
        let inner = Arc::clone(&self.inner);
        let seen = wait(py, async move {
            match inner.read().await.as_ref() {
                Some(cluster) => look(cluster),
                None => Err(closed()),
            }
        });
        seen?.map_err(|error| raise(py, &error, None))
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the cluster is closed").with_help("start another one")
}
