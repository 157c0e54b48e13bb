//! Recovery: what a failed attempt, a lost output and a lost executor mean.
//!
//! | failure | counts against | what happens | bound, then the job fails |
//! | --- | --- | --- | --- |
//! | `Fatal` | - | the job ends at once | - |
//! | `LostInput` | nobody | the missing producer partitions run again; the consumer waits without a slot | `generations_max` |
//! | the same, unreachable | nobody | first another executor tries; if it cannot reach it either, as above, elsewhere | `generations_max` |
//! | `Resources` | partition | half the slice, then one partition, then alone on an executor; a full disk: elsewhere | `attempts_max` |
//! | `Transient` | partition | again after a backoff, elsewhere if possible | `attempts_max`; `retry_percent` of the job's attempts |
//! | `Corrupt`, `Cancelled` by the executor | partition | again, elsewhere if possible | `attempts_max` |
//! | `Panic`, `Internal` | partition | once more, elsewhere if possible | 1 |
//! | its executor is gone | partition | again; before the last time alone on an executor, so that nobody is blamed for being there | `deaths_max`, more where executors die anyway |
//!
//! A lost output is first only marked as gone. What is gone and still wanted is queued again by [`Job::demand`], in a raised generation;
//! queueing a partition opens it, which makes its own inputs wanted again, and so on down to the leaves. Consumers that committed stay
//! committed, unless the producer is `Varying`: then everything that read the void generation is rolled back ([`Job::void`]). A stage
//! that was to repeat itself and did not, which the checksums of its rows tell, is `Varying` from then on ([`Job::distrust`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use windrow_core::failure::{CancelReason, Failed, Failure, LostCause, LostHow, Resource, TransientKind};
use windrow_core::ids::{AttemptId, ExecutorId, StageId};
use windrow_core::stage::Repeats;

use crate::event::Action;
use crate::executors::Lease;
use crate::faults::Fault;
use crate::job::{Attempt, Cx, Job, reads};
use crate::stage_state::State;

/// The longest backoff.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A job may have this many attempts fail in passing, however few it has.
const RETRIES_MIN: u64 = 20;

/// Where executors die anyway, a partition is blamed after this many times `deaths_max` deaths at the latest.
pub(crate) const DEATHS_FACTOR: usize = 3;

/// How a partition waits for its next attempt.
enum Again {
    Now,
    After(u64),
    Alone,
}

impl Job {
    /// An attempt is over. Its lease has ended already.
    ///
    /// # Errors
    /// The failure that ends the job.
    pub(crate) fn attempt_ended(&mut self, cx: &mut Cx<'_>, number: u32, failed: Option<Failed>) -> Result<(), Failed> {
        let Some(attempt) = self.end_attempt(cx, number) else { return Ok(()) };
        let failed = match failed {
            None if attempt.remaining == 0 => return Ok(()),
            None => Failed::new(
                Failure::Transient { what: TransientKind::Network, retry_after_ms: None },
                format!("{} ended before all its partitions were reported", attempt.id),
            ),
            Some(failed) => failed,
        };
        self.attempts_failed += 1;
        cx.counters.attempts_failed += 1;
        let open = self.still_running(&attempt, number);
        if self.stages[attempt.stage].by_slice && attempt.done.iter().any(Option::is_some) && attempt.remaining > 0 {
            let (executor, why) = (attempt.executor, CancelReason::Stale);
            cx.out.push(Action::Cancel { executor, attempt: attempt.id, why });
        }
        match &failed.failure {
            Failure::Fatal { .. } => Err(failed),
            Failure::LostInput { attempt: lost, partitions, executor, incarnation, cause } => {
                self.lost_last.clone_from(&failed.message);
                let is_unreachable = *cause == LostCause::Unreachable;
                let (about, by, began) = ((*executor, *incarnation), attempt.executor, attempt.launched_at);
                if is_unreachable && by != *executor && cx.executors.is_first_complaint(about, by, began, cx.now) {
                    for partition in open {
                        self.stages[attempt.stage].partitions[partition as usize].avoid = Some(by);
                        self.requeue(cx, attempt.stage, partition, &Again::Now);
                    }
                    return Ok(());
                }
                let news = self.output_lost(cx, *executor, *lost, partitions, is_unreachable)?;
                let is_stale = self.input_versions(attempt.stage, attempt.slice).0 != attempt.losses;
                if news || is_stale {
                    open.iter().for_each(|&partition| self.requeue(cx, attempt.stage, partition, &Again::Now));
                    Ok(())
                } else {
                    self.retry(cx, &attempt, &open, &failed)
                }
            }
            _ => self.retry(cx, &attempt, &open, &failed),
        }
    }

