//! How long a client's connection stays: it is asked to go when nothing was called over it for long, or when it is old. Its open calls
//! end by themselves. Next: `serve.rs`, which asks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use windrow_core::clock::{Clock, Millis, SystemClock};
use windrow_core::config::ConnectionsConfig;
use windrow_executor::timer;

/// Between two looks at a connection that may not be asked to go yet.
const LOOK_EVERY: Duration = Duration::from_secs(60);

type AtEnd = Box<dyn FnOnce() + Send>;

/// What is known of a connection while it is there.
pub(crate) struct Lifetime {
    uses: Mutex<Uses>,
    closed: Notify,
    clock: SystemClock,
}

struct Uses {
    /// Open calls.
    calls: u32,
    /// Until the first call it is the listener's patience that counts.
    has_called: bool,
    /// When the last of them ended, or the connection was made.
    idle_since: Millis,
    /// Sessions that would be lost with it.
    stays: u32,
    /// It is one of the cluster's own.
    is_member: bool,
    /// What is to be done when it is gone; `None` from then on.
    ends: Option<Vec<AtEnd>>,
}

impl fmt::Debug for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifetime").field("calls", &self.uses.lock().calls).finish_non_exhaustive()
    }
}

impl Lifetime {
    /// Of a connection that begins now.
    pub(crate) fn begin() -> Arc<Self> {
        let clock = SystemClock::new();
        let uses =
            Uses { calls: 0, has_called: false, idle_since: clock.now(), stays: 0, is_member: false, ends: Some(Vec::new()) };
        Arc::new(Self { uses: Mutex::new(uses), closed: Notify::new(), clock })
    }

    /// A call is open until the value is dropped.
    pub(crate) fn call(self: &Arc<Self>) -> OpenCall {
        let mut uses = self.uses.lock();
        uses.calls += 1;
        uses.has_called = true;
        drop(uses);
        OpenCall(Arc::clone(self))
    }

    /// Somebody needs the connection itself until the value is dropped.
    pub(crate) fn stay(self: &Arc<Self>) -> Stay {
        self.uses.lock().stays += 1;
        Stay(Arc::clone(self))
    }

    /// Processes of a cluster keep their connections.
    pub(crate) fn is_of_member(&self) {
        self.uses.lock().is_member = true;
    }

    /// Calls `when_closed` once the connection is gone, or at once if it is gone already.
    pub(crate) fn on_close(&self, when_closed: impl FnOnce() + Send + 'static) {
        let mut uses = self.uses.lock();
        match uses.ends.as_mut() {
            Some(ends) => ends.push(Box::new(when_closed)),
            None => {
                drop(uses);
                when_closed();
            }
        }
    }

    /// The connection is gone.
    pub(crate) fn over(&self) {
        let ends = self.uses.lock().ends.take();
        for end in ends.into_iter().flatten() {
            end();
        }
        self.closed.notify_one();
    }

    /// Resolves when the connection is to take no more calls, or is gone. Only one may wait.
    pub(crate) async fn leaving(self: Arc<Self>, limits: ConnectionsConfig) {
        loop {
            let Some(wait) = self.uses.lock().wait(self.clock.now(), &limits) else {
                return tracing::debug!("a connection is old or was idle, and is asked to go");
            };
            if timer::deadline(wait, self.closed.notified()).await.is_some() {
                return;
            }
        }
    }
}

impl Uses {
    /// After how long to look again; `None` if the connection is to go now. It began at zero.
    fn wait(&self, now: Millis, limits: &ConnectionsConfig) -> Option<Duration> {
        let pause =
            |limit: Duration| if limit.is_zero() { LOOK_EVERY } else { limit.clamp(Duration::from_millis(10), LOOK_EVERY) };
        if self.is_member || self.stays > 0 || !self.has_called {
            return Some(pause(limits.idle).min(pause(limits.age)));
        }
        let left = |since: Millis, limit: Duration| match limit.is_zero() {
            true => LOOK_EVERY,
            false => Duration::from_millis(since.after(limit).0.saturating_sub(now.0)),
        };
        let idle = if self.calls > 0 { pause(limits.idle) } else { left(self.idle_since, limits.idle) };
        Some(idle.min(left(Millis(0), limits.age))).filter(|wait| !wait.is_zero())
    }
}

/// A call is open.
#[derive(Debug)]
pub(crate) struct OpenCall(Arc<Lifetime>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        let now = self.0.clock.now();
        let mut uses = self.0.uses.lock();
        uses.calls = uses.calls.saturating_sub(1);
        uses.idle_since = now;
    }
}

/// A connection is needed.
#[derive(Debug)]
pub(crate) struct Stay(Arc<Lifetime>);

impl Drop for Stay {
    fn drop(&mut self) {
        let mut uses = self.0.uses.lock();
        uses.stays = uses.stays.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn limits(idle: u64, age: u64) -> ConnectionsConfig {
        let [idle, age] = [idle, age].map(Duration::from_secs);
        ConnectionsConfig { idle, age, ..ConnectionsConfig::default() }
    }

    fn uses(calls: u32, idle_since: u64) -> Uses {
        Uses { calls, has_called: true, idle_since: Millis(idle_since), stays: 0, is_member: false, ends: None }
    }

    #[test]
    fn a_connection_goes_when_it_was_idle_or_is_old() {
        let limits = limits(300, 3600);
        let waits = |uses: Uses, now| uses.wait(Millis(now), &limits).map(|wait| wait.as_secs());
        assert_eq!(waits(uses(0, 0), 0), Some(300));
        assert_eq!(waits(uses(0, 100_000), 399_000), Some(1));
        assert_eq!(waits(uses(0, 100_000), 400_000), None, "idle");
        assert_eq!(waits(uses(1, 100_000), 400_000), Some(60), "a call is open");
        assert_eq!(waits(uses(1, 100_000), 3_599_000), Some(1));
        assert_eq!(waits(uses(1, 100_000), 3_600_000), None, "old, and takes no more");
        assert_eq!(waits(Uses { stays: 1, ..uses(0, 0) }, 9_000_000), Some(60), "a session needs it");
        assert_eq!(waits(Uses { has_called: false, ..uses(0, 0) }, 9_000_000), Some(60), "its first call is waited for");
        assert_eq!(waits(Uses { is_member: true, ..uses(1, 0) }, 9_000_000), Some(60), "an executor's");
    }

    #[test]
    fn zero_is_no_limit() {
        for (limits, now) in [(limits(0, 3600), 3_000_000), (limits(300, 0), 100_000_000), (limits(0, 0), 100_000_000)] {
            let since = now - 1_000;
            assert!(uses(0, since).wait(Millis(now), &limits).is_some_and(|wait| wait >= Duration::from_secs(1)), "{limits:?}");
        }
        assert!(uses(0, 0).wait(Millis(3_600_000), &limits(0, 3600)).is_none());
        assert!(uses(0, 0).wait(Millis(300_000), &limits(300, 0)).is_none());
    }

    #[tokio::test]
    async fn what_is_to_be_done_at_the_end_is_done_once() {
        let lifetime = Lifetime::begin();
        let count = Arc::new(AtomicU64::new(0));
        let counting = || {
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        lifetime.on_close(counting());
        assert_eq!(count.load(Ordering::Relaxed), 0);
        lifetime.over();
        assert_eq!(count.load(Ordering::Relaxed), 1);
        lifetime.on_close(counting());
        assert_eq!(count.load(Ordering::Relaxed), 2);
        lifetime.leaving(limits(0, 0)).await;
    }
}
