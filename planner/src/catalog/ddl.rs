//! Statements that change the catalog. Next: `temporary.rs`, `store.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::{SchemaReference, TableReference};
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    CreateExternalTable, CreateMemoryTable, CreateView, DdlStatement, DropCatalogSchema, LogicalPlan,
};
use datafusion::physical_plan::collect_partitioned;
use windrow_core::clock::unix_nanos;
use windrow_core::{Error, ErrorKind};

use super::build::{absolute, absolute_directory, open, view};
use super::definition::{Body, Columns, Definition, Kind, TableDefinition, ViewDefinition};
use super::scope::Scope;
use super::temporary::TemporaryObject;
use super::{CATALOG, Catalog, Existing, INFORMATION, Object, SYSTEM, TEMP, no_schema, taken};
use crate::diagnose::ours;
use crate::sql;

/// Where a statement about the catalog is performed.
#[derive(Debug)]
pub(crate) struct Ddl<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) scope: &'a Arc<Scope>,
    pub(crate) state: &'a SessionState,
    /// The statement's text.
    pub(crate) text: &'a str,
}

/// A name with its schema.
#[derive(Debug, Clone)]
struct Target {
    schema: String,
    name: String,
}

impl Ddl<'_> {
    /// Performs `statement`.
    ///
    /// # Errors
    /// `InvalidQuery` for a name that is taken, reserved or of another kind, `NotFound` for one that is not there, and those of
    /// reading files and of the store.
    pub(crate) async fn perform(&self, statement: DdlStatement) -> Result<()> {
        match statement {
            DdlStatement::CreateExternalTable(create) => self.create_external_table(*create).await,
            DdlStatement::CreateMemoryTable(create) => self.create_memory_table(create).await,
            DdlStatement::CreateView(create) => self.create_view(create).await,
            DdlStatement::CreateCatalogSchema(create) => self.create_schema(&create.schema_name, create.if_not_exists),
            DdlStatement::DropTable(drop) => self.drop_object(&drop.name, Kind::Table, drop.if_exists),
            DdlStatement::DropView(drop) => self.drop_object(&drop.name, Kind::View, drop.if_exists),
            DdlStatement::DropCatalogSchema(drop) => self.drop_schema(&drop),
            DdlStatement::CreateCatalog(_) => {
                let error = Error::unsupported(format!("there is one catalog, '{CATALOG}'"));
                Err(ours(error.with_help("CREATE SCHEMA keeps tables apart")))
            }
            other => Err(ours(Error::unsupported(format!("{} is not supported", other.name())))),
        }
    }

    async fn create_external_table(&self, mut create: CreateExternalTable) -> Result<()> {
        let existing = existing(create.if_not_exists, create.or_replace)?;
        let target = self.to_create(&create.name, create.temporary)?;
        if self.is_settled(&target, existing)? {
            return Ok(());
        }
        for location in &mut create.locations {
            *location = absolute(location, &self.scope.query.directory)?;
        }
        let table = open(&create, self.state).await?;
        let definition = TableDefinition {
            // What was planned from no text has none: the table of CREATE TABLE AS.
            sql: create.definition.map_or_else(String::new, |_parsed| self.text.to_owned()),
            locations: create.locations,
            format: create.file_type,
            options: create.options.into_iter().collect(),
            partition_columns: create.table_partition_cols,
            columns: Columns::of(&table.schema()).map_err(ours)?,
        };
        let object = Object::new(self.definition(&target, Body::Table(definition)), Some(table));
        object.files.find(&object.definition, self.state);
        self.find_files(&target.schema);
        self.create(&target, object, existing)
    }

    /// A table whose rows are in memory is the session's, wherever it is created: other processes do not have the rows.
    async fn create_memory_table(&self, create: CreateMemoryTable) -> Result<()> {
        let existing = existing(create.if_not_exists, create.or_replace)?;
        let target = match &create.name {
            TableReference::Bare { table } => Target { schema: TEMP.to_owned(), name: table.to_string() },
            name => self.to_create(name, create.temporary)?,
        };
        if target.schema != TEMP {
            let error = Error::unsupported(format!("a table of values is the session's own, and '{}' is shared", target.schema));
            return Err(ours(error.with_help(format!("name it {TEMP}.{}, or use CREATE EXTERNAL TABLE", target.name))));
        }
        if self.is_settled(&target, existing)? {
            return Ok(());
        }
        let input = self.state.optimize(&create.input)?;
        unique_columns(&input)?;
        let schema = Arc::clone(input.schema().inner());
        let plan = self.state.create_physical_plan(&input).await?;
        let rows = collect_partitioned(plan, self.state.task_ctx()).await?;
        let table = MemTable::try_new(schema, rows)?
            .with_constraints(create.constraints)
            .with_column_defaults(create.column_defaults.into_iter().collect());
        self.create_temporary(&target.name, TemporaryObject::Memory(Arc::new(table)), existing)
    }

    async fn create_view(&self, create: CreateView) -> Result<()> {
        let existing = existing(false, create.or_replace)?;
        let target = self.to_create(&create.name, create.temporary)?;
        if self.is_settled(&target, existing)? {
            return Ok(());
        }
        unique_columns(&create.input)?;
        if !create.input.get_parameter_names()?.is_empty() {
            return Err(ours(Error::new(ErrorKind::InvalidQuery, "a view cannot have parameters")));
        }
        let mut definition = ViewDefinition {
            sql: self.text.to_owned(),
            search: self.scope.schema.clone(),
            directory: absolute_directory(&self.scope.query.directory)?,
            columns: Columns::default(),
        };
        self.check_reads(&target)?;
        // What is stored must be plannable by itself.
        let planned = view(self.scope, &definition, target.schema == TEMP).await?;
        definition.columns = Columns::of(&planned.schema()).map_err(ours)?;
        let object = Object::new(self.definition(&target, Body::View(definition)), None);
        self.create(&target, object, existing)
    }

    /// A shared view means the same in every session, so it does not read what is temporary.
    fn check_reads(&self, target: &Target) -> Result<()> {
        let Some(temporary) = self.scope.temporary.as_ref().filter(|_own| target.schema != TEMP) else { return Ok(()) };
        let read = self.state.resolve_table_references(&sql::parse(self.text)?)?;
        let own =
            read.iter().find(|name| name.schema().is_none_or(|schema| schema == TEMP) && temporary.find(name.table()).is_some());
        let Some(own) = own else { return Ok(()) };
        let message = format!("the view would be shared, and '{}' is a temporary table of this session", own.table());
        Err(ours(Error::new(ErrorKind::InvalidQuery, message).with_help("write CREATE TEMPORARY VIEW")))
    }

    fn create_schema(&self, name: &str, if_not_exists: bool) -> Result<()> {
        let (catalog, schema) = name.split_once('.').map_or((CATALOG, name), |(catalog, schema)| (catalog, schema));
        check_catalog(catalog)?;
        let definition = Definition::of_schema(schema, &self.scope.viewer.name, now());
        self.catalog.create_schema(definition, existing(if_not_exists, false)?).map(drop).map_err(ours)
    }

    fn drop_schema(&self, drop: &DropCatalogSchema) -> Result<()> {
        if let SchemaReference::Full { catalog, .. } = &drop.name {
            check_catalog(catalog)?;
        }
        let name = drop.name.schema_name();
        self.find_files(name);
        let found = self.catalog.drop_schema(name, drop.cascade).map_err(ours)?;
        if found || drop.if_exists { Ok(()) } else { Err(ours(no_schema(name))) }
    }

    fn drop_object(&self, name: &TableReference, kind: Kind, if_exists: bool) -> Result<()> {
        if let Some(catalog) = name.catalog() {
            check_catalog(catalog)?;
        }
        let table = name.table();
        let schema = match name.schema() {
            Some(schema) => schema,
            // As names are looked up.
            None if self.scope.temporary.as_ref().is_some_and(|temporary| temporary.find(table).is_some()) => TEMP,
            None => &self.scope.schema,
        };
        check_changeable(schema)?;
        let found = match (&self.scope.temporary, schema) {
            (Some(temporary), TEMP) => temporary.drop_object(table, kind).map_err(ours)?,
            (_, schema) => {
                self.find_files(schema);
                self.catalog.drop_object(schema, table, kind).map_err(ours)?
            }
        };
        if found || if_exists {
            return Ok(());
        }
        let known = super::listing::listed_in(self.scope, schema);
        let error = Error::new(ErrorKind::NotFound, format!("no {kind} named '{schema}.{table}'"));
        let nearest = windrow_core::error::nearest(table, known.iter().map(|listed| listed.name.as_str()));
        Err(ours(error.with_suggestion(nearest)))
    }

    /// Where a new object goes.
    fn to_create(&self, name: &TableReference, is_temporary: bool) -> Result<Target> {
        if let Some(catalog) = name.catalog() {
            check_catalog(catalog)?;
        }
        let schema = match name.schema() {
            Some(schema) if is_temporary && schema != TEMP => {
                let message = format!("'{}' is temporary, and '{schema}' is a shared schema", name.table());
                return Err(ours(Error::new(ErrorKind::InvalidQuery, message).with_help("name it without a schema")));
            }
            Some(schema) => schema,
            None if is_temporary => TEMP,
            None => &self.scope.schema,
        };
        check_changeable(schema)?;
        if !self.scope.has_schema(schema) {
            return Err(ours(no_schema(schema)));
        }
        Ok(Target { schema: schema.to_owned(), name: name.table().to_owned() })
    }

    /// Looks before files are read: true if there is nothing to do. Who creates first is decided by the catalog, later.
    fn is_settled(&self, target: &Target, existing: Existing) -> Result<bool> {
        let Target { schema, name } = target;
        let found = match (&self.scope.temporary, schema.as_str()) {
            (Some(temporary), TEMP) => temporary.find(name).map(|object| object.kind()),
            _ => self.scope.objects.find(schema, name).map(|object| object.definition.kind()),
        };
        match (found, existing) {
            (Some(kind), Existing::Refuse) => Err(ours(taken(kind, schema, name))),
            (Some(_), Existing::Keep) => Ok(true),
            _ => Ok(false),
        }
    }

    /// What is dropped next takes its files along: those that were read from disk do not know them yet.
    fn find_files(&self, schema: &str) {
        self.scope.objects.in_schema(schema).for_each(|object| object.files.find(&object.definition, self.state));
    }

    fn create(&self, target: &Target, object: Arc<Object>, existing: Existing) -> Result<()> {
        if target.schema == TEMP {
            return self.create_temporary(&target.name, TemporaryObject::Defined(object), existing);
        }
        self.catalog.create(object, existing).map(drop).map_err(ours)
    }

    fn create_temporary(&self, name: &str, object: TemporaryObject, existing: Existing) -> Result<()> {
        let Some(temporary) = &self.scope.temporary else { return Err(ours(Error::internal("a scope without a session"))) };
        temporary.create(name, object, existing).map(drop).map_err(ours)
    }

    fn definition(&self, target: &Target, body: Body) -> Definition {
        let Target { schema, name } = target.clone();
        Definition { schema, name, owner: self.scope.viewer.name.clone(), created_at: now(), body }
    }
}

