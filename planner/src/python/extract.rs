//! Calls of Python functions in expressions become steps of the plan, before anything of it is optimized. Next: `node.rs`.
//!
//! ```text
//! SELECT fee(x) + 1 FROM t WHERE y > 3 AND ok(x)        Projection: python_0 + 1 AS "fee(t.x) + 1"
//!                                                         PythonMap: fee(x) AS python_0
//!                                                           Projection: t.x, t.y
//!                                                             Filter: python_0
//!                                                               PythonMap: ok(x) AS python_0
//!                                                                 Filter: y > 3
//!                                                                   t
//! ```
//!
//! A call is made for each row that reaches its step: CASE and AND do not spare it one. Of a group, a function gets lists, which
//! `array_agg` makes of its arguments.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Aggregate, Expr, Filter, LogicalPlan, Projection, Sort, SortExpr, Window};
use windrow_core::Error;

use super::{PythonFunction, PythonMap, aggregate_of, function_of, is_python};
use crate::diagnose::ours;

/// The plan with a step for each call.
///
/// # Errors
/// `Unsupported` for a call in a place from which it cannot be taken.
pub(crate) fn extract(plan: &LogicalPlan) -> Result<LogicalPlan> {
    if !has_calls_below(plan)? {
        return Ok(plan.clone());
    }
    let extracted = plan.clone().transform_up_with_subqueries(extract_from)?.data;
    if has_calls_below(&extracted)? { Err(misplaced("here")) } else { Ok(extracted) }
}

