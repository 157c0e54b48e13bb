//! Reads partitions of a result from wherever they are.
//!
//! A partition is read as a whole, up to a [`Budget`], before any of it is handed on: an executor that is lost meanwhile costs the
//! client nothing. The scheduler is told before the first row of a partition leaves, and never computes it again unless the result is
//! kept. Next: `kept.rs`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use windrow_core::failure::{Failed, Failure};
use windrow_core::ids::{AttemptId, JobId};
use windrow_core::task::InputGroup;
use windrow_core::transport::{FetchRequest, ShuffleTransport};
use windrow_core::{Error, ErrorKind, Result};

use crate::coordinator::{Coordinator, Input, JobView};

/// Bytes of a partition that are held back until it is complete. Beyond it rows leave before the partition was read to its end,
/// and a loss in its middle ends the query.
pub(super) const BUFFER_MAX: u64 = 64 << 20;

/// The client's end is gone.
struct Gone;

/// Bytes that readers hold back in all.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU64);

impl Budget {
    /// So many bytes.
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(bytes)))
    }

    fn take(&self, bytes: u64) -> bool {
        let enough = |left: u64| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).is_ok()
    }
}

/// What one partition's reader holds of a budget.
struct Hold<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Hold<'_> {
    /// Whether so many bytes more may be held back.
    fn take(&mut self, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let is_taken = self.budget.take(bytes);
        self.bytes += if is_taken { bytes } else { 0 };
        is_taken
    }

    fn give_back(&mut self) {
        self.budget.0.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// The partitions of a kept result of which the scheduler knows that they were read.
pub(super) type Told = Arc<Mutex<BTreeSet<u32>>>;

/// What the routine works with.
pub(super) struct Source {
    pub(super) job: JobId,
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) view: watch::Receiver<JobView>,
    pub(super) sender: mpsc::Sender<Result<RecordBatch>>,
    pub(super) budget: Arc<Budget>,
    /// For a result that is kept.
    pub(super) told: Option<Told>,
}

impl Source {
    pub(super) async fn run(mut self, partitions: Range<u32>) {
        for partition in partitions {
            match self.partition(partition).await {
                Ok(Ok(())) => {}
                Ok(Err(Gone)) => return,
                Err(error) => {
                    // Nobody listens any more if this fails.
                    let _ = self.sender.send(Err(error)).await;
                    return;
                }
            }
        }
    }

    /// Reads one partition and hands its rows on, from wherever it is committed last.
    async fn partition(&mut self, partition: u32) -> Result<Result<(), Gone>> {
        let mut unreadable = None;
        loop {
            let Some(group) = self.location(partition, unreadable).await? else {
                self.tell_delivered(partition, None).await?;
                return Ok(Ok(()));
            };
            let attempt = group.attempt;
            match self.read(partition, group).await? {
                Read::Done => return Ok(Ok(())),
                Read::Gone => return Ok(Err(Gone)),
                Read::Lost(failed) => {
                    tracing::warn!(job = %self.job, partition, error = %failed, "a result partition is lost, it is computed again");
                    self.report_lost(failed).await?;
                    unreadable = Some(attempt);
                }
            }
        }
    }

    /// Waits until a partition can be read; `None` if it is empty. `unreadable` is where it was not found.
    async fn location(&mut self, partition: u32, unreadable: Option<AttemptId>) -> Result<Option<InputGroup>> {
        let is_news = |view: &JobView| {
            let found = view.ready.get(&partition);
            view.failed.is_some()
                || found.is_some_and(|group| group.as_ref().is_none_or(|group| Some(group.attempt) != unreadable))
        };
        let (job, is_kept) = (self.job, self.told.is_some());
        let ended = || if is_kept { released(job) } else { crate::coordinator::gone() };
        let limit = self.coordinator.unfetched_max();
        let mut is_awaited = false;
        loop {
            {
                let may_be_held = |view: &JobView| !is_awaited && view.bytes() > limit;
                let looked = self.view.wait_for(|view| is_news(view) || may_be_held(view)).await.map_err(|_ended| ended())?;
                if is_news(&looked) {
                    crate::coordinator::check(&looked)?;
                    let group = looked.ready.get(&partition).cloned().flatten();
                    return Ok(group.map(|group| InputGroup { partitions: vec![partition], ..group }));
                }
            }
            // The job may wait for readers, and here is one.
            is_awaited = true;
            self.coordinator.shared().tell(Input::Awaited { job, partition: Some(partition) }).await?;
        }
    }

