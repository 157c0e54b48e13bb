//! Placement: which partitions become the next slice, and which executor gets it. Next: the executor, by `Action::Launch`.
//!
//! **Stage.** Within a job the lowest ready stage goes first: producers come before consumers, and stages with independent inputs run
//! side by side as slots allow.
//!
//! **Slice.** The first run of queued partitions is cut from its start. Let R be the queued partitions of the stage.
//! - If R fits the free slots, everything starts now: R is spread evenly over the executors with free slots, in one slice each, so
//!   that what a task shares (a broadcast's hash table) is built once an executor.
//! - Otherwise slices have R / (2 x executors) partitions: large first, small last, so that the end of the stage balances.
//! - Never more than the executor's free slots, the job's fair share, or what a shortage of memory has taught.
//! - Partitions whose inputs turned out tiny share a slot: all of this is in slots then, each of several partitions.
//!
//! A stage that must run whole takes as many slots as it has partitions, or all that are free on the executor with most of them:
//! it never waits for a bigger gap, which might never come.
//!
//! **Executor.** The one that holds most input bytes of the slice, then the one with most free slots, then the lowest number. An
//! executor where the partition has failed is taken only if no other has a free slot.

use std::cmp::Reverse;

use windrow_core::ids::{AttemptId, AttemptNumber, ExecutorId, Generation, StageId, TaskId};
use windrow_core::stage::InputRead;
use windrow_core::task::{InputVector, Slice, TaskSpec};

use crate::event::Action;
use crate::faults::Fault;
use crate::job::{Attempt, Cx, Job, reads};
use crate::stage_state::State;

/// Most partitions that share a slot: each takes some memory, however little it reads.
const PER_SLOT_MAX: u32 = 16;

impl Job {
    /// Launches the next slice, of at most `share` partitions, where slots are free. Says whether there was anything to launch.
    pub(crate) fn launch_next(&mut self, cx: &mut Cx<'_>, share: u32) -> bool {
        let Some(&stage) = self.ready.first() else { return false };
        let Some((start, end)) = self.next_run(stage) else { return false };
        let first = &self.stages[stage].partitions[start as usize];
        let (avoid, slice_max) = (first.avoid, first.slice_max);
        let each = self.partitions_per_slot(cx, stage);
        let most = share.max(1).saturating_mul(each);
        let want = self.wanted_len(cx, stage, each).min(slice_max).min(most).min(end - start);
        let Some(executor) = self.choose(cx, stage, Slice { start, end: start + want }, avoid) else { return false };
        let free = cx.executors.free_of(executor);
        let slice = if self.graph.stages[stage].whole {
            Slice { start: 0, end: self.stages[stage].count() }
        } else {
            self.uniform(stage, Slice { start, end: start + want.min(free.saturating_mul(each)).max(1) })
        };
        self.launch(cx, stage, slice, executor, slice.len().div_ceil(each).min(free), None);
        true
    }

    /// Launches what waited for an executor of its own: all its slots are for one partition, or for a stage that runs whole.
    pub(crate) fn launch_alone(&mut self, cx: &mut Cx<'_>, stage: usize, partition: u32, executor: ExecutorId) {
        let slots = cx.executors.get(executor).map_or(1, |executor| executor.slots);
        let slice = if self.graph.stages[stage].whole {
            Slice { start: 0, end: self.stages[stage].count() }
        } else {
            Slice { start: partition, end: partition + 1 }
        };
        if let Some(number) = self.launch(cx, stage, slice, executor, slots, None)
            && let Some(attempt) = self.attempts.get_mut(&number)
        {
            attempt.is_alone = true;
        }
    }

    /// Launches a copy of an attempt.
    pub(crate) fn launch_copy(&mut self, cx: &mut Cx<'_>, stage: usize, of: u32, slice: Slice, executor: ExecutorId) {
        let slots = slice.len().min(cx.executors.free_of(executor));
        let Some(number) = self.launch(cx, stage, slice, executor, slots, Some(of)) else { return };
        if let Some(attempt) = self.attempts.get_mut(&of) {
            attempt.twin = Some(number);
        }
        self.copies += 1;
        self.copied += 1;
        cx.counters.copies += 1;
    }

    /// How long the next slice shall be, before the limits of one executor.
    fn wanted_len(&self, cx: &Cx<'_>, stage: usize, each: u32) -> u32 {
        let slots = self.stages[stage].queued.len().div_ceil(each);
        let len = if u64::from(slots) <= cx.executors.free_slots() {
            let executors = u32::try_from(cx.executors.free_executors()).unwrap_or(u32::MAX);
            slots.div_ceil(executors.max(1))
        } else {
            slots.div_ceil(cx.executors.live().saturating_mul(2).max(1))
        };
        len.saturating_mul(each)
    }

    /// How many partitions of a stage share a slot: more than one where all that they read was measured and is little.
    fn partitions_per_slot(&self, cx: &Cx<'_>, stage: usize) -> u32 {
        let (plan, worth) = (&self.graph.stages[stage], cx.config.slice_bytes.as_u64());
        let divided = plan.inputs.iter().filter(|input| matches!(input.read, InputRead::Partitioned { .. }));
        let bytes = divided.map(|input| self.stages[input.stage.0 as usize].bytes).reduce(u64::saturating_add);
        match bytes {
            Some(bytes) if worth > 0 && plan.partition_bytes.is_empty() => {
                let each = bytes.div_ceil(u64::from(plan.partitions.max(1))).max(1);
                u32::try_from(worth / each).unwrap_or(u32::MAX).clamp(1, PER_SLOT_MAX)
            }
            _ => 1,
        }
    }

