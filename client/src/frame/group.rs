//! Groups of rows, and what is made of each. Next: `join.rs`.

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::find_aggregate_exprs;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, lit};
use windrow_core::Result;

use super::expressions::{check_of_rows, check_unique, has_aggregate, name_of, named, outside_of_aggregates};
use super::{DataFrame, ScalarValue, col, fail, invalid};

/// How [`DataFrame::pivot`] turns values into columns.
#[derive(Debug, Clone)]
pub struct Pivot {
    /// What stays as rows: a row for each value of these.
    pub keys: Vec<Expr>,
    /// Whose values become columns.
    pub on: Expr,
    /// Those values that do, each with its column's name. A frame has to know its columns before it runs.
    pub values: Vec<(ScalarValue, String)>,
    /// What is in the columns, of the rows that have the value. Of several, each adds its own name to the value's.
    pub aggregates: Vec<Expr>,
}

impl DataFrame {
    /// A row for each group of equal `keys`, with the keys and these aggregates; without keys, one row. Nulls are equal to each other.
    ///
    /// # Errors
    /// `NotFound` for a column that is none, with the nearest; `InvalidQuery` for a column that is neither a key nor in an aggregate,
    /// and for types that do not fit.
    pub fn aggregate(&self, keys: Vec<Expr>, values: Vec<Expr>) -> Result<Self> {
        self.check(keys.iter().chain(&values))?;
        keys.iter().try_for_each(|key| check_of_rows(key, "a key"))?;
        let outputs: Vec<Expr> = keys.iter().chain(&values).cloned().collect();
        check_unique(&outputs)?;
        if keys.is_empty() && values.is_empty() {
            return Err(invalid("neither keys nor aggregates are given"));
        }
        let keys: Vec<Expr> = keys.into_iter().map(Expr::unalias).collect();
        let aggregates = find_aggregate_exprs(&values);
        let outputs = outputs.into_iter().map(|output| over_groups(output, &keys)).collect::<Result<Vec<_>>>()?;
        let mut groups = Vec::with_capacity(keys.len());
        for key in keys {
            if !groups.contains(&key) {
                groups.push(key);
            }
        }
        let plan = if aggregates.is_empty() && groups.is_empty() {
            LogicalPlan::clone(&self.plan)
        } else {
            Aggregate::try_new(self.shared(), groups, aggregates).map(LogicalPlan::Aggregate).map_err(fail)?
        };
        let plan = Projection::try_new(outputs, plan.into()).map(LogicalPlan::Projection).map_err(fail)?;
        self.then(plan, 2)
    }

    /// A column for each of some values: what is in it is aggregated over the rows that have the value.
    ///
    /// # Errors
    /// As [`Self::aggregate`]; `InvalidQuery` without values or aggregates.
    pub fn pivot(&self, pivot: Pivot) -> Result<Self> {
        let Pivot { keys, on, values, aggregates } = pivot;
        if values.is_empty() || aggregates.is_empty() {
            return Err(invalid("a pivot needs the values that become columns, and what is in them"));
        }
        self.check([&on])?;
        let mut columns = Vec::with_capacity(values.len() * aggregates.len());
        for (value, name) in values {
            let is_value = if value.is_null() { on.clone().is_null() } else { on.clone().eq(lit(value)) };
            for aggregate in &aggregates {
                if !has_aggregate(aggregate) || outside_of_aggregates(aggregate).is_some() {
                    return Err(invalid(format!("'{}' is not made of aggregates alone", name_of(aggregate))));
                }
                let name = if aggregates.len() == 1 { name.clone() } else { format!("{name}_{}", name_of(aggregate)) };
                columns.push(only_where(aggregate.clone().unalias(), &is_value)?.alias(name));
            }
        }
        self.aggregate(keys, columns)
    }
}

/// An output of an aggregation over the columns that the aggregation makes, which are named as what they are made of.
fn over_groups(output: Expr, keys: &[Expr]) -> Result<Expr> {
    let name = name_of(&output);
    let mut loose = None;
    let columns = output.transform_down(|part| {
        Ok(match part {
            part if keys.contains(&part) => Transformed::new(col(name_of(&part)), true, TreeNodeRecursion::Jump),
            Expr::AggregateFunction(_) => Transformed::new(col(name_of(&part)), true, TreeNodeRecursion::Jump),
            Expr::Column(column) => {
                loose.get_or_insert_with(|| column.name.clone());
                Transformed::no(Expr::Column(column))
            }
            part => Transformed::no(part),
        })
    });
    let columns = columns.data().map_err(fail)?;
    if let Some(loose) = loose {
        let error = invalid(format!("the column '{loose}' is neither a key nor in an aggregate"));
        return Err(error.with_help("add it to the keys, or take one of its values: first_value, min, array_agg"));
    }
    Ok(named(columns, name))
}

/// The expression with each of its aggregates over the rows alone for which `condition` is true.
fn only_where(expression: Expr, condition: &Expr) -> Result<Expr> {
    let filtered = expression.transform_down(|part| {
        Ok(match part {
            Expr::AggregateFunction(mut aggregate) => {
                let filter = match aggregate.params.filter.take() {
                    Some(filter) => filter.and(condition.clone()),
                    None => condition.clone(),
                };
                aggregate.params.filter = Some(Box::new(filter));
                Transformed::new(Expr::AggregateFunction(aggregate), true, TreeNodeRecursion::Jump)
            }
            part => Transformed::no(part),
        })
    });
    filtered.data().map_err(fail)
}
