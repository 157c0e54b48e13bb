//! A model executor: runs attempts for a drawn time, reads its inputs where the launch says they are, keeps outputs until it is told to
//! drop them. Reports leave through the world's bus.

use std::collections::BTreeMap;

use windrow_core::failure::{CancelReason, Failed, Failure, LostCause, Resource, TransientKind};
use windrow_core::ids::{AttemptId, ExecutorId, Incarnation, JobId};
use windrow_core::stage::Repeats;
use windrow_core::task::{InputGroup, Outcome, PartitionStat, TaskSpec};

use super::data::{Output, answer, read_sum, segment, token};
use super::harm::Harm;
use super::mischief::Mischief;
use super::options::Script;
use super::world::{Happening, World};
use crate::event::{Action, Event};
use crate::job::reads;

/// One model executor.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) is_alive: bool,
    pub(crate) incarnation: Incarnation,
    pub(crate) slots: u32,
    /// Attempts and how many of their partitions are not done.
    pub(crate) running: BTreeMap<AttemptId, Running>,
    /// By maker and partition.
    pub(crate) outputs: BTreeMap<AttemptId, BTreeMap<u32, Output>>,
    pub(crate) harm: Harm,
    /// What waits while it stands still.
    pub(crate) held: Vec<Happening>,
}

#[derive(Debug)]
pub(crate) struct Running {
    spec: TaskSpec,
    remaining: u32,
}

impl World {
    /// An executor hears an action of the scheduler.
    pub(crate) fn obey(&mut self, action: Action) {
        match action {
            Action::Launch { executor, incarnation, spec } => self.start(executor, incarnation, spec),
            Action::Cancel { executor, attempt, why } => self.cancel(executor, attempt, why),
            Action::ReleaseStage { executor, stage } => {
                let model = &mut self.models[executor.0 as usize];
                model.outputs.retain(|attempt, _| (attempt.job, attempt.stage) != (stage.job, stage.stage));
            }
            Action::ReleaseJob { executor, job } => self.release(executor, job),
            Action::Fence { executor, incarnation } => {
                let model = &self.models[executor.0 as usize];
                if model.is_alive && model.incarnation == incarnation {
                    self.stop(executor);
                    self.register(executor);
                }
            }
            Action::JobState { .. } | Action::StageReplaced { .. } | Action::ResultReady { .. } | Action::WakeAt(_) => {}
            Action::Drained { executor } => self.leave(executor),
        }
    }

    /// An executor that was asked to leave does, and comes back later.
    fn leave(&mut self, executor: ExecutorId) {
        let model = &mut self.models[executor.0 as usize];
        if std::mem::take(&mut model.is_alive) {
            self.stop(executor);
            self.later(3_000, Happening::Rejoin(executor));
        }
    }

    fn release(&mut self, executor: ExecutorId, job: JobId) {
        let model = &mut self.models[executor.0 as usize];
        model.outputs.retain(|attempt, _| attempt.job != job);
        let running: Vec<_> = model.running.keys().filter(|attempt| attempt.job == job).copied().collect();
        running.into_iter().for_each(|attempt| self.cancel(executor, attempt, CancelReason::JobEnded));
    }

    fn start(&mut self, executor: ExecutorId, incarnation: Incarnation, spec: TaskSpec) {
        let model = &self.models[executor.0 as usize];
        if !model.is_alive || model.incarnation != incarnation || model.running.contains_key(&spec.attempt) {
            return;
        }
        let attempt = spec.attempt;
        let drawn = self.strikes(self.options.rates.failed, Mischief::Fail, executor.0.into());
        if let Some(drawn) = drawn.or_else(|| self.is_once(Script::Fail).then_some(0)) {
            return self.report_end(executor, attempt, Outcome::Failed(draw_failure(drawn)));
        }
        if self.is_disk_full(executor) {
            return self.report_end(executor, attempt, Outcome::Failed(draw_failure(1)));
        }
        if self.is_poisonous(&spec) {
            let wait = self.rng.u64(1..=50);
            self.later(wait, Happening::Crash(executor));
        }
        let (slice, is_atomic) = (spec.slice, self.is_atomic(attempt));
        self.models[executor.0 as usize].running.insert(attempt, Running { spec, remaining: slice.len() });
        let times = if is_atomic { slice.start..slice.start + 1 } else { slice.iter() };
        for partition in times {
            let work = self.rng.u64(1..=400);
            let work = self.slowed(executor, work);
            self.later(work, Happening::Computed { executor, incarnation, attempt, partition });
        }
    }

