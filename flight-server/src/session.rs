//! A client's session on the coordinator: a statement arrives, is planned, and becomes rows or a job. Next: `coordinator/mod.rs`.

mod frames;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use windrow_core::ids::SessionId;
use windrow_core::time_limit::TimeLimit;
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::timer;
use windrow_planner::statement::changes_something;
use windrow_planner::{ClusterShape, Description, IngestTarget, Names, Planned, PlannerSession};

use crate::coordinator::Coordinator;
use crate::results::{self, Asked, Statement};
use crate::write::{self, Write};

/// What statements are planned for while no executor is connected: enough for those that need none.
const SMALLEST: ClusterShape = ClusterShape { executors: 1, slots: 1 };

/// How long one statement may be planned.
const PLANNING_MAX: Duration = Duration::from_secs(30);

/// What a client asks to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// A statement.
    Sql(String),
    /// A plan in the Substrait format.
    Substrait(Bytes),
    /// A statement over frames, which are plans of a client of this version.
    Frames {
        /// The statement.
        text: String,
        /// The frames.
        frames: Bytes,
    },
}

impl Request {
    /// How people see it.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Sql(text) | Self::Frames { text, .. } => Cow::Borrowed(text),
            Self::Substrait(plan) => Cow::Owned(format!("(a Substrait plan of {} bytes)", plan.len())),
        }
    }

    /// Whether it changes something instead of having rows. Plans only query.
    pub(crate) fn changes_something(&self) -> bool {
        match self {
            Self::Sql(text) | Self::Frames { text, .. } => changes_something(text),
            Self::Substrait(_) => false,
        }
    }
}

/// Settings and catalog of one client. Cheap to share behind an `Arc`; statements may run side by side.
#[derive(Debug)]
pub struct CoordinatorSession {
    id: SessionId,
    coordinator: Arc<Coordinator>,
    planner: PlannerSession,
    /// Whose it is.
    user: String,
    in_use: InUse,
}

/// Says, as long as it is there, that a session is in use: a clone is held by each statement of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct InUse(Arc<()>);

