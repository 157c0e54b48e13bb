//! Where a runtime filter may stand: follows a column of a plan down to the scans that it comes from, as long as dropping rows there
//! drops just the rows above that have the same value.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{JoinSide, JoinType};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::buffer::BufferExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::joins::utils::build_join_schema;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};

use super::apply::RuntimeFilterExec;
use crate::exchange::{Mark, mark, with_children};

/// Whether a join of this type gives the same rows if right rows without a partner are gone.
pub(crate) fn may_filter_right(join: JoinType) -> bool {
    matches!(
        join,
        JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark | JoinType::RightSemi
    )
}

/// Whether a join of this type gives the same rows if left rows without a partner are gone.
pub(crate) fn may_filter_left(join: JoinType) -> bool {
    matches!(
        join,
        JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark | JoinType::LeftSemi
    )
}

/// Whether something in `plan` drops rows, so that its keys are worth passing on.
pub(crate) fn reduces(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    plan.exists(|node| {
        let semi = node.downcast_ref::<HashJoinExec>().is_some_and(|join| {
            matches!(join.join_type(), JoinType::LeftSemi | JoinType::RightSemi | JoinType::LeftAnti | JoinType::RightAnti)
        });
        Ok(node.is::<FilterExec>() || node.is::<RuntimeFilterExec>() || semi || node.fetch().is_some())
    })
}

/// How far a scan is from the join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Its rows pass an exchange on their way, or are collected for another join: to drop them saves that.
    Far,
    /// Its rows come to the join at once, which drops them itself.
    Near,
}

/// What stands at a scan instead of it, told the places of the columns there, and how far the scan is from the join.
pub(crate) type Wrap<'a> = dyn FnMut(Arc<dyn ExecutionPlan>, &[usize], Reach) -> Result<Arc<dyn ExecutionPlan>> + 'a;

/// The plan with `wrap` around the scans that `columns` come from. The same `Arc` if there are none.
pub(crate) fn place(plan: &Arc<dyn ExecutionPlan>, columns: &[usize], wrap: &mut Wrap<'_>) -> Result<Arc<dyn ExecutionPlan>> {
    descend(plan, columns, Reach::Near, wrap)
}

fn descend(
    plan: &Arc<dyn ExecutionPlan>,
    columns: &[usize],
    reach: Reach,
    wrap: &mut Wrap<'_>,
) -> Result<Arc<dyn ExecutionPlan>> {
    if is_scan(plan) {
        return wrap(Arc::clone(plan), columns, reach);
    }
    let children = plan.children();
    let mut placed = Vec::with_capacity(children.len());
    let mut found = false;
    for (index, child) in children.into_iter().enumerate() {
        let new = match below(plan, index, columns) {
            Some(columns) => {
                let reach = if moves_rows(plan) || (plan.is::<HashJoinExec>() && index == 0) { Reach::Far } else { reach };
                descend(child, &columns, reach, wrap)?
            }
            None => Arc::clone(child),
        };
        found |= !Arc::ptr_eq(&new, child);
        placed.push(new);
    }
    if found { with_children(Arc::clone(plan), placed) } else { Ok(Arc::clone(plan)) }
}

/// A scan with nothing but filters and projections above it: a filter stands above them, for the user's own predicate is cheaper.
fn is_scan(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if plan.is::<DataSourceExec>() {
        return true;
    }
    let thin =
        plan.is::<FilterExec>() || plan.is::<ProjectionExec>() || plan.is::<CooperativeExec>() || plan.is::<RuntimeFilterExec>();
    thin && plan.fetch().is_none() && plan.children().last().is_some_and(|child| is_scan(child))
}

fn moves_rows(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>() || plan.is::<SortPreservingMergeExec>()
}

