//! What measured sizes decide: a stage that has two forms takes the one that fits. Next: `placement.rs`.
//!
//! Small is what planning said, and little beside the memory of each executor: every one of them will hold it.
//!
//! The decision falls when the measured stage is complete for the first time. The stage that may be spared waits for that, so nothing
//! has started that would have been in vain, and it is never taken back: a measured stage that is lost runs again and is as large.

use std::sync::Arc;

use windrow_core::ids::StageId;
use windrow_core::task::JobStage;

use crate::event::Action;
use crate::job::{Cx, Job};
use crate::stage_state::StageState;

/// The part of an executor's memory that a broadcast side may take. Its hash table takes as much again, and joins are several.
const MEMORY_PART: u64 = 64;

impl Job {
    /// Decides for every stage with two forms whose measured input is complete.
    pub(crate) fn choose_forms(&mut self, cx: &mut Cx<'_>) {
        if self.undecided.is_empty() {
            return;
        }
        let is_measured = |stage: &usize| {
            let alternative = self.graph.stages[*stage].alternative.as_ref();
            alternative.is_none_or(|form| self.stages[form.measured.0 as usize].is_complete())
        };
        let measured: Vec<usize> = self.undecided.iter().copied().filter(is_measured).collect();
        for stage in measured {
            self.undecided.remove(&stage);
            let is_better = self.is_better(cx, stage);
            self.stop_waiting(stage);
            if is_better {
                self.replace(cx, stage);
            }
        }
    }

    /// The stage that may be spared has waited for the decision only: when it runs again, nobody may want the measured one.
    fn stop_waiting(&mut self, stage: usize) {
        let Some(form) = &self.graph.stages[stage].alternative else { return };
        let (measured, spared) = (form.measured.0 as usize, form.spared.0 as usize);
        Arc::make_mut(&mut self.graph).stages[spared].after = None;
        let waiting = &mut self.stages[measured].consumers;
        if let Some(edge) = waiting.iter().position(|&consumer| consumer == spared) {
            waiting.remove(edge);
        }
    }

    /// Whether the other form of a stage is to be taken.
    fn is_better(&self, cx: &Cx<'_>, stage: usize) -> bool {
        let Some(form) = &self.graph.stages[stage].alternative else { return false };
        let spared = &self.stages[form.spared.0 as usize];
        let untouched = [spared, &self.stages[stage]].iter().all(|entry| entry.next_task == 0 && entry.open == entry.count());
        // Another reader needs the spared stage all the same.
        let memory = cx.executors.iter().filter(|(_, executor)| executor.is_connected() && executor.memory_bytes > 0);
        let little = memory.map(|(_, executor)| executor.memory_bytes / MEMORY_PART).min().unwrap_or(u64::MAX);
        untouched && spared.consumers == [stage] && self.stages[form.measured.0 as usize].bytes <= form.bytes_max.min(little)
    }

    /// Puts the other form of a stage in its place. What only one of the forms reads is settled afterwards.
    fn replace(&mut self, cx: &mut Cx<'_>, stage: usize) {
        let id = StageId(u32::try_from(stage).unwrap_or(u32::MAX));
        let old = self.graph.stages[stage].clone();
        if !Arc::make_mut(&mut self.graph).take_alternative(id) {
            return;
        }
        let graph = Arc::clone(&self.graph);
        let new = &graph.stages[stage];
        let entry = &mut self.stages[stage];
        let mut fresh = StageState::new(new, true);
        fresh.readers_open = entry.readers_open;
        fresh.consumers = std::mem::take(&mut entry.consumers);
        fresh.ready = entry.ready;
        *entry = fresh;
        // New readers first: what both forms read is never let go.
        for input in &new.inputs {
            let producer = &mut self.stages[input.stage.0 as usize];
            producer.consumers.push(stage);
            producer.readers_open += u64::from(new.partitions);
            let is_missing = !producer.is_complete();
            self.unsettled.insert(input.stage.0 as usize);
            self.stages[stage].inputs_missing += u32::from(is_missing);
        }
        for input in &old.inputs {
            let producer = &mut self.stages[input.stage.0 as usize];
            if let Some(edge) = producer.consumers.iter().position(|&consumer| consumer == stage) {
                producer.consumers.remove(edge);
            }
            producer.readers_open -= u64::from(old.partitions);
            self.unsettled.insert(input.stage.0 as usize);
        }
        self.refresh_ready(stage);
        cx.out.push(Action::StageReplaced { stage: JobStage { job: self.id, stage: id } });
    }
}
