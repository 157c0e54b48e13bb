//! Sixth arrow: a stage's plan becomes bytes, one template for all slices and what each partition adds to it. Next:
//! `scheduler/src/job.rs`, which moves the bytes unread, and `task_plan.rs`, which decodes them.
//!
//! DataFusion's own encoding serves for each operator and expression. What it lacks is here: operators lie flat in a list (`wire.rs`),
//! scans and limits carry what it loses (`scan.rs`, `encode.rs`), scalar subqueries become the inputs that hold their values
//! (`scalar_input.rs`). A plan that does not decode to an equal plan fails at submit (`round_trip.rs`), before an executor sees it.

mod decode;
mod encode;
mod round_trip;
mod scalar_input;
mod series;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use windrow_core::{Error, Result};

pub(crate) use decode::{Additions, decode};
pub use scalar_input::ScalarInputExpr;

use crate::codec::encode::Encoder;
use crate::codec::wire::{Template, schema_to_bytes, to_bytes};
use crate::scan::partition_inputs;

/// A stage's plan as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedStage {
    /// The plan without its files, for [`windrow_core::stage::Stage::template`].
    pub template: Bytes,
    /// The files of each partition, for [`windrow_core::stage::Stage::partition_inputs`]; empty if no scan has any.
    pub partition_inputs: Vec<Bytes>,
}

/// Encodes a stage's plan with the keys of its hash exchange (over the plan's schema; none for other exchanges), and decodes it once
/// to see that nothing is lost. `scalar_inputs` tells which input of the stage holds the value of a scalar subquery; `None` leaves
/// the subquery to a `ScalarSubqueryExec` in the same plan.
///
/// # Errors
/// `Unsupported` naming the operator or the option that cannot be encoded; `Internal` if the decoded plan differs.
pub fn encode_stage(
    plan: &Arc<dyn ExecutionPlan>,
    hash_keys: &[Arc<dyn PhysicalExpr>],
    scalar_inputs: &dyn Fn(&ScalarSubqueryExpr) -> Option<u32>,
    context: &TaskContext,
) -> Result<EncodedStage> {
    let partitions = u32::try_from(plan.output_partitioning().partition_count())
        .map_err(|error| Error::unsupported(format!("a plan with too many partitions: {error}")))?;
    let encoder = Encoder::new(plan, scalar_inputs);
    let refused = |error: DataFusionError| match encoder.refused() {
        Some(what) => Error::unsupported(format!("{what} cannot run on a cluster")).with_source(error),
        None => unencodable(error),
    };
    encoder.plan(plan).map_err(&refused)?;
    let hash_keys = hash_keys.iter().map(|key| encoder.expr(key)).collect::<Result<_, _>>().map_err(&refused)?;
    let schema = schema_to_bytes(&plan.schema()).map_err(unencodable)?;
    let (nodes, scans) = encoder.finish();
    let template = Template { partitions, schema, nodes, hash_keys };
    let encoded = EncodedStage {
        partition_inputs: partition_inputs(&scans, partitions).map_err(unencodable)?,
        template: to_bytes(&template).map_err(unencodable)?.into(),
    };
    round_trip::check(plan, &encoded, context)?;
    Ok(encoded)
}

fn unencodable(error: DataFusionError) -> Error {
    Error::unsupported(format!("this query cannot run on a cluster: {}", error.strip_backtrace())).with_source(error)
}