/// Whether a plan, with its subqueries, calls a Python function over rows or in an expression.
pub(crate) fn is_called_in(plan: &LogicalPlan) -> Result<bool> {
    let mut found = has_calls_below(plan)?;
    plan.apply_with_subqueries(|node| {
        found |= PythonMap::of(node).is_some();
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn has_calls_below(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= has_calls_in(node)?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn has_calls_in(node: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|expression| {
        found |= has_calls(expression);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn has_calls(expression: &Expr) -> bool {
    expression.exists(|part| Ok(is_python(part))).unwrap_or(true)
}

fn misplaced(place: &str) -> datafusion::error::DataFusionError {
    let error = Error::unsupported(format!("a Python function cannot be called {place}"));
    ours(error.with_help("compute it in a column of a subquery or an earlier step first"))
}

fn extract_from(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !has_calls_in(&node)? {
        return Ok(Transformed::no(node));
    }
    let extracted = match node {
        LogicalPlan::Filter(filter) => from_filter(filter)?,
        LogicalPlan::Projection(projection) => {
            let mut below = Below::new(projection.input);
            let columns = below.named(projection.expr)?;
            LogicalPlan::Projection(Projection::try_new(columns, below.input)?)
        }
        LogicalPlan::Aggregate(aggregate) => from_aggregate(aggregate)?,
        LogicalPlan::Window(window) => {
            let columns = columns_of(&LogicalPlan::Window(window.clone()));
            let mut below = Below::new(window.input);
            let functions = below.named(window.window_expr)?;
            only(columns, LogicalPlan::Window(Window::try_new(functions, below.input)?))?
        }
        LogicalPlan::Sort(sort) => {
            let columns = columns_of(&sort.input);
            let mut below = Below::new(sort.input);
            let keys = sort.expr.into_iter().map(|key| Ok(SortExpr { expr: below.rewrite(key.expr)?, ..key }));
            let expr = keys.collect::<Result<_>>()?;
            only(columns, LogicalPlan::Sort(Sort { expr, input: below.input, fetch: sort.fetch }))?
        }
        LogicalPlan::Join(_) => return Err(misplaced("in the condition of a join")),
        _ => return Err(misplaced("here")),
    };
    Ok(Transformed::yes(extracted))
}

/// Rows that other conditions drop are not sent to Python.
fn from_filter(filter: Filter) -> Result<LogicalPlan> {
    let columns = columns_of(&filter.input);
    let (calling, plain): (Vec<Expr>, Vec<Expr>) = split_conjunction_owned(filter.predicate).into_iter().partition(has_calls);
    let input = match conjunction(plain) {
        Some(plain) => Arc::new(LogicalPlan::Filter(Filter::try_new(plain, filter.input)?)),
        None => filter.input,
    };
    let mut below = Below::new(input);
    let calling = calling.into_iter().map(|condition| below.rewrite(condition)).collect::<Result<Vec<_>>>()?;
    let Some(calling) = conjunction(calling) else { return Err(misplaced("here")) };
    only(columns, LogicalPlan::Filter(Filter::try_new(calling, below.input)?))
}

/// Calls below aggregates, and functions of groups above lists.
fn from_aggregate(aggregate: Aggregate) -> Result<LogicalPlan> {
    let outputs = columns_of(&LogicalPlan::Aggregate(aggregate.clone()));
    if aggregate.group_expr.iter().any(|key| matches!(key, Expr::GroupingSet(_)) && has_calls(key)) {
        return Err(misplaced("in GROUPING SETS, CUBE or ROLLUP"));
    }
    let mut below = Below::new(aggregate.input);
    let keys = below.named(aggregate.group_expr)?;
    let (mut aggregates, mut groups) = (Vec::new(), Vec::new());
    for expression in aggregate.aggr_expr {
        let name = NamePreserver::new_for_projection().save(&expression);
        match of_groups(&expression) {
            None => aggregates.push(name.restore(below.rewrite(expression)?)),
            Some((function, call)) => {
                let mut lists = Vec::new();
                for argument in call.params.args.clone() {
                    let list = format!("python_list_{}", aggregates.len());
                    let mut params = call.params.clone();
                    params.args = vec![argument];
                    let made = Expr::AggregateFunction(AggregateFunction { func: array_agg_udaf(), params });
                    aggregates.push(below.rewrite(made)?.alias(&list));
                    lists.push(Expr::Column(Column::new_unqualified(list)));
                }
                groups.push((function, lists, expression.qualified_name().1));
            }
        }
    }
    let mut above = Arc::new(LogicalPlan::Aggregate(Aggregate::try_new(below.input, keys, aggregates)?));
    for (function, lists, output) in groups {
        above = Arc::new(PythonMap::column(above, function, lists, output)?);
    }
    only(outputs, Arc::unwrap_or_clone(above))
}

/// The function of groups that is called, whatever name the call has.
fn of_groups(expression: &Expr) -> Option<(Arc<PythonFunction>, &AggregateFunction)> {
    match expression {
        Expr::Alias(alias) => of_groups(&alias.expr),
        Expr::AggregateFunction(call) => aggregate_of(&call.func).map(|function| (Arc::clone(function), call)),
        _ => None,
    }
}

fn columns_of(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().iter().map(|(qualifier, field)| Expr::Column(Column::from((qualifier, field)))).collect()
}

/// These columns of the plan's.
fn only(columns: Vec<Expr>, plan: LogicalPlan) -> Result<LogicalPlan> {
    Projection::try_new(columns, Arc::new(plan)).map(LogicalPlan::Projection)
}

/// What is below a step, with what it has of calls so far.
struct Below {
    input: Arc<LogicalPlan>,
    made: Vec<(ScalarFunction, Column)>,
}

impl Below {
    fn new(input: Arc<LogicalPlan>) -> Self {
        Self { input, made: Vec::new() }
    }

    /// The expressions, without calls and with the names that they had.
    fn named(&mut self, expressions: Vec<Expr>) -> Result<Vec<Expr>> {
        let names = NamePreserver::new_for_projection();
        let rewritten = expressions.into_iter().map(|expression| {
            if !has_calls(&expression) {
                return Ok(expression);
            }
            let name = names.save(&expression);
            Ok(name.restore(self.rewrite(expression)?))
        });
        rewritten.collect()
    }

    /// The expression with a column in place of each call.
    fn rewrite(&mut self, expression: Expr) -> Result<Expr> {
        let rewritten = expression.transform_up(|part| match part {
            Expr::ScalarFunction(call) => match function_of(&call.func).cloned() {
                Some(function) => Ok(Transformed::yes(Expr::Column(self.column(function, call)?))),
                None => Ok(Transformed::no(Expr::ScalarFunction(call))),
            },
            part => Ok(Transformed::no(part)),
        })?;
        Ok(rewritten.data)
    }

    /// The column that holds what a call gives.
    fn column(&mut self, function: Arc<PythonFunction>, call: ScalarFunction) -> Result<Column> {
        let known = self.made.iter().find(|(made, _)| function.deterministic && *made == call);
        if let Some((_, column)) = known {
            return Ok(column.clone());
        }
        if call.args.iter().any(Expr::contains_outer) {
            return Err(misplaced("with columns of the query around its own"));
        }
        let name = (0..)
            .map(|number| format!("python_{number}"))
            .find(|name| !self.input.schema().has_column_with_unqualified_name(name));
        let name = name.ok_or_else(|| misplaced("here"))?;
        self.input = Arc::new(PythonMap::column(Arc::clone(&self.input), function, call.args.clone(), name.clone())?);
        let column = Column::new_unqualified(name);
        self.made.push((call, column.clone()));
        Ok(column)
    }
}
