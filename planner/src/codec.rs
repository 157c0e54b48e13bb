//! Sixth arrow: a stage's plan becomes bytes, one template for all slices and what each partition adds to it.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_plan::ExecutionPlan;
use windrow_core::{Error, Result};

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
    _plan: &Arc<dyn ExecutionPlan>,
    _hash_keys: &[Arc<dyn PhysicalExpr>],
    _scalar_inputs: &dyn Fn(&ScalarSubqueryExpr) -> Option<u32>,
    _context: &TaskContext,
) -> Result<EncodedStage> {
    Err(Error::unsupported("encoding"))
}
