//! What becomes of a statement: a job, rows that are there at once, a write, or a change of the session. Next: `../sql.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, SetVariable, Statement};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use windrow_core::config::QueryConfig;
use windrow_core::config::query::MEMORY_LIMIT;
use windrow_core::stage::StageGraph;
use windrow_core::{Error, ErrorKind};

use super::settings::{check_setting, names_catalog};
use super::{ClusterShape, Inner, Planned, PlannedJob};
use crate::at_once::rows_at_once;
use crate::catalog::{Ddl, TablesRead};
use crate::contain::contained_future;
use crate::describe::{Description, describe};
use crate::diagnose::ours;
use crate::exchange::{materialize_catalog, single_right_side, yield_after_joins};
use crate::parameters::Values;
use crate::python::{PythonFunction, PythonStyle};
use crate::sql::Meaning;
use crate::write::{self, BoundInsert, Publication, Warehouse, count_rows, count_schema};
use crate::{explain, logical, physical, python, sql, stages};

impl Inner {
    pub(super) async fn plan_in(
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
            Meaning::Setting(statement) => self.setting(statement).map_err(ours),
        }
    }

    pub(super) async fn describe(&self, text: &str, values: Option<&RecordBatch>) -> Result<Description, DataFusionError> {
        let query = self.query();
        let state = self.state(&query);
        describe(text, values, &self.context, &state, (&self.access, &query.directory)).await
    }

    pub(super) async fn query_job(
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
        if let Some(batches) = rows_at_once(&physical.plan, state).await? {
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
            let rows = count_rows(0).map_err(ours)?;
            return Ok(Planned::Rows { schema: count_schema(), batches: vec![rows] });
        }
        let draft = write::draft(plan, state, &query.directory, &self.access.warehouse, true).await?;
        let physical = write_plan(&draft, state, query, shape).await?;
        let job = job(physical, query, state)?;
        Ok(Planned::Write { job, publication: draft.publication, table: draft.table })
    }

    pub(super) async fn bound_insert(&self, text: &str) -> Result<Option<(BoundInsert, Publication)>, DataFusionError> {
        let query = self.query();
        let state = self.state(&query);
        match sql::resolve(sql::parse(text)?, &state, &self.access, &query.directory, Values::Open).await? {
            Meaning::Write(plan) => write::bound_insert(&plan, &state).await,
            _ => Ok(None),
        }
    }

    /// DDL, SET and prepared statements; EXECUTE becomes a query.
    pub(super) async fn change_session(
        &self,
        text: &str,
        plan: LogicalPlan,
        state: &SessionState,
        query: &QueryConfig,
        shape: ClusterShape,
    ) -> Result<Planned, DataFusionError> {
        if let Some(function) = python::created(&plan) {
            self.register_python(function?)?;
            return Ok(Planned::Rows { schema: Arc::new(Schema::empty()), batches: vec![] });
        }
        let result = match plan {
            LogicalPlan::Ddl(statement) => {
                let scope = self.scope(query);
                let ddl = Ddl { catalog: &self.catalog, scope: &scope, state, text };
                contained_future(ddl.perform(statement)).await?;
                return Ok(Planned::Rows { schema: Arc::new(Schema::empty()), batches: vec![] });
            }
            LogicalPlan::Statement(Statement::SetVariable(ref set)) => {
                check_setting(&set.variable, state)?;
                self.check_names(&set.variable, &set.value).map_err(ours)?;
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

    /// Makes a Python function known to later statements. It takes the place of another one, but not of a function of SQL.
    fn register_python(&self, function: PythonFunction) -> Result<(), DataFusionError> {
        let state = self.context.state();
        let scalar = state.scalar_functions().get(&function.name).is_some_and(|known| python::function_of(known).is_none());
        let aggregate = state.aggregate_functions().get(&function.name);
        let is_taken = scalar
            || aggregate.is_some_and(|known| python::aggregate_of(known).is_none())
            || state.window_functions().contains_key(&function.name);
        if is_taken {
            let error = Error::new(ErrorKind::InvalidQuery, format!("'{}' is a function of SQL", function.name));
            return Err(ours(error.with_help("register the Python function under another name")));
        }
        let function = Arc::new(function);
        match function.style {
            PythonStyle::Batches => {
                let what = format!("'{}' makes rows of rows, and functions of SQL make values", function.name);
                return Err(ours(Error::unsupported(what).with_help("call it with map_batches")));
            }
            PythonStyle::Values => self.context.register_udf(python::marker(function)),
            PythonStyle::Groups => self.context.register_udaf(python::marker_aggregate(function)),
        }
        Ok(())
    }
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
    graph.validate().map_err(ours)?;
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
    let (schema, batches) = explain::rows(&plans).map_err(ours)?;
    Ok(Planned::Rows { schema, batches })
}
