//! Settings of a session's queries.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::duration;
use crate::error::{Error, ErrorKind, Result, nearest};

/// The setting that travels with a job to its executors, in bytes.
pub const MEMORY_LIMIT: &str = "windrow.query.memory_limit";

/// Settings of a session's queries; `SET windrow.query.<key> = <value>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryConfig {
    /// Partitions of each exchange and scan. 0 computes them from the cluster's live slots.
    pub partitions: u32,
    /// Queries whose files are smaller than this in total run as one task on one executor, without exchanges. 8 MB: below it one
    /// core scans faster than a second stage starts.
    pub small_input: ByteSize,
    /// A join's side below this size, by estimate or as measured, is sent whole to every task.
    pub broadcast_limit: ByteSize,
    /// Let the keys of a join's reduced side drop rows of the other side where they are scanned.
    pub runtime_filters: bool,
    /// Most memory that the operators of one query take on each executor; beyond it they spill. 0 or `none`: what the executor has.
    pub memory_limit: ByteSize,
    /// How long a statement may be planned, and how long its job may run, from its admission: time in the queue does not count, time in
    /// which the job waits for its reader does. Beyond it the job is ended and nothing of it is left. 0 or `none`: no limit but
    /// `scheduler.time_limit_max`, which a session cannot exceed.
    #[serde(with = "duration")]
    pub time_limit: Duration,
    /// The folder that relative paths in the query are read from; empty is the coordinator's working directory.
    pub directory: String,
    /// Send text and bytes to drivers as Arrow's views, as they are in the engine, instead of as plain arrays, which every driver
    /// knows.
    pub wire_views: bool,
    /// Whether a query ends when nobody reads its result any more before it is complete. Off, it runs on until its result expires,
    /// for readers spread over processes.
    pub cancel_on_drop: bool,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            partitions: 0,
            small_input: ByteSize::mb(8),
            broadcast_limit: ByteSize::mib(32),
            runtime_filters: true,
            memory_limit: ByteSize::b(0),
            time_limit: Duration::ZERO,
            directory: String::new(),
            wire_views: false,
            cancel_on_drop: true,
        }
    }
}

impl QueryConfig {
    /// The keys, for listings and suggestions.
    pub const KEYS: [&str; 9] = [
        "partitions",
        "small_input",
        "broadcast_limit",
        "runtime_filters",
        "memory_limit",
        "time_limit",
        "directory",
        "wire_views",
        "cancel_on_drop",
    ];

    /// Sets one key from text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an unknown key, with the nearest known one, or for a value that does not fit.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "partitions" => {
                self.partitions = value.trim().parse().ok().filter(|count| *count <= 65_536).ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidConfig,
                        format!("windrow.query.partitions = '{value}' is not a count from 0 to 65536"),
                    )
                })?;
            }
            "small_input" => self.small_input = ByteSize::b(super::parse_size(value)?),
            "broadcast_limit" => self.broadcast_limit = ByteSize::b(super::parse_size(value)?),
            "runtime_filters" => self.runtime_filters = switch(key, value)?,
            "cancel_on_drop" => self.cancel_on_drop = switch(key, value)?,
            "memory_limit" => {
                let bytes = if value.trim().eq_ignore_ascii_case("none") { 0 } else { super::parse_size(value)? };
                self.memory_limit = ByteSize::b(bytes);
            }
            "time_limit" => {
                let is_none = value.trim().eq_ignore_ascii_case("none");
                self.time_limit = if is_none { Duration::ZERO } else { super::parse_duration(value)? };
            }
            "directory" => self.directory = value.to_owned(),
            "wire_views" => self.wire_views = switch(key, value)?,
            _ => {
                return Err(Error::new(ErrorKind::InvalidConfig, format!("no setting named 'windrow.query.{key}'"))
                    .with_suggestion(nearest(key, Self::KEYS).map(|key| format!("windrow.query.{key}"))));
            }
        }
        Ok(())
    }

    /// The value of a key as text, `None` for an unknown key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        Some(match key {
            "partitions" => self.partitions.to_string(),
            "small_input" => self.small_input.to_string(),
            "broadcast_limit" => self.broadcast_limit.to_string(),
            "runtime_filters" => self.runtime_filters.to_string(),
            "memory_limit" => self.memory_limit.to_string(),
            "time_limit" => humantime::format_duration(self.time_limit).to_string(),
            "directory" => self.directory.clone(),
            "wire_views" => self.wire_views.to_string(),
            "cancel_on_drop" => self.cancel_on_drop.to_string(),
            _ => return None,
        })
    }
}

fn switch(key: &str, value: &str) -> Result<bool> {
    value.trim().to_lowercase().parse().map_err(|source| {
        let what = format!("windrow.query.{key} = '{value}' is neither true nor false");
        Error::new(ErrorKind::InvalidConfig, what).with_source(source)
    })
}
