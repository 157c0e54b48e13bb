//! What there is in the catalog, without reading any of it: for metadata, completion, and the information schema. Next: `system.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use windrow_core::Error;

use super::definition::{Definition, Kind};
use super::scope::{SEARCH, Scope};
use super::temporary::TemporaryObject;
use super::{Object, SYSTEM, TEMP, system};
use crate::diagnose::ours;
use crate::inventory::TableKind;

/// A table as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its schema, in the only catalog.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: TableKind,
    /// Its columns as they were when it was made or last read.
    pub columns: SchemaRef,
    /// The statement that made it, if one did.
    pub sql: Option<String>,
}

/// DataFusion's word for a kind.
pub(super) fn table_type(kind: TableKind) -> TableType {
    match kind {
        TableKind::Table | TableKind::System => TableType::Base,
        TableKind::View => TableType::View,
        TableKind::Temporary => TableType::Temporary,
    }
}

/// The schemas that `scope` shows.
pub(crate) fn schemas_of(scope: &Scope) -> Vec<String> {
    let mut names: Vec<String> = scope.objects.schema_names().map(str::to_owned).collect();
    names.extend([SYSTEM.to_owned(), TEMP.to_owned()]);
    names.sort_unstable();
    names
}

/// Every table that `scope` shows, by schema and name.
pub(crate) fn listed(scope: &Scope) -> Vec<Listed> {
    schemas_of(scope).iter().flat_map(|schema| listed_in(scope, schema)).collect()
}

/// Tables with their columns, as a statement would name them: with their schema, unless they are found without.
pub(crate) fn names(scope: &Scope) -> Vec<(String, Vec<String>)> {
    let is_hidden = |listed: &Listed| {
        let temporary = scope.temporary.as_ref();
        listed.schema != TEMP && temporary.is_some_and(|temporary| temporary.find(&listed.name).is_some())
    };
    let name = |listed: &Listed| {
        let is_found = listed.schema == TEMP || (listed.schema == scope.schema && !is_hidden(listed));
        if is_found { listed.name.clone() } else { format!("{}.{}", listed.schema, listed.name) }
    };
    let columns = |listed: &Listed| listed.columns.fields().iter().map(|field| field.name().clone()).collect();
    let mut names: Vec<_> = listed(scope).iter().map(|listed| (name(listed), columns(listed))).collect();
    names.sort_unstable();
    names
}

/// The tables of one schema, by name. The schema of the search has none of its own.
pub(super) fn listed_in(scope: &Scope, schema: &str) -> Vec<Listed> {
    match schema {
        SEARCH => Vec::new(),
        SYSTEM => system::TABLES.iter().map(|name| system_table(name)).collect(),
        TEMP => {
            let Some(temporary) = &scope.temporary else { return Vec::new() };
            let found = temporary.names().into_iter().filter_map(|name| Some((temporary.find(&name)?, name)));
            found.map(|(object, name)| temporary_table(&object, name)).collect()
        }
        schema => scope.objects.in_schema(schema).map(|object| shared_table(object)).collect(),
    }
}

fn system_table(name: &str) -> Listed {
    Listed {
        schema: SYSTEM.to_owned(),
        name: name.to_owned(),
        kind: TableKind::System,
        columns: system::columns(name),
        sql: None,
    }
}

fn temporary_table(object: &TemporaryObject, name: String) -> Listed {
    let (columns, sql) = match object {
        TemporaryObject::Defined(object) => (columns(object), object.definition.sql().map(str::to_owned)),
        TemporaryObject::Memory(table) => (table.schema(), None),
    };
    Listed { schema: TEMP.to_owned(), name, kind: TableKind::Temporary, columns, sql }
}

fn shared_table(object: &Object) -> Listed {
    let Definition { schema, name, .. } = &object.definition;
    let kind = if object.definition.kind() == Kind::View { TableKind::View } else { TableKind::Table };
    let sql = object.definition.sql().map(str::to_owned);
    Listed { schema: schema.clone(), name: name.clone(), kind, columns: columns(object), sql }
}

/// Those of the table if it was opened, else those it was made with. Damaged ones are none: the object can still be dropped.
fn columns(object: &Object) -> SchemaRef {
    let opened = object.table.lock().as_ref().map(|table| table.schema());
    opened.or_else(|| object.definition.columns().ok()).unwrap_or_else(|| Arc::new(Schema::empty()))
}

/// A table that can be described and not read.
#[derive(Debug)]
pub(super) struct Description {
    listed: Listed,
}

impl Description {
    pub(super) fn new(listed: Listed) -> Self {
        Self { listed }
    }
}

#[async_trait]
impl TableProvider for Description {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.listed.columns)
    }

    fn table_type(&self) -> TableType {
        table_type(self.listed.kind)
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.listed.sql.as_deref()
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Err(ours(Error::internal(format!("the description of '{}' was read", self.listed.name))))
    }
}
