//! Identities and the four numbers that fence every message: epoch, incarnation, generation and attempt.
//!
//! Every id is a newtype, so that a stage cannot be passed for a partition. Compare fencing numbers with `<` and `==`, never by
//! subtraction.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// One submitted run of a query. Unique within a cluster's life: the coordinator draws it.
    JobId(u64), "job-");
id!(
    /// A stage of one job: its index in the job's [`StageGraph`](crate::stage::StageGraph), producers first.
    StageId(u32), "s");
id!(
    /// A task of one stage: one slice handed to one executor. Never reused within a stage.
    TaskId(u32), "t");
id!(
    /// An executor, numbered by the coordinator when its name is first seen; the same name keeps its number.
    ExecutorId(u32), "e");
id!(
    /// Raised by the coordinator at each start. A command with a lower epoch than the last one seen is refused.
    Epoch(u64), "epoch-");
id!(
    /// Raised at each registration of an executor. Reports of an older incarnation are dropped and their sender is fenced.
    Incarnation(u64), "i");
id!(
    /// Raised when outputs of a stage are computed again. Outputs of an older generation than their partition's are invisible.
    Generation(u32), "g");
id!(
    /// A client's session on the coordinator: settings and catalog.
    SessionId(u64), "session-");

/// The number of one launch. Never reused, even after a restart of the coordinator, because it carries the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct AttemptNumber {
    /// The coordinator's epoch at the launch.
    pub epoch: Epoch,
    /// Counts the launches of a job within the epoch, from 0.
    pub number: u32,
}

/// One try at a task, the only thing that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct AttemptId {
    /// The job it works for.
    pub job: JobId,
    /// The stage whose partitions it computes.
    pub stage: StageId,
    /// The generation of the outputs it computes.
    pub generation: Generation,
    /// The task it is a try at.
    pub task: TaskId,
    /// Which launch this is.
    pub attempt: AttemptNumber,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/{}#{}.{}",
            self.job, self.stage, self.generation, self.task, self.attempt.epoch.0, self.attempt.number
        )
    }
}