    fn is_poisonous(&self, spec: &TaskSpec) -> bool {
        let poison = self.jobs.get(&spec.attempt.job).and_then(|job| job.poison);
        poison.is_some_and(|(stage, partition)| spec.attempt.stage == stage && spec.slice.contains(partition))
    }

    fn is_atomic(&self, attempt: AttemptId) -> bool {
        self.graph(attempt.job).is_some_and(|graph| {
            let stage = &graph.stages[attempt.stage.0 as usize];
            stage.whole || stage.repeats != Repeats::Repeatable
        })
    }

    /// A partition, or a whole slice where it commits as one, is computed.
    pub(crate) fn computed(&mut self, executor: ExecutorId, incarnation: Incarnation, attempt: AttemptId, partition: u32) {
        let model = &mut self.models[executor.0 as usize];
        if model.incarnation != incarnation {
            return;
        }
        let is_atomic = self.is_atomic(attempt);
        let Some(running) = self.models[executor.0 as usize].running.remove(&attempt) else { return };
        let partitions = if is_atomic { running.spec.slice.iter() } else { partition..partition + 1 };
        let mut outputs = Vec::new();
        for partition in partitions.clone() {
            match self.compute(executor, &running.spec, partition) {
                Ok(output) => outputs.push(output),
                Err(failed) => return self.report_end(executor, attempt, Outcome::Failed(failed)),
            }
        }
        self.deal(attempt, &mut outputs);
        for (partition, output) in partitions.zip(outputs) {
            let (rows, checksum) = (output.tokens.len() as u64, Some(answer(&output.tokens)));
            self.models[executor.0 as usize].outputs.entry(attempt).or_default().insert(partition, output);
            if let Some(drawn) = self.strikes(self.options.rates.lost_outputs, Mischief::LoseOutput, executor.0.into()) {
                self.later(drawn % 2_000, Happening::LoseOutput { executor, attempt, partition });
            }
            let stat = PartitionStat { rows, segment_bytes: vec![rows; self.rng.usize(..3)], checksum };
            self.report(executor, Event::PartitionDone { executor, incarnation, attempt, partition, stat });
        }
        let remaining = if is_atomic { 0 } else { running.remaining - 1 };
        if remaining == 0 {
            self.report_end(executor, attempt, Outcome::Succeeded);
        } else {
            self.models[executor.0 as usize].running.insert(attempt, Running { remaining, ..running });
        }
    }

    fn compute(&self, reader: ExecutorId, spec: &TaskSpec, partition: u32) -> Result<Output, Failed> {
        let stage = spec.attempt.stage.0 as usize;
        let Some(graph) = self.graph(spec.attempt.job) else { return Ok(Output::default()) };
        let plan = &graph.stages[stage];
        let (mut output, mut read) = (Output::default(), 0_u64);
        for (number, (input, vector)) in plan.inputs.iter().zip(&spec.inputs).enumerate() {
            if !reads(input, partition) {
                continue;
            }
            let producer = &graph.stages[input.stage.0 as usize];
            let mut there = 0_u64;
            for group in vector.groups.iter() {
                for (from, held) in self.fetch(Some(reader), group)? {
                    read = read.wrapping_add(read_sum(number, segment(input.read, partition), held.tokens.iter()));
                    output.depend(held);
                    if producer.row_limit.is_some() {
                        there = there.wrapping_add(super::data::mix(1, u64::from(from)));
                    }
                }
            }
            if producer.row_limit.is_some() {
                output.choose(input.stage.0 as usize, u32::MAX, there);
            }
        }
        let nonce = match plan.repeats {
            Repeats::Varying => u64::from(spec.attempt.attempt.number) + 1,
            _ => 0,
        };
        if nonce > 0 || plan.row_limit.is_some() {
            output.choose(stage, partition, nonce);
        }
        output.tokens.push(token(stage, partition, read, nonce));
        Ok(output)
    }

