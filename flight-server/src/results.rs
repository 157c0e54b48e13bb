//! Rows on their way to the client, in partition order, as the partitions of the result stage are committed. A statement is read
//! once, or kept to be read by ticket.
//!
//! ```text
//! source.rs   reads partitions from wherever they are         kept.rs   results that are read more than once
//! ```
//!
//! Next: `sql/mod.rs`.

mod kept;
mod source;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use futures::stream::{self, BoxStream, Stream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use windrow_core::failure::CancelReason;
use windrow_core::ids::JobId;
use windrow_core::time_limit::TimeLimit;
use windrow_core::{Error, Result};
use windrow_executor::timer;
use windrow_planner::{PlannedJob, TablesRead};

use crate::coordinator::{Coordinator, Departure, Input, JobView, Submission};
use crate::routine::Routine;
use crate::session::InUse;
use crate::status::JobProgress;

pub(crate) use kept::{Kept, Reading};
pub(crate) use source::Budget;
use source::{BUFFER_MAX, Source};

/// Batches between the reader and a client that reads once.
const AHEAD: usize = 16;

/// How long EXPLAIN ANALYZE waits for the last metrics after the last row.
const METRICS_WITHIN: Duration = Duration::from_secs(5);

/// A statement that was planned: its rows are a stream. Dropping it cancels its job.
pub struct Statement {
    /// The schema of its rows.
    pub schema: SchemaRef,
    /// The job that makes them; `None` for statements that the coordinator answers itself.
    pub job: Option<JobId>,
    rows: Rows,
    progress: watch::Receiver<JobProgress>,
    canceller: Option<Canceller>,
}

/// The rows of a statement.
enum Rows {
    /// Of a job of which nothing was read yet.
    Job(Reader),
    /// On their way.
    Stream(BoxStream<'static, Result<RecordBatch>>),
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
        let rows = Rows::Stream(stream::iter(batches.into_iter().map(Ok)).boxed());
        Self { schema, job: None, rows, progress: watch::channel(JobProgress::default()).1, canceller: None }
    }

