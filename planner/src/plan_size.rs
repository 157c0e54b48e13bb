//! What of a plan would be computed while it is optimized, with the bounds of `budget.rs`: a text's are checked on the parsed statement,
//! and a plan that a client made has no text. Called by `substrait.rs` and `frames.rs`.

use std::ops::Deref;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use windrow_core::Result;

use crate::budget;
use crate::diagnose::ours;

/// Checks what would be computed while the plan is optimized: calls with literal arguments and regular expressions.
///
/// # Errors
/// `InvalidQuery`.
pub(crate) fn check(plan: &LogicalPlan) -> Result<(), DataFusionError> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| check_expression(part).map(|()| TreeNodeRecursion::Continue).map_err(ours))
        })
    })
    .map(drop)
}

fn check_expression(expression: &Expr) -> Result<()> {
    match expression {
        Expr::ScalarFunction(call) => {
            let name = call.func.name();
            let numbers: Vec<_> = call.args.iter().map(number).collect();
            budget::made(name, &numbers)?;
            let pattern = call.args.get(1).filter(|_argument| name.starts_with("regexp_"));
            pattern.map_or(Ok(()), check_pattern)
        }
        Expr::SimilarTo(like) => check_pattern(&like.pattern),
        Expr::BinaryExpr(binary) if is_match(binary.op) => check_pattern(&binary.right),
        _ => Ok(()),
    }
}

fn is_match(operator: Operator) -> bool {
    use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
    matches!(operator, RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch)
}

fn check_pattern(pattern: &Expr) -> Result<()> {
    let text = literal(pattern).and_then(|value| value.try_as_str()).flatten();
    budget::within("bytes in one regular expression", text.map_or(0, str::len), budget::PATTERN_BYTES_MAX)
}

fn number(argument: &Expr) -> Option<f64> {
    if let Expr::Negative(inner) = argument {
        return number(inner).map(|number| -number);
    }
    match literal(argument)?.cast_to(&DataType::Float64) {
        Ok(ScalarValue::Float64(number)) => number,
        _ => None,
    }
}

/// The literal that an expression is, whatever type it is cast to.
fn literal(expression: &Expr) -> Option<&ScalarValue> {
    match expression {
        Expr::Literal(value, _) => Some(value),
        Expr::Cast(cast) => literal(cast.expr.deref()),
        Expr::TryCast(cast) => literal(cast.expr.deref()),
        _ => None,
    }
}
