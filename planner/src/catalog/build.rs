//! Tables made of definitions. Next: `listing.rs`.

use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::ToDFSchema;
use datafusion::datasource::ViewTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{CreateExternalTable, DdlStatement, LogicalPlan};
use datafusion::optimizer::Analyzer;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use windrow_core::{Error, ErrorKind};

use super::definition::{Body, Definition, TableDefinition, ViewDefinition};
use super::listing::names;
use super::scope::Scope;
use super::temporary::in_temporary_schema;
use super::{Object, searching};
use crate::contain::contained_future;
use crate::diagnose::{diagnose, ours};
use crate::files::{locate, unreadable_table};
use crate::session::Names;
use crate::sql;

/// The table or view of an object. A table is opened once and kept; a view is planned, in a scope of its own.
pub(super) async fn table(scope: &Arc<Scope>, object: &Object, is_temporary: bool) -> Result<Arc<dyn TableProvider>> {
    let opened = object.table.lock().clone();
    if let Some(opened) = opened {
        return Ok(opened);
    }
    match &object.definition.body {
        Body::Schema => Err(ours(Error::internal("a schema was read as a table"))),
        Body::View(definition) => {
            let planned = view(scope, definition, is_temporary).await;
            planned.map_err(|error| in_view(scope, &object.definition, error))
        }
        Body::Table(definition) => {
            let opened = external_table(scope, definition).await?;
            *object.table.lock() = Some(Arc::clone(&opened));
            Ok(opened)
        }
    }
}

/// A view planned from its text.
pub(super) async fn view(scope: &Arc<Scope>, definition: &ViewDefinition, is_temporary: bool) -> Result<Arc<dyn TableProvider>> {
    let scope = scope.within(&definition.search, &definition.directory, is_temporary)?;
    let statement = in_temporary_schema(sql::parse(&definition.sql)?);
    // Boxed: the view may contain views.
    let plan = Box::pin(async move { searching(&scope.state(), &statement).statement_to_plan(statement).await }).await?;
    let LogicalPlan::Ddl(DdlStatement::CreateView(create)) = plan else {
        return Err(ours(Error::internal("the definition of a view is another statement")));
    };
    view_table(Arc::unwrap_or_clone(create.input), &definition.sql)
}

pub(super) fn view_table(plan: LogicalPlan, sql: &str) -> Result<Arc<dyn TableProvider>> {
    let coerced = Analyzer::with_rules(vec![Arc::new(TypeCoercion::new())]).execute_and_check(
        plan,
        &datafusion::config::ConfigOptions::default(),
        |_plan, _rule| {},
    )?;
    Ok(Arc::new(ViewTable::new(coerced, Some(sql.to_owned()))))
}

/// What is wrong within a view has its place in the view's text, not in the statement's.
fn in_view(scope: &Scope, definition: &Definition, error: DataFusionError) -> DataFusionError {
    let place = format!("the view '{}.{}'", definition.schema, definition.name);
    let error = diagnose(error, &Names { tables: names(scope), ..Names::default() });
    let message = if error.message.starts_with("the view ") { error.message } else { format!("{place}: {}", error.message) };
    let mut named = Error::new(error.kind, message).with_suggestion(error.context.suggestion);
    named.context.help = error.context.help;
    named.source = error.source;
    ours(named)
}

async fn external_table(scope: &Arc<Scope>, definition: &TableDefinition) -> Result<Arc<dyn TableProvider>> {
    let state = scope.state();
    let create = if definition.sql.is_empty() { declared(definition)? } else { parsed(definition, &state).await? };
    open(&create, &state).await
}

/// The statement of a table that was made by its text: columns that were not declared are looked for again.
async fn parsed(definition: &TableDefinition, state: &SessionState) -> Result<CreateExternalTable> {
    let statement = in_temporary_schema(sql::parse(&definition.sql)?);
    let LogicalPlan::Ddl(DdlStatement::CreateExternalTable(mut create)) =
        searching(state, &statement).statement_to_plan(statement).await?
    else {
        return Err(ours(Error::internal("the definition of an external table is another statement")));
    };
    create.locations.clone_from(&definition.locations);
    Ok(*create)
}

/// The statement of a table that has no text.
fn declared(definition: &TableDefinition) -> Result<CreateExternalTable> {
    let columns = definition.columns.schema().map_err(ours)?.to_dfschema_ref()?;
    let create = CreateExternalTable::builder("declared", "", definition.format.clone(), columns)
        .with_locations(definition.locations.clone())
        .with_partition_cols(definition.partition_columns.clone())
        .with_options(definition.options.clone().into_iter().collect());
    Ok(create.build())
}

/// Opens the files of an external table.
pub(super) async fn open(create: &CreateExternalTable, state: &SessionState) -> Result<Arc<dyn TableProvider>> {
    let file_type = create.file_type.to_uppercase();
    let Some(factory) = state.table_factories().get(&file_type) else {
        let known = "known are PARQUET, CSV, JSON and ARROW";
        return Err(ours(Error::unsupported(format!("tables stored as {file_type} cannot be read")).with_help(known)));
    };
    match contained_future(factory.create(state, create)).await {
        Ok(table) => Ok(table),
        Err(error) => {
            let named = unreadable_table(create, state).await;
            Err(named.unwrap_or_else(|| error.context(format!("reading the schema of {}", create.locations.join(", ")))))
        }
    }
}

/// An absolute path or a URL for `location`, which counts in whatever folder the program is started next.
pub(super) fn absolute(location: &str, directory: &str) -> Result<String> {
    let located = locate(location, directory);
    if located.contains("://") || Path::new(&located).is_absolute() {
        return Ok(located);
    }
    // Not `canonicalize`: the name may hold a pattern.
    Ok(locate(&located, &working_directory()?))
}

/// The folder at which relative paths begin, absolute.
pub(super) fn absolute_directory(directory: &str) -> Result<String> {
    if directory.is_empty() { working_directory() } else { Ok(directory.to_owned()) }
}

fn working_directory() -> Result<String> {
    let folder = std::env::current_dir().map_err(|source| {
        ours(Error::new(ErrorKind::NotFound, format!("the working directory is gone: {source}")).with_source(source))
    })?;
    Ok(folder.to_string_lossy().into_owned())
}
