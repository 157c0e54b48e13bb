//! What the loop is told. Inputs wait in a bounded queue; departures never wait, because those who leave cannot.

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use windrow_core::Result;
use windrow_core::failure::CancelReason;
use windrow_core::ids::{AttemptId, ExecutorId, Incarnation, JobId};
use windrow_core::message::Report;

use super::fleet::Member;
use super::jobs::Submission;

/// What the loop is told in its queue.
#[derive(Debug)]
pub(crate) enum Input {
    /// An executor says something.
    Report { from: Member, report: Report },
    /// A statement needs a job.
    Submit(Box<Submission>),
    /// A statement's result will be read more than once.
    Keep { job: JobId },
    /// Somebody waits for a result partition, or for the end of a job, that may be held for want of readers.
    Awaited { job: JobId, partition: Option<u32> },
    /// Rows of a result partition are about to leave for the client; answered once the scheduler has heard of it.
    Delivered { job: JobId, partition: u32, attempt: Option<AttemptId>, heard: Option<oneshot::Sender<()>> },
    /// A result partition could not be read.
    Lost { executor: ExecutorId, incarnation: Incarnation, attempt: AttemptId, partitions: Vec<u32>, why: String },
    /// An executor shall leave when its work is done; answered once it is asked to.
    Drain { name: String, reply: oneshot::Sender<Result<()>> },
    /// Everything shall end.
    Shutdown { reply: oneshot::Sender<()> },
}

/// What is told without waiting, from `drop`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Departure {
    /// A statement is gone, its job with it.
    Released(JobId),
    /// A job is to end, its statement is told.
    Cancelled(JobId, CancelReason),
    /// An executor's connection is lost.
    Lost(Member),
}

/// Departures that the loop has not seen. Their number is bounded by that of statements and connections.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    waiting: Mutex<Vec<Departure>>,
    some: Notify,
}

impl Departures {
    pub(crate) fn push(&self, departure: Departure) {
        self.waiting.lock().push(departure);
        self.some.notify_one();
    }

    pub(crate) fn take(&self) -> Vec<Departure> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Waits until somebody has left since the last time.
    pub(crate) async fn some(&self) {
        self.some.notified().await;
    }
}
