//! A routine: a long-lived future of a process with an owner and a name, which ends with its handle. Nothing here spawns
//! otherwise, so that nothing outlives its owner.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// A running future. Dropping the handle aborts it.
#[derive(Debug)]
pub struct Routine {
    name: &'static str,
    handle: JoinHandle<()>,
}

impl Routine {
    /// Starts `future` on the current runtime, for `owner`, which its log lines carry.
    pub fn spawn(owner: &str, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> Self {
        let span = tracing::debug_span!("routine", owner, name);
        Self { name, handle: tokio::spawn(future.instrument(span)) }
    }

    /// Starts `future` on `runtime`.
    pub fn spawn_on(
        runtime: &tokio::runtime::Handle,
        owner: &str,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let span = tracing::debug_span!("routine", owner, name);
        Self { name, handle: runtime.spawn(future.instrument(span)) }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.handle.is_finished()
    }

    /// Waits for its end. A panic inside is logged, not passed on.
    pub async fn over(mut self) {
        if let Err(error) = (&mut self.handle).await
            && error.is_panic()
        {
            tracing::error!(routine = self.name, %error, "a routine panicked");
        }
    }
}

impl Drop for Routine {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dropping_the_handle_ends_the_future() {
        let (held, gone) = tokio::sync::oneshot::channel::<()>();
        let routine = Routine::spawn("test", "holder", async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(routine);
        assert!(gone.await.is_err(), "the future's state is dropped with its handle");
    }
}
