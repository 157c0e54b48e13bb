//! What went wrong, as one closed enum that crosses the wire typed. The scheduler decides by it and nobody parses a message.
//!
//! Classified once, in `executor/src/classify.rs`; acted on in `scheduler/src/recovery.rs`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::ids::{AttemptId, ExecutorId, Incarnation};

/// A failure with the sentence for people and the place it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// What decides.
    pub failure: Failure,
    /// For people; never parsed.
    pub message: String,
}

/// Every way in which an attempt ends without success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The user's: the query, the data, a permission, a changed input. Ends the job at once.
    Fatal {
        /// What the user can do about it.
        kind: ErrorKind,
    },
    /// Committed input could not be read: exactly these producer partitions run again.
    LostInput {
        /// The attempt whose output is gone; carries stage and generation.
        attempt: AttemptId,
        /// The producer partitions, ascending.
        partitions: Vec<u32>,
        /// Who held them.
        executor: ExecutorId,
        /// The incarnation that held them.
        incarnation: Incarnation,
        /// Why they could not be read.
        cause: LostCause,
    },
    /// Something ran out: retried with a smaller slice, then alone.
    Resources {
        /// What ran out.
        what: Resource,
        /// How much was asked for: bytes, or a count of handles.
        asked: u64,
        /// How much there is.
        limit: u64,
    },
    /// A passing fault: retried after a backoff.
    Transient {
        /// What failed.
        what: TransientKind,
        /// What the other side asked to wait, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The executor's own data at rest failed its checksum.
    Corrupt,
    /// A panic, caught; one retry elsewhere.
    Panic,
    /// Not a fault: somebody asked for the end.
    Cancelled {
        /// Who.
        why: CancelReason,
    },
    /// The executor is gone. Made by the scheduler only.
    ExecutorLost {
        /// How it was noticed.
        how: LostHow,
    },
    /// Every executor that ran a partition was lost. Made by the scheduler only.
    Poison,
    /// A bug of ours: one retry elsewhere, then loud.
    Internal,
}

/// Why committed input could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostCause {
    /// The executor does not answer.
    Unreachable,
    /// The executor does not hold it.
    Missing,
    /// A block failed its checksum.
    Corrupt,
    /// The executor is of another incarnation.
    Fenced,
}

/// What ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// The executor's memory pool.
    Memory,
    /// A spill directory or its quota.
    Disk,
    /// Open files or threads.
    Handles,
}

/// What failed in passing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransientKind {
    /// A local read or write.
    Io,
    /// An object store.
    Store,
    /// A connection.
    Network,
}

/// Who asked for the end of an attempt or job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CancelReason {
    /// The client cancelled or went away.
    Client,
    /// Another attempt won.
    Loser,
    /// Its input or executor was fenced.
    Stale,
    /// A deadline passed.
    Deadline,
    /// The job ended.
    JobEnded,
    /// The stage's row limit is reached: the attempt ends, but the partitions it reported done stay committed.
    Enough,
}

/// How an executor's loss was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostHow {
    /// No heartbeat in time.
    Silent,
    /// Its connection was reset.
    Reset,
    /// It registered again.
    Fenced,
    /// It drained and left.
    Drained,
}

impl Failed {
    /// A failure with its sentence.
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into() }
    }

    /// The user's failure: ends the job with `error`.
    #[must_use]
    pub fn fatal(error: &Error) -> Self {
        Self::new(Failure::Fatal { kind: error.kind }, error.to_string())
    }

    /// A bug of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Failure::Internal, message)
    }

    /// A cancellation.
    #[must_use]
    pub fn cancelled(why: CancelReason) -> Self {
        Self::new(Failure::Cancelled { why }, "cancelled")
    }

    /// The error the user sees when this failure ends the job.
    #[must_use]
    pub fn to_error(&self) -> Error {
        let kind = match &self.failure {
            Failure::Fatal { kind } => *kind,
            Failure::LostInput { .. } | Failure::ExecutorLost { .. } | Failure::Transient { .. } => ErrorKind::Unavailable,
            Failure::Resources { .. } => ErrorKind::ResourcesExhausted,
            Failure::Cancelled { .. } => ErrorKind::Cancelled,
            Failure::Corrupt | Failure::Panic | Failure::Poison | Failure::Internal => ErrorKind::Internal,
        };
        Error::new(kind, self.message.clone())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failed {}
