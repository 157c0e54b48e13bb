//! Waiting for a condition that nobody announces, such as the end of a process: it is asked for again and again under a deadline.

use std::time::Duration;

use windrow_core::clock::Stopwatch;
use windrow_executor::timer;

/// How often a condition is asked for.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `condition` gives something; panics with `what` after `limit`.
pub async fn until<T>(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(watch.elapsed() < limit, "waited {limit:?} in vain: {what}");
        timer::sleep(INTERVAL).await;
    }
}
