//! INSERT of values that a client binds to the parameters: however many rows of them, they are one write, of the coordinator's own.
//! Next: `ingest.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef};
use datafusion::datasource::{MemTable, provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Values, WriteOp, cast};
use datafusion::physical_plan::collect;
use windrow_core::{Error, ErrorKind};

use super::ingest::{Ingest, failed};
use super::publish::{Publication, WrittenFile};
use crate::contain::contained_future;
use crate::diagnose::ours;
use crate::parameters;

/// The name under which a statement sees the values that were bound.
const BOUND: &str = "bound";

/// The parameters with the types that the statement wants.
type Wanted = BTreeMap<String, Option<DataType>>;

/// An INSERT that waits for rows of values. Dropped before its files are published, it changes nothing.
pub struct BoundInsert {
    /// The query whose rows are inserted, which has one row of expressions over parameters.
    input: LogicalPlan,
    wanted: Wanted,
    state: SessionState,
    ingest: Ingest,
}

impl std::fmt::Debug for BoundInsert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundInsert").field("ingest", &self.ingest).finish_non_exhaustive()
    }
}

/// Begins to write what `plan` inserts, if it is an INSERT of one row of values with parameters.
pub(crate) async fn bound_insert(plan: &LogicalPlan, state: &SessionState) -> Result<Option<(BoundInsert, Publication)>> {
    let LogicalPlan::Dml(dml) = plan else { return Ok(None) };
    let wanted = parameters::wanted(plan)?;
    if !matches!(dml.op, WriteOp::Insert(InsertOp::Append)) || wanted.is_empty() || !has_one_row(&dml.input)? {
        return Ok(None);
    }
    let provider = source_as_provider(&dml.target)?;
    let columns = Arc::clone(dml.input.schema().inner());
    let (ingest, publication) = Ingest::append(&provider, &dml.table_name, &columns, state).await?;
    let input = LogicalPlan::clone(&dml.input);
    Ok(Some((BoundInsert { input, wanted, state: state.clone(), ingest }, publication)))
}

/// Whether the parameters of a query are all in one row of values.
fn has_one_row(plan: &LogicalPlan) -> Result<bool> {
    let (mut rows, mut others) = (0, 0);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Values(values) if values.values.len() == 1 => rows += 1,
            node if !parameters::of_node(node)?.is_empty() => others += 1,
            _ => {}
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    Ok(rows == 1 && others == 0)
}

impl BoundInsert {
    /// Writes what the statement inserts for each row of `values`.
    ///
    /// # Errors
    /// `InvalidQuery` for values that do not fit the parameters; those of the statement's expressions; as [`Ingest::write`].
    pub async fn write(&mut self, values: &RecordBatch) -> windrow_core::Result<()> {
        let rows = rows(&self.input, &self.wanted, &self.state, values);
        for batch in contained_future(rows).await.map_err(failed)? {
            self.ingest.write(&batch).await?;
        }
        Ok(())
    }

    /// Completes the files that are to be published.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn finish(self) -> windrow_core::Result<Vec<WrittenFile>> {
        self.ingest.finish().await.map(|(files, _no_table)| files)
    }
}

/// What is to be inserted for `values`: computed here, because the values are here.
async fn rows(input: &LogicalPlan, wanted: &Wanted, state: &SessionState, values: &RecordBatch) -> Result<Vec<RecordBatch>> {
    let plan = state.optimize(&over(input, wanted, values)?)?;
    collect(state.create_physical_plan(&plan).await?, state.task_ctx()).await
}

/// `plan` with a table of `values` in the place of its row of expressions over parameters.
fn over(plan: &LogicalPlan, wanted: &Wanted, values: &RecordBatch) -> Result<LogicalPlan> {
    let columns = parameters::columns(wanted, values)?;
    let fields = columns.iter().map(|(id, column)| Field::new(id, column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns.into_values().collect())?;
    let table = Arc::new(MemTable::try_new(schema, vec![vec![rows]])?);
    let replaced = plan.clone().transform_up(|node| match node {
        LogicalPlan::Values(Values { schema, values }) => {
            let [row] = <[_; 1]>::try_from(values).map_err(|_rows| ours(Error::internal("several rows of parameters")))?;
            let scan = LogicalPlanBuilder::scan(BOUND, provider_as_source(Arc::clone(&table) as _), None)?;
            scan.project(expressions(row, &schema)?)?.build().map(Transformed::yes)
        }
        node => node.recompute_schema().map(Transformed::yes),
    })?;
    Ok(replaced.data)
}

/// A row of expressions over parameters as expressions over columns, of the same names and types.
fn expressions(row: Vec<Expr>, schema: &DFSchemaRef) -> Result<Vec<Expr>> {
    let typed = |(expr, field): (Expr, &Arc<Field>)| {
        let over_columns = expr.transform_up(|expr| match expr {
            Expr::Placeholder(parameter) => Ok(Transformed::yes(Expr::Column(Column::new(Some(BOUND), parameter.id)))),
            expr => Ok(Transformed::no(expr)),
        })?;
        let expr = over_columns.data;
        let is_open = field.data_type().is_null();
        Ok(if is_open { expr } else { cast(expr, field.data_type().clone()) }.alias(field.name()))
    };
    if row.len() != schema.fields().len() {
        return Err(ours(Error::new(ErrorKind::Internal, "a row of values does not fit its schema")));
    }
    row.into_iter().zip(schema.fields()).map(typed).collect()
}