    /// Forgets a live attempt; its copy takes over.
    fn end_attempt(&mut self, cx: &Cx<'_>, number: u32) -> Option<Attempt> {
        let attempt = self.attempts.remove(&number)?;
        if !cx.faults.has(Fault::TwinForgotten) {
            self.inherit(attempt.twin, number);
        }
        Some(attempt)
    }

    /// Whether a live attempt still has partitions to compute.
    pub(crate) fn has_open(&self, number: u32) -> bool {
        self.attempts.get(&number).is_some_and(|attempt| attempt.remaining > 0)
    }

    /// The partitions that an attempt still had to compute.
    fn still_running(&self, attempt: &Attempt, number: u32) -> Vec<u32> {
        let partitions = &self.stages[attempt.stage].partitions;
        attempt.slice.iter().filter(|&partition| partitions[partition as usize].state == State::Running(number)).collect()
    }

    /// Counts a failure against each open partition of an attempt and queues them again.
    fn retry(&mut self, cx: &mut Cx<'_>, attempt: &Attempt, open: &[u32], failed: &Failed) -> Result<(), Failed> {
        if matches!(failed.failure, Failure::Transient { .. }) && !open.is_empty() {
            self.retries += 1;
            let budget = (self.launches.saturating_mul(cx.config.retry_percent.into()) / 100).max(RETRIES_MIN);
            if self.retries > budget {
                let what = format!(
                    "{} (attempts failed in passing {} times, more than {} % of all; scheduler.retry_percent allows no more)",
                    failed.message, self.retries, cx.config.retry_percent
                );
                return Err(Failed::new(failed.failure.clone(), what));
            }
        }
        for &partition in open {
            let again = self.count_failure(cx, attempt, partition, failed)?;
            self.requeue(cx, attempt.stage, partition, &again);
        }
        Ok(())
    }

    fn count_failure(&mut self, cx: &Cx<'_>, attempt: &Attempt, partition: u32, failed: &Failed) -> Result<Again, Failed> {
        let whole = self.graph.stages[attempt.stage].whole;
        let entry = &mut self.stages[attempt.stage].partitions[partition as usize];
        entry.failures += 1;
        let (mut again, mut bound) = (Again::Now, cx.config.attempts_max);
        match &failed.failure {
            Failure::Resources { what: Resource::Memory | Resource::Handles, .. } => {
                entry.shortages += 1;
                let len = attempt.slice.len().min(entry.slice_max);
                entry.slice_max = if entry.shortages == 1 { len.div_ceil(2) } else { 1 };
                if len == 1 || whole {
                    again = Again::Alone;
                }
            }
            Failure::Transient { retry_after_ms, .. } => {
                entry.avoid = Some(attempt.executor);
                again = Again::After(retry_after_ms.unwrap_or_else(|| backoff(cx.config.backoff, entry.failures, attempt.id)));
            }
            Failure::Panic | Failure::Internal | Failure::LostInput { .. } => {
                entry.avoid = Some(attempt.executor);
                entry.crashes += 1;
                bound = if entry.crashes > 1 { 0 } else { bound };
            }
            _ => entry.avoid = Some(attempt.executor),
        }
        if entry.failures < bound {
            return Ok(again);
        }
        let (times, stage, executor) = (entry.failures, attempt.id.stage, attempt.executor);
        let what = format!("{} (partition {partition} of {stage} failed {times} times, last on {executor})", failed.message);
        Err(Failed::new(failed.failure.clone(), what))
    }

