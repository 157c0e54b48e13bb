//! A client's session on the coordinator: settings, catalog, and what becomes of a statement. Next: `sql.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{LogicalPlan, SetVariable, Statement};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use windrow_core::config::QueryConfig;
use windrow_core::config::query::MEMORY_LIMIT;
use windrow_core::error::nearest;
use windrow_core::ids::StageId;
use windrow_core::stage::StageGraph;
use windrow_core::task::TaskMetrics;
use windrow_core::{Error, ErrorKind, Result};

use crate::access::{Access, Allowed};
use crate::catalog::{
    CATALOG, Catalog, Ddl, Listed, PUBLIC, Scope, ScopeParts, SystemSource, TablesRead, Temporary, Viewer, listed, names,
    schemas_of,
};
use crate::contain::contained_future;
use crate::describe::{Description, describe};
use crate::diagnose::diagnose;
use crate::exchange::{materialize_catalog, reads_catalog_only, single_right_side, yield_after_joins};
use crate::parameters::{self, Values};
use crate::sql::{Meaning, SettingStatement};
use crate::stores::Stores;
use crate::write::{self, BoundInsert, Ingest, IngestTarget, NewTable, Publication, Warehouse, count_rows, count_schema};
use crate::{explain, logical, physical, push_down_semi_join, sql, stages};

/// Stack of the thread that plans one statement. DataFusion recurses by the depth of expressions and plans; what `sql.rs` lets
/// through stays well below this in an unoptimized build.
const PLANNING_STACK_BYTES: usize = 64 << 20;

/// Statements of one session that are planned at a time, each on a thread. What is given up counts until its thread has ended.
const PLANNED_AT_A_TIME: usize = 64;

/// What the planner knows of the cluster: it plans for live slots, never for the client's cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterShape {
    /// Live executors.
    pub executors: u32,
    /// Slots over all live executors.
    pub slots: u32,
}

/// What a statement became.
#[derive(Debug)]
pub enum Planned {
    /// A job for the scheduler.
    Job(PlannedJob),
    /// Done in the coordinator: DDL, SET, SHOW, EXPLAIN, and queries over the catalog alone.
    Rows {
        /// Their schema.
        schema: SchemaRef,
        /// The rows, possibly none.
        batches: Vec<RecordBatch>,
    },
    /// COPY, INSERT: run the job, whose rows name the files that it wrote, and publish those.
    Write {
        /// The job.
        job: PlannedJob,
        /// Where its files go.
        publication: Publication,
        /// The table to be created over the files that are published.
        table: Option<NewTable>,
    },
    /// EXPLAIN ANALYZE: run the job, drop its rows, then [`PlannedJob::analyzed`] makes the answer.
    Analyze(PlannedJob),
}

impl Planned {
    /// The same rows, any column of which may be null: see [`parameters::nullable`].
    fn with_nullable_columns(mut self) -> Self {
        if let Self::Job(PlannedJob { schema, .. }) | Self::Rows { schema, .. } = &mut self {
            *schema = parameters::nullable(schema);
        }
        self
    }
}

/// A query as stages.
#[derive(Debug, Clone)]
pub struct PlannedJob {
    /// The stages.
    pub graph: StageGraph,
    /// The schema of the result: that of the statement's description. Batches are of the same types, and a column of theirs may be
    /// known to have no nulls.
    pub schema: SchemaRef,
    /// Kept until the job is released: the files of a table that is dropped meanwhile stay for as long.
    pub reads: TablesRead,
}

impl PlannedJob {
    /// The schema of what [`Self::analyzed`] returns.
    #[must_use]
    pub fn analyzed_schema() -> SchemaRef {
        explain::schema()
    }

    /// The rows that answer EXPLAIN ANALYZE: `(plan_type, plan)`, from the stages as they ran and the metrics of every attempt that
    /// succeeded.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the rows cannot be built.
    pub fn analyzed(graph: &StageGraph, metrics: &[(StageId, TaskMetrics)]) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        explain::rows(&[("stages with metrics", explain::analyzed_tree(graph, metrics))])
    }
}

