//! What columns are computed of: expressions over a frame's columns, checked before a plan is made of them. Next: `columns.rs`.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, TableReference};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::utils::find_window_exprs;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Projection, SortExpr, WindowFrame, WindowFunctionDefinition,
};
use windrow_core::{Error, Result};

use super::{DataFrame, fail, invalid, no_column};

/// The column of this name, as it is: dots, spaces and upper case belong to it.
///
/// ```
/// use windrow::frame::col;
/// assert_eq!(col("Fare per Mile").to_string(), "Fare per Mile");
/// ```
pub fn col(name: impl Into<String>) -> Expr {
    Expr::Column(Column::from_name(name))
}

/// What a join's condition calls the column `name` of the frame on its left.
pub fn left(name: impl Into<String>) -> Expr {
    Expr::Column(Column::new(Some(TableReference::bare(LEFT)), name))
}

/// What a join's condition calls the column `name` of the frame on its right.
pub fn right(name: impl Into<String>) -> Expr {
    Expr::Column(Column::new(Some(TableReference::bare(RIGHT)), name))
}

/// An expression whose aggregates and window functions are over windows: rows with equal `partition_by`, in this order. Without a frame,
/// a window is all of them, or with an order those up to each row.
///
/// ```
/// use windrow::frame::{col, functions::sum, over};
/// # fn main() -> windrow::Result<()> {
/// let so_far = over(sum(col("fare")), vec![col("zone")], vec![col("day").sort(true, false)], None)?;
/// assert!(so_far.to_string().contains("PARTITION BY [zone]"));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `InvalidQuery` for an expression without any.
pub fn over(expression: Expr, partition_by: Vec<Expr>, order_by: Vec<SortExpr>, frame: Option<WindowFrame>) -> Result<Expr> {
    let name = name_of(&expression);
    let mut found = false;
    let windows = expression.transform_down(|part| {
        let mut window = match part {
            Expr::AggregateFunction(aggregate) => windowed(aggregate),
            Expr::WindowFunction(window) => Expr::WindowFunction(window),
            part => return Ok(Transformed::no(part)),
        };
        if let Expr::WindowFunction(window) = &mut window {
            window.params.partition_by.clone_from(&partition_by);
            window.params.order_by.clone_from(&order_by);
            window.params.window_frame =
                frame.clone().unwrap_or_else(|| WindowFrame::new(Some(false).filter(|_| !order_by.is_empty())));
        }
        found = true;
        Ok(Transformed::new(window, true, TreeNodeRecursion::Jump))
    });
    let windows = windows.data().map_err(fail)?;
    if found {
        Ok(windows)
    } else {
        Err(invalid(format!("'{name}' has neither an aggregate nor a window function to be over a window")))
    }
}

pub(super) const LEFT: &str = "left";
pub(super) const RIGHT: &str = "right";

/// The name of the column that an expression makes.
pub(super) fn name_of(expression: &Expr) -> String {
    expression.qualified_name().1
}

/// Refuses two columns of one name.
pub(super) fn check_unique(columns: &[Expr]) -> Result<()> {
    let mut names = HashSet::new();
    match columns.iter().map(name_of).find(|name| !names.insert(name.clone())) {
        None => Ok(()),
        Some(name) => {
            Err(invalid(format!("two columns would have the name '{name}'")).with_help("give one of them another alias"))
        }
    }
}

/// Whether an aggregate is in it, other than over a window.
pub(super) fn has_aggregate(expression: &Expr) -> bool {
    let mut found = false;
    let _infallible = expression.apply(|part| {
        Ok(match part {
            Expr::AggregateFunction(_) => {
                found = true;
                TreeNodeRecursion::Stop
            }
            Expr::WindowFunction(_) => TreeNodeRecursion::Jump,
            _ => TreeNodeRecursion::Continue,
        })
    });
    found
}

/// The first column, or window over columns, that is outside of all aggregates.
pub(super) fn outside_of_aggregates(expression: &Expr) -> Option<String> {
    let mut found = None;
    let _infallible = expression.apply(|part| {
        Ok(match part {
            Expr::AggregateFunction(_) => TreeNodeRecursion::Jump,
            Expr::Column(_) | Expr::WindowFunction(_) => {
                found = Some(name_of(part));
                TreeNodeRecursion::Stop
            }
            _ => TreeNodeRecursion::Continue,
        })
    });
    found
}