    /// The part of `slice`, from its start, whose partitions may be computed together.
    fn uniform(&self, stage: usize, slice: Slice) -> Slice {
        let partitions = &self.stages[stage].partitions[slice.start as usize..slice.end as usize];
        let first = &partitions[0];
        let fits = |index: usize| {
            let (other, len) = (&partitions[index], u32::try_from(index).unwrap_or(u32::MAX));
            (other.generation, other.avoid) == (first.generation, first.avoid) && len < other.slice_max
        };
        let len = (1..partitions.len()).find(|&index| !fits(index)).unwrap_or(partitions.len());
        Slice { start: slice.start, end: slice.start + u32::try_from(len).unwrap_or(1) }
    }

    pub(crate) fn choose(&self, cx: &Cx<'_>, stage: usize, slice: Slice, avoid: Option<ExecutorId>) -> Option<ExecutorId> {
        let mut bytes = std::collections::BTreeMap::<ExecutorId, u64>::new();
        for input in self.graph.stages[stage].inputs.iter().filter(|input| reads(input, slice.start)) {
            let segments = match input.read {
                InputRead::Partitioned { offset, .. } => {
                    (slice.start - offset) as usize..slice.end.saturating_sub(offset) as usize
                }
                InputRead::Whole | InputRead::Scalar => 0..1,
            };
            for (executor, held) in self.stages[input.stage.0 as usize].bytes_by_holder(segments) {
                let sum = bytes.entry(executor).or_default();
                *sum = sum.saturating_add(held);
            }
        }
        let local = bytes
            .into_iter()
            .filter(|&(executor, held)| held > 0 && Some(executor) != avoid)
            .map(|(executor, held)| (held, cx.executors.free_of(executor), Reverse(executor)))
            .filter(|&(_, free, _)| free > 0)
            .max();
        local.map(|(_, _, Reverse(executor))| executor).or_else(|| cx.executors.most_free(avoid))
    }

    /// Launches the first partition that may begin, where it takes no slot.
    pub(crate) fn launch_light(&mut self, cx: &mut Cx<'_>, executor: ExecutorId) -> bool {
        let Some(&stage) = self.ready.first() else { return false };
        let Some((start, _)) = self.next_run(stage) else { return false };
        self.launch(cx, stage, Slice { start, end: start + 1 }, executor, 0, None).is_some()
    }

    /// Launches one attempt at `slice` on `executor`, where it takes `slots`; the partitions of a copy stay with the attempt that it is
    /// a copy of.
    fn launch(
        &mut self,
        cx: &mut Cx<'_>,
        stage: usize,
        slice: Slice,
        executor: ExecutorId,
        slots: u32,
        twin: Option<u32>,
    ) -> Option<u32> {
        let incarnation = cx.executors.get(executor).map(|executor| executor.incarnation)?;
        let number = self.next_attempt;
        self.next_attempt += 1;
        let entry = &mut self.stages[stage];
        let id = AttemptId {
            job: self.id,
            stage: StageId(u32::try_from(stage).unwrap_or(u32::MAX)),
            generation: Generation(entry.partitions[slice.start as usize].generation),
            task: TaskId(entry.next_task),
            attempt: AttemptNumber { epoch: cx.epoch, number },
        };
        entry.next_task += 1;
        entry.touched.insert((executor, incarnation));
        self.touched.insert((executor, incarnation));
        slice.iter().filter(|_| twin.is_none()).for_each(|partition| {
            self.set(stage, partition, State::Running(number));
        });
        let (losses, voids) = self.input_versions(stage, slice);
        let done = vec![None; slice.len() as usize];
        let (remaining, launched_at, is_alone) = (slice.len(), cx.now, false);
        let attempt =
            Attempt { id, stage, slice, executor, incarnation, done, remaining, losses, voids, launched_at, is_alone, twin };
        self.attempts.insert(number, attempt);
        cx.executors.take(executor, id, slots, cx.now);
        self.slots += slots;
        self.launches += 1;
        cx.counters.launches += 1;
        let spec = self.spec(cx, id, slice);
        cx.out.push(Action::Launch { executor, incarnation, spec });
        Some(number)
    }

    /// How often outputs were lost and voided so far of the inputs that any partition of `slice` reads.
    pub(crate) fn input_versions(&self, stage: usize, slice: Slice) -> (u64, u64) {
        let inputs = self.graph.stages[stage].inputs.iter();
        let read = inputs.filter(|input| match input.read {
            InputRead::Partitioned { offset, count } => slice.start < offset.saturating_add(count) && offset < slice.end,
            InputRead::Whole | InputRead::Scalar => true,
        });
        read.map(|input| &self.stages[input.stage.0 as usize])
            .fold((0, 0), |(losses, voids), input| (losses + input.losses, voids + input.voids))
    }

    fn spec(&mut self, cx: &Cx<'_>, attempt: AttemptId, slice: Slice) -> TaskSpec {
        let graph = std::sync::Arc::clone(&self.graph);
        let stage = &graph.stages[attempt.stage.0 as usize];
        let inputs = stage
            .inputs
            .iter()
            .map(|input| InputVector { read: input.read, groups: self.groups(cx.executors, input.stage.0 as usize) });
        let mut inputs: Vec<InputVector> = inputs.collect();
        if cx.faults.has(Fault::InputForgotten)
            && let Some(input) = inputs.iter_mut().find(|input| input.groups.len() > 1)
        {
            std::sync::Arc::make_mut(&mut input.groups).pop();
        }
        let partition_inputs = stage.partition_inputs.get(slice.start as usize..slice.end as usize).unwrap_or(&[]).to_vec();
        TaskSpec { attempt, slice, partitions: stage.partitions, exchange: stage.exchange, inputs, partition_inputs }
    }
}
