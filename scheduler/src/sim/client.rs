//! The clients of the model world: they submit, read each result partition once, sometimes cancel, and judge the answer. Those that
//! keep their result read all of it again, later and in any order, and compare. Where results may not pile up, some clients read them in
//! order, whatever is there, and some begin when all is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use windrow_core::Failure;
use windrow_core::failure::CancelReason;
use windrow_core::ids::{JobId, StageId};
use windrow_core::stage::{Repeats, StageGraph};
use windrow_core::task::{InputGroup, JobStage};

use super::data::{Output, answer, expected, mix};
use super::mischief::Mischief;
use super::world::{Happening, World};
use crate::event::{Event, JobState};

/// How often each partition of a kept result is read again.
const AGAIN: u32 = 2;

/// Between two looks of a client that waits.
const LOOK_MS: u64 = 500;

/// How a client reads a result for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Whatever is there.
    Any,
    /// One partition after the other.
    InOrder,
    /// When all of it is there.
    AtTheEnd,
}

/// One submitted job, as its client knows it.
#[derive(Debug)]
pub(crate) struct ModelJob {
    pub(crate) graph: Arc<StageGraph>,
    /// Where each result partition is; `None` for one that is empty.
    ready: BTreeMap<u32, Option<InputGroup>>,
    received: BTreeMap<u32, Option<Output>>,
    /// What is read again, for a client that keeps its result: how many times yet.
    again: BTreeMap<u32, u32>,
    is_kept: bool,
    habit: Habit,
    is_judged: bool,
    pub(crate) is_over: bool,
    /// The stage and partition that ends every executor that runs it.
    pub(crate) poison: Option<(StageId, u32)>,
}

impl ModelJob {
    /// Whether the client still wants to read a partition.
    fn reads(&self, partition: u32) -> bool {
        if self.is_judged { self.again.contains_key(&partition) } else { !self.received.contains_key(&partition) }
    }
}

impl World {
    pub(crate) fn submit(&mut self, job: JobId) {
        self.jobs_left -= 1;
        if self.strikes(1000, Mischief::Job, job.0).is_none() {
            return;
        }
        let graph = Arc::new(super::graphs::draw(&mut self.rng, self.options.shape));
        let is_poisonous = job.0 <= self.options.poisonous.into();
        let poison = is_poisonous.then(|| {
            let stage = self.rng.usize(..graph.stages.len().max(1));
            let partitions = graph.stages.get(stage).map_or(1, |stage| stage.partitions);
            (StageId(u32::try_from(stage).unwrap_or(0)), self.rng.u32(..partitions))
        });
        let (ready, received) = (BTreeMap::new(), BTreeMap::new());
        let told = self.misjudged(job, &graph);
        let is_kept = self.options.keep_results && !job.0.is_multiple_of(2);
        let (again, is_judged) = (BTreeMap::new(), false);
        let habit = match job.0 % 3 {
            1 if self.options.unfetched_max > 0 => Habit::InOrder,
            2 if self.options.unfetched_max > 0 => Habit::AtTheEnd,
            _ => Habit::Any,
        };
        let model = ModelJob { graph, ready, received, again, is_kept, habit, is_judged, is_over: false, poison };
        self.jobs.insert(job, model);
        self.step(Event::JobSubmitted { job, graph: told, user: "sim".into(), time_limit: None });
        if is_kept {
            self.step(Event::ResultKept { job });
        }
        if habit != Habit::Any {
            self.later(LOOK_MS, Happening::ClientWaits(job));
        }
        if let Some(drawn) = self.strikes(self.options.rates.cancelled, Mischief::Cancel, job.0) {
            self.later(drawn % 4_000, Happening::ClientCancels(job));
        }
    }

    /// What a planner makes of a graph that does not see why some stages vary.
    fn misjudged(&mut self, job: JobId, graph: &Arc<StageGraph>) -> Arc<StageGraph> {
        let mut told = Arc::clone(graph);
        for (index, stage) in graph.stages.iter().enumerate().filter(|(_, stage)| stage.repeats == Repeats::Varying) {
            if !stage.whole && self.strikes(self.options.rates.misjudged, Mischief::Misjudge, job.0).is_some() {
                Arc::make_mut(&mut told).stages[index].repeats = Repeats::Repeatable;
            }
        }
        told
    }

    /// From now on the job is what the scheduler made of it.
    pub(crate) fn stage_replaced(&mut self, stage: JobStage) {
        if let Some(model) = self.jobs.get_mut(&stage.job) {
            Arc::make_mut(&mut model.graph).take_alternative(stage.stage);
            self.report.replaced += 1;
        }
    }

    pub(crate) fn client_cancels(&mut self, job: JobId) {
        if self.jobs.get(&job).is_some_and(|model| !model.is_over) {
            self.step(Event::JobCancelled { job, why: CancelReason::Client });
        }
    }

    pub(crate) fn result_ready(&mut self, job: JobId, partition: u32, location: Option<InputGroup>) {
        if let Some(model) = self.jobs.get_mut(&job) {
            model.ready.insert(partition, location);
            if model.habit != Habit::Any && !model.is_judged {
                return;
            }
            let wait = self.rng.u64(1..=300);
            self.later(wait, Happening::ClientReads { job, partition });
        }
    }

