//! What the loop owns, and how an input becomes events. Next: `perform.rs`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use windrow_core::Result;
use windrow_core::clock::{Clock, Millis, unix_nanos};
use windrow_core::config::SchedulerConfig;
use windrow_core::failure::CancelReason;
use windrow_core::ids::{Epoch, JobId};
use windrow_core::message::{Command, Registration, Report};
use windrow_core::task::Outcome;
use windrow_planner::ClusterShape;
use windrow_scheduler::{Event, JobPhase, Scheduler};

use super::fleet::{Fleet, Link, Member};
use super::input::{Departure, Input};
use super::jobs::{Jobs, Submission};
use crate::status::{ClusterStatus, ExecutorState, ExecutorStatus, JobProgress, JobState};
use crate::transport::InProcessTransport;

/// Between two publications of a job's progress, so that a job of many short tasks does not pay for being watched.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// The longest the loop sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// Everything the loop owns.
#[derive(Debug)]
pub(super) struct State {
    pub(super) scheduler: Scheduler,
    pub(super) fleet: Fleet,
    pub(super) jobs: Jobs,
    pub(super) local: Arc<InProcessTransport>,
    pub(super) wake_at: Option<Millis>,
    /// Connections to give up because their queue is full, found while performing actions.
    pub(super) stuck: Vec<Member>,
    /// Local executors that were fenced and join again.
    pub(super) rejoin: Vec<Member>,
    epoch: Epoch,
    clock: Arc<dyn Clock>,
    shape: watch::Sender<ClusterShape>,
    published_at: Millis,
}

impl State {
    pub(super) fn new(
        (config, unfetched_max): (SchedulerConfig, u64),
        clock: Arc<dyn Clock>,
        shape: watch::Sender<ClusterShape>,
        local: Arc<InProcessTransport>,
    ) -> Self {
        // Milliseconds of the wall clock: greater than those of every coordinator before on this machine, without a store.
        let epoch = Epoch(unix_nanos() / 1_000_000);
        let mut scheduler = Scheduler::new(config, epoch);
        scheduler.limit_unfetched(unfetched_max);
        Self {
            scheduler,
            fleet: Fleet::default(),
            jobs: Jobs::default(),
            local,
            wake_at: None,
            stuck: Vec::new(),
            rejoin: Vec::new(),
            epoch,
            clock,
            shape,
            published_at: Millis(0),
        }
    }

    /// One event, its actions, and what follows from performing them.
    pub(super) fn step(&mut self, event: Event) {
        self.step_once(event);
        while let Some(member) = self.stuck.pop() {
            tracing::warn!(executor = %member.executor, "an executor does not take its commands, its connection is given up");
            self.lost(member);
        }
        while let Some(member) = self.rejoin.pop() {
            self.rejoin(member);
        }
        self.publish_shape();
    }

    fn step_once(&mut self, event: Event) {
        let now = self.clock.now();
        for action in self.scheduler.step(now, event) {
            self.perform(action);
        }
    }