impl CoordinatorSession {
    pub(crate) fn new(id: SessionId, coordinator: Arc<Coordinator>, planner: PlannerSession, user: String) -> Self {
        Self { id, coordinator, planner, user, in_use: InUse::default() }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The coordinator it belongs to.
    #[must_use]
    pub fn coordinator(&self) -> &Arc<Coordinator> {
        &self.coordinator
    }

    /// Plans exactly one statement and submits its job, if it needs one. Returns after planning; rows follow in the statement.
    ///
    /// # Errors
    /// Those of planning; `Unavailable` if no executor is connected in time.
    pub async fn execute(&self, sql: &str) -> Result<Statement> {
        self.execute_with(sql, None).await
    }

    /// As [`Self::execute`], with the values of the statement's parameters: see [`PlannerSession::plan_with`].
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn execute_with(&self, sql: &str, values: Option<&RecordBatch>) -> Result<Statement> {
        self.planned(sql, |shape| self.planner.plan_with(sql, values, shape)).await
    }

    /// As [`Self::execute_with`], for a statement or a plan.
    pub(crate) async fn execute_request(&self, request: &Request, values: Option<&RecordBatch>) -> Result<Statement> {
        match request {
            Request::Sql(text) => self.execute_with(text, values).await,
            Request::Substrait(plan) => {
                self.planned(&request.text(), |shape| self.planner.plan_substrait(plan, values, shape)).await
            }
            Request::Frames { text, frames } => {
                self.planned(text, |shape| self.planner.plan_over_bytes(text, frames, shape)).await
            }
        }
    }

    /// Submits what `plan` makes for the cluster's shape.
    async fn planned<F>(&self, sql: &str, plan: impl Fn(ClusterShape) -> F) -> Result<Statement>
    where
        F: Future<Output = Result<Planned>>,
    {
        let shape = *self.coordinator.shared().shape().borrow();
        let first = if shape.slots == 0 { SMALLEST } else { shape };
        let time_limit = self.time_limit();
        let mut planned = in_time(time_limit, plan(first)).await?;
        if shape.slots == 0 && !matches!(planned, Planned::Rows { .. }) {
            let shape = self.shape().await?;
            planned = in_time(time_limit, plan(shape)).await?;
        }
        let asked = Asked { sql, user: &self.user, time_limit, in_use: Some(&self.in_use) };
        match planned {
            Planned::Rows { schema, batches } => Ok(Statement::ready(schema, batches)),
            Planned::Job(job) => results::submit(&self.coordinator, job, asked, false).await,
            Planned::Write { job, publication, table } => {
                let write = Write::new(&self.planner, publication, table);
                write::submit(&self.coordinator, job, write, asked).await
            }
            Planned::Analyze(job) => results::submit_analyze(&self.coordinator, job, asked).await,
        }
    }

    /// Writes rows that a client sends into a table; returns how many. They are visible together, after the last one came.
    ///
    /// # Errors
    /// Those of the stream; `InvalidQuery` for a table or columns that do not fit; those of the store. Then nothing has changed.
    pub async fn ingest(
        &self,
        target: IngestTarget,
        schema: SchemaRef,
        rows: impl Stream<Item = Result<RecordBatch>> + Send,
    ) -> Result<u64> {
        write::ingest(&self.planner, target, schema, limited(rows, self.time_limit())).await
    }

    /// Runs an INSERT for each row of values that a client binds, as one write; returns how many rows it inserted, `None` if `sql` is
    /// another statement, which was not run, and the values are still there.
    ///
    /// # Errors
    /// As [`Self::ingest`].
    pub async fn insert_bound(&self, sql: &str, values: impl Stream<Item = Result<RecordBatch>> + Send) -> Result<Option<u64>> {
        write::insert_bound(&self.planner, sql, limited(values, self.time_limit())).await
    }

    /// The schema of a statement's rows, without running it.
    ///
    /// # Errors
    /// Those of planning.
    pub async fn schema(&self, sql: &str) -> Result<SchemaRef> {
        in_time(self.time_limit(), self.planner.schema(sql)).await
    }

    /// How long a statement may be planned, and its job may run.
    fn time_limit(&self) -> Option<TimeLimit> {
        TimeLimit::of(self.planner.query_settings().time_limit, self.coordinator.scheduler_config().time_limit_max)
    }

    /// Whether a statement of it runs or is read, or a result of it is kept.
    pub(crate) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.in_use.0) > 1
    }

    /// Whether a job ends when nobody reads its result any more before it is complete.
    pub(crate) fn cancels_on_drop(&self) -> bool {
        self.planner.query_settings().cancel_on_drop
    }

    /// What a statement is, without running it; with `values`, what it is once they are bound.
    ///
    /// # Errors
    /// Those of planning.
    pub async fn describe(&self, sql: &str, values: Option<&RecordBatch>) -> Result<Description> {
        in_time(self.time_limit(), self.planner.describe_with(sql, values)).await
    }

    /// As [`Self::describe`], for a statement or a plan.
    pub(crate) async fn describe_request(&self, request: &Request, values: Option<&RecordBatch>) -> Result<Description> {
        match request {
            Request::Sql(text) => self.describe(text, values).await,
            Request::Substrait(plan) => in_time(self.time_limit(), self.planner.describe_substrait(plan, values)).await,
            Request::Frames { text, frames } => in_time(self.time_limit(), self.planner.describe_over_bytes(text, frames)).await,
        }
    }

    /// What plans its statements, and knows its catalog and settings.
    #[must_use]
    pub fn planner(&self) -> &PlannerSession {
        &self.planner
    }

    /// Names for completion.
    ///
    /// # Errors
    /// `Internal` if the catalog cannot be read.
    pub async fn names(&self) -> Result<Names> {
        self.planner.names().await
    }

    /// Sets one setting, as `SET key = 'value'` does.
    ///
    /// # Errors
    /// `InvalidConfig` for an unknown key or a value that does not fit, `InvalidQuery` for a key that is not a dotted name.
    pub async fn set(&self, key: &str, value: &str) -> Result<()> {
        check_key(key)?;
        let statement = format!("SET {key} = '{}'", value.replace('\'', "''"));
        self.planner.plan(&statement, SMALLEST).await.map(|_no_rows| ())
    }

    /// Gives one setting its default, as `RESET key` does.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub async fn reset(&self, key: &str) -> Result<()> {
        check_key(key)?;
        self.planner.plan(&format!("RESET {key}"), SMALLEST).await.map(|_no_rows| ())
    }

    /// The folder that relative paths in queries are read from.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub async fn set_directory(&self, directory: &str) -> Result<()> {
        self.set("windrow.query.directory", directory).await
    }

    /// The cluster's shape, once there is an executor.
    async fn shape(&self) -> Result<ClusterShape> {
        let mut shape = self.coordinator.shared().shape();
        let patience = self.coordinator.scheduler_config().no_executor_deadline;
        let first = timer::deadline(patience, shape.wait_for(|shape| shape.slots > 0)).await;
        match first {
            Some(Ok(shape)) => Ok(*shape),
            Some(Err(_ended)) => Err(Error::new(ErrorKind::Unavailable, "the coordinator has shut down")),
            None => {
                Err(Error::new(ErrorKind::Unavailable, format!("no executor has been connected for {} s", patience.as_secs()))
                    .with_help("start one with `windrow executor --scheduler HOST:PORT` and run the query again"))
            }
        }
    }
}

