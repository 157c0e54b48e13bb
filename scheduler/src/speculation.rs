//! Speculation: when most of a stage is done and a partition takes far longer than its input explains, a copy of its attempt starts on
//! another executor, and whoever is done first wins. A partition that is merely bigger is not slow: what counts is input per second,
//! as the other partitions of the stage measured it. (Dean and Ghemawat, MapReduce, OSDI 2004, section 3.6; Zaharia et al., LATE,
//! OSDI 2008, for comparing rates.)
//!
//! - At least three quarters of the partitions are done, or all but one.
//! - It has run for `scheduler.speculate_after`, and at less than two thirds of the median rate.
//! - One copy an attempt, on another executor with a free slot that no job wants; copies hold at most a tenth of all slots, at least one.
//!
//! The copy is the *twin* of the attempt. Partitions stay with the first of the two until the twin commits them or is alone.

use std::time::Duration;

use windrow_core::clock::Millis;
use windrow_core::failure::CancelReason;
use windrow_core::stage::InputRead;
use windrow_core::task::Slice;

use crate::Scheduler;
use crate::faults::Fault;
use crate::job::{Attempt, Cx, Job};
use crate::stage_state::State;

/// Between looks at a stage whose end is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Commits whose rates are remembered for the median.
const SAMPLES_MAX: usize = 101;

/// Copies hold at most this part of all slots.
const COPIES_PART: u64 = 10;

/// Rates are integers: input bytes count this many times, so that even slow partitions have one.
const SCALE: u64 = 1024;

/// How fast the partitions of a stage were: scaled input bytes a second.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    rates: Vec<u64>,
    next: usize,
}

impl Pace {
    fn note(&mut self, work: u64, took: u64) {
        let rate = work.saturating_mul(1000) / took.max(1);
        match self.rates.get_mut(self.next) {
            Some(oldest) => *oldest = rate,
            None => self.rates.push(rate),
        }
        self.next = (self.next + 1) % SAMPLES_MAX;
    }

    fn median(&self) -> Option<u64> {
        let mut sorted = self.rates.clone();
        let middle = sorted.len() / 2;
        (!sorted.is_empty()).then(|| *sorted.select_nth_unstable(middle).1)
    }
}

impl Scheduler {
    /// Looks at the stages whose time has come.
    pub(crate) fn speculate(&mut self) {
        for (id, stage) in self.timers.due_looks(self.now) {
            if self.hungry.len() > 0 || self.executors.free_slots() == 0 {
                self.timers.look(self.now.after(LOOK_AGAIN), id, stage);
                continue;
            }
            let copies: u64 = self.jobs.values().map(|job| u64::from(job.copies)).sum();
            let room = (self.executors.live_slots() / COPIES_PART).max(1).saturating_sub(copies);
            self.with_job(id, |job, cx| {
                job.copy_stragglers(cx, stage, room);
                Ok(())
            });
        }
    }
}

impl Job {
    /// Notes how fast a committed partition was, and has the stage looked at once most of it is done.
    pub(crate) fn note_pace(&mut self, cx: &mut Cx<'_>, stage: usize, partition: u32, launched_at: Millis) {
        if cx.config.speculate_after.is_zero() {
            return;
        }
        let work = self.work(stage, partition);
        let entry = &mut self.stages[stage];
        entry.pace.note(work, cx.now.0.saturating_sub(launched_at.0));
        if !entry.is_watched && self.may_copy(stage) {
            self.stages[stage].is_watched = true;
            cx.timers.look(cx.now.after(LOOK_AGAIN), self.id, stage);
        }
    }

    fn may_copy(&self, stage: usize) -> bool {
        let (plan, entry) = (&self.graph.stages[stage], &self.stages[stage]);
        let is_late = u64::from(entry.open) * 4 <= u64::from(entry.count()) || entry.open == 1;
        is_late && entry.running > 0 && !plan.whole && plan.row_limit.is_none()
    }

    /// What a partition has to read, as far as it is known, scaled.
    fn work(&self, stage: usize, partition: u32) -> u64 {
        let plan = &self.graph.stages[stage];
        let mut bytes = plan.partition_bytes.get(partition as usize).copied().unwrap_or(0);
        for input in &plan.inputs {
            let InputRead::Partitioned { offset, count } = input.read else { continue };
            if let Some(segment) = partition.checked_sub(offset).filter(|segment| *segment < count) {
                let segment = segment as usize;
                let held = self.stages[input.stage.0 as usize].bytes_by_holder(segment..segment + 1);
                bytes = held.fold(bytes, |sum, (_, bytes)| sum.saturating_add(bytes));
            }
        }
        bytes.max(1).saturating_mul(SCALE)
    }

