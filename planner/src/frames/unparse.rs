//! Frames as SQL, for schedulers that take no plans: each is a common table expression, and so is each query that one reads. Called by
//! the client (`client/src/remote/over.rs`).

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, TableReference};
use datafusion::error::Result;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, LogicalTableSource, TableScan, lit};
use datafusion::scalar::ScalarValue;
use datafusion::sql::unparser::Unparser;
use datafusion::sql::unparser::dialect::CustomDialectBuilder;
use windrow_core::Error;

use super::stub::reference;
use super::{FileFormatOptions, Frames, ReadFiles, Stub, StubTable, plan_error};
use crate::diagnose::ours;
use crate::python;

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
    check(plan)?;
    if python::is_called_in(plan)? {
        // By its name, SQL may know another one.
        return Err(ours(Error::unsupported("a Python function has no form in SQL")));
    }
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

/// Refuses what DataFusion writes as SQL with another meaning: names of aggregates, orders, sets, joins of equal nulls, lists.
fn check(plan: &LogicalPlan) -> Result<()> {
    let is_column = |column: &Expr| matches!(column.clone().unalias(), Expr::Column(_));
    let is_safe = match plan {
        LogicalPlan::TableScan(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) => true,
        LogicalPlan::Projection(projection) => projection.expr.iter().all(is_column),
        _ => false,
    };
    if !is_safe {
        return Err(ours(Error::unsupported(
            "only whole tables, files, queries and rows, and conditions on them, have a safe form in SQL",
        )));
    }
    plan.inputs().into_iter().try_for_each(check)
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
        Stub::Rows(batches) => return rows(batches, stub, scan, tables),
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

/// Rows as VALUES, which `tables` get, below the casts that make their types those of the stub.
fn rows(batches: &[RecordBatch], stub: &StubTable, scan: &TableScan, tables: &mut Vec<String>) -> Result<LogicalPlan> {
    let columns = stub.columns();
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| value(&ScalarValue::try_from_array(column, row)?));
            rows.push(format!("({})", values.collect::<Result<Vec<_>>>()?.join(", ")));
        }
    }
    if rows.is_empty() || columns.fields().is_empty() {
        return Err(ours(Error::unsupported("a frame without rows or columns has no form in a query")));
    }
    let name = format!("windrow_rows_{}", tables.len());
    let names = columns.fields().iter().map(|field| quoted(field.name())).collect::<Vec<_>>().join(", ");
    tables.push(format!("{}({names}) AS (VALUES {})", quoted(&name), rows.join(", ")));
    let table = Arc::new(LogicalTableSource::new(Arc::clone(columns)));
    let typed = columns.fields().iter().map(|field| {
        let column = Expr::Column(Column::from_name(field.name()));
        // The types of VALUES are guessed of the values.
        Expr::Cast(Cast::new(Box::new(column), field.data_type().clone())).alias(field.name())
    });
    LogicalPlanBuilder::scan(TableReference::bare(name), table, None)?
        .project(typed.collect::<Vec<_>>())?
        .alias(scan.table_name.clone())?
        .build()
}

/// A value as SQL writes it.
fn value(value: &ScalarValue) -> Result<String> {
    let dialect = CustomDialectBuilder::new().with_identifier_quote_style('"').build();
    let of = if value.is_null() { &ScalarValue::Null } else { value };
    Ok(Unparser::new(&dialect).expr_to_sql(&lit(of.clone()))?.to_string())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
