//! The catalog that all sessions of a coordinator share: schemas, external tables and views.
//!
//! ```text
//! definition.rs  an object as plain data          store.rs      those on disk, a transaction for each change
//! ddl.rs         statements that change it        build.rs      tables made of definitions
//! scope.rs       what one statement sees          schemas.rs    the same as DataFusion asks for it
//! temporary.rs   each session's schema `temp`     system.rs     tables about the cluster
//! owned.rs       files that go with their table
//! listing.rs     what there is, without reading any of it
//! ```
//!
//! The catalog is a value that is replaced as a whole: a statement takes it once, and sees no change while it is planned. A change
//! is on disk before anybody sees it. Next: `scope.rs`.

mod build;
mod ddl;
mod definition;
mod listing;
mod owned;
mod schemas;
mod scope;
mod store;
mod system;
mod temporary;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use parking_lot::{Mutex, RwLock};
use windrow_core::{Error, ErrorKind, Result};

pub(crate) use ddl::Ddl;
pub use definition::{Body, Columns, Definition, Kind, TableDefinition, ViewDefinition};
pub use listing::Listed;
pub(crate) use listing::{listed, names, schemas_of};
use owned::OwnedFiles;
pub use owned::TablesRead;
pub(crate) use scope::{Scope, ScopeParts, searching, searching_tables, written};
use store::{Change, Store};
pub use system::{ExecutorRow, QueryRow, StageRow, SystemSnapshot, SystemSource, TaskRow, Viewer};
pub(crate) use temporary::{Temporary, in_temporary_schema};

/// The name of the only catalog.
pub const CATALOG: &str = "windrow";
/// The schema that sessions begin in. It cannot be dropped.
pub const PUBLIC: &str = "public";
/// The schema of a session's own tables and views.
pub const TEMP: &str = "temp";
/// The schema of the tables about the cluster.
pub const SYSTEM: &str = "system";
/// The schema of the tables about the catalog.
pub(crate) const INFORMATION: &str = "information_schema";

/// Schemas that nobody makes or drops.
const RESERVED: [&str; 3] = [TEMP, SYSTEM, INFORMATION];

/// Schemas, tables and views together. Each is some hundred bytes in memory, and more would not be looked through by people.
const OBJECTS_MAX: usize = 100_000;

/// What happens to an object that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the statement fails.
    Refuse,
    /// It stays, and the statement does nothing: IF NOT EXISTS.
    Keep,
    /// It goes: OR REPLACE.
    Replace,
}

/// The catalog of one coordinator. Objects are kept in memory, and on disk too if it was opened in a folder.
#[derive(Debug, Default)]
pub struct Catalog {
    objects: RwLock<Arc<Objects>>,
    /// Held from the look at what there is until the change is on disk and seen.
    changing: Mutex<()>,
    store: Option<Store>,
}

/// All objects at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    schemas: BTreeMap<String, Schema>,
}

#[derive(Debug, Clone, Default)]
struct Schema {
    /// `None` for `public`, which nobody made.
    definition: Option<Arc<Definition>>,
    objects: BTreeMap<String, Arc<Object>>,
}

/// A table or a view.
pub(crate) struct Object {
    pub(crate) definition: Definition,
    /// The table, once it was needed. A view is planned anew by each statement, with that session's settings.
    table: Mutex<Option<Arc<dyn TableProvider>>>,
    files: OwnedFiles,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.definition.fmt(f)
    }
}

impl Object {
    pub(crate) fn new(definition: Definition, table: Option<Arc<dyn TableProvider>>) -> Arc<Self> {
        Arc::new(Self { definition, table: Mutex::new(table), files: OwnedFiles::default() })
    }
}

impl Default for Objects {
    fn default() -> Self {
        Self { schemas: BTreeMap::from([(PUBLIC.to_owned(), Schema::default())]) }
    }
}

