//! The loop of the model world: a calendar of happenings, in order of virtual time and then of their making.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use windrow_core::clock::Millis;
use windrow_core::config::SchedulerConfig;
use windrow_core::ids::{AttemptId, Epoch, ExecutorId, Incarnation, JobId};
use windrow_core::message::Registration;
use windrow_core::rand::{Rng, seeded};
use windrow_core::stage::StageGraph;

use super::client::ModelJob;
use super::data::mix;
use super::executor::Model;
use super::{Options, Report};
use crate::Scheduler;
use crate::event::{Action, Event};
use crate::status::Counters;

/// How long after the faults everything must have ended: silences, backoffs of a minute, and the work itself.
const LIVENESS_MS: u64 = 1_200_000;

/// Something that happens at a time.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    ToScheduler(Event),
    ToExecutor(Action),
    Wake,
    Computed { executor: ExecutorId, incarnation: Incarnation, attempt: AttemptId, partition: u32 },
    Heartbeat { executor: ExecutorId, incarnation: Incarnation },
    Kill(ExecutorId),
    Rejoin(ExecutorId),
    Submit(JobId),
    ClientReads { job: JobId, partition: u32 },
    ClientCancels(JobId),
    ClientReleases(JobId),
    Heal,
}

/// Everything.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) rng: Rng,
    scheduler: Scheduler,
    now: u64,
    seq: u64,
    calendar: BTreeMap<(u64, u64), Happening>,
    /// When the last message on each executor's link arrives, there and back: a link keeps its order.
    links: Vec<(u64, u64)>,
    pub(crate) models: Vec<Model>,
    pub(crate) jobs: BTreeMap<JobId, ModelJob>,
    /// Who committed each partition of each generation, as launches tell.
    winners: BTreeMap<(AttemptId, u32), u32>,
    /// The tick last asked for; it replaces the ones before.
    wake_at: Option<u64>,
    is_healed: bool,
    failure: Option<String>,
    pub(crate) report: Report,
}

/// Makes a world and lets it run until every job has ended.
///
/// # Errors
/// What went wrong: a violated invariant, a wrong answer, a job that does not end, something left behind.
pub fn run(options: &Options) -> Result<Report, String> {
    let mut world = World::new(options.clone());
    world.begin();
    while let Some(((at, _), happening)) = world.calendar.pop_first() {
        world.now = at;
        world.happen(happening);
        if let Some(failure) = world.failure.take() {
            return Err(format!("after {} steps, at {} ms: {failure}", world.report.steps, world.now));
        }
        if world.is_done() {
            break;
        }
        if world.now > world.options.faulty_ms + LIVENESS_MS {
            return Err(world.stuck());
        }
    }
    world.settle_up()
}

impl World {
    fn new(options: Options) -> Self {
        let mut rng = seeded(options.seed);
        let config = SchedulerConfig {
            attempts_max: 10_000,
            generations_max: 10_000,
            no_executor_deadline: Duration::from_secs(3600),
            jobs_max: rng.u32(1..=64),
            keep_outputs: options.keep_outputs,
            slice_bytes: ByteSize::b(rng.u64(..4)),
            ..SchedulerConfig::default()
        };
        let mut scheduler = Scheduler::new(config, Epoch(rng.u64(1..9)));
        if let Some(fault) = options.planted {
            scheduler.plant(fault);
        }
        let models =
            (0..options.executors).map(|_| Model { slots: rng.u32(1..=options.slots_max), ..Model::default() }).collect();
        let report = Report {
            steps: 0,
            virtual_ms: 0,
            trace: 0,
            counters: Counters::default(),
            right: 0,
            excused: 0,
            cancelled: 0,
            kills: 0,
            replaced: 0,
            dropped: 0,
            repeated: 0,
        };
        Self {
            links: vec![(0, 0); options.executors as usize],
            options,
            rng,
            scheduler,
            now: 0,
            seq: 0,
            calendar: BTreeMap::new(),
            models,
            jobs: BTreeMap::new(),
            winners: BTreeMap::new(),
            wake_at: None,
            is_healed: false,
            failure: None,
            report,
        }
    }

