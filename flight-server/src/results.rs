//! Rows on their way to the client, in partition order, as the partitions of the result stage are committed. Next: `sql/mod.rs`.
//!
//! A partition is read as a whole, up to [`BUFFER_MAX`], before any of it is handed on: an executor that is lost meanwhile costs
//! the client nothing. The scheduler is told before the first row of a partition leaves, and never computes it again.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use futures::stream::{self, BoxStream, Stream};
use tokio::sync::{mpsc, watch};
use windrow_core::failure::{CancelReason, Failed, Failure};
use windrow_core::ids::{AttemptId, JobId};
use windrow_core::stage::StageGraph;
use windrow_core::task::InputGroup;
use windrow_core::transport::{FetchRequest, ShuffleTransport};
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::timer;
use windrow_planner::PlannedJob;

use crate::coordinator::{Coordinator, Departure, Input, JobView, Submission};
use crate::routine::Routine;
use crate::status::JobProgress;

/// Bytes of a partition that are held back until it is complete. Beyond it rows leave before the partition was read to its end,
/// and a loss in its middle ends the query.
const BUFFER_MAX: usize = 64 << 20;

/// Batches between the reader and the client.
const AHEAD: usize = 16;

/// How long EXPLAIN ANALYZE waits for the last metrics after the last row.
const METRICS_WITHIN: Duration = Duration::from_secs(5);

/// A statement that was planned: its rows are a stream. Dropping it cancels its job.
pub struct Statement {
    /// The schema of its rows.
    pub schema: SchemaRef,
    /// The job that makes them; `None` for statements that the coordinator answers itself.
    pub job: Option<JobId>,
    rows: BoxStream<'static, Result<RecordBatch>>,
    progress: watch::Receiver<JobProgress>,
    canceller: Option<Canceller>,
}

/// Cancels the job of a statement from elsewhere, for as long as it runs.
#[derive(Debug, Clone)]
pub struct Canceller {
    job: JobId,
    coordinator: Arc<Coordinator>,
}

impl Canceller {
    /// Ends the job; the statement's rows end with an error of kind `Cancelled`.
    pub fn cancel(&self) {
        self.coordinator.shared().departures().push(Departure::Cancelled(self.job, CancelReason::Client));
    }
}

impl Statement {
    /// A statement that the coordinator answered itself.
    pub(crate) fn ready(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        let rows = stream::iter(batches.into_iter().map(Ok)).boxed();
        Self { schema, job: None, rows, progress: watch::channel(JobProgress::default()).1, canceller: None }
    }

    /// How far its job is, as it changes.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<JobProgress> {
        self.progress.clone()
    }

    /// What ends its job from elsewhere; `None` if there is none.
    #[must_use]
    pub fn canceller(&self) -> Option<Canceller> {
        self.canceller.clone()
    }
}

impl Stream for Statement {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.rows.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").field("schema", &self.schema).field("job", &self.job).finish_non_exhaustive()
    }
}

/// Submits a job and returns the statement that streams its rows.
///
/// # Errors
/// `Unavailable` if the coordinator has ended.
pub(crate) async fn submit(
    coordinator: &Arc<Coordinator>,
    graph: StageGraph,
    schema: SchemaRef,
    sql: &str,
    keep_metrics: bool,
) -> Result<Statement> {
    let (reader, progress) = Reader::submit(coordinator, graph, sql, keep_metrics).await?;
    let (job, canceller) = (reader.job, Canceller { job: reader.job, coordinator: Arc::clone(coordinator) });
    Ok(Statement { schema, job: Some(job), rows: reader.rows(), progress, canceller: Some(canceller) })
}

/// Submits the job of an EXPLAIN ANALYZE: its rows are dropped, and its metrics become the answer.
///
/// # Errors
/// As [`submit`].
pub(crate) async fn submit_analyze(coordinator: &Arc<Coordinator>, planned: PlannedJob, sql: &str) -> Result<Statement> {
    let schema = PlannedJob::analyzed_schema();
    let (reader, progress) = Reader::submit(coordinator, planned.graph, sql, true).await?;
    let (job, canceller) = (reader.job, Canceller { job: reader.job, coordinator: Arc::clone(coordinator) });
    let rows = stream::once(analyze(reader)).flat_map(|answer| match answer {
        Ok(batches) => stream::iter(batches.into_iter().map(Ok).collect::<Vec<_>>()),
        Err(error) => stream::iter(vec![Err(error)]),
    });
    Ok(Statement { schema, job: Some(job), rows: rows.boxed(), progress, canceller: Some(canceller) })
}