    /// Whether an attempt runs a partition that was on another executor when that was lost.
    pub(crate) fn has_suspects(&self, attempt: AttemptId) -> bool {
        let number = attempt.attempt.number;
        self.attempts.get(&number).is_some_and(|attempt| {
            let partitions = &self.stages[attempt.stage].partitions;
            attempt.slice.iter().map(|partition| &partitions[partition as usize]).any(|entry| !entry.deaths.is_empty())
        })
    }

    /// Whether a partition was running wherever executors were lost, so that it must show alone what it does.
    fn is_suspect(&self, cx: &Cx<'_>, stage: usize, partition: u32) -> bool {
        let deaths = self.stages[stage].partitions[partition as usize].deaths.len();
        deaths > 0 && deaths + 1 >= cx.config.deaths_max as usize && !cx.faults.has(Fault::BlamedByPresence)
    }

    fn requeue(&mut self, cx: &mut Cx<'_>, stage: usize, partition: u32, again: &Again) {
        let again = if matches!(again, Again::Now) && self.is_suspect(cx, stage, partition) { &Again::Alone } else { again };
        let whole = self.graph.stages[stage].whole;
        let state = match again {
            Again::Now => State::Queued,
            Again::After(wait) => {
                if !cx.faults.has(Fault::BackoffForgotten) {
                    cx.timers.delay(cx.now.after(Duration::from_millis(*wait)), self.id, stage, partition);
                }
                State::Delayed
            }
            Again::Alone => {
                if !whole || partition == 0 {
                    cx.alone.insert((self.seq, self.id, stage, partition), None);
                }
                State::Alone
            }
        };
        self.set(stage, partition, state);
    }

    /// A backoff is over.
    pub(crate) fn wake(&mut self, cx: &mut Cx<'_>, stage: usize, partition: u32) {
        let entry = self.stages.get(stage).and_then(|stage| stage.partitions.get(partition as usize));
        if entry.is_some_and(|entry| entry.state == State::Delayed) {
            self.requeue(cx, stage, partition, &Again::Now);
        }
    }

    /// Committed output cannot be read. Says whether that was news. If its executor is unreachable, all that the job has there is lost,
    /// and computed again elsewhere.
    ///
    /// # Errors
    /// The failure that ends the job, if it cannot be computed again.
    pub(crate) fn output_lost(
        &mut self,
        cx: &mut Cx<'_>,
        executor: ExecutorId,
        lost: AttemptId,
        partitions: &[u32],
        is_unreachable: bool,
    ) -> Result<bool, Failed> {
        let (stage, number) = (lost.stage.0 as usize, lost.attempt.number);
        let Some(entry) = self.stages.get(stage).filter(|_| lost.job == self.id) else { return Ok(false) };
        let is_current = |output: &&crate::stage_state::Output| output.attempt == lost && output.executor == executor;
        let Some(output) = entry.outputs.get(&number).filter(is_current) else { return Ok(false) };
        let expand = entry.by_slice && !cx.faults.has(Fault::SliceSplit);
        let held = |partition: &u32| {
            entry.partitions.get(*partition as usize).is_some_and(|entry| entry.state == State::Committed(number))
        };
        let mut gone: Vec<u32> = partitions.iter().copied().filter(held).collect();
        if !gone.is_empty() && expand {
            gone = output.slice.iter().filter(held).collect();
        }
        if gone.is_empty() {
            return Ok(false);
        }
        if !is_unreachable {
            self.mark_gone(cx, stage, executor, &gone)?;
            return Ok(true);
        }
        cx.executors.shun(executor, cx.now);
        for stage in 0..self.stages.len() {
            let gone = cx.executors.held(executor, self.id, StageId(u32::try_from(stage).unwrap_or(u32::MAX)));
            if !gone.is_empty() {
                gone.iter().for_each(|&partition| self.stages[stage].partitions[partition as usize].avoid = Some(executor));
                self.mark_gone(cx, stage, executor, &gone)?;
            }
        }
        Ok(true)
    }