/// The expression with each aggregate over all rows, so that every row has its value. The name stays.
pub(super) fn over_all_rows(expression: Expr) -> Result<Expr> {
    if !has_aggregate(&expression) {
        return Ok(expression);
    }
    let name = name_of(&expression);
    let spread = expression.transform_down(|part| {
        Ok(match part {
            Expr::WindowFunction(_) => Transformed::new(part, false, TreeNodeRecursion::Jump),
            Expr::AggregateFunction(aggregate) => Transformed::new(windowed(aggregate), true, TreeNodeRecursion::Jump),
            part => Transformed::no(part),
        })
    });
    Ok(named(spread.data().map_err(fail)?, name))
}

fn windowed(aggregate: AggregateFunction) -> Expr {
    let AggregateFunction { func, params } = aggregate;
    let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = params;
    // With an order, the frame would end at each row.
    let window_frame = WindowFrame::new(None);
    let partition_by = Vec::new();
    let params = WindowFunctionParams { args, partition_by, order_by, window_frame, filter, null_treatment, distinct };
    Expr::WindowFunction(Box::new(WindowFunction { fun: WindowFunctionDefinition::AggregateUDF(func), params }))
}

/// The expression under this name.
pub(super) fn named(expression: Expr, name: String) -> Expr {
    if name_of(&expression) == name { expression } else { expression.unalias().alias(name) }
}

impl DataFrame {
    /// Refuses columns that the frame does not have.
    pub(super) fn check<'a>(&self, expressions: impl IntoIterator<Item = &'a Expr>) -> Result<()> {
        let missing = expressions.into_iter().find_map(|expression| {
            let mut missing = None;
            let _infallible = expression.apply(|part| {
                let Expr::Column(column) = part else { return Ok(TreeNodeRecursion::Continue) };
                if column.relation.is_none() && self.has(&column.name) {
                    return Ok(TreeNodeRecursion::Continue);
                }
                missing = Some(column.flat_name());
                Ok(TreeNodeRecursion::Stop)
            });
            missing
        });
        missing.map_or(Ok(()), |name| Err(no_column(&name, &self.columns())))
    }

    /// Rows of exactly these columns, whose aggregates are over all rows.
    pub(super) fn projected(&self, columns: Vec<Expr>) -> Result<LogicalPlan> {
        self.check(&columns)?;
        check_unique(&columns)?;
        let columns = columns.into_iter().map(over_all_rows).collect::<Result<Vec<_>>>()?;
        let (input, columns) = self.with_windows(columns)?;
        Projection::try_new(columns, input).map(LogicalPlan::Projection).map_err(fail)
    }

    /// The frame's plan with a column for each window in `expressions`, and these over such columns; names stay.
    pub(super) fn with_windows(&self, expressions: Vec<Expr>) -> Result<(Arc<LogicalPlan>, Vec<Expr>)> {
        let windows = find_window_exprs(&expressions);
        if windows.is_empty() {
            return Ok((Arc::clone(&self.plan), expressions));
        }
        if let Some(taken) = windows.iter().map(name_of).find(|name| self.has(name)) {
            let what = format!("a column is named '{taken}', as the window function that it was made with");
            return Err(invalid(what).with_help("rename the column first"));
        }
        let plan = LogicalPlanBuilder::window_plan(LogicalPlan::clone(&self.plan), windows).map_err(fail)?;
        let over = |expression: Expr| {
            let name = name_of(&expression);
            let columns = expression.transform_down(|part| {
                Ok(match part {
                    Expr::WindowFunction(_) => Transformed::new(col(name_of(&part)), true, TreeNodeRecursion::Jump),
                    part => Transformed::no(part),
                })
            });
            columns.data().map(|columns| named(columns, name))
        };
        let expressions = expressions.into_iter().map(over).collect::<Result<Vec<_>, _>>().map_err(fail)?;
        Ok((Arc::new(plan), expressions))
    }
}

/// Refuses an expression where one without aggregates and windows is meant.
pub(super) fn check_of_rows(expression: &Expr, place: &str) -> Result<()> {
    if has_aggregate(expression) || !find_window_exprs([expression]).is_empty() {
        let error: Error = invalid(format!("{place} is of each row by itself, and '{}' is not", name_of(expression)));
        return Err(error.with_help("make it a column with with_columns first"));
    }
    Ok(())
}
