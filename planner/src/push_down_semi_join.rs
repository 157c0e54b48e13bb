//! A rule of the logical optimizer: semi and anti joins go below the joins that do not need them.
//!
//! `x IN (SELECT ...)` becomes a semi join above all joins of its query. Where those joins only multiply rows, testing first is
//! cheaper:
//!
//! ```text
//! LeftSemi o.key = r.key               Inner o.key = l.key
//!   Inner o.key = l.key        --->      LeftSemi o.key = r.key
//!     scan orders o                        scan orders o
//!     scan lineitem l                      subquery r
//!   subquery r                           scan lineitem l
//! ```
//!
//! Where the other side of a join drops rows itself, the order is left as it is: nobody knows which of the two drops more.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, Result};
use datafusion::logical_expr::logical_plan::{Join, Projection, SubqueryAlias};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, Optimizer, OptimizerConfig, OptimizerRule};

/// DataFusion's rules with this one before the last, which drops columns that are no longer needed above.
pub(crate) fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let last = rules.len().saturating_sub(1);
    rules.insert(last, Arc::new(PushDownSemiJoin));
    rules
}

#[derive(Debug)]
struct PushDownSemiJoin;

impl OptimizerRule for PushDownSemiJoin {
    fn name(&self) -> &'static str {
        "windrow_push_down_semi_join"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(join) = &plan else { return Ok(Transformed::no(plan)) };
        let plain = matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
            && !join.null_aware
            && join.filter.is_none()
            && !join.on.is_empty();
        let keys: Option<Vec<Column>> = join.on.iter().map(|(left, _)| left.try_as_col().cloned()).collect();
        match keys.filter(|_| plain) {
            Some(keys) => Ok(match push(&join.left, keys, join)? {
                Some(pushed) => Transformed::yes(pushed),
                None => Transformed::no(plan),
            }),
            None => Ok(Transformed::no(plan)),
        }
    }
}

/// `plan` with `semi`, by these columns of `plan`, below at least one of its joins; `None` if it can go below none.
fn push(plan: &Arc<LogicalPlan>, keys: Vec<Column>, semi: &Join) -> Result<Option<LogicalPlan>> {
    let pushed = match plan.as_ref() {
        LogicalPlan::Join(join) => {
            let Some(side) = side(join, &keys)? else { return Ok(None) };
            let child = if side == Side::Left { &join.left } else { &join.right };
            let child = Arc::new(match push(child, keys.clone(), semi)? {
                Some(deeper) => deeper,
                None => with_left(semi, Arc::clone(child), keys)?,
            });
            let join = join.clone();
            Some(LogicalPlan::Join(if side == Side::Left { Join { left: child, ..join } } else { Join { right: child, ..join } }))
        }
        LogicalPlan::Projection(projection) => {
            let below = |key: &Column| {
                let expr = projection.expr.get(projection.schema.maybe_index_of_column(key)?)?;
                expr.clone().unalias_nested().data.try_as_col().cloned()
            };
            match keys.iter().map(below).collect() {
                Some(keys) => push(&projection.input, keys, semi)?
                    .map(|input| {
                        Projection::try_new_with_schema(projection.expr.clone(), Arc::new(input), Arc::clone(&projection.schema))
                    })
                    .transpose()?
                    .map(LogicalPlan::Projection),
                None => None,
            }
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let below = |key: &Column| {
                let (qualifier, field) = alias.input.schema().qualified_field(alias.schema.maybe_index_of_column(key)?);
                Some(Column::new(qualifier.cloned(), field.name()))
            };
            match keys.iter().map(below).collect() {
                Some(keys) => push(&alias.input, keys, semi)?
                    .map(|input| SubqueryAlias::try_new(Arc::new(input), alias.alias.clone()))
                    .transpose()?
                    .map(LogicalPlan::SubqueryAlias),
                None => None,
            }
        }
        _ => None,
    };
    Ok(pushed)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// The side that all of `keys` come from, if its rows may be tested first and the other side drops none.
fn side(join: &Join, keys: &[Column]) -> Result<Option<Side>> {
    let all_of = |plan: &LogicalPlan| keys.iter().all(|key| plan.schema().has_column(key));
    let side = match join.join_type {
        JoinType::Inner | JoinType::Left if all_of(&join.left) => Side::Left,
        JoinType::Inner | JoinType::Right if all_of(&join.right) => Side::Right,
        _ => return Ok(None),
    };
    let other = if side == Side::Left { &join.right } else { &join.left };
    Ok((join.filter.is_none() && !drops_rows(other)?).then_some(side))
}

fn drops_rows(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| {
        Ok(match node {
            LogicalPlan::Filter(_) | LogicalPlan::Limit(_) => true,
            LogicalPlan::TableScan(scan) => !scan.filters.is_empty() || scan.fetch.is_some(),
            LogicalPlan::Join(join) => {
                !matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full)
            }
            _ => false,
        })
    })
}

/// `semi` with another left side, whose columns `keys` take the place of its keys.
fn with_left(semi: &Join, left: Arc<LogicalPlan>, keys: Vec<Column>) -> Result<LogicalPlan> {
    let on = keys.into_iter().map(Expr::Column).zip(semi.on.iter().map(|(_, right)| right.clone())).collect();
    let right = Arc::clone(&semi.right);
    let join = Join::try_new(left, right, on, None, semi.join_type, semi.join_constraint, semi.null_equality, false)?;
    Ok(LogicalPlan::Join(join))
}