/// Names for completion and suggestions.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Names {
    /// Tables with their columns.
    pub tables: Vec<(String, Vec<String>)>,
    /// Functions of every kind.
    pub functions: Vec<String>,
    /// Settings that SET takes.
    pub settings: Vec<String>,
}

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
        let SessionOptions { query, catalog, viewer, system, stores, allowed, warehouse } = options;
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
            .with_optimizer_rules(push_down_semi_join::optimizer_rules())
            .with_physical_optimizer_rules(physical::optimizer_rules())
            .build();
        let context = SessionContext::new_with_state(state);
        let query = RwLock::new(query);
        let (temporary, planning) = (Arc::default(), Arc::default());
        Ok(Self { inner: Arc::new(Inner { context, query, catalog, temporary, viewer, system, access, planning }) })
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

    async fn plan_in(
        &self,
        state: &SessionState,
        text: &str,
        values: Option<&RecordBatch>,
        query: QueryConfig,
        shape: ClusterShape,
    ) -> Result<Planned, DataFusionError> {
        let has_values = values.is_some_and(|values| values.num_columns() > 0);
        let meaning = sql::resolve(sql::parse(text)?, state, &self.access, &query.directory, Values::Rows(values)).await?;
        match meaning {
            Meaning::Query(plan) if has_values => {
                self.query_job(&plan, state, &query, shape).await.map(Planned::with_nullable_columns)
            }
            Meaning::Query(plan) => self.query_job(&plan, state, &query, shape).await,
            Meaning::Explain { plan, verbose } => {
                explain_query(&plan, verbose, (state, &self.access.warehouse), &query, shape).await
            }
            Meaning::Analyze(plan) => {
                let optimized = logical::optimize(&plan, state)?;
                let physical = physical_plan(&optimized, state, &query, shape).await?;
                Ok(Planned::Analyze(job(physical, &query, state)?))
            }
            Meaning::Write(plan) => self.write_job(&plan, state, &query, shape).await,
            Meaning::Session(plan) => self.change_session(text, plan, state, &query, shape).await,
            Meaning::Setting(statement) => self.setting(statement).map_err(|error| DataFusionError::External(Box::new(error))),
        }
    }

    async fn describe(&self, text: &str, values: Option<&RecordBatch>) -> Result<Description, DataFusionError> {
        let query = self.query();
        let state = self.state(&query);
        describe(text, values, &self.context, &state, (&self.access, &query.directory)).await
    }

    async fn query_job(
        &self,
        plan: &LogicalPlan,
        state: &SessionState,
        query: &QueryConfig,
        shape: ClusterShape,
    ) -> Result<Planned, DataFusionError> {
        let schema = logical::schema(plan, state)?;
        let optimized = logical::optimize(plan, state)?;
        self.access.check_plan(&optimized)?;
        let physical = physical_plan(&optimized, state, query, shape).await?;
        if reads_catalog_only(&physical.plan)? {
            let batches = collect(physical.plan, state.task_ctx()).await?;
            return Ok(Planned::Rows { schema, batches });
        }
        let plan = materialize_catalog(physical.plan, &state.task_ctx()).await?;
        let job = job(Physical { plan, ..physical }, query, state)?;
        Ok(Planned::Job(PlannedJob { schema, ..job }))
    }

    /// The job of a COPY, an INSERT or a CREATE TABLE.
    async fn write_job(
        &self,
        plan: &LogicalPlan,
        state: &SessionState,
        query: &QueryConfig,
        shape: ClusterShape,
    ) -> Result<Planned, DataFusionError> {
        if write::is_settled(plan, state).await? {
            let rows = count_rows(0).map_err(|error| DataFusionError::External(Box::new(error)))?;
            return Ok(Planned::Rows { schema: count_schema(), batches: vec![rows] });
        }
        let draft = write::draft(plan, state, &query.directory, &self.access.warehouse, true).await?;
        let physical = write_plan(&draft, state, query, shape).await?;
        let job = job(physical, query, state)?;
        Ok(Planned::Write { job, publication: draft.publication, table: draft.table })
    }

    async fn bound_insert(&self, text: &str) -> Result<Option<(BoundInsert, Publication)>, DataFusionError> {
        let query = self.query();
        let state = self.state(&query);
        match sql::resolve(sql::parse(text)?, &state, &self.access, &query.directory, Values::Open).await? {
            Meaning::Write(plan) => write::bound_insert(&plan, &state).await,
            _ => Ok(None),
        }
    }

    /// DDL, SET and prepared statements; EXECUTE becomes a query.
    async fn change_session(
        &self,
        text: &str,
        plan: LogicalPlan,
        state: &SessionState,
        query: &QueryConfig,
        shape: ClusterShape,
    ) -> Result<Planned, DataFusionError> {
        let result = match plan {
            LogicalPlan::Ddl(statement) => {
                let scope = self.scope(query);
                let ddl = Ddl { catalog: &self.catalog, scope: &scope, state, text };
                contained_future(ddl.perform(statement)).await?;
                return Ok(Planned::Rows { schema: Arc::new(Schema::empty()), batches: vec![] });
            }
            LogicalPlan::Statement(Statement::SetVariable(ref set)) => {
                check_setting(&set.variable, state)?;
                self.check_names(&set.variable, &set.value).map_err(|error| DataFusionError::External(Box::new(error)))?;
                self.context.execute_logical_plan(plan).await?
            }
            // DataFusion's default is a catalog that is not here.
            LogicalPlan::Statement(Statement::ResetVariable(reset)) if names_catalog(&reset.variable) => {
                return Ok(Planned::Rows { schema: Arc::new(Schema::empty()), batches: vec![] });
            }
            // DataFusion would go back to its own value, not to ours.
            LogicalPlan::Statement(Statement::ResetVariable(reset)) => {
                check_setting(&reset.variable, state)?;
                let variable = reset.variable.to_lowercase();
                let plan = match physical::value_of(&variable) {
                    Some(value) => Statement::SetVariable(SetVariable { variable, value: value.to_owned() }),
                    None => Statement::ResetVariable(reset),
                };
                self.context.execute_logical_plan(LogicalPlan::Statement(plan)).await?
            }
            plan => self.context.execute_logical_plan(plan).await?,
        };
        match result.into_unoptimized_plan() {
            LogicalPlan::EmptyRelation(_) => Ok(Planned::Rows { schema: Arc::new(Schema::empty()), batches: vec![] }),
            plan => self.query_job(&plan, state, query, shape).await,
        }
    }

    fn setting(&self, statement: SettingStatement) -> Result<Planned> {
        let mut query = self.query.write().unwrap_or_else(PoisonError::into_inner);
        match statement {
            SettingStatement::Set { key, value } => query.set(&key, &value)?,
            SettingStatement::Reset { key } => {
                let default = QueryConfig::default().get(&key).unwrap_or_default();
                query.set(&key, &default)?;
            }
            SettingStatement::Show { key } => {
                let Some(value) = query.get(&key) else {
                    return Err(QueryConfig::default()
                        .set(&key, "")
                        .err()
                        .unwrap_or_else(|| Error::internal("a key without value")));
                };
                return setting_rows(&key, value);
            }
        }
        Ok(Planned::Rows { schema: Arc::new(Schema::empty()), batches: vec![] })
    }

    /// Settings that name something which must be there.
    fn check_names(&self, key: &str, value: &str) -> Result<()> {
        match key.to_lowercase().as_str() {
            "datafusion.catalog.default_schema" => self.check_schema(value),
            "datafusion.catalog.default_catalog" => check_catalog(value),
            _ => Ok(()),
        }
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

fn names_catalog(setting: &str) -> bool {
    setting.eq_ignore_ascii_case("datafusion.catalog.default_catalog")
}

fn check_catalog(catalog: &str) -> Result<()> {
    if catalog == CATALOG {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, format!("no catalog named '{catalog}'")).with_help(format!("there is one, '{CATALOG}'")))
}