/// The columns of child `index` that `columns` of `plan` are, if a row of the child matters only to rows with the same values.
pub(super) fn below(plan: &Arc<dyn ExecutionPlan>, index: usize, columns: &[usize]) -> Option<Vec<usize>> {
    if plan.fetch().is_some() {
        return None;
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return below_join(join, if index == 0 { JoinSide::Left } else { JoinSide::Right }, columns);
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let groups = aggregate.group_expr();
        let plain = groups.is_single() && aggregate.limit_options().is_none();
        return plain.then(|| columns.iter().map(|at| column(&groups.expr().get(*at)?.0)).collect())?;
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return columns.iter().map(|at| column(&projection.expr().get(*at)?.expr)).collect();
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        return columns.iter().map(|at| projected(filter.projection().as_deref(), *at)).collect();
    }
    let same = moves_rows(plan)
        || plan.is::<CooperativeExec>()
        || plan.is::<BufferExec>()
        || plan.is::<SortExec>()
        || plan.is::<UnionExec>()
        || plan.is::<InterleaveExec>()
        || (plan.is::<RuntimeFilterExec>() && index == 1);
    same.then(|| columns.to_vec())
}

/// A column of a join is one of its side's rows, and also the other side's key if it is a key: rows with other keys find no partner
/// among the rows that matter. Null-aware joins also look at rows without a partner.
fn below_join(join: &HashJoinExec, side: JoinSide, columns: &[usize]) -> Option<Vec<usize>> {
    if join.null_aware {
        return None;
    }
    let one = |(from, index): (JoinSide, usize)| {
        if from == side {
            return Some(index);
        }
        join.on().iter().find_map(|(left, right)| {
            let (here, there) = if from == JoinSide::Left { (left, right) } else { (right, left) };
            (column(here)? == index).then(|| column(there))?
        })
    };
    sources(join, columns)?.into_iter().map(one).collect()
}

/// Which columns of its sides `columns` of a join are, if none of them is a side's that nulls stand for.
fn sources(join: &HashJoinExec, columns: &[usize]) -> Option<Vec<(JoinSide, usize)>> {
    use JoinType::{Full, Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
    let (_, places) = build_join_schema(&join.left().schema(), &join.right().schema(), join.join_type());
    let one = |at: &usize| {
        let place = places.get(projected(join.projection.as_deref(), *at)?)?;
        let whole = match join.join_type() {
            Inner => place.side != JoinSide::None,
            Left | LeftSemi | LeftAnti | LeftMark => place.side == JoinSide::Left,
            Right | RightSemi | RightAnti | RightMark => place.side == JoinSide::Right,
            Full => false,
        };
        whole.then_some((place.side, place.index))
    };
    columns.iter().map(one).collect()
}

/// A plan and columns of its rows.
pub(crate) type Columns = (Arc<dyn ExecutionPlan>, Vec<usize>);

/// The nearest hash exchange below `plan` through which every value of `columns` came, and the columns of its rows that they are.
pub(crate) fn origin(plan: &Arc<dyn ExecutionPlan>, columns: &[usize]) -> Result<Option<Columns>> {
    if mark(plan)? == Mark::Hash {
        return Ok(Some((Arc::clone(plan), columns.to_vec())));
    }
    for (index, child) in plan.children().into_iter().enumerate() {
        if let Some(columns) = values_below(plan, index, columns)
            && let Some(found) = origin(child, &columns)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The columns of child `index` that have every value of `columns`.
fn values_below(plan: &Arc<dyn ExecutionPlan>, index: usize, columns: &[usize]) -> Option<Vec<usize>> {
    if plan.is::<UnionExec>() || plan.is::<InterleaveExec>() {
        return None;
    }
    let Some(join) = plan.downcast_ref::<HashJoinExec>() else { return below(plan, index, columns) };
    let side = if index == 0 { JoinSide::Left } else { JoinSide::Right };
    sources(join, columns)?.into_iter().map(|(from, index)| (from == side).then_some(index)).collect()
}

fn projected(projection: Option<&[usize]>, at: usize) -> Option<usize> {
    match projection {
        Some(projection) => projection.get(at).copied(),
        None => Some(at),
    }
}

/// The place of a column that is nothing more.
pub(crate) fn column(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}
