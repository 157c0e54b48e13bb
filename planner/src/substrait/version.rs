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
    let Some(version) = plan.version else { return Ok(()) };
    let is_known = version.major_number == SUBSTRAIT_MAJOR_VERSION
        && (OLDEST_MINOR..=SUBSTRAIT_MINOR_VERSION).contains(&version.minor_number);
    // Some libraries fill in a version of nothing.
    if is_known || (version.major_number, version.minor_number, version.patch_number) == (0, 0, 0) {
        return Ok(());
    }
    let (oldest, newest) = range();
    let (major, minor, patch) = (version.major_number, version.minor_number, version.patch_number);
    Err(Error::unsupported(format!(
        "the plan is of version {major}.{minor}.{patch} of Substrait, and versions {oldest} to {newest} are read"
    ))
    .with_help("make it with a library of one of these versions, or send SQL"))
}
