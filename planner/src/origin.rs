//! Which table a column of a result comes from, for drivers that show it or write changes back. Next: `describe.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{JoinType, TableReference};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};

use crate::catalog::{CATALOG, TEMP};

/// The keys of a field's metadata that Flight SQL has for the table of a column.
pub const CATALOG_NAME: &str = "ARROW:FLIGHT:SQL:CATALOG_NAME";
/// As [`CATALOG_NAME`].
pub const SCHEMA_NAME: &str = "ARROW:FLIGHT:SQL:SCHEMA_NAME";
/// As [`CATALOG_NAME`].
pub const TABLE_NAME: &str = "ARROW:FLIGHT:SQL:TABLE_NAME";

/// `field` as a column of a table.
#[must_use]
pub fn column_of(field: &Field, (catalog, schema, table): (&str, &str, &str)) -> Field {
    let mut metadata = field.metadata().clone();
    for (key, value) in [(CATALOG_NAME, catalog), (SCHEMA_NAME, schema), (TABLE_NAME, table)] {
        metadata.insert(key.to_owned(), value.to_owned());
    }
    field.clone().with_metadata(metadata)
}

/// `schema`, that of the rows of `plan`, in which each plain column of a table says which table that is. Columns of files, views and
/// subqueries say nothing.
pub(crate) fn with_origins(schema: &Schema, plan: &LogicalPlan, state: &SessionState) -> SchemaRef {
    let mut known = BTreeMap::<String, Option<String>>::new();
    let fields = schema.fields().iter().enumerate().map(|(index, field)| {
        let Some(table) = scanned(plan, index) else { return Arc::clone(field) };
        match known.entry(table.to_quoted_string()).or_insert_with(|| schema_of(table, state)) {
            Some(schema) => Arc::new(column_of(field, (CATALOG, schema, table.table()))),
            None => Arc::clone(field),
        }
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<FieldRef>>(), schema.metadata().clone()))
}

/// The table that column `index` of a plan is read from, unless something is computed on the way.
fn scanned(plan: &LogicalPlan, index: usize) -> Option<&TableReference> {
    let through = |input: &'_ LogicalPlan, expression: &Expr| input.schema().index_of_column(plain(expression)?).ok();
    match plan {
        LogicalPlan::TableScan(scan) => Some(&scan.table_name),
        LogicalPlan::Projection(node) => scanned(&node.input, through(&node.input, node.expr.get(index)?)?),
        LogicalPlan::Aggregate(node) => scanned(&node.input, through(&node.input, node.group_expr.get(index)?)?),
        LogicalPlan::Filter(node) => scanned(&node.input, index),
        LogicalPlan::Sort(node) => scanned(&node.input, index),
        LogicalPlan::Limit(node) => scanned(&node.input, index),
        LogicalPlan::Distinct(Distinct::All(input)) => scanned(input, index),
        LogicalPlan::Window(node) => (index < node.input.schema().fields().len()).then(|| scanned(&node.input, index))?,
        // Another name of a table; beneath that of a view are other tables.
        LogicalPlan::SubqueryAlias(node) if matches!(*node.input, LogicalPlan::TableScan(_)) => scanned(&node.input, index),
        LogicalPlan::Join(node) => {
            let of_left = node.left.schema().fields().len();
            match node.join_type {
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full if index >= of_left => {
                    scanned(&node.right, index - of_left)
                }
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => scanned(&node.left, index),
                JoinType::LeftSemi | JoinType::LeftAnti => scanned(&node.left, index),
                JoinType::RightSemi | JoinType::RightAnti => scanned(&node.right, index),
                JoinType::LeftMark | JoinType::RightMark => None,
            }
        }
        _ => None,
    }
}

/// The column that an expression is, under whatever name.
fn plain(expression: &Expr) -> Option<&datafusion::common::Column> {
    match expression {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => plain(&alias.expr),
        _ => None,
    }
}

/// The schema that a table's name was found in; `None` if it is a file.
fn schema_of(table: &TableReference, state: &SessionState) -> Option<String> {
    let catalog = state.catalog_list().catalog(CATALOG)?;
    let has = |schema: &str| catalog.schema(schema).is_some_and(|schema| schema.table_exist(table.table()));
    match table.schema() {
        Some(schema) => has(schema).then(|| schema.to_owned()),
        // In the order in which names without a schema are looked up.
        None => [TEMP, &state.config_options().catalog.default_schema].into_iter().find(|schema| has(schema)).map(str::to_owned),
    }
}
