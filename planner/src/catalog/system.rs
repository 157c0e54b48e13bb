//! Tables about the cluster, in the schema `system`: its queries, their stages and tasks, its executors, the session's settings.
//!
//! Rows are taken once for each statement, so that joins of these tables fit together. The coordinator answers queries over them
//! by itself: they need no executor. Next: `flight-server/src/coordinator/system.rs`, where the rows come from.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringArray, TimestampMillisecondArray, UInt32Array, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use windrow_core::config::QueryConfig;

const QUERIES: &str = "queries";
const STAGES: &str = "stages";
const TASKS: &str = "tasks";
const EXECUTORS: &str = "executors";
pub(super) const SETTINGS: &str = "settings";

/// The tables' names.
pub(super) const TABLES: [&str; 5] = [EXECUTORS, QUERIES, SETTINGS, STAGES, TASKS];

/// For whom a session works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The user's name; empty where nobody is asked for one.
    pub name: String,
    /// Sees the queries of others too.
    pub is_admin: bool,
}

impl Viewer {
    /// Whoever started the coordinator, and may see everything.
    #[must_use]
    pub fn owner() -> Self {
        Self { name: String::new(), is_admin: true }
    }

    /// Whether queries of `user` are shown.
    #[must_use]
    pub fn sees(&self, user: &str) -> bool {
        self.is_admin || self.name == user
    }
}

impl Default for Viewer {
    fn default() -> Self {
        Self::owner()
    }
}

/// Where the rows come from.
pub trait SystemSource: fmt::Debug + Send + Sync {
    /// The cluster at this moment, without queries that `viewer` does not see, and without their stages and tasks.
    fn snapshot(&self, viewer: &Viewer) -> SystemSnapshot;
}

/// The cluster at one moment.
#[derive(Debug, Clone, Default)]
pub struct SystemSnapshot {
    /// Queries that wait or run, and the last ones that ended.
    pub queries: Vec<QueryRow>,
    /// Stages of queries that have not been released.
    pub stages: Vec<StageRow>,
    /// Attempts at tasks that run.
    pub tasks: Vec<TaskRow>,
    /// Every executor that is or was connected.
    pub executors: Vec<ExecutorRow>,
}

/// A row of `system.queries`.
#[derive(Debug, Clone, Default)]
pub struct QueryRow {
    /// Its number.
    pub id: u64,
    /// Whose it is; empty where nobody is asked for a name.
    pub user: String,
    /// `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    pub state: &'static str,
    /// What was submitted.
    pub sql: String,
    /// When, in milliseconds since 1970.
    pub submitted: u64,
    /// Stages that are complete.
    pub stages_done: u32,
    /// Stages.
    pub stages_total: u32,
    /// Partitions that are committed, over all stages.
    pub tasks_done: u32,
    /// Partitions, over all stages.
    pub tasks_total: u32,
    /// Rows written by attempts that succeeded.
    pub rows: u64,
    /// Bytes written to the shuffle.
    pub shuffle_bytes: u64,
    /// Bytes written to disk by operators.
    pub spill_bytes: u64,
    /// Attempts that did not succeed.
    pub retries: u64,
    /// The sentence it failed with.
    pub error: Option<String>,
}

/// A row of `system.stages`.
#[derive(Debug, Clone, Default)]
pub struct StageRow {
    /// The query it belongs to.
    pub query_id: u64,
    /// Its number in the query.
    pub stage: u32,
    /// `waiting`, `ready`, `running` or `succeeded`.
    pub state: &'static str,
    /// How often its outputs had to be computed again.
    pub generation: u32,
    /// Partitions.
    pub partitions: u32,
    /// Partitions with nothing left to do.
    pub partitions_done: u32,
    /// Partitions that run.
    pub partitions_running: u32,
    /// Rows of its committed partitions.
    pub rows: u64,
    /// Bytes of its committed partitions.
    pub bytes: u64,
    /// Committed partitions whose output was lost.
    pub lost: u64,
    /// Partitions that had to run again.
    pub reruns: u64,
}

