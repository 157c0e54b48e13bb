//! The way of a plan: bytes, a message, a logical plan of the session's tables. Next: `reader.rs`.

use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion_substrait::extensions::Extensions;
use datafusion_substrait::logical_plan::consumer::from_substrait_plan_with_consumer;
use datafusion_substrait::substrait::proto::Plan;
use prost::Message;
use windrow_core::{Error, ErrorKind};

use super::reader::Reader;
use super::version;
use crate::access::Access;
use crate::catalog::searching_tables;
use crate::diagnose::ours;
use crate::parameters::{self, Values};
use crate::{budget, plan_size};

/// Bytes of a message about a plan: some of DataFusion's hold the plan.
const MESSAGE_MAX: usize = 400;

/// The query that a plan means, `values` in the places of its parameters. Tables are opened here, by name, as those of a text are.
pub(crate) async fn resolve(
    bytes: &[u8],
    state: &SessionState,
    access: &Access,
    values: Values<'_>,
) -> Result<LogicalPlan, DataFusionError> {
    let plan = decode(bytes).map_err(ours)?;
    let extensions = Extensions::try_from(&plan.extensions).map_err(unusable)?;
    if !extensions.type_variations.is_empty() {
        return Err(ours(Error::unsupported("the plan has variations of types")));
    }
    let searching = searching_tables(state);
    let reader = Reader::new(&extensions, &searching);
    let plan = from_substrait_plan_with_consumer(&reader, &plan).await.map_err(unusable)?;
    plan_size::check(&plan)?;
    let plan = parameters::bind(plan, values)?;
    access.check_plan(&plan)?;
    Ok(plan)
}

/// The message in the bytes, if it is one that can be read. prost refuses what nests deeper than 100 messages.
fn decode(bytes: &[u8]) -> Result<Plan, Error> {
    budget::check_plan_bytes(bytes.len())?;
    version::check(bytes)?;
    let plan = Plan::decode(bytes).map_err(|source| {
        Error::new(ErrorKind::InvalidQuery, format!("the bytes are no Substrait plan: {source}")).with_source(source)
    })?;
    let unsupported = [
        (plan.relations.len() > 1, "has several trees of relations"),
        (!plan.parameter_bindings.is_empty(), "binds its own parameters"),
        (!plan.type_aliases.is_empty(), "has aliases of types"),
        (plan.advanced_extensions.as_ref().is_some_and(|more| more.enhancement.is_some()), "has an enhancement"),
    ];
    if let Some((_, what)) = unsupported.into_iter().find(|(is_there, _)| *is_there) {
        return Err(Error::unsupported(format!("the plan {what}, which is not supported")));
    }
    if plan.relations.is_empty() {
        return Err(Error::new(ErrorKind::InvalidQuery, "an empty plan"));
    }
    Ok(plan)
}

/// What DataFusion says of a plan that it cannot use. Its errors about tables and columns are those of a text.
fn unusable(error: DataFusionError) -> DataFusionError {
    let short = |message: String| match message.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => format!("{}...", message.get(..end).unwrap_or_default()),
        None => message,
    };
    let error = match error {
        DataFusionError::Substrait(why) | DataFusionError::Internal(why) => {
            Error::new(ErrorKind::InvalidQuery, format!("the Substrait plan cannot be used: {}", short(why)))
        }
        DataFusionError::NotImplemented(why) => {
            Error::unsupported(format!("the Substrait plan holds what is not supported: {}", short(why)))
        }
        other => return other,
    };
    ours(error)
}
