//! Admission: which of the waiting jobs may start. Whoever runs the fewest comes first, and among them whoever came first, so that one
//! user with a thousand jobs holds up nobody else's. Next: `jobs.rs`, which starts and ends them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windrow_core::config::SchedulerConfig;
use windrow_core::ids::JobId;

/// Jobs that run and wait, of each user.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    running: u32,
    waiting: usize,
    users: BTreeMap<Arc<str>, User>,
}

/// What a user has.
#[derive(Debug, Default)]
struct User {
    running: u32,
    /// In order of arrival.
    waiting: BTreeSet<(u64, JobId)>,
}

impl Admission {
    /// Jobs that run.
    pub(crate) fn running(&self) -> u32 {
        self.running
    }

    /// Jobs that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Jobs of `user` that run, and that wait.
    pub(crate) fn of(&self, user: &str) -> (u32, usize) {
        self.users.get(user).map_or((0, 0), |user| (user.running, user.waiting.len()))
    }

    /// A job waits.
    pub(crate) fn wait(&mut self, user: &Arc<str>, seq: u64, job: JobId) {
        let is_new = self.users.entry(Arc::clone(user)).or_default().waiting.insert((seq, job));
        self.waiting += usize::from(is_new);
    }

    /// A job waits no more, if it did.
    pub(crate) fn leave(&mut self, user: &Arc<str>, seq: u64, job: JobId) {
        let Some(entry) = self.users.get_mut(user) else { return };
        self.waiting -= usize::from(entry.waiting.remove(&(seq, job)));
        self.forget_idle(user);
    }

    /// Whether a job waits.
    pub(crate) fn is_waiting(&self, user: &str, seq: u64, job: JobId) -> bool {
        self.users.get(user).is_some_and(|user| user.waiting.contains(&(seq, job)))
    }

    /// A job of `user` runs from now on.
    pub(crate) fn started(&mut self, user: &Arc<str>) {
        self.users.entry(Arc::clone(user)).or_default().running += 1;
        self.running += 1;
    }

    /// A job of `user` runs no more.
    pub(crate) fn ended(&mut self, user: &Arc<str>) {
        let Some(entry) = self.users.get_mut(user) else { return };
        entry.running = entry.running.saturating_sub(1);
        self.running = self.running.saturating_sub(1);
        self.forget_idle(user);
    }

    fn forget_idle(&mut self, user: &Arc<str>) {
        if self.users.get(user).is_some_and(|user| user.running == 0 && user.waiting.is_empty()) {
            self.users.remove(user);
        }
    }

    /// The job that starts next, if there is room for one that waits. Its cost is the number of users.
    pub(crate) fn next(&self, config: &SchedulerConfig) -> Option<JobId> {
        if self.running >= config.jobs_max.max(1) {
            return None;
        }
        let admissible = self.users.values().filter(|user| user.running < config.user_jobs_max.max(1));
        let firsts = admissible.filter_map(|user| user.waiting.first().map(|(seq, job)| (user.running, *seq, *job)));
        firsts.min().map(|(_, _, job)| job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(jobs_max: u32, user_jobs_max: u32) -> SchedulerConfig {
        SchedulerConfig { jobs_max, user_jobs_max, ..SchedulerConfig::default() }
    }

    #[test]
    fn security_m14_whoever_runs_the_fewest_is_next() {
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        let mut admission = Admission::default();
        for seq in 0..100 {
            admission.wait(&ann, seq, JobId(seq));
        }
        admission.wait(&bob, 100, JobId(100));
        let config = config(4, 3);
        assert_eq!(admission.next(&config), Some(JobId(0)), "nobody runs anything: the oldest");
        admission.leave(&ann, 0, JobId(0));
        admission.started(&ann);
        assert_eq!(admission.next(&config), Some(JobId(100)), "he came last, and runs nothing");
        admission.leave(&bob, 100, JobId(100));
        admission.started(&bob);
        for seq in 1..3 {
            assert_eq!(admission.next(&config), Some(JobId(seq)));
            admission.leave(&ann, seq, JobId(seq));
            admission.started(&ann);
        }
        assert_eq!((admission.running(), admission.waiting(), admission.of("ann")), (4, 97, (3, 97)));
        assert_eq!(admission.next(&config), None, "there is no room");
        admission.ended(&bob);
        assert_eq!(admission.next(&config), None, "there is room, and none for her");
        assert_eq!(admission.of("bob"), (0, 0));
        admission.ended(&ann);
        assert_eq!(admission.next(&config), Some(JobId(3)));
    }

    #[test]
    fn a_user_without_jobs_is_forgotten() {
        let ann: Arc<str> = "ann".into();
        let mut admission = Admission::default();
        admission.wait(&ann, 1, JobId(1));
        admission.wait(&ann, 1, JobId(1));
        assert!(admission.is_waiting("ann", 1, JobId(1)) && admission.waiting() == 1);
        admission.leave(&ann, 1, JobId(1));
        admission.leave(&ann, 1, JobId(1));
        admission.ended(&ann);
        assert!(admission.users.is_empty() && admission.waiting() == 0 && admission.running() == 0);
    }
}
