//! What the scheduler waits for: backoffs, silences and stragglers. Timers that turn out to be early are armed again, so that a heartbeat costs
//! nothing here.

use std::collections::BTreeSet;

use windrow_core::clock::Millis;
use windrow_core::ids::{ExecutorId, JobId};

/// Armed timers.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// Partitions whose backoff ends.
    delayed: BTreeSet<(Millis, JobId, usize, u32)>,
    /// When to look for stragglers of a stage.
    looks: BTreeSet<(Millis, JobId, usize)>,
    /// When to look whether an executor has been silent; one entry each connected executor.
    silence: BTreeSet<(Millis, ExecutorId)>,
    /// The time last asked for.
    pub(crate) announced: Option<Millis>,
}

impl Timers {
    pub(crate) fn delay(&mut self, until: Millis, job: JobId, stage: usize, partition: u32) {
        self.delayed.insert((until, job, stage, partition));
    }

    /// Backoffs that are over.
    pub(crate) fn due_delayed(&mut self, now: Millis) -> Vec<(JobId, usize, u32)> {
        let mut due = Vec::new();
        while let Some(&entry) = self.delayed.first()
            && entry.0 <= now
        {
            self.delayed.remove(&entry);
            due.push((entry.1, entry.2, entry.3));
        }
        due
    }

    pub(crate) fn look(&mut self, at: Millis, job: JobId, stage: usize) {
        self.looks.insert((at, job, stage));
    }

    /// Stages to look at; each is to be looked at again or forgotten.
    pub(crate) fn due_looks(&mut self, now: Millis) -> Vec<(JobId, usize)> {
        let later = self.looks.split_off(&(Millis(now.0.saturating_add(1)), JobId(0), 0));
        std::mem::replace(&mut self.looks, later).into_iter().map(|(_, job, stage)| (job, stage)).collect()
    }

    pub(crate) fn watch(&mut self, at: Millis, executor: ExecutorId) {
        self.silence.insert((at, executor));
    }

    /// Executors to look at; each is to be watched again or forgotten.
    pub(crate) fn due_silence(&mut self, now: Millis) -> Vec<ExecutorId> {
        let mut due = Vec::new();
        while let Some(&entry) = self.silence.first()
            && entry.0 <= now
        {
            self.silence.remove(&entry);
            due.push(entry.1);
        }
        due
    }

    /// Forgets a job that ended.
    pub(crate) fn forget_job(&mut self, job: JobId) {
        self.delayed.retain(|entry| entry.1 != job);
        self.looks.retain(|entry| entry.1 != job);
    }

    pub(crate) fn has_delayed(&self, job: JobId) -> bool {
        self.delayed.iter().any(|entry| entry.1 == job)
    }

    /// The earliest timer.
    pub(crate) fn next(&self) -> Option<Millis> {
        let delayed = self.delayed.first().map(|entry| entry.0);
        let silence = self.silence.first().map(|entry| entry.0);
        let look = self.looks.first().map(|entry| entry.0);
        delayed.into_iter().chain(silence).chain(look).min()
    }
}