/// A row of `system.tasks`.
#[derive(Debug, Clone, Default)]
pub struct TaskRow {
    /// The query it belongs to.
    pub query_id: u64,
    /// The stage.
    pub stage: u32,
    /// Its number in the stage.
    pub task: u32,
    /// Which try at it this is.
    pub attempt: u32,
    /// The executor that it runs on.
    pub executor: String,
}

/// A row of `system.executors`.
#[derive(Debug, Clone, Default)]
pub struct ExecutorRow {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `alive`, `suspect`, `leaving`, `dead` or `left`.
    pub state: &'static str,
    /// Where its shuffle data is fetched; empty in the coordinator's process.
    pub address: String,
    /// Its process; 0 in the coordinator's.
    pub pid: u32,
    /// Partitions it computes at a time.
    pub slots: u32,
    /// Slots that are taken.
    pub slots_used: u32,
    /// Bytes of its memory limit.
    pub memory_limit: u64,
    /// Bytes in use of it.
    pub memory_bytes: u64,
    /// Bytes of shuffle segments in memory.
    pub store_bytes: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
}

/// The columns of the table `name`.
pub(super) fn columns(name: &str) -> SchemaRef {
    if name == SETTINGS { settings_schema() } else { batch(name, &SystemSnapshot::default()).schema() }
}

/// The table `name` with the rows of `snapshot`.
pub(super) fn table(name: &str, snapshot: &SystemSnapshot) -> Result<Option<Arc<dyn TableProvider>>> {
    streaming(batch(name, snapshot).build()?).map(Some)
}

/// The session's settings, ours and DataFusion's.
pub(super) fn settings_table(query: &QueryConfig, options: &ConfigOptions) -> Result<Arc<dyn TableProvider>> {
    let own = QueryConfig::KEYS.iter().map(|key| (format!("windrow.query.{key}"), query.get(key)));
    let others = options.entries().into_iter().map(|entry| (entry.key, entry.value));
    let (names, values): (Vec<_>, Vec<_>) = own.chain(others).unzip();
    let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(names)), Arc::new(StringArray::from(values))];
    streaming(RecordBatch::try_new(settings_schema(), columns)?)
}

fn settings_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)]))
}

/// Columns and their values on the way to a batch.
#[derive(Default)]
struct Batch {
    fields: Vec<Field>,
    columns: Vec<ArrayRef>,
}

impl Batch {
    fn add(mut self, name: &str, is_nullable: bool, column: ArrayRef) -> Self {
        self.fields.push(Field::new(name, column.data_type().clone(), is_nullable));
        self.columns.push(column);
        self
    }

    fn text<'a>(self, name: &str, values: impl Iterator<Item = &'a str>) -> Self {
        self.add(name, false, Arc::new(StringArray::from_iter_values(values)))
    }

    fn optional_text<'a>(self, name: &str, values: impl Iterator<Item = Option<&'a str>>) -> Self {
        self.add(name, true, Arc::new(values.collect::<StringArray>()))
    }

    fn count(self, name: &str, values: impl Iterator<Item = u32>) -> Self {
        self.add(name, false, Arc::new(UInt32Array::from_iter_values(values)))
    }

    fn number(self, name: &str, values: impl Iterator<Item = u64>) -> Self {
        self.add(name, false, Arc::new(UInt64Array::from_iter_values(values)))
    }

    fn instant(self, name: &str, values: impl Iterator<Item = u64>) -> Self {
        let values = values.map(|millis| i64::try_from(millis).unwrap_or(i64::MAX));
        let column = TimestampMillisecondArray::from_iter_values(values).with_timezone("UTC");
        self.add(name, false, Arc::new(column))
    }

    fn schema(self) -> SchemaRef {
        Arc::new(Schema::new(self.fields))
    }

    fn build(self) -> Result<RecordBatch> {
        Ok(RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.columns)?)
    }
}

