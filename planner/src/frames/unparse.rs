//! Frames as SQL, for schedulers that take no plans: each is a common table expression, and so is each query that one reads. Called by
//! the client (`client/src/remote/over.rs`).

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, TableReference};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, LogicalTableSource, TableScan, cast, lit};
use datafusion::scalar::ScalarValue;
use datafusion::sql::unparser::Unparser;
use datafusion::sql::unparser::dialect::CustomDialectBuilder;
use windrow_core::Error;

use super::stub::reference;
use super::{FileFormatOptions, Frames, ReadFiles, Stub, StubTable, plan_error};
use crate::diagnose::ours;

/// What stands before a query so that it may name `frames`: `WITH "a" AS (..), "b" AS (..) `; nothing if there are none.
///
/// # Errors
/// `Unsupported` for what has no form in SQL, or none that DataFusion writes.
pub fn unparse(frames: &Frames) -> windrow_core::Result<String> {
    with_clause(frames).map_err(|error| match plan_error(error) {
        error if error.kind == windrow_core::ErrorKind::Unsupported => error,
        error => Error::unsupported(error.message),
    })
}

fn with_clause(frames: &Frames) -> Result<String> {
    let mut tables = Vec::new();
    for (name, plan) in frames.iter() {
        let text = query(plan, &mut tables)?;
        tables.push(format!("{} AS ({text})", quoted(name)));
    }
    Ok(if tables.is_empty() { String::new() } else { format!("WITH {} ", tables.join(", ")) })
}

/// The plan as a query. What it needs before it is added to `tables`.
fn query(plan: &LogicalPlan, tables: &mut Vec<String>) -> Result<String> {
    let named = plan.clone().transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(scan) => {
            let stub = StubTable::of(&scan).ok_or_else(|| ours(Error::internal("a frame reads what is no stub")))?;
            leaf(&stub, &scan, tables).map(Transformed::yes)
        }
        node => Ok(Transformed::no(node)),
    })?;
    let dialect = CustomDialectBuilder::new().with_identifier_quote_style('"').build();
    let statement = Unparser::new(&dialect).plan_to_sql(&named.data)?;
    Ok(statement.to_string())
}

/// A table that SQL can name, in place of a stub.
fn leaf(stub: &StubTable, scan: &TableScan, tables: &mut Vec<String>) -> Result<LogicalPlan> {
    let name = match stub.stub() {
        Stub::Table(name) => reference(name),
        Stub::Files(files) => path(files)?,
        Stub::Query { text, frames } => {
            let name = format!("windrow_query_{}", tables.len());
            // A comment may end the text, and a semicolon.
            let text = text.trim_end().trim_end_matches(';');
            let before = with_clause(frames)?;
            let text = if before.is_empty() { format!("{text}\n") } else { format!("{before}SELECT * FROM ({text}\n) AS query") };
            tables.push(format!("{} AS ({text})", quoted(&name)));
            TableReference::bare(name)
        }
        Stub::Rows(_) => return values(stub, scan),
    };
    let table = Arc::new(LogicalTableSource::new(Arc::clone(stub.columns())));
    LogicalPlanBuilder::scan(name, table, None)?.alias(scan.table_name.clone())?.build()
}

/// A path as FROM takes it. It has no place for how files are read.
fn path(files: &ReadFiles) -> Result<TableReference> {
    let is_plain =
        files.schema.is_none() && files.hive_partitions.is_empty() && files.extension.is_none() && files.options.is_empty();
    let is_usual = matches!(files.format, FileFormatOptions::Parquet | FileFormatOptions::Json)
        || files.format == FileFormatOptions::csv() && !files.paths.iter().any(|path| path.contains(".tsv"));
    match files.paths.as_slice() {
        [path] if is_plain && is_usual => Ok(TableReference::bare(path.as_str())),
        _ => Err(ours(Error::unsupported("files that are read with options, or several of them, have no form in a query"))),
    }
}

/// Rows as VALUES.
fn values(stub: &StubTable, scan: &TableScan) -> Result<LogicalPlan> {
    let Stub::Rows(batches) = stub.stub() else { return Err(ours(Error::internal("rows that are none"))) };
    let mut rows: Vec<Vec<Expr>> = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, row).map(lit));
            rows.push(values.collect::<Result<_, DataFusionError>>()?);
        }
    }
    if rows.is_empty() || stub.columns().fields().is_empty() {
        return Err(ours(Error::unsupported("a frame without rows or columns has no form in a query")));
    }
    let schema = Arc::new(DFSchema::try_from(stub.columns().as_ref().clone())?);
    let values = LogicalPlanBuilder::values(rows)?;
    let columns = values.schema().columns().into_iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(Expr::Column(column), field.data_type().clone()).alias(field.name()));
    let columns: Vec<Expr> = columns.collect();
    values.project(columns)?.alias(scan.table_name.clone())?.build()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