impl Objects {
    fn of(definitions: Vec<Definition>) -> Self {
        let mut objects = Self::default();
        for definition in definitions {
            let schema = objects.schemas.entry(definition.schema.clone()).or_default();
            match definition.body {
                Body::Schema => schema.definition = Some(Arc::new(definition)),
                Body::Table(_) | Body::View(_) => {
                    schema.objects.insert(definition.name.clone(), Object::new(definition, None));
                }
            }
        }
        objects
    }

    pub(crate) fn find(&self, schema: &str, name: &str) -> Option<&Arc<Object>> {
        self.schemas.get(schema)?.objects.get(name)
    }

    pub(crate) fn has_schema(&self, schema: &str) -> bool {
        self.schemas.contains_key(schema)
    }

    pub(crate) fn schema_names(&self) -> impl Iterator<Item = &str> {
        self.schemas.keys().map(String::as_str)
    }

    pub(crate) fn in_schema(&self, schema: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.schemas.get(schema).into_iter().flat_map(|schema| schema.objects.values())
    }

    /// The definition of a schema that somebody made.
    pub(crate) fn definition(&self, schema: &str) -> Option<Arc<Definition>> {
        self.schemas.get(schema)?.definition.clone()
    }

    fn count(&self) -> usize {
        self.schemas.values().map(|schema| 1 + schema.objects.len()).sum()
    }
}

impl Catalog {
    /// The catalog in `folder`, on disk; both are made if they are not there. Reads and writes files, so not for a runtime's thread
    /// that others wait for.
    ///
    /// # Errors
    /// `InvalidConfig` if another coordinator uses the folder, or its files are not ours or of another version; `Denied` if they
    /// cannot be read or written; `Data` if they are damaged.
    pub fn open(folder: &Path) -> Result<Self> {
        let (store, definitions) = Store::open(folder)?;
        Ok(Self { objects: RwLock::new(Arc::new(Objects::of(definitions))), changing: Mutex::default(), store: Some(store) })
    }

    /// Every schema but the built-in ones, every table and every view, by schema and name.
    #[must_use]
    pub fn definitions(&self) -> Vec<Definition> {
        let objects = self.objects();
        let schemas = objects.schemas.values();
        schemas
            .flat_map(|schema| {
                let own = schema.definition.iter().map(|definition| Definition::clone(definition));
                own.chain(schema.objects.values().map(|object| object.definition.clone()))
            })
            .collect()
    }

    pub(crate) fn objects(&self) -> Arc<Objects> {
        Arc::clone(&self.objects.read())
    }

    /// Creates a table or a view; returns whether anything has changed.
    pub(crate) fn create(&self, object: Arc<Object>, existing: Existing) -> Result<bool> {
        let Definition { schema, name, .. } = &object.definition;
        let _changing = self.changing.lock();
        let mut objects = Objects::clone(&self.objects());
        let Some(into) = objects.schemas.get_mut(schema) else { return Err(no_schema(schema)) };
        if let Some(before) = into.objects.get(name) {
            if existing == Existing::Keep {
                return Ok(false);
            }
            if existing == Existing::Refuse || before.definition.kind() != object.definition.kind() {
                return Err(taken(before.definition.kind(), schema, name));
            }
        }
        let replaced = into.objects.insert(name.clone(), Arc::clone(&object));
        self.commit(objects, &[Change::Put(&object.definition)])?;
        replaced.iter().for_each(|object| object.files.drop_with_last());
        Ok(true)
    }

    /// Creates a schema; returns whether anything has changed.
    pub(crate) fn create_schema(&self, definition: Definition, existing: Existing) -> Result<bool> {
        let name = definition.schema.clone();
        if existing == Existing::Keep && RESERVED.contains(&name.as_str()) {
            return Ok(false);
        }
        check_name(&name)?;
        let _changing = self.changing.lock();
        let mut objects = Objects::clone(&self.objects());
        if objects.has_schema(&name) {
            return if existing == Existing::Keep { Ok(false) } else { Err(taken_schema(&name)) };
        }
        let schema = Schema { definition: Some(Arc::new(definition.clone())), ..Schema::default() };
        objects.schemas.insert(name, schema);
        self.commit(objects, &[Change::Put(&definition)])?;
        Ok(true)
    }

