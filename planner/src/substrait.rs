//! Plans in the Substrait format, which other programs make instead of SQL. Next: `substrait/resolve.rs`, which turns one
//! into a logical plan; behind it nothing tells it from that of a text.
//!
//! A plan is bytes of a client: their number, depth and content have the bounds that a text has, and what panics over them is an error
//! of the plan. Reading it needs the feature `substrait`; without it each plan is refused.

#[cfg(feature = "substrait")]
mod names;
#[cfg(feature = "substrait")]
mod reader;
#[cfg(feature = "substrait")]
mod resolve;
#[cfg(feature = "substrait")]
mod size;
#[cfg(test)]
#[cfg(feature = "substrait")]
mod tests;
#[cfg(feature = "substrait")]
mod version;

use windrow_core::{Error, Result};

/// The versions of the format that this build reads, the oldest and the newest; `None` if it was built without.
#[must_use]
pub(crate) fn substrait_versions() -> Option<(String, String)> {
    #[cfg(feature = "substrait")]
    {
        Some(version::range())
    }
    #[cfg(not(feature = "substrait"))]
    {
        None
    }
}

/// Refuses a version of the format, as clients may name it beside a plan, that is not read. An empty text names none.
///
/// # Errors
/// `Unsupported`; `InvalidQuery` for what is no version.
pub fn check_substrait_version(version: &str) -> Result<()> {
    #[cfg(feature = "substrait")]
    {
        version::check_text(version)
    }
    // Then plans are refused, whatever their version.
    #[cfg(not(feature = "substrait"))]
    {
        let _ = version;
        Ok(())
    }
}

/// Refuses plans where nobody has allowed them, and where nothing reads them.
///
/// # Errors
/// `Unsupported`, saying what to do.
pub(crate) fn check_accepted(is_accepted: bool) -> Result<()> {
    if substrait_versions().is_none() {
        return Err(Error::unsupported("this build reads no Substrait plans")
            .with_help("build it with the feature `substrait`, or send SQL"));
    }
    if !is_accepted {
        return Err(Error::unsupported("this server takes no plans from clients, only SQL").with_help(
            "an administrator sets security.accept_plans = true or starts the scheduler with --accept-plans; or send SQL",
        ));
    }
    Ok(())
}

#[cfg(feature = "substrait")]
pub(crate) use resolve::resolve;

#[cfg(not(feature = "substrait"))]
pub(crate) async fn resolve(
    _bytes: &[u8],
    _state: &datafusion::execution::SessionState,
    _access: &crate::access::Access,
    _values: crate::parameters::Values<'_>,
) -> Result<datafusion::logical_expr::LogicalPlan, datafusion::error::DataFusionError> {
    Err(crate::diagnose::ours(check_accepted(true).err().unwrap_or_else(|| Error::internal("a plan that nothing reads"))))
}
