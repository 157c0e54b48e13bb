//! The step of a plan that calls a Python function, and how it is planned. Next: `exec.rs`.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, DFSchemaRef, TableReference, internal_err};
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use super::exec::order_of;
use super::{PythonFunction, PythonMapExec, PythonStyle};

/// Rows that a Python function makes of its input's, or its input's rows with a column that one makes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PythonMap {
    input: Arc<LogicalPlan>,
    function: Arc<PythonFunction>,
    /// Of a function that is not given rows.
    arguments: Vec<Expr>,
    /// The column that it makes, if it is not given rows.
    output: String,
    schema: DFSchemaRef,
}

impl PythonMap {
    /// The rows that `function` makes of those of `input`.
    ///
    /// # Errors
    /// `Internal` for a function that is not given rows.
    pub fn batches(input: Arc<LogicalPlan>, function: Arc<PythonFunction>) -> Result<LogicalPlan> {
        Self::try_new(input, function, Vec::new(), String::new()).map(Self::into_plan)
    }

    /// The rows of `input` and, in the column `output`, what `function` makes of the arguments.
    pub(crate) fn column(
        input: Arc<LogicalPlan>,
        function: Arc<PythonFunction>,
        arguments: Vec<Expr>,
        output: String,
    ) -> Result<LogicalPlan> {
        Self::try_new(input, function, arguments, output).map(Self::into_plan)
    }

    fn try_new(input: Arc<LogicalPlan>, function: Arc<PythonFunction>, arguments: Vec<Expr>, output: String) -> Result<Self> {
        let schema = if function.style == PythonStyle::Batches {
            if !arguments.is_empty() {
                return internal_err!("'{}' is given rows, not arguments", function.name);
            }
            DFSchema::try_from(function.schema.as_ref().clone())?
        } else {
            let value = Arc::new(function.value()?.as_ref().clone().with_name(&output));
            let columns = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
            let columns: Vec<(Option<TableReference>, Arc<Field>)> = columns.chain([(None, value)]).collect();
            DFSchema::new_with_metadata(columns, input.schema().metadata().clone())?
        };
        Ok(Self { input, function, arguments, output, schema: Arc::new(schema) })
    }

    fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The step that a plan's is, if it is one.
    pub(crate) fn of(plan: &LogicalPlan) -> Option<&Self> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    pub(crate) fn function(&self) -> &Arc<PythonFunction> {
        &self.function
    }
}

impl PartialOrd for PythonMap {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let of = |node: &Self| (Arc::clone(&node.function), node.arguments.clone(), node.output.clone());
        let order = of(self).partial_cmp(&of(other))?;
        if order == Ordering::Equal { self.input.partial_cmp(&other.input) } else { Some(order) }
    }
}

impl UserDefinedLogicalNodeCore for PythonMap {
    fn name(&self) -> &str {
        "PythonMap"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.arguments.clone()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        if self.function.style == PythonStyle::Batches {
            return self.schema.fields().iter().map(|field| field.name().clone()).collect();
        }
        HashSet::from([self.output.clone()])
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PythonMap: {}", self.function.name)?;
        if self.function.style != PythonStyle::Batches {
            let arguments: Vec<_> = self.arguments.iter().map(ToString::to_string).collect();
            write!(f, "({}) AS {}", arguments.join(", "), self.output)?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match <[_; 1]>::try_from(inputs) {
            Ok([input]) => Self::try_new(Arc::new(input), Arc::clone(&self.function), exprs, self.output.clone()),
            Err(_) => internal_err!("PythonMap has one input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        if self.function.style == PythonStyle::Batches {
            return None;
        }
        let width = self.input.schema().fields().len();
        let kept: Vec<usize> = output_columns.iter().copied().filter(|index| *index < width).collect();
        // A plan without columns is a case of its own everywhere.
        if kept.is_empty() && width > 0 && self.arguments.iter().all(|argument| argument.column_refs().is_empty()) {
            return Some(vec![vec![0]]);
        }
        Some(vec![kept])
    }
}

/// DataFusion's planner, which also knows our step.
pub(crate) fn query_planner() -> Arc<dyn QueryPlanner + Send + Sync> {
    Arc::new(Planner)
}

#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Self)]);
        planner.create_physical_plan(plan, session).await
    }
}

#[async_trait]
impl ExtensionPlanner for Planner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<PythonMap>() else { return Ok(None) };
        let [input] = inputs else { return internal_err!("PythonMap has one input") };
        let columns = node.input.schema();
        let arguments = node.arguments.iter().map(|argument| planner.create_physical_expr(argument, columns, session, context));
        let arguments = arguments.collect::<Result<Vec<_>>>()?;
        let order = if node.function.style == PythonStyle::Batches { order_of(input)? } else { None };
        let (input, function) = (Arc::clone(input), Arc::clone(&node.function));
        let exec = PythonMapExec::try_new(input, function, arguments, node.output.clone(), order)?;
        Ok(Some(Arc::new(exec)))
    }
}

/// The schema of rows with one column more.
pub(super) fn with_column(schema: &Schema, column: Field) -> Schema {
    let fields = schema.fields().iter().cloned().chain([Arc::new(column)]);
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
}
