//! Where a session comes from: an engine in this process, or a scheduler elsewhere. Next: `session.rs`.

use windrow_core::config::QueryConfig;
use windrow_core::{Error, Result};

use crate::session::Session;

/// Opens a session: `None` runs the engine in this process, with a slot for each core; `Some("grpc://127.0.0.1:8815")` asks a
/// scheduler.
///
/// # Errors
/// `InvalidConfig` for an url that is none of ours, `Unavailable` if nobody answers there.
pub async fn connect(url: Option<&str>) -> Result<Session> {
    ConnectOptions { url: url.map(str::to_owned), ..ConnectOptions::default() }.connect().await
}

/// How to connect. `slots`, `memory_limit` and `executors` shape the engine in this process and do not go with an url.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The scheduler's url; `None` runs the engine in this process.
    pub url: Option<String>,
    /// Partitions that each executor computes at a time; `None` divides the cores of the machine.
    pub slots: Option<u32>,
    /// Bytes of each executor's memory pool; `None` or 0 divides three quarters of the machine's memory.
    pub memory_limit: Option<u64>,
    /// Executors in this process, at least one.
    pub executors: u32,
    /// Settings that the session begins with.
    pub query: QueryConfig,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { url: None, slots: None, memory_limit: None, executors: 1, query: QueryConfig::default() }
    }
}

impl ConnectOptions {
    /// Opens a session. An engine in this process lives as long as its last session.
    ///
    /// # Errors
    /// `InvalidConfig` for options that do not go together, `Unavailable` if nobody answers at the url.
    pub async fn connect(self) -> Result<Session> {
        Err(Error::unsupported("connecting"))
    }
}
