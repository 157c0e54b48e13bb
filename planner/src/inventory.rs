//! What a session has: tables by name, functions by kind, settings with their values. No file is opened for any of it. Next:
//! `sql.rs`.

use arrow::datatypes::SchemaRef;
use windrow_core::Result;
use windrow_core::config::QueryConfig;

use crate::catalog::{CATALOG, Listed};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

impl PlannerSession {
    /// The catalogs with their schemas.
    #[must_use]
    pub fn catalogs(&self) -> Vec<(String, Vec<String>)> {
        vec![(CATALOG.to_owned(), self.schemas())]
    }

    /// The tables under their names, with their columns only if `with_columns`.
    ///
    /// # Errors
    /// None today; a catalog that must be asked over the network may fail.
    pub async fn tables(&self, with_columns: bool) -> Result<Vec<TableEntry>> {
        let entry = |listed: Listed| TableEntry {
            catalog: CATALOG.to_owned(),
            schema: listed.schema,
            name: listed.name,
            kind: listed.kind,
            columns: with_columns.then_some(listed.columns),
        };
        Ok(self.listing().into_iter().map(entry).collect())
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
