//! Results that clients read more than once. A job whose result is kept stays open when it has succeeded, until it is released: its
//! result is then all that it holds. What of it is lost is computed again, from the leaves if need be, as in a running job.
//!
//! Rows that were read must come back the same. A lost partition whose stage repeats itself runs again; where another run may give other
//! rows, or deal them otherwise, the job fails as soon as anything was read of it ([`Job::delivered`]).

use windrow_core::ids::JobId;

use crate::Scheduler;
use crate::faults::Fault;
use crate::job::{Cx, Job};

impl Scheduler {
    /// A client keeps a job's result.
    pub(crate) fn keep_result(&mut self, id: JobId) {
        if self.with_job(id, |job, _| Ok(job.keep())) != Some(true) {
            self.counters.stale_messages.job += 1;
        }
    }
}

impl Job {
    /// From now on the result is kept. Says whether it could be: what has left already may be gone.
    fn keep(&mut self) -> bool {
        let result = self.result();
        let has_left = self.stages.get(result).is_none_or(|stage| stage.partitions.iter().any(|entry| entry.delivered));
        let is_news = !self.is_kept && !has_left;
        self.is_kept |= is_news;
        is_news
    }

    /// Releases what a kept result was made from, once it is complete.
    pub(crate) fn shed(&mut self, cx: &mut Cx<'_>) {
        let result = self.result();
        if !self.is_kept || cx.faults.has(Fault::KeptWhole) || !self.stages.get(result).is_some_and(|stage| stage.is_complete()) {
            return;
        }
        for stage in (0..result).filter(|&stage| !self.is_wanted(stage)).collect::<Vec<_>>() {
            if !self.stages[stage].touched.is_empty() {
                self.release(cx, stage);
            }
        }
    }
}
