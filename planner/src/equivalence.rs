//! What holds of rows besides their schema: orders, equal columns, constants, keys. As plain parts, so that a [`StageInputExec`] can
//! carry it from the plan that produces the rows to the plan that reads them, over the wire included. Next: `stage_input.rs`.
//!
//! [`StageInputExec`]: crate::stage_input::StageInputExec

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::Constraints;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::{AcrossPartitions, ConstExpr, EquivalenceProperties, LexOrdering, PhysicalExpr};

/// The parts of DataFusion's equivalence properties, over the schema of the rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Equivalence {
    /// Orders of the rows of one partition.
    pub(crate) orderings: Vec<LexOrdering>,
    /// Expressions that are equal in every row.
    pub(crate) classes: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    /// Expressions that have one value, and over which partitions.
    pub(crate) constants: Vec<(Arc<dyn PhysicalExpr>, AcrossPartitions)>,
    /// Keys.
    pub(crate) constraints: Constraints,
}

impl Equivalence {
    /// What holds of the rows in any arrangement: no order, and only those constants that are the same in all partitions.
    pub(crate) fn of_rows(properties: &EquivalenceProperties) -> Self {
        let mut parts = Self::of_partitions(properties);
        parts.orderings.clear();
        parts.constants.retain(|(_, across)| matches!(across, AcrossPartitions::Uniform(_)));
        parts
    }

    /// What holds within each partition.
    pub(crate) fn of_partitions(properties: &EquivalenceProperties) -> Self {
        let orderings = properties.oeq_class().iter().filter_map(|ordering| {
            // An order by a, s, b without s is an order by a alone.
            LexOrdering::new(ordering.iter().take_while(|sort| travels(&sort.expr)).cloned())
        });
        let classes = properties.eq_group().iter().map(|class| class.iter().filter(|expr| travels(expr)).cloned().collect());
        let constants = properties.constants().into_iter().filter(|constant| travels(&constant.expr));
        Self {
            orderings: orderings.collect(),
            classes: classes.filter(|class: &Vec<_>| class.len() > 1).collect(),
            constants: constants.map(|constant| (constant.expr, constant.across_partitions)).collect(),
            constraints: properties.constraints().clone(),
        }
    }

    /// DataFusion's form of it.
    pub(crate) fn to_properties(&self, schema: SchemaRef) -> Result<EquivalenceProperties> {
        let mut properties = EquivalenceProperties::new(schema).with_constraints(self.constraints.clone());
        for class in &self.classes {
            for pair in class.windows(2) {
                if let [left, right] = pair {
                    properties.add_equal_conditions(Arc::clone(left), Arc::clone(right))?;
                }
            }
        }
        let constants = self.constants.iter();
        properties.add_constants(constants.map(|(expr, across)| ConstExpr::new(Arc::clone(expr), across.clone())))?;
        properties.add_orderings(self.orderings.iter().cloned());
        Ok(properties)
    }
}

/// Whether an expression means the same in another stage: the value of a scalar subquery and a dynamic filter are known only where
/// they are made.
fn travels(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let mut travels = true;
    let walked = expr.apply(|node| {
        travels &= !node.is::<ScalarSubqueryExpr>() && node.expression_id().is_none() && !node.is_volatile_node();
        Ok(if travels { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.is_ok() && travels
}
