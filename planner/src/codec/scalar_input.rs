//! The place of a scalar subquery's value in a stage's plan: encoded by the input that holds the value, decoded to a literal.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::physical_expr::PhysicalExpr;

/// A value that is known before the plan is decoded for a task: the only row of a stage input. It is never evaluated, because
/// decoding for a task puts a literal in its place; only the round trip at planning keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScalarInputExpr {
    /// The stage's input that holds the value.
    pub input: u32,
    /// Its type and nullability.
    pub field: FieldRef,
}

impl Display for ScalarInputExpr {
    /// As DataFusion shows a scalar subquery that has not run, so that the two plans compare equal.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("scalar_subquery(<pending>)")
    }
}

impl PhysicalExpr for ScalarInputExpr {
    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(Arc::clone(&self.field))
    }

    fn evaluate(&self, _: &RecordBatch) -> Result<ColumnarValue> {
        internal_err!("the value of stage input {} was not put into the plan", self.input)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn get_properties(&self, _: &[ExprProperties]) -> Result<ExprProperties> {
        Ok(ExprProperties::new_unknown().with_order(SortProperties::Singleton))
    }

    fn fmt_sql(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("(scalar subquery)")
    }
}
