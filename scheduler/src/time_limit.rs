//! Jobs that take longer than they may. A job's time begins when it is admitted, not when it comes: how long it waits is for others to
//! say. It ends with the last result partition, and begins anew if a part of the result is lost and computed again.

use windrow_core::clock::Millis;
use windrow_core::failure::CancelReason;

use crate::Scheduler;
use crate::event::JobState;
use crate::job::Job;
use crate::status::JobPhase;
use crate::timers::Timers;

impl Job {
    /// Its time begins now.
    pub(crate) fn start_clock(&mut self, now: Millis, timers: &mut Timers) {
        self.ends_at = self.time_limit.map(|limit| now.after(limit));
        self.ends_at.into_iter().for_each(|at| timers.limit(at, self.id));
    }

    /// It is done in time.
    pub(crate) fn stop_clock(&mut self, timers: &mut Timers) {
        self.ends_at.take().into_iter().for_each(|at| timers.unlimit(at, self.id));
    }
}

impl Scheduler {
    /// Ends the jobs whose time is over.
    pub(crate) fn end_late_jobs(&mut self) {
        for id in self.timers.due_limits(self.now) {
            if self.jobs.get(&id).is_some_and(|job| job.phase == JobPhase::Running) {
                self.end_job(id, JobState::Cancelled(CancelReason::Deadline));
            }
        }
    }
}
