//! How much a client's plan may hold, and of what it is made: the figures of `../budget.rs`. Next: `wire.rs`.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};
use windrow_core::Error;

use crate::diagnose::ours;
use crate::python::PythonMap;
use crate::{budget, plan_size};

/// Steps of a plan over each other. DataFusion recurses by them, and dropping a plan does.
pub const STEPS_DEPTH_MAX: usize = 1_000;
/// Steps of a plan.
pub(super) const STEPS_MAX: usize = 10_000;

/// Checks a plan before any of it is looked up.
///
/// # Errors
/// `InvalidQuery` for too much, `Unsupported` for what is no query.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    plan.visit_with_subqueries(&mut Steps::default())?;
    plan_size::check(plan)
}

#[derive(Default)]
struct Steps {
    depth: usize,
    steps: usize,
    joins: usize,
    expressions: Expressions,
}

impl<'n> TreeNodeVisitor<'n> for Steps {
    type Node = LogicalPlan;

    fn f_down(&mut self, node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        is_query(node)?;
        self.depth += 1;
        self.steps += 1;
        self.joins += usize::from(matches!(node, LogicalPlan::Join(_)));
        within("steps over each other", self.depth, STEPS_DEPTH_MAX)?;
        within("steps", self.steps, STEPS_MAX)?;
        within("joined tables", self.joins, budget::JOINS_MAX)?;
        if let LogicalPlan::Values(values) = node {
            self.expressions.count += values.values.iter().map(Vec::len).sum::<usize>();
            return within("values", self.expressions.count, budget::NODES_MAX).map(|()| TreeNodeRecursion::Continue);
        }
        node.apply_expressions(|expression| expression.visit(&mut self.expressions))
    }

    fn f_up(&mut self, _node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        self.depth = self.depth.saturating_sub(1);
        Ok(TreeNodeRecursion::Continue)
    }
}

#[derive(Default)]
struct Expressions {
    depth: usize,
    count: usize,
}

impl<'n> TreeNodeVisitor<'n> for Expressions {
    type Node = Expr;

    fn f_down(&mut self, expression: &'n Expr) -> Result<TreeNodeRecursion> {
        self.depth += 1;
        self.count += 1;
        within("operators over each other", self.depth, budget::DEPTH_MAX)?;
        within("expressions", self.count, budget::NODES_MAX)?;
        match expression {
            Expr::InList(list) => within("values of one list", list.list.len(), budget::LIST_MAX)?,
            Expr::Column(column) => within("bytes in one name", column.name.len(), budget::NAME_BYTES_MAX)?,
            Expr::Alias(alias) => within("bytes in one name", alias.name.len(), budget::NAME_BYTES_MAX)?,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, _expression: &'n Expr) -> Result<TreeNodeRecursion> {
        self.depth = self.depth.saturating_sub(1);
        Ok(TreeNodeRecursion::Continue)
    }
}

/// Refuses steps that are no part of a query: what writes or changes something has a text of its own around the frames.
fn is_query(node: &LogicalPlan) -> Result<()> {
    match node {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::Distinct(_) => Ok(()),
        node if PythonMap::of(node).is_some() => Ok(()),
        _ => Err(ours(Error::unsupported("a client's plan has a step that is no part of a query"))),
    }
}

fn within(what: &str, count: usize, most: usize) -> Result<(), DataFusionError> {
    budget::within(what, count, most).map_err(ours)
}
