//! What a session has: tables by name, functions by kind, settings with their values. No file is opened for any of it. Next:
//! `sql.rs`.

use arrow::datatypes::SchemaRef;
use datafusion::datasource::TableType;
use windrow_core::config::QueryConfig;
use windrow_core::{Error, ErrorKind, Result};

use crate::files::looks_like_path;
use crate::session::PlannerSession;

/// A table in a session's catalogs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// Its catalog.
    pub catalog: String,
    /// Its schema, in the sense of a folder of tables.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: TableKind,
    /// Its columns, if they were asked for.
    pub columns: Option<SchemaRef>,
}

/// The kinds of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Rows somewhere.
    Table,
    /// A query under a name.
    View,
    /// A table that ends with its session.
    Temporary,
    /// What the cluster says of itself.
    System,
}

impl TableKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Table, Self::View, Self::Temporary, Self::System];

    /// The name that drivers know.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "TABLE",
            Self::View => "VIEW",
            Self::Temporary => "TEMPORARY TABLE",
            Self::System => "SYSTEM TABLE",
        }
    }
}

/// The catalog of what the cluster says of itself, and the schema where it is one.
const SYSTEM: &str = "windrow";

impl PlannerSession {
    /// The catalogs with their schemas.
    #[must_use]
    pub fn catalogs(&self) -> Vec<(String, Vec<String>)> {
        let list = std::sync::Arc::clone(self.context().state_ref().read().catalog_list());
        let schemas = |catalog: &str| list.catalog(catalog).map(|catalog| catalog.schema_names()).unwrap_or_default();
        list.catalog_names().into_iter().map(|catalog| (catalog.clone(), schemas(&catalog))).collect()
    }

    /// The tables under their names, with their columns only if `with_columns`.
    ///
    /// # Errors
    /// `Internal` if a catalog cannot be read.
    pub async fn tables(&self, with_columns: bool) -> Result<Vec<TableEntry>> {
        let list = std::sync::Arc::clone(self.context().state_ref().read().catalog_list());
        let mut tables = Vec::new();
        for (catalog, schemas) in self.catalogs() {
            let Some(provider) = list.catalog(&catalog) else { continue };
            for (schema, tables_of) in schemas.into_iter().filter_map(|name| Some((name.clone(), provider.schema(&name)?))) {
                for name in tables_of.table_names().into_iter().filter(|name| !looks_like_path(name)) {
                    // A table may be dropped between its name and this.
                    let Some(kind) = tables_of.table_type(&name).await.map_err(unread)? else { continue };
                    let columns = match with_columns {
                        true => tables_of.table(&name).await.map_err(unread)?.map(|table| table.schema()),
                        false => None,
                    };
                    let is_system = catalog == SYSTEM || schema == SYSTEM;
                    let kind = if is_system { TableKind::System } else { kind_of(kind) };
                    tables.push(TableEntry { catalog: catalog.clone(), schema: schema.clone(), name, kind, columns });
                }
            }
        }
        Ok(tables)
    }

    /// The functions under the headings of their documentation.
    #[must_use]
    pub fn functions(&self) -> Vec<(&'static str, String)> {
        let state = self.context().state();
        let scalar = state.scalar_functions().values().filter_map(|function| {
            let documentation = function.documentation()?;
            Some((documentation.doc_section.label, function.name().to_owned()))
        });
        let aggregate = state.aggregate_functions().values().filter_map(|function| {
            let documentation = function.documentation()?;
            Some((documentation.doc_section.label, function.name().to_owned()))
        });
        let mut functions: Vec<_> = scalar.chain(aggregate).collect();
        functions.sort_unstable();
        functions.dedup();
        functions
    }

    /// Every setting that SET takes, with its value as text; `None` for those without one.
    #[must_use]
    pub fn settings(&self) -> Vec<(String, Option<String>)> {
        let query = self.query_settings();
        let own = QueryConfig::KEYS.iter().map(|key| (format!("windrow.query.{key}"), query.get(key)));
        let state = self.context().state();
        let others = state.config_options().entries().into_iter().map(|entry| (entry.key, entry.value));
        own.chain(others).collect()
    }

    /// The catalog and the schema in which a name without them is looked for.
    #[must_use]
    pub fn defaults(&self) -> (String, String) {
        let state = self.context().state();
        let catalog = &state.config_options().catalog;
        (catalog.default_catalog.clone(), catalog.default_schema.clone())
    }
}

fn kind_of(kind: TableType) -> TableKind {
    match kind {
        TableType::Base => TableKind::Table,
        TableType::View => TableKind::View,
        TableType::Temporary => TableKind::Temporary,
    }
}

fn unread(source: datafusion::error::DataFusionError) -> Error {
    Error::new(ErrorKind::Internal, "the catalog cannot be read").with_source(source)
}
