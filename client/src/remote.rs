//! The session of a scheduler in another process, over Flight SQL and our own actions. Next: `flight-server/src/sql/mod.rs`.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::{DecodedPayload, FlightRecordBatchStream};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, Ticket};
use futures::{Stream, StreamExt};
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use url::Url;
use windrow_core::config::QueryConfig;
use windrow_core::message::{decode, encode};
use windrow_core::{Error, ErrorKind, Result};
use windrow_flight::routine::Routine;
use windrow_flight::sql::actions;
use windrow_flight::{ClusterStatus, JobProgress, wire};
use windrow_planner::Names;

use crate::session::working_directory;

/// Where a scheduler listens unless told otherwise.
const DEFAULT_PORT: u16 = 8815;
/// How long a scheduler may take to answer a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A connection with open calls that is silent for this long is asked for a sign of life ...
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// ... and given up after this long without one.
const KEEP_ALIVE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes in flight: the server's own windows.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// A session of a scheduler elsewhere. Dropping it closes it there, and the statements of it that run go on.
#[derive(Debug)]
pub(crate) struct RemoteSession {
    peer: Peer,
    is_on_this_machine: bool,
    runtime: Handle,
    is_closed: bool,
}

/// The way to a scheduler: cheap to clone, calls share one connection.
#[derive(Clone)]
struct Peer {
    url: Arc<str>,
    client: FlightSqlServiceClient<Channel>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("url", &self.url).finish_non_exhaustive()
    }
}

impl RemoteSession {
    /// Connects and opens a session with `query` as its settings, as far as they are not the defaults. Relative paths of a
    /// scheduler on this machine begin at this process's working directory.
    pub(crate) async fn connect(url: &str, query: &QueryConfig) -> Result<Self> {
        let (host, port) = parse(url)?;
        let is_on_this_machine = is_loopback(&host);
        let mut settings = differing(query);
        if is_on_this_machine && query.directory.is_empty() {
            let directory = working_directory()?;
            settings.push(("windrow.query.directory".to_owned(), directory.to_string_lossy().into_owned()));
        }
        let url: Arc<str> = format!("grpc://{host}:{port}").into();
        let mut client = FlightServiceClient::new(channel(&url, &host, port).await?);
        client = client.max_decoding_message_size(usize::MAX);
        let mut peer = Peer { url, client: FlightSqlServiceClient::new_from_inner(client) };
        let session: u64 = peer.ask(actions::OPEN_SESSION, encode(&settings)?).await?;
        peer.client.set_header(actions::SESSION_HEADER, format!("{session:016x}"));
        Ok(Self { peer, is_on_this_machine, runtime: Handle::current(), is_closed: false })
    }

    pub(crate) fn url(&self) -> &str {
        &self.peer.url
    }

    /// Whether paths mean the same there as here.
    pub(crate) fn is_on_this_machine(&self) -> bool {
        self.is_on_this_machine
    }

    pub(crate) async fn execute(&self, sql: &str) -> Result<RemoteQuery> {
        let mut peer = self.peer.clone();
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        // The statement is the ticket: from its submission on, a client that goes away ends the stream, and with it the job.
        let ticket = Ticket::new(command.as_any().encode_to_vec());
        let rows = peer.client.do_get(ticket).await.map_err(|error| self.peer.restore(error))?;
        let handle = rows.headers().get_bin(actions::STATEMENT_HEADER).and_then(|value| value.to_bytes().ok());
        let handle = handle.ok_or_else(|| self.other_version("no handle"))?;
        let mut rows = rows.into_inner();
        let first = rows.next().await.transpose().map_err(|error| self.peer.restore(error))?;
        let Some(DecodedPayload::Schema(schema)) = first.map(|message| message.payload) else {
            return Err(self.other_version("rows without a schema"));
        };
        let (rows, runtime) = (FlightRecordBatchStream::new(rows), self.runtime.clone());
        Ok(RemoteQuery { peer, handle, schema, rows, runtime, following: OnceLock::new() })
    }

