//! Sixth arrow: a stage graph becomes stages, partitions and attempts. [`Job::set`] is the only place where a partition changes its
//! state, so that everything counted over partitions (who still reads whom, which stages are ready) is right after each change.
//! Next: `placement.rs` launches, `commit.rs` hears of success, `recovery.rs` of everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use windrow_core::clock::Millis;
use windrow_core::config::SchedulerConfig;
use windrow_core::failure::{CancelReason, Failed};
use windrow_core::ids::{AttemptId, Epoch, ExecutorId, Generation, Incarnation, JobId, StageId};
use windrow_core::stage::{InputRead, StageGraph, StageInput};
use windrow_core::task::{InputGroup, JobStage, PartitionStat, Slice};

use crate::event::Action;
use crate::executors::Executors;
use crate::faults::Faults;
use crate::stage_state::{StageState, State};
use crate::status::{Counters, JobPhase, JobProgress, StagePhase, StageProgress};
use crate::timers::Timers;
use crate::unfetched::Unfetched;

/// Everything outside the job that a change of it touches.
pub(crate) struct Cx<'a> {
    pub(crate) now: Millis,
    pub(crate) epoch: Epoch,
    pub(crate) config: &'a SchedulerConfig,
    pub(crate) executors: &'a mut Executors,
    pub(crate) timers: &'a mut Timers,
    pub(crate) alone: &'a mut AloneQueue,
    pub(crate) counters: &'a mut Counters,
    pub(crate) faults: Faults,
    pub(crate) out: &'a mut Vec<Action>,
}

/// Partitions that need an executor for themselves, in order of their jobs, with the executor reserved for each.
pub(crate) type AloneQueue = BTreeMap<(u64, JobId, usize, u32), Option<ExecutorId>>;

/// One try at a slice.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) id: AttemptId,
    pub(crate) stage: usize,
    pub(crate) slice: Slice,
    pub(crate) executor: ExecutorId,
    pub(crate) incarnation: Incarnation,
    /// What is done, by offset in the slice; the measurements only where slices commit whole.
    pub(crate) done: Vec<Option<PartitionStat>>,
    pub(crate) remaining: u32,
    /// The sum of its inputs' `losses` at the launch.
    pub(crate) losses: u64,
    /// The sum of its inputs' `voids` at the launch.
    pub(crate) voids: u64,
    pub(crate) launched_at: Millis,
    /// It has an executor for itself.
    pub(crate) is_alone: bool,
    /// The other attempt at the same partitions, if one is a copy.
    pub(crate) twin: Option<u32>,
}

/// One submitted run of a query.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    /// Order of arrival.
    pub(crate) seq: u64,
    /// Whose it is.
    pub(crate) user: Arc<str>,
    pub(crate) phase: JobPhase,
    pub(crate) submitted_at: Millis,
    /// How long it may run, and until when; the latter while it runs.
    pub(crate) time_limit: Option<Duration>,
    pub(crate) ends_at: Option<Millis>,
    pub(crate) graph: Arc<StageGraph>,
    pub(crate) stages: Vec<StageState>,
    /// Live attempts by their number.
    pub(crate) attempts: BTreeMap<u32, Attempt>,
    pub(crate) next_attempt: u32,
    /// Stages with complete inputs and queued partitions.
    pub(crate) ready: BTreeSet<usize>,
    /// Slots its attempts hold, cancelled ones included until they end.
    pub(crate) slots: u32,
    /// Its key among the hungry jobs, while it is one.
    pub(crate) hungry_as: Option<u32>,
    pub(crate) touched: BTreeSet<(ExecutorId, Incarnation)>,
    /// Stages that have two forms still.
    pub(crate) undecided: BTreeSet<usize>,
    /// Stages whose need may have changed, to be settled at the end of the step.
    pub(crate) unsettled: BTreeSet<usize>,
    pub(crate) launches: u64,
    pub(crate) attempts_failed: u64,
    /// Attempts that have a copy.
    pub(crate) copies: u32,
    /// Copies started so far.
    pub(crate) copied: u64,
    /// Attempts that failed in passing and were started again.
    pub(crate) retries: u64,
    pub(crate) succeeded_before: bool,
    /// Its result may be read again until it is released.
    pub(crate) is_kept: bool,
    /// What of its result waits for a reader.
    pub(crate) unfetched: Unfetched,
    /// Why output could not be read when that was last so, for people.
    pub(crate) lost_last: String,
}

/// Whether a partition of the consumer reads `input`.
pub(crate) fn reads(input: &StageInput, partition: u32) -> bool {
    match input.read {
        InputRead::Partitioned { offset, count } => offset <= partition && partition - offset < count,
        InputRead::Whole | InputRead::Scalar => true,
    }
}