fn now() -> u64 {
    unix_nanos() / 1_000_000
}

fn existing(if_not_exists: bool, or_replace: bool) -> Result<Existing> {
    match (if_not_exists, or_replace) {
        (false, false) => Ok(Existing::Refuse),
        (true, false) => Ok(Existing::Keep),
        (false, true) => Ok(Existing::Replace),
        (true, true) => Err(ours(Error::new(ErrorKind::InvalidQuery, "IF NOT EXISTS and OR REPLACE exclude each other"))),
    }
}

fn check_catalog(catalog: &str) -> Result<()> {
    if catalog == CATALOG {
        return Ok(());
    }
    let error = Error::new(ErrorKind::NotFound, format!("no catalog named '{catalog}'"));
    Err(ours(error.with_help(format!("there is one, '{CATALOG}'"))))
}

fn check_changeable(schema: &str) -> Result<()> {
    if schema == SYSTEM || schema == INFORMATION {
        return Err(ours(Error::new(
            ErrorKind::InvalidQuery,
            format!("the schema '{schema}' is built in and cannot be changed"),
        )));
    }
    Ok(())
}

/// The columns of a table have names of their own, whatever tables they came from.
fn unique_columns(plan: &LogicalPlan) -> Result<()> {
    let mut seen = BTreeSet::new();
    match plan.schema().fields().iter().find(|field| !seen.insert(field.name().clone())) {
        Some(field) => {
            let error = Error::new(ErrorKind::InvalidQuery, format!("two columns are named '{}'", field.name()));
            Err(ours(error.with_help("give one of them another name with AS")))
        }
        None => Ok(()),
    }
}
