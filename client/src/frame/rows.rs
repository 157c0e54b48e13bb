//! Which rows a frame has, and in which order. Next: `group.rs`.

use std::collections::HashSet;

use datafusion::functions_aggregate::count::count_all_window;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{
    Distinct, Expr, ExprFunctionExt, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Projection, Sort, SortExpr, lit,
};
use windrow_core::{Error, Result};

use super::expressions::{has_aggregate, over_all_rows};
use super::{DataFrame, col, fail};

/// Which of the rows stays that are equal in the columns that count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Keep {
    /// One of them.
    #[default]
    Any,
    /// The first in this order.
    First(Vec<SortExpr>),
    /// The last in this order.
    Last(Vec<SortExpr>),
    /// None: only rows stay that have no equal.
    None,
}

impl DataFrame {
    /// The rows for which `condition` is true. An aggregate in it is over all rows.
    ///
    /// # Errors
    /// `NotFound` for a column that is none, with the nearest; `InvalidQuery` for what is not true or false.
    pub fn filter(&self, condition: Expr) -> Result<Self> {
        self.check([&condition])?;
        let (input, conditions) = self.with_windows(vec![over_all_rows(condition)?])?;
        let is_wider = input.schema().fields().len() > self.plan.schema().fields().len();
        let condition = conditions.into_iter().next().map_or_else(|| lit(true), Expr::unalias);
        let filter = Filter::try_new(condition, input).map(LogicalPlan::Filter).map_err(fail)?;
        let plan = if is_wider {
            Projection::try_new(self.all(), filter.into()).map(LogicalPlan::Projection).map_err(fail)?
        } else {
            filter
        };
        self.then(plan, 3)
    }

    /// `count` rows, or all, after the first `offset`. Which ones these are is certain only after [`Self::sort`].
    ///
    /// # Errors
    /// None today.
    pub fn limit(&self, offset: usize, count: Option<usize>) -> Result<Self> {
        let plan = LogicalPlanBuilder::new_from_arc(self.shared()).limit(offset, count).and_then(LogicalPlanBuilder::build);
        self.then(plan.map_err(fail)?, 1)
    }

    /// The first rows.
    ///
    /// # Errors
    /// As [`Self::limit`].
    pub fn head(&self, count: usize) -> Result<Self> {
        self.limit(0, Some(count))
    }

    /// The last rows of a frame that is sorted.
    ///
    /// # Errors
    /// `Unsupported` if the last step is no sort: then no row is the last.
    pub fn tail(&self, count: usize) -> Result<Self> {
        let LogicalPlan::Sort(sort) = self.plan.as_ref() else {
            let error = Error::unsupported("the frame has no last rows, because it has no order");
            return Err(error.with_help("sort it first"));
        };
        let reversed = sort.expr.iter().map(SortExpr::reverse).collect();
        let backwards = self.then(sorted(LogicalPlan::clone(&sort.input), reversed), 0)?;
        backwards.limit(0, Some(count))?.sort(sort.expr.clone())
    }

    /// The rows in order. Keys have a direction and a place for nulls each: `col("a").sort(false, false)` is descending, nulls last.
    ///
    /// # Errors
    /// `NotFound` for a column that is none, with the nearest; `InvalidQuery` for what has no order.
    pub fn sort(&self, keys: Vec<SortExpr>) -> Result<Self> {
        if keys.is_empty() {
            return Ok(self.clone());
        }
        self.check(keys.iter().map(|key| &key.expr))?;
        let has_windows = !datafusion::logical_expr::utils::find_window_exprs(keys.iter().map(|key| &key.expr)).is_empty();
        if has_windows || keys.iter().any(|key| has_aggregate(&key.expr)) {
            return self.sort_by_windows(keys);
        }
        for key in &keys {
            key.expr.get_type(self.plan.schema().as_ref()).map_err(fail)?;
        }
        self.then(sorted(LogicalPlan::clone(&self.plan), keys), 1)
    }

    /// Keys that are not of each row by itself are columns first.
    fn sort_by_windows(&self, keys: Vec<SortExpr>) -> Result<Self> {
        let base = self.fresh("sort_key");
        let names: Vec<String> = (0..keys.len()).map(|index| self.fresh(&format!("{base}_{index}"))).collect();
        let columns = keys.iter().zip(&names).map(|(key, name)| key.expr.clone().unalias().alias(name));
        let with_keys = self.with_columns(columns.collect())?;
        let keys = keys.into_iter().zip(&names).map(|(key, name)| SortExpr { expr: col(name), ..key });
        with_keys.sort(keys.collect())?.drop_columns(&names)
    }

    /// The first `count` rows in this order.
    ///
    /// # Errors
    /// As [`Self::sort`].
    pub fn top_k(&self, count: usize, by: Vec<SortExpr>) -> Result<Self> {
        self.sort(by)?.head(count)
    }

    /// One row of those that are equal in `on`, or in all columns. Nulls are equal to each other.
    ///
    /// # Errors
    /// `NotFound` for a column that is none, with the nearest; `InvalidQuery` for what has no order.
    pub fn distinct(&self, on: Option<Vec<Expr>>, keep: Keep) -> Result<Self> {
        let on = match (on, &keep) {
            // Rows that are equal in all columns cannot be told from each other.
            (None, Keep::Any | Keep::First(_) | Keep::Last(_)) => {
                return self.then(LogicalPlan::Distinct(Distinct::All(self.shared())), 1);
            }
            (None, Keep::None) => self.all(),
            (Some(on), _) => on,
        };
        self.check(&on)?;
        let window = match keep {
            Keep::None => count_all_window().partition_by(on),
            Keep::Any => row_number().partition_by(on),
            Keep::First(order) => row_number().partition_by(on).order_by(order),
            Keep::Last(order) => row_number().partition_by(on).order_by(order.iter().map(SortExpr::reverse).collect()),
        };
        let name = self.fresh("row_of_group");
        let window = window.build().map_err(fail)?.alias(&name);
        self.with_columns(vec![window])?.filter(col(&name).eq(lit(1)))?.drop_columns(&[name])
    }

    /// The rows without nulls in these columns, or in any.
    ///
    /// # Errors
    /// `NotFound` for a column that is none, with the nearest.
    pub fn drop_nulls(&self, columns: Option<&[String]>) -> Result<Self> {
        let columns = columns.map_or_else(|| self.columns(), <[String]>::to_vec);
        let columns: HashSet<String> = columns.into_iter().collect();
        columns.iter().try_for_each(|column| self.check_column(column))?;
        // In the frame's order, so that a plan is the same each time.
        let all_there = self.columns().into_iter().filter(|name| columns.contains(name)).map(|name| col(name).is_not_null());
        match all_there.reduce(Expr::and) {
            Some(condition) => self.filter(condition),
            None => Ok(self.clone()),
        }
    }
}

fn sorted(plan: LogicalPlan, keys: Vec<SortExpr>) -> LogicalPlan {
    LogicalPlan::Sort(Sort { expr: keys, input: plan.into(), fetch: None })
}
