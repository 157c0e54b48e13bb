//! The fleet: executors register, fall silent, drain and go, and time passes over them. What their loss means for a job is in
//! `recovery.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use windrow_core::clock::Millis;
use windrow_core::failure::{CancelReason, Failed, Failure, LostHow, TransientKind};
use windrow_core::ids::{AttemptId, ExecutorId, Incarnation, JobId, StageId};
use windrow_core::message::Registration;

use crate::Scheduler;
use crate::event::{Action, JobState};
use crate::executors::Lease;
use crate::faults::Fault;
use crate::status::{ExecutorState, JobPhase};

/// How long a draining executor may finish what it runs and keep outputs that are still needed.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// What a job had on an executor.
#[derive(Default)]
struct Share {
    leases: Vec<Lease>,
    outputs: BTreeMap<StageId, Vec<u32>>,
}

impl Scheduler {
    /// Time is `now`: backoffs that are over end.
    pub(crate) fn pass_time(&mut self, now: Millis) {
        if now > self.now.after(self.config.dead_after) {
            // Nobody told us anything for so long that our own silence is likelier than everybody else's.
            self.listening_since = now;
        }
        self.now = now;
        for (id, stage, partition) in self.timers.due_delayed(now) {
            self.with_job(id, |job, cx| {
                job.wake(cx, stage, partition);
                Ok(())
            });
        }
    }

    pub(crate) fn tick(&mut self) {
        self.timers.announced = None;
        self.end_late_jobs();
        for executor in self.timers.due_silence(self.now) {
            self.look_at(executor);
        }
        let deadline = self.config.no_executor_deadline;
        let Some(since) = self.no_executor_since.filter(|_| self.executors.usable() == 0) else { return };
        let (now, unfinished) = (self.now, self.unfinished());
        let late = unfinished.filter(|(_, submitted)| now >= since.max(*submitted).after(deadline)).map(|(id, _)| id);
        for id in late.collect::<Vec<_>>() {
            let failure = Failure::Fatal { kind: windrow_core::ErrorKind::Unavailable };
            let seconds = deadline.as_secs();
            let what = format!(
                "no executor has been connected for {seconds} s; start one with `windrow executor --scheduler HOST:PORT` and run the query again"
            );
            self.end_job(id, JobState::Failed(Failed::new(failure, what)));
        }
    }

