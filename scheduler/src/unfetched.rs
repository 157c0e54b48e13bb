//! Rows that nobody reads: a job whose finished result partitions pile up is held, its other result partitions do not begin until
//! somebody reads. Results are on executors' disks at worst, so this is about disks, and about work that may be for nothing.
//!
//! A reader is never kept waiting by it, whatever it reads in whatever order:
//! - what a reader waits for begins even while the job is held ([`Event::ResultAwaited`](crate::Event::ResultAwaited) with a partition);
//! - somebody who waits for the end, and reads only then, moves the limit on each time that they ask (the same without a partition);
//! - a partition counts as read when its first row leaves, so that a slow reader does not hold its own job.

use windrow_core::ids::JobId;

use crate::Scheduler;
use crate::faults::Fault;
use crate::job::Job;
use crate::stage_state::State;

/// What a job's result has that nobody has read.
#[derive(Debug)]
pub(crate) struct Unfetched {
    /// Bytes of committed result partitions of which no row has left.
    pub(crate) bytes: u64,
    /// Above this the job is held.
    limit: u64,
    /// How far the limit is moved on.
    step: u64,
    /// Partitions that readers wait for and that are not there; in order, because the lowest begins first.
    pub(crate) awaited: std::collections::BTreeSet<u32>,
}

impl Unfetched {
    /// Nothing yet, and at most so many bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self { bytes: 0, limit, step: limit, awaited: Default::default() }
    }
}

impl Scheduler {
    /// Somebody waits for a result partition, or for the end of a job.
    pub(crate) fn awaited(&mut self, id: JobId, partition: Option<u32>) {
        if self.faults.has(Fault::AwaitedForgotten) {
            return;
        }
        let is_live = self.with_job(id, |job, _| {
            match partition {
                Some(partition) => job.await_partition(partition),
                None => job.unfetched.limit = job.unfetched.bytes.saturating_add(job.unfetched.step),
            }
            job.refresh_ready(job.result());
            Ok(())
        });
        if is_live.is_none() {
            self.counters.stale_messages.job += 1;
        }
    }
}

impl Job {
    fn await_partition(&mut self, partition: u32) {
        let result = self.result();
        let state = self.stages.get(result).and_then(|stage| stage.partitions.get(partition as usize)).map(|entry| entry.state);
        if state.is_some_and(|state| !state.is_available()) {
            self.unfetched.awaited.insert(partition);
        }
    }

    /// A result partition moves from one state to another.
    pub(crate) fn count_unfetched(&mut self, partition: u32, from: State, to: State) {
        let entry = &self.stages[self.result()].partitions[partition as usize];
        let bytes = if entry.delivered { 0 } else { entry.bytes };
        if matches!(from, State::Committed(_)) {
            self.unfetched.bytes = self.unfetched.bytes.saturating_sub(bytes);
        }
        if matches!(to, State::Committed(_)) {
            self.unfetched.bytes = self.unfetched.bytes.saturating_add(bytes);
        }
        if to.is_available() {
            self.unfetched.awaited.remove(&partition);
        }
    }

    /// The first row of a result partition leaves.
    pub(crate) fn fetched(&mut self, partition: u32) {
        let result = self.result();
        let entry = &mut self.stages[result].partitions[partition as usize];
        if !std::mem::replace(&mut entry.delivered, true) && matches!(entry.state, State::Committed(_)) {
            self.unfetched.bytes = self.unfetched.bytes.saturating_sub(entry.bytes);
        }
        self.refresh_ready(result);
    }

    /// Whether too much of its result waits for a reader.
    pub(crate) fn is_held(&self) -> bool {
        self.unfetched.bytes > self.unfetched.limit
    }

    /// The queued partitions of a stage that may begin next: all of the first run, but of a held job's result only those in a row that
    /// readers wait for.
    pub(crate) fn next_run(&self, stage: usize) -> Option<(u32, u32)> {
        let queued = &self.stages[stage].queued;
        if stage != self.result() || !self.is_held() {
            return queued.first();
        }
        let wanted = |partition: u32| self.unfetched.awaited.contains(&partition) && queued.contains(partition);
        let start = self.unfetched.awaited.iter().copied().find(|&partition| wanted(partition))?;
        let end = (start..self.stages[stage].count()).find(|&partition| !wanted(partition)).unwrap_or(self.stages[stage].count());
        Some((start, end))
    }
}
