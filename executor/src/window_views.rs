//! Windows that let go of the rows they have passed on. Next: `shuffle/read.rs`.
//!
//! DataFusion's bounded window operator appends each batch to what is left of those before, and cuts off what it is done with. The
//! append keeps every buffer of a string view column, however little of it is still shown, so that in the end the operator holds its
//! whole input, and nobody accounts for it. Here such columns are plain strings below the operator, whose append copies what is shown,
//! and views again above it.
//!
//! A column that the window functions themselves read stays as it is: they were planned for its type.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::BoundedWindowAggExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::StreamExt;

/// `plan` with bounded windows that hold no more than they need: the same rows, columns and partitions, and children at the same places.
///
/// # Errors
/// DataFusion's, if a node cannot be rebuilt.
pub(crate) fn with_windows_that_let_go(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        Ok(match WindowOverStringsExec::try_new(&node) {
            Some(window) => Transformed::yes(Arc::new(window) as Arc<dyn ExecutionPlan>),
            None => Transformed::no(node),
        })
    })
    .map(|transformed| transformed.data)
}

/// A bounded window whose input has strings in the place of string views.
#[derive(Debug)]
struct WindowOverStringsExec {
    /// As it was planned.
    planned: Arc<dyn ExecutionPlan>,
    /// What runs, over the strings.
    window: Arc<dyn ExecutionPlan>,
    /// `window` with views again.
    rows: Arc<dyn ExecutionPlan>,
}

impl WindowOverStringsExec {
    /// `None` if `planned` is no bounded window, or one without such columns.
    fn try_new(planned: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let window = planned.downcast_ref::<BoundedWindowAggExec>()?;
        let input = window.input();
        let schema = plain(&input.schema(), &read_by_functions(window.window_expr()))?;
        let strings: Arc<dyn ExecutionPlan> = Arc::new(CastExec::new(Arc::clone(input), schema));
        let (exprs, mode) = (window.window_expr().to_vec(), window.input_order_mode.clone());
        // Where it finds no order any more, all stays as it was.
        let window = BoundedWindowAggExec::try_new(exprs, strings, mode, false).ok()?;
        let window: Arc<dyn ExecutionPlan> = Arc::new(window);
        let rows = Arc::new(CastExec::new(Arc::clone(&window), planned.schema()));
        Some(Self { planned: Arc::clone(planned), window, rows })
    }
}

/// `schema` with strings in the place of views, but for columns in `kept`; `None` if that changes nothing.
fn plain(schema: &SchemaRef, kept: &[usize]) -> Option<SchemaRef> {
    let mut changed = false;
    let fields = schema.fields().iter().enumerate().map(|(index, field)| {
        let plain = match field.data_type() {
            DataType::Utf8View => DataType::LargeUtf8,
            DataType::BinaryView => DataType::LargeBinary,
            _ => return Arc::clone(field),
        };
        if kept.contains(&index) {
            return Arc::clone(field);
        }
        changed = true;
        Arc::new(Field::clone(field).with_data_type(plain))
    });
    let fields: Vec<_> = fields.collect();
    changed.then(|| Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
}

/// The columns that functions compute from: arguments, and keys that are more than a column.
fn read_by_functions(windows: &[Arc<dyn WindowExpr>]) -> Vec<usize> {
    let columns = |exprs: Vec<Arc<dyn PhysicalExpr>>| {
        exprs.iter().flat_map(collect_columns).map(|column| column.index()).collect::<Vec<_>>()
    };
    let keys = |exprs: Vec<Arc<dyn PhysicalExpr>>| columns(exprs.into_iter().filter(|expr| !expr.is::<Column>()).collect());
    windows
        .iter()
        .flat_map(|window| {
            let all = window.all_expressions();
            [columns(all.args), columns(window.expressions()), keys(all.partition_by_exprs), keys(all.order_by_exprs)].concat()
        })
        .collect()
}

impl DisplayAs for WindowOverStringsExec {
    fn fmt_as(&self, form: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        match self.planned.downcast_ref::<BoundedWindowAggExec>() {
            Some(window) => window.fmt_as(form, f),
            None => write!(f, "WindowOverStringsExec"),
        }
    }
}

impl ExecutionPlan for WindowOverStringsExec {
    fn name(&self) -> &'static str {
        "WindowOverStringsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.planned.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.planned.maintains_input_order()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.planned.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.planned.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planned = Arc::clone(&self.planned).replace_children(children, options)?;
        Ok(match Self::try_new(&planned) {
            Some(window) => Arc::new(window),
            None => planned,
        })
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.rows.execute(partition, context)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.window.metrics()
    }
}

