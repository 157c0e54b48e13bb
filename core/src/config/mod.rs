//! Settings: one documented struct per component. Flag > `WINDROW_*` > `windrow.toml` > default, merged in [`load`].

mod connections;
mod duration;
mod executor;
pub mod query;
mod results;
mod scheduler;
mod security;
mod session;

use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

pub use connections::ConnectionsConfig;
pub use executor::ExecutorConfig;
pub use query::QueryConfig;
pub use results::{Fetch, ResultsConfig};
pub use scheduler::SchedulerConfig;
pub use security::SecurityConfig;
pub use session::SessionConfig;

use crate::error::{Error, ErrorKind, Result, nearest};

/// Every setting of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The scheduler and the coordinator.
    pub scheduler: SchedulerConfig,
    /// Executors.
    pub executor: ExecutorConfig,
    /// Defaults of every session; `SET windrow.query.x = y` changes one session.
    pub query: QueryConfig,
    /// Results that clients fetch by ticket.
    pub results: ResultsConfig,
    /// Sessions of clients.
    pub session: SessionConfig,
    /// Connections that clients make.
    pub connections: ConnectionsConfig,
    /// Who may connect, and what their queries may reach.
    pub security: SecurityConfig,
}

/// Merges the defaults, the file at `path` if there is one, and the environment (`WINDROW_EXECUTOR__SLOTS` is `executor.slots`).
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] with the file, the key and the nearest known key.
pub fn load(path: Option<&Path>) -> Result<Config> {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    if let Some(path) = path {
        figment = figment.merge(Toml::file_exact(path));
    }
    let sections = ["SCHEDULER__", "EXECUTOR__", "QUERY__", "RESULTS__", "SESSION__", "CONNECTIONS__", "SECURITY__"];
    figment = figment.merge(
        Env::prefixed("WINDROW_")
            .filter(move |key| sections.iter().any(|section| key.as_str().to_uppercase().starts_with(section)))
            .split("__"),
    );
    figment.extract().map_err(|error| {
        let suggestion = match &error.kind {
            figment::error::Kind::UnknownField(field, known) => nearest(field, known.iter().copied()),
            _ => None,
        };
        Error::new(ErrorKind::InvalidConfig, error.to_string()).with_suggestion(suggestion)
    })
}

/// Parses a size such as `256MB`, `2GiB` or a count of bytes.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] with the text met and an example.
pub fn parse_size(text: &str) -> Result<u64> {
    text.trim().parse::<bytesize::ByteSize>().map(|size| size.as_u64()).map_err(|reason| {
        Error::new(
            ErrorKind::InvalidConfig,
            format!("'{text}' is not a size ({reason}); write it as 256MB, 2GB or a count of bytes"),
        )
    })
}

/// Parses a duration such as `500ms`, `30s` or `2m`.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] with the text met and an example.
pub fn parse_duration(text: &str) -> Result<std::time::Duration> {
    humantime::parse_duration(text.trim()).map_err(|reason| {
        Error::new(ErrorKind::InvalidConfig, format!("'{text}' is not a duration ({reason}); write it as 500ms, 30s or 2m"))
    })
}
