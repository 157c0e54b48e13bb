//! Third arrow: an optimized logical plan becomes a physical one for the cluster's shape. Next: `exchange.rs`.
//!
//! The plan is still correct on one node. There are two sets of options: *cut*, for plans that will be divided at their exchanges,
//! and *uncut*, for small input that one task reads faster than a second stage starts.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use futures::TryStreamExt;
use windrow_core::config::QueryConfig;
use windrow_core::{Error, ErrorKind};

use crate::diagnose::ours;
use crate::session::ClusterShape;

/// Bytes of source files for which another partition is worth its overhead. 4 MiB of Parquet is about what one core reads in 50 ms.
const PARTITION_BYTES_MIN: u64 = 4 << 20;

/// Options that `SET` may not change, with the reason.
pub(crate) const LOCKED: [(&str, &str); 12] = [
    ("datafusion.catalog.information_schema", "the information schema is always there"),
    (
        "datafusion.optimizer.preserve_file_partitions",
        "files are divided by size; hive folders do not follow the hash of their keys",
    ),
    ("datafusion.optimizer.enable_physical_uncorrelated_scalar_subquery", "scalar subqueries are stages of their own"),
    ("datafusion.optimizer.enable_window_topn", "its operator cannot be sent to an executor"),
    ("datafusion.optimizer.enable_piecewise_merge_join", "its operator cannot be sent to an executor"),
    (
        "datafusion.optimizer.enable_dynamic_filter_pushdown",
        "it switches join filters on, which wait for partitions of other tasks",
    ),
    ("datafusion.optimizer.enable_join_dynamic_filter_pushdown", "a join's filter waits for partitions of other tasks"),
    ("datafusion.optimizer.prefer_existing_sort", "exchanges do not keep an order"),
    ("datafusion.execution.enable_file_stream_work_stealing", "tasks that take each other's files read them twice"),
    ("datafusion.execution.planning_concurrency", "sessions share the coordinator's cores"),
    ("datafusion.sql_parser.recursion_limit", "it bounds what one statement may take"),
    ("datafusion.execution.target_partitions", "partitions follow the cluster's slots; use SET windrow.query.partitions"),
];

/// Windrow's values for DataFusion's options, where they differ from its defaults. The umbrella over the dynamic filters comes first,
/// because setting it sets those below it.
const OPTIONS: [(&str, &str); 14] = [
    ("datafusion.optimizer.enable_dynamic_filter_pushdown", "true"),
    ("datafusion.optimizer.enable_join_dynamic_filter_pushdown", "false"),
    ("datafusion.optimizer.enable_round_robin_repartition", "false"),
    ("datafusion.optimizer.preserve_file_partitions", "0"),
    ("datafusion.optimizer.hash_join_single_partition_threshold_rows", "1000000"),
    ("datafusion.optimizer.enable_window_topn", "false"),
    ("datafusion.optimizer.enable_piecewise_merge_join", "false"),
    ("datafusion.execution.planning_concurrency", "2"),
    ("datafusion.execution.enable_file_stream_work_stealing", "false"),
    ("datafusion.execution.spill_compression", "lz4_frame"),
    ("datafusion.execution.sort_pushdown_buffer_capacity", "67108864"),
    ("datafusion.sql_parser.collect_spans", "true"),
    ("datafusion.optimizer.prefer_existing_sort", "false"),
    // Its projections name columns twice where two of a subquery are made of one below it, and the query fails.
    ("datafusion.optimizer.enable_leaf_expression_pushdown", "false"),
];

/// Windrow's value for one of DataFusion's options, if it has its own.
pub(crate) fn value_of(name: &str) -> Option<&'static str> {
    OPTIONS.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
}

/// Sets Windrow's options on a new session.
pub(crate) fn configure(options: &mut ConfigOptions) -> Result<()> {
    OPTIONS.iter().try_for_each(|(key, value)| options.set(key, value))
}

/// DataFusion's rules with ours in their places.
pub(crate) fn optimizer_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let after_selection = rules.iter().position(|rule| rule.name() == "join_selection").map_or(0, |index| index + 1);
    rules.insert(after_selection, Arc::new(DemoteBroadcast));
    let after_limits = rules.iter().position(|rule| rule.name() == "LimitPushdown").map_or(rules.len(), |index| index + 1);
    rules.insert(after_limits, Arc::new(SortLargeLimits));
    rules
}

/// How a query is planned: for how many partitions, and whether it is cut at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizing {
    /// Partitions of scans and exchanges.
    pub(crate) partitions: usize,
    /// Divide the plan at its exchanges.
    pub(crate) cut: bool,
}

/// Decides the sizing from the bytes of the files that `plan` reads.
pub(crate) fn size(input_bytes: u64, query: &QueryConfig, shape: ClusterShape) -> Sizing {
    if input_bytes < query.small_input.as_u64() {
        return Sizing { partitions: 1, cut: false };
    }
    let partitions = match query.partitions {
        0 => {
            let worth = input_bytes.div_ceil(PARTITION_BYTES_MIN).max(1);
            u64::from(shape.slots.max(1)).min(worth)
        }
        count => u64::from(count),
    };
    Sizing { partitions: usize::try_from(partitions).unwrap_or(1), cut: true }
}

