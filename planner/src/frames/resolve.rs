//! A client's plan becomes one of the session's tables: each stub is replaced by what it stands for, found as a text's tables are. Next:
//! `../catalog/scope.rs`, from which this is called.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, TableReference, plan_datafusion_err};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use windrow_core::{Error, ErrorKind};

use super::stub::reference;
use super::{Frames, Stub, StubTable, size};
use crate::catalog::{Scope, searching, searching_tables};
use crate::diagnose::ours;
use crate::sql;

/// `plan` over the tables that `scope` sees. What the session may not do shows in the plan that comes of it, which is checked as that of
/// a text is (`access.rs`).
pub(crate) async fn resolve(plan: &LogicalPlan, scope: &Arc<Scope>) -> Result<LogicalPlan> {
    size::check(plan)?;
    let mut found = Vec::new();
    for stub in stubs(plan)? {
        found.push(open(&stub, scope).await?);
    }
    // Both walks go the same way.
    let mut found = found.into_iter();
    let resolved = plan.clone().transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(scan) => {
            let rows = found.next().ok_or_else(|| ours(Error::internal("a plan changed while it was looked at")))?;
            as_made(rows, &scan).map(Transformed::yes)
        }
        // Columns are what the tables have now: one may have begun to have nulls.
        node => node.recompute_schema().map(Transformed::yes),
    })?;
    Ok(resolved.data)
}

/// The stubs of a plan, inner ones first; nothing else may be a leaf that is read.
fn stubs(plan: &LogicalPlan) -> Result<Vec<StubTable>> {
    let mut stubs = Vec::new();
    plan.clone().transform_up_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = &node {
            let stub =
                StubTable::of(scan).filter(|_stub| scan.projection.is_none() && scan.filters.is_empty() && scan.fetch.is_none());
            stubs.push(stub.ok_or_else(|| ours(Error::unsupported("a client's plan reads tables by their names, and whole")))?);
        }
        Ok(Transformed::no(node))
    })?;
    Ok(stubs)
}

/// The rows of a stub.
async fn open(stub: &StubTable, scope: &Arc<Scope>) -> Result<LogicalPlan> {
    match stub.stub() {
        Stub::Table(name) => {
            let name = reference(name);
            let state = searching_tables(&scope.state());
            let table = state.schema_for_ref(name.clone())?.table(name.table()).await?;
            scan(name.clone(), table.ok_or_else(|| plan_datafusion_err!("table '{name}' not found"))?)
        }
        Stub::Query { text, frames } => {
            // Boxed: what the query names may be frames over queries.
            Box::pin(query(text.clone(), frames.clone(), Arc::clone(scope))).await
        }
        Stub::Files(files) => {
            let table = files.open(&scope.state(), scope.directory(), scope.stores()).await?;
            scan(TableReference::bare(files.name()), table)
        }
        Stub::Rows(batches) => {
            let table = MemTable::try_new(Arc::clone(stub.columns()), vec![batches.clone()])?;
            scan(TableReference::bare("rows"), Arc::new(table))
        }
    }
}

fn scan(name: TableReference, table: Arc<dyn TableProvider>) -> Result<LogicalPlan> {
    LogicalPlanBuilder::scan(name, provider_as_source(table), None)?.build()
}

async fn query(text: String, frames: Frames, scope: Arc<Scope>) -> Result<LogicalPlan> {
    let statement = sql::parse(&text)?;
    check_query(&statement)?;
    let state = scope.over(frames)?.state();
    let plan = searching(&state, &statement).statement_to_plan(statement).await?;
    match plan {
        // SELECT ... INTO is one of these.
        LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_) => Err(no_query()),
        plan => Ok(plan),
    }
}

/// A frame is made of what can be part of a query.
fn check_query(statement: &Statement) -> Result<()> {
    let is_query = matches!(statement, Statement::Statement(sql) if matches!(
        sql.as_ref(),
        SqlStatement::Query(_)
            | SqlStatement::ShowTables { .. }
            | SqlStatement::ShowColumns { .. }
            | SqlStatement::ShowFunctions { .. }
    ));
    if is_query { Ok(()) } else { Err(no_query()) }
}

fn no_query() -> DataFusionError {
    let error = Error::unsupported("a frame is made of a query, and this is another statement");
    ours(error.with_help("run the statement by itself"))
}

/// `rows` under the name and with the columns that `scan` has.
fn as_made(rows: LogicalPlan, scan: &TableScan) -> Result<LogicalPlan> {
    let made_for = scan.source.schema();
    let name = scan.table_name.clone();
    if made_for.fields().is_empty() || is_same(rows.schema(), &made_for) {
        return LogicalPlanBuilder::from(rows).alias(name)?.build();
    }
    let mut columns = Vec::with_capacity(made_for.fields().len());
    for field in made_for.fields() {
        let changed = |what: String| {
            let what = format!("'{}' has changed since the frame was made: {what}", name.table());
            ours(Error::new(ErrorKind::InvalidQuery, what).with_help("make the frame again"))
        };
        let there = rows.schema().iter().find(|(_, there)| there.name() == field.name());
        let Some((qualifier, there)) = there else { return Err(changed(format!("it has no column '{}'", field.name()))) };
        if !DFSchema::datatype_is_logically_equal(there.data_type(), field.data_type()) {
            let what = format!("its column '{}' is {}, not {}", field.name(), there.data_type(), field.data_type());
            return Err(changed(what));
        }
        columns.push(Expr::Column(Column::from((qualifier, there))));
    }
    LogicalPlanBuilder::from(rows).project(columns)?.alias(name)?.build()
}

fn is_same(there: &DFSchema, made_for: &SchemaRef) -> bool {
    let columns = |schema: &Schema| {
        let fields = schema.fields().iter();
        fields.map(|field| (field.name().clone(), field.data_type().clone())).collect::<Vec<_>>()
    };
    columns(there.as_arrow()) == columns(made_for)
}
