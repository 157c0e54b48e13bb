//! What people are told of a running cluster: executors, jobs, progress and counters. Plain data that crosses the wire.

use serde::{Deserialize, Serialize};
use windrow_core::ids::{ExecutorId, Incarnation, JobId};

/// A cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Every executor that is or was connected, by id.
    pub executors: Vec<ExecutorStatus>,
    /// Jobs that are queued or run, and the last ones that ended, by age.
    pub jobs: Vec<JobStatus>,
    /// Counters of the scheduler since its start, as `(name, value)`.
    pub counters: Vec<(String, u64)>,
}

/// Whether an executor is heard from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutorState {
    /// Heard from in time.
    Alive,
    /// Silent for a while; gets no new slices.
    Suspect,
    /// Was asked to leave: finishes what it runs, and gets no new slices.
    Leaving,
    /// Gone, unasked.
    Dead,
    /// Gone, as it was asked to.
    Left,
}

/// One executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorStatus {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: ExecutorId,
    /// Its current incarnation.
    pub incarnation: Incarnation,
    /// Its process; 0 if it lives in the coordinator's.
    pub pid: u32,
    /// Partitions it computes at a time.
    pub slots: u32,
    /// Slots that are taken.
    pub slots_used: u32,
    /// Its memory limit in bytes.
    pub memory_limit: u64,
    /// Bytes in use of its memory pool.
    pub memory_bytes: u64,
    /// Bytes of shuffle segments in memory.
    pub store_bytes: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Where its shuffle data is fetched; empty in process.
    pub address: String,
    /// Whether it is heard from.
    pub state: ExecutorState,
    /// How processes under its name ended, the last ones, oldest first; known of supervised processes only.
    pub deaths: Vec<String>,
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum JobState {
    /// Waits for its turn.
    #[default]
    Queued,
    /// Has attempts.
    Running,
    /// All its results are committed.
    Succeeded,
    /// Ended with an error.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

impl JobState {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// How far a job is. All counts start at 0 and never go back, except that lost outputs are taken off again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobProgress {
    /// Where it is in its life.
    pub state: JobState,
    /// Stages that are complete.
    pub stages_done: u32,
    /// Stages.
    pub stages_total: u32,
    /// Partitions that are committed, over all stages.
    pub tasks_done: u32,
    /// Partitions, over all stages.
    pub tasks_total: u32,
    /// Rows written by attempts that succeeded.
    pub rows: u64,
    /// Bytes written to the shuffle by attempts that succeeded.
    pub shuffle_bytes: u64,
    /// Bytes written to disk by operators.
    pub spill_bytes: u64,
    /// Attempts that were launched.
    pub launches: u64,
    /// Attempts that did not succeed.
    pub retries: u64,
    /// Committed partitions whose output was lost, with their executor or because it could not be read.
    pub lost: u64,
    /// Partitions that were computed again because their output was lost and still needed.
    pub reruns: u64,
    /// Copies of attempts that took far longer than others; what they compute twice is in no other count.
    pub copies: u64,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its number.
    pub id: JobId,
    /// Whose it is; empty where nobody is asked for a name.
    pub user: String,
    /// What was submitted.
    pub sql: String,
    /// When, in milliseconds since 1970.
    pub submitted: u64,
    /// How far it is.
    pub progress: JobProgress,
    /// The sentence it failed with.
    pub error: Option<String>,
}
