//! The coordinator's listener: Flight SQL for clients and the control stream for executors on one port.

use std::net::SocketAddr;
use std::sync::Arc;

use windrow_core::{Error, ErrorKind, Result};

use crate::coordinator::Coordinator;

/// Where to listen.
#[derive(Debug, Clone, Copy)]
pub struct ServeOptions {
    /// The address; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Allows an address that is not loopback, although nothing is authenticated or encrypted yet.
    pub insecure: bool,
}

/// A running listener. Dropping it closes it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
}

impl Server {
    /// Where it listens, with the true port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it ends.
    pub async fn over(self) {}

    /// Stops accepting, ends the connections, and waits for that.
    pub async fn shutdown(self) {}
}

/// Serves Flight SQL and executors' control streams.
///
/// # Errors
/// `InvalidConfig` for an address that is not loopback without `insecure`, or that cannot be bound.
pub async fn serve(_coordinator: Arc<Coordinator>, options: ServeOptions) -> Result<Server> {
    check_bind(options.bind, options.insecure)?;
    Err(Error::unsupported("serve"))
}

/// Refuses an address that others can reach, unless that was asked for.
pub(crate) fn check_bind(bind: SocketAddr, insecure: bool) -> Result<()> {
    if bind.ip().is_loopback() {
        return Ok(());
    }
    if insecure {
        tracing::warn!(%bind, "listening beyond this machine without authentication and encryption");
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidConfig,
        format!("{bind} can be reached from other machines, and this version neither authenticates nor encrypts"),
    )
    .with_help("bind 127.0.0.1, or pass --insecure on a network where everybody may read and run everything"))
}
