//! The loop of the model world: a calendar of happenings, in order of virtual time and then of their making.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use windrow_core::clock::Millis;
use windrow_core::config::SchedulerConfig;
use windrow_core::ids::{AttemptId, Epoch, ExecutorId, Incarnation, JobId};
use windrow_core::rand::{Rng, seeded};
use windrow_core::stage::StageGraph;

use super::client::ModelJob;
use super::data::mix;
use super::executor::Model;
use super::mischief::{Faultline, Mischief};
use super::options::Script;
use super::{Broken, Options, Report};
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
    Strike { what: Mischief, executor: ExecutorId },
    Crash(ExecutorId),
    Thaw(ExecutorId),
    LoseOutput { executor: ExecutorId, attempt: AttemptId, partition: u32 },
    Rejoin(ExecutorId),
    Submit(JobId),
    ClientReads { job: JobId, partition: u32 },
    ClientWaits(JobId),
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
    pub(crate) is_healed: bool,
    /// Messages were lost or came late, so that things may be left behind.
    is_lossy: bool,
    /// Jobs that came or will come.
    pub(crate) jobs_left: u32,
    faultline: Faultline,
    /// A fault of a script that waits for its moment.
    pub(crate) once: Option<Script>,
    failure: Option<String>,
    pub(crate) report: Report,
}

/// Makes a world and lets it run until every job has ended.
///
/// # Errors
/// What went wrong, see [`Broken`].
pub fn run(options: &Options) -> Result<Report, Broken> {
    let mut world = World::new(options.clone());
    world.begin();
    while let Some(((at, _), happening)) = world.calendar.pop_first() {
        world.now = at;
        if let Some((moment, script)) = world.options.script
            && moment == world.report.happenings
        {
            world.play(script);
        }
        world.report.happenings += 1;
        world.happen(happening);
        if let Some(failure) = world.failure.take() {
            return Err(world.broken(failure));
        }
        if world.is_done() {
            break;
        }
        if world.now > world.options.faulty_ms + LIVENESS_MS {
            let stuck = world.stuck();
            return Err(world.broken(stuck));
        }
    }
    let settled = world.settle_up();
    settled.map_err(|failure| world.broken(failure))
}

impl World {
    fn new(options: Options) -> Self {
        let mut rng = seeded(options.seed);
        let config = SchedulerConfig {
            attempts_max: 10_000,
            deaths_max: if options.poisonous > 0 { 3 } else { 10_000 },
            retry_percent: 1_000_000,
            suspect_after: Duration::from_millis(30 * options.timeouts_percent),
            dead_after: Duration::from_millis(100 * options.timeouts_percent),
            generations_max: 10_000,
            no_executor_deadline: Duration::from_secs(3600),
            jobs_max: rng.u32(1..=64),
            keep_outputs: options.keep_outputs,
            slice_bytes: ByteSize::b(rng.u64(..4)),
            ..SchedulerConfig::default()
        };
        let mut scheduler = Scheduler::new(config, Epoch(rng.u64(1..9)));
        scheduler.limit_unfetched(options.unfetched_max);
        if let Some(fault) = options.planted {
            scheduler.plant(fault);
        }
        let models =
            (0..options.executors).map(|_| Model { slots: rng.u32(1..=options.slots_max), ..Model::default() }).collect();
        let report = Report {
            steps: 0,
            happenings: 0,
            virtual_ms: 0,
            trace: 0,
            counters: Counters::default(),
            right: 0,
            kept: 0,
            excused: 0,
            poisoned: 0,
            cancelled: 0,
            replaced: 0,
            struck: Default::default(),
        };
        Self {
            links: vec![(0, 0); options.executors as usize],
            faultline: Faultline::new(options.seed, options.only.clone()),
            is_lossy: false,
            jobs_left: options.jobs,
            once: None,
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
            let at = if self.options.script.is_some() { 500 } else { self.rng.u64(..faulty * 3 / 4 + 1) };
            self.later(at, Happening::Submit(JobId(u64::from(job) + 1)));
        }
        self.plan_harm();
        self.later(faulty, Happening::Heal);
    }

