//! The life of jobs: admission, success, failure, cancellation, release. The states are drawn at [`JobState`].

use std::sync::Arc;
use std::time::Duration;

use windrow_core::ErrorKind;
use windrow_core::failure::{CancelReason, Failed, Failure};
use windrow_core::ids::{AttemptId, JobId, StageId};
use windrow_core::stage::StageGraph;

use crate::Scheduler;
use crate::event::{Action, JobState};
use crate::faults::Fault;
use crate::job::Job;
use crate::status::JobPhase;

/// How many released jobs are remembered, to know a repeated submission.
const RELEASED_MAX: usize = 4096;

impl Job {
    /// Whether it can still run.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.phase, JobPhase::Queued | JobPhase::Running | JobPhase::Succeeded)
    }
}

impl Scheduler {
    pub(crate) fn submit(&mut self, id: JobId, graph: Arc<StageGraph>, user: Arc<str>, time_limit: Option<Duration>) {
        if self.jobs.contains_key(&id) || self.released.contains(&id) {
            self.counters.stale_messages.job += 1;
            return;
        }
        self.counters.jobs_submitted += 1;
        self.next_seq += 1;
        let invalid = graph.validate().err();
        let graph = if invalid.is_some() { Arc::default() } else { graph };
        let mut job = Job::new(id, self.next_seq, Arc::clone(&user), graph, self.now, self.unfetched_max);
        job.time_limit = time_limit;
        self.jobs.insert(id, job);
        if let Some(error) = invalid {
            return self.end_job(id, JobState::Failed(Failed::fatal(&error)));
        }
        self.admission.wait(&user, self.next_seq, id);
        self.admit();
        if self.admission.is_waiting(&user, self.next_seq, id) {
            if let Some(full) = self.full(&user) {
                let failure = Failure::Fatal { kind: ErrorKind::ResourcesExhausted };
                return self.end_job(id, JobState::Failed(Failed::new(failure, full)));
            }
            self.out.push(Action::JobState { job: id, state: JobState::Queued });
        }
    }

    /// Which bound the last job of `user` exceeds, if it exceeds one.
    fn full(&self, user: &str) -> Option<String> {
        let (running, waiting) = self.admission.of(user);
        if waiting > self.config.user_queue_max as usize {
            let most = self.config.user_queue_max;
            return Some(format!(
                "{running} jobs of {user} run and {most} wait, which is scheduler.user_queue_max; wait for some of them to end"
            ));
        }
        let (running, most) = (self.admission.running(), self.config.queue_max);
        (self.admission.waiting() > most as usize)
            .then(|| format!("{running} jobs run and {most} wait, which is scheduler.queue_max; try again later or raise it"))
    }

    /// Starts waiting jobs while there is room.
    fn admit(&mut self) {
        while let Some(id) = self.admission.next(&self.config) {
            let Some(job) = self.jobs.get_mut(&id) else { break };
            self.admission.leave(&job.user, job.seq, id);
            self.admission.started(&job.user);
            job.phase = JobPhase::Running;
            job.start_clock(self.now, &mut self.timers);
            self.hungry.refresh(job);
            self.out.push(Action::JobState { job: id, state: JobState::Running });
        }
    }

    /// Moves a job on after a change: it succeeds once its result is complete, and runs again if that is lost.
    pub(crate) fn follow_up(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let open = job.stages.get(job.result()).map_or(0, |stage| stage.open);
        match job.phase {
            JobPhase::Running if open == 0 => {
                job.phase = JobPhase::Succeeded;
                job.stop_clock(&mut self.timers);
                self.counters.jobs_succeeded += u64::from(!std::mem::replace(&mut job.succeeded_before, true));
                let groups = job.groups(&self.executors, job.result());
                self.out.push(Action::JobState { job: id, state: JobState::Succeeded(groups.to_vec()) });
                self.admission.ended(&job.user);
            }
            JobPhase::Succeeded if open > 0 => {
                job.phase = JobPhase::Running;
                job.start_clock(self.now, &mut self.timers);
                self.admission.started(&job.user);
                self.out.push(Action::JobState { job: id, state: JobState::Running });
            }
            _ => {}
        }
        self.hungry.refresh(job);
        self.admit();
    }

