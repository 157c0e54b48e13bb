//! Joins that stop when they are told to. Next: `window_views.rs`.
//!
//! DataFusion's joins go on within one call for as long as their filter keeps none of the pairs that they try, which can be all pairs
//! of two tables, and whoever wants to stop them waits. They evaluate the filter once for a batch of pairs; so here the filter fails as
//! soon as its attempt is cancelled.

use std::fmt::{self, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec};
use tokio_util::sync::CancellationToken;
use windrow_core::{Error, ErrorKind};

/// `plan` with filters of joins that fail once `cancel` is: the same rows, columns and partitions, and children at the same places.
///
/// # Errors
/// DataFusion's, if a node cannot be rebuilt.
pub(crate) fn with_joins_that_stop(plan: Arc<dyn ExecutionPlan>, cancel: &CancellationToken) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        Ok(match rebuilt(&node, cancel)? {
            Some(join) => Transformed::yes(join),
            None => Transformed::no(node),
        })
    })
    .map(|transformed| transformed.data)
}

/// `None` for what is no join with a filter.
fn rebuilt(node: &Arc<dyn ExecutionPlan>, cancel: &CancellationToken) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let stoppable = |filter: &JoinFilter| {
        let expression = Arc::new(StoppableExpr { inner: Arc::clone(filter.expression()), cancel: cancel.clone() });
        JoinFilter::new(expression, filter.column_indices().to_vec(), Arc::clone(filter.schema()))
    };
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let Some(filter) = join.filter() else { return Ok(None) };
        return join.builder().with_filter(Some(stoppable(filter))).build_exec().map(Some);
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let Some(filter) = join.filter() else { return Ok(None) };
        let join = NestedLoopJoinExecBuilder::from(join).with_filter(Some(stoppable(filter))).build()?;
        return Ok(Some(Arc::new(join)));
    }
    if let Some(join) = node.downcast_ref::<SortMergeJoinExec>() {
        let Some(filter) = join.filter() else { return Ok(None) };
        let join = SortMergeJoinExec::try_new(
            Arc::clone(join.left()),
            Arc::clone(join.right()),
            join.on().to_vec(),
            Some(stoppable(filter)),
            join.join_type(),
            join.sort_options().to_vec(),
            join.null_equality(),
        )?;
        return Ok(Some(Arc::new(join)));
    }
    Ok(None)
}

/// An expression that fails once its attempt is cancelled.
#[derive(Debug)]
struct StoppableExpr {
    inner: Arc<dyn PhysicalExpr>,
    cancel: CancellationToken,
}

impl PartialEq for StoppableExpr {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for StoppableExpr {}

impl Hash for StoppableExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Display for StoppableExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for StoppableExpr {
    fn data_type(&self, input_schema: &Schema) -> Result<DataType> {
        self.inner.data_type(input_schema)
    }

    fn nullable(&self, input_schema: &Schema) -> Result<bool> {
        self.inner.nullable(input_schema)
    }

    fn return_field(&self, input_schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.cancel.is_cancelled() {
            return Err(DataFusionError::External(Box::new(Error::new(ErrorKind::Cancelled, "the attempt was cancelled"))));
        }
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let [inner] = children.as_slice() else { return internal_err!("{} children for a filter", children.len()) };
        Ok(Arc::new(Self { inner: Arc::clone(inner), cancel: self.cancel.clone() }))
    }

    fn fmt_sql(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::array::{BooleanArray, Int64Array};
    use arrow::datatypes::Field;
    use datafusion::common::{JoinSide, JoinType, NullEquality};
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::execution::TaskContext;
    use datafusion::physical_expr::expressions::col;
    use datafusion::physical_plan::joins::utils::ColumnIndex;
    use datafusion::physical_plan::joins::{HashJoinExecBuilder, PartitionMode};
    use futures::StreamExt;

    use super::*;

    /// Keeps no pair; the evaluation of that number is interrupted.
    #[derive(Debug)]
    struct KeepsNone {
        cancel: CancellationToken,
        seen: Arc<AtomicUsize>,
    }

    const INTERRUPTED: usize = 3;

    impl PartialEq for KeepsNone {
        fn eq(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.seen, &other.seen)
        }
    }

    impl Eq for KeepsNone {}

    impl Hash for KeepsNone {
        fn hash<H: Hasher>(&self, _state: &mut H) {}
    }

    impl Display for KeepsNone {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            f.write_str("keeps none")
        }
    }

    impl PhysicalExpr for KeepsNone {
        fn data_type(&self, _schema: &Schema) -> Result<DataType> {
            Ok(DataType::Boolean)
        }

        fn nullable(&self, _schema: &Schema) -> Result<bool> {
            Ok(false)
        }

        fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
            if self.seen.fetch_add(1, Ordering::Relaxed) + 1 == INTERRUPTED {
                self.cancel.cancel();
            }
            Ok(ColumnarValue::Array(Arc::new(BooleanArray::from(vec![false; batch.num_rows()]))))
        }

        fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
            Vec::new()
        }

        fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
            Ok(self)
        }

        fn fmt_sql(&self, f: &mut Formatter<'_>) -> fmt::Result {
            Display::fmt(self, f)
        }
    }

    /// 8,000 rows of one key.
    fn side() -> Arc<dyn ExecutionPlan> {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false)]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(vec![7; 8000]))]).unwrap();
        MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None).unwrap()
    }

    #[tokio::test]
    async fn every_join_stops_at_the_next_batch_of_pairs() {
        for which in ["hash", "nested loop", "sort merge"] {
            let (cancel, seen) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
            let expression = Arc::new(KeepsNone { cancel: cancel.clone(), seen: Arc::clone(&seen) });
            let columns = [JoinSide::Left, JoinSide::Right].map(|side| ColumnIndex { index: 0, side });
            let fields = vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Int64, false)];
            let filter = Some(JoinFilter::new(expression, columns.to_vec(), Arc::new(Schema::new(fields))));
            let (left, right) = (side(), side());
            let on = vec![(col("k", &left.schema()).unwrap(), col("k", &right.schema()).unwrap())];
            let join: Arc<dyn ExecutionPlan> = match which {
                "hash" => HashJoinExecBuilder::new(left, right, on, JoinType::Inner)
                    .with_filter(filter)
                    .with_partition_mode(PartitionMode::CollectLeft)
                    .build_exec()
                    .unwrap(),
                "nested loop" => Arc::new(NestedLoopJoinExec::try_new(left, right, filter, &JoinType::Inner, None).unwrap()),
                _ => {
                    let (order, nulls) = (vec![Default::default()], NullEquality::NullEqualsNothing);
                    Arc::new(SortMergeJoinExec::try_new(left, right, on, filter, JoinType::Inner, order, nulls).unwrap())
                }
            };
            let join = with_joins_that_stop(join, &cancel).unwrap();
            let error = join.execute(0, Arc::new(TaskContext::default())).unwrap().next().await.unwrap().unwrap_err();
            let DataFusionError::External(error) = error else { panic!("{which}: {error}") };
            assert_eq!(error.downcast_ref::<Error>().unwrap().kind, ErrorKind::Cancelled, "{which}");
            assert_eq!(seen.load(Ordering::Relaxed), INTERRUPTED, "{which}: pairs were tried after it was cancelled");
        }
    }
}