    /// Starts copies of late attempts, at most `room`, and has the stage looked at again as long as one may become late.
    fn copy_stragglers(&mut self, cx: &mut Cx<'_>, stage: usize, mut room: u64) {
        let median = self.stages.get(stage).and_then(|entry| entry.pace.median());
        let Some(median) = median.filter(|_| self.may_copy(stage)) else {
            self.stages[stage].is_watched = false;
            return;
        };
        let mut next: Option<Millis> = None;
        for number in self.attempts_of(stage) {
            let Some(attempt) = self.attempts.get(&number).filter(|attempt| attempt.twin.is_none()) else { continue };
            let Some(slice) = self.first_open(attempt, number) else { continue };
            let (own, launched_at) = (attempt.executor, attempt.launched_at);
            let work = slice.iter().map(|partition| self.work(stage, partition)).max().unwrap_or(0);
            let fair = Duration::from_millis(work.saturating_mul(1500) / median.max(1));
            let late_at = launched_at.after(fair.max(cx.config.speculate_after));
            let mut look_at = late_at;
            if cx.now >= late_at {
                look_at = cx.now.after(LOOK_AGAIN);
                let may = room > 0 && self.stages[stage].inputs_missing == 0;
                let other = self.choose(cx, stage, slice, Some(own)).filter(|other| *other != own && may);
                if let Some(other) = other {
                    self.launch_copy(cx, stage, number, slice, other);
                    room -= 1;
                    continue;
                }
            }
            next = Some(next.map_or(look_at, |next| next.min(look_at)));
        }
        self.stages[stage].is_watched = next.is_some();
        if let Some(next) = next {
            cx.timers.look(next, self.id, stage);
        }
    }

    /// What a copy of an attempt would compute: its first open partitions in a row, or its slice where that commits whole.
    fn first_open(&self, attempt: &Attempt, number: u32) -> Option<Slice> {
        let runs = |partition: u32| self.stages[attempt.stage].partitions[partition as usize].state == State::Running(number);
        let start = attempt.slice.iter().find(|&partition| runs(partition))?;
        let end = (start..attempt.slice.end).find(|&partition| !runs(partition)).unwrap_or(attempt.slice.end);
        let slice = Slice { start, end };
        (!self.stages[attempt.stage].by_slice || slice == attempt.slice).then_some(slice)
    }

    /// After a commit by one of two twins: the other need not compute it any more, and ends when nothing is left for it.
    pub(crate) fn outrun_twin(&mut self, cx: &mut Cx<'_>, number: u32, partition: u32) {
        let Some(attempt) = self.attempts.get(&number) else { return };
        let (Some(twin), is_done) = (attempt.twin, attempt.remaining == 0) else { return };
        if cx.faults.has(Fault::TwoWinners) {
            return;
        }
        let by_slice = self.stages[attempt.stage].by_slice;
        let Some(other) = self.attempts.get_mut(&twin) else { return };
        if by_slice {
            if is_done {
                self.part(number);
                self.cancel(cx, twin, CancelReason::Loser);
            }
            return;
        }
        let index = partition.wrapping_sub(other.slice.start) as usize;
        if let Some(done) = other.done.get_mut(index).filter(|done| done.is_none()) {
            *done = Some(Default::default());
            other.remaining -= 1;
            let (executor, id, stage, remaining) = (other.executor, other.id, other.stage, other.remaining);
            self.slots -= cx.executors.shrink(executor, id, remaining);
            if remaining == 0 {
                // What it committed before stays.
                let has_committed = self.stages[stage].outputs.contains_key(&twin);
                self.part(number);
                self.cancel(cx, twin, if has_committed { CancelReason::Enough } else { CancelReason::Loser });
            }
        }
        if is_done {
            self.part(number);
        }
    }

    /// Two twins are none any more.
    pub(crate) fn part(&mut self, number: u32) {
        if let Some(twin) = self.attempts.get_mut(&number).and_then(|attempt| attempt.twin.take()) {
            self.widow(twin);
        }
    }

    /// An attempt is over that was the twin of `number`, which takes over what it still computes. Says which partitions.
    pub(crate) fn inherit(&mut self, number: Option<u32>, from: u32) {
        let Some(number) = number else { return };
        self.widow(number);
        let Some(heir) = self.attempts.get(&number) else { return };
        let (stage, slice) = (heir.stage, heir.slice);
        for partition in slice.iter() {
            if self.stages[stage].partitions[partition as usize].state == State::Running(from) {
                self.set(stage, partition, State::Running(number));
            }
        }
    }

    fn widow(&mut self, number: u32) {
        if let Some(attempt) = self.attempts.get_mut(&number) {
            attempt.twin = None;
        }
        self.copies = self.copies.saturating_sub(1);
    }
}
