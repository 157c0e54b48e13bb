//! The rows of the system tables: what the loop's state shows to one viewer at one moment. Next: `planner/src/catalog/system.rs`,
//! which makes tables of them.

use std::collections::BTreeSet;

use windrow_planner::catalog::{ExecutorRow, QueryRow, StageRow, SystemSnapshot, TaskRow};
use windrow_planner::{SystemSource, Viewer};
use windrow_scheduler::StagePhase;

use super::Shared;
use super::state::State;
use crate::status::{ExecutorState, ExecutorStatus, JobState, JobStatus};

impl SystemSource for Shared {
    fn snapshot(&self, viewer: &Viewer) -> SystemSnapshot {
        self.state.lock().snapshot(viewer)
    }
}

impl State {
    fn snapshot(&self, viewer: &Viewer) -> SystemSnapshot {
        let status = self.status();
        let seen: Vec<JobStatus> = status.jobs.into_iter().filter(|job| viewer.sees(&job.user)).collect();
        let ids: BTreeSet<_> = seen.iter().map(|job| job.id).collect();
        let stages = ids.iter().filter_map(|job| self.scheduler.job_progress(*job));
        let stages = stages.flat_map(|progress| {
            let query_id = progress.job.0;
            progress.stages.into_iter().map(move |stage| StageRow {
                query_id,
                stage: stage.stage.0,
                state: match stage.phase {
                    StagePhase::Waiting => "waiting",
                    StagePhase::Ready => "ready",
                    StagePhase::Running => "running",
                    StagePhase::Succeeded => "succeeded",
                },
                generation: stage.generation.0,
                partitions: stage.partitions,
                partitions_done: stage.done,
                partitions_running: stage.running,
                rows: stage.rows,
                bytes: stage.bytes,
                lost: stage.lost,
                reruns: stage.rerun,
            })
        });
        let running = self.jobs.running().filter(|(attempt, _)| ids.contains(&attempt.job));
        let tasks = running.map(|(attempt, member)| TaskRow {
            query_id: attempt.job.0,
            stage: attempt.stage.0,
            task: attempt.task.0,
            attempt: attempt.attempt.number,
            executor: self.fleet.get(member.executor).map_or_else(String::new, |entry| entry.registration.name.clone()),
        });
        SystemSnapshot {
            stages: stages.collect(),
            tasks: tasks.collect(),
            queries: seen.into_iter().map(query).collect(),
            executors: status.executors.into_iter().map(executor).collect(),
        }
    }
}

fn query(job: JobStatus) -> QueryRow {
    let JobStatus { id, user, sql, submitted, progress, error } = job;
    QueryRow {
        id: id.0,
        user,
        state: match progress.state {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        },
        sql,
        submitted,
        stages_done: progress.stages_done,
        stages_total: progress.stages_total,
        tasks_done: progress.tasks_done,
        tasks_total: progress.tasks_total,
        rows: progress.rows,
        shuffle_bytes: progress.shuffle_bytes,
        spill_bytes: progress.spill_bytes,
        retries: progress.retries,
        error,
    }
}

fn executor(executor: ExecutorStatus) -> ExecutorRow {
    ExecutorRow {
        id: u64::from(executor.id.0),
        name: executor.name,
        state: match executor.state {
            ExecutorState::Alive => "alive",
            ExecutorState::Suspect => "suspect",
            ExecutorState::Leaving => "leaving",
            ExecutorState::Dead => "dead",
            ExecutorState::Left => "left",
        },
        address: executor.address,
        pid: executor.pid,
        slots: executor.slots,
        slots_used: executor.slots_used,
        memory_limit: executor.memory_limit,
        memory_bytes: executor.memory_bytes,
        store_bytes: executor.store_bytes,
        disk_bytes: executor.disk_bytes,
    }
}
