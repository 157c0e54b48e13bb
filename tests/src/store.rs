//! An object store of our own that answers as S3 does, for a folder of this machine, and misbehaves on demand.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED, RANGE, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use windrow_core::rand;
use windrow_executor::timer;

/// The name of its only bucket.
pub const BUCKET: &str = "tables";

type Body = BoxBody<Bytes, io::Error>;
type Answer = Response<Body>;

/// How often, of a thousand requests for an object, it misbehaves, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    /// 503, as a store says that it is overloaded.
    pub refused: u64,
    /// 429, with a wish for a pause.
    pub too_many: u64,
    /// The first byte comes half a second late.
    pub slow: u64,
    /// The body ends in the middle.
    pub cut: u64,
}

/// How often each trouble happened.
#[derive(Debug, Default)]
pub struct Fired {
    /// 503.
    pub refused: AtomicU64,
    /// 429.
    pub too_many: AtomicU64,
    /// Late first bytes.
    pub slow: AtomicU64,
    /// Cut bodies.
    pub cut: AtomicU64,
}

/// A running server. Gone when dropped.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    trouble: Trouble,
    fired: Fired,
    is_down: AtomicBool,
    /// Part of every ETag: another number, another content.
    version: AtomicU64,
    requests: AtomicU64,
}

impl Store {
    /// Serves the files below `folder`.
    pub async fn over(folder: &Path, trouble: Trouble) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            trouble,
            fired: Fired::default(),
            is_down: AtomicBool::new(false),
            version: AtomicU64::new(1),
            requests: AtomicU64::new(0),
        });
        let served = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((connection, _)) = listener.accept().await else { continue };
                let shared = Arc::clone(&served);
                let service = service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move { Ok::<_, Infallible>(shared.answer(&request).await) }
                });
                let serve = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service);
                tokio::spawn(async move { serve.await.ok() });
            }
        });
        Self { shared, address, accepting: accepting.abort_handle() }
    }

    /// What a process must have in its environment to find it.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "reader".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ]
    }

    /// How often it misbehaved.
    #[must_use]
    pub fn fired(&self) -> &Fired {
        &self.shared.fired
    }

    /// Refuses everything from now on, or answers again.
    pub fn set_down(&self, is_down: bool) {
        self.shared.is_down.store(is_down, Ordering::Relaxed);
    }

    /// From now on every object is another one.
    pub fn rewrite(&self) {
        self.shared.version.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        if self.is_down.load(Ordering::Relaxed) {
            return self.refusal(StatusCode::SERVICE_UNAVAILABLE);
        }
        let path = request.uri().path().trim_start_matches('/');
        let Some(key) = path.strip_prefix(BUCKET) else { return empty(StatusCode::NOT_FOUND) };
        let key = key.trim_start_matches('/');
        match *request.method() {
            Method::GET if key.is_empty() => self.list(request.uri().query().unwrap_or_default()),
            Method::GET => self.get(key, request.headers().get(RANGE).and_then(|range| range.to_str().ok())).await,
            Method::HEAD => self.head(key),
            _ => empty(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn refusal(&self, status: StatusCode) -> Answer {
        let counter = if status == StatusCode::TOO_MANY_REQUESTS { &self.fired.too_many } else { &self.fired.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut answer = empty(status);
        answer.headers_mut().insert(RETRY_AFTER, 1.into());
        answer
    }

    fn e_tag(&self, len: u64) -> String {
        format!("\"{len:x}-{}\"", self.version.load(Ordering::Relaxed))
    }

    fn list(&self, query: &str) -> Answer {
        let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default();
        let prefix = prefix.replace("%2F", "/");
        let mut files = Vec::new();
        walk(&self.folder, &mut files);
        let objects = files.iter().filter_map(|file| {
            let key = file.strip_prefix(&self.folder).ok()?.to_string_lossy().into_owned();
            let len = file.metadata().ok()?.len();
            let tag = self.e_tag(len).replace('"', "&quot;");
            let object = format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{tag}</ETag><Size>{len}</Size></Contents>"
            );
            key.starts_with(&prefix).then_some(object)
        });
        let objects: String = objects.collect();
        let text = format!("<ListBucketResult><IsTruncated>false</IsTruncated>{objects}</ListBucketResult>");
        Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed())
    }

    fn head(&self, key: &str) -> Answer {
        let Ok(metadata) = fs::metadata(self.folder.join(key)) else { return empty(StatusCode::NOT_FOUND) };
        self.described(metadata.len(), metadata.len()).body(no_bytes()).unwrap()
    }

    fn described(&self, len: u64, sent: u64) -> hyper::http::response::Builder {
        let answer = Response::builder().header(ETAG, self.e_tag(len)).header(LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT");
        answer.header(CONTENT_LENGTH, sent)
    }

    async fn get(&self, key: &str, range: Option<&str>) -> Answer {
        let Ok(whole) = fs::read(self.folder.join(key)) else { return empty(StatusCode::NOT_FOUND) };
        let drawn = rand::seeded(self.requests.fetch_add(1, Ordering::Relaxed)).u64(..1000);
        let Trouble { refused, too_many, slow, cut } = self.trouble;
        if drawn < refused {
            return self.refusal(StatusCode::SERVICE_UNAVAILABLE);
        }
        if drawn < refused + too_many {
            return self.refusal(StatusCode::TOO_MANY_REQUESTS);
        }
        let is_slow = drawn < refused + too_many + slow;
        let is_cut = !is_slow && drawn < refused + too_many + slow + cut;
        if is_slow {
            self.fired.slow.fetch_add(1, Ordering::Relaxed);
            timer::sleep(Duration::from_millis(500)).await;
        }
        let len = whole.len();
        let Some((start, end)) = bounds(range, len) else { return empty(StatusCode::RANGE_NOT_SATISFIABLE) };
        let bytes = Bytes::from(whole).slice(start..end);
        let mut answer = self.described(len as u64, bytes.len() as u64);
        if range.is_some() {
            let last = end.saturating_sub(1);
            answer = answer.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, format!("bytes {start}-{last}/{len}"));
        }
        if is_cut && bytes.len() > 1 {
            self.fired.cut.fetch_add(1, Ordering::Relaxed);
            let half = bytes.slice(..bytes.len() / 2);
            let frames = [Ok(Frame::data(half)), Err(io::Error::other("cut"))];
            return answer.body(BodyExt::boxed(StreamBody::new(stream::iter(frames)))).unwrap();
        }
        answer.body(Full::new(bytes).map_err(|never| match never {}).boxed()).unwrap()
    }
}

fn no_bytes() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}

fn empty(status: StatusCode) -> Answer {
    Response::builder().status(status).body(no_bytes()).unwrap()
}

/// The bytes that a range names: `bytes=1-5`, `bytes=7-`, `bytes=-3`.
fn bounds(range: Option<&str>, len: usize) -> Option<(usize, usize)> {
    let Some(range) = range else { return Some((0, len)) };
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let bounds = match (first.parse::<usize>().ok(), last.parse::<usize>().ok()) {
        (Some(first), Some(last)) => (first, (last + 1).min(len)),
        (Some(first), None) => (first, len),
        (None, Some(count)) => (len.saturating_sub(count), len),
        (None, None) => return None,
    };
    (bounds.0 <= bounds.1).then_some(bounds)
}

fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() { walk(&path, into) } else { into.push(path) }
    }
}