/// Refuses what may not be set, and names that do not exist, with the nearest one.
fn check_setting(name: &str, state: &SessionState) -> Result<(), DataFusionError> {
    let fail = |error: Error| Err(DataFusionError::External(Box::new(error)));
    let name = name.to_lowercase();
    if let Some((key, reason)) = physical::LOCKED.iter().find(|(key, _)| *key == name) {
        return fail(Error::new(ErrorKind::InvalidConfig, format!("{key} cannot be set: {reason}")));
    }
    let own = QueryConfig::KEYS.iter().map(|key| format!("windrow.query.{key}"));
    let known: Vec<String> = state.config_options().entries().into_iter().map(|entry| entry.key).chain(own).collect();
    let is_time_zone = ["timezone", "time.zone"].contains(&name.as_str());
    if is_time_zone || known.contains(&name) || !(name.starts_with("datafusion.") || name.starts_with("windrow.")) {
        return Ok(());
    }
    fail(
        Error::new(ErrorKind::InvalidConfig, format!("no setting named '{name}'"))
            .with_suggestion(nearest(&name, known.iter().map(String::as_str))),
    )
}

pub(crate) fn setting_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, false), Field::new("value", DataType::Utf8, false)]))
}

fn setting_rows(key: &str, value: String) -> Result<Planned> {
    use arrow::array::StringArray;
    let schema = setting_schema();
    let name = StringArray::from(vec![format!("windrow.query.{key}")]);
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(name), Arc::new(StringArray::from(vec![value]))])
        .map_err(|source| Error::internal("a setting does not fit its schema").with_source(source))?;
    Ok(Planned::Rows { schema, batches: vec![batch] })
}