    /// A client that does not read whatever is there says what it waits for, and reads it when it is there.
    pub(crate) fn client_waits(&mut self, job: JobId) {
        let Some(model) = self.jobs.get(&job).filter(|model| !model.is_over && !model.is_judged) else { return };
        let partitions = model.graph.stages.last().map_or(0, |stage| stage.partitions);
        let next = (0..partitions).find(|partition| !model.received.contains_key(partition));
        let missing = match model.habit {
            Habit::AtTheEnd if (model.ready.len() as u64) < u64::from(partitions) => Some(None),
            _ => next.filter(|partition| !model.ready.contains_key(partition)).map(Some),
        };
        match (missing, next) {
            (Some(partition), _) => self.step(Event::ResultAwaited { job, partition }),
            (None, Some(partition)) => self.client_reads(job, partition),
            (None, None) => return,
        }
        let is_read = self.jobs.get(&job).is_some_and(|model| next.is_some_and(|next| model.received.contains_key(&next)));
        self.later(if is_read { 1 } else { LOOK_MS }, Happening::ClientWaits(job));
    }

    /// The client reads a result partition, or finds that it is gone.
    pub(crate) fn client_reads(&mut self, job: JobId, partition: u32) {
        let Some(model) = self.jobs.get(&job).filter(|model| !model.is_over && model.reads(partition)) else {
            return;
        };
        let Some(location) = model.ready.get(&partition).cloned() else { return };
        let output = match &location {
            None => None,
            Some(group) if self.frozen_until(group.executor).is_some() => {
                if self.reads_by_itself(job) {
                    self.later(500, Happening::ClientReads { job, partition });
                }
                return;
            }
            Some(group) => match self.fetch(None, group) {
                Ok(found) => found.into_iter().next().map(|(_, output)| output.clone()),
                Err(_) => {
                    let (executor, incarnation, attempt) = (group.executor, group.incarnation, group.attempt);
                    self.step(Event::OutputLost {
                        executor,
                        incarnation,
                        attempt,
                        partitions: vec![partition],
                        why: String::new(),
                    });
                    self.step(Event::ResultAwaited { job, partition: Some(partition) });
                    // A reader tries again for as long as nobody tells it of another place.
                    if self.reads_by_itself(job) {
                        self.later(500, Happening::ClientReads { job, partition });
                    }
                    return;
                }
            },
        };
        if self.jobs.get(&job).is_some_and(|model| model.is_judged) {
            return self.compare(job, partition, &output);
        }
        if let Some(model) = self.jobs.get_mut(&job) {
            model.received.insert(partition, output);
        }
        let attempt = location.map(|group| group.attempt);
        self.step(Event::ResultDelivered { job, partition, attempt });
        self.judge(job);
    }

    /// Whether a client comes back to a partition by itself, instead of looking for what is next.
    fn reads_by_itself(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(|model| model.habit == Habit::Any || model.is_judged)
    }

    /// A kept result was read again: it is what it was. The client goes when all of it was read often enough.
    fn compare(&mut self, job: JobId, partition: u32, output: &Option<Output>) {
        let Some(model) = self.jobs.get_mut(&job) else { return };
        let is_same = model.received.get(&partition).is_some_and(|first| first == output);
        let left = model.again.entry(partition).or_insert(0);
        *left = left.saturating_sub(1);
        let is_read = *left == 0;
        model.again.retain(|_, left| *left > 0);
        let is_over = model.again.is_empty();
        model.is_over = is_over;
        if !is_same {
            self.fail(format!("{job}: partition {partition} of a kept result gave other rows when it was read again"));
        } else if is_over {
            self.report.kept += 1;
            self.step(Event::JobReleased { job });
        } else if !is_read {
            self.read_later(job, partition);
        }
    }

    fn read_later(&mut self, job: JobId, partition: u32) {
        let wait = self.rng.u64(1..=3_000);
        self.later(wait, Happening::ClientReads { job, partition });
    }

    /// Once everything is read, compares it with a run without faults.
    fn judge(&mut self, job: JobId) {
        let Some(model) = self.jobs.get_mut(&job) else { return };
        let Some(last) = model.graph.stages.last() else { return };
        if model.is_over || model.received.len() < last.partitions as usize {
            return;
        }
        (model.is_over, model.is_judged) = (!model.is_kept, true);
        let (mut all, mut there) = (Output::default(), 0_u64);
        for (partition, output) in model.received.clone() {
            if let Some(output) = output {
                all.depend(&output);
                all.tokens.extend(output.tokens);
                there = there.wrapping_add(mix(1, u64::from(partition)));
            }
        }
        let right = expected(&model.graph, &all.choice);
        if all.is_mixed {
            self.fail(format!("{job}: the result mixes rows of two generations"));
        } else if answer(&all.tokens) != right {
            self.fail(format!("{job}: the answer is wrong: rows were lost or doubled"));
        }
        self.report.right += 1;
        self.part(job);
    }

    /// The client has read everything: it goes, or reads it again.
    fn part(&mut self, job: JobId) {
        let Some(model) = self.jobs.get_mut(&job) else { return };
        if !model.is_kept {
            model.received.clear();
            return self.step(Event::JobReleased { job });
        }
        model.again = model.received.keys().map(|&partition| (partition, AGAIN)).collect();
        let partitions: Vec<u32> = model.again.keys().copied().collect();
        partitions.into_iter().for_each(|partition| self.read_later(job, partition));
    }

    pub(crate) fn job_state(&mut self, job: JobId, state: JobState) {
        let Some(model) = self.jobs.get_mut(&job) else { return };
        match state {
            JobState::Failed(failed) if !model.is_over => {
                model.is_over = true;
                // The only excuse: rows that vary were lost after a part of the result had left.
                if failed.message.contains("had been sent already") {
                    self.report.excused += 1;
                } else if model.poison.is_some() && failed.failure == Failure::Poison {
                    self.report.poisoned += 1;
                } else {
                    self.fail(format!("{job} failed: {failed}"));
                }
                self.later(1, Happening::ClientReleases(job));
            }
            JobState::Cancelled(_) if !model.is_over => {
                model.is_over = true;
                self.report.cancelled += 1;
                self.later(1, Happening::ClientReleases(job));
            }
            _ => {}
        }
    }
}
