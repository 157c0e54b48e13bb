//! A reader that panics over a damaged file is an error of that file. Arrow's and Parquet's readers return errors for most damage, not
//! for all of it (arrow 59: an unknown unit of time in an embedded schema, a footer longer than its file).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use datafusion::error::{DataFusionError, Result};
use futures::{FutureExt, Stream, StreamExt};
use windrow_core::{Error, ErrorKind};

use crate::diagnose::ours;

/// Calls what reads a file.
pub(crate) fn contained<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|payload| Err(damaged(payload.as_ref())))
}

/// Awaits what reads a file.
pub(crate) async fn contained_future<T>(read: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(read).catch_unwind().await.unwrap_or_else(|payload| Err(damaged(payload.as_ref())))
}

/// The items of what reads a file; it ends after a panic.
pub(crate) fn contained_stream<T>(read: impl Stream<Item = Result<T>>) -> impl Stream<Item = Result<T>> {
    AssertUnwindSafe(read).catch_unwind().map(|item| item.unwrap_or_else(|payload| Err(damaged(payload.as_ref()))))
}

fn damaged(payload: &(dyn Any + Send)) -> DataFusionError {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = format!("its reader panicked: {}; the file is damaged", text.unwrap_or("without a message"));
    ours(Error::new(ErrorKind::Data, message))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    fn is_data(error: &DataFusionError) -> bool {
        let DataFusionError::External(error) = error else { return false };
        error.downcast_ref::<Error>().is_some_and(|error| error.kind == ErrorKind::Data && error.message.contains("out of luck"))
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_the_data() {
        assert!(is_data(&contained::<()>(|| panic!("out of luck")).unwrap_err()));
        assert!(is_data(&contained_future::<()>(async { panic!("out of {}", "luck") }).await.unwrap_err()));
        let rows = futures::stream::iter([1, 2, 3]).map(|row| if row < 2 { Ok(row) } else { panic!("out of luck") });
        let mut rows = Box::pin(contained_stream(rows));
        assert_eq!(rows.try_next().await.unwrap(), Some(1));
        assert!(is_data(&rows.try_next().await.unwrap_err()));
        assert_eq!(rows.try_next().await.unwrap(), None);
    }
}
