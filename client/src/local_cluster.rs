//! A cluster on this machine: a coordinator here, executors here or as supervised processes. Next: `supervisor.rs`.

use std::path::PathBuf;

use windrow_core::{Error, Result};

use crate::session::Session;
use crate::status::ClusterStatus;

/// What a [`LocalCluster`] is made of; see [`LocalCluster::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct LocalClusterBuilder {
    executors: u32,
    slots: u32,
    memory_limit: u64,
    port: u16,
    program: Option<PathBuf>,
}

impl LocalClusterBuilder {
    /// How many executors; 1 if not said.
    pub fn executors(mut self, executors: u32) -> Self {
        self.executors = executors;
        self
    }

    /// Partitions that each executor computes at a time; 0, the default, divides the cores of the machine.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Bytes of each executor's memory pool; 0, the default, divides three quarters of the machine's memory.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// The loopback port that clients and executors connect to; 0, the default, takes a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Runs each executor as a supervised process of `program`, the path of the `windrow` program.
    pub fn processes(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Runs the executors in this process, as is the default.
    pub fn in_process(mut self) -> Self {
        self.program = None;
        self
    }

    /// Starts the cluster; returns when every executor is registered.
    ///
    /// # Errors
    /// `InvalidConfig` for counts that do not fit or a port that is taken, `NotFound` for a program that is not there,
    /// `Unavailable` with the end of an executor's log if it does not register in time.
    pub async fn start(self) -> Result<LocalCluster> {
        Err(Error::unsupported("local clusters"))
    }
}

/// A cluster on this machine. Dropping it ends it; [`Self::shutdown`] also waits for the end.
#[derive(Debug)]
pub struct LocalCluster {}

impl LocalCluster {
    /// A cluster of one executor in this process, unless told otherwise.
    pub fn builder() -> LocalClusterBuilder {
        LocalClusterBuilder { executors: 1, slots: 0, memory_limit: 0, port: 0, program: None }
    }

    /// Where clients connect, `grpc://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        String::new()
    }

    /// A session that reaches the coordinator without the network.
    ///
    /// # Errors
    /// `Unavailable` after the shutdown.
    pub async fn session(&self) -> Result<Session> {
        Err(Error::unsupported("local clusters"))
    }

    /// Kills executor number `index` as `kill -9` does and returns once it is dead; its supervisor starts it again.
    ///
    /// # Errors
    /// `NotFound` if there is no such executor, `Unsupported` if it lives in this process.
    pub async fn kill(&self, _index: usize) -> Result<()> {
        Err(Error::unsupported("local clusters"))
    }

    /// The process of each executor; `None` while one is down, or if it lives in this process.
    #[must_use]
    pub fn pids(&self) -> Vec<Option<u32>> {
        Vec::new()
    }

    /// The cluster's executors, jobs and counters at this moment.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        ClusterStatus::default()
    }

    /// Why executors of this cluster ended so far, oldest first, as `(executor's name, cause)`.
    #[must_use]
    pub fn deaths(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Ends every session, job and executor, and waits until they are gone.
    pub async fn shutdown(self) {}
}
