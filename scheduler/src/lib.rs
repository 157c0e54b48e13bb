//! The scheduler decides, purely: [`Scheduler::step`] is told an [`Event`] and the time and answers with [`Action`]s. It does no I/O,
//! reads no clock, draws no chance and iterates over nothing unordered, so that every interleaving can be replayed from a seed.
//!
//! ```text
//! lib.rs        step: which part hears of which event            event.rs      Event, Action, JobState
//! jobs.rs       start, end and release of jobs                   fairness.rs   which job is served next
//! job.rs        a job's stages, partitions, attempts             stage_state.rs  one stage, the states of a partition
//! adaptive.rs   which form of a stage, by measured sizes         admission.rs  which waiting job may start, fairly between users
//! placement.rs  which slice, which executor                      commit.rs     a partition is done
//! recovery.rs   failures, lost outputs, lost executors           fleet.rs      executors come, fall silent, drain and go
//! executors.rs  slots as leases, indexes                         check.rs      what must always hold
//! speculation.rs  a copy for a straggler                         keep.rs       results that are read more than once
//! unfetched.rs  results that nobody reads                        light.rs      queries of one task, beside large ones
//! time_limit.rs jobs that take longer than they may
//! ```
//!
//! **Total.** Any event in any order is answered; one that carries a stale epoch, incarnation, generation or attempt, or that was said
//! before, is counted in [`Counters::stale_messages`] and changes nothing.
//!
//! **Cost.** An event costs O(log n) in executors, queued partitions and jobs. Only the loss of an output, the release of a stage and the
//! first launch after a stage is complete look at all partitions of one stage.
//!
//! ```
//! use windrow_core::{clock::Millis, config::SchedulerConfig, ids::Epoch};
//! use windrow_scheduler::{Event, Scheduler};
//!
//! let mut scheduler = Scheduler::new(SchedulerConfig::default(), Epoch(1));
//! assert!(scheduler.step(Millis(0), Event::Tick).is_empty());
//! ```

#![deny(clippy::disallowed_types, clippy::iter_over_hash_type)]

mod adaptive;
mod admission;
mod check;
mod commit;
mod event;
mod executors;
mod fairness;
mod faults;
mod fleet;
mod job;
mod jobs;
mod keep;
mod light;
mod placement;
mod recovery;
mod runs;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod speculation;
mod stage_state;
mod status;
#[cfg(test)]
mod tests;
mod time_limit;
mod timers;
mod unfetched;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use windrow_core::clock::Millis;
use windrow_core::config::SchedulerConfig;
use windrow_core::failure::Failed;
use windrow_core::ids::{AttemptId, Epoch, ExecutorId, Incarnation, JobId};
use windrow_core::task::{Outcome, PartitionStat};

pub use check::Violation;
pub use event::{Action, Event, JobState};
pub use faults::Fault;
pub use status::{Counters, ExecutorState, ExecutorStatus, JobPhase, JobProgress, StagePhase, StageProgress, StaleMessages};

use admission::Admission;
use executors::Executors;
use fairness::Hungry;
use faults::Faults;
use job::{AloneQueue, Cx, Job};
use timers::Timers;

/// Everything that is decided, as one state machine.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    epoch: Epoch,
    now: Millis,
    /// Since when the scheduler listens without a gap as long as a silence that kills.
    listening_since: Millis,
    jobs: BTreeMap<JobId, Job>,
    next_seq: u64,
    /// Jobs that run and jobs that wait to.
    admission: Admission,
    /// Bytes of each job's result that may wait for a reader.
    unfetched_max: u64,
    /// The last jobs forgotten, so that a repeated submission does not run again.
    released: VecDeque<JobId>,
    hungry: Hungry,
    alone: AloneQueue,
    executors: Executors,
    draining: BTreeSet<ExecutorId>,
    no_executor_since: Option<Millis>,
    timers: Timers,
    counters: Counters,
    faults: Faults,
    out: Vec<Action>,
}

