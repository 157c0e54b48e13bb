//! Settings of the scheduler and the coordinator. Their sources are the timings of `docs/ARCHITECTURE.md`.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::duration;

/// Settings of the scheduler and the coordinator. Durations are written as in `10s`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerConfig {
    /// An executor silent for this long gets no new slices.
    #[serde(with = "duration")]
    pub suspect_after: Duration,
    /// An executor silent for this long is dead; a reset connection is dead at once.
    #[serde(with = "duration")]
    pub dead_after: Duration,
    /// Attempts of one partition that may fail before the job does.
    pub attempts_max: u32,
    /// Executors that may be lost while they run the same partition before the job fails, the last one while it runs nothing else;
    /// as many more as were lost meanwhile without it, because those happen anyway, up to three times as many.
    pub deaths_max: u32,
    /// Attempts of a job that may fail in passing (a store, a connection), in percent of its attempts; always at least 20.
    pub retry_percent: u32,
    /// A partition that runs for at least this long, and far longer than its input explains, gets a copy on another executor. 0s turns
    /// copies off.
    #[serde(with = "duration")]
    pub speculate_after: Duration,
    /// Times one stage's outputs may be computed again before the job fails.
    pub generations_max: u32,
    /// How long jobs wait while no executor is connected.
    #[serde(with = "duration")]
    pub no_executor_deadline: Duration,
    /// First backoff after a transient failure; doubles up to 60 s.
    #[serde(with = "duration")]
    pub backoff: Duration,
    /// Input, as measured, that is worth a slot: partitions that read less than this share one. 0 gives each its own. 64 KB: less is
    /// read faster than another task starts.
    pub slice_bytes: ByteSize,
    /// Jobs that run at a time; more are queued. Whoever runs the fewest is served first, and each user's in order of arrival.
    pub jobs_max: u32,
    /// Jobs that wait; more are refused.
    pub queue_max: u32,
    /// Jobs of one user that run at a time; more are queued. Less than `jobs_max`, so that nobody takes all places.
    pub user_jobs_max: u32,
    /// Jobs of one user that wait; more are refused. Less than `queue_max`, so that nobody takes all places.
    pub user_queue_max: u32,
    /// Slots that jobs of one user may hold together, in percent of those of all executors. Nothing that runs is taken away, so below
    /// 100 there is always room for somebody else, however long one user's queries run. 100: a user alone gets everything.
    pub user_slots_percent: u32,
    /// The longest time that a job of anybody may run, from its admission; `windrow.query.time_limit` may be less. 0s is no limit.
    #[serde(with = "duration")]
    pub time_limit_max: Duration,
    /// Keeps every stage's outputs until its job ends, so that a lost executor costs only what it held; kept outputs are the first to
    /// go to disk when memory is short. Off, outputs are released once all consumers have committed: less memory, but a loss may run
    /// released stages again. Always off where all executors live in the coordinator's own process, which can only end as a whole.
    pub keep_outputs: bool,
    /// Where the shared tables are kept that CREATE TABLE makes: a folder, absolute, or a prefix in an object store, which all executors
    /// reach under the same name. Empty: there is none, and CREATE TABLE makes temporary tables of few rows, in memory; where all
    /// executors are on this machine by design, it is the folder `warehouse` of `state_dir`, or one that goes with the process.
    pub warehouse: String,
    /// The folder in which the catalog outlives the scheduler: schemas, external tables and views. One scheduler uses it at a time.
    /// Without it the catalog ends with the process.
    pub state_dir: Option<PathBuf>,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            suspect_after: Duration::from_secs(3),
            dead_after: Duration::from_secs(10),
            attempts_max: 4,
            deaths_max: 3,
            retry_percent: 10,
            speculate_after: Duration::from_secs(2),
            generations_max: 4,
            no_executor_deadline: Duration::from_secs(60),
            backoff: Duration::from_secs(1),
            slice_bytes: ByteSize::kb(64),
            jobs_max: 256,
            queue_max: 4096,
            user_jobs_max: 192,
            user_queue_max: 3072,
            user_slots_percent: 100,
            time_limit_max: Duration::ZERO,
            keep_outputs: true,
            warehouse: String::new(),
            state_dir: None,
        }
    }
}
