//! Settings of an executor.

use std::path::PathBuf;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize};

/// Settings of an executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutorConfig {
    /// Partitions computed at a time. 0 takes the cores of the machine.
    pub slots: u32,
    /// Memory for operators, shuffle data and results, and what else the process has resident: at most a quarter more. 0 or `auto` takes three
    /// quarters of what the machine has or the process's cgroup allows, divided by the executors started together.
    #[serde(deserialize_with = "size_or_auto")]
    pub memory_limit: ByteSize,
    /// Where segments and operators spill: a folder, or several as `PATH` has them, which get files in turn. Empty takes a folder of
    /// the system's temporary directory.
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

/// A size, or the word `auto` for 0.
fn size_or_auto<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        Auto,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Setting {
        Word(Word),
        Size(ByteSize),
    }
    Ok(match Setting::deserialize(deserializer)? {
        Setting::Word(Word::Auto) => ByteSize::b(0),
        Setting::Size(size) => size,
    })
}
