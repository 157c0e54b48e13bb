//! Queries that the coordinator answers by itself, because a job would cost more than the rows: those that read nothing but the
//! catalog, and rows that are written in the statement. Called by `session/statement.rs`.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNode;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::TryStreamExt;

/// Bytes that the coordinator gives one such query, its rows included; one that needs more is a job.
const BYTES_MAX: usize = 64 << 20;

/// The rows of the plan, if they need no executor.
pub(crate) async fn rows_at_once(plan: &Arc<dyn ExecutionPlan>, state: &SessionState) -> Result<Option<Vec<RecordBatch>>> {
    if !is_constant(plan) && !reads_catalog_only(plan)? {
        return Ok(None);
    }
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(BYTES_MAX));
    let no_files = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&pool)).with_disk_manager_builder(no_files).build_arc()?;
    let context = TaskContext::default().with_session_config(state.config().clone()).with_runtime(runtime);
    match collect_within(Arc::clone(plan), Arc::new(context), &pool).await {
        Ok(rows) => Ok(Some(rows)),
        Err(error) if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn collect_within(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    pool: &Arc<dyn MemoryPool>,
) -> Result<Vec<RecordBatch>> {
    let held = MemoryConsumer::new("rows of the coordinator").register(pool);
    let mut rows = execute_stream(plan, context)?;
    let mut batches = Vec::new();
    while let Some(batch) = rows.try_next().await? {
        held.try_grow(batch.get_array_memory_size())?;
        batches.push(batch);
    }
    Ok(batches)
}

/// `SELECT 1`, `VALUES (1, 'a')`: no work is left when it is planned. What computes anything runs on executors, whose memory is
/// counted; so nothing here makes more rows or longer values than the statement has.
fn is_constant(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return projection.expr().iter().all(|column| is_given(&column.expr)) && is_constant(projection.input());
    }
    if plan.is::<CooperativeExec>() {
        return plan.children().into_iter().all(is_constant);
    }
    plan.is::<PlaceholderRowExec>() || plan.is::<EmptyExec>() || memory_of(plan).is_some()
}

fn is_given(expression: &Arc<dyn PhysicalExpr>) -> bool {
    expression.is::<Literal>() || expression.is::<Column>()
}

/// The rows of VALUES.
fn memory_of(plan: &Arc<dyn ExecutionPlan>) -> Option<&MemorySourceConfig> {
    plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<MemorySourceConfig>()
}

/// The catalog is known to the coordinator alone. What makes rows of nothing, or all pairs of rows, runs on executors, over the
/// catalog's rows.
fn reads_catalog_only(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let catalog = plan.exists(|node| Ok(node.is::<StreamingTableExec>()))?;
    Ok(catalog && !plan.exists(|node| Ok(!is_small(node)))?)
}

fn is_small(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<StreamingTableExec>()
        || is_constant(node)
        || node.is::<ProjectionExec>()
        || node.is::<FilterExec>()
        || node.is::<HashJoinExec>()
        || node.is::<AggregateExec>()
        || node.is::<WindowAggExec>()
        || node.is::<BoundedWindowAggExec>()
        || node.is::<SortExec>()
        || node.is::<SortPreservingMergeExec>()
        || node.is::<GlobalLimitExec>()
        || node.is::<LocalLimitExec>()
        || node.is::<RepartitionExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<CooperativeExec>()
        || node.is::<UnionExec>()
}

#[cfg(test)]
mod tests {
    use crate::{ClusterShape, Planned, PlannerSession, SessionOptions};

    async fn plan(sql: &str) -> Planned {
        let session = PlannerSession::new(SessionOptions::default()).unwrap();
        session.plan(sql, ClusterShape { executors: 2, slots: 2 }).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    #[tokio::test]
    async fn what_is_in_the_statement_or_the_catalog_is_there_at_once() {
        for (sql, count) in [
            ("SELECT 1", 1),
            ("SELECT 1 + 2 AS a, 'x' || 'y' AS b, NULL", 1),
            ("SELECT 1 WHERE 1 = 2", 0),
            ("VALUES (1, 'a'), (2, 'b')", 2),
            ("SELECT b FROM (VALUES (1, 'a'), (2, 'b')) AS t(a, b)", 2),
            ("SELECT count(*) FROM information_schema.tables", 1),
            ("SELECT table_name FROM information_schema.tables ORDER BY 1 LIMIT 1", 1),
            ("SELECT count(*) FROM information_schema.tables a JOIN information_schema.tables b USING (table_name)", 1),
        ] {
            let Planned::Rows { batches, schema } = plan(sql).await else { panic!("{sql}: not at once") };
            assert_eq!(batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), count, "{sql}");
            assert!(batches.iter().all(|batch| batch.num_columns() == schema.fields().len()), "{sql}");
        }
    }

    #[tokio::test]
    async fn what_may_take_long_or_grow_is_a_job() {
        for sql in [
            "SELECT random()",
            "SELECT value FROM generate_series(1, 3)",
            "SELECT unnest([1, 2])",
            "SELECT sum(a) FROM (VALUES (1), (2)) AS t(a)",
            "SELECT repeat(b, 1000) FROM (VALUES (1, 'a'), (2, 'b')) AS t(a, b)",
            "SELECT 1 FROM (VALUES (1), (2)) AS t(a) CROSS JOIN (VALUES (1), (2)) AS u(a)",
            "SELECT count(*) FROM information_schema.tables CROSS JOIN generate_series(1, 1000000000000)",
            "SELECT count(*) FROM information_schema.columns a, information_schema.columns b, information_schema.columns c",
            // More than the coordinator gives one query.
            "SELECT repeat(a.name, 2000) FROM information_schema.df_settings a JOIN information_schema.df_settings b \
             ON length(a.name) % 2 = length(b.name) % 2",
            "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
        ] {
            assert!(matches!(plan(sql).await, Planned::Job(_)), "{sql}: not a job");
        }
    }
}
