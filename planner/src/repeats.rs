//! Proves for each stage what may be run again beside older siblings (`windrow_core::stage::Repeats`).

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use windrow_core::stage::Repeats;

use crate::python::{PythonMapExec, PythonStyle};
use crate::stage_input::StageInputExec;

/// The class of a stage's plan. Rows of a stage input arrive in another order in another run, so whatever picks rows by their order
/// of arrival varies; over files alone that order is fixed.
pub(crate) fn repeats(plan: &Arc<dyn ExecutionPlan>) -> Result<Repeats> {
    if any_volatile(plan)? {
        return Ok(Repeats::Varying);
    }
    let reads_stages = plan.exists(|node| Ok(node.is::<StageInputExec>()))?;
    let moves_rows = plan.exists(|node| Ok(node.is::<RepartitionExec>() || node.is::<CoalescePartitionsExec>()))?;
    if (reads_stages || moves_rows) && plan.exists(|node| Ok(picks_by_arrival(node)))? {
        return Ok(Repeats::Varying);
    }
    let spread = plan.output_partitioning().partition_count() > 1;
    Ok(if spread && plan.exists(|node| Ok(node.is::<RepartitionExec>()))? { Repeats::AsSlice } else { Repeats::Repeatable })
}

fn any_volatile(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    plan.exists(|node| {
        let mut volatile = node.downcast_ref::<PythonMapExec>().is_some_and(|map| !map.function().deterministic);
        node.apply_expressions(&mut |expr| {
            volatile |= is_volatile(expr);
            Ok(if volatile { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        Ok(volatile)
    })
}

/// Whether which rows come out, or their values, depends on the order in which rows of equal rank arrive: limits, the first k of a
/// sort with ties, ranks and frames over ties, aggregates that keep an order, Python functions that see which rows are together.
fn picks_by_arrival(node: &Arc<dyn ExecutionPlan>) -> bool {
    if node.is::<GlobalLimitExec>()
        || node.is::<LocalLimitExec>()
        || node.is::<WindowAggExec>()
        || node.is::<BoundedWindowAggExec>()
    {
        return true;
    }
    if let Some(map) = node.downcast_ref::<PythonMapExec>() {
        return map.function().style == PythonStyle::Batches;
    }
    if node.is::<SortExec>() || node.is::<CoalescePartitionsExec>() {
        return node.fetch().is_some();
    }
    node.downcast_ref::<AggregateExec>().is_some_and(|aggregate| {
        aggregate.aggr_expr().iter().any(|call| {
            call.order_sensitivity() != datafusion::logical_expr::utils::AggregateOrderSensitivity::Insensitive
                || call.fun().name().starts_with("approx_")
        })
    })
}