/// Bytes of the files below the plan's scans, subqueries included; a table read twice counts twice.
pub(crate) async fn input_bytes(plan: &LogicalPlan, state: &SessionState) -> Result<u64> {
    let mut tables = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
        {
            tables.push(provider);
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    let mut bytes = 0_u64;
    for table in &tables {
        let Some(listing) = table.downcast_ref::<ListingTable>() else { continue };
        for path in listing.table_paths() {
            let store = state.runtime_env().object_store(path)?;
            let mut files = path.list_all_files(state, store.as_ref(), &listing.options().file_extension).await?;
            while let Some(file) = files.try_next().await? {
                bytes = bytes.saturating_add(file.size);
            }
        }
    }
    Ok(bytes)
}

/// Plans `plan` with the given sizing.
pub(crate) async fn plan(
    plan: &LogicalPlan,
    state: &SessionState,
    query: &QueryConfig,
    sizing: Sizing,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut state = state.clone();
    let options = state.config_mut().options_mut();
    let partitions = std::num::NonZeroUsize::new(sizing.partitions)
        .ok_or_else(|| ours(Error::new(ErrorKind::InvalidConfig, "a query needs at least one partition")))?;
    options.set("datafusion.execution.target_partitions", &partitions.to_string())?;
    if sizing.cut {
        options.set("datafusion.optimizer.hash_join_single_partition_threshold", &query.broadcast_limit.as_u64().to_string())?;
        if query.partitions > 0 {
            // An explicit count is meant: files are divided however small they are.
            options.set("datafusion.optimizer.repartition_file_min_size", "0")?;
        }
    } else {
        // One task runs all partitions of its plan, so a filter from a join's build side reaches the scan that it is for.
        options.set("datafusion.optimizer.enable_join_dynamic_filter_pushdown", "true")?;
    }
    state.query_planner().create_physical_plan(plan, &state).await
}

/// Whether a join whose build side is sent whole to several tasks stays right: a build row that finds no partner must not be
/// emitted, or marked, once per task.
pub(crate) fn may_broadcast_build(join_type: JoinType) -> bool {
    match join_type {
        JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => true,
        JoinType::Left | JoinType::Full | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => false,
    }
}

/// Turns a hash join that collects its build side, and may emit build rows, into a partitioned one. Runs between the choice of join
/// algorithms and the rule that adds exchanges. A null-aware join stays collected: its stage is run by one task.
#[derive(Debug)]
struct DemoteBroadcast;

impl PhysicalOptimizerRule for DemoteBroadcast {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if config.execution.target_partitions == 1 {
            return Ok(plan);
        }
        plan.transform_up(|node| {
            let Some(join) = node.downcast_ref::<HashJoinExec>() else { return Ok(Transformed::no(node)) };
            let collected = matches!(join.partition_mode(), PartitionMode::CollectLeft | PartitionMode::Auto);
            if !collected || join.null_aware || may_broadcast_build(*join.join_type()) {
                return Ok(Transformed::no(node));
            }
            Ok(Transformed::yes(
                join.builder().with_partition_mode(PartitionMode::Partitioned).recompute_properties().build_exec()?,
            ))
        })
        .map(|transformed| transformed.data)
    }

    fn name(&self) -> &'static str {
        "windrow_demote_broadcast"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Most rows of an ORDER BY with LIMIT that are kept in memory as the best so far.
const TOP_ROWS_MAX: usize = 100_000;

/// Sorts everything for a large limit. DataFusion keeps the best rows in memory, whatever their number, and fails where they do not
/// fit; its sort goes to disk.
#[derive(Debug)]
struct SortLargeLimits;

impl PhysicalOptimizerRule for SortLargeLimits {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(sort) = node.downcast_ref::<SortExec>() else { return Ok(Transformed::no(node)) };
            let Some(fetch) = ExecutionPlan::fetch(sort).filter(|fetch| *fetch > TOP_ROWS_MAX) else {
                return Ok(Transformed::no(node));
            };
            let whole = SortExec::new(sort.expr().clone(), Arc::clone(sort.input()));
            let whole = whole.with_preserve_partitioning(sort.preserve_partitioning());
            Ok(Transformed::yes(Arc::new(LocalLimitExec::new(Arc::new(whole), fetch)) as _))
        })
        .map(|transformed| transformed.data)
    }

    fn name(&self) -> &'static str {
        "windrow_sort_large_limits"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;
    use crate::session::{PlannerSession, SessionOptions};

    #[test]
    fn partitions_follow_slots_and_bytes() {
        let query = QueryConfig::default();
        let shape = ClusterShape { executors: 2, slots: 16 };
        assert_eq!(size(1_000, &query, shape), Sizing { partitions: 1, cut: false });
        assert_eq!(size(10 << 20, &query, shape), Sizing { partitions: 3, cut: true });
        assert_eq!(size(10 << 30, &query, shape), Sizing { partitions: 16, cut: true });
        let forced = QueryConfig { partitions: 257, small_input: ByteSize::b(0), ..QueryConfig::default() };
        assert_eq!(size(0, &forced, shape), Sizing { partitions: 257, cut: true });
    }

    /// Once DataFusion plans it, the option may go.
    #[tokio::test]
    async fn fields_of_a_struct_are_read_beside_columns_of_one_origin() {
        let shape = ClusterShape { executors: 1, slots: 1 };
        let session = PlannerSession::new(SessionOptions::default()).unwrap();
        let view = "CREATE TEMPORARY VIEW v AS \
                    SELECT value AS id, named_struct('x', value, 'y', 'a') AS p, value AS z FROM generate_series(1, 3)";
        session.plan(view, shape).await.unwrap();
        let sql = "SELECT id, p['x'] AS x, p['y'] AS y FROM (SELECT id, p FROM v)";
        session.plan(sql, shape).await.unwrap();
        session.plan("SET datafusion.optimizer.enable_leaf_expression_pushdown = true", shape).await.unwrap();
        session.plan(sql, shape).await.unwrap_err();
    }
}
