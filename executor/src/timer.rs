//! Timers: the one place that asks tokio for time. Other crates use these functions too, so that a search for them finds every
//! wait in Windrow.

use std::future::Future;
use std::time::Duration;

/// Waits for `duration`.
#[expect(clippy::disallowed_methods, reason = "the one place that waits by time")]
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Awaits `future` for at most `limit`; `None` if it did not end in time, and then it is dropped.
pub async fn deadline<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}