async fn analyze(reader: Reader) -> Result<Vec<RecordBatch>> {
    let mut view = reader.view.clone();
    // The job would be released with its last row, before the metrics are in.
    let _held = Arc::clone(&reader.release);
    let mut rows = reader.rows();
    while let Some(batch) = rows.next().await {
        batch?;
    }
    let complete = timer::deadline(METRICS_WITHIN, view.wait_for(|view| view.metrics.is_some())).await;
    let (graph, metrics) = match complete {
        Some(Ok(view)) => view.metrics.clone().unwrap_or_default(),
        Some(Err(_gone)) => return Err(crate::coordinator::gone()),
        None => return Err(Error::internal("the metrics of some attempts did not arrive")),
    };
    Ok(PlannedJob::analyzed(&graph, &metrics)?.1)
}

/// Releases the job when the statement is gone, however that came.
struct Release {
    job: JobId,
    coordinator: Arc<Coordinator>,
    alive: Option<Arc<()>>,
}

impl Drop for Release {
    fn drop(&mut self) {
        // First the token, then the message: a submission that the loop has not seen yet is dropped for the missing token.
        drop(self.alive.take());
        self.coordinator.shared().departures().push(Departure::Released(self.job));
    }
}

/// Reads the partitions of a job's result stage.
struct Reader {
    job: JobId,
    partitions: u32,
    view: watch::Receiver<JobView>,
    release: Arc<Release>,
}

impl Reader {
    async fn submit(
        coordinator: &Arc<Coordinator>,
        graph: StageGraph,
        sql: &str,
        keep_metrics: bool,
    ) -> Result<(Self, watch::Receiver<JobProgress>)> {
        let job = coordinator.new_job();
        let partitions = graph.result().map_or(0, |stage| stage.partitions);
        let (view_sender, view) = watch::channel(JobView::default());
        let (progress_sender, progress) = watch::channel(JobProgress::default());
        let alive = Arc::new(());
        let statement = Arc::downgrade(&alive);
        let release = Arc::new(Release { job, coordinator: Arc::clone(coordinator), alive: Some(alive) });
        let submission = Submission {
            job,
            graph: Arc::new(graph),
            sql: sql.to_owned(),
            keep_metrics,
            view: view_sender,
            progress: progress_sender,
            statement,
        };
        coordinator.shared().tell(Input::Submit(Box::new(submission))).await?;
        Ok((Self { job, partitions, view, release }, progress))
    }

    /// The rows, read ahead by a routine that ends with the stream.
    fn rows(self) -> BoxStream<'static, Result<RecordBatch>> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let Self { job, partitions, view, release } = self;
        let source = Source { job, coordinator: Arc::clone(&release.coordinator), view, sender };
        let routine = Routine::spawn(&job.to_string(), "results", source.run(partitions));
        stream::unfold((receiver, routine, release), |(mut receiver, routine, release)| async move {
            let next = receiver.recv().await?;
            Some((next, (receiver, routine, release)))
        })
        .boxed()
    }
}

/// The client's end is gone.
struct Gone;

/// What the routine works with.
struct Source {
    job: JobId,
    coordinator: Arc<Coordinator>,
    view: watch::Receiver<JobView>,
    sender: mpsc::Sender<Result<RecordBatch>>,
}

impl Source {
    async fn run(mut self, partitions: u32) {
        for partition in 0..partitions {
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
        let view = self.view.wait_for(is_news).await.map_err(|_ended| crate::coordinator::gone())?;
        crate::coordinator::check(&view)?;
        let group = view.ready.get(&partition).cloned().flatten();
        Ok(group.map(|group| InputGroup { partitions: vec![partition], ..group }))
    }

    async fn read(&self, partition: u32, group: InputGroup) -> Result<Read> {
        let attempt = group.attempt;
        let request = FetchRequest { groups: vec![group], segment: 0 };
        let mut batches = self.coordinator.shared().transport().fetch(request);
        let (mut held, mut held_bytes, mut is_leaving) = (Vec::new(), 0, false);
        while let Some(item) = batches.next().await {
            let batch = match item {
                Ok((_, batch)) => batch,
                Err(failed) if is_leaving => return Err(self.torn(partition, &failed)),
                Err(failed) if matches!(failed.failure, Failure::LostInput { .. }) => return Ok(Read::Lost(failed)),
                Err(failed) => return Err(failed.to_error()),
            };
            held_bytes += batch.get_array_memory_size();
            held.push(batch);
            if held_bytes > BUFFER_MAX || is_leaving {
                if !std::mem::replace(&mut is_leaving, true) {
                    self.tell_delivered(partition, Some(attempt)).await?;
                }
                if self.hand_on(&mut held).await.is_err() {
                    return Ok(Read::Gone);
                }
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

    async fn tell_delivered(&self, partition: u32, attempt: Option<AttemptId>) -> Result<()> {
        self.coordinator.shared().tell(Input::Delivered { job: self.job, partition, attempt }).await
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
        let Failure::LostInput { attempt, partitions, executor, incarnation, .. } = failed.failure else { return Ok(()) };
        self.coordinator.shared().tell(Input::Lost { executor, incarnation, attempt, partitions }).await
    }
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
