//! A client's session on the coordinator: settings, catalog, and what becomes of a statement. Next: `sql.rs`.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::config::QueryConfig;
use windrow_core::ids::StageId;
use windrow_core::message::Registration;
use windrow_core::stage::StageGraph;
use windrow_core::task::TaskMetrics;
use windrow_core::{Error, Result};

/// What the planner knows of the cluster: it plans for live slots, never for the client's cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterShape {
    /// Live executors.
    pub executors: u32,
    /// Slots over all live executors.
    pub slots: u32,
}

/// What a statement became.
#[derive(Debug)]
pub enum Planned {
    /// A job for the scheduler.
    Job(PlannedJob),
    /// Done in the coordinator: DDL, SET, SHOW, EXPLAIN, and queries over the catalog alone.
    Rows {
        /// Their schema.
        schema: SchemaRef,
        /// The rows, possibly none.
        batches: Vec<RecordBatch>,
    },
    /// EXPLAIN ANALYZE: run the job, drop its rows, then [`PlannedJob::analyzed`] makes the answer.
    Analyze(PlannedJob),
}

/// A query as stages.
#[derive(Debug, Clone)]
pub struct PlannedJob {
    /// The stages.
    pub graph: StageGraph,
    /// The schema of the result.
    pub schema: SchemaRef,
}

impl PlannedJob {
    /// The rows that answer EXPLAIN ANALYZE: `(plan_type, plan)`, from the metrics of every attempt that succeeded.
    ///
    /// # Errors
    /// [`windrow_core::ErrorKind::Internal`] if the rows cannot be built.
    pub fn analyzed(&self, _metrics: &[(StageId, TaskMetrics)]) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        Err(Error::unsupported("EXPLAIN ANALYZE"))
    }
}

/// Names for completion and suggestions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Tables with their columns.
    pub tables: Vec<(String, Vec<String>)>,
    /// Functions of every kind.
    pub functions: Vec<String>,
    /// Settings that SET takes.
    pub settings: Vec<String>,
}

/// A client's session: settings and catalog. Cheap to share behind an `Arc`; statements may run side by side.
#[derive(Debug)]
pub struct PlannerSession {}

impl PlannerSession {
    /// A session with `query` as its settings.
    ///
    /// # Errors
    /// [`windrow_core::ErrorKind::InvalidConfig`] if a setting does not fit.
    pub fn new(_query: QueryConfig) -> Result<Self> {
        Ok(Self {})
    }

    /// Plans exactly one statement; a trailing `;` is allowed.
    ///
    /// # Errors
    /// `InvalidQuery` with a span and a suggestion, `NotFound`, `Unsupported`, `Data`.
    pub async fn plan(&self, _sql: &str, _shape: ClusterShape) -> Result<Planned> {
        Err(Error::unsupported("planning"))
    }

    /// The schema of a query's rows without running it.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub async fn schema(&self, _sql: &str) -> Result<SchemaRef> {
        Err(Error::unsupported("planning"))
    }

    /// Names for completion.
    ///
    /// # Errors
    /// `Internal` if the catalog cannot be read.
    pub async fn names(&self) -> Result<Names> {
        Ok(Names::default())
    }

    /// Replaces what `windrow.executors` shows, the system table of live executors.
    pub fn set_executors(&self, _executors: Vec<Registration>) {}
}