    fn happen(&mut self, happening: Happening) {
        let still = match &happening {
            Happening::ToExecutor(action) => action.executor(),
            Happening::Computed { executor, .. } | Happening::Heartbeat { executor, .. } => Some(*executor),
            _ => None,
        };
        if let Some(executor) = still.filter(|executor| self.frozen_until(*executor).is_some()) {
            return self.models[executor.0 as usize].held.push(happening);
        }
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
            Happening::Strike { what, executor } => self.strike(what, executor),
            Happening::Crash(executor) => self.kill(executor, true, 500),
            Happening::Thaw(executor) => self.thaw(executor),
            Happening::LoseOutput { executor, attempt, partition } => self.lose_output(executor, attempt, partition),
            Happening::Rejoin(executor) => {
                if !self.models[executor.0 as usize].is_alive {
                    self.models[executor.0 as usize].is_alive = true;
                    self.register(executor);
                }
            }
            Happening::Submit(job) => self.submit(job),
            Happening::ClientReads { job, partition } => self.client_reads(job, partition),
            Happening::ClientWaits(job) => self.client_waits(job),
            Happening::ClientCancels(job) => self.client_cancels(job),
            Happening::ClientReleases(job) => self.step(Event::JobReleased { job }),
            Happening::Heal => self.heal(),
        }
    }

    pub(crate) fn later(&mut self, wait: u64, happening: Happening) {
        self.at(self.now + wait, happening);
    }

    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    pub(crate) fn at(&mut self, at: u64, happening: Happening) {
        self.seq += 1;
        self.calendar.insert((at, self.seq), happening);
    }

    /// Whether a fault strikes now: a number drawn for it.
    pub(crate) fn strikes(&mut self, per_mille: u64, what: Mischief, who: u64) -> Option<u64> {
        if self.is_healed && what != Mischief::Job {
            return None;
        }
        self.faultline.strikes(per_mille, self.now, what, who)
    }

    pub(crate) fn graph(&self, job: JobId) -> Option<Arc<StageGraph>> {
        self.jobs.get(&job).map(|model| Arc::clone(&model.graph))
    }

    pub(crate) fn fail(&mut self, message: String) {
        self.failure.get_or_insert(message);
    }

    fn beat(&mut self, executor: ExecutorId, incarnation: Incarnation) {
        let model = &self.models[executor.0 as usize];
        if model.is_alive && model.incarnation == incarnation {
            let running = model.running.keys().copied().collect();
            self.report(executor, Event::Heartbeat { executor, incarnation, running });
            self.later(1_000, Happening::Heartbeat { executor, incarnation });
        }
    }

    /// A message leaves an executor: it arrives late, perhaps twice, perhaps never, but not before an earlier one unless it is delayed.
    pub(crate) fn report(&mut self, executor: ExecutorId, event: Event) {
        let index = executor.0 as usize;
        if self.models[index].harm.mute.0 > self.now || self.is_dropped(executor) {
            self.is_lossy = true;
            return;
        }
        let mut arrival = (self.now + self.rng.u64(1..=20)).max(self.links[index].0);
        match self.is_delayed(executor) {
            Some(wait) => arrival += wait,
            None => self.links[index].0 = arrival,
        }
        let repeats = self.strikes(self.options.rates.repeated, Mischief::Repeat, executor.0.into());
        let once = self.is_once(Script::Repeat).then_some(777);
        if let Some(drawn) = repeats.or(once) {
            // The copy may be overtaken by anything.
            self.at(arrival + drawn % 5_000, Happening::ToScheduler(event.clone()));
        }
        self.at(arrival, Happening::ToScheduler(event));
    }

    fn is_dropped(&mut self, executor: ExecutorId) -> bool {
        self.strikes(self.options.rates.dropped, Mischief::Drop, executor.0.into()).is_some() || self.is_once(Script::Drop)
    }

    /// How much later than others a message comes.
    fn is_delayed(&mut self, executor: ExecutorId) -> Option<u64> {
        let drawn = self.strikes(self.options.rates.delayed, Mischief::Delay, executor.0.into());
        let wait = drawn.map(|drawn| drawn % 3_000).or_else(|| self.is_once(Script::Delay).then_some(1_500));
        self.is_lossy |= wait.is_some();
        wait
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
        let Some(executor) = action.executor() else {
            return match action {
                Action::WakeAt(at) => {
                    let at = at.0.max(self.now);
                    self.wake_at = Some(at);
                    self.at(at, Happening::Wake);
                }
                Action::StageReplaced { stage } => self.stage_replaced(stage),
                action => self.tell_client(action),
            };
        };
        self.judge_winners(&action);
        let index = executor.0 as usize;
        if self.models[index].harm.mute.1 > self.now || self.is_dropped(executor) {
            self.is_lossy = true;
            return;
        }
        let mut arrival = (self.now + self.rng.u64(1..=20)).max(self.links[index].1);
        match self.is_delayed(executor) {
            Some(wait) => arrival += wait,
            None => self.links[index].1 = arrival,
        }
        self.at(arrival, Happening::ToExecutor(action));
    }

    fn tell_client(&mut self, action: Action) {
        match action {
            Action::JobState { job, state } => self.job_state(job, state),
            Action::ResultReady { job, partition, location, .. } => self.result_ready(job, partition, location),
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
            Action::ResultReady { job, partition, location, .. } => {
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
        let played = self.options.script.is_some_and(|(moment, _)| moment < self.report.happenings);
        (self.is_healed || played) && self.jobs_left == 0 && self.jobs.values().all(|job| job.is_over)
    }

    fn broken(&mut self, failure: String) -> Broken {
        let message = format!("after {} steps, at {} ms: {failure}", self.report.steps, self.now);
        Broken { message, struck: std::mem::take(&mut self.faultline.struck) }
    }

    fn stuck(&self) -> String {
        let open: Vec<_> = self.jobs.iter().filter(|(_, job)| !job.is_over).map(|(&id, _)| id).collect();
        let progress: Vec<_> = open.iter().filter_map(|&id| self.scheduler.job_progress(id)).collect();
        format!("these jobs do not end: {progress:?}")
    }

    /// Everything has ended: messages under way arrive, and nothing may be left.
    fn settle_up(&mut self) -> Result<Report, String> {
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
        if !self.is_lossy {
            for (index, model) in self.models.iter().enumerate() {
                if !model.outputs.is_empty() || !model.running.is_empty() {
                    return Err(format!("executor {index} was left with {} outputs", model.outputs.len()));
                }
            }
        }
        self.report.counters = *self.scheduler.counters();
        self.report.struck = self.faultline.counts();
        Ok(self.report.clone())
    }
}
