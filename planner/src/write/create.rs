//! CREATE TABLE and CREATE TABLE AS: the rows are written into a new folder of the warehouse, and when its files are published, the table
//! is created over it. Next: `publish.rs`.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchemaRef, TableReference};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{CreateExternalTable, CreateMemoryTable, DdlStatement, LogicalPlan};
use windrow_core::{Error, ErrorKind, rand};

use super::exec::WriteSpec;
use super::publish::{Place, Publication};
use super::statement::{Draft, spec};
use super::target::Target;
use crate::catalog::TEMP;
use crate::diagnose::ours;
use crate::stores::Stores;

/// The folder that shared tables made by CREATE TABLE are kept in; by default there is none. Executors must reach it under the same
/// name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Warehouse(Option<Arc<Folder>>);

#[derive(Debug)]
struct Folder {
    /// A path or the URL of a store.
    root: String,
    /// What must allow it.
    stores: Arc<Stores>,
}

impl Warehouse {
    /// A folder, or a prefix in an object store, which must be among those that `stores` open. Empty: none.
    #[must_use]
    pub fn at(root: &str, stores: Arc<Stores>) -> Self {
        Self((!root.is_empty()).then(|| Arc::new(Folder { root: root.trim_end_matches('/').to_owned(), stores })))
    }

    /// Whether a new table is kept here. A temporary one of values is not: its rows are in memory.
    pub(super) fn takes(&self, create: &CreateMemoryTable, state: &SessionState) -> bool {
        let is_temporary = || resolved(&create.name, state).schema.as_ref() == TEMP;
        self.0.is_some() && (!is_temporary() || reads_tables(&create.input))
    }

    /// A new folder for a table.
    fn folder(&self, schema: &str, table: &str) -> Result<Target> {
        let Some(Folder { root, stores }) = self.0.as_deref() else {
            let error = Error::unsupported(format!("the table '{table}' cannot be created: there is no folder for new tables"));
            return Err(ours(error.with_help("an administrator sets scheduler.warehouse; or add to a table that exists")));
        };
        stores.policy().admit(root, root).map_err(|source| {
            let what =
                format!("no table can be created: the folder for new tables, '{root}', is outside of those that may be opened");
            let help = "an administrator sets scheduler.warehouse to a folder below one of security.allow_local or allow_stores";
            ours(Error::new(ErrorKind::Denied, what).with_help(help).with_source(source))
        })?;
        let plain = |name: &str| -> String {
            name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' }).take(100).collect()
        };
        Target::parse(&format!("{root}/{}/{}-{:016x}/", plain(schema), plain(table), rand::unique()), "")
    }
}

/// A table that is created when its files are published.
#[derive(Debug, Clone)]
pub struct NewTable {
    name: TableReference,
    schema: DFSchemaRef,
    location: String,
    or_replace: bool,
}

impl NewTable {
    /// The statement that creates it.
    pub(crate) fn statement(&self) -> LogicalPlan {
        let name = self.name.clone();
        let create = CreateExternalTable::builder(name, self.location.clone(), "PARQUET", Arc::clone(&self.schema))
            .with_or_replace(self.or_replace)
            .build();
        LogicalPlan::Ddl(DdlStatement::CreateExternalTable(Box::new(create)))
    }
}

/// How a table is to be created.
#[derive(Debug, Clone)]
pub(super) struct Creation {
    pub(super) name: TableReference,
    pub(super) or_replace: bool,
}

/// What a CREATE TABLE writes, and the table that it makes.
pub(super) fn create_draft(create: &CreateMemoryTable, state: &SessionState, warehouse: &Warehouse) -> Result<Draft> {
    if !create.column_defaults.is_empty() || !create.constraints.is_empty() {
        let what = "tables have no default values, primary keys or unique constraints";
        return Err(ours(Error::unsupported(what).with_help("leave them out; NOT NULL is checked")));
    }
    let creation = Creation { name: create.name.clone(), or_replace: create.or_replace };
    let (publication, spec, table) = new_table(creation, Arc::clone(create.input.schema()), state, warehouse)?;
    Ok(Draft::creating(LogicalPlan::clone(&create.input), publication, spec, table))
}

/// The folder of a new table.
pub(super) fn new_table(
    creation: Creation,
    schema: DFSchemaRef,
    state: &SessionState,
    warehouse: &Warehouse,
) -> Result<(Publication, WriteSpec, NewTable)> {
    let resolved = resolved(&creation.name, state);
    if schema.fields().is_empty() {
        return Err(ours(Error::new(ErrorKind::InvalidQuery, format!("the table '{}' has no columns", resolved.table))));
    }
    let target = warehouse.folder(&resolved.schema, &resolved.table)?;
    let publication = Publication::new(target.open(state)?, target.clone(), Place::NewFolder);
    let format: Arc<dyn FileFormat> = Arc::new(ParquetFormat::default().with_options(state.default_table_options().parquet));
    let not_null = schema.fields().iter().enumerate().filter(|(_, field)| !field.is_nullable()).map(|(index, _)| index);
    let not_null = not_null.filter_map(|index| u32::try_from(index).ok()).collect();
    let spec = WriteSpec { needs_file: true, not_null, ..spec(&publication, &target, &format, state)? };
    let Creation { or_replace, .. } = creation;
    // Where it goes is decided now, whatever the current schema is when the rows are there.
    let name = TableReference::full(resolved.catalog, resolved.schema, resolved.table);
    let schema = Arc::new(schema.as_ref().clone().strip_qualifiers());
    Ok((publication, spec, NewTable { name, schema, location: format!("{}/", target.name()), or_replace }))
}

/// Whether a query has rows that are not in its text.
pub(crate) fn reads_tables(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::TableScan(_)))).unwrap_or(true)
}

fn resolved(name: &TableReference, state: &SessionState) -> datafusion::common::ResolvedTableReference {
    let defaults = &state.config_options().catalog;
    name.clone().resolve(&defaults.default_catalog, &defaults.default_schema)
}

/// The table of this name, if there is one.
pub(super) async fn existing(name: &TableReference, state: &SessionState) -> Result<Option<Arc<dyn TableProvider>>> {
    let name = resolved(name, state);
    let schema = state.catalog_list().catalog(&name.catalog).and_then(|catalog| catalog.schema(&name.schema));
    let Some(schema) = schema else {
        return Err(ours(Error::new(ErrorKind::NotFound, format!("there is no schema '{}'", name.schema))));
    };
    schema.table(&name.table).await
}

/// Whether a CREATE TABLE has nothing to do: IF NOT EXISTS of a table that does.
///
/// # Errors
/// `InvalidQuery` if there is one and nothing was said of it.
pub(crate) async fn is_settled(plan: &LogicalPlan, state: &SessionState) -> Result<bool> {
    let LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) = plan else { return Ok(false) };
    if create.or_replace || existing(&create.name, state).await?.is_none() {
        return Ok(false);
    }
    if create.if_not_exists { Ok(true) } else { Err(taken(&create.name)) }
}

pub(super) fn taken(name: &TableReference) -> datafusion::error::DataFusionError {
    let what = format!("the table '{name}' exists already");
    ours(Error::new(ErrorKind::InvalidQuery, what).with_help("CREATE OR REPLACE TABLE replaces it, INSERT INTO adds to it"))
}