    /// Takes committed partitions of one executor out of sight.
    fn mark_gone(&mut self, cx: &mut Cx<'_>, stage: usize, executor: ExecutorId, partitions: &[u32]) -> Result<(), Failed> {
        let id = StageId(u32::try_from(stage).unwrap_or(u32::MAX));
        self.stages[stage].losses += 1;
        self.count_lost(cx, stage, partitions.len());
        for &partition in partitions {
            self.set(stage, partition, State::Gone);
            cx.executors.drop_output(executor, self.id, id, partition);
        }
        if stage == self.result() && self.graph.stages[stage].repeats == Repeats::AsSlice {
            let delivered = |partition: &&u32| self.stages[stage].partitions[**partition as usize].delivered;
            let is_redealt = self.is_kept && !cx.faults.has(Fault::KeptRedealt);
            let may_run_again = is_redealt || !partitions.iter().all(|p| delivered(&p));
            if partitions.iter().any(|partition| delivered(&partition)) && may_run_again {
                return Err(contradiction(id));
            }
        }
        Ok(())
    }

    fn count_lost(&mut self, cx: &mut Cx<'_>, stage: usize, partitions: usize) {
        self.stages[stage].lost += partitions as u64;
        cx.counters.partitions_lost += partitions as u64;
    }

    /// Queues again what is gone of a stage that is wanted.
    ///
    /// # Errors
    /// The failure that ends the job, if the bound is reached or a delivered result would be contradicted.
    pub(crate) fn demand(&mut self, cx: &mut Cx<'_>, stage: usize) -> Result<(), Failed> {
        let entry = &self.stages[stage];
        let is_gone = |partition: &u32| entry.partitions[*partition as usize].state == State::Gone;
        let is_left_out = |partition: u32| cx.faults.has(Fault::KeptForgotten) && entry.partitions[partition as usize].delivered;
        let is_wanted = |partition: &u32| self.is_partition_wanted(stage, *partition) && !is_left_out(*partition);
        let mut wanted: Vec<u32> = (0..entry.count()).filter(|partition| is_gone(partition) && is_wanted(partition)).collect();
        if self.graph.stages[stage].whole && !wanted.is_empty() {
            wanted = (0..entry.count()).filter(is_gone).collect();
        }
        let was_read = wanted.iter().any(|&partition| entry.partitions[partition as usize].was_committed());
        if self.graph.stages[stage].repeats == Repeats::Varying && was_read && !cx.faults.has(Fault::VaryingMixed) {
            return self.void(cx, stage);
        }
        wanted.into_iter().try_for_each(|partition| self.reopen(cx, stage, partition, 0))
    }

    /// Queues a partition again, in a raised generation, at least `generation`, if it had committed.
    fn reopen(&mut self, cx: &mut Cx<'_>, stage: usize, partition: u32, generation: u32) -> Result<(), Failed> {
        let entry = &mut self.stages[stage];
        let state = &mut entry.partitions[partition as usize];
        let before = state.generation;
        if std::mem::take(&mut state.committed) {
            entry.rerun += 1;
            cx.counters.partitions_rerun += 1;
            if !cx.faults.has(Fault::GenerationNotRaised) {
                state.generation += 1;
            }
        }
        state.generation = state.generation.max(generation);
        if state.generation > cx.config.generations_max {
            let stage = StageId(u32::try_from(stage).unwrap_or(u32::MAX));
            return Err(exhausted(stage, partition, cx.config.generations_max, &self.lost_last));
        }
        if state.generation > before && state.generation > entry.generation {
            entry.generation = state.generation;
            cx.counters.generations_raised += 1;
        }
        self.requeue(cx, stage, partition, &Again::Now);
        Ok(())
    }