    /// Takes its rows, which somebody else reads now, and gives others in their place.
    pub(crate) fn answered_by<R>(
        mut self,
        schema: SchemaRef,
        answer: impl FnOnce(BoxStream<'static, Result<RecordBatch>>) -> R,
    ) -> Self
    where
        R: Stream<Item = Result<RecordBatch>> + Send + 'static,
    {
        let rows = match std::mem::replace(&mut self.rows, Rows::Stream(stream::empty().boxed())) {
            Rows::Job(reader) => reader.rows(),
            Rows::Stream(rows) => rows,
        };
        Self { schema, rows: Rows::Stream(answer(rows).boxed()), ..self }
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
        if let Rows::Job(reader) = &self.rows {
            self.rows = Rows::Stream(reader.clone().rows());
        }
        match &mut self.rows {
            Rows::Stream(rows) => rows.as_mut().poll_next(context),
            Rows::Job(_) => Poll::Ready(None),
        }
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").field("schema", &self.schema).field("job", &self.job).finish_non_exhaustive()
    }
}

/// Who asks what, for those who look at the cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) sql: &'a str,
    pub(crate) user: &'a str,
    /// How long the job may run.
    pub(crate) time_limit: Option<TimeLimit>,
    /// Held for as long as the statement is there.
    pub(crate) in_use: Option<&'a InUse>,
}

impl<'a> Asked<'a> {
    /// By `user`, of no session and without a limit.
    pub(crate) fn new(sql: &'a str, user: &'a str) -> Self {
        Self { sql, user, time_limit: None, in_use: None }
    }
}

/// Submits a job and returns the statement that streams its rows.
///
/// # Errors
/// `Unavailable` if the coordinator has ended.
pub(crate) async fn submit(
    coordinator: &Arc<Coordinator>,
    planned: PlannedJob,
    asked: Asked<'_>,
    keep_metrics: bool,
) -> Result<Statement> {
    let schema = Arc::clone(&planned.schema);
    let (reader, progress) = Reader::submit(coordinator, planned, asked, keep_metrics).await?;
    let (job, canceller) = (reader.job, Canceller { job: reader.job, coordinator: Arc::clone(coordinator) });
    Ok(Statement { schema, job: Some(job), rows: Rows::Job(reader), progress, canceller: Some(canceller) })
}

/// Submits the job of an EXPLAIN ANALYZE: its rows are dropped, and its metrics become the answer.
///
/// # Errors
/// As [`submit`].
pub(crate) async fn submit_analyze(coordinator: &Arc<Coordinator>, planned: PlannedJob, asked: Asked<'_>) -> Result<Statement> {
    let schema = PlannedJob::analyzed_schema();
    let (reader, progress) = Reader::submit(coordinator, planned, asked, true).await?;
    let (job, canceller) = (reader.job, Canceller { job: reader.job, coordinator: Arc::clone(coordinator) });
    let rows = stream::once(analyze(reader)).flat_map(|answer| match answer {
        Ok(batches) => stream::iter(batches.into_iter().map(Ok).collect::<Vec<_>>()),
        Err(error) => stream::iter(vec![Err(error)]),
    });
    Ok(Statement { schema, job: Some(job), rows: Rows::Stream(rows.boxed()), progress, canceller: Some(canceller) })
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
    /// Files that the job may still read.
    _reads: TablesRead,
    /// Its session is not idle.
    _in_use: Option<InUse>,
}

impl Drop for Release {
    fn drop(&mut self) {
        // First the token, then the message: a submission that the loop has not seen yet is dropped for the missing token.
        drop(self.alive.take());
        self.coordinator.shared().departures().push(Departure::Released(self.job));
    }
}

/// What it takes to read the partitions of a job's result stage. The last one that goes releases the job.
#[derive(Clone)]
struct Reader {
    job: JobId,
    partitions: u32,
    view: watch::Receiver<JobView>,
    release: Arc<Release>,
    runtime: Handle,
}

impl Reader {
    async fn submit(
        coordinator: &Arc<Coordinator>,
        planned: PlannedJob,
        asked: Asked<'_>,
        keep_metrics: bool,
    ) -> Result<(Self, watch::Receiver<JobProgress>)> {
        let PlannedJob { graph, reads, .. } = planned;
        let job = coordinator.new_job();
        let partitions = graph.result().map_or(0, |stage| stage.partitions);
        let (view_sender, view) = watch::channel(JobView::default());
        let (progress_sender, progress) = watch::channel(JobProgress::default());
        let alive = Arc::new(());
        let statement = Arc::downgrade(&alive);
        let _in_use = asked.in_use.cloned();
        let release = Arc::new(Release { job, coordinator: Arc::clone(coordinator), alive: Some(alive), _reads: reads, _in_use });
        let submission = Submission {
            job,
            graph: Arc::new(graph),
            sql: asked.sql.to_owned(),
            user: asked.user.to_owned(),
            time_limit: asked.time_limit,
            keep_metrics,
            view: view_sender,
            progress: progress_sender,
            statement,
        };
        coordinator.shared().tell(Input::Submit(Box::new(submission))).await?;
        Ok((Self { job, partitions, view, release, runtime: Handle::current() }, progress))
    }

    /// The rows, read ahead by a routine that ends with the stream.
    fn rows(self) -> BoxStream<'static, Result<RecordBatch>> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let Self { job, partitions, view, release, runtime } = self;
        let source = Source {
            job,
            coordinator: Arc::clone(&release.coordinator),
            view,
            sender,
            budget: Budget::new(BUFFER_MAX),
            told: None,
        };
        let routine = Routine::spawn_on(&runtime, &job.to_string(), "results", source.run(0..partitions));
        stream::unfold((receiver, routine, release), |(mut receiver, routine, release)| async move {
            let next = receiver.recv().await?;
            Some((next, (receiver, routine, release)))
        })
        .boxed()
    }
}
