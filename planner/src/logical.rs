//! Second arrow: a logical plan is optimized and made distributable. Next: `physical.rs`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{JoinType, Result, Spans};
use datafusion::execution::SessionState;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::logical_plan::{Join, Subquery};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit, when};

use crate::{origin, python};

/// Optimizes `plan` and rewrites what DataFusion can only run in one process.
pub(crate) fn optimize(plan: &LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    let optimized = state.optimize(&python::extract(plan)?)?;
    optimized.transform_up_with_subqueries(rewrite_not_in).map(|rewritten| rewritten.data)
}

/// The schema of the rows of `plan`, before and after it is optimized: types are coerced, and a column that could be null stays so,
/// whatever the optimizer finds out. A plain column of a table says which table that is.
pub(crate) fn schema(plan: &LogicalPlan, state: &SessionState) -> Result<SchemaRef> {
    let analyzed = state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {})?;
    Ok(origin::with_origins(analyzed.schema().as_arrow(), &analyzed, state))
}

/// Rewrites the null-aware anti join that `x NOT IN (SELECT y FROM r)` becomes. Its operator keeps what it saw of nulls in one
/// process, so it cannot be spread over tasks. The rewritten form counts first, as a scalar subquery:
///
/// ```text
/// v = SELECT CASE WHEN count(y) < count(*) THEN -1 ELSE count(*) END FROM r
/// FILTER v = 0 OR (v > 0 AND x IS NOT NULL)          -1: a null inside, so nothing is certain and no row passes
///   l LEFT ANTI JOIN r ON x = y                       0: the list is empty and every row passes
/// ```
///
/// A correlated form has a list for each outer row, which cannot be counted before; see [`anti_join_unless_known`].
fn rewrite_not_in(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(join) = plan else { return Ok(Transformed::no(plan)) };
    if !join.null_aware || join.join_type != JoinType::LeftAnti {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    // The pair of IN comes first; further pairs are the correlation.
    let Some(((outer, inner), correlation)) = join.on.split_first() else { return Ok(Transformed::no(LogicalPlan::Join(join))) };
    if join.filter.is_some() || !correlation.is_empty() {
        return anti_join_unless_known(join).map(Transformed::yes);
    }
    let (outer, inner) = (outer.clone(), inner.clone());

    let verdict = count_or_null_verdict(&join.right, inner)?;
    let passes = verdict.clone().eq(lit(0_i64)).or(verdict.gt(lit(0_i64)).and(outer.is_not_null()));
    let plain = LogicalPlan::Join(Join { null_aware: false, ..join });
    let filtered = LogicalPlanBuilder::from(plain).filter(passes)?.build()?;
    Ok(Transformed::yes(filtered))
}

/// A row passes a correlated NOT IN if no row of its list is equal or may be: the plain anti join whose filter lets a null on either
/// side match everything.
fn anti_join_unless_known(mut join: Join) -> Result<LogicalPlan> {
    let (outer, inner) = join.on.remove(0);
    let may_equal = outer.clone().eq(inner.clone()).or(outer.is_null()).or(inner.is_null());
    let filter = match join.filter.take() {
        Some(filter) => filter.and(may_equal),
        None => may_equal,
    };
    Ok(LogicalPlan::Join(Join { null_aware: false, filter: Some(filter), ..join }))
}

/// `(SELECT CASE WHEN count(y) < count(*) THEN -1 ELSE count(*) END FROM right)` as an expression.
fn count_or_null_verdict(right: &Arc<LogicalPlan>, y: Expr) -> Result<Expr> {
    let counted = LogicalPlanBuilder::from(LogicalPlan::clone(right))
        .aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias("n"), count(y).alias("known")])?;
    let n = datafusion::logical_expr::col("n");
    let known = datafusion::logical_expr::col("known");
    let verdict = when(known.lt(n.clone()), lit(-1_i64)).otherwise(n)?.alias("verdict");
    let subquery = counted.project(vec![verdict])?.build()?;
    Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(subquery), outer_ref_columns: vec![], spans: Spans::new() }))
}