    /// Jobs that wait or run, with the time they came.
    fn unfinished(&self) -> impl Iterator<Item = (JobId, Millis)> + '_ {
        let waits = |phase| matches!(phase, JobPhase::Queued | JobPhase::Running);
        self.jobs.iter().filter(move |(_, job)| waits(job.phase)).map(|(&id, job)| (id, job.submitted_at))
    }

    /// Decides whether an executor has been silent too long.
    fn look_at(&mut self, id: ExecutorId) {
        let now = self.now;
        self.executors.update(id, |executor| executor.shunned_until = executor.shunned_until.filter(|until| *until > now));
        let Some(executor) = self.executors.get(id).filter(|executor| executor.is_connected()) else { return };
        let heard = executor.last_heard.max(self.listening_since);
        let (suspect_at, dead_at) = (heard.after(self.config.suspect_after), heard.after(self.config.dead_after));
        if self.now >= dead_at {
            return self.lose(id, LostHow::Silent);
        }
        let is_late = self.now >= suspect_at;
        if is_late && executor.is_live() {
            self.executors.update(id, |executor| executor.state = ExecutorState::Suspect);
        }
        let next = if is_late { dead_at } else { suspect_at.min(dead_at) };
        self.timers.watch(next.max(Millis(self.now.0.saturating_add(1))), id);
    }

    pub(crate) fn register(&mut self, id: ExecutorId, incarnation: Incarnation, registration: &Registration) {
        if let Some(executor) = self.executors.get(id) {
            let (last, is_connected) = (executor.incarnation, executor.is_connected());
            if incarnation <= last {
                self.counters.stale_messages.incarnation += 1;
                if incarnation < last || !is_connected {
                    self.out.push(Action::Fence { executor: id, incarnation });
                }
                return;
            }
            if is_connected && self.faults.has(Fault::StaleIncarnationAccepted) {
                self.executors.update(id, |executor| executor.incarnation = incarnation);
                return;
            }
            if is_connected {
                self.lose(id, LostHow::Fenced);
            }
        }
        self.counters.executors_registered += 1;
        self.executors.register(id, incarnation, registration, self.now);
        self.timers.watch(self.now.after(self.config.suspect_after), id);
    }

    pub(crate) fn heartbeat(&mut self, id: ExecutorId, incarnation: Incarnation, running: &[AttemptId]) {
        let Some(executor) = self.executors.current(id, incarnation) else {
            self.counters.stale_messages.incarnation += 1;
            self.out.push(Action::Fence { executor: id, incarnation });
            return;
        };
        let is_quiet = executor.leases.is_empty() && running.is_empty();
        let now = self.now;
        self.executors.update(id, |executor| {
            executor.last_heard = now;
            if executor.state == ExecutorState::Suspect {
                executor.state = ExecutorState::Live;
            }
        });
        if is_quiet {
            return;
        }
        let missing = if self.faults.has(Fault::LaunchNotMissed) { Vec::new() } else { self.missing(id, running) };
        for lease in missing {
            let failure = Failure::Transient { what: TransientKind::Network, retry_after_ms: None };
            let failed = Failed::new(failure, format!("{id} does not run {} any more and did not say why", lease.attempt));
            self.executors.give_back(id, lease.attempt);
            self.slots_back(lease.attempt.job, lease.slots);
            let number = lease.attempt.attempt.number;
            self.with_job(lease.attempt.job, |job, cx| {
                job.attempt_ended(cx, number, Some(failed).filter(|_| job.has_open(number)))
            });
        }
        for attempt in running.iter().filter(|attempt| self.jobs.get(&attempt.job).is_none_or(|job| !job.is_active())) {
            let is_leased = self.executors.get(id).is_some_and(|executor| executor.leases.iter().any(|l| l.attempt == *attempt));
            if !is_leased {
                self.out.push(Action::Cancel { executor: id, attempt: *attempt, why: CancelReason::JobEnded });
            }
        }
    }

    /// Leases whose attempts an executor has not named for so long that no message of them is under way any more.
    fn missing(&mut self, id: ExecutorId, running: &[AttemptId]) -> Vec<Lease> {
        let (now, patience) = (self.now, self.config.suspect_after);
        let look = |executor: &mut crate::executors::Executor| {
            for lease in &mut executor.leases {
                let is_named = running.contains(&lease.attempt);
                lease.missing_since = if is_named { None } else { lease.missing_since.or(Some(now)) };
            }
            let is_lost = |lease: &&Lease| lease.missing_since.is_some_and(|since| now >= since.after(patience) && now > since);
            executor.leases.iter().filter(is_lost).cloned().collect()
        };
        self.executors.update(id, look).unwrap_or_default()
    }

    pub(crate) fn connection_lost(&mut self, id: ExecutorId, incarnation: Incarnation) {
        if self.executors.current(id, incarnation).is_some() {
            self.lose(id, LostHow::Reset);
        } else {
            self.counters.stale_messages.incarnation += 1;
        }
    }

    pub(crate) fn drain(&mut self, id: ExecutorId) {
        let is_new =
            self.executors.get(id).is_some_and(|executor| matches!(executor.state, ExecutorState::Live | ExecutorState::Suspect));
        if !is_new {
            self.counters.stale_messages.incarnation += 1;
            return;
        }
        let now = self.now;
        self.unreserve(id);
        self.executors.update(id, |executor| {
            executor.state = ExecutorState::Draining;
            executor.drain_asked_at = Some(now);
        });
        self.draining.insert(id);
        self.timers.watch(now.after(DRAIN_MAX), id);
    }

    /// Lets draining executors go that have nothing left to do. What still needs their outputs computes them again elsewhere.
    pub(crate) fn finish_drains(&mut self) {
        if self.draining.is_empty() {
            return;
        }
        for id in self.draining.clone() {
            let Some(executor) = self.executors.get(id).filter(|executor| executor.state == ExecutorState::Draining) else {
                self.draining.remove(&id);
                continue;
            };
            let is_over = executor.drain_asked_at.is_none_or(|asked| self.now >= asked.after(DRAIN_MAX));
            if is_over || (executor.leases.is_empty() && executor.held == 0) {
                self.draining.remove(&id);
                self.lose(id, LostHow::Drained);
                self.out.push(Action::Drained { executor: id });
                self.dispatch();
            }
        }
    }

    /// An incarnation is over: its attempts run again, its outputs too where somebody needs them.
    fn lose(&mut self, id: ExecutorId, how: LostHow) {
        self.unreserve(id);
        let is_drained = how == LostHow::Drained;
        let taken = self.executors.update(id, |executor| {
            executor.state = if is_drained { ExecutorState::Left } else { ExecutorState::Dead };
            (executor.used, executor.held) = (0, 0);
            (executor.incarnation, std::mem::take(&mut executor.leases), std::mem::take(&mut executor.outputs))
        });
        let Some((incarnation, leases, outputs)) = taken else { return };
        self.draining.remove(&id);
        if !is_drained {
            let is_suspect = |lease: &Lease| self.jobs.get(&lease.attempt.job).is_some_and(|job| job.has_suspects(lease.attempt));
            self.executors.lost_anyway += u64::from(!leases.iter().any(is_suspect));
            self.counters.executors_lost += 1;
            self.out.push(Action::Fence { executor: id, incarnation });
        }
        let mut shares: BTreeMap<JobId, Share> = BTreeMap::new();
        for lease in leases {
            shares.entry(lease.attempt.job).or_default().leases.push(lease);
        }
        for ((job, stage), partitions) in outputs {
            shares.entry(job).or_default().outputs.insert(stage, partitions);
        }
        for (job, share) in shares {
            self.slots_back(job, share.leases.iter().map(|lease| lease.slots).sum());
            self.with_job(job, |job, cx| job.executor_gone(cx, id, how, &share.leases, &share.outputs));
        }
    }

    /// Gives up an executor's reservation; the partition looks for another.
    fn unreserve(&mut self, id: ExecutorId) {
        if self.faults.has(Fault::ReservationLeaked) {
            return;
        }
        let Some(Some((job, stage, partition))) = self.executors.update(id, |executor| executor.reserved.take()) else { return };
        if let Some(seq) = self.jobs.get(&job).map(|job| job.seq)
            && let Some(entry) = self.alone.get_mut(&(seq, job, stage, partition))
        {
            *entry = None;
        }
    }

    /// Asks for the next tick.
    pub(crate) fn announce(&mut self) {
        if self.executors.usable() > 0 {
            self.no_executor_since = None;
        } else if self.no_executor_since.is_none() {
            self.no_executor_since = Some(self.now);
        }
        let deadline = self.config.no_executor_deadline;
        let failing = self
            .no_executor_since
            .and_then(|since| self.unfinished().map(|(_, submitted)| since.max(submitted).after(deadline)).min());
        let next = self.timers.next().into_iter().chain(failing).min();
        if let Some(next) = next.filter(|next| self.timers.announced != Some(*next)) {
            self.timers.announced = Some(next);
            self.out.push(Action::WakeAt(next));
        }
    }
}
