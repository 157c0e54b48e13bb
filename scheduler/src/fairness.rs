//! Fairness between jobs: whoever holds the fewest slots goes first, then whoever came first. A job alone takes everything; a job that
//! arrives gets every slot that becomes free until it holds as many as the others. Nothing that runs is taken away.

use std::collections::BTreeSet;

use windrow_core::ids::JobId;

use crate::job::Job;
use crate::status::JobPhase;

/// The running jobs that have something to launch, the next to be served first.
#[derive(Debug, Default)]
pub(crate) struct Hungry(BTreeSet<(u32, u64, JobId)>);

impl Hungry {
    /// The job to serve next.
    pub(crate) fn first(&self) -> Option<JobId> {
        self.0.first().map(|entry| entry.2)
    }

    /// All of them, in that order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = JobId> + '_ {
        self.0.iter().map(|entry| entry.2)
    }

    pub(crate) fn contains(&self, job: &Job) -> bool {
        job.hungry_as.is_some_and(|slots| self.0.contains(&(slots, job.seq, job.id)))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Enters, moves or removes a job after a change.
    pub(crate) fn refresh(&mut self, job: &mut Job) {
        let wants = job.phase == JobPhase::Running && !job.ready.is_empty();
        let key = wants.then_some(job.slots);
        if key == job.hungry_as {
            return;
        }
        if let Some(slots) = job.hungry_as {
            self.0.remove(&(slots, job.seq, job.id));
        }
        if let Some(slots) = key {
            self.0.insert((slots, job.seq, job.id));
        }
        job.hungry_as = key;
    }

    /// How many more slots a job that holds `slots` may take before others are served: its part of the cluster, rounded up.
    pub(crate) fn share(&self, live_slots: u64, slots: u32) -> u32 {
        let part = live_slots.div_ceil(self.len().max(1) as u64);
        u32::try_from(part.saturating_sub(u64::from(slots)).max(1)).unwrap_or(u32::MAX)
    }
}
