//! The coordinator's listener: Flight SQL for clients and the control stream for executors on one port. Next:
//! `executor_process.rs`.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::transport::Server as TonicServer;
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::timer;

use crate::broken_off::BrokenOffLayer;
use crate::control::service::ControlService;
use crate::coordinator::Coordinator;
use crate::listener::{Connection, accept};
use crate::routine::Routine;
use crate::security::{Access, AuditLog, AuthenticateLayer, Serves};
use crate::sql::SqlService;

/// Bytes in flight of one HTTP/2 stream, and of a connection.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// A silent connection is asked for a sign of life after the first, and given up after the second.
const KEEPALIVE: Duration = Duration::from_secs(2);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(8);

/// Calls that one connection of a client may have open at a time. Executors, who are let in by the cluster's key alone, may read
/// from as many others at once as there are: the streams of a query may wait for each other.
const CLIENT_STREAMS_MAX: u32 = 128;
const SHUFFLE_STREAMS_MAX: u32 = 1 << 16;

/// Bytes of the headers of one call.
const HEADERS_MAX: u32 = 16 << 10;

/// Streams that a connection may open and reset before the server has looked at them.
const RESETS_MAX: usize = 20;

/// How long open calls may take to end at a shutdown.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(2);

/// Where to listen, and for whom.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The address; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Who is let in.
    pub access: Access,
}

/// A running listener. Dropping it closes it; connections end when their calls do.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    routine: Routine,
    audit: Option<Arc<AuditLog>>,
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

    /// Stops accepting, lets open calls end for a moment, and closes the rest. What is over is in the audit log then.
    pub async fn shutdown(self) {
        if let Some(stop) = self.stop.lock().take() {
            // The server is over if nobody takes this.
            let _ = stop.send(());
        }
        let _ = timer::deadline(SHUTDOWN_WITHIN, self.routine.over()).await;
        if let Some(log) = self.audit {
            let _ = timer::deadline(SHUTDOWN_WITHIN, log.flush()).await;
        }
    }
}

/// Serves Flight SQL and executors' control streams.
///
/// # Errors
/// `InvalidConfig` for an address that `access` does not allow, or that cannot be bound.
pub async fn serve(coordinator: Arc<Coordinator>, options: ServeOptions) -> Result<Server> {
    let ServeOptions { bind, access } = options;
    let listener = listen(bind, &access).await?;
    let sql = SqlService::new(Arc::clone(&coordinator), &access);
    let control = ControlService::new(coordinator, sql.desk());
    let routes = Routes::new(sql.server()).add_service(control);
    start(listener, "scheduler", routes, &access, Serves::Statements)
}

/// A tonic server with the limits of every listener.
fn builder(serves: Serves) -> TonicServer {
    let streams = match serves {
        Serves::Statements => CLIENT_STREAMS_MAX,
        Serves::Shuffle => SHUFFLE_STREAMS_MAX,
    };
    TonicServer::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .max_concurrent_streams(streams)
        .http2_max_header_list_size(HEADERS_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
}

/// Binds `bind` if it may be bound.
///
/// # Errors
/// `InvalidConfig`, saying what to do.
pub(crate) async fn listen(bind: SocketAddr, access: &Access) -> Result<TcpListener> {
    access.check_bind(bind)?;
    TcpListener::bind(bind).await.map_err(|source| {
        Error::new(ErrorKind::InvalidConfig, format!("cannot listen on {bind}: {source}"))
            .with_help("choose another port, or port 0 for any free one")
            .with_source(source)
    })
}

/// Serves `routes` on a listener, behind authentication.
///
/// # Errors
/// `Unavailable` if the listener has no address.
pub(crate) fn start(listener: TcpListener, owner: &str, routes: Routes, access: &Access, serves: Serves) -> Result<Server> {
    let address = listener
        .local_addr()
        .map_err(|source| Error::new(ErrorKind::Unavailable, "a listener without an address").with_source(source))?;
    let (stop, stopped) = oneshot::channel();
    let limits = access.connections().clone();
    let (connections, accepting) = accept(listener, owner, access.tls(), limits.first_call);
    let stopped = async move {
        // Dropping the sender without a word is the end of the routine anyway.
        let _ = stopped.await;
        drop(accepting);
    };
    let layers = tower::ServiceBuilder::new().layer(AuthenticateLayer::new(access, serves)).layer(BrokenOffLayer);
    let router = builder(serves).layer(layers).add_routes(routes);
    let serve_one = move |connection: Connection, mut stopping: watch::Receiver<()>| {
        let leaving = connection.leaving(&limits);
        let ending = async move {
            tokio::select! {
                // An error is the end of the listener as well.
                _ = stopping.changed() => {}
                () = leaving => {}
            }
        };
        // It is its own server, so that it alone can be asked to go: as the listener's end asks all of them.
        let incoming = stream::iter([Ok::<_, std::io::Error>(connection)]).chain(stream::pending());
        let served = router.clone().serve_with_incoming_shutdown(incoming, ending);
        async move {
            if let Err(error) = served.await {
                tracing::warn!(%error, "a connection could not be served");
            }
        }
    };
    let routine = Routine::spawn(owner, "listener", serve_each(connections, stopped, serve_one));
    Ok(Server { address, stop: Mutex::new(Some(stop)), routine, audit: access.audit().cloned() })
}

/// Serves connections as they come, until nothing more is accepted; then asks all to go and waits for their calls to end.
async fn serve_each<F>(
    mut connections: mpsc::Receiver<Connection>,
    stopped: impl Future<Output = ()>,
    serve_one: impl Fn(Connection, watch::Receiver<()>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (stop, stopping) = watch::channel(());
    // Bounded by the listener's places.
    let mut open = JoinSet::new();
    let mut stopped = pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => break,
            Some(_over) = open.join_next() => {}
            connection = connections.recv() => match connection {
                Some(connection) => {
                    open.spawn(serve_one(connection, stopping.clone()));
                }
                None => break,
            },
        }
    }
    // Nobody waits to be served any more.
    drop(connections);
    drop(stop);
    while open.join_next().await.is_some() {}
}
