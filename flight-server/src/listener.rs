//! Accepts connections: a bounded number of them, each encrypted where the listener has a certificate, and each given up unless
//! it soon makes a call that is allowed. Next: `lifetime.rs`, then `security/mod.rs`.
//!
//! What tonic can bound once a connection is there (streams, headers, resets) is set in `serve.rs`; here is what comes before.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use windrow_core::config::ConnectionsConfig;
use windrow_executor::timer;

use crate::lifetime::Lifetime;
pub(crate) use crate::lifetime::{OpenCall, Stay};
use crate::routine::Routine;
use crate::security::certified::user_of;
use crate::security::tls::ServerTls;

/// Connections of a listener at a time.
const CONNECTIONS_MAX: usize = 1024;

/// Those of one address. The machine itself is not counted: executors of one machine share its loopback address.
const PER_ADDRESS_MAX: usize = 64;

/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// After an error of `accept`, such as no file descriptors, before the next try.
const AFTER_ERROR: Duration = Duration::from_millis(50);

/// Accepted connections that the server has not taken yet.
const WAITING_MAX: usize = 64;

/// How long the other end of a connection that takes no more calls has to read what was sent.
const LINGER: Duration = Duration::from_secs(10);

/// The other end of a connection, as calls find it in their extensions.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// A number of the connection, unique in the process. It never comes again.
    pub(crate) connection: u64,
    /// The user whose certificate it has shown.
    pub(crate) certified: Option<Arc<str>>,
    has_called: Arc<AtomicBool>,
    lifetime: Arc<Lifetime>,
}

impl Peer {
    fn new(address: SocketAddr, certified: Option<Arc<str>>) -> Self {
        Self { address, connection: next_connection(), certified, has_called: Arc::default(), lifetime: Lifetime::begin() }
    }

    /// Notes that a call was allowed: the connection may stay.
    pub(crate) fn is_welcome(&self) {
        self.has_called.store(true, Ordering::Relaxed);
    }

    /// A call is open until the value is dropped.
    pub(crate) fn call(&self) -> OpenCall {
        self.lifetime.call()
    }

    /// The connection itself is needed until the value is dropped.
    pub(crate) fn stay(&self) -> Stay {
        self.lifetime.stay()
    }

    /// Notes that the other end is a process of the cluster.
    pub(crate) fn is_of_member(&self) {
        self.lifetime.is_of_member();
    }

    /// Calls `when_closed` once the connection is gone, or at once if it is gone already.
    pub(crate) fn on_close(&self, when_closed: impl FnOnce() + Send + 'static) {
        self.lifetime.on_close(when_closed);
    }

    /// Of a connection that is none, for services that are called directly.
    #[cfg(test)]
    pub(crate) fn nobody() -> Self {
        Self::new(SocketAddr::from(([127, 0, 0, 1], 0)), None)
    }
}

fn next_connection() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// How many connections there are, in all and of each address.
#[derive(Debug, Default)]
struct Places {
    taken: Mutex<(usize, BTreeMap<IpAddr, usize>)>,
}

impl Places {
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut taken = self.taken.lock();
        let (all, of_address) = &mut *taken;
        let own = of_address.entry(address).or_insert(0);
        if *all >= CONNECTIONS_MAX || (*own >= PER_ADDRESS_MAX && !address.is_loopback()) {
            if *own == 0 {
                of_address.remove(&address);
            }
            return None;
        }
        *own += 1;
        *all += 1;
        Some(Place { places: Arc::clone(self), address })
    }
}

/// A connection's place. Dropping it gives it back.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        let (all, of_address) = &mut *taken;
        *all = all.saturating_sub(1);
        if let Some(own) = of_address.get_mut(&self.address) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                of_address.remove(&self.address);
            }
        }
    }
}

/// The connections of `listener`, ready to be served, and the routine that accepts them until it is dropped.
pub(crate) fn accept(
    listener: TcpListener,
    owner: &str,
    tls: Option<Arc<ServerTls>>,
    first_call: Duration,
) -> (mpsc::Receiver<Connection>, Routine) {
    let (ready, connections) = mpsc::channel(WAITING_MAX);
    let routine = Routine::spawn(owner, "accept", async move {
        let places = Arc::new(Places::default());
        loop {
            match listener.accept().await {
                Ok((stream, address)) => admit(stream, address, &places, (tls.clone(), first_call), &ready),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    timer::sleep(AFTER_ERROR).await;
                }
            }
        }
    });
    (connections, routine)
}

