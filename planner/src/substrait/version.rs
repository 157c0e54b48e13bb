//! Which versions of the format are read. Next: `reader.rs`.

use datafusion_substrait::substrait::proto::PlanVersion;
use datafusion_substrait::substrait::version::{SUBSTRAIT_MAJOR_VERSION, SUBSTRAIT_MINOR_VERSION, SUBSTRAIT_PATCH_VERSION};
use prost::Message;
use windrow_core::{Error, ErrorKind, Result};

/// The oldest minor version of major version 0: that of the oldest plans which DataFusion tests itself with.
const OLDEST_MINOR: u32 = 29;

/// The oldest and the newest version.
pub(super) fn range() -> (String, String) {
    let newest = format!("{SUBSTRAIT_MAJOR_VERSION}.{SUBSTRAIT_MINOR_VERSION}.{SUBSTRAIT_PATCH_VERSION}");
    (format!("{SUBSTRAIT_MAJOR_VERSION}.{OLDEST_MINOR}.0"), newest)
}

/// Refuses a plan of another version. It is read before the rest, which may mean something else in other versions. A plan that says
/// none is taken, as DataFusion takes it: programs leave it out.
///
/// # Errors
/// `Unsupported`; `InvalidQuery` for bytes that are no message.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let plan = PlanVersion::decode(bytes).map_err(|source| {
        Error::new(ErrorKind::InvalidQuery, format!("the bytes are no Substrait plan: {source}")).with_source(source)
    })?;
    plan.version.map_or(Ok(()), |version| check_number(version.major_number, version.minor_number, version.patch_number))
}

/// As [`check`], for the version that a client names beside a plan, as in `0.85.0`; an empty text names none.
///
/// # Errors
/// `Unsupported`; `InvalidQuery` for what is no version.
pub(super) fn check_text(version: &str) -> Result<()> {
    if version.is_empty() {
        return Ok(());
    }
    let numbers: Vec<Option<u32>> = version.trim_start_matches('v').split('.').map(|number| number.parse().ok()).collect();
    match numbers.as_slice() {
        [Some(major), Some(minor)] => check_number(*major, *minor, 0),
        [Some(major), Some(minor), Some(patch)] => check_number(*major, *minor, *patch),
        _ => Err(Error::new(ErrorKind::InvalidQuery, "the version beside the plan is no version of Substrait")
            .with_help("leave it out, or write it as in 0.85.0")),
    }
}

fn check_number(major: u32, minor: u32, patch: u32) -> Result<()> {
    let is_known = major == SUBSTRAIT_MAJOR_VERSION && (OLDEST_MINOR..=SUBSTRAIT_MINOR_VERSION).contains(&minor);
    // Some libraries fill in a version of nothing.
    if is_known || (major, minor, patch) == (0, 0, 0) {
        return Ok(());
    }
    let (oldest, newest) = range();
    Err(Error::unsupported(format!(
        "the plan is of version {major}.{minor}.{patch} of Substrait, and versions {oldest} to {newest} are read"
    ))
    .with_help("make it with a library of one of these versions, or send SQL"))
}
