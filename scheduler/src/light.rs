//! Queries of one task beside large ones: where every slot is taken, a task of a large query may hold its slot for long, and a query that
//! is one task on little input should not wait for that. Each executor runs as many of these without a slot as it has slots; its threads
//! are shared by all that it runs, batch by batch. To its user it counts as a slot (`scheduler.user_slots_percent`).

use crate::Scheduler;
use crate::job::Job;

/// Jobs in the queue that are looked at: those with the fewest slots come first, so what is light is among them.
const LOOKED_AT: usize = 64;

/// Bytes of input above which a task is not light: the planner makes one task of what is less (`windrow.query.small_input`).
const LIGHT_INPUT: u64 = 16 << 20;

impl Job {
    /// Whether it is one task on little input. What makes its rows itself counts as little: how much that is, nobody knows.
    fn is_light(&self) -> bool {
        let [stage] = self.graph.stages.as_slice() else { return false };
        let bytes = stage.partition_bytes.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        stage.partitions == 1 && bytes <= LIGHT_INPUT
    }
}

impl Scheduler {
    /// Launches light jobs that found no slot.
    pub(crate) fn dispatch_light(&mut self) {
        if self.hungry.len() == 0 || self.executors.free_slots() > 0 {
            return;
        }
        let light = |id: &windrow_core::ids::JobId| self.jobs.get(id).is_some_and(Job::is_light);
        let waiting: Vec<_> = self.hungry.iter().take(LOOKED_AT).filter(light).collect();
        for id in waiting {
            if self.room_of_user_of(id) == 0 {
                continue;
            }
            let avoid = self.jobs.get(&id).and_then(|job| job.stages.first()?.partitions.first()?.avoid);
            let Some(executor) = self.executors.for_light(avoid) else { break };
            self.with_job(id, |job, cx| Ok(job.launch_light(cx, executor)));
        }
    }
}