    pub(crate) fn cancel_job(&mut self, id: JobId, why: CancelReason) {
        match self.jobs.get(&id).map(|job| job.phase) {
            Some(JobPhase::Queued | JobPhase::Running) => self.end_job(id, JobState::Cancelled(why)),
            _ => self.counters.stale_messages.job += 1,
        }
    }

    pub(crate) fn delivered(&mut self, id: JobId, partition: u32, attempt: Option<AttemptId>) {
        match self.with_job(id, |job, cx| job.delivered(cx, partition, attempt)) {
            Some(true) => {}
            Some(false) => self.counters.stale_messages.attempt += 1,
            None if self.jobs.get(&id).is_none_or(|job| !job.is_active()) => self.counters.stale_messages.job += 1,
            None => {}
        }
    }

    /// Forgets a job, ending it first if it runs.
    pub(crate) fn release_job(&mut self, id: JobId) {
        match self.jobs.get(&id).map(|job| job.phase) {
            None => {
                self.counters.stale_messages.job += 1;
                return;
            }
            Some(JobPhase::Queued | JobPhase::Running) => self.end_job(id, JobState::Cancelled(CancelReason::Client)),
            Some(JobPhase::Succeeded) => self.clear_job(id, CancelReason::JobEnded),
            Some(JobPhase::Failed | JobPhase::Cancelled) => {}
        }
        self.jobs.remove(&id);
        self.released.push_back(id);
        if self.released.len() > RELEASED_MAX {
            self.released.pop_front();
        }
    }

    /// Ends a job for good: its attempts are cancelled and its outputs dropped at once.
    pub(crate) fn end_job(&mut self, id: JobId, state: JobState) {
        let why = match &state {
            JobState::Cancelled(why) => *why,
            _ => CancelReason::JobEnded,
        };
        self.clear_job(id, why);
        if let Some(job) = self.jobs.get_mut(&id) {
            let is_cancelled = matches!(state, JobState::Cancelled(_));
            job.phase = if is_cancelled { JobPhase::Cancelled } else { JobPhase::Failed };
            self.counters.jobs_cancelled += u64::from(is_cancelled);
            self.counters.jobs_failed += u64::from(!is_cancelled);
            self.out.push(Action::JobState { job: id, state });
        }
        if !self.faults.has(Fault::AdmissionForgotten) {
            self.admit();
        }
    }

    /// Takes everything from a job that it owns: attempts, queue entries, timers, outputs.
    fn clear_job(&mut self, id: JobId, why: CancelReason) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        for (_, attempt) in std::mem::take(&mut job.attempts) {
            self.executors.mark_cancelled(attempt.executor, attempt.id);
            self.counters.attempts_cancelled += 1;
            self.out.push(Action::Cancel { executor: attempt.executor, attempt: attempt.id, why });
        }
        job.copies = 0;
        let stages = u32::try_from(job.stages.len()).unwrap_or(u32::MAX);
        for (executor, incarnation) in std::mem::take(&mut job.touched) {
            if self.executors.current(executor, incarnation).is_some() {
                (0..stages).for_each(|stage| self.executors.drop_stage(executor, id, StageId(stage)));
                self.out.push(Action::ReleaseJob { executor, job: id });
            }
        }
        if job.phase == JobPhase::Running {
            self.admission.ended(&job.user);
        }
        self.admission.leave(&job.user, job.seq, id);
        (job.stages, job.graph) = (Vec::new(), Arc::default());
        job.ready.clear();
        job.ends_at = None;
        job.unsettled.clear();
        job.undecided.clear();
        self.hungry.refresh(job);
        let seq = job.seq;
        let mine: Vec<_> = self.alone.range((seq, id, 0, 0)..).take_while(|(key, _)| key.0 == seq).map(|(key, _)| *key).collect();
        for key in mine.into_iter().filter(|_| !self.faults.has(Fault::QueueEntryLeaked)) {
            if let Some(Some(executor)) = self.alone.remove(&key) {
                self.executors.update(executor, |executor| executor.reserved = None);
            }
        }
        self.timers.forget_job(id);
    }

    /// Slots of a job's attempt are free again.
    pub(crate) fn slots_back(&mut self, id: JobId, slots: u32) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.slots = job.slots.saturating_sub(slots);
            self.hungry.refresh(job);
        }
    }
}
