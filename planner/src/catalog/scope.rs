//! What one statement sees: the shared catalog at one moment, its session's temporary objects, and the cluster as it was when the
//! statement first asked. Next: `schemas.rs`, through which DataFusion sees it.

use std::sync::{Arc, OnceLock};

use datafusion::catalog::{EmptyCatalogProviderList, TableProvider};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use windrow_core::config::QueryConfig;
use windrow_core::{Error, ErrorKind};

use super::owned::TablesRead;
use super::schemas::Catalogs;
use super::system::{self, SystemSnapshot, SystemSource, Viewer};
use super::temporary::{Temporary, TemporaryObject};
use super::{Object, Objects, SYSTEM, TEMP, build};
use crate::diagnose::ours;
use crate::files::{FileTables, looks_like_path};
use crate::frames::{self, Frames};
use crate::stores::Stores;

/// The schema in which names without a schema are looked up: the temporary objects, then the current schema, then files. No name
/// that people write means it.
pub(super) const SEARCH: &str = "\u{1}search";

/// Views within views within views: more are taken for views that contain themselves.
const DEPTH_MAX: u32 = 32;

/// See the file's comment.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(super) objects: Arc<Objects>,
    /// `None` within shared views, which mean the same in every session.
    pub(super) temporary: Option<Arc<Temporary>>,
    pub(super) viewer: Viewer,
    pub(super) query: QueryConfig,
    system: Option<Arc<dyn SystemSource>>,
    stores: Arc<Stores>,
    /// Taken when first needed, and then the same for all of the statement.
    snapshot: Arc<OnceLock<SystemSnapshot>>,
    /// Whose files must stay while the statement runs.
    read: TablesRead,
    /// The session's settings and functions, without any catalog.
    base: SessionState,
    /// The current schema.
    pub(super) schema: String,
    /// Where relative paths begin.
    directory: String,
    /// What the statement may name before everything else.
    frames: Frames,
    depth: u32,
}

/// What a scope is made of.
#[derive(Debug)]
pub(crate) struct ScopeParts<'a> {
    pub(crate) objects: Arc<Objects>,
    pub(crate) temporary: &'a Arc<Temporary>,
    pub(crate) viewer: &'a Viewer,
    pub(crate) system: Option<&'a Arc<dyn SystemSource>>,
    pub(crate) stores: &'a Arc<Stores>,
    pub(crate) query: &'a QueryConfig,
}

impl Scope {
    /// The scope of one statement that is planned with `state`, whose own catalogs count for nothing.
    pub(crate) fn new(parts: ScopeParts<'_>, mut state: SessionState) -> Arc<Self> {
        // Whatever was set: the tables about the catalog are ours, and always there.
        state.config_mut().options_mut().catalog.information_schema = false;
        Arc::new(Self {
            objects: parts.objects,
            temporary: Some(Arc::clone(parts.temporary)),
            viewer: parts.viewer.clone(),
            query: parts.query.clone(),
            system: parts.system.map(Arc::clone),
            stores: Arc::clone(parts.stores),
            snapshot: Arc::default(),
            read: TablesRead::default(),
            schema: state.config_options().catalog.default_schema.clone(),
            directory: parts.query.directory.clone(),
            frames: Frames::default(),
            base: state,
            depth: 0,
        })
    }

    /// A state to plan with, whose catalog is this scope.
    pub(crate) fn state(self: &Arc<Self>) -> SessionState {
        let mut state = self.base.clone();
        state.config_mut().options_mut().catalog.default_schema.clone_from(&self.schema);
        state.register_catalog_list(Arc::new(Catalogs::new(Arc::clone(self))));
        state
    }

    /// The scope of a view's own text.
    pub(super) fn within(&self, schema: &str, directory: &str, is_temporary: bool) -> Result<Arc<Self>> {
        self.nested(schema, directory, is_temporary).map(Arc::new)
    }

    /// The scope of a statement over `frames`, which are as temporary views that nobody else sees.
    pub(crate) fn over(&self, frames: Frames) -> Result<Arc<Self>> {
        let mut over = self.nested(&self.schema, &self.directory, true)?;
        // A frame keeps its order, and the statement that reads it is a query around it.
        over.base.config_mut().options_mut().sql_parser.enable_subquery_sort_elimination = false;
        Ok(Arc::new(Self { frames, ..over }))
    }

