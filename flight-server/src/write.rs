//! A statement that writes: its job runs whether or not anybody reads the answer, and what it wrote is published once, when all of it
//! is committed. Next: `planner/src/write/publish.rs`, which moves the files.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tokio::sync::oneshot;
use windrow_core::{Error, Result};
use windrow_executor::timer;
use windrow_planner::{IngestTarget, NewTable, PlannedJob, PlannerSession, Publication, WrittenFile, count_rows, count_schema};

use crate::coordinator::Coordinator;
use crate::results::{self, Asked, Statement};
use crate::routine::Routine;

/// When the folder of a write that came to nothing is removed, each time after a pause: an attempt that is being cancelled may complete
/// a file after the first removal. What comes later still is removed by the next write to the same place.
const REMOVALS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(9)];

/// Submits the job of a statement that writes. The statement's only row is the number of rows written. Dropped before that row is there,
/// it cancels the job; the files are then published either all or not at all.
///
/// # Errors
/// As [`results::submit`].
pub(crate) async fn submit(coordinator: &Arc<Coordinator>, job: PlannedJob, write: Write, asked: Asked<'_>) -> Result<Statement> {
    let unpublished = write.begin().await;
    let statement = results::submit(coordinator, job, asked, false).await?;
    let name = statement.job.map(|job| job.to_string()).unwrap_or_default();
    Ok(statement.answered_by(count_schema(), |files| answer(&name, files, unpublished)))
}

/// The answer's row, from a routine that ends with the answer.
fn answer(
    name: &str,
    files: BoxStream<'static, Result<RecordBatch>>,
    unpublished: Unpublished,
) -> impl Stream<Item = Result<RecordBatch>> + use<> {
    let (sender, receiver) = oneshot::channel();
    let routine = Routine::spawn(name, "write", async move {
        // Whoever asked may have gone after the files were published.
        let _ = sender.send(run(files, unpublished).await);
    });
    stream::once(async move {
        let rows = receiver.await.unwrap_or_else(|_panicked| Err(Error::internal("a write ended without an answer")));
        drop(routine);
        rows.and_then(count_rows)
    })
}

async fn run(mut files: BoxStream<'static, Result<RecordBatch>>, unpublished: Unpublished) -> Result<u64> {
    let mut written = Vec::new();
    while let Some(batch) = files.next().await {
        written.extend(WrittenFile::of_batch(&batch?)?);
    }
    unpublished.publish(written).await
}

/// Writes rows that a client sends. Whatever ends it before all have come, nothing of it is visible.
///
/// # Errors
/// Those of the rows, of the table, of the store.
pub(crate) async fn ingest(
    planner: &PlannerSession,
    target: IngestTarget,
    schema: SchemaRef,
    rows: impl Stream<Item = Result<RecordBatch>> + Send,
) -> Result<u64> {
    let (mut ingest, publication) = planner.ingest(target, schema).await?;
    let mut unpublished = Write::new(planner, publication, None).begin().await;
    let mut rows = std::pin::pin!(rows);
    while let Some(batch) = rows.next().await {
        ingest.write(&batch?).await?;
    }
    let (files, table) = ingest.finish().await?;
    if let Some(write) = &mut unpublished.0 {
        write.table = table;
    }
    unpublished.publish(files).await
}

/// Inserts rows of values that a client binds; `None`, with `values` untouched, if `sql` is no such statement. Whatever ends it before
/// all have come, nothing of it is visible.
///
/// # Errors
/// Those of the values, of the statement, of the table, of the store.
pub(crate) async fn insert_bound(
    planner: &PlannerSession,
    sql: &str,
    values: impl Stream<Item = Result<RecordBatch>> + Send,
) -> Result<Option<u64>> {
    let Some((mut insert, publication)) = planner.bound_insert(sql).await? else { return Ok(None) };
    let unpublished = Write::new(planner, publication, None).begin().await;
    let mut values = std::pin::pin!(values);
    while let Some(batch) = values.next().await {
        insert.write(&batch?).await?;
    }
    let files = insert.finish().await?;
    unpublished.publish(files).await.map(Some)
}

/// A write with all that happens after its job.
pub(crate) struct Write {
    planner: PlannerSession,
    publication: Publication,
    table: Option<NewTable>,
}

impl Write {
    /// A write of a session's statement.
    pub(crate) fn new(planner: &PlannerSession, publication: Publication, table: Option<NewTable>) -> Self {
        Self { planner: planner.clone(), publication, table }
    }

    async fn begin(self) -> Unpublished {
        self.publication.begin().await;
        Unpublished(Some(self))
    }

    async fn publish(self, files: Vec<WrittenFile>) -> Result<u64> {
        let Self { planner, publication, table } = self;
        let rows = publication.publish(files).await?;
        if let Some(table) = table
            && let Err(error) = planner.create_table(table).await
        {
            // The folder was made for this table alone.
            publication.withdraw().await;
            return Err(error);
        }
        Ok(rows)
    }
}

/// A write that is not published: dropped as such, its files are removed.
struct Unpublished(Option<Write>);

impl Unpublished {
    /// In a task of its own: once begun, it is not given up halfway because a client went away.
    async fn publish(mut self, files: Vec<WrittenFile>) -> Result<u64> {
        let Some(write) = self.0.take() else { return Err(Error::internal("a write is published twice")) };
        let published = tokio::spawn(write.publish(files)).await;
        published.unwrap_or_else(|source| Err(Error::internal("publishing files panicked").with_source(source)))
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        let Some(Write { publication, .. }) = self.0.take() else { return };
        // Without a runtime the process is ending, and the next write removes the files.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            for pause in REMOVALS {
                timer::sleep(pause).await;
                publication.discard().await;
            }
        });
    }
}
