//! A runtime filter inside a Parquet scan: the reader decodes the keys first and the other columns only of rows that pass. That is
//! worth its bookkeeping where few rows do, which is known once the filter is: from its keys and the range of the scan's.

use std::fmt::{self, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ColumnStatistics, ExecutionPlan};

use super::apply::RuntimeFilterExec;
use super::bloom::{self, KeyFilter};
use super::place::below;
use crate::exchange::with_children;
use crate::scan::with_row_filter;

/// A filter is tested inside of the scan if at most one in so many values of the column passes. TPC-H at scale 10: one in 149 (q08)
/// takes a fifth off the query, one in 25 to one in 100 (q04, q20, q21) add a third, for the keys are decoded apart from the rest.
const SELECTIVE_ONE_IN: u64 = 128;

/// How many values the column of a scan can have: of integers, those between its least and its greatest. `None` where nothing is known.
pub(crate) fn domain(scan: &Arc<dyn ExecutionPlan>, column: usize) -> Result<Option<u64>> {
    let statistics = StatisticsContext::new().compute(scan.as_ref(), &StatisticsArgs::new())?;
    Ok(statistics.column_statistics.get(column).and_then(range))
}

fn range(column: &ColumnStatistics) -> Option<u64> {
    let integer = |value: Option<&ScalarValue>| match value?.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(value)) if value.is_some() => value,
        _ => None,
    };
    let bounds = [column.min_value.get_value(), column.max_value.get_value()];
    if !bounds.iter().flatten().all(|bound| bound.data_type().is_integer()) {
        return None;
    }
    let [least, greatest] = bounds.map(integer);
    greatest?.checked_sub(least?)?.checked_add(1)?.try_into().ok()
}

/// Most keys of which a filter of a column with so many values is tested inside of the scan.
pub(crate) fn selective_keys(domain: u64) -> u64 {
    domain / SELECTIVE_ONE_IN
}

/// Whether so few of a column's values are keys of the filter that the scan itself should test them.
pub(super) fn is_selective(filter: &KeyFilter, domain: Option<u64>) -> bool {
    domain.is_some_and(|domain| filter.keys() <= selective_keys(domain))
}

/// `plan` with the test of `keys` inside of its Parquet scan, or `None` if there is no such scan below it.
pub(super) fn push(
    plan: &Arc<dyn ExecutionPlan>,
    columns: &[usize],
    filter: &Arc<KeyFilter>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if plan.children().is_empty() {
        return with_row_filter(plan, columns, &|keys| Arc::new(KeyInFilter { keys, filter: Arc::clone(filter) }));
    }
    let index = plan.children().len() - 1;
    let (Some(columns), Some(child)) = (below(plan, index, columns), plan.children().pop()) else { return Ok(None) };
    let Some(pushed) = push(child, &columns, filter)? else { return Ok(None) };
    if let Some(other) = plan.downcast_ref::<RuntimeFilterExec>() {
        return Ok(Some(Arc::new(other.with_input(pushed))));
    }
    if plan.is::<FilterExec>() || plan.is::<CooperativeExec>() {
        return with_children(Arc::clone(plan), vec![pushed]).map(Some);
    }
    Ok(None)
}

/// Whether the keys of a row may be in a filter.
#[derive(Debug)]
struct KeyInFilter {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    filter: Arc<KeyFilter>,
}

impl Display for KeyInFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.fmt_sql(f)
    }
}

impl PartialEq for KeyInFilter {
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys && Arc::ptr_eq(&self.filter, &other.filter)
    }
}

impl Eq for KeyInFilter {}

impl Hash for KeyInFilter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.keys.hash(state);
        Arc::as_ptr(&self.filter).hash(state);
    }
}

impl PhysicalExpr for KeyInFilter {
    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(Arc::new(Field::new("runtime_filter", DataType::Boolean, false)))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let rows = batch.num_rows();
        let keys: Vec<ArrayRef> = self.keys.iter().map(|key| key.evaluate(batch)?.into_array(rows)).collect::<Result<_>>()?;
        let passes = self.filter.matches(bloom::hashes(&keys, rows, &mut Vec::new())?);
        Ok(ColumnarValue::Array(Arc::new(passes)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.keys.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, keys: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self { keys, filter: Arc::clone(&self.filter) }))
    }

    fn fmt_sql(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.keys.iter().map(ToString::to_string).collect();
        write!(f, "runtime_filter({})", keys.join(", "))
    }
}
