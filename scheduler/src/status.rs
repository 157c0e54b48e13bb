//! What people and tests may read of the scheduler: counters, the progress of a job, the state of an executor. Never read back by a
//! decision.

use serde::{Deserialize, Serialize};
use windrow_core::ids::{ExecutorId, Generation, Incarnation, JobId, StageId};

/// Dropped messages, by the number that was stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StaleMessages {
    /// Of another coordinator's epoch.
    pub epoch: u64,
    /// Of an incarnation that is over, or an executor never seen.
    pub incarnation: u64,
    /// Of a generation that was voided.
    pub generation: u64,
    /// Of an attempt that is over, or said before.
    pub attempt: u64,
    /// About a job that is unknown or ended.
    pub job: u64,
}

impl StaleMessages {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.epoch + self.incarnation + self.generation + self.attempt + self.job
    }
}

/// What happened since the scheduler was made. Only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Attempts launched.
    pub launches: u64,
    /// Attempts that ended with a failure, cancellations aside.
    pub attempts_failed: u64,
    /// Copies of stragglers launched; they count as launches too.
    pub copies: u64,
    /// Attempts cancelled by the scheduler.
    pub attempts_cancelled: u64,
    /// Partitions committed, the first time and again.
    pub partitions_committed: u64,
    /// Committed partitions whose output a fault took: their executor's end, a complaint, or a void generation.
    pub partitions_lost: u64,
    /// Committed partitions that had to run again, because their output was lost, released or voided.
    pub partitions_rerun: u64,
    /// Times a stage's generation was raised.
    pub generations_raised: u64,
    /// Stages whose rows were other ones when they ran again, though the planner took them for ones that repeat themselves.
    pub stages_distrusted: u64,
    /// Messages dropped.
    pub stale_messages: StaleMessages,
    /// Executors registered.
    pub executors_registered: u64,
    /// Executors lost, drained ones aside.
    pub executors_lost: u64,
    /// Jobs submitted.
    pub jobs_submitted: u64,
    /// Jobs that reached `Succeeded` for the first time.
    pub jobs_succeeded: u64,
    /// Jobs that failed.
    pub jobs_failed: u64,
    /// Jobs that were cancelled.
    pub jobs_cancelled: u64,
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum JobPhase {
    /// Waits for its admission.
    Queued,
    /// Its stages run.
    Running,
    /// Every result partition is committed.
    Succeeded,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// Where a stage is in its life.
///
/// ```text
/// Waiting -> Ready -> Running -> Succeeded     every partition is committed, or nobody needs it any more
///    ^                             |           an output that is still needed is lost
///    +-----------------------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StagePhase {
    /// An input is not complete.
    Waiting,
    /// Its inputs are complete and no attempt of it runs.
    Ready,
    /// Attempts of it run.
    Running,
    /// Nothing of it is left to do.
    Succeeded,
}

/// One stage of a [`JobProgress`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageProgress {
    /// Which.
    pub stage: StageId,
    /// Where it is in its life.
    pub phase: StagePhase,
    /// The highest generation of its partitions.
    pub generation: Generation,
    /// How many partitions it has.
    pub partitions: u32,
    /// Partitions with nothing left to do.
    pub done: u32,
    /// Partitions that run.
    pub running: u32,
    /// Commits of its partitions, re-runs included.
    pub commits: u64,
    /// Committed partitions whose output a fault took, needed or not.
    pub lost: u64,
    /// Partitions that had to run again after they had committed.
    pub rerun: u64,
    /// Rows of its committed partitions, counted once each.
    pub rows: u64,
    /// Bytes of its committed partitions, counted once each.
    pub bytes: u64,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// Which.
    pub job: JobId,
    /// Where it is in its life.
    pub phase: JobPhase,
    /// Attempts launched.
    pub launches: u64,
    /// Attempts that failed.
    pub attempts_failed: u64,
    /// Copies of stragglers that were started.
    pub copies: u64,
    /// Slots that its attempts hold.
    pub slots: u32,
    /// Its stages, producers first; empty once it failed or was cancelled.
    pub stages: Vec<StageProgress>,
}

impl JobProgress {
    /// Stages with nothing left to do.
    #[must_use]
    pub fn stages_done(&self) -> usize {
        self.stages.iter().filter(|stage| stage.phase == StagePhase::Succeeded).count()
    }

    /// Partitions with nothing left to do.
    #[must_use]
    pub fn partitions_done(&self) -> u64 {
        self.stages.iter().map(|stage| u64::from(stage.done)).sum()
    }

    /// Partitions of all stages.
    #[must_use]
    pub fn partitions_total(&self) -> u64 {
        self.stages.iter().map(|stage| u64::from(stage.partitions)).sum()
    }

    /// Committed partitions whose output a fault took.
    #[must_use]
    pub fn partitions_lost(&self) -> u64 {
        self.stages.iter().map(|stage| stage.lost).sum()
    }

    /// Partitions that had to run again after they had committed.
    #[must_use]
    pub fn partitions_rerun(&self) -> u64 {
        self.stages.iter().map(|stage| stage.rerun).sum()
    }

    /// Commits, re-runs included.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.stages.iter().map(|stage| stage.commits).sum()
    }
}

/// Whether an executor takes work.
///
/// ```text
/// Live <-> Suspect -> Dead        silent, reset or registered anew; a new incarnation is Live
///   \         /
///    Draining -> Left             takes no new slices, then leaves
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ExecutorState {
    /// Takes slices.
    Live,
    /// Silent for a while: takes no new slices.
    Suspect,
    /// Finishes what it runs: takes no new slices.
    Draining,
    /// Its incarnation is over.
    Dead,
    /// It drained and left.
    Left,
}

/// What the scheduler knows of an executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorStatus {
    /// Its number.
    pub executor: ExecutorId,
    /// Its latest incarnation.
    pub incarnation: Incarnation,
    /// Whether it takes work.
    pub state: ExecutorState,
    /// Its slots.
    pub slots: u32,
    /// Slots that attempts hold.
    pub used: u32,
    /// Committed partitions that it holds.
    pub held: u64,
}