    /// Another run of a stage gave other rows, though the planner took it for one that repeats itself, as it does with a function that
    /// is declared deterministic and is not. From now on it is `Varying`, and what it made so far is void.
    ///
    /// # Errors
    /// The failure that ends the job, if a part of the result that depends on it was sent.
    pub(crate) fn distrust(&mut self, cx: &mut Cx<'_>, stage: usize) -> Result<(), Failed> {
        cx.counters.stages_distrusted += 1;
        Arc::make_mut(&mut self.graph).stages[stage].repeats = Repeats::Varying;
        self.stages[stage].by_slice = true;
        self.void(cx, stage)
    }

    /// Another run of `root` may give other rows: its whole generation is void, and so is everything computed from it.
    fn void(&mut self, cx: &mut Cx<'_>, root: usize) -> Result<(), Failed> {
        let mut tainted: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
        let mut changed = BTreeSet::from([root]);
        for stage in root..self.stages.len() {
            let partitions =
                if stage == root { (0..self.stages[stage].count()).collect() } else { self.tainted(stage, &changed) };
            if !partitions.is_empty() {
                changed.insert(stage);
                tainted.insert(stage, partitions);
            }
        }
        tainted.into_iter().rev().try_for_each(|(stage, partitions)| self.roll_back(cx, stage, &partitions))
    }

    /// Partitions of a stage whose attempts read a changed stage, or whose siblings did where they live and die together.
    fn tainted(&self, stage: usize, changed: &BTreeSet<usize>) -> BTreeSet<u32> {
        let (plan, entry) = (&self.graph.stages[stage], &self.stages[stage]);
        let inputs: Vec<_> = plan.inputs.iter().filter(|input| changed.contains(&(input.stage.0 as usize))).collect();
        let started = |partition: u32| {
            let state = &entry.partitions[partition as usize];
            matches!(state.state, State::Running(_) | State::Committed(_)) || state.was_committed()
        };
        let has_read = |partition: &u32| started(*partition) && inputs.iter().any(|input| reads(input, *partition));
        let direct: BTreeSet<u32> = (0..entry.count()).filter(has_read).collect();
        if direct.is_empty() {
            return direct;
        }
        if plan.repeats == Repeats::Varying {
            return (0..entry.count()).collect();
        }
        // Whoever shares an attempt with a tainted partition goes with it: a cancel drops all its outputs.
        let number_of = |partition: u32| match entry.partitions[partition as usize].state {
            State::Running(number) | State::Committed(number) => {
                let twin = self.attempts.get(&number).and_then(|attempt| attempt.twin);
                Some(twin.map_or(number, |twin| twin.min(number)))
            }
            _ => None,
        };
        let numbers: BTreeSet<u32> = direct.iter().filter_map(|&partition| number_of(partition)).collect();
        let siblings = (0..entry.count()).filter(|&partition| number_of(partition).is_some_and(|n| numbers.contains(&n)));
        direct.iter().copied().chain(siblings).collect()
    }

