//! A client's session on the coordinator: settings, catalog, and what becomes of a statement. Next: `session/statement.rs`.

mod frames;
mod planned;
mod plans;
mod settings;
mod statement;

use std::sync::{Arc, PoisonError, RwLock};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use windrow_core::config::QueryConfig;
use windrow_core::error::nearest;
use windrow_core::{Error, ErrorKind, Result};

use crate::access::{Access, Allowed};
use crate::catalog::{
    CATALOG, Catalog, Listed, PUBLIC, Scope, ScopeParts, SystemSource, Temporary, Viewer, listed, names, schemas_of,
};
use crate::describe::Description;
use crate::diagnose::diagnose;
use crate::stores::Stores;
use crate::write::{self, BoundInsert, Ingest, IngestTarget, NewTable, Publication, Warehouse};
use crate::{physical, push_down_semi_join, python};

pub use planned::{ClusterShape, Names, Planned, PlannedJob};
use settings::check_catalog;
pub(crate) use settings::setting_schema;

/// Stack of the thread that plans one statement. DataFusion recurses by the depth of expressions and plans; what `sql.rs` lets
/// through stays well below this in an unoptimized build.
const PLANNING_STACK_BYTES: usize = 64 << 20;

/// Statements of one session that are planned at a time, each on a thread. What is given up counts until its thread has ended.
const PLANNED_AT_A_TIME: usize = 64;

/// What a session is made with.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Its settings at the start.
    pub query: QueryConfig,
    /// The catalog that it shares with other sessions; by default an empty one of its own.
    pub catalog: Arc<Catalog>,
    /// For whom it works.
    pub viewer: Viewer,
    /// Where the rows of `windrow.system` come from; without one there are none.
    pub system: Option<Arc<dyn SystemSource>>,
    /// The files and object stores that its statements may name.
    pub stores: Arc<Stores>,
    /// What its statements may do, for as long as it lives.
    pub allowed: Allowed,
    /// Where the tables are kept that CREATE TABLE makes.
    pub warehouse: Warehouse,
    /// Whether plans are taken that clients made, beside SQL.
    pub accept_plans: bool,
}

/// A client's session: settings and catalog. Statements may run side by side.
#[derive(Debug, Clone)]
pub struct PlannerSession {
    inner: Arc<Inner>,
}

struct Inner {
    context: SessionContext,
    query: RwLock<QueryConfig>,
    catalog: Arc<Catalog>,
    temporary: Arc<Temporary>,
    viewer: Viewer,
    system: Option<Arc<dyn SystemSource>>,
    access: Access,
    accept_plans: bool,
    /// Statements that are being planned, given up ones included, which end when they would wait.
    planning: Arc<()>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("session", &self.context.session_id()).field("query", &self.query()).finish()
    }
}

impl PlannerSession {
    /// A session as `options` say.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if a setting does not fit.
    pub fn new(options: SessionOptions) -> Result<Self> {
        let SessionOptions { query, catalog, viewer, system, stores, allowed, warehouse, accept_plans } = options;
        let access = Access { stores, allowed, warehouse };
        let unfit = |source: DataFusionError| Error::new(ErrorKind::InvalidConfig, source.to_string());
        // The catalog is not DataFusion's: each statement brings its own view of it.
        let mut config =
            SessionConfig::new().with_create_default_catalog_and_schema(false).with_default_catalog_and_schema(CATALOG, PUBLIC);
        physical::configure(config.options_mut()).map_err(unfit)?;
        // The listing cache has no expiry: a file added to a folder would never be seen.
        let runtime = RuntimeEnvBuilder::new()
            .with_object_list_cache_limit(0)
            .with_object_store_registry(Arc::clone(&access.stores) as Arc<dyn ObjectStoreRegistry>)
            .build_arc()
            .map_err(unfit)?;
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_query_planner(python::query_planner())
            .with_optimizer_rules(push_down_semi_join::optimizer_rules())
            .with_physical_optimizer_rules(physical::optimizer_rules())
            .build();
        let context = SessionContext::new_with_state(state);
        let query = RwLock::new(query);
        let (temporary, planning) = (Arc::default(), Arc::default());
        Ok(Self { inner: Arc::new(Inner { context, query, catalog, temporary, viewer, system, access, accept_plans, planning }) })
    }

    /// Plans exactly one statement; a trailing `;` is allowed. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// `InvalidQuery` with a span and a suggestion, `NotFound`, `Unsupported`, `Data`.
    pub async fn plan(&self, text: &str, shape: ClusterShape) -> Result<Planned> {
        self.plan_with(text, None, shape).await
    }