    /// Drops a table or a view; returns whether there was one.
    pub(crate) fn drop_object(&self, schema: &str, name: &str, kind: Kind) -> Result<bool> {
        let _changing = self.changing.lock();
        let mut objects = Objects::clone(&self.objects());
        let Some(dropped) = objects.find(schema, name).cloned() else { return Ok(false) };
        let found = dropped.definition.kind();
        if found != kind {
            return Err(other_kind(found, schema, name));
        }
        if let Some(from) = objects.schemas.get_mut(schema) {
            from.objects.remove(name);
        }
        self.commit(objects, &[Change::Remove(&dropped.definition)])?;
        dropped.files.drop_with_last();
        Ok(true)
    }

    /// Drops a schema with what is in it; returns whether there was one.
    pub(crate) fn drop_schema(&self, name: &str, cascade: bool) -> Result<bool> {
        if name == PUBLIC || RESERVED.contains(&name) {
            return Err(Error::new(ErrorKind::InvalidQuery, format!("the schema '{name}' is built in and cannot be dropped")));
        }
        let _changing = self.changing.lock();
        let mut objects = Objects::clone(&self.objects());
        let Some(dropped) = objects.schemas.remove(name) else { return Ok(false) };
        if !cascade && !dropped.objects.is_empty() {
            let held = dropped.objects.keys().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if dropped.objects.len() > 3 { ", ..." } else { "" };
            return Err(Error::new(ErrorKind::InvalidQuery, format!("the schema '{name}' is not empty: {held}{more}"))
                .with_help("drop what is in it, or write DROP SCHEMA ... CASCADE"));
        }
        let held = dropped.objects.values().map(|object| &object.definition);
        let changes: Vec<_> = dropped.definition.iter().map(AsRef::as_ref).chain(held).map(Change::Remove).collect();
        self.commit(objects, &changes)?;
        dropped.objects.values().for_each(|object| object.files.drop_with_last());
        Ok(true)
    }

    /// On disk first, then seen.
    fn commit(&self, objects: Objects, changes: &[Change<'_>]) -> Result<()> {
        let grows = changes.iter().any(|change| matches!(change, Change::Put(_)));
        if grows && objects.count() > OBJECTS_MAX {
            let message = format!("the catalog has {OBJECTS_MAX} schemas, tables and views, and takes no more");
            return Err(Error::new(ErrorKind::ResourcesExhausted, message).with_help("drop some that nobody uses"));
        }
        if let Some(store) = &self.store {
            store.write(changes)?;
        }
        *self.objects.write() = Arc::new(objects);
        Ok(())
    }
}

fn check_name(name: &str) -> Result<()> {
    if RESERVED.contains(&name) {
        return Err(taken_schema(name));
    }
    if name.is_empty() || name.contains(char::is_control) {
        return Err(Error::new(
            ErrorKind::InvalidQuery,
            "a schema's name has at least one character, and none that is invisible",
        ));
    }
    Ok(())
}

fn taken_schema(name: &str) -> Error {
    Error::new(ErrorKind::InvalidQuery, format!("schema '{name}' already exists"))
        .with_help("choose another name, or write IF NOT EXISTS")
}

pub(crate) fn taken(kind: Kind, schema: &str, name: &str) -> Error {
    Error::new(ErrorKind::InvalidQuery, format!("{kind} '{schema}.{name}' already exists"))
        .with_help("choose another name, drop it first, or write OR REPLACE to replace one of the same kind")
}

fn other_kind(found: Kind, schema: &str, name: &str) -> Error {
    let help = format!("write DROP {}", found.word().to_uppercase());
    Error::new(ErrorKind::InvalidQuery, format!("'{schema}.{name}' is a {found}")).with_help(help)
}

pub(crate) fn no_schema(schema: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no schema named '{schema}'")).with_help(format!("CREATE SCHEMA {schema} makes one"))
}