impl Job {
    /// A queued job, of whose result at most `unfetched_max` bytes may wait for a reader. `graph` has been validated.
    pub(crate) fn new(id: JobId, seq: u64, user: Arc<str>, graph: Arc<StageGraph>, now: Millis, unfetched_max: u64) -> Self {
        let mut needed = vec![false; graph.stages.len()];
        for (index, stage) in graph.stages.iter().enumerate().rev() {
            needed[index] |= index + 1 == graph.stages.len();
            if needed[index] {
                stage.inputs.iter().for_each(|input| needed[input.stage.0 as usize] = true);
            }
        }
        let mut stages: Vec<_> =
            graph.stages.iter().zip(&needed).map(|(stage, needed)| StageState::new(stage, *needed)).collect();
        for (index, stage) in graph.stages.iter().enumerate() {
            for producer in stage.waits_for() {
                stages[producer.0 as usize].consumers.push(index);
                stages[index].inputs_missing += 1;
            }
            for input in stage.inputs.iter().filter(|_| needed[index]) {
                stages[input.stage.0 as usize].readers_open += u64::from(stage.partitions);
            }
        }
        let undecided = (0..graph.stages.len()).filter(|&stage| needed[stage] && graph.stages[stage].alternative.is_some());
        let mut job = Self {
            id,
            seq,
            user,
            phase: JobPhase::Queued,
            submitted_at: now,
            time_limit: None,
            ends_at: None,
            undecided: undecided.collect(),
            graph,
            stages,
            attempts: BTreeMap::new(),
            next_attempt: 0,
            ready: BTreeSet::new(),
            slots: 0,
            hungry_as: None,
            touched: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            launches: 0,
            attempts_failed: 0,
            copies: 0,
            copied: 0,
            retries: 0,
            succeeded_before: false,
            is_kept: false,
            unfetched: Unfetched::new(unfetched_max),
            lost_last: String::new(),
        };
        (0..job.stages.len()).for_each(|stage| job.refresh_ready(stage));
        job
    }

    /// The stage that the client reads.
    pub(crate) fn result(&self) -> usize {
        self.stages.len().saturating_sub(1)
    }

    /// Whether somebody will still read outputs of a stage.
    pub(crate) fn is_wanted(&self, stage: usize) -> bool {
        stage == self.result() || self.stages[stage].readers_open > 0
    }

    /// Whether somebody will still read this partition's output.
    pub(crate) fn is_partition_wanted(&self, stage: usize, partition: u32) -> bool {
        if stage == self.result() {
            self.is_kept || !self.stages[stage].partitions[partition as usize].delivered
        } else {
            self.stages[stage].readers_open > 0
        }
    }

    /// Moves a partition to another state. Everything that is counted over partitions follows.
    pub(crate) fn set(&mut self, stage: usize, partition: u32, state: State) -> State {
        let was_complete = self.stages[stage].is_complete();
        let old = self.stages[stage].set(partition, state);
        if stage == self.result() {
            self.count_unfetched(partition, old, state);
        }
        if old.is_open() != state.is_open() {
            let graph = Arc::clone(&self.graph);
            for input in &graph.stages[stage].inputs {
                let index = input.stage.0 as usize;
                let producer = &mut self.stages[index];
                if state.is_open() {
                    producer.readers_open += 1;
                } else {
                    producer.readers_open -= 1;
                }
                if producer.readers_open == 0 || (state.is_open() && producer.gone > 0) {
                    self.unsettled.insert(index);
                }
            }
        }
        if state == State::Gone {
            self.unsettled.insert(stage);
        }
        let is_complete = self.stages[stage].is_complete();
        if was_complete != is_complete {
            for index in 0..self.stages[stage].consumers.len() {
                let consumer = self.stages[stage].consumers[index];
                let missing = &mut self.stages[consumer].inputs_missing;
                *missing = if is_complete { *missing - 1 } else { *missing + 1 };
                self.refresh_ready(consumer);
            }
        }
        self.refresh_ready(stage);
        old
    }

    pub(crate) fn refresh_ready(&mut self, stage: usize) {
        let may_begin = self.next_run(stage).is_some();
        let entry = &mut self.stages[stage];
        let ready = entry.inputs_missing == 0 && may_begin;
        if ready != entry.ready {
            entry.ready = ready;
            if ready {
                self.ready.insert(stage);
            } else {
                self.ready.remove(&stage);
            }
        }
    }