    /// As [`Self::plan`], with the values of the statement's parameters: a column for each, by position, or by name for those that
    /// the text names. Several rows are the query once for each, the results one after the other.
    ///
    /// # Errors
    /// As [`Self::plan`]; `InvalidQuery` for values that are missing, too many, or of no use for their parameter, `Unsupported` for
    /// several rows where their results would not be in order.
    pub async fn plan_with(&self, text: &str, values: Option<&RecordBatch>, shape: ClusterShape) -> Result<Planned> {
        let (inner, text, values) = (Arc::clone(&self.inner), text.to_owned(), values.cloned());
        let place = self.place()?;
        on_planning_stack(move || async move {
            let _place = place;
            match inner.plan(&text, values.as_ref(), shape).await {
                Ok(planned) => Ok(planned),
                Err(error) => Err(diagnose(error, &inner.names())),
            }
        })
        .await?
    }

    /// The schema of a statement's rows without running it.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub async fn schema(&self, text: &str) -> Result<SchemaRef> {
        self.describe(text).await.map(|description| description.schema)
    }

    /// What a statement is, without running it.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub async fn describe(&self, text: &str) -> Result<Description> {
        self.describe_with(text, None).await
    }

    /// As [`Self::describe`], after `values` were bound: the statement has no parameters any more.
    ///
    /// # Errors
    /// As [`Self::plan_with`].
    pub async fn describe_with(&self, text: &str, values: Option<&RecordBatch>) -> Result<Description> {
        let (inner, text, values) = (Arc::clone(&self.inner), text.to_owned(), values.cloned());
        let place = self.place()?;
        on_planning_stack(move || async move {
            let _place = place;
            match inner.describe(&text, values.as_ref()).await {
                Ok(description) => Ok(description),
                Err(error) => Err(diagnose(error, &inner.names())),
            }
        })
        .await?
    }

    /// Begins to write rows that a client sends, of the columns `schema`. Whoever writes them publishes them with the publication, and
    /// creates the table that [`Ingest::finish`] may name with [`Self::create_table`].
    ///
    /// # Errors
    /// `Denied` if the session may not write; `InvalidQuery` for a table that exists or columns that do not fit it; `NotFound`;
    /// `Unsupported` for tables that cannot be added to.
    pub async fn ingest(&self, target: IngestTarget, schema: SchemaRef) -> Result<(Ingest, Publication)> {
        self.inner.access.allowed.admit(target.need())?;
        let inner = Arc::clone(&self.inner);
        let place = self.place()?;
        on_planning_stack(move || async move {
            let _place = place;
            let state = inner.state(&inner.query());
            match write::ingest(&target, &schema, &state, &inner.access.warehouse).await {
                Ok(ingest) => Ok(ingest),
                Err(error) => Err(diagnose(error, &inner.names())),
            }
        })
        .await?
    }

    /// Begins an INSERT of the values that a client binds to the parameters of `text`, however many rows of them; `None` for other
    /// statements. Whoever writes them publishes them with the publication.
    ///
    /// # Errors
    /// Those of planning, as [`Self::ingest`].
    pub async fn bound_insert(&self, text: &str) -> Result<Option<(BoundInsert, Publication)>> {
        let inner = Arc::clone(&self.inner);
        let text = text.to_owned();
        let place = self.place()?;
        on_planning_stack(move || async move {
            let _place = place;
            match inner.bound_insert(&text).await {
                Ok(insert) => Ok(insert),
                Err(error) => Err(diagnose(error, &inner.names())),
            }
        })
        .await?
    }

    /// Creates a table over files that are published.
    ///
    /// # Errors
    /// `InvalidQuery` if one of its name has been created meanwhile.
    pub async fn create_table(&self, table: NewTable) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let place = self.place()?;
        on_planning_stack(move || async move {
            let _place = place;
            let (query, nothing) = (inner.query(), ClusterShape { executors: 1, slots: 1 });
            let state = inner.state(&query);
            match inner.change_session("", table.statement(), &state, &query, nothing).await {
                Ok(_no_rows) => Ok(()),
                Err(error) => Err(diagnose(error, &inner.names())),
            }
        })
        .await?
    }

    /// A place among the statements that this session plans.
    fn place(&self) -> Result<Arc<()>> {
        let place = Arc::clone(&self.inner.planning);
        // One is the session's own.
        if Arc::strong_count(&place) <= PLANNED_AT_A_TIME + 1 {
            return Ok(place);
        }
        let message = format!("{PLANNED_AT_A_TIME} statements of this session are being planned, as many as are allowed");
        Err(Error::new(ErrorKind::ResourcesExhausted, message).with_help("wait for one of them to start"))
    }

    /// Where tables, functions and DataFusion's settings are.
    pub(crate) fn context(&self) -> &SessionContext {
        &self.inner.context
    }

    /// The session's own settings as they are now.
    #[must_use]
    pub fn query_settings(&self) -> QueryConfig {
        self.inner.query()
    }

    /// Names for completion.
    ///
    /// # Errors
    /// None today; a catalog that must be asked over the network may fail.
    pub async fn names(&self) -> Result<Names> {
        Ok(self.inner.names())
    }

    /// The schemas that the session sees, by name.
    #[must_use]
    pub fn schemas(&self) -> Vec<String> {
        schemas_of(&self.inner.scope(&self.inner.query()))
    }

    /// The tables and views that the session sees, by schema and name. No file is opened for it.
    #[must_use]
    pub fn listing(&self) -> Vec<Listed> {
        listed(&self.inner.scope(&self.inner.query()))
    }

    /// The shared catalog.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.inner.catalog
    }

    /// The schema in which names without a schema are looked up, after the session's temporary tables.
    #[must_use]
    pub fn current_schema(&self) -> String {
        self.inner.context.state().config_options().catalog.default_schema.clone()
    }

    /// Changes the current schema, as `SET datafusion.catalog.default_schema` does.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name.
    pub fn set_schema(&self, schema: &str) -> Result<()> {
        self.inner.check_schema(schema)?;
        let state = self.inner.context.state_ref();
        state.write().config_mut().options_mut().catalog.default_schema = schema.to_owned();
        Ok(())
    }

    /// Changes the current catalog. There is only one, so this only refuses others.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn set_catalog(&self, catalog: &str) -> Result<()> {
        check_catalog(catalog)
    }
}

