//! The executor's half of the codec: template, slice and scalars become a plan that runs once. Next: `executor/src/attempt.rs`.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::SessionConfig;
use datafusion::scalar::ScalarValue;
use windrow_core::error::nearest;
use windrow_core::task::Slice;
use windrow_core::{Error, ErrorKind, Result};

use crate::codec::wire::{Template, from_bytes, schema_from_bytes};
use crate::codec::{Additions, decode};
use crate::narrow::{narrow, with_fields};
use crate::scan::files_of;

/// A stage's plan narrowed to a slice. Runs once: decode again for another attempt.
#[derive(Debug)]
pub struct TaskPlan {
    /// Its partition count is the slice's length; execute and poll all of them, at once.
    pub plan: Arc<dyn ExecutionPlan>,
    /// The keys of a hash exchange over the plan's schema; empty for every other exchange.
    pub hash_keys: Vec<Arc<dyn PhysicalExpr>>,
}

/// Decodes `template`, puts in the slice's files and the scalars (by input index), and narrows the plan to `slice` of the stage's
/// `partitions`. `partition_inputs` are those of the slice's partitions, or none.
///
/// # Errors
/// `Internal` if the template does not decode or cannot be narrowed, which planning has ruled out.
pub fn decode_task(
    template: &[u8],
    slice: Slice,
    partitions: u32,
    partition_inputs: &[Bytes],
    scalars: &[(u32, ScalarValue)],
    context: &TaskContext,
) -> Result<TaskPlan> {
    let template: Template = from_bytes(template).map_err(undecodable)?;
    let fits = partition_inputs.is_empty() || partition_inputs.len() == slice.len() as usize;
    if template.partitions != partitions || slice.is_empty() || slice.end > partitions || !fits {
        return Err(Error::internal(format!(
            "partitions {}..{} of {partitions} with {} inputs, but the template has {} partitions",
            slice.start,
            slice.end,
            partition_inputs.len(),
            template.partitions
        )));
    }
    let files = files_of(partition_inputs, slice.start).map_err(undecodable)?;
    let (plan, hash_keys) = decode(&template, Additions { scalars, files, check_files: true }, context).map_err(undecodable)?;
    // A literal in the place of a scalar subquery is nullable only if it is null; the consumers were planned for the subquery.
    let schema = schema_from_bytes(&template.schema).map_err(undecodable)?;
    let plan = with_fields(plan, &schema).map_err(undecodable)?;
    if plan.output_partitioning().partition_count() != partitions as usize || plan.schema() != schema {
        return Err(Error::internal(format!("the template decoded to another plan: {}", plan.name())));
    }
    Ok(TaskPlan { plan: narrow(&plan, slice.iter())?, hash_keys })
}

fn undecodable(error: DataFusionError) -> Error {
    Error::internal(format!("decoding a task's plan: {}", error.strip_backtrace())).with_source(error)
}

/// The session configuration for a job's settings, on the executor as on the coordinator.
///
/// # Errors
/// `InvalidConfig` for an unknown key or a value that does not fit.
pub fn session_config(settings: &[(String, String)]) -> Result<SessionConfig> {
    /// Setting it overwrites the three settings below it, so it goes first.
    const UMBRELLA: &str = "datafusion.optimizer.enable_dynamic_filter_pushdown";
    let mut config = SessionConfig::new();
    let (first, rest): (Vec<_>, Vec<_>) = settings.iter().partition(|(key, _)| key == UMBRELLA);
    for (key, value) in first.into_iter().chain(rest) {
        if let Err(error) = config.options_mut().set(key, value) {
            let known: Vec<_> = config.options().entries().into_iter().map(|entry| entry.key).collect();
            let what = if known.contains(key) {
                format!("for {key}: {}", error.strip_backtrace())
            } else {
                format!("unknown setting {key}")
            };
            let suggestion = if known.contains(key) { None } else { nearest(key, known.iter().map(String::as_str)) };
            return Err(Error::new(ErrorKind::InvalidConfig, what).with_suggestion(suggestion).with_source(error));
        }
    }
    Ok(config)
}