    /// Follows up on every stage whose need changed: what is needed and gone runs again, what nobody needs is released.
    ///
    /// # Errors
    /// The failure that ends the job, if an output cannot be computed again.
    pub(crate) fn settle(&mut self, cx: &mut Cx<'_>) -> Result<(), Failed> {
        self.choose_forms(cx);
        while let Some(stage) = self.unsettled.pop_last() {
            if !self.is_wanted(stage) {
                self.let_go(cx, stage);
            } else if self.stages[stage].gone > 0 {
                self.demand(cx, stage)?;
            }
        }
        self.shed(cx);
        Ok(())
    }

    /// Ends all work on a stage that nobody needs, and releases its outputs.
    fn let_go(&mut self, cx: &mut Cx<'_>, stage: usize) {
        if self.stages[stage].open > 0 {
            let running: BTreeSet<u32> = self.attempts_of(stage);
            for partition in 0..self.stages[stage].count() {
                if self.stages[stage].partitions[partition as usize].state.is_open() {
                    self.leave_alone_queue(cx, stage, partition);
                    self.set(stage, partition, State::Gone);
                }
            }
            running.into_iter().for_each(|number| self.cancel(cx, number, CancelReason::Stale));
        }
        if !cx.config.keep_outputs {
            self.release(cx, stage);
        }
    }

    /// Drops every output of a stage.
    pub(crate) fn release(&mut self, cx: &mut Cx<'_>, stage: usize) {
        for partition in 0..self.stages[stage].count() {
            if matches!(self.stages[stage].partitions[partition as usize].state, State::Committed(_)) {
                self.set(stage, partition, State::Gone);
            }
        }
        self.unsettled.remove(&stage);
        self.stages[stage].forget_bytes(None);
        let id = StageId(u32::try_from(stage).unwrap_or(u32::MAX));
        for (executor, incarnation) in std::mem::take(&mut self.stages[stage].touched) {
            if cx.executors.current(executor, incarnation).is_some() {
                cx.executors.drop_stage(executor, self.id, id);
                cx.out.push(Action::ReleaseStage { executor, stage: JobStage { job: self.id, stage: id } });
            }
        }
    }

    /// The numbers of a stage's live attempts.
    pub(crate) fn attempts_of(&self, stage: usize) -> BTreeSet<u32> {
        self.attempts.iter().filter(|(_, attempt)| attempt.stage == stage).map(|(&number, _)| number).collect()
    }

    /// Asks for the end of an attempt and of its copy; their slots stay taken until the executors say so. Its partitions are the caller's
    /// to move.
    pub(crate) fn cancel(&mut self, cx: &mut Cx<'_>, number: u32, why: CancelReason) {
        if let Some(attempt) = self.attempts.remove(&number) {
            cx.executors.mark_cancelled(attempt.executor, attempt.id);
            cx.counters.attempts_cancelled += 1;
            cx.out.push(Action::Cancel { executor: attempt.executor, attempt: attempt.id, why });
            if let Some(twin) = attempt.twin {
                self.inherit(Some(twin), number);
                self.cancel(cx, twin, why);
            }
        }
    }

    /// Forgets that a partition waits for an executor of its own.
    pub(crate) fn leave_alone_queue(&mut self, cx: &mut Cx<'_>, stage: usize, partition: u32) {
        if self.stages[stage].partitions[partition as usize].state == State::Alone
            && let Some(Some(executor)) = cx.alone.remove(&(self.seq, self.id, stage, partition))
        {
            cx.executors.update(executor, |executor| executor.reserved = None);
        }
    }

    /// Where a stage's committed partitions are.
    pub(crate) fn groups(&mut self, executors: &Executors, stage: usize) -> Arc<Vec<InputGroup>> {
        self.stages[stage].groups(|id| executors.get(id).and_then(|executor| executor.address.clone()))
    }

    /// For people.
    pub(crate) fn progress(&self) -> JobProgress {
        let stages = self.stages.iter().zip(0_u32..).map(|(stage, index)| StageProgress {
            stage: StageId(index),
            phase: match () {
                () if stage.open == 0 => StagePhase::Succeeded,
                () if stage.running > 0 => StagePhase::Running,
                () if stage.inputs_missing == 0 => StagePhase::Ready,
                () => StagePhase::Waiting,
            },
            generation: Generation(stage.generation),
            partitions: stage.count(),
            done: stage.count() - stage.open,
            running: stage.running,
            commits: stage.commits,
            lost: stage.lost,
            rerun: stage.rerun,
            rows: stage.partitions.iter().fold(0, |sum, partition| sum.saturating_add(partition.rows)),
            bytes: stage.partitions.iter().fold(0, |sum, partition| sum.saturating_add(partition.bytes)),
        });
        JobProgress {
            job: self.id,
            phase: self.phase,
            launches: self.launches,
            attempts_failed: self.attempts_failed,
            copies: self.copied,
            slots: self.slots,
            stages: stages.collect(),
        }
    }
}