    fn other_version(&self, what: &str) -> Error {
        Error::new(ErrorKind::Data, format!("{} sent {what}", self.url())).with_help("are client and scheduler of one version?")
    }

    pub(crate) async fn names(&self) -> Result<Names> {
        actions::names_from(&self.peer.answer(actions::NAMES, bytes::Bytes::new()).await?)
    }

    pub(crate) async fn drain(&self, executor: &str) -> Result<()> {
        self.peer.ask::<bool>(actions::DRAIN, bytes::Bytes::copy_from_slice(executor.as_bytes())).await.map(drop)
    }

    pub(crate) async fn status(&self) -> Result<ClusterStatus> {
        self.peer.ask(actions::STATUS, bytes::Bytes::new()).await
    }

    pub(crate) async fn close(mut self) {
        self.is_closed = true;
        self.peer.clone().close().await;
    }
}

impl Drop for RemoteSession {
    fn drop(&mut self) {
        if !self.is_closed {
            self.runtime.spawn(self.peer.clone().close());
        }
    }
}

impl Peer {
    async fn close(self) {
        if let Err(error) = self.answer(actions::CLOSE_SESSION, bytes::Bytes::new()).await {
            tracing::debug!(url = %self.url, %error, "the session was not closed, the scheduler forgets it in time");
        }
    }

    /// The one result of an action, decoded.
    async fn ask<T: serde::de::DeserializeOwned>(&self, action: &str, body: bytes::Bytes) -> Result<T> {
        decode(&self.answer(action, body).await?)
    }

    /// The one result of an action.
    async fn answer(&self, action: &str, body: bytes::Bytes) -> Result<bytes::Bytes> {
        let results = self.client.clone().do_action(Action::new(action, body)).await;
        let mut results = results.map_err(|error| self.restore(error))?;
        let result = results.message().await.map_err(|status| self.restore(status.into()))?;
        result
            .map(|result| result.body)
            .ok_or_else(|| Error::new(ErrorKind::Data, format!("{} did not answer to '{action}'", self.url)))
    }

    /// The error as it was on the other side, or what became of the connection.
    fn restore(&self, error: FlightError) -> Error {
        match error {
            // A status with a cause was made here, by the connection; one without was sent.
            FlightError::Tonic(status) if std::error::Error::source(&*status).is_some() => {
                Error::new(ErrorKind::Unavailable, format!("the connection to the scheduler at {} is lost", self.url))
                    .with_help("check that it still runs, and connect again")
                    .with_source(*status)
            }
            FlightError::Tonic(status) => wire::from_status(&status),
            other => Error::new(ErrorKind::Data, format!("a result of {} does not decode: {other}", self.url)).with_source(other),
        }
    }
}

/// A statement that runs elsewhere, with the stream of its rows. Dropping it ends the stream, and the job with it.
pub(crate) struct RemoteQuery {
    peer: Peer,
    handle: bytes::Bytes,
    schema: SchemaRef,
    rows: FlightRecordBatchStream,
    runtime: Handle,
    following: OnceLock<(watch::Receiver<JobProgress>, Routine)>,
}

impl fmt::Debug for RemoteQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteQuery").field("peer", &self.peer).field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl RemoteQuery {
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    pub(crate) async fn cancel(&self) {
        if let Err(error) = self.peer.answer(actions::CANCEL, self.handle.clone()).await {
            tracing::debug!(url = %self.peer.url, %error, "the query was not cancelled");
        }
    }

    /// As last heard. The first call starts to listen.
    pub(crate) fn progress(&self) -> JobProgress {
        let (progress, _routine) = self.following.get_or_init(|| {
            let (publish, progress) = watch::channel(JobProgress::default());
            let follow = follow(self.peer.clone(), self.handle.clone(), publish);
            (progress, Routine::spawn_on(&self.runtime, &self.peer.url, "progress", follow))
        });
        *progress.borrow()
    }
}