    /// Takes back what partitions did, whatever they are doing.
    fn roll_back(&mut self, cx: &mut Cx<'_>, stage: usize, partitions: &BTreeSet<u32>) -> Result<(), Failed> {
        let id = StageId(u32::try_from(stage).unwrap_or(u32::MAX));
        let may_go_on = cx.faults.has(Fault::ResultContradicted);
        if stage == self.result() && !may_go_on && partitions.iter().any(|&p| self.stages[stage].partitions[p as usize].delivered)
        {
            return Err(contradiction(id));
        }
        let is_varying = self.graph.stages[stage].repeats == Repeats::Varying;
        let generation = if is_varying { self.stages[stage].generation + 1 } else { 0 };
        self.stages[stage].voids += 1;
        self.stages[stage].losses += 1;
        self.unsettled.insert(stage);
        let mut cancelled = BTreeSet::new();
        for &partition in partitions {
            let entry = &self.stages[stage].partitions[partition as usize];
            match entry.state {
                State::Running(number) => {
                    cancelled.insert(number);
                    self.reopen(cx, stage, partition, generation)?;
                }
                State::Committed(number) => {
                    self.count_lost(cx, stage, 1);
                    let executor = self.stages[stage].outputs.get(&number).map(|output| output.executor);
                    if let Some(executor) = executor {
                        cx.executors.drop_output(executor, self.id, id, partition);
                    }
                    self.reopen(cx, stage, partition, generation)?;
                }
                State::Delayed | State::Alone => {
                    self.leave_alone_queue(cx, stage, partition);
                    self.reopen(cx, stage, partition, generation)?;
                }
                State::Queued | State::Skipped => self.reopen(cx, stage, partition, generation)?,
                State::Gone if is_varying => self.reopen(cx, stage, partition, generation)?,
                State::Gone => {}
            }
            let entry = &mut self.stages[stage].partitions[partition as usize];
            entry.void_before = entry.generation;
        }
        cancelled.into_iter().for_each(|number| self.cancel(cx, number, CancelReason::Stale));
        Ok(())
    }

    /// Rows of a result partition have left for the client. They are never computed again unless the result is kept; if they are not
    /// what the partition holds or will hold, the job cannot go on. Says whether it was news.
    ///
    /// # Errors
    /// The contradiction, which ends the job.
    pub(crate) fn delivered(&mut self, cx: &mut Cx<'_>, partition: u32, attempt: Option<AttemptId>) -> Result<bool, Failed> {
        let stage = self.result();
        let id = StageId(u32::try_from(stage).unwrap_or(u32::MAX));
        let repeats = self.graph.stages[stage].repeats;
        let result = &mut self.stages[stage];
        let Some(entry) = result.partitions.get_mut(partition as usize).filter(|entry| !entry.delivered) else {
            return Ok(false);
        };
        let is_current = match (attempt, entry.state) {
            (None, state) => state == State::Skipped,
            (Some(attempt), State::Committed(number)) => {
                result.outputs.get(&number).is_some_and(|output| output.attempt == attempt)
            }
            _ => false,
        };
        let is_same = attempt.is_some_and(|attempt| {
            let is_mine = (attempt.job, attempt.stage) == (self.id, id) && attempt.attempt.epoch == cx.epoch;
            is_mine && attempt.generation.0 >= entry.void_before && attempt.generation.0 <= entry.generation
        });
        let is_equal = is_same && repeats == Repeats::Repeatable;
        if !(is_current || is_equal || cx.faults.has(Fault::ResultContradicted)) {
            return Err(contradiction(id));
        }
        let state = entry.state;
        self.fetched(partition);
        let is_over = !self.is_kept && !self.graph.stages[stage].whole;
        if matches!(state, State::Queued | State::Delayed | State::Alone) && is_over {
            self.leave_alone_queue(cx, stage, partition);
            self.set(stage, partition, State::Gone);
        }
        Ok(true)
    }

    /// An executor is gone, with the attempts and the outputs that this job had there. Their slots are given back already.
    ///
    /// # Errors
    /// The failure that ends the job.
    pub(crate) fn executor_gone(
        &mut self,
        cx: &mut Cx<'_>,
        executor: ExecutorId,
        how: LostHow,
        leases: &[Lease],
        outputs: &BTreeMap<StageId, Vec<u32>>,
    ) -> Result<(), Failed> {
        for lease in leases {
            let number = lease.attempt.attempt.number;
            if lease.cancelled || cx.faults.has(Fault::WakeUpForgotten) {
                continue;
            }
            if let Some(attempt) = self.end_attempt(cx, number) {
                self.bury(cx, &attempt, number, how)?;
            }
        }
        for (stage, partitions) in outputs {
            let stage = stage.0 as usize;
            if stage < self.stages.len() {
                self.stages[stage].forget_bytes(Some(executor));
                self.mark_gone(cx, stage, executor, partitions)?;
            }
        }
        Ok(())
    }

