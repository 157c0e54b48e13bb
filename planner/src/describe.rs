//! What a statement is, without running it: the schema of its rows and the parameters it takes. Next: `logical.rs`.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, Statement as PlanStatement};
use datafusion::prelude::SessionContext;

use crate::access::Access;
use crate::parameters::{self, Values};
use crate::session::setting_schema;
use crate::sql::{Meaning, SettingStatement};
use crate::{explain, logical, sql, statement};

/// A statement as drivers ask for it before they run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Whether it changes something, data or session, instead of having rows.
    pub is_update: bool,
    /// The schema of its rows: that of every run of it, as long as the tables stay as they are.
    pub schema: SchemaRef,
    /// Its parameters in the order in which values are bound, named as in the text; the type `Null` takes any value.
    pub parameters: SchemaRef,
}

/// Describes one statement, whose parameters have no values yet or those of `values`. It must be one that `access` covers, its relative
/// paths starting at the directory.
pub(crate) async fn describe(
    text: &str,
    values: Option<&RecordBatch>,
    context: &SessionContext,
    state: &SessionState,
    (access, directory): (&Access, &str),
) -> Result<Description, DataFusionError> {
    let statement = sql::parse(text)?;
    let is_update = statement::changes_something(text);
    let values = values.filter(|values| values.num_columns() > 0);
    let bound = values.map_or(Values::Open, |values| Values::Rows(Some(values)));
    let none = || Arc::new(Schema::empty());
    let (schema, parameters) = match sql::resolve(statement, state, access, directory, bound).await? {
        Meaning::Query(plan) => {
            let parameters = parameters::schema(text, &plan)?;
            let has_parameters = values.is_some() || !parameters.fields().is_empty();
            (schema_of(&plan, has_parameters, state)?, parameters)
        }
        Meaning::Explain { plan, .. } | Meaning::Analyze(plan) => (explain::schema(), parameters::schema(text, &plan)?),
        Meaning::Setting(SettingStatement::Show { .. }) => (setting_schema(), none()),
        Meaning::Setting(_) => (none(), none()),
        Meaning::Session(plan) if matches!(plan, LogicalPlan::Statement(PlanStatement::Execute(_))) => {
            let parameters = parameters::schema(text, &plan)?;
            // Looks up what PREPARE kept; nothing runs.
            let prepared = context.execute_logical_plan(plan).await?.into_unoptimized_plan();
            (logical::schema(&prepared, state)?, parameters)
        }
        Meaning::Session(plan) | Meaning::Write(plan) => (none(), parameters::schema(text, &plan)?),
    };
    Ok(Description { is_update, schema, parameters })
}

/// The schema of a query's rows. What takes any value may not fit the functions around it before it has one; then the plan's
/// schema before coercion is the best there is.
pub(crate) fn schema_of(plan: &LogicalPlan, has_parameters: bool, state: &SessionState) -> Result<SchemaRef, DataFusionError> {
    if !has_parameters {
        return logical::schema(plan, state);
    }
    let schema = logical::schema(plan, state).unwrap_or_else(|_open| Arc::new(plan.schema().as_arrow().clone()));
    Ok(parameters::nullable(&schema))
}