/// What planning gives, unless it takes too long; its thread ends by itself at the next point where it would wait.
async fn in_time<T>(limit: Option<TimeLimit>, planning: impl Future<Output = Result<T>>) -> Result<T> {
    let own = limit.filter(|own| own.limit() < PLANNING_MAX);
    let within = own.map_or(PLANNING_MAX, |own| own.limit());
    timer::deadline(within, planning).await.unwrap_or_else(|| {
        if let Some(own) = own {
            return Err(own.exceeded());
        }
        let message = format!("planning took more than {} s, the most that is allowed", PLANNING_MAX.as_secs());
        Err(Error::new(ErrorKind::ResourcesExhausted, message).with_help("write it with fewer joins, tables or files"))
    })
}

/// `rows` until `limit` is over, counted from when the first is asked for; then an error, so that nothing of them is published.
fn limited<S>(rows: S, limit: Option<TimeLimit>) -> impl Stream<Item = Result<RecordBatch>> + Send
where
    S: Stream<Item = Result<RecordBatch>> + Send,
{
    let over = async move {
        match limit {
            Some(limit) => {
                timer::sleep(limit.limit()).await;
                limit.exceeded()
            }
            None => std::future::pending().await,
        }
    };
    stream::unfold(Some((Box::pin(rows), Box::pin(over))), async |state| {
        let (mut rows, mut over) = state?;
        tokio::select! {
            biased;
            late = &mut over => Some((Err(late), None)),
            row = rows.next() => row.map(|row| (row, Some((rows, over)))),
        }
    })
}

fn check_key(key: &str) -> Result<()> {
    if !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidQuery, format!("'{key}' is not the name of a setting")))
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use futures::TryStreamExt;
    use windrow_core::time_limit::Exceeded;

    use super::*;

    fn limit(ms: u64) -> Option<TimeLimit> {
        TimeLimit::of(Duration::from_millis(ms), Duration::ZERO)
    }

    #[tokio::test]
    async fn planning_has_no_more_time_than_its_statement() {
        let late = in_time(limit(20), std::future::pending::<Result<()>>()).await.unwrap_err();
        assert!(Exceeded::is_cause_of(&late) && late.message.contains("20ms"), "{late}");
        for limit in [None, limit(60_000), limit(3_600_000)] {
            assert_eq!(in_time(limit, async { Ok(7) }).await.unwrap(), 7);
        }
    }

    #[tokio::test]
    async fn rows_that_a_client_sends_end_with_an_error_when_the_time_is_over() {
        let batch = || {
            let column = Arc::new(Int64Array::from(vec![1, 2, 3])) as _;
            Ok(RecordBatch::try_from_iter([("n", column)]).unwrap())
        };
        let complete = limited(stream::iter([batch(), batch()]), limit(60_000));
        assert_eq!(complete.try_collect::<Vec<_>>().await.unwrap().len(), 2, "all of them, and no error");
        let mut rows = Box::pin(limited(stream::iter([batch()]).chain(stream::pending()), limit(20)));
        assert!(rows.next().await.unwrap().is_ok());
        let late = rows.next().await.unwrap().unwrap_err();
        assert!(Exceeded::is_cause_of(&late), "{late}");
        assert!(rows.next().await.is_none(), "what comes later is not asked for");
        let mut endless = Box::pin(limited(stream::repeat_with(batch), None));
        assert!(endless.next().await.unwrap().is_ok());
    }
}