    /// Queues again what an attempt was doing on an executor that is gone.
    fn bury(&mut self, cx: &mut Cx<'_>, attempt: &Attempt, number: u32, how: LostHow) -> Result<(), Failed> {
        for partition in self.still_running(attempt, number) {
            let entry = &mut self.stages[attempt.stage].partitions[partition as usize];
            if how != LostHow::Drained {
                if entry.deaths.is_empty() {
                    entry.lost_anyway = cx.executors.lost_anyway;
                }
                entry.deaths.push((attempt.executor, how));
            }
            let (deaths, most) = (entry.deaths.len(), cx.config.deaths_max.max(1) as usize);
            // As many more as there were deaths without it meanwhile: those happen anyway, whoever is there.
            let others = usize::try_from(cx.executors.lost_anyway - entry.lost_anyway).unwrap_or(usize::MAX);
            let by_presence = cx.faults.has(Fault::BlamedByPresence);
            let is_enough = deaths >= most.saturating_add(others) || deaths >= most.saturating_mul(DEATHS_FACTOR) || by_presence;
            if deaths >= most && is_enough && (attempt.is_alone || by_presence) {
                return Err(poison(attempt.id.stage, partition, &entry.deaths));
            }
            self.requeue(cx, attempt.stage, partition, &Again::Now);
        }
        Ok(())
    }
}

/// The wait before attempt `failures + 1`: doubled each time, with up to a quarter more, drawn from the attempt's own number so that
/// a crowd that failed together does not return together.
fn backoff(first: Duration, failures: u32, attempt: AttemptId) -> u64 {
    let first = u64::try_from(first.as_millis()).unwrap_or(u64::MAX);
    let longest = u64::try_from(BACKOFF_MAX.as_millis()).unwrap_or(u64::MAX);
    let wait = first.saturating_mul(1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX)).min(longest);
    let hash = (u64::from(attempt.attempt.number) ^ attempt.job.0).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    wait.saturating_add(hash % (wait / 4).max(1))
}

/// What a partition that ends executors tells.
fn poison(stage: StageId, partition: u32, deaths: &[(ExecutorId, LostHow)]) -> Failed {
    let how = |how: &LostHow| match how {
        LostHow::Silent => "fell silent",
        LostHow::Reset => "lost its connection",
        LostHow::Fenced => "started anew",
        LostHow::Drained => "left",
    };
    let each: Vec<_> = deaths.iter().map(|(executor, lost)| format!("{executor} {}", how(lost))).collect();
    Failed::new(
        Failure::Poison,
        format!(
            "partition {partition} of {stage} was running on these executors when they were lost: {}, the last one while it ran nothing else; a function or a \
             file of the query ends the process, see the executors' logs",
            each.join(", ")
        ),
    )
}

fn contradiction(stage: StageId) -> Failed {
    let how = LostHow::Silent;
    Failed::new(
        Failure::ExecutorLost { how },
        format!(
            "a part of the result had been sent already when rows of {stage} were lost, and another run of it may give other rows; run the query again"
        ),
    )
}

fn exhausted(stage: StageId, partition: u32, bound: u32, last: &str) -> Failed {
    let how = LostHow::Silent;
    let last = if last.is_empty() { String::new() } else { format!(" (the last time: {last})") };
    Failed::new(
        Failure::ExecutorLost { how },
        format!(
            "partition {partition} of {stage} was computed {bound} times again and lost each time{last}; look at the executors' logs"
        ),
    )
}