    /// One input; breaks when the loop is to end.
    pub(super) fn hear(&mut self, input: Input) -> ControlFlow<()> {
        match input {
            Input::Report { from, report } => self.report(from, report),
            Input::Submit(submission) => self.submit(*submission),
            Input::Keep { job } => self.step(Event::ResultKept { job }),
            Input::Awaited { job, partition } => self.step(Event::ResultAwaited { job, partition }),
            Input::Delivered { job, partition, attempt, heard } => {
                self.step(Event::ResultDelivered { job, partition, attempt });
                // A reader that is gone needs no answer.
                heard.map(|heard| heard.send(()));
            }
            Input::Lost { executor, incarnation, attempt, partitions, why } => {
                self.step(Event::OutputLost { executor, incarnation, attempt, partitions, why });
            }
            Input::Drain { name, reply } => {
                let found = self.fleet.to_drain(&name);
                let answer = found.map(|executor| self.step(Event::DrainAsked { executor }));
                // Whoever asked may have stopped waiting.
                let _ = reply.send(answer);
            }
            Input::Shutdown { reply } => {
                self.shut_down();
                // Whoever asked may have stopped waiting.
                let _ = reply.send(());
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Somebody left.
    pub(super) fn depart(&mut self, departure: Departure) {
        match departure {
            Departure::Released(job) => self.release(job),
            Departure::Cancelled(job, why) if self.jobs.get(job).is_some() => self.step(Event::JobCancelled { job, why }),
            Departure::Cancelled(..) => {}
            Departure::Lost(member) => self.lost(member),
        }
    }

    /// Joins an executor and tells it its numbers.
    pub(super) fn connect(&mut self, registration: Registration, link: Link) -> Result<Member> {
        if let Link::Local(executor) = &link {
            // Known before its number is: the next statement may read from it.
            let store = Arc::clone(executor.store());
            let (member, before) = self.fleet.join(registration.clone(), link)?;
            self.local.join(member.executor, store);
            self.joined(member, before, registration);
            return Ok(member);
        }
        let (member, before) = self.fleet.join(registration.clone(), link)?;
        self.joined(member, before, registration);
        Ok(member)
    }

    fn joined(&mut self, member: Member, before: Option<(Member, Link)>, registration: Registration) {
        if let Some((older, link)) = before {
            tracing::warn!(name = registration.name, executor = %older.executor, "registered again, the incarnation before is over");
            self.jobs.executor_lost(older);
            if let Link::Network(commands) = link {
                // A full queue belongs to a connection that is as good as gone.
                let _ = commands.try_send(Command::Fence { incarnation: older.incarnation });
            }
        }
        let Member { executor, incarnation } = member;
        tracing::info!(name = registration.name, %executor, %incarnation, slots = registration.slots, "executor joined");
        let is_taken = self.fleet.send(member, Command::Registered { epoch: self.epoch, executor, incarnation });
        self.step(Event::ExecutorRegistered { executor, incarnation, registration });
        if !is_taken {
            self.lost(member);
        }
    }

    fn rejoin(&mut self, member: Member) {
        let Some(link) = self.fleet.link(member).cloned() else { return };
        let Some(registration) = self.fleet.get(member.executor).map(|entry| entry.registration.clone()) else { return };
        if let Err(error) = self.connect(registration, link) {
            tracing::error!(%error, "a local executor cannot join again");
        }
    }

    fn lost(&mut self, member: Member) {
        if self.fleet.leave(member) {
            let Member { executor, incarnation } = member;
            tracing::warn!(%executor, %incarnation, "connection to an executor is lost");
            self.jobs.executor_lost(member);
            self.local.leave(executor);
            self.step(Event::ConnectionLost { executor, incarnation });
        }
    }

    fn report(&mut self, from: Member, report: Report) {
        // A local executor that joined again keeps its connection; what it says is of the incarnation that it names.
        let executor = from.executor;
        match report {
            Report::Register(_) => tracing::warn!(%executor, "a second registration on one connection is ignored"),
            Report::Heartbeat { incarnation, seq, ref running, .. } => {
                let (member, running) = (Member { executor, incarnation }, running.clone());
                self.fleet.note_vitals(member, &report);
                self.fleet.send(member, Command::HeartbeatSeen { seq });
                self.step(Event::Heartbeat { executor, incarnation, running });
            }
            Report::PartitionDone { incarnation, attempt, partition, stat } => {
                self.jobs.progressed(attempt.job);
                self.step(Event::PartitionDone { executor, incarnation, attempt, partition, stat });
            }
            Report::AttemptEnded { incarnation, attempt, outcome, metrics } => {
                let member = Member { executor, incarnation };
                if let Outcome::Failed(failed) = &outcome {
                    tracing::debug!(%attempt, %executor, error = %failed, "an attempt did not succeed");
                }
                let metrics = (outcome == Outcome::Succeeded).then_some(*metrics);
                self.step(Event::AttemptEnded { executor, incarnation, attempt, outcome });
                self.jobs.attempt_ended(attempt, member, metrics);
            }
            Report::Leaving { incarnation } => {
                tracing::info!(%executor, %incarnation, "executor wants to leave");
                if self.fleet.current(executor) == Some(Member { executor, incarnation }) {
                    self.step(Event::DrainAsked { executor });
                }
            }
        }
    }

    fn submit(&mut self, submission: Submission) {
        if submission.statement.strong_count() == 0 {
            return;
        }
        let (job, graph, user) = (submission.job, Arc::clone(&submission.graph), submission.user.as_str().into());
        let time_limit = submission.time_limit.map(|of| of.limit());
        tracing::info!(%job, stages = graph.stages.len(), "job submitted");
        self.jobs.insert(submission);
        self.step(Event::JobSubmitted { job, graph, user, time_limit });
    }

    fn release(&mut self, job: JobId) {
        if self.jobs.get(job).is_none() {
            return;
        }
        let mut last = self.jobs.complete(job, self.measure(job));
        if !last.state.is_over() {
            last.state = JobState::Cancelled;
            self.step(Event::JobCancelled { job, why: CancelReason::Client });
        }
        self.step(Event::JobReleased { job });
        self.jobs.release(job, last);
    }

    fn shut_down(&mut self) {
        for job in self.jobs.ids() {
            self.step(Event::JobCancelled { job, why: CancelReason::JobEnded });
        }
        let members: Vec<Member> = self.fleet.connected().map(|(member, _)| member).collect();
        for member in members {
            self.fleet.send(member, Command::Shutdown);
        }
    }

    /// When something is due next, if anything is.
    pub(super) fn due(&self) -> Option<Millis> {
        let progress = self.jobs.has_changes().then(|| self.published_at.after(PROGRESS_EVERY));
        self.wake_at.into_iter().chain(progress).min()
    }

    /// How long the loop may sleep.
    pub(super) fn wait(&self) -> Duration {
        let now = self.clock.now();
        self.due().map_or(IDLE, |at| Duration::from_millis(at.0.saturating_sub(now.0)).min(IDLE))
    }

    /// What is due by now.
    pub(super) fn pass_time(&mut self) {
        let now = self.clock.now();
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
            self.step(Event::Tick);
        }
        if self.jobs.has_changes() && self.published_at.after(PROGRESS_EVERY) <= now {
            self.published_at = now;
            for job in self.jobs.take_changed() {
                self.jobs.publish(job, self.measure(job));
            }
        }
    }

    /// Publishes a job's progress at once: its state changed.
    pub(super) fn publish(&self, job: JobId) {
        self.jobs.publish(job, self.measure(job));
    }

    fn publish_shape(&self) {
        let slots = u32::try_from(self.scheduler.live_slots()).unwrap_or(u32::MAX);
        let slots_before = self.shape.borrow().slots;
        if slots != slots_before {
            let executors = u32::try_from(self.fleet.connected().count()).unwrap_or(u32::MAX);
            self.shape.send_replace(ClusterShape { executors, slots });
        }
    }

    fn measure(&self, job: JobId) -> JobProgress {
        let Some(progress) = self.scheduler.job_progress(job) else { return JobProgress::default() };
        let count = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        JobProgress {
            state: match progress.phase {
                JobPhase::Queued => JobState::Queued,
                JobPhase::Running => JobState::Running,
                JobPhase::Succeeded => JobState::Succeeded,
                JobPhase::Failed => JobState::Failed,
                JobPhase::Cancelled => JobState::Cancelled,
            },
            stages_done: count(progress.stages_done() as u64),
            stages_total: count(progress.stages.len() as u64),
            tasks_done: count(progress.partitions_done()),
            tasks_total: count(progress.partitions_total()),
            launches: progress.launches,
            retries: progress.attempts_failed,
            lost: progress.partitions_lost(),
            reruns: progress.partitions_rerun(),
            copies: progress.copies,
            ..JobProgress::default()
        }
    }

    /// The cluster at this moment.
    pub(super) fn status(&self) -> ClusterStatus {
        let executors = self.scheduler.executors().into_iter().filter_map(|known| {
            let entry = self.fleet.get(known.executor)?;
            Some(ExecutorStatus {
                name: entry.registration.name.clone(),
                id: known.executor,
                incarnation: known.incarnation,
                pid: entry.registration.pid,
                slots: entry.registration.slots,
                slots_used: known.used,
                memory_limit: entry.registration.memory_bytes,
                memory_bytes: entry.vitals.memory_bytes,
                store_bytes: entry.vitals.store_bytes,
                disk_bytes: entry.vitals.disk_bytes,
                address: entry.registration.address.clone(),
                state: match known.state {
                    windrow_scheduler::ExecutorState::Live => ExecutorState::Alive,
                    windrow_scheduler::ExecutorState::Suspect => ExecutorState::Suspect,
                    windrow_scheduler::ExecutorState::Draining => ExecutorState::Leaving,
                    windrow_scheduler::ExecutorState::Dead => ExecutorState::Dead,
                    windrow_scheduler::ExecutorState::Left => ExecutorState::Left,
                },
                deaths: self.fleet.deaths_of(&entry.registration.name),
            })
        });
        ClusterStatus {
            executors: executors.collect(),
            jobs: self.jobs.status(|job| self.measure(job)),
            counters: self.counters(),
        }
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let counters = self.scheduler.counters();
        let named = [
            ("launches", counters.launches),
            ("copies", counters.copies),
            ("attempts_failed", counters.attempts_failed),
            ("attempts_cancelled", counters.attempts_cancelled),
            ("partitions_committed", counters.partitions_committed),
            ("partitions_lost", counters.partitions_lost),
            ("partitions_rerun", counters.partitions_rerun),
            ("generations_raised", counters.generations_raised),
            ("stages_distrusted", counters.stages_distrusted),
            ("stale_messages", counters.stale_messages.total()),
            ("executors_registered", counters.executors_registered),
            ("executors_lost", counters.executors_lost),
            ("jobs_submitted", counters.jobs_submitted),
            ("jobs_succeeded", counters.jobs_succeeded),
            ("jobs_failed", counters.jobs_failed),
            ("jobs_cancelled", counters.jobs_cancelled),
        ];
        named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