    /// The committed outputs of one group, or what could not be read; the coordinator reads for clients, and is not clogged.
    pub(crate) fn fetch(&self, reader: Option<ExecutorId>, group: &InputGroup) -> Result<Vec<(u32, &Output)>, Failed> {
        let lost = |partitions: Vec<u32>, cause: LostCause| {
            let (attempt, executor, incarnation) = (group.attempt, group.executor, group.incarnation);
            Failed::new(Failure::LostInput { attempt, partitions, executor, incarnation, cause }, "not there")
        };
        let model = &self.models[group.executor.0 as usize];
        let is_far = reader.is_some_and(|reader| reader != group.executor && self.is_clogged(reader, group.executor));
        if !model.is_alive || is_far || self.frozen_until(group.executor).is_some() {
            return Err(lost(group.partitions.clone(), LostCause::Unreachable));
        }
        if model.incarnation != group.incarnation {
            return Err(lost(group.partitions.clone(), LostCause::Fenced));
        }
        let made = model.outputs.get(&group.attempt);
        let found: Vec<_> = group.partitions.iter().map(|&p| (p, made.and_then(|made| made.get(&p)))).collect();
        let missing: Vec<u32> = found.iter().filter(|(_, output)| output.is_none()).map(|(p, _)| *p).collect();
        if !missing.is_empty() {
            return Err(lost(missing, LostCause::Missing));
        }
        Ok(found.into_iter().filter_map(|(partition, output)| Some((partition, output?))).collect())
    }

    /// Deals the tokens of a slice whose rows may move between its partitions.
    fn deal(&mut self, attempt: AttemptId, outputs: &mut [Output]) {
        let moves =
            self.graph(attempt.job).is_some_and(|graph| graph.stages[attempt.stage.0 as usize].repeats == Repeats::AsSlice);
        if !moves || outputs.len() < 2 {
            return;
        }
        let tokens: Vec<u64> = outputs.iter_mut().flat_map(|output| std::mem::take(&mut output.tokens)).collect();
        let mut all = Output::default();
        outputs.iter().for_each(|output| all.depend(output));
        for output in outputs.iter_mut() {
            output.depend(&all);
        }
        for token in tokens {
            let index = self.rng.usize(..outputs.len());
            outputs[index].tokens.push(token);
        }
    }

    fn cancel(&mut self, executor: ExecutorId, attempt: AttemptId, why: CancelReason) {
        let model = &mut self.models[executor.0 as usize];
        if why != CancelReason::Enough {
            model.outputs.remove(&attempt);
        }
        if model.running.remove(&attempt).is_some() {
            self.report_end(executor, attempt, Outcome::Failed(Failed::cancelled(why)));
        }
    }

    fn report_end(&mut self, executor: ExecutorId, attempt: AttemptId, outcome: Outcome) {
        let incarnation = self.models[executor.0 as usize].incarnation;
        self.report(executor, Event::AttemptEnded { executor, incarnation, attempt, outcome });
    }
}

fn draw_failure(drawn: u64) -> Failed {
    let failure = match drawn % 3 {
        0 => Failure::Resources { what: Resource::Memory, asked: 2, limit: 1 },
        1 => Failure::Resources { what: Resource::Disk, asked: 2, limit: 1 },
        _ => Failure::Transient { what: TransientKind::Store, retry_after_ms: None },
    };
    Failed::new(failure, "drawn by the model")
}
