//! An executor as a process of its own: its shuffle service and its control stream to the coordinator.

use std::net::SocketAddr;

use crate::ExecutorOptions;
use windrow_core::{Error, Result};

/// What an executor process is started with.
#[derive(Debug, Clone)]
pub struct NetworkExecutorOptions {
    /// The coordinator, `host:port`.
    pub scheduler: String,
    /// Where its shuffle service listens; port 0 takes a free one.
    pub bind: SocketAddr,
    /// The `host:port` or host that others reach it at, if that is not what it binds.
    pub advertise: Option<String>,
    /// Allows an address that is not loopback, although nothing is authenticated or encrypted yet.
    pub insecure: bool,
    /// The executor itself.
    pub executor: ExecutorOptions,
}

/// Runs an executor until the coordinator tells it to leave or refuses it, or `shutdown` resolves.
///
/// # Errors
/// `InvalidConfig` for an address that is not allowed or cannot be bound, or if the coordinator refuses the registration.
pub async fn run_executor(_options: NetworkExecutorOptions, _shutdown: impl Future<Output = ()> + Send) -> Result<()> {
    Err(Error::unsupported("run_executor"))
}
