//! Settings of results that clients fetch by ticket.

use std::time::Duration;

use bytesize::ByteSize;
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
    /// Results that are kept at a time. Beyond it those make room that were read to their end, the one that nobody has asked for longest
    /// first; where none was, a client that wants one more is refused.
    pub kept_max: u32,
    /// From where clients read: the scheduler, which relays, or the executors that hold the rows.
    pub fetch: Fetch,
    /// Bytes of a query's finished result partitions that nobody has begun to read; above it, partitions that have not begun wait for
    /// a reader. Somebody who waits for a partition, or who polls, is never kept waiting by it. 0 is no limit. 4 GiB: two minutes for a
    /// reader of 32 MB/s, and little of any disk.
    pub unfetched_max: ByteSize,
}

/// From where clients read a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fetch {
    /// From executors where that pays and is sure to work: large results, for clients on the same machine or in a network that the
    /// executor says it is reached from (`executor.client_networks`).
    #[default]
    Auto,
    /// From executors, whatever the size and wherever the client is.
    Direct,
    /// From the scheduler.
    Relay,
}

impl Default for ResultsConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(600),
            endpoints_max: 64,
            kept_max: 10_000,
            fetch: Fetch::Auto,
            unfetched_max: ByteSize::gib(4),
        }
    }
}
