//! Ctrl-C and the polite signals, as something to wait for. From the first [`Interrupt`] on they no longer end the process by
//! themselves: whoever holds one must listen.

use futures::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use windrow::{Error, Result};

/// Which signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Ctrl-C: end what runs.
    Cancel,
    /// SIGTERM, or the terminal went away: end the program.
    Leave,
}

/// Hears SIGINT, SIGTERM and SIGHUP.
#[derive(Debug)]
pub(crate) struct Interrupt {
    cancel: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupt {
    /// Begins to listen.
    pub(crate) fn listen() -> Result<Self> {
        let hear = |kind| signal(kind).map_err(|source| Error::internal("signals cannot be heard").with_source(source));
        Ok(Self {
            cancel: hear(SignalKind::interrupt())?,
            terminate: hear(SignalKind::terminate())?,
            hangup: hear(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal. Dropping the future loses none.
    pub(crate) async fn asked(&mut self) -> Asked {
        tokio::select! {
            _ = self.cancel.recv() => Asked::Cancel,
            _ = self.terminate.recv() => Asked::Leave,
            _ = self.hangup.recv() => Asked::Leave,
        }
    }

    /// Forgets a Ctrl-C that came while nothing ran.
    pub(crate) fn forget(&mut self) {
        while self.cancel.recv().now_or_never().is_some() {}
    }
}