    fn nested(&self, schema: &str, directory: &str, is_temporary: bool) -> Result<Self> {
        if self.depth >= DEPTH_MAX {
            let message = format!("views are nested more than {DEPTH_MAX} deep, or one contains itself");
            return Err(ours(Error::new(ErrorKind::InvalidQuery, message)));
        }
        Ok(Self {
            objects: Arc::clone(&self.objects),
            temporary: self.temporary.as_ref().filter(|_own| is_temporary).map(Arc::clone),
            viewer: self.viewer.clone(),
            query: self.query.clone(),
            system: self.system.as_ref().map(Arc::clone),
            stores: Arc::clone(&self.stores),
            snapshot: Arc::clone(&self.snapshot),
            read: self.read.clone(),
            base: self.base.clone(),
            schema: schema.to_owned(),
            directory: directory.to_owned(),
            frames: Frames::default(),
            depth: self.depth + 1,
        })
    }

    /// Where relative paths begin.
    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    /// The files and object stores that may be opened.
    pub(crate) fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Whether there is such a schema.
    pub(crate) fn has_schema(&self, schema: &str) -> bool {
        schema == TEMP || schema == SYSTEM || self.objects.has_schema(schema)
    }

    /// The table of an unqualified name.
    pub(super) async fn search(self: &Arc<Self>, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(plan) = self.frames.get(name) {
            return self.frame(plan).await.map(Some);
        }
        if let Some(table) = self.temporary(name).await? {
            return Ok(Some(table));
        }
        let table = match self.schema.as_str() {
            TEMP => None,
            SYSTEM => self.system(name)?,
            schema => self.shared(schema, name).await?,
        };
        match table {
            None if looks_like_path(name) => self.file(name).await.map(Some),
            table => Ok(table),
        }
    }

    pub(super) async fn temporary(self: &Arc<Self>, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.temporary.as_ref().and_then(|temporary| temporary.find(name)) {
            Some(TemporaryObject::Defined(object)) => self.table(&object, true).await.map(Some),
            Some(TemporaryObject::Memory(table)) => Ok(Some(table)),
            None => Ok(None),
        }
    }

    pub(super) async fn shared(self: &Arc<Self>, schema: &str, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.objects.find(schema, name) {
            Some(object) => self.table(&Arc::<Object>::clone(object), false).await.map(Some),
            None => Ok(None),
        }
    }

    /// A frame, as the view that it is: it sees none of the others.
    async fn frame(&self, plan: &LogicalPlan) -> Result<Arc<dyn TableProvider>> {
        let scope = self.over(Frames::default())?;
        // Boxed: the frame may be of a query over frames.
        let resolved = Box::pin(async move { frames::resolve(plan, &scope).await }).await?;
        build::view_table(resolved, "")
    }

    async fn table(self: &Arc<Self>, object: &Arc<Object>, is_temporary: bool) -> Result<Arc<dyn TableProvider>> {
        object.files.find(&object.definition, &self.base);
        self.read.add(object);
        build::table(self, object, is_temporary).await
    }

    /// The tables that were looked up so far.
    pub(crate) fn read(&self) -> TablesRead {
        self.read.clone()
    }

    /// A table about the cluster, or the session's settings.
    pub(super) fn system(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if name == system::SETTINGS {
            return system::settings_table(&self.query, self.base.config_options()).map(Some);
        }
        if !system::TABLES.contains(&name) {
            return Ok(None);
        }
        let snapshot = self.snapshot.get_or_init(|| match &self.system {
            Some(source) => source.snapshot(&self.viewer),
            None => SystemSnapshot::default(),
        });
        system::table(name, snapshot)
    }

    pub(super) async fn file(&self, name: &str) -> Result<Arc<dyn TableProvider>> {
        FileTables::new(self.base.clone(), self.directory.clone(), Arc::clone(&self.stores)).open(name).await
    }
}

/// `state` for resolving the names of `statement`: those without a schema are searched for. What follows is planned with `state`
/// itself, so that nobody sees the name of the search.
pub(crate) fn searching(state: &SessionState, statement: &Statement) -> SessionState {
    let mut state = searching_tables(state);
    if matches!(statement, Statement::CreateExternalTable(_)) {
        // It reads no table. DataFusion looks for the one that it makes, and one whose files are gone could not be replaced.
        state.register_catalog_list(Arc::new(EmptyCatalogProviderList));
    }
    state
}

/// As [`searching`], for what is no text.
pub(crate) fn searching_tables(state: &SessionState) -> SessionState {
    let mut state = state.clone();
    state.config_mut().options_mut().catalog.default_schema = SEARCH.to_owned();
    state
}

/// The name of a table that was not found, as its user would write it.
pub(crate) fn written(resolved: &str) -> &str {
    let name = resolved.strip_prefix(super::CATALOG).and_then(|rest| rest.strip_prefix('.')).unwrap_or(resolved);
    name.strip_prefix(SEARCH).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
}