/// Runs a future on a thread of its own with a large stack, and ends with an error instead of the process if it panics.
async fn on_planning_stack<F, T>(make: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let runtime = tokio::runtime::Handle::try_current()
        .map_err(|source| Error::internal("planning outside of a tokio runtime").with_source(source))?;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("windrow-plan".to_owned())
        .stack_size(PLANNING_STACK_BYTES)
        .spawn(move || {
            let mut sender = sender;
            // Whoever asked may be gone, tired of waiting; then nobody needs the answer, and what waits for files ends here.
            let answer = runtime.block_on(async {
                tokio::select! {
                    answer = make() => Some(answer),
                    () = sender.closed() => None,
                }
            });
            if let Some(answer) = answer {
                let _ = sender.send(answer);
            }
        })
        .map_err(|source| Error::new(ErrorKind::ResourcesExhausted, "no thread to plan on").with_source(source))?;
    receiver.await.map_err(|source| Error::internal("planning panicked").with_source(source))
}

impl Inner {
    fn query(&self) -> QueryConfig {
        self.query.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What one statement sees: a snapshot of settings and catalog.
    fn scope(&self, query: &QueryConfig) -> Arc<Scope> {
        let mut state = self.context.state();
        // `now()` is one instant for the whole statement.
        state.mark_start_execution();
        let parts = ScopeParts {
            objects: self.catalog.objects(),
            temporary: &self.temporary,
            viewer: &self.viewer,
            system: self.system.as_ref(),
            stores: &self.access.stores,
            query,
        };
        Scope::new(parts, state)
    }

    /// The session's state for one statement.
    fn state(&self, query: &QueryConfig) -> SessionState {
        self.scope(query).state()
    }

    fn check_schema(&self, schema: &str) -> Result<()> {
        let scope = self.scope(&self.query());
        if scope.has_schema(schema) {
            return Ok(());
        }
        let known = schemas_of(&scope);
        let error = Error::new(ErrorKind::NotFound, format!("no schema named '{schema}'"));
        Err(error.with_suggestion(nearest(schema, known.iter().map(String::as_str))))
    }

    async fn plan(&self, text: &str, values: Option<&RecordBatch>, shape: ClusterShape) -> Result<Planned, DataFusionError> {
        let query = self.query();
        let scope = self.scope(&query);
        let mut planned = self.plan_in(&scope.state(), text, values, query, shape).await?;
        if let Planned::Job(job) | Planned::Analyze(job) | Planned::Write { job, .. } = &mut planned {
            job.reads = scope.read();
        }
        Ok(planned)
    }

    fn names(&self) -> Names {
        let state = self.context.state();
        let tables = names(&self.scope(&self.query()));
        let scalar = state.scalar_functions().keys();
        let mut functions: Vec<String> =
            scalar.chain(state.aggregate_functions().keys()).chain(state.window_functions().keys()).cloned().collect();
        functions.sort_unstable();
        functions.dedup();
        let own = QueryConfig::KEYS.iter().map(|key| format!("windrow.query.{key}"));
        let settings = own.chain(state.config_options().entries().into_iter().map(|entry| entry.key)).collect();
        Names { tables, functions, settings }
    }
}
