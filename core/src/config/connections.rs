//! Settings of the connections that clients make. Next: `session.rs`.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::duration;

/// Settings of the connections that clients make, to a scheduler or an executor. They do not concern the processes of a cluster among
/// themselves. 0 is no limit in each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionsConfig {
    /// How long a connection may take to make its first call that is allowed.
    #[serde(with = "duration")]
    pub first_call: Duration,
    /// How long a connection may be without a call. Clients connect again by themselves. One that a session belongs to, because neither
    /// a login nor a cookie or header names the session, stays as long as that session: see `session.idle_max`.
    #[serde(with = "duration")]
    pub idle: Duration,
    /// How old a connection may become before it takes no more calls and its client makes another one, so that load spreads and changed
    /// certificates are shown. Calls that are open go on to their end, however long that takes; a session's own connection stays.
    #[serde(with = "duration")]
    pub age: Duration,
    /// How long the server waits for a whole message of a call that a client makes, the next batch of an upload included. 5 min: a client may
    /// compute its next batch, and a message of 16 MiB comes over a line of 55 KB/s.
    #[serde(with = "duration")]
    pub message: Duration,
    /// How long a client may take to send all messages of one call, such as an upload.
    #[serde(with = "duration")]
    pub request: Duration,
    /// Bytes of all messages of one call. 1 TiB: what comes in goes to disk at once, but it has to end somewhere.
    pub request_bytes: ByteSize,
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self {
            first_call: Duration::from_secs(10),
            idle: Duration::from_secs(5 * 60),
            age: Duration::from_secs(3600),
            message: Duration::from_secs(5 * 60),
            request: Duration::from_secs(12 * 3600),
            request_bytes: ByteSize::tib(1),
        }
    }
}
