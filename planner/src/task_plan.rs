//! The executor's half of the codec: template, slice and scalars become a plan that runs once.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use windrow_core::task::Slice;
use windrow_core::{Error, Result};

/// A stage's plan narrowed to a slice. Runs once: decode again for another attempt.
#[derive(Debug)]
pub struct TaskPlan {
    /// Its partition count is the slice's length; execute and poll all of them, at once.
    pub plan: Arc<dyn ExecutionPlan>,
    /// The keys of a hash exchange over the plan's schema; empty for every other exchange.
    pub hash_keys: Vec<Arc<dyn PhysicalExpr>>,
}

/// Decodes `template`, puts in the slice's files and the scalars (by input index), and narrows the plan to `slice` of the stage's
/// `partitions`.
///
/// # Errors
/// `Internal` if the template does not decode or cannot be narrowed, which planning has ruled out.
pub fn decode_task(
    _template: &[u8],
    _slice: Slice,
    _partitions: u32,
    _partition_inputs: &[Bytes],
    _scalars: &[(u32, ScalarValue)],
    _context: &TaskContext,
) -> Result<TaskPlan> {
    Err(Error::unsupported("decoding"))
}

/// The session configuration for a job's settings, on the executor as on the coordinator.
///
/// # Errors
/// `InvalidConfig` for an unknown key.
pub fn session_config(_settings: &[(String, String)]) -> Result<datafusion::prelude::SessionConfig> {
    Ok(datafusion::prelude::SessionConfig::new())
}
