//! What the scheduler waits for: backoffs, silences and stragglers. Timers that turn out to be early are armed again, so that a
//! heartbeat costs nothing here.

use std::collections::{BTreeMap, BTreeSet};

use windrow_core::clock::Millis;
use windrow_core::ids::{ExecutorId, JobId};

/// Armed timers.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// Partitions whose backoff ends.
    delayed: BTreeSet<(Millis, JobId, usize, u32)>,
    /// When to look for stragglers of a stage.
    looks: BTreeSet<(Millis, JobId, usize)>,
    /// When jobs have run for as long as they may.
    limits: BTreeSet<(Millis, JobId)>,
    /// When to look whether an executor has been silent.
    silence: BTreeSet<(Millis, ExecutorId)>,
    /// The entry of each executor above: one, however often it registers.
    watched: BTreeMap<ExecutorId, Millis>,
    /// The time last asked for.
    pub(crate) announced: Option<Millis>,
}

/// Takes what is due out of a set that is ordered by time.
fn due<E: Ord + Copy>(entries: &mut BTreeSet<E>, now: Millis, at: impl Fn(&E) -> Millis) -> Vec<E> {
    let mut due = Vec::new();
    while let Some(entry) = entries.first().copied().filter(|entry| at(entry) <= now) {
        entries.remove(&entry);
        due.push(entry);
    }
    due
}

impl Timers {
    pub(crate) fn delay(&mut self, until: Millis, job: JobId, stage: usize, partition: u32) {
        self.delayed.insert((until, job, stage, partition));
    }

    /// Backoffs that are over.
    pub(crate) fn due_delayed(&mut self, now: Millis) -> Vec<(JobId, usize, u32)> {
        let due = due(&mut self.delayed, now, |entry| entry.0);
        due.into_iter().map(|(_, job, stage, partition)| (job, stage, partition)).collect()
    }

    pub(crate) fn look(&mut self, at: Millis, job: JobId, stage: usize) {
        self.looks.insert((at, job, stage));
    }

    /// Stages to look at; each is to be looked at again or forgotten.
    pub(crate) fn due_looks(&mut self, now: Millis) -> Vec<(JobId, usize)> {
        due(&mut self.looks, now, |entry| entry.0).into_iter().map(|(_, job, stage)| (job, stage)).collect()
    }

    pub(crate) fn limit(&mut self, at: Millis, job: JobId) {
        self.limits.insert((at, job));
    }

    pub(crate) fn unlimit(&mut self, at: Millis, job: JobId) {
        self.limits.remove(&(at, job));
    }

    /// Jobs whose time is over.
    pub(crate) fn due_limits(&mut self, now: Millis) -> Vec<JobId> {
        due(&mut self.limits, now, |entry| entry.0).into_iter().map(|(_, job)| job).collect()
    }

    /// Whether a job will be ended at this time.
    pub(crate) fn is_limited(&self, at: Millis, job: JobId) -> bool {
        self.limits.contains(&(at, job))
    }

    /// Looks at an executor at this time, or when it is to be looked at anyway before.
    pub(crate) fn watch(&mut self, at: Millis, executor: ExecutorId) {
        let before = self.watched.get(&executor).copied();
        if before.is_some_and(|before| before <= at) {
            return;
        }
        if let Some(before) = before {
            self.silence.remove(&(before, executor));
        }
        self.silence.insert((at, executor));
        self.watched.insert(executor, at);
    }

    /// Executors to look at; each is to be watched again or forgotten.
    pub(crate) fn due_silence(&mut self, now: Millis) -> Vec<ExecutorId> {
        let due: Vec<_> = due(&mut self.silence, now, |entry| entry.0).into_iter().map(|(_, executor)| executor).collect();
        due.iter().for_each(|executor| {
            self.watched.remove(executor);
        });
        due
    }

    /// Forgets a job that ended.
    pub(crate) fn forget_job(&mut self, job: JobId) {
        self.delayed.retain(|entry| entry.1 != job);
        self.looks.retain(|entry| entry.1 != job);
        self.limits.retain(|entry| entry.1 != job);
    }

    pub(crate) fn has_delayed(&self, job: JobId) -> bool {
        self.delayed.iter().any(|entry| entry.1 == job)
    }

    /// The earliest timer.
    pub(crate) fn next(&self) -> Option<Millis> {
        let delayed = self.delayed.first().map(|entry| entry.0);
        let silence = self.silence.first().map(|entry| entry.0);
        let look = self.looks.first().map(|entry| entry.0);
        let limit = self.limits.first().map(|entry| entry.0);
        delayed.into_iter().chain(silence).chain(look).chain(limit).min()
    }
}
