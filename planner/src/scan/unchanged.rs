//! A file that changed between planning and reading is an error, never a mix of rows: one `stat` for a local file, one HEAD request
//! for a remote one.

use std::sync::Arc;

use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use windrow_core::{ErrorKind, Failed, Failure};

/// Compares a file, shown as `name`, with what was planned.
///
/// # Errors
/// `NotFound` if it was removed, `Data` if it is another by now.
pub(super) async fn check(store: &Arc<dyn ObjectStore>, name: &str, planned: &ObjectMeta) -> Result<(), Failed> {
    let fail = |kind, what: String| {
        let message = format!("{name} {what} since the query was planned; run it again");
        Failed { failure: Failure::Fatal { kind }, message }
    };
    let found = match store.head(&planned.location).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Err(fail(ErrorKind::NotFound, "was removed".to_owned())),
        // Whatever else is wrong, reading the file will say it better.
        Err(_) => return Ok(()),
    };
    if found.size != planned.size {
        return Err(fail(ErrorKind::Data, format!("changed from {} to {} bytes", planned.size, found.size)));
    }
    let same = match (&found.e_tag, &planned.e_tag) {
        (Some(found), Some(planned)) => found == planned,
        _ => found.last_modified == planned.last_modified,
    };
    if same { Ok(()) } else { Err(fail(ErrorKind::Data, "was written".to_owned())) }
}