impl Scheduler {
    /// A scheduler with no jobs and no executors. `epoch` is greater than that of every scheduler before it.
    #[must_use]
    pub fn new(config: SchedulerConfig, epoch: Epoch) -> Self {
        Self {
            config,
            epoch,
            now: Millis(0),
            listening_since: Millis(0),
            jobs: BTreeMap::new(),
            next_seq: 0,
            admission: Admission::default(),
            unfetched_max: u64::MAX,
            released: VecDeque::new(),
            hungry: Hungry::default(),
            alone: AloneQueue::new(),
            executors: Executors::default(),
            draining: BTreeSet::new(),
            no_executor_since: Some(Millis(0)),
            timers: Timers::default(),
            counters: Counters::default(),
            faults: Faults::default(),
            out: Vec::new(),
        }
    }

    /// Holds each job that comes from now on when finished partitions of its result that nobody has begun to read have more than so many
    /// bytes. 0 is no limit, as it is at first.
    pub fn limit_unfetched(&mut self, bytes: u64) {
        self.unfetched_max = if bytes == 0 { u64::MAX } else { bytes };
    }

    /// Plants a bug, to show that the checks find it.
    #[cfg(any(test, feature = "sim"))]
    pub fn plant(&mut self, fault: Fault) {
        self.faults = Faults::plant(fault);
    }

    /// Hears of one event and answers with what is to be done, in order. `now` is monotonic; a smaller one is taken as the last.
    pub fn step(&mut self, now: Millis, event: Event) -> Vec<Action> {
        self.pass_time(now.max(self.now));
        match event {
            Event::Tick => self.tick(),
            Event::JobSubmitted { job, graph, user, time_limit } => self.submit(job, graph, user, time_limit),
            Event::JobCancelled { job, why } => self.cancel_job(job, why),
            Event::ResultDelivered { job, partition, attempt } => self.delivered(job, partition, attempt),
            Event::ResultKept { job } => self.keep_result(job),
            Event::ResultAwaited { job, partition } => self.awaited(job, partition),
            Event::JobReleased { job } => self.release_job(job),
            Event::ExecutorRegistered { executor, incarnation, registration } => {
                self.register(executor, incarnation, &registration);
            }
            Event::Heartbeat { executor, incarnation, running } => self.heartbeat(executor, incarnation, &running),
            Event::ConnectionLost { executor, incarnation } => self.connection_lost(executor, incarnation),
            Event::DrainAsked { executor } => self.drain(executor),
            Event::PartitionDone { executor, incarnation, attempt, partition, stat } => {
                self.partition_done(executor, incarnation, attempt, partition, stat);
            }
            Event::AttemptEnded { executor, incarnation, attempt, outcome } => {
                self.attempt_ended(executor, incarnation, attempt, outcome);
            }
            Event::OutputLost { executor, incarnation, attempt, partitions, why } => {
                self.output_lost(executor, incarnation, attempt, &partitions, why);
            }
        }
        self.dispatch();
        self.speculate();
        self.finish_drains();
        self.announce();
        std::mem::take(&mut self.out)
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How far a job is; `None` once it is released.
    #[must_use]
    pub fn job_progress(&self, job: JobId) -> Option<JobProgress> {
        self.jobs.get(&job).map(Job::progress)
    }

    /// The jobs that are not released, by number.
    pub fn jobs(&self) -> impl Iterator<Item = (JobId, JobPhase)> + '_ {
        self.jobs.iter().map(|(&id, job)| (id, job.phase))
    }

    /// Every executor ever seen, by number.
    #[must_use]
    pub fn executors(&self) -> Vec<ExecutorStatus> {
        self.executors.status()
    }

    /// Slots of the executors that take slices, free or not: what a query is planned for.
    #[must_use]
    pub fn live_slots(&self) -> u64 {
        self.executors.live_slots()
    }

