//! Joins that fit: DataFusion's hash join holds its build side in memory and fails when that is refused. Next: `exec.rs`.
//!
//! Here each hash join of an attempt first collects its build side under a reservation. A build side that fits is handed to
//! DataFusion's join as it is. One that does not is written to disk with the probe side, both divided by a second hash (the Grace hash
//! join of Kitsuregawa, Tanaka and Moto-oka, 1983), and joined piece by piece:
//!
//! ```text
//! piece                                          is joined
//! one side fits (the build side, else the other)  by DataFusion's hash join, that side collected
//! neither fits                                    after another division, by another hash
//! neither fits and division does not help:        block by block: as much of one side as fits, against all of the other
//!   one key has most of the rows
//! ```
//!
//! Rows with equal keys are in the same piece, so every piece is a join of its own, of the same type, with the same filter. A block
//! is not: rows of the other side may find their partner in another block. So blocks are cut from the side whose unmatched rows
//! matter, and a full join becomes a left join and an anti join of the other side.
//!
//! DataFusion's cross join does not spill either; its nested loop join does, and without a condition it is the same.

mod build;
mod exec;
mod leaves;
mod pieces;
mod split;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};

use exec::GraceHashJoinExec;

use crate::spill::SpillDir;

/// `plan` with every hash join and cross join replaced by one that fits: the same rows, columns and partitions, and children at the same places.
///
/// # Errors
/// DataFusion's, if a node cannot be rebuilt.
pub(crate) fn with_joins_that_fit(plan: Arc<dyn ExecutionPlan>, spill: &Arc<SpillDir>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        Ok(match (node.downcast_ref::<HashJoinExec>(), node.downcast_ref::<CrossJoinExec>()) {
            (Some(join), _) => Transformed::yes(Arc::new(GraceHashJoinExec::try_new(join, spill)?) as Arc<dyn ExecutionPlan>),
            (_, Some(join)) => {
                let (left, right) = (Arc::clone(join.left()), Arc::clone(join.right()));
                Transformed::yes(Arc::new(NestedLoopJoinExec::try_new(left, right, None, &JoinType::Inner, None)?))
            }
            (None, None) => Transformed::no(node),
        })
    })
    .map(|transformed| transformed.data)
}
