//! The scheduler's vocabulary: [`Event`]s in, [`Action`]s out.
#![deny(clippy::disallowed_types, clippy::iter_over_hash_type)]
mod event;
mod status;

pub use event::{Action, Event, JobState};
pub use status::{Counters, ExecutorState, ExecutorStatus, JobPhase, JobProgress, StagePhase, StageProgress, StaleMessages};