impl Stream for RemoteQuery {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.rows.poll_next_unpin(context);
        next.map(|item| item.map(|batch| batch.map_err(|error| self.peer.restore(error))))
    }
}

/// Publishes a query's progress until it is over or cannot be heard any more; the rows say why.
async fn follow(peer: Peer, handle: bytes::Bytes, publish: watch::Sender<JobProgress>) {
    let Ok(mut results) = peer.client.clone().do_action(Action::new(actions::PROGRESS, handle)).await else { return };
    while let Ok(Some(result)) = results.message().await {
        match decode(&result.body) {
            Ok(progress) => publish.send_replace(progress),
            Err(_other_version) => return,
        };
    }
}

/// The settings that are not the defaults, with their full names.
fn differing(query: &QueryConfig) -> Vec<(String, String)> {
    let default = QueryConfig::default();
    let differing = QueryConfig::KEYS.iter().filter(|key| query.get(key) != default.get(key));
    differing.filter_map(|key| Some((format!("windrow.query.{key}"), query.get(key)?))).collect()
}

async fn channel(url: &str, host: &str, port: u16) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{host}:{port}")).map_err(|source| not_ours(url).with_source(source))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_LIMIT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_LIMIT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    endpoint.connect().await.map_err(|source| {
        Error::new(ErrorKind::Unavailable, format!("no scheduler answers at {url}"))
            .with_help("start one with `windrow local`, or check host and port")
            .with_source(source)
    })
}

/// Host and port of `grpc://host:port`.
fn parse(url: &str) -> Result<(String, u16)> {
    let parsed = Url::parse(url).map_err(|source| not_ours(url).with_source(source))?;
    if parsed.scheme() == "grpc+tls" {
        return Err(Error::unsupported(format!("{url}: connections are not encrypted yet")).with_help("write grpc://HOST:PORT"));
    }
    let is_bare = parsed.username().is_empty()
        && parsed.password().is_none()
        && matches!(parsed.path(), "" | "/")
        && parsed.query().is_none()
        && parsed.fragment().is_none();
    match parsed.host_str() {
        Some(host) if parsed.scheme() == "grpc" && is_bare && !host.is_empty() => {
            Ok((host.to_owned(), parsed.port().unwrap_or(DEFAULT_PORT)))
        }
        _ => Err(not_ours(url)),
    }
}

fn not_ours(url: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("'{url}' is not the url of a scheduler"))
        .with_help(format!("write grpc://HOST:PORT, such as grpc://127.0.0.1:{DEFAULT_PORT}"))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_and_a_port() {
        for (url, host, port) in [
            ("grpc://127.0.0.1:9000", "127.0.0.1", 9000),
            ("grpc://localhost", "localhost", 8815),
            ("grpc://host.example:1/", "host.example", 1),
            ("grpc://[::1]:7", "[::1]", 7),
        ] {
            assert_eq!(parse(url).unwrap(), (host.to_owned(), port), "{url}");
        }
    }

    #[test]
    fn other_urls_are_refused_with_an_example() {
        for url in ["", "127.0.0.1:8815", "localhost:8815", "http://host:1", "grpc://", "grpc://user@host", "grpc://host/catalog"]
        {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig, "{url}");
            assert!(error.context.help.is_some_and(|help| help.contains("grpc://127.0.0.1:8815")), "{url}");
        }
        assert_eq!(parse("grpc+tls://host:1").unwrap_err().kind, ErrorKind::Unsupported);
    }

    #[test]
    fn loopback_is_this_machine() {
        assert!(["localhost", "127.0.0.1", "127.1.2.3", "[::1]"].into_iter().all(is_loopback));
        assert!(!["10.0.0.1", "host", "[fe80::1]"].into_iter().any(is_loopback));
    }

    #[test]
    fn only_settings_that_differ_are_sent() {
        assert!(differing(&QueryConfig::default()).is_empty());
        let query = QueryConfig { partitions: 3, ..QueryConfig::default() };
        assert_eq!(differing(&query), [("windrow.query.partitions".to_owned(), "3".to_owned())]);
    }
}
