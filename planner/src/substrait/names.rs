//! Columns get short names between the relations of a plan. Next: `size.rs`.
//!
//! A plan names columns by their position, and DataFusion by how they were computed. A column that adds another to itself has a name
//! twice as long, so that a plan of a few hundred bytes could make names that fill the memory. A text cannot, because it writes names.

use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::logical_expr::builder::project;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Bytes of a column's name, and of its table's, that are left as they are.
const NAME_MAX: usize = 256;

/// `plan`, the relation of this number, whose columns have names that are not long.
pub(super) fn shortened(plan: LogicalPlan, number: usize) -> Result<LogicalPlan> {
    let schema = plan.schema();
    let is_long = |index: usize| {
        let (table, field) = schema.qualified_field(index);
        let table = table.map_or(0, |table| table.table().len() + table.schema().map_or(0, str::len));
        field.name().len() > NAME_MAX || table > NAME_MAX
    };
    let count = schema.fields().len();
    if !(0..count).any(is_long) {
        return Ok(plan);
    }
    let columns = (0..count).map(|index| {
        let column = Expr::Column(Column::from(schema.qualified_field(index)));
        if is_long(index) { column.alias(format!("column_{number}_{index}")) } else { column }
    });
    let columns: Vec<Expr> = columns.collect();
    project(plan, columns)
}