    /// Changes an active job, follows up on what the change means for other stages, and ends the job if that fails.
    fn with_job<T>(&mut self, id: JobId, change: impl FnOnce(&mut Job, &mut Cx<'_>) -> Result<T, Failed>) -> Option<T> {
        let job = self.jobs.get_mut(&id).filter(|job| job.is_active())?;
        let mut cx = Cx {
            now: self.now,
            epoch: self.epoch,
            config: &self.config,
            executors: &mut self.executors,
            timers: &mut self.timers,
            alone: &mut self.alone,
            counters: &mut self.counters,
            faults: self.faults,
            out: &mut self.out,
        };
        let outcome = change(job, &mut cx).and_then(|answer| job.settle(&mut cx).map(|()| answer));
        match outcome {
            Ok(answer) => {
                self.follow_up(id);
                Some(answer)
            }
            Err(failed) => {
                self.end_job(id, JobState::Failed(failed));
                None
            }
        }
    }

    /// The job to serve next, and how many slots its user may take more. Where users' slots are bounded, its cost is the number of jobs.
    fn next_to_serve(&self) -> Option<(JobId, u32)> {
        let Some(most) = self.user_slots_max() else { return self.hungry.first().map(|id| (id, u32::MAX)) };
        let held = self.held_by_users();
        self.hungry.iter().find_map(|id| {
            let used = held.get(&*self.jobs.get(&id)?.user).copied().unwrap_or(0);
            (used < most).then(|| (id, most - used))
        })
    }

    /// Slots that jobs of one user may hold; `None` if they are not bounded.
    fn user_slots_max(&self) -> Option<u32> {
        let percent = u64::from(self.config.user_slots_percent);
        (percent < 100).then(|| u32::try_from(self.executors.live_slots() * percent / 100).unwrap_or(u32::MAX).max(1))
    }

    /// Slots that jobs of each user hold; a task beside the slots counts as one.
    fn held_by_users(&self) -> BTreeMap<&str, u32> {
        let mut held = BTreeMap::<&str, u32>::new();
        for job in self.jobs.values().filter(|job| job.slots > 0) {
            *held.entry(&job.user).or_default() += job.slots;
        }
        for attempt in self.executors.light() {
            if let Some(job) = self.jobs.get(&attempt.job) {
                *held.entry(&job.user).or_default() += 1;
            }
        }
        held
    }

    /// How many slots the user of a job may take more.
    fn room_of_user_of(&self, id: JobId) -> u32 {
        let (Some(most), Some(job)) = (self.user_slots_max(), self.jobs.get(&id)) else { return u32::MAX };
        most.saturating_sub(self.held_by_users().get(&*job.user).copied().unwrap_or(0))
    }

    /// Launches as long as there are free slots and jobs with something to launch.
    fn dispatch(&mut self) {
        self.dispatch_alone();
        while self.executors.free_slots() > 0 {
            let Some((id, room)) = self.next_to_serve() else { break };
            let slots = self.jobs.get(&id).map_or(0, |job| job.slots);
            let share = self.hungry.share(self.executors.live_slots(), slots).min(room);
            if self.with_job(id, |job, cx| Ok(job.launch_next(cx, share))) != Some(true) {
                break;
            }
        }
        self.dispatch_light();
    }

    /// Serves partitions that need an executor for themselves: one is reserved, gets no other slice, and starts once it is idle.
    fn dispatch_alone(&mut self) {
        if self.alone.is_empty() {
            return;
        }
        // Those with a reservation first: one that starts leaves its executor to be reserved by the next.
        let (reserved, others): (Vec<_>, Vec<_>) = self.alone.clone().into_iter().partition(|(_, reserved)| reserved.is_some());
        for (key, reserved) in reserved.into_iter().chain(others) {
            let stage = self.jobs.get(&key.1).and_then(|job| job.stages.get(key.2));
            if stage.is_none_or(|stage| stage.inputs_missing > 0) {
                // Its inputs were lost meanwhile; whoever computes them again needs the executor more.
                if let Some(executor) = reserved {
                    self.executors.update(executor, |executor| executor.reserved = None);
                    self.alone.insert(key, None);
                }
                continue;
            }
            let executor = match reserved {
                Some(executor) => executor,
                None => {
                    let unreserved =
                        self.executors.iter().filter(|(_, executor)| executor.is_welcome() && executor.reserved.is_none());
                    let Some((executor, _)) = unreserved.min_by_key(|(_, executor)| executor.used) else { break };
                    self.executors.update(executor, |executor| executor.reserved = Some((key.1, key.2, key.3)));
                    self.alone.insert(key, Some(executor));
                    executor
                }
            };
            if self.executors.get(executor).is_some_and(|executor| executor.is_live() && executor.leases.is_empty()) {
                self.alone.remove(&key);
                self.executors.update(executor, |executor| executor.reserved = None);
                self.with_job(key.1, |job, cx| {
                    job.launch_alone(cx, key.2, key.3, executor);
                    Ok(())
                });
            }
        }
    }

    fn partition_done(
        &mut self,
        executor: ExecutorId,
        incarnation: Incarnation,
        attempt: AttemptId,
        partition: u32,
        stat: PartitionStat,
    ) {
        if self.accept(executor, incarnation, attempt) {
            let number = attempt.attempt.number;
            let news = self.with_job(attempt.job, |job, cx| job.partition_done(cx, number, partition, stat));
            if news == Some(false) {
                self.counters.stale_messages.attempt += 1;
            }
        }
    }

    fn attempt_ended(&mut self, executor: ExecutorId, incarnation: Incarnation, attempt: AttemptId, outcome: Outcome) {
        let is_current = self.executors.current(executor, incarnation).is_some();
        let lease = if is_current { self.executors.give_back(executor, attempt) } else { None };
        let Some(lease) = lease else {
            if self.accept(executor, incarnation, attempt) {
                self.counters.stale_messages.attempt += 1;
            }
            return;
        };
        if lease.cancelled && self.faults.has(faults::Fault::SlotLeakedOnCancel) {
            self.executors.update(executor, |executor| executor.used += lease.slots);
        }
        self.slots_back(attempt.job, lease.slots);
        if !lease.cancelled {
            let failed = match outcome {
                Outcome::Succeeded => None,
                Outcome::Failed(failed) => Some(failed),
            };
            self.with_job(attempt.job, |job, cx| job.attempt_ended(cx, attempt.attempt.number, failed));
        }
    }

    fn output_lost(
        &mut self,
        executor: ExecutorId,
        incarnation: Incarnation,
        attempt: AttemptId,
        partitions: &[u32],
        why: String,
    ) {
        let is_current = self.executors.current(executor, incarnation).is_some();
        if !is_current {
            self.counters.stale_messages.incarnation += 1;
            return;
        }
        let lost = |job: &mut Job, cx: &mut Cx<'_>| {
            job.lost_last = why;
            job.output_lost(cx, executor, attempt, partitions, false)
        };
        match self.with_job(attempt.job, lost) {
            Some(true) => {}
            Some(false) => self.counters.stale_messages.attempt += 1,
            None if self.jobs.get(&attempt.job).is_none_or(|job| !job.is_active()) => self.counters.stale_messages.job += 1,
            None => {}
        }
    }

    /// Checks the numbers of a report against what is live; counts the first that is stale.
    fn accept(&mut self, executor: ExecutorId, incarnation: Incarnation, attempt: AttemptId) -> bool {
        let stale = &mut self.counters.stale_messages;
        if self.executors.current(executor, incarnation).is_none() {
            stale.incarnation += 1;
            self.out.push(Action::Fence { executor, incarnation });
            return false;
        }
        if attempt.attempt.epoch != self.epoch {
            stale.epoch += 1;
            return false;
        }
        let Some(job) = self.jobs.get(&attempt.job).filter(|job| job.is_active()) else {
            stale.job += 1;
            return false;
        };
        let live = job.attempts.get(&attempt.attempt.number);
        if live.is_some_and(|live| live.id == attempt && live.executor == executor && live.incarnation == incarnation) {
            return true;
        }
        let generation = job.stages.get(attempt.stage.0 as usize).map_or(0, |stage| stage.generation);
        if attempt.generation.0 < generation {
            stale.generation += 1;
        } else {
            stale.attempt += 1;
        }
        false
    }
}