/// The physical plan with Windrow's repairs, and whether it may be cut.
struct Physical {
    plan: Arc<dyn ExecutionPlan>,
    cut: bool,
}

async fn physical_plan(
    optimized: &LogicalPlan,
    state: &SessionState,
    query: &QueryConfig,
    shape: ClusterShape,
) -> Result<Physical, DataFusionError> {
    let bytes = physical::input_bytes(optimized, state).await?;
    let sizing = physical::size(bytes, query, shape);
    let plan = physical::plan(optimized, state, query, sizing).await?;
    let plan = if sizing.cut { single_right_side(plan)? } else { plan };
    Ok(Physical { plan: yield_after_joins(plan)?, cut: sizing.cut })
}

fn job(physical: Physical, query: &QueryConfig, state: &SessionState) -> Result<PlannedJob, DataFusionError> {
    let schema = physical.plan.schema();
    let division = stages::Division {
        cut: physical.cut,
        runtime_filters: query.runtime_filters,
        broadcast_max: Some(query.broadcast_limit.as_u64()).filter(|limit| *limit > 0),
    };
    let graph =
        StageGraph { stages: stages::split(physical.plan, division, &state.task_ctx())?, settings: settings(state, query) };
    graph.validate().map_err(|error| DataFusionError::External(Box::new(error)))?;
    Ok(PlannedJob { graph, schema, reads: TablesRead::default() })
}

/// The session's DataFusion options that differ from the defaults, and what executors must know of its own: nothing of them is in a
/// plan.
fn settings(state: &SessionState, query: &QueryConfig) -> Vec<(String, String)> {
    let defaults: BTreeMap<String, Option<String>> =
        SessionConfig::new().options().entries().into_iter().map(|entry| (entry.key, entry.value)).collect();
    state
        .config_options()
        .entries()
        .into_iter()
        .filter(|entry| defaults.get(&entry.key) != Some(&entry.value))
        .filter_map(|entry| Some((entry.key, entry.value?)))
        .chain((query.memory_limit.as_u64() > 0).then(|| (MEMORY_LIMIT.to_owned(), query.memory_limit.as_u64().to_string())))
        .collect()
}

async fn write_plan(
    draft: &write::Draft,
    state: &SessionState,
    query: &QueryConfig,
    shape: ClusterShape,
) -> Result<Physical, DataFusionError> {
    let optimized = logical::optimize(&draft.input, state)?;
    let physical = physical_plan(&optimized, state, query, shape).await?;
    let plan = materialize_catalog(physical.plan, &state.task_ctx()).await?;
    Ok(Physical { plan: draft.on(plan)?, ..physical })
}

async fn explain_query(
    plan: &LogicalPlan,
    verbose: bool,
    (state, warehouse): (&SessionState, &Warehouse),
    query: &QueryConfig,
    shape: ClusterShape,
) -> Result<Planned, DataFusionError> {
    let optimized = logical::optimize(plan, state)?;
    let physical = if write::is_write(plan, state, warehouse) {
        let draft = write::draft(plan, state, &query.directory, warehouse, false).await?;
        write_plan(&draft, state, query, shape).await?
    } else {
        physical_plan(&optimized, state, query, shape).await?
    };
    let undivided = datafusion::physical_plan::displayable(physical.plan.as_ref()).indent(true).to_string();
    let plan_of_catalog = materialize_catalog(physical.plan, &state.task_ctx()).await?;
    let job = job(Physical { plan: plan_of_catalog, cut: physical.cut }, query, state)?;
    let mut plans = vec![("logical plan", optimized.display_indent().to_string()), ("stages", explain::stage_tree(&job.graph))];
    if verbose {
        plans.insert(0, ("initial logical plan", plan.display_indent_schema().to_string()));
        plans.push(("undivided physical plan", undivided));
    }
    let (schema, batches) = explain::rows(&plans).map_err(|error| DataFusionError::External(Box::new(error)))?;
    Ok(Planned::Rows { schema, batches })
}