/// Casts the columns of its input to the types of a schema that has the same order of values.
#[derive(Debug)]
struct CastExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl CastExec {
    fn new(input: Arc<dyn ExecutionPlan>, schema: SchemaRef) -> Self {
        let orderings = input.equivalence_properties().oeq_class().iter().cloned().collect::<Vec<_>>();
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema, orderings),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self { input, properties: Arc::new(properties) }
    }
}

fn as_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| {
        if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { cast(column, field.data_type()) }
    });
    let columns: Vec<ArrayRef> = columns.collect::<std::result::Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

impl DisplayAs for CastExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CastExec")
    }
}

impl ExecutionPlan for CastExec {
    fn name(&self) -> &'static str {
        "CastExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 1]>::try_from(children) {
            Ok([input]) => Ok(Arc::new(Self::new(input, self.schema()))),
            Err(_) => internal_err!("CastExec has one child"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        let rows = self.input.execute(partition, context)?.map(move |batch| as_schema(&batch?, &schema));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringViewArray};
    use datafusion::datasource::MemTable;
    use datafusion::physical_plan::collect;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    fn table() -> MemTable {
        let batch = |number: i64| {
            let ids = (number * 100)..(number * 100 + 100);
            let text = |id: i64| format!("a text that no view inlines, {id:06}");
            let columns: [(&str, ArrayRef); 3] = [
                ("k", Arc::new(Int64Array::from_iter_values(ids.clone()))),
                ("g", Arc::new(StringViewArray::from_iter_values(ids.clone().map(|id| text(id / 1_000))))),
                ("t", Arc::new(StringViewArray::from_iter_values(ids.map(text)))),
            ];
            RecordBatch::try_from_iter(columns).unwrap()
        };
        let batches: Vec<_> = (0..100).map(batch).collect();
        MemTable::try_new(batches[0].schema(), vec![batches]).unwrap()
    }

    const QUERIES: [&str; 5] = [
        "SELECT k, t, row_number() OVER (ORDER BY t, k) FROM big",
        "SELECT t, g, sum(k) OVER (PARTITION BY g ORDER BY k) FROM big",
        "SELECT t, lag(t) OVER (ORDER BY t), rank() OVER (ORDER BY g) FROM big",
        "SELECT g, t, count(*) OVER (PARTITION BY upper(g) ORDER BY t ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING) FROM big",
        "SELECT k, max(k) OVER (PARTITION BY g ORDER BY t) FROM big",
    ];

    /// A query's plan over `table`, ordered by its key.
    async fn plan(table: MemTable, sql: &str, lets_go: bool) -> (Arc<dyn ExecutionPlan>, Arc<TaskContext>) {
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1).with_batch_size(100));
        let table = table.with_sort_order(vec![vec![datafusion::prelude::col("k").sort(true, false)]]);
        session.register_table("big", Arc::new(table)).unwrap();
        let plan = session.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let schema = plan.schema();
        let plan = if lets_go { with_windows_that_let_go(plan).unwrap() } else { plan };
        assert_eq!(plan.schema(), schema);
        (plan, session.task_ctx())
    }

    #[tokio::test]
    async fn the_rows_are_the_same() {
        for sql in QUERIES {
            let run = async |lets_go| {
                let (plan, context) = plan(table(), sql, lets_go).await;
                let batches = collect(plan, context).await.unwrap();
                arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
            };
            assert_eq!(run(true).await, run(false).await, "{sql}");
        }
    }

    /// How many of the table's batches the plan holds the strings of, after most were passed on.
    async fn held(lets_go: bool) -> usize {
        let table = table();
        let batches: Vec<RecordBatch> = table.batches[0].read().await.clone();
        let strings: Vec<_> = batches.iter().map(|batch| batch.column(2).as_string_view().data_buffers()[0].clone()).collect();
        let before: Vec<usize> = strings.iter().map(arrow::buffer::Buffer::strong_count).collect();
        let (plan, context) = plan(table, "SELECT t, row_number() OVER (ORDER BY k) FROM big", lets_go).await;
        let mut rows = plan.execute(0, context).unwrap();
        for _ in 0..90 {
            rows.next().await.unwrap().unwrap();
        }
        strings.iter().zip(before).take(80).filter(|(buffer, before)| buffer.strong_count() > *before).count()
    }

    #[tokio::test]
    async fn what_was_passed_on_is_not_held() {
        assert_eq!((held(false).await, held(true).await), (80, 0));
    }
}
