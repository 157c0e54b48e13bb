//! The coordinator's listener: Flight SQL for clients and the control stream for executors on one port. Next:
//! `executor_process.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Server as TonicServer;
use tonic::transport::server::TcpIncoming;
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::timer;

use crate::control::service::ControlService;
use crate::coordinator::Coordinator;
use crate::routine::Routine;
use crate::sql::SqlService;

/// Bytes in flight of one HTTP/2 stream, and of a connection.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// A silent connection is asked for a sign of life after the first, and given up after the second.
const KEEPALIVE: Duration = Duration::from_secs(2);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(8);

/// How long open calls may take to end at a shutdown.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(2);

/// Where to listen.
#[derive(Debug, Clone, Copy)]
pub struct ServeOptions {
    /// The address; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Allows an address that is not loopback, although nothing is authenticated or encrypted yet.
    pub insecure: bool,
}

/// A running listener. Dropping it closes it; connections end when their calls do.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    routine: Routine,
}

impl Server {
    /// Where it listens, with the true port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it ends, which it does only if it cannot accept any more.
    pub async fn over(self) {
        self.routine.over().await;
    }

    /// Stops accepting, lets open calls end for a moment, and closes the rest.
    pub async fn shutdown(self) {
        if let Some(stop) = self.stop.lock().take() {
            // The server is over if nobody takes this.
            let _ = stop.send(());
        }
        let _ = timer::deadline(SHUTDOWN_WITHIN, self.routine.over()).await;
    }
}

/// Serves Flight SQL and executors' control streams.
///
/// # Errors
/// `InvalidConfig` for an address that is not loopback without `insecure`, or that cannot be bound.
pub async fn serve(coordinator: Arc<Coordinator>, options: ServeOptions) -> Result<Server> {
    let listener = listen(options.bind, options.insecure).await?;
    let sql = SqlService::new(Arc::clone(&coordinator)).await?.server();
    let control = ControlService::new(coordinator);
    start(listener, "scheduler", builder().add_service(sql).add_service(control))
}

/// A tonic server with the settings of every listener.
pub(crate) fn builder() -> TonicServer {
    TonicServer::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
}

/// Binds `bind` if it may be bound.
///
/// # Errors
/// `InvalidConfig`, saying what to do.
pub(crate) async fn listen(bind: SocketAddr, insecure: bool) -> Result<TcpListener> {
    check_bind(bind, insecure)?;
    TcpListener::bind(bind).await.map_err(|source| {
        Error::new(ErrorKind::InvalidConfig, format!("cannot listen on {bind}: {source}"))
            .with_help("choose another port, or port 0 for any free one")
            .with_source(source)
    })
}

/// Runs a router on a listener.
///
/// # Errors
/// `Unavailable` if the listener has no address.
pub(crate) fn start(listener: TcpListener, owner: &str, router: tonic::transport::server::Router) -> Result<Server> {
    let address = listener
        .local_addr()
        .map_err(|source| Error::new(ErrorKind::Unavailable, "a listener without an address").with_source(source))?;
    let (stop, stopped) = oneshot::channel();
    let stopped = async move {
        // Dropping the sender without a word is the end of the routine anyway.
        let _ = stopped.await;
    };
    // Set here because the builder's own setting concerns only listeners that it binds. Without it each answer waits 40 ms for
    // the acknowledgement of the one before.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let routine = Routine::spawn(owner, "listener", async move {
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopped).await {
            tracing::error!(%error, "a listener ended");
        }
    });
    Ok(Server { address, stop: Mutex::new(Some(stop)), routine })
}

/// Refuses an address that others can reach, unless that was asked for.
pub(crate) fn check_bind(bind: SocketAddr, insecure: bool) -> Result<()> {
    if bind.ip().is_loopback() {
        return Ok(());
    }
    if insecure {
        tracing::warn!(%bind, "listening beyond this machine without authentication and encryption");
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidConfig,
        format!("{bind} can be reached from other machines, and this version neither authenticates nor encrypts"),
    )
    .with_help("bind 127.0.0.1, or pass --insecure on a network where everybody may read and run everything"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_bound_unless_told_otherwise() {
        for loopback in ["127.0.0.1:0", "127.8.9.1:8815", "[::1]:0"] {
            assert!(check_bind(loopback.parse().unwrap(), false).is_ok(), "{loopback}");
        }
        for public in ["0.0.0.0:0", "[::]:0", "192.168.1.2:8815", "[::ffff:127.0.0.1]:0"] {
            let error = check_bind(public.parse().unwrap(), false).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig, "{public}");
            assert!(error.context.help.unwrap().contains("--insecure"));
            assert!(check_bind(public.parse().unwrap(), true).is_ok(), "{public}");
        }
    }
}
