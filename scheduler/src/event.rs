//! What the scheduler is told and what it asks for: one closed enum each way. The coordinator turns reports into [`Event`]s and
//! performs [`Action`]s in the order they are given. Next: `lib.rs`, which turns one into the other.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use windrow_core::clock::Millis;
use windrow_core::failure::{CancelReason, Failed};
use windrow_core::ids::{AttemptId, ExecutorId, Incarnation, JobId};
use windrow_core::message::Registration;
use windrow_core::stage::StageGraph;
use windrow_core::task::{InputGroup, JobStage, Outcome, PartitionStat, TaskSpec};

/// What the scheduler is told. Any event may come in any order, twice, or never; one that does not fit is counted and dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time passed: the answer to [`Action::WakeAt`].
    Tick,
    /// A client submitted a job.
    JobSubmitted {
        /// A number never used before.
        job: JobId,
        /// What to run.
        graph: Arc<StageGraph>,
        /// Whose it is: users share the places for running and waiting jobs.
        user: Arc<str>,
        /// How long it may run, each time that it begins to; `None` is as long as it takes.
        time_limit: Option<Duration>,
    },
    /// A client cancelled a job, or its session or a deadline did.
    JobCancelled {
        /// Which.
        job: JobId,
        /// Why.
        why: CancelReason,
    },
    /// The rows of a result partition have left for the client: it is never computed again, unless the result is kept.
    ResultDelivered {
        /// Which job.
        job: JobId,
        /// Which partition of its last stage.
        partition: u32,
        /// The attempt whose output it was, as the location said; `None` if it was empty.
        attempt: Option<AttemptId>,
    },
    /// A client will read the result more than once, until it releases the job: result partitions are computed again when they are
    /// lost even if they were read, and nothing else is kept once the result is complete. Too late once any of it has left.
    ResultKept {
        /// Which job.
        job: JobId,
    },
    /// Somebody waits: a reader for a result partition that is not there, or a client for the end of the job, before which it reads
    /// nothing. Said again when that goes on; only of use while the job is held for want of readers.
    ResultAwaited {
        /// Which job.
        job: JobId,
        /// The partition, or `None` for the end.
        partition: Option<u32>,
    },
    /// The client read everything or is gone: forget the job. Sent once for every submitted job, however it ended.
    JobReleased {
        /// Which.
        job: JobId,
    },
    /// An executor joined. A newer incarnation ends the older one.
    ExecutorRegistered {
        /// The executor's number: the same name keeps its number.
        executor: ExecutorId,
        /// Greater than every incarnation this executor had before.
        incarnation: Incarnation,
        /// What it said of itself.
        registration: Registration,
    },
    /// An executor lives.
    Heartbeat {
        /// Who.
        executor: ExecutorId,
        /// As which incarnation.
        incarnation: Incarnation,
        /// The attempts that it runs.
        running: Vec<AttemptId>,
    },
    /// The connection to an executor was reset: it is dead at once.
    ConnectionLost {
        /// Who.
        executor: ExecutorId,
        /// The incarnation that held the connection.
        incarnation: Incarnation,
    },
    /// An executor shall finish what it runs and leave.
    DrainAsked {
        /// Who.
        executor: ExecutorId,
    },
    /// A partition's output is complete and readable.
    PartitionDone {
        /// Who holds it.
        executor: ExecutorId,
        /// As which incarnation.
        incarnation: Incarnation,
        /// The attempt that made it.
        attempt: AttemptId,
        /// Which partition.
        partition: u32,
        /// What it measured.
        stat: PartitionStat,
    },
    /// An attempt is over and its slots are free. Every launch is answered by exactly one of these, also after a cancel.
    AttemptEnded {
        /// Who ran it.
        executor: ExecutorId,
        /// As which incarnation.
        incarnation: Incarnation,
        /// The attempt.
        attempt: AttemptId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Committed output could not be read by the coordinator itself. Executors report the same by
    /// [`Failure::LostInput`](windrow_core::Failure::LostInput).
    OutputLost {
        /// Who held it.
        executor: ExecutorId,
        /// As which incarnation.
        incarnation: Incarnation,
        /// The attempt that made it.
        attempt: AttemptId,
        /// Which partitions.
        partitions: Vec<u32>,
        /// Why, for people.
        why: String,
    },
}

/// What the scheduler asks for. Performed in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run an attempt. The coordinator sends the stage's template first if this incarnation does not have it.
    Launch {
        /// Where.
        executor: ExecutorId,
        /// The incarnation it is meant for.
        incarnation: Incarnation,
        /// What.
        spec: TaskSpec,
    },
    /// End an attempt.
    Cancel {
        /// Where it runs.
        executor: ExecutorId,
        /// Which.
        attempt: AttemptId,
        /// Why; decides what happens to the outputs it reported done.
        why: CancelReason,
    },
    /// Drop all outputs that an executor holds of a stage. The stage may be launched there again later, so the coordinator
    /// forgets that the executor has its template.
    ReleaseStage {
        /// Where.
        executor: ExecutorId,
        /// Which.
        stage: JobStage,
    },
    /// Drop everything that an executor holds of a job.
    ReleaseJob {
        /// Where.
        executor: ExecutorId,
        /// Which.
        job: JobId,
    },
    /// Tell an executor that this incarnation of it is over: it drops all work and registers again.
    Fence {
        /// Who.
        executor: ExecutorId,
        /// Which incarnation.
        incarnation: Incarnation,
    },
    /// A stage that has not started takes its other form; see [`StageGraph::take_alternative`].
    StageReplaced {
        /// Which.
        stage: JobStage,
    },
    /// A job's state changed.
    JobState {
        /// Which job.
        job: JobId,
        /// Its new state.
        state: JobState,
    },
    /// A result partition is committed. Said again with a new location when it had to be computed again before its delivery.
    ResultReady {
        /// Which job.
        job: JobId,
        /// Which partition of its last stage.
        partition: u32,
        /// Where it is; `None` if a row limit made it unnecessary, which leaves it empty.
        location: Option<InputGroup>,
        /// Its bytes in memory.
        bytes: u64,
    },
    /// Send [`Event::Tick`] at this time or soon after. A later one replaces an earlier one.
    WakeAt(Millis),
    /// An executor that was asked to drain has nothing left that anybody needs; it may leave now.
    Drained {
        /// Who.
        executor: ExecutorId,
    },
}

impl Action {
    /// The executor that is to hear of it; `None` for what concerns clients and the coordinator itself.
    #[must_use]
    pub fn executor(&self) -> Option<ExecutorId> {
        match self {
            Self::Launch { executor, .. }
            | Self::Cancel { executor, .. }
            | Self::ReleaseStage { executor, .. }
            | Self::ReleaseJob { executor, .. }
            | Self::Fence { executor, .. }
            | Self::Drained { executor } => Some(*executor),
            Self::StageReplaced { .. } | Self::JobState { .. } | Self::ResultReady { .. } | Self::WakeAt(_) => None,
        }
    }
}

/// The life of a job as its client sees it.
///
/// ```text
/// Queued -> Running -> Succeeded
///    |         |  ^        |          an undelivered result is lost, or a kept one
///    |         |  +--------+
///    +---------+-> Failed | Cancelled
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// Waits for its admission.
    Queued,
    /// Its stages run.
    Running,
    /// Every result partition is committed; these groups say where, ordered by first partition. Partitions in no group are empty.
    Succeeded(Vec<InputGroup>),
    /// It ended with this error.
    Failed(Failed),
    /// Somebody cancelled it.
    Cancelled(CancelReason),
}

impl JobState {
    /// Whether it can never run again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Cancelled(_))
    }
}
