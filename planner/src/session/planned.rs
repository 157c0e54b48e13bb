//! What a statement became, for whoever runs it.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::Result;
use windrow_core::ids::StageId;
use windrow_core::stage::StageGraph;
use windrow_core::task::TaskMetrics;

use crate::catalog::TablesRead;
use crate::write::{NewTable, Publication};
use crate::{explain, parameters};

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
#[expect(clippy::large_enum_variant, reason = "there is one for each statement, and it is taken apart at once")]
pub enum Planned {
    /// A job for the scheduler.
    Job(PlannedJob),
    /// Done in the coordinator: DDL, SET, SHOW, EXPLAIN, and queries over the catalog alone or over rows in the
    /// statement itself.
    Rows {
        /// Their schema.
        schema: SchemaRef,
        /// The rows, possibly none.
        batches: Vec<RecordBatch>,
    },
    /// COPY, INSERT: run the job, whose rows name the files that it wrote, and publish those.
    Write {
        /// The job.
        job: PlannedJob,
        /// Where its files go.
        publication: Publication,
        /// The table to be created over the files that are published.
        table: Option<NewTable>,
    },
    /// EXPLAIN ANALYZE: run the job, drop its rows, then [`PlannedJob::analyzed`] makes the answer.
    Analyze(PlannedJob),
}

impl Planned {
    /// The same rows, any column of which may be null: see [`parameters::nullable`].
    pub(super) fn with_nullable_columns(mut self) -> Self {
        if let Self::Job(PlannedJob { schema, .. }) | Self::Rows { schema, .. } = &mut self {
            *schema = parameters::nullable(schema);
        }
        self
    }
}

/// A query as stages.
#[derive(Debug, Clone)]
pub struct PlannedJob {
    /// The stages.
    pub graph: StageGraph,
    /// The schema of the result: that of the statement's description. Batches are of the same types, and a column of theirs may be
    /// known to have no nulls.
    pub schema: SchemaRef,
    /// Kept until the job is released: the files of a table that is dropped meanwhile stay for as long.
    pub reads: TablesRead,
}

impl PlannedJob {
    /// The schema of what [`Self::analyzed`] returns.
    #[must_use]
    pub fn analyzed_schema() -> SchemaRef {
        explain::schema()
    }

    /// The rows that answer EXPLAIN ANALYZE: `(plan_type, plan)`, from the stages as they ran and the metrics of every attempt that
    /// succeeded.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the rows cannot be built.
    pub fn analyzed(graph: &StageGraph, metrics: &[(StageId, TaskMetrics)]) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        explain::rows(&[("stages with metrics", explain::analyzed_tree(graph, metrics))])
    }
}

/// Names for completion and suggestions.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Names {
    /// Tables with their columns.
    pub tables: Vec<(String, Vec<String>)>,
    /// Functions of every kind.
    pub functions: Vec<String>,
    /// Settings that SET takes.
    pub settings: Vec<String>,
}
