//! `generate_series`: DataFusion encodes the series but forgets that its column may be projected away and that its rows are in order.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::functions_table::generate_series::{GenericSeriesState, SeriesValue, TimestampValue};
use datafusion::physical_expr::LexOrdering;
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

/// A series with its column, if the plan shows none, and the orders that the plan claims.
pub(super) type Series = (Option<Arc<dyn ExecutionPlan>>, Vec<LexOrdering>);

/// The series with its column, for DataFusion to encode, if `plan` shows none; and the orders it claims.
pub(super) fn take_apart(plan: &LazyMemoryExec) -> Result<Series> {
    let [generator] = plan.generators().as_slice() else { return Ok((None, Vec::new())) };
    let orderings = plan.properties().equivalence_properties().oeq_class().iter().cloned().collect();
    if !plan.schema().fields().is_empty() {
        return Ok((None, orderings));
    }
    let held = generator.read();
    let state = held.as_any();
    let data_type = if let Some(series) = state.downcast_ref::<GenericSeriesState<TimestampValue>>() {
        series.current().create_array(Vec::new())?.data_type().clone()
    } else {
        DataType::Int64
    };
    let schema = Arc::new(Schema::new(vec![Field::new("value", data_type, true)]));
    let bare = LazyMemoryExec::try_new(schema, vec![Arc::clone(generator)])?;
    Ok((Some(Arc::new(bare)), orderings))
}

/// The series as it was, from what DataFusion decoded.
pub(super) fn put_together(
    plan: &Arc<dyn ExecutionPlan>,
    projected_away: bool,
    orderings: Vec<LexOrdering>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(decoded) = plan.downcast_ref::<LazyMemoryExec>() else { return internal_err!("{} is no series", plan.name()) };
    let projection = projected_away.then(Vec::new);
    let mut series = LazyMemoryExec::try_new(plan.schema(), decoded.generators().clone())?.with_projection(projection);
    series.try_set_partitioning(plan.output_partitioning().clone())?;
    for ordering in orderings {
        series.add_ordering(ordering);
    }
    Ok(Arc::new(series))
}
