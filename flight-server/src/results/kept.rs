//! A result that is read more than once: any of its partitions, in any order, by several readers at a time, until it is released. Its
//! rows stay in the executors' stores; those of a statement that the coordinator answers itself stay here. Next:
//! `sql/results_calls.rs`, where clients ask for it.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};
use windrow_core::failure::CancelReason;
use windrow_core::ids::JobId;
use windrow_core::task::InputGroup;
use windrow_core::{Error, ErrorKind, Result};

use super::source::{Budget, Source, Told, released, tell};
use super::{Reader, Rows, Statement};
use crate::coordinator::{Coordinator, Departure, Input, JobView, check};
use crate::routine::Routine;
use crate::status::JobProgress;

/// Batches between the executors and a reader that may rest for hours.
const AHEAD: usize = 2;

/// Bytes of rows that the coordinator keeps itself: what EXPLAIN, SHOW and statements that write answer is far below it.
const OWN_ROWS_MAX: usize = 64 << 20;

/// A result that is read more than once. Dropping the last of it, readers included, releases it.
pub(crate) struct Kept {
    /// Its job, or the number that it would have.
    pub(crate) job: JobId,
    pub(crate) schema: SchemaRef,
    coordinator: Arc<Coordinator>,
    progress: watch::Receiver<JobProgress>,
    place: Place,
}

/// Where the rows are.
enum Place {
    /// In the executors' stores.
    Executors { reader: Reader, told: Told },
    /// Here, once the routine has them all.
    Here { rows: watch::Receiver<OwnRows>, _routine: Routine },
}

/// The rows of a statement that the coordinator answers itself, or the error that it ended with; `None` until then.
type OwnRows = Option<Result<Arc<Vec<RecordBatch>>>>;

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("job", &self.job).finish_non_exhaustive()
    }
}

impl Kept {
    /// Keeps a statement of which nothing was read. One without a job of its own result runs to its end now, read or not.
    ///
    /// # Errors
    /// `Unavailable` if the coordinator has ended.
    pub(crate) async fn new(statement: Statement, coordinator: &Arc<Coordinator>) -> Result<Self> {
        let Statement { schema, job, rows, progress, .. } = statement;
        let coordinator = Arc::clone(coordinator);
        let job = job.unwrap_or_else(|| coordinator.new_job());
        let place = match rows {
            Rows::Job(reader) => {
                coordinator.shared().tell(Input::Keep { job }).await?;
                Place::Executors { reader, told: Arc::default() }
            }
            Rows::Stream(rows) => {
                let (sender, receiver) = watch::channel(None);
                let routine = Routine::spawn(&job.to_string(), "own rows", async move {
                    let rows = collect(rows).await;
                    sender.send_replace(Some(rows.map(Arc::new)));
                    // Whoever comes later finds them: the channel lives as long as the result.
                    sender.closed().await;
                });
                Place::Here { rows: receiver, _routine: routine }
            }
        };
        Ok(Self { job, schema, coordinator, progress, place })
    }

    /// How many partitions it has.
    pub(crate) fn partitions(&self) -> u32 {
        match &self.place {
            Place::Executors { reader, .. } => reader.partitions.max(1),
            Place::Here { .. } => 1,
        }
    }

    /// How far its job is, as it changes.
    pub(crate) fn progress(&self) -> watch::Receiver<JobProgress> {
        self.progress.clone()
    }

    /// Waits until its job has failed or a partition of it can be read.
    ///
    /// # Errors
    /// The job's.
    pub(crate) async fn begun(&self) -> Result<()> {
        match &self.place {
            Place::Executors { reader, .. } => {
                let mut view = reader.view.clone();
                let is_begun = |view: &JobView| view.failed.is_some() || !view.ready.is_empty();
                check(&*view.wait_for(is_begun).await.map_err(|_ended| released(self.job))?)
            }
            Place::Here { rows, .. } => {
                let mut rows = rows.clone();
                let own = rows.wait_for(Option::is_some).await.map_err(|_ended| released(self.job))?;
                own.clone().map_or(Ok(()), |own| own.map(drop))
            }
        }
    }

    /// Which partitions of a range can be read; the error if its job has failed.
    ///
    /// # Errors
    /// The job's.
    pub(crate) fn is_ready(&self, mut partitions: Range<u32>) -> Result<bool> {
        match &self.place {
            Place::Executors { reader, .. } => {
                let view = reader.view.borrow();
                check(&view)?;
                Ok(partitions.all(|partition| view.ready.contains_key(&partition)))
            }
            Place::Here { rows, .. } => rows.borrow().clone().map_or(Ok(false), |own| own.map(|_rows| true)),
        }
    }

    /// Whether nothing of it is left to compute: it is complete, or its job has failed.
    pub(crate) fn is_over(&self) -> bool {
        self.is_ready(0..self.partitions()).unwrap_or(true)
    }

    /// Where the rows of some of its partitions are, one after the other and without those that are empty; `None` if any cannot be read
    /// yet, or is not at an executor.
    pub(crate) fn places(&self, partitions: Range<u32>) -> Option<Vec<InputGroup>> {
        let Place::Executors { reader, .. } = &self.place else { return None };
        let view = reader.view.borrow();
        let mut places = Vec::new();
        for partition in partitions {
            let place = view.ready.get(&partition)?;
            places.extend(place.iter().map(|group| InputGroup { partitions: vec![partition], ..group.clone() }));
        }
        Some(places)
    }

