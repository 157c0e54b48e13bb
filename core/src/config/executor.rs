//! Settings of an executor.

use std::path::PathBuf;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// Settings of an executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutorConfig {
    /// Partitions computed at a time. 0 takes the cores of the machine.
    pub slots: u32,
    /// The memory pool for operators, shuffle data and results. 0 takes three quarters of the machine's memory, divided by
    /// the executors started together.
    pub memory_limit: ByteSize,
    /// Where segments and operators spill; empty takes a folder of the system's temporary directory.
    pub spill_dir: Option<PathBuf>,
    /// Most bytes on disk in the spill directory. 100 GB: what DataFusion allows by default.
    pub spill_limit: ByteSize,
    /// The share of the memory limit, in percent, from which the store writes cold segments to disk behind the queries. 60: early
    /// enough that an operator that asks synchronously finds clean segments to drop.
    pub evict_from_percent: u32,
    /// Bytes in flight of one shuffle stream. 8 MiB: two full batches of wide rows; with 64 peers that is 512 MiB.
    pub fetch_window: ByteSize,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self {
            slots: 0,
            memory_limit: ByteSize::b(0),
            spill_dir: None,
            spill_limit: ByteSize::gb(100),
            evict_from_percent: 60,
            fetch_window: ByteSize::mib(8),
        }
    }
}