    fn begin(&mut self) {
        let faulty = self.options.faulty_ms;
        for executor in 0..self.options.executors {
            let at = self.rng.u64(..1_000);
            self.later(at, Happening::Rejoin(ExecutorId(executor)));
        }
        for job in 0..self.options.jobs {
            let at = self.rng.u64(..faulty / 2);
            self.later(at, Happening::Submit(JobId(u64::from(job) + 1)));
        }
        for _ in 0..self.options.kills {
            let (executor, at) = (self.rng.u32(..self.options.executors), self.rng.u64(..faulty));
            self.later(at, Happening::Kill(ExecutorId(executor)));
        }
        self.later(faulty, Happening::Heal);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ToScheduler(event) => self.step(event),
            Happening::ToExecutor(action) => self.obey(action),
            Happening::Wake => {
                if self.wake_at == Some(self.now) {
                    self.wake_at = None;
                    self.step(Event::Tick);
                }
            }
            Happening::Computed { executor, incarnation, attempt, partition } => {
                self.computed(executor, incarnation, attempt, partition);
            }
            Happening::Heartbeat { executor, incarnation } => self.beat(executor, incarnation),
            Happening::Kill(executor) => self.kill(executor),
            Happening::Rejoin(executor) => {
                if !self.models[executor.0 as usize].is_alive {
                    self.models[executor.0 as usize].is_alive = true;
                    self.register(executor);
                }
            }
            Happening::Submit(job) => self.submit(job),
            Happening::ClientReads { job, partition } => self.client_reads(job, partition),
            Happening::ClientCancels(job) => self.client_cancels(job),
            Happening::ClientReleases(job) => self.step(Event::JobReleased { job }),
            Happening::Heal => {
                self.is_healed = true;
                (0..self.options.executors).for_each(|executor| self.later(1, Happening::Rejoin(ExecutorId(executor))));
            }
        }
    }

    pub(crate) fn later(&mut self, wait: u64, happening: Happening) {
        self.at(self.now + wait, happening);
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.seq += 1;
        self.calendar.insert((at, self.seq), happening);
    }

    /// Whether a fault strikes now.
    pub(crate) fn by_chance(&mut self, per_mille: u64) -> bool {
        !self.is_healed && per_mille > 0 && self.rng.u64(..1000) < per_mille
    }

    pub(crate) fn graph(&self, job: JobId) -> Option<Arc<StageGraph>> {
        self.jobs.get(&job).map(|model| Arc::clone(&model.graph))
    }

    pub(crate) fn fail(&mut self, message: String) {
        self.failure.get_or_insert(message);
    }

    /// A new incarnation of a living executor makes itself known.
    pub(crate) fn register(&mut self, executor: ExecutorId) {
        let model = &mut self.models[executor.0 as usize];
        model.incarnation = Incarnation(model.incarnation.0 + 1);
        let (incarnation, slots) = (model.incarnation, model.slots);
        let registration = Registration {
            name: executor.to_string(),
            slots,
            memory_bytes: 0,
            address: format!("{executor}:1"),
            build: String::new(),
            pid: 0,
        };
        self.report(executor, Event::ExecutorRegistered { executor, incarnation, registration });
        self.later(1_000, Happening::Heartbeat { executor, incarnation });
    }

    fn beat(&mut self, executor: ExecutorId, incarnation: Incarnation) {
        let model = &self.models[executor.0 as usize];
        if model.is_alive && model.incarnation == incarnation {
            let running = model.running.keys().copied().collect();
            self.report(executor, Event::Heartbeat { executor, incarnation, running });
            self.later(1_000, Happening::Heartbeat { executor, incarnation });
        }
    }

    fn kill(&mut self, executor: ExecutorId) {
        if self.is_healed || !self.models[executor.0 as usize].is_alive {
            return;
        }
        self.report.kills += 1;
        let incarnation = self.models[executor.0 as usize].incarnation;
        self.stop(executor);
        self.models[executor.0 as usize].is_alive = false;
        if self.rng.bool() {
            let wait = self.rng.u64(..50);
            self.later(wait, Happening::ToScheduler(Event::ConnectionLost { executor, incarnation }));
        }
        let wait = self.rng.u64(1..20_000);
        self.later(wait, Happening::Rejoin(executor));
    }

    /// Everything an executor has is gone.
    pub(crate) fn stop(&mut self, executor: ExecutorId) {
        let model = &mut self.models[executor.0 as usize];
        model.running.clear();
        model.outputs.clear();
    }

    /// A message leaves an executor: it arrives late, perhaps twice, perhaps never, but not before an earlier one.
    pub(crate) fn report(&mut self, executor: ExecutorId, event: Event) {
        if self.by_chance(self.options.drop_per_mille) {
            self.report.dropped += 1;
            return;
        }
        let arrival = (self.now + self.rng.u64(1..=20)).max(self.links[executor.0 as usize].0);
        self.links[executor.0 as usize].0 = arrival;
        if self.by_chance(self.options.repeat_per_mille) {
            self.report.repeated += 1;
            // The copy may be overtaken by anything.
            let wait = self.rng.u64(..5_000);
            self.at(arrival + wait, Happening::ToScheduler(event.clone()));
        }
        self.at(arrival, Happening::ToScheduler(event));
    }

    /// The scheduler hears of an event; its actions go their ways.
    pub(crate) fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.report.steps += 1;
            let actions = self.scheduler.step(Millis(self.now), event);
            if self.report.steps.is_multiple_of(self.options.check_every)
                && let Err(violation) = self.scheduler.check()
            {
                self.fail(violation.to_string());
            }
            for action in actions {
                self.note(&action);
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        let executor = match &action {
            Action::Launch { executor, .. }
            | Action::Cancel { executor, .. }
            | Action::ReleaseStage { executor, .. }
            | Action::ReleaseJob { executor, .. }
            | Action::Fence { executor, .. } => *executor,
            Action::WakeAt(at) => {
                let at = at.0.max(self.now);
                self.wake_at = Some(at);
                return self.at(at, Happening::Wake);
            }
            Action::StageReplaced { stage } => return self.stage_replaced(*stage),
            Action::JobState { .. } | Action::ResultReady { .. } | Action::Drained { .. } => return self.tell_client(action),
        };
        self.judge_winners(&action);
        if self.by_chance(self.options.drop_per_mille) {
            self.report.dropped += 1;
            return;
        }
        let arrival = (self.now + self.rng.u64(1..=20)).max(self.links[executor.0 as usize].1);
        self.links[executor.0 as usize].1 = arrival;
        self.at(arrival, Happening::ToExecutor(action));
    }

    fn tell_client(&mut self, action: Action) {
        match action {
            Action::JobState { job, state } => self.job_state(job, state),
            Action::ResultReady { job, partition, location } => self.result_ready(job, partition, location),
            _ => {}
        }
    }

    /// Two attempts never both win a partition of one generation.
    fn judge_winners(&mut self, action: &Action) {
        let Action::Launch { spec, .. } = action else { return };
        if self.options.check_every > 1 {
            return;
        }
        for group in spec.inputs.iter().flat_map(|input| input.groups.iter()) {
            for &partition in &group.partitions {
                let mut key = group.attempt;
                (key.task, key.attempt) = Default::default();
                let number = group.attempt.attempt.number;
                let winner = *self.winners.entry((key, partition)).or_insert(number);
                if winner != number {
                    let place = format!("partition {partition} of {}, {} of {}", key.stage, key.generation, key.job);
                    self.fail(format!("I1 winner: {place} was won by attempts {winner} and {number}"));
                }
            }
        }
    }

    /// Takes an action into the trace.
    fn note(&mut self, action: &Action) {
        let at = self.now;
        let mut add = |values: &[u64]| values.iter().for_each(|value| self.report.trace = mix(self.report.trace, *value));
        match action {
            Action::Launch { executor, spec, .. } => {
                add(&[1, u64::from(executor.0), spec.attempt.job.0, u64::from(spec.attempt.attempt.number)]);
                add(&[u64::from(spec.slice.start), u64::from(spec.slice.end), u64::from(spec.attempt.generation.0)]);
            }
            Action::Cancel { executor, attempt, .. } => {
                add(&[2, u64::from(executor.0), attempt.job.0, u64::from(attempt.attempt.number)]);
            }
            Action::ReleaseStage { executor, stage } => {
                add(&[3, u64::from(executor.0), stage.job.0, u64::from(stage.stage.0)]);
            }
            Action::ReleaseJob { executor, job } => {
                add(&[4, u64::from(executor.0), job.0]);
            }
            Action::Fence { executor, incarnation } => {
                add(&[5, u64::from(executor.0), incarnation.0]);
            }
            Action::JobState { job, state } => {
                add(&[6, job.0, u64::from(state.is_final())]);
            }
            Action::ResultReady { job, partition, location } => {
                add(&[7, job.0, u64::from(*partition), u64::from(location.is_some())]);
            }
            Action::WakeAt(at) => {
                add(&[8, at.0]);
            }
            Action::Drained { executor } => {
                add(&[9, u64::from(executor.0)]);
            }
            Action::StageReplaced { stage } => {
                add(&[10, stage.job.0, u64::from(stage.stage.0)]);
            }
        }
        add(&[at]);
    }

    fn is_done(&self) -> bool {
        self.is_healed && self.jobs.len() == self.options.jobs as usize && self.jobs.values().all(|job| job.is_over)
    }

    fn stuck(&self) -> String {
        let open: Vec<_> = self.jobs.iter().filter(|(_, job)| !job.is_over).map(|(&id, _)| id).collect();
        let progress: Vec<_> = open.iter().filter_map(|&id| self.scheduler.job_progress(id)).collect();
        format!("these jobs do not end: {progress:?}")
    }

    /// Everything has ended: messages under way arrive, and nothing may be left.
    fn settle_up(mut self) -> Result<Report, String> {
        let end = self.now + 60_000;
        self.report.virtual_ms = self.now;
        while let Some(((at, _), happening)) = self.calendar.pop_first().filter(|((at, _), _)| *at <= end) {
            self.now = at;
            self.happen(happening);
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.scheduler.check().map_err(|violation| violation.to_string())?;
        if let Some((job, phase)) = self.scheduler.jobs().next() {
            return Err(format!("{job} was released and is still {phase:?}"));
        }
        if let Some(status) = self.scheduler.executors().into_iter().find(|status| status.used > 0 || status.held > 0) {
            return Err(format!("leaked slots or outputs: {status:?}"));
        }
        if self.report.dropped == 0 {
            for (index, model) in self.models.iter().enumerate() {
                if !model.outputs.is_empty() || !model.running.is_empty() {
                    return Err(format!("executor {index} was left with {} outputs", model.outputs.len()));
                }
            }
        }
        self.report.counters = *self.scheduler.counters();
        Ok(self.report)
    }
}
