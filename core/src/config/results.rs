//! Settings of results that clients fetch by ticket.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;

/// Settings of results that clients fetch by ticket. Rows that a client reads as they come, as ours do, are not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResultsConfig {
    /// How long a result can be fetched, and fetched again, after the last call about it. 10 min: a client in between may show a
    /// page, or hand tickets to other processes.
    #[serde(with = "duration")]
    pub ttl: Duration,
    /// Tickets that one result is divided into; neighbouring partitions share one beyond it. 64: drivers open all of them at once.
    pub endpoints_max: u32,
    /// Results that are kept at a time; a client that wants one more is refused.
    pub kept_max: u32,
}

impl Default for ResultsConfig {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(600), endpoints_max: 64, kept_max: 10_000 }
    }
}
