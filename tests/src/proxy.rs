//! A byte proxy between two processes: it delays, throttles, damages, stalls and cuts what passes, and counts how often it did.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use windrow_executor::timer;

/// Bytes that pass at a time.
const CHUNK: usize = 16 << 10;

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// They pass.
    Pass,
    /// Connections are closed, and new ones too.
    Cut,
    /// Connections stand and no byte passes.
    Stall,
    /// Every chunk comes later.
    Delay(Duration),
    /// So many bytes a second.
    Throttle(u64),
    /// A bit is flipped in every so many chunks.
    Flip(u64),
}

/// What passed.
#[derive(Debug, Default)]
struct Counts {
    fired: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    fn fired(&self) {
        self.fired.fetch_add(1, Ordering::Relaxed);
    }
}

/// A listener whose connections end at another address.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    rule: watch::Sender<Rule>,
    counts: Arc<Counts>,
    accepting: AbortHandle,
}

impl Proxy {
    /// Listens at `host` and begins to pass bytes to `target`.
    pub async fn at(host: Ipv4Addr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (rule, rules) = watch::channel(Rule::Pass);
        let counts = Arc::<Counts>::default();
        let accepting = tokio::spawn(accept(listener, target, rules, Arc::clone(&counts))).abort_handle();
        Self { address, rule, counts, accepting }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this happens.
    pub fn set(&self, rule: Rule) {
        self.rule.send_replace(rule);
    }

    /// How often it did something to bytes or connections.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.counts.fired.load(Ordering::Relaxed)
    }

    /// Bytes that passed, both ways.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A port of this machine that is free now, outside the range that systems choose from, so that nobody gets it by chance before it is
/// bound; never the same twice.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    // Processes of tests that run side by side begin in different places.
    let start = u16::try_from(std::process::id() % 100).unwrap() * 150;
    let mut ports = std::iter::repeat_with(|| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT);
    ports.by_ref().take(COUNT.into()).find(|port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
}

async fn accept(listener: TcpListener, target: SocketAddr, rules: watch::Receiver<Rule>, counts: Arc<Counts>) {
    // Dropped with this future, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        if *rules.borrow() == Rule::Cut {
            counts.fired();
            continue;
        }
        let (rules, counts) = (rules.clone(), Arc::clone(&counts));
        connections.spawn(async move {
            let Ok(far) = TcpStream::connect(target).await else { return };
            near.set_nodelay(true).ok();
            far.set_nodelay(true).ok();
            let (near_reads, near_writes) = near.into_split();
            let (far_reads, far_writes) = far.into_split();
            let mut cut = rules.clone();
            tokio::select! {
                () = pass(near_reads, far_writes, rules.clone(), Arc::clone(&counts)) => {}
                () = pass(far_reads, near_writes, rules.clone(), Arc::clone(&counts)) => {}
                _ = cut.wait_for(|rule| *rule == Rule::Cut) => {
                    counts.fired();
                }
            }
        });
    }
}

/// Carries bytes one way until an end closes.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut rules: watch::Receiver<Rule>,
    counts: Arc<Counts>,
) {
    let mut buffer = vec![0; CHUNK];
    let mut chunks = 0_u64;
    loop {
        let Ok(len @ 1..) = from.read(&mut buffer).await else { return };
        chunks += 1;
        let rule = *rules.borrow();
        let strikes = match rule {
            Rule::Pass | Rule::Cut => false,
            Rule::Stall => {
                counts.fired();
                // An error means that the proxy is gone.
                if rules.wait_for(|rule| *rule != Rule::Stall).await.is_err() {
                    return;
                }
                false
            }
            Rule::Delay(wait) => {
                timer::sleep(wait).await;
                true
            }
            Rule::Throttle(bytes) => {
                timer::sleep(Duration::from_secs_f64(len as f64 / bytes as f64)).await;
                true
            }
            Rule::Flip(every) if chunks.is_multiple_of(every) => {
                buffer[len / 2] ^= 1;
                true
            }
            Rule::Flip(_) => false,
        };
        counts.fired.fetch_add(u64::from(strikes), Ordering::Relaxed);
        counts.bytes.fetch_add(len as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}