fn batch(name: &str, snapshot: &SystemSnapshot) -> Batch {
    match name {
        QUERIES => queries(&snapshot.queries),
        STAGES => stages(&snapshot.stages),
        TASKS => tasks(&snapshot.tasks),
        EXECUTORS => executors(&snapshot.executors),
        _ => Batch::default(),
    }
}

fn queries(rows: &[QueryRow]) -> Batch {
    Batch::default()
        .number("id", rows.iter().map(|row| row.id))
        .text("user", rows.iter().map(|row| row.user.as_str()))
        .text("state", rows.iter().map(|row| row.state))
        .text("sql", rows.iter().map(|row| row.sql.as_str()))
        .instant("submitted", rows.iter().map(|row| row.submitted))
        .count("stages_done", rows.iter().map(|row| row.stages_done))
        .count("stages_total", rows.iter().map(|row| row.stages_total))
        .count("tasks_done", rows.iter().map(|row| row.tasks_done))
        .count("tasks_total", rows.iter().map(|row| row.tasks_total))
        .number("rows", rows.iter().map(|row| row.rows))
        .number("shuffle_bytes", rows.iter().map(|row| row.shuffle_bytes))
        .number("spill_bytes", rows.iter().map(|row| row.spill_bytes))
        .number("retries", rows.iter().map(|row| row.retries))
        .optional_text("error", rows.iter().map(|row| row.error.as_deref()))
}

fn stages(rows: &[StageRow]) -> Batch {
    Batch::default()
        .number("query_id", rows.iter().map(|row| row.query_id))
        .count("stage", rows.iter().map(|row| row.stage))
        .text("state", rows.iter().map(|row| row.state))
        .count("generation", rows.iter().map(|row| row.generation))
        .count("partitions", rows.iter().map(|row| row.partitions))
        .count("partitions_done", rows.iter().map(|row| row.partitions_done))
        .count("partitions_running", rows.iter().map(|row| row.partitions_running))
        .number("rows", rows.iter().map(|row| row.rows))
        .number("bytes", rows.iter().map(|row| row.bytes))
        .number("lost", rows.iter().map(|row| row.lost))
        .number("reruns", rows.iter().map(|row| row.reruns))
}

fn tasks(rows: &[TaskRow]) -> Batch {
    Batch::default()
        .number("query_id", rows.iter().map(|row| row.query_id))
        .count("stage", rows.iter().map(|row| row.stage))
        .count("task", rows.iter().map(|row| row.task))
        .count("attempt", rows.iter().map(|row| row.attempt))
        .text("executor", rows.iter().map(|row| row.executor.as_str()))
}

fn executors(rows: &[ExecutorRow]) -> Batch {
    Batch::default()
        .number("id", rows.iter().map(|row| row.id))
        .text("name", rows.iter().map(|row| row.name.as_str()))
        .text("state", rows.iter().map(|row| row.state))
        .text("address", rows.iter().map(|row| row.address.as_str()))
        .count("pid", rows.iter().map(|row| row.pid))
        .count("slots", rows.iter().map(|row| row.slots))
        .count("slots_used", rows.iter().map(|row| row.slots_used))
        .number("memory_limit", rows.iter().map(|row| row.memory_limit))
        .number("memory_bytes", rows.iter().map(|row| row.memory_bytes))
        .number("store_bytes", rows.iter().map(|row| row.store_bytes))
        .number("disk_bytes", rows.iter().map(|row| row.disk_bytes))
}

/// A table of one batch that is read in the coordinator, like those of the information schema.
fn streaming(batch: RecordBatch) -> Result<Arc<dyn TableProvider>> {
    let rows: Arc<dyn PartitionStream> = Arc::new(Rows { schema: batch.schema(), batch });
    Ok(Arc::new(StreamingTable::try_new(Arc::clone(rows.schema()), vec![rows])?))
}

#[derive(Debug)]
struct Rows {
    schema: SchemaRef,
    batch: RecordBatch,
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = futures::stream::iter([Ok(self.batch.clone())]);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}
