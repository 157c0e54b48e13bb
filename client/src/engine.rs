//! A coordinator in this process with what it owns: executors here, a listener, supervised executor processes. Sessions hold it;
//! the last one ends it. Next: `flight-server/src/coordinator/mod.rs`.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::runtime::Handle;
use windrow_core::config::ExecutorConfig;
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::machine;
use windrow_flight::{
    ClusterStatus, Coordinator, CoordinatorOptions, CoordinatorSession, ExecutorOptions, ServeOptions, Server, serve,
};

use crate::supervisor::{OnDeath, Supervisor};

/// The options of one of `together` executors that share this machine: what is 0 in `config` is the machine's, divided by them.
pub(crate) fn shared_out(config: &ExecutorConfig, name: String, together: u32) -> ExecutorOptions {
    let mut options = ExecutorOptions::new(name, config);
    if options.slots == 0 {
        options.slots = (machine::slots() / together.max(1)).max(1);
    }
    if options.memory_limit == 0 {
        options.memory_limit = machine::memory_limit() / u64::from(together.max(1));
    }
    options
}

/// A folder that nobody else reads.
fn scratch() -> Result<TempDir> {
    tempfile::Builder::new().prefix("windrow-tables-").tempdir().map_err(|source| {
        Error::new(ErrorKind::Unavailable, format!("no folder for tables can be made: {source}")).with_source(source)
    })
}

/// What ends with the engine, besides its coordinator.
#[derive(Debug, Default)]
struct Owned {
    warehouse: Option<TempDir>,
    server: Option<Server>,
    supervisors: Vec<Arc<Supervisor>>,
}

/// A cluster of which at least the coordinator is here.
#[derive(Debug)]
pub(crate) struct Engine {
    coordinator: Arc<Coordinator>,
    /// `None` once it was shut down.
    owned: Mutex<Option<Owned>>,
    runtime: Handle,
}

impl Engine {
    /// Starts a coordinator without executors on the current runtime. All that will come are on this machine, so that a folder of
    /// it serves as warehouse if none is set: beside the catalog that lasts, or one that goes with the engine.
    pub(crate) fn start(mut options: CoordinatorOptions) -> Result<Arc<Self>> {
        let mut owned = Owned::default();
        // Where places are listed, one that is not could not be written.
        if options.scheduler.warehouse.is_empty() && !options.stores.policy().is_listed() {
            let folder = match &options.scheduler.state_dir {
                Some(folder) => std::path::absolute(folder).unwrap_or_else(|_why| folder.clone()).join("warehouse"),
                None => owned.warehouse.insert(scratch()?).path().to_owned(),
            };
            options.scheduler.warehouse = folder.to_string_lossy().into_owned();
        }
        let coordinator = Coordinator::start(options)?;
        Ok(Arc::new(Self { coordinator, owned: Mutex::new(Some(owned)), runtime: Handle::current() }))
    }

    /// As [`Self::start`], for a cluster whose executors all live in this process: none can be lost without the others, so outputs
    /// are released as soon as they were read.
    pub(crate) fn start_alone(mut options: CoordinatorOptions) -> Result<Arc<Self>> {
        options.scheduler.keep_outputs = false;
        Self::start(options)
    }

    /// Starts an executor in this process.
    pub(crate) fn add_executor(&self, options: ExecutorOptions) -> Result<()> {
        self.coordinator.add_local_executor(options).map(drop)
    }

    /// Opens the listener and says where.
    pub(crate) async fn serve(&self, options: ServeOptions) -> Result<SocketAddr> {
        let server = serve(Arc::clone(&self.coordinator), options).await?;
        let address = server.address();
        if let Some(owned) = self.owned.lock().as_mut() {
            owned.server = Some(server);
        }
        Ok(address)
    }

    /// Hands over a supervised executor process.
    pub(crate) fn add_supervisor(&self, supervisor: Arc<Supervisor>) {
        if let Some(owned) = self.owned.lock().as_mut() {
            owned.supervisors.push(supervisor);
        }
    }

    pub(crate) async fn open_session(&self) -> Result<Arc<CoordinatorSession>> {
        self.coordinator.open_session(&[]).await
    }

    pub(crate) fn status(&self) -> ClusterStatus {
        self.coordinator.status()
    }

    /// Ends a query; whether it was running.
    pub(crate) fn cancel(&self, query: u64) -> Result<bool> {
        let job = self.coordinator.status().jobs.into_iter().find(|job| job.id.0 == query);
        let job = job.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such query"))?;
        let is_running = !job.progress.state.is_over();
        if is_running {
            self.coordinator.cancel(job.id);
        }
        Ok(is_running)
    }

    pub(crate) async fn drain(&self, executor: &str) -> Result<()> {
        self.coordinator.drain(executor).await
    }

    /// Hears of the deaths of supervised processes, for status and errors.
    pub(crate) fn hears_of_deaths(&self) -> OnDeath {
        let coordinator = Arc::downgrade(&self.coordinator);
        Arc::new(move |name, cause| {
            if let Some(coordinator) = coordinator.upgrade() {
                coordinator.note_death(name, cause);
            }
        })
    }

    /// Ends everything and waits for it. Harmless when done before.
    pub(crate) async fn shutdown(&self) {
        if let Some(ending) = self.ending() {
            ending.await;
        }
    }

    /// Ends everything without waiting. Where the runtime is gone, so are its routines, and child processes end because their
    /// standard input closes.
    pub(crate) fn end_unattended(&self) {
        if let Some(ending) = self.ending() {
            self.runtime.spawn(ending);
        }
    }

    /// The coordinator first: it tells the executors to leave, and a process that leaves when told is not started again. The
    /// listener last, so that they hear it.
    fn ending(&self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let owned = self.owned.lock().take()?;
        let coordinator = Arc::clone(&self.coordinator);
        Some(async move {
            coordinator.shutdown().await;
            futures::future::join_all(owned.supervisors.iter().map(|supervisor| supervisor.stop())).await;
            if let Some(server) = owned.server {
                server.shutdown().await;
            }
            drop(owned.warehouse);
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.end_unattended();
    }
}
