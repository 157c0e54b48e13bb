//! An executor as a process of its own: its listener, for other executors and for clients, and its control stream to the coordinator.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};
use windrow_core::failure::Failed;
use windrow_core::message::{ForClients, Registration};
use windrow_core::network::Network;
use windrow_core::transport::{FetchRequest, ShuffleTransport};
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::{Executor, ExecutorOptions, ShuffleStore, timer};

use crate::control::client::ControlClient;
use crate::fetch::{self, Asking};
use crate::security::{Access, Dialer};
use crate::serve::listen;
use crate::transport::NetworkTransport;
use crate::transport::in_process::fetch_from;

/// Reports on their way to the control stream.
const REPORTS_MAX: usize = 1024;

/// How long an executor that wants to leave waits for its coordinator's word, which comes after 30 s at the latest.
const LEAVE_WITHIN: Duration = Duration::from_secs(35);

/// What an executor process is started with.
#[derive(Debug, Clone)]
pub struct NetworkExecutorOptions {
    /// The coordinator, `host:port`.
    pub scheduler: String,
    /// Where its shuffle service listens; port 0 takes a free one.
    pub bind: SocketAddr,
    /// The `host:port` or host that others reach it at, if that is not what it binds.
    pub advertise: Option<String>,
    /// Networks whose clients reach it there.
    pub client_networks: Vec<Network>,
    /// Who may fetch from it.
    pub access: Access,
    /// How it calls the coordinator and other executors.
    pub dialer: Dialer,
    /// The executor itself.
    pub executor: ExecutorOptions,
}

/// Runs an executor until the coordinator tells it to leave or refuses it, or `shutdown` resolves. When `leave` resolves it asks the
/// coordinator to let it go once its work is done, and goes without an answer after [`LEAVE_WITHIN`].
///
/// # Errors
/// `InvalidConfig` for an address that is not allowed or cannot be bound, or if the coordinator refuses the
/// registration; `Denied` if it does not know the secret.
pub async fn run_executor(
    options: NetworkExecutorOptions,
    leave: impl Future<Output = ()> + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let listener = listen(options.bind, &options.access).await?;
    let bound = listener
        .local_addr()
        .map_err(|source| Error::new(ErrorKind::Unavailable, "a listener without an address").with_source(source))?;
    let address = advertised(options.advertise.as_deref(), bound)?;

    let (reports, queue) = mpsc::channel(REPORTS_MAX);
    let transport = Arc::new(OwnOrNetwork::new(address.clone(), options.executor.fetch_window, options.dialer.clone()));
    let name = options.executor.name.clone();
    let executor = Executor::start(options.executor, Arc::clone(&transport) as Arc<dyn ShuffleTransport<RecordBatch>>, reports)?;
    transport.join(Arc::clone(executor.store()));
    let asking = Asking::new(&options.scheduler, options.dialer.clone(), address.clone())?;
    let server = fetch::serve(listener, &name, Arc::clone(executor.store()), &options.access, asking)?;
    tracing::info!(name, address, scheduler = options.scheduler, "executor started");

    let (ask, asked) = watch::channel(false);
    // Where nobody is asked who they are, executors cannot tell whose a ticket is.
    let clients = ForClients { encrypts: options.access.encrypts(), networks: options.client_networks };
    let clients = options.access.authenticates().then_some(clients);
    let registration = Registration { clients, ..executor.registration(address) };
    let control = ControlClient::new(Arc::clone(&executor), &options.scheduler, options.dialer, registration, queue, asked)?;
    let leaving = async {
        leave.await;
        ask.send_replace(true);
        timer::sleep(LEAVE_WITHIN).await;
    };
    let ended = tokio::select! {
        ended = control.run() => ended,
        () = shutdown => Ok(()),
        () = leaving => Ok(()),
    };
    server.shutdown().await;
    executor.shutdown().await;
    ended
}

/// The `host:port` that others reach `bound` at.
fn advertised(advertise: Option<&str>, bound: SocketAddr) -> Result<String> {
    let has_port = |text: &str| text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match advertise {
        Some(text) if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) => Ok(format!("[{text}]:{}", bound.port())),
        Some(text) if has_port(text) => Ok(text.to_owned()),
        Some(text) => Ok(format!("{text}:{}", bound.port())),
        None if bound.ip().is_unspecified() => Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("an executor that listens on {} does not know which of its addresses others reach", bound.ip()),
        )
        .with_help("pass --advertise HOST")),
        None => Ok(bound.to_string()),
    }
}

/// Reads its own output in process and everybody else's over the network. Its own is known by its address, because its number
/// changes with the coordinator.
#[derive(Debug)]
struct OwnOrNetwork {
    address: String,
    own: RwLock<Option<Arc<ShuffleStore>>>,
    network: NetworkTransport,
}

impl OwnOrNetwork {
    fn new(address: String, window: u64, dialer: Dialer) -> Self {
        Self { address, own: RwLock::default(), network: NetworkTransport::new(window, dialer) }
    }

    /// Makes the executor's own store known, which is made after its transport.
    fn join(&self, store: Arc<ShuffleStore>) {
        *self.own.write() = Some(store);
    }
}

impl ShuffleTransport<RecordBatch> for OwnOrNetwork {
    fn fetch(&self, request: FetchRequest) -> BoxStream<'static, Result<(u32, RecordBatch), Failed>> {
        let address = request.groups.first().and_then(|group| group.address.as_deref());
        if address == Some(self.address.as_str()) {
            return fetch_from(self.own.read().clone(), request);
        }
        self.network.fetch(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_host_gets_the_bound_port() {
        let bound = "0.0.0.0:9000".parse().unwrap();
        for (advertise, expected) in
            [("10.0.0.7", "10.0.0.7:9000"), ("node7", "node7:9000"), ("node7:80", "node7:80"), ("fe80::1", "[fe80::1]:9000")]
        {
            assert_eq!(advertised(Some(advertise), bound).unwrap(), expected);
        }
        assert_eq!(advertised(None, bound).unwrap_err().kind, ErrorKind::InvalidConfig);
        assert_eq!(advertised(None, "127.0.0.1:5".parse().unwrap()).unwrap(), "127.0.0.1:5");
    }
}