    /// Where any of its partitions is.
    pub(crate) fn some_place(&self) -> Option<InputGroup> {
        let Place::Executors { reader, .. } = &self.place else { return None };
        reader.view.borrow().ready.values().flatten().next().cloned()
    }

    /// Bytes of the partitions that can be read, as they are in memory; 0 for rows that are not at executors.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.place {
            Place::Executors { reader, .. } => reader.view.borrow().bytes(),
            Place::Here { .. } => 0,
        }
    }

    /// How many bytes it will have if the rest is like what is there.
    pub(crate) fn expected_bytes(&self) -> u64 {
        let Place::Executors { reader, .. } = &self.place else { return 0 };
        let view = reader.view.borrow();
        let share = view.bytes() / u64::try_from(view.ready.len()).unwrap_or(u64::MAX).max(1);
        share.saturating_mul(reader.partitions.into())
    }

    /// Waits until its job has failed or all of it can be read.
    pub(crate) async fn complete(&self) {
        if let Place::Executors { reader, .. } = &self.place {
            let all = reader.partitions as usize;
            let mut view = reader.view.clone();
            // An end of the coordinator is met by whoever asks for the rows.
            let _ = view.wait_for(|view| view.failed.is_some() || view.ready.len() >= all).await;
        }
    }

    /// Says that a client waits for its end, and reads only then: a job that is held for want of readers goes on for a while.
    pub(crate) async fn await_end(&self) -> Result<()> {
        match self.bytes() > self.coordinator.unfetched_max() {
            true => self.coordinator.shared().tell(Input::Awaited { job: self.job, partition: None }).await,
            false => Ok(()),
        }
    }

    /// Says that rows of these partitions are about to leave from where they are.
    ///
    /// # Errors
    /// The job's, if it cannot go on because of that.
    pub(crate) async fn leave_from(&self, places: &[InputGroup]) -> Result<()> {
        let Place::Executors { reader, told } = &self.place else { return Ok(()) };
        for place in places {
            for &partition in &place.partitions {
                tell(&self.coordinator, self.job, (partition, Some(place.attempt)), told).await?;
            }
        }
        check(&reader.view.borrow())
    }

    /// The rows of some of its partitions. They may be asked for before they are there.
    pub(crate) fn read(&self, partitions: Range<u32>, budget: &Arc<Budget>) -> Reading {
        match &self.place {
            Place::Executors { reader, told } => {
                let (sender, receiver) = mpsc::channel(AHEAD);
                let source = Source {
                    job: self.job,
                    coordinator: Arc::clone(&self.coordinator),
                    view: reader.view.clone(),
                    sender,
                    budget: Arc::clone(budget),
                    told: Some(Arc::clone(told)),
                };
                let routine = Routine::spawn(&self.job.to_string(), "results", source.run(partitions));
                Reading { rows: Coming::Relayed(receiver, routine), is_over: false }
            }
            Place::Here { rows, .. } => {
                let (mut rows, job) = (rows.clone(), self.job);
                let own = async move {
                    let own = rows.wait_for(Option::is_some).await.map(|own| own.clone());
                    match own {
                        Ok(Some(Ok(rows))) => stream::iter(rows.iter().cloned().map(Ok).collect::<Vec<_>>()),
                        Ok(Some(Err(error))) => stream::iter(vec![Err(error)]),
                        Ok(None) | Err(_) => stream::iter(vec![Err(released(job))]),
                    }
                };
                Reading { rows: Coming::Own(stream::once(own).flatten().boxed()), is_over: false }
            }
        }
    }

    /// Lets go of it at once, whoever reads. A job that runs is cancelled.
    pub(crate) fn release(&self) {
        let departures = self.coordinator.shared().departures();
        departures.push(Departure::Cancelled(self.job, CancelReason::Client));
        departures.push(Departure::Released(self.job));
    }
}

async fn collect(mut rows: BoxStream<'static, Result<RecordBatch>>) -> Result<Vec<RecordBatch>> {
    let (mut all, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        bytes += batch.get_array_memory_size();
        if bytes > OWN_ROWS_MAX {
            let what = format!("the answer of this statement is larger than the {} MB that are kept of one", OWN_ROWS_MAX >> 20);
            return Err(Error::new(ErrorKind::ResourcesExhausted, what));
        }
        all.push(batch);
    }
    Ok(all)
}

/// Rows of a kept result on their way.
pub(crate) struct Reading {
    rows: Coming,
    is_over: bool,
}

enum Coming {
    Relayed(mpsc::Receiver<Result<RecordBatch>>, #[expect(dead_code, reason = "it ends with the reader")] Routine),
    Own(BoxStream<'static, Result<RecordBatch>>),
}

impl Reading {
    /// Whether all rows were read.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }
}

impl Stream for Reading {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = match &mut self.rows {
            Coming::Relayed(rows, _) => rows.poll_recv(context),
            Coming::Own(rows) => rows.as_mut().poll_next(context),
        };
        self.is_over |= matches!(next, Poll::Ready(None | Some(Err(_))));
        next
    }
}