    async fn read(&self, partition: u32, group: InputGroup) -> Result<Read> {
        let attempt = group.attempt;
        let request = FetchRequest { groups: vec![group], segment: 0 };
        let mut batches = self.coordinator.shared().transport().fetch(request);
        let mut hold = Hold { budget: &self.budget, bytes: 0 };
        let (mut held, mut is_leaving) = (Vec::new(), false);
        while let Some(item) = batches.next().await {
            let batch = match item {
                Ok((_, batch)) => batch,
                Err(failed) if is_leaving => return Err(self.torn(partition, &failed)),
                Err(failed) if matches!(failed.failure, Failure::LostInput { .. }) => return Ok(Read::Lost(failed)),
                Err(failed) => return Err(failed.to_error()),
            };
            let fits = !is_leaving && hold.take(batch.get_array_memory_size());
            held.push(batch);
            if !fits {
                if !std::mem::replace(&mut is_leaving, true) {
                    self.tell_delivered(partition, Some(attempt)).await?;
                }
                if self.hand_on(&mut held).await.is_err() {
                    return Ok(Read::Gone);
                }
                hold.give_back();
            }
        }
        if !is_leaving {
            self.tell_delivered(partition, Some(attempt)).await?;
        }
        Ok(match self.hand_on(&mut held).await {
            Ok(()) => Read::Done,
            Err(Gone) => Read::Gone,
        })
    }

    async fn hand_on(&self, held: &mut Vec<RecordBatch>) -> Result<(), Gone> {
        for batch in held.drain(..).filter(|batch| batch.num_rows() > 0) {
            self.sender.send(Ok(batch)).await.map_err(|_closed| Gone)?;
        }
        Ok(())
    }

    /// Of a kept result nothing leaves before the scheduler has heard of it: other partitions may leave at the same time, and if they
    /// do not go together, the job fails.
    async fn tell_delivered(&self, partition: u32, attempt: Option<AttemptId>) -> Result<()> {
        let Some(told) = &self.told else {
            return self.coordinator.shared().tell(Input::Delivered { job: self.job, partition, attempt, heard: None }).await;
        };
        tell(&self.coordinator, self.job, (partition, attempt), told).await?;
        crate::coordinator::check(&self.view.borrow())
    }

    /// The error of a loss in the middle of a partition whose first rows have left; the job's own if it failed meanwhile.
    fn torn(&self, partition: u32, failed: &Failed) -> Error {
        let own = self.view.borrow().failed.clone();
        own.unwrap_or_else(|| {
            let what = format!("partition {partition} of the result was lost after rows of it were delivered: {failed}");
            Error::new(ErrorKind::Unavailable, what).with_help("run the query again")
        })
    }

    async fn report_lost(&self, failed: Failed) -> Result<()> {
        let why = failed.message;
        let Failure::LostInput { attempt, partitions, executor, incarnation, .. } = failed.failure else { return Ok(()) };
        self.coordinator.shared().tell(Input::Lost { executor, incarnation, attempt, partitions, why }).await
    }
}

/// Says that rows of a partition of a kept result are about to leave, once, and returns when the scheduler has heard it.
pub(super) async fn tell(
    coordinator: &Coordinator,
    job: JobId,
    (partition, attempt): (u32, Option<AttemptId>),
    told: &Told,
) -> Result<()> {
    if !told.lock().contains(&partition) {
        let (heard, is_heard) = oneshot::channel();
        coordinator.shared().tell(Input::Delivered { job, partition, attempt, heard: Some(heard) }).await?;
        is_heard.await.map_err(|_ended| crate::coordinator::gone())?;
        told.lock().insert(partition);
    }
    Ok(())
}

/// How reading a partition ended.
enum Read {
    /// All its rows were handed on.
    Done,
    /// The client's end is gone.
    Gone,
    /// It is not where it was said to be, and no row of it has left.
    Lost(Failed),
}

/// The error of whoever reads a kept result when it is released.
pub(super) fn released(job: JobId) -> Error {
    Error::new(ErrorKind::Cancelled, format!("the result of {job} was released while it was read"))
        .with_help("run the query again")
}
