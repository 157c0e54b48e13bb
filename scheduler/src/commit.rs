//! What success means: a partition's output becomes visible, the first valid report wins, and a row limit ends a stage early.
//! The other outcomes are in `recovery.rs`.

use std::collections::BTreeSet;

use windrow_core::failure::{CancelReason, Failed};
use windrow_core::ids::StageId;
use windrow_core::task::{PartitionStat, Slice};

use crate::event::Action;
use crate::faults::Fault;
use crate::job::{Cx, Job};
use crate::stage_state::{Output, State};

impl Job {
    /// A partition of a live attempt is done. Says whether that was news.
    ///
    /// # Errors
    /// The failure that ends the job, if rows were sent already that this partition contradicts.
    pub(crate) fn partition_done(
        &mut self,
        cx: &mut Cx<'_>,
        number: u32,
        partition: u32,
        stat: PartitionStat,
    ) -> Result<bool, Failed> {
        let Some(attempt) = self.attempts.get_mut(&number) else { return Ok(false) };
        if !attempt.slice.contains(partition) {
            return Ok(false);
        }
        let may_repeat = cx.faults.has(Fault::DoneTwiceCounted);
        let done = attempt.done.get_mut((partition - attempt.slice.start) as usize);
        let Some(done) = done.filter(|done| done.is_none() || may_repeat) else { return Ok(false) };
        let (stage, slice) = (attempt.stage, attempt.slice);
        let by_slice = self.stages[stage].by_slice;
        let mut is_contradicted = false;
        attempt.remaining = attempt.remaining.saturating_sub(1);
        let (executor, id, remaining, launched_at) = (attempt.executor, attempt.id, attempt.remaining, attempt.launched_at);
        if by_slice {
            *done = Some(stat);
            if remaining == 0 {
                let stats = std::mem::take(&mut attempt.done);
                for (partition, stat) in slice.iter().zip(stats.into_iter().flatten()) {
                    self.commit(cx, number, partition, &stat);
                }
                if let Some(attempt) = self.attempts.get_mut(&number) {
                    attempt.done = vec![Some(PartitionStat::default()); slice.len() as usize];
                }
            }
        } else {
            *done = Some(PartitionStat::default());
            is_contradicted = self.commit(cx, number, partition, &stat);
        }
        self.slots -= cx.executors.shrink(executor, id, remaining);
        self.outrun_twin(cx, number, partition);
        if !by_slice || remaining == 0 {
            self.note_pace(cx, stage, partition, launched_at);
        }
        self.stop_early(cx, stage);
        if is_contradicted {
            self.distrust(cx, stage)?;
        }
        Ok(true)
    }

    /// Makes a partition's output visible. Says whether it contradicts an earlier run of a stage that was to repeat itself.
    fn commit(&mut self, cx: &mut Cx<'_>, number: u32, partition: u32, stat: &PartitionStat) -> bool {
        let Some(attempt) = self.attempts.get(&number) else { return false };
        let (stage, executor) = (attempt.stage, attempt.executor);
        let output =
            Output { attempt: attempt.id, executor, incarnation: attempt.incarnation, slice: attempt.slice, committed: 0 };
        let (_, voids) = self.input_versions(stage, Slice { start: partition, end: partition + 1 });
        let segments = self.graph.stages[stage].exchange.segments();
        let entry = &mut self.stages[stage];
        entry.outputs.entry(number).or_insert(output).committed += 1;
        entry.commits += 1;
        entry.rows = entry.rows.saturating_add(stat.rows);
        entry.bytes = entry.bytes.saturating_add(stat.bytes());
        entry.add_bytes(executor, segments, stat);
        let is_checked = !entry.by_slice && !cx.faults.has(Fault::RepeatTrusted);
        let state = &mut entry.partitions[partition as usize];
        let is_contradicted = is_checked && state.contradicts(stat, voids);
        (state.committed, state.rows, state.bytes, state.voids) = (true, stat.rows, stat.bytes(), voids);
        state.checksum = stat.checksum;
        state.deaths.clear();
        cx.counters.partitions_committed += 1;
        cx.executors.hold(executor, self.id, StageId(u32::try_from(stage).unwrap_or(u32::MAX)), partition);
        self.set(stage, partition, State::Committed(number));
        if cx.faults.has(Fault::ReleasedEarly)
            && let Some(input) = self.graph.stages[stage].inputs.first().map(|input| input.stage.0 as usize)
        {
            self.release(cx, input);
        }
        if stage == self.result() {
            let location = self.location(cx, partition);
            cx.out.push(Action::ResultReady { job: self.id, partition, location, bytes: stat.bytes() });
        }
        is_contradicted
    }

    /// Where one committed result partition is.
    fn location(&self, cx: &Cx<'_>, partition: u32) -> Option<windrow_core::task::InputGroup> {
        let result = &self.stages[self.result()];
        let State::Committed(number) = result.partitions.get(partition as usize)?.state else { return None };
        let output = result.outputs.get(&number)?;
        Some(windrow_core::task::InputGroup {
            attempt: output.attempt,
            executor: output.executor,
            incarnation: output.incarnation,
            address: cx.executors.get(output.executor).and_then(|executor| executor.address.clone()),
            partitions: vec![partition],
        })
    }

    /// Once the committed rows reach the stage's limit, the open partitions count as committed and empty.
    fn stop_early(&mut self, cx: &mut Cx<'_>, stage: usize) {
        let Some(limit) = self.graph.stages[stage].row_limit else { return };
        if self.stages[stage].open == 0 || self.stages[stage].rows < limit {
            return;
        }
        let mut running = BTreeSet::new();
        for partition in 0..self.stages[stage].count() {
            let state = self.stages[stage].partitions[partition as usize].state;
            // What was read before stays part of the stage, whichever order it comes back in.
            if !state.is_open() || self.stages[stage].partitions[partition as usize].was_committed() {
                continue;
            }
            if let State::Running(number) = state {
                running.insert(number);
            }
            self.leave_alone_queue(cx, stage, partition);
            self.set(stage, partition, State::Skipped);
            if stage == self.result() {
                cx.out.push(Action::ResultReady { job: self.id, partition, location: None, bytes: 0 });
            }
        }
        running.into_iter().for_each(|number| self.cancel(cx, number, CancelReason::Enough));
    }
}