/// Gives a connection a place, or closes it; encrypts it on a routine of its own, so that nobody waits for a slow other end.
fn admit(
    stream: TcpStream,
    address: SocketAddr,
    places: &Arc<Places>,
    (tls, first_call): (Option<Arc<ServerTls>>, Duration),
    ready: &mpsc::Sender<Connection>,
) {
    let Some(place) = places.take(address.ip()) else {
        tracing::warn!(%address, "too many connections, this one is closed");
        return;
    };
    // Without it each answer waits 40 ms for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%address, %error, "a connection delays its messages");
    }
    let ready = ready.clone();
    // Bounded by the places, and by time.
    tokio::spawn(async move {
        let io = match tls {
            None => Io::Plain(stream),
            Some(tls) => match timer::deadline(HANDSHAKE_WITHIN, tls.accept(stream)).await {
                Some(Ok(stream)) => Io::Tls(Box::new(stream)),
                Some(Err(error)) => return tracing::info!(%address, %error, "a TLS handshake failed"),
                None => return tracing::info!(%address, "a TLS handshake took too long"),
            },
        };
        let peer = Peer::new(address, io.certified());
        let patience = (!first_call.is_zero()).then(|| Box::pin(timer::sleep(first_call)) as Patience);
        // The server is gone if nobody takes it.
        let _ = ready.send(Connection { io, peer, patience, lingering: None, _place: place }).await;
    });
}

type Patience = Pin<Box<dyn Future<Output = ()> + Send>>;

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    /// The user that the certificate of the other end names, if it has shown one.
    fn certified(&self) -> Option<Arc<str>> {
        let Self::Tls(stream) = self else { return None };
        let (_, session) = stream.get_ref();
        user_of(session.peer_certificates()?.first()?)
    }
}

/// An accepted connection.
pub(crate) struct Connection {
    io: Io,
    peer: Peer,
    /// Runs until the first call that was allowed.
    patience: Option<Patience>,
    /// Runs from the last byte that is sent.
    lingering: Option<Patience>,
    _place: Place,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connection {
    /// Resolves when the connection is to take no more calls, or is gone.
    pub(crate) fn leaving(&self, limits: &ConnectionsConfig) -> impl Future<Output = ()> + Send + use<> {
        Arc::clone(&self.peer.lifetime).leaving(limits.clone())
    }

    /// An error once the connection has been there for too long without a call.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(patience) = &mut self.patience else { return Ok(()) };
        if self.peer.has_called.load(Ordering::Relaxed) {
            self.patience = None;
            return Ok(());
        }
        if patience.as_mut().poll(context).is_ready() {
            tracing::info!(address = %self.peer.address, "a connection made no call in time and is closed");
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no call in time"));
        }
        Ok(())
    }
}

impl Connection {
    /// Reads what the other end still says until it closes too, or is too slow. Where a connection is closed over unread bytes the system
    /// answers with a reset, and the other end loses the last rows that it has not read.
    fn poll_other_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 4096];
        loop {
            if self.lingering.as_mut().is_none_or(|lingering| lingering.as_mut().poll(context).is_ready()) {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = match &mut self.io {
                Io::Plain(stream) => Pin::new(stream).poll_read(context, &mut buffer),
                Io::Tls(stream) => Pin::new(stream).poll_read(context, &mut buffer),
            };
            // An error is the end as well.
            if ready!(read).is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.peer.lifetime.over();
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Err(late) = self.check(context) {
            return Poll::Ready(Err(late));
        }
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(context),
            Io::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(match &mut self.io {
                Io::Plain(stream) => Pin::new(stream).poll_shutdown(context),
                Io::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            })?;
            self.lingering = Some(Box::pin(timer::sleep(LINGER)));
        }
        self.poll_other_end(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_ends_is_read_to_its_end() {
        const SENT: usize = 100 << 10;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        let place = Arc::new(Places::default()).take(address.ip()).unwrap();
        let peer = Peer::new(address, None);
        let mut server = Connection { io: Io::Plain(stream), peer, patience: None, lingering: None, _place: place };
        client.write_all(b"nobody reads this").await.unwrap();
        let mut serving = tokio::spawn(async move {
            server.write_all(&[7; SENT]).await.unwrap();
            server.shutdown().await.unwrap();
        });
        let mut first = [0; 1];
        client.read_exact(&mut first).await.unwrap();
        let is_early = timer::deadline(Duration::from_millis(200), &mut serving).await.is_some();
        assert!(!is_early, "the other end still reads");
        // As HTTP/2 does while it reads.
        client.write_all(b"nor this").await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest.len(), SENT - 1);
        drop(client);
        timer::deadline(LINGER, serving).await.expect("it ends with the other end").unwrap();
    }

    #[test]
    fn an_address_gets_no_more_than_its_places_and_gives_them_back() {
        let places = Arc::new(Places::default());
        let far: IpAddr = "203.0.113.7".parse().unwrap();
        let taken: Vec<Place> = (0..PER_ADDRESS_MAX).map(|_| places.take(far).unwrap()).collect();
        assert!(places.take(far).is_none());
        assert!(places.take("203.0.113.8".parse().unwrap()).is_some());
        drop(taken);
        assert!(places.take(far).is_some());
        assert_eq!(*places.taken.lock(), (0, BTreeMap::new()));
    }

    #[test]
    fn this_machine_may_take_all_places_and_no_more() {
        let places = Arc::new(Places::default());
        let own = IpAddr::from([127, 0, 0, 1]);
        let taken: Vec<Place> = (0..CONNECTIONS_MAX).map(|_| places.take(own).unwrap()).collect();
        assert!(places.take(own).is_none());
        assert!(places.take("203.0.113.7".parse().unwrap()).is_none());
        drop(taken);
        assert_eq!(*places.taken.lock(), (0, BTreeMap::new()));
    }
}
