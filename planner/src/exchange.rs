//! Fourth arrow: where rows must change partition, and the repairs that make a plan safe to divide there. Next: `stages.rs`.

use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode, SortMergeJoinExec};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, Partitioning, ReplaceChildrenOptions, collect_partitioned,
};
use windrow_core::Error;

use crate::diagnose::ours;
use crate::physical::may_broadcast_build;

/// What a node means for the division into stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Rows of its only child change partition by hash.
    Hash,
    /// Rows of its only child come together in one partition.
    Merge,
    /// Its first child is read whole by every partition of its second.
    BroadcastLeft,
    /// Its only child is already divided well enough.
    Drop,
    /// It and all below it stay in one task.
    Keep,
    /// No rows change partition here.
    None,
}

/// Finds the mark of a node.
///
/// # Errors
/// `Unsupported`, naming the partitioning, for an exchange that cannot be cut.
pub(crate) fn mark(node: &Arc<dyn ExecutionPlan>) -> Result<Mark> {
    if let Some(repartition) = node.downcast_ref::<RepartitionExec>() {
        return match repartition.partitioning() {
            Partitioning::Hash(..) => Ok(Mark::Hash),
            Partitioning::RoundRobinBatch(_) => Ok(Mark::Drop),
            other => Err(ours(Error::unsupported(format!("an exchange by {other}")))),
        };
    }
    if node.is::<RecursiveQueryExec>() {
        return Ok(Mark::Keep);
    }
    let merges = node.is::<CoalescePartitionsExec>() || node.is::<SortPreservingMergeExec>();
    if merges && node.children().iter().any(|child| partitions(child) > 1) {
        return Ok(Mark::Merge);
    }
    let collects = node.is::<CrossJoinExec>()
        || node.is::<NestedLoopJoinExec>()
        || node.downcast_ref::<HashJoinExec>().is_some_and(|join| *join.partition_mode() == PartitionMode::CollectLeft);
    let spread = node.children().get(1).is_some_and(|right| partitions(right) > 1);
    Ok(if collects && spread { Mark::BroadcastLeft } else { Mark::None })
}

pub(crate) fn partitions(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.output_partitioning().partition_count()
}

/// The same node over other children.
pub(crate) fn with_children(
    node: Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    node.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// Gives one right partition to every join that collects its left side and may emit, or mark, left rows: with several, each task
/// would emit the left rows that *it* found no partner for.
///
/// The nested loop join of these types, and the null-aware hash join, have no other form. Their output partitioning is unknown, so
/// nothing above relies on their partition count.
pub(crate) fn single_right_side(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let join_type = match (node.downcast_ref::<NestedLoopJoinExec>(), node.downcast_ref::<HashJoinExec>()) {
            (Some(join), _) => *join.join_type(),
            (_, Some(join)) if *join.partition_mode() == PartitionMode::CollectLeft => *join.join_type(),
            _ => return Ok(Transformed::no(node)),
        };
        let children: Vec<_> = node.children().into_iter().map(Arc::clone).collect();
        let [left, right] = children.as_slice() else { return Ok(Transformed::no(node)) };
        if may_broadcast_build(join_type) || partitions(right) == 1 {
            return Ok(Transformed::no(node));
        }
        let right: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(Arc::clone(right)));
        with_children(Arc::clone(&node), vec![Arc::clone(left), right]).map(Transformed::yes)
    })
    .map(|transformed| transformed.data)
}

/// Lets every join hand its thread back between batches. A join that makes thousands of batches of one input batch never waits for
/// its input meanwhile, and an aggregate above it asks on and on within one poll: a cancelled attempt would not notice.
pub(crate) fn yield_after_joins(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let joins = node.is::<HashJoinExec>()
            || node.is::<NestedLoopJoinExec>()
            || node.is::<CrossJoinExec>()
            || node.is::<SortMergeJoinExec>();
        Ok(if joins {
            Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)
        } else {
            Transformed::no(node)
        })
    })
    .map(|transformed| transformed.data)
}

/// Replaces what exists only in the coordinator, the tables of the information schema, by their rows.
pub(crate) async fn materialize_catalog(
    plan: Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut leaves = Vec::new();
    plan.apply(|node| {
        if node.is::<StreamingTableExec>() {
            leaves.push(Arc::clone(node));
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    if leaves.is_empty() {
        return Ok(plan);
    }
    let mut rows: Vec<Vec<Vec<RecordBatch>>> = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        rows.push(collect_partitioned(leaf, Arc::clone(context)).await?);
    }
    let mut rows = rows.into_iter();
    plan.transform_down(|node| {
        if !node.is::<StreamingTableExec>() {
            return Ok(Transformed::no(node));
        }
        let batches = rows.next().unwrap_or_default();
        let memory: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&batches, node.schema(), None)?;
        Ok(Transformed::yes(memory))
    })
    .map(|transformed| transformed.data)
}
