//! The session of a scheduler in another process, over Flight SQL and our own actions. Next: `remote/bound.rs`, then
//! `flight-server/src/sql/mod.rs`.

mod bound;
mod over;

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
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
use windrow_core::config::QueryConfig;
use windrow_core::message::{decode, encode};
use windrow_core::{Error, ErrorKind, Result};
use windrow_flight::routine::Routine;
use windrow_flight::security::client_tls;
use windrow_flight::sql::actions;
use windrow_flight::{ClusterStatus, JobProgress, JobState, error_chain, wire};
use windrow_planner::Names;

use crate::login::Login;
use crate::session::working_directory;
use crate::target::Target;

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
    /// What names it in the header of each call.
    name: String,
    /// Whether the scheduler has said that it takes no plans.
    refuses_plans: AtomicBool,
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
    /// Connects and opens a session, in the url's schema, with `query` as its settings, as far as they are not the defaults. Relative
    /// paths of a scheduler on this machine begin at this process's working directory.
    pub(crate) async fn connect(url: &str, login: &Login, query: &QueryConfig) -> Result<Self> {
        let target = Target::parse(url)?;
        let is_on_this_machine = target.is_loopback();
        let mut settings = differing(query);
        if is_on_this_machine && query.directory.is_empty() {
            let directory = working_directory()?;
            settings.push(("windrow.query.directory".to_owned(), directory.to_string_lossy().into_owned()));
        }
        let mut client = FlightServiceClient::new(channel(&target, login.ca.as_deref()).await?);
        client = client.max_decoding_message_size(usize::MAX);
        let token = login.token(&target, &mut client).await.map_err(|error| broken_off(&target, error))?;
        let mut peer = Peer { url: target.address().into(), client: FlightSqlServiceClient::new_from_inner(client) };
        if let Some(token) = &token {
            peer.client.set_token(token.clone());
        }
        let opened = peer.ask(actions::OPEN_SESSION, encode(&settings)?).await;
        let session: u64 = opened
            .map_err(|error| if token.is_none() { unknown(&target, error) } else { error })
            .map_err(|error| broken_off(&target, error))?;
        let name = format!("{session:016x}");
        peer.client.set_header(actions::SESSION_HEADER, name.clone());
        let refuses_plans = AtomicBool::new(false);
        let session = Self { peer, name, refuses_plans, is_on_this_machine, runtime: Handle::current(), is_closed: false };
        if let Some(schema) = &target.schema {
            session.use_schema(schema).await?;
        }
        Ok(session)
    }

    /// Looks names without a schema up in `schema`.
    async fn use_schema(&self, schema: &str) -> Result<()> {
        let setting = format!("SET datafusion.catalog.default_schema = '{}'", schema.replace('\'', "''"));
        let mut nothing = self.execute(&setting).await?;
        while let Some(batch) = nothing.next().await {
            batch?;
        }
        Ok(())
    }

    pub(crate) fn url(&self) -> &str {
        &self.peer.url
    }

    /// Whether paths mean the same there as here.
    pub(crate) fn is_on_this_machine(&self) -> bool {
        self.is_on_this_machine
    }

    pub(crate) async fn execute(&self, sql: &str) -> Result<RemoteQuery> {
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        self.run(&command.as_any()).await
    }

    /// Runs the statement of a command.
    async fn run(&self, command: &arrow_flight::sql::Any) -> Result<RemoteQuery> {
        let mut peer = self.peer.clone();
        // The statement is the ticket: from its submission on, a client that goes away ends the stream, and with it the job.
        let ticket = Ticket::new(command.encode_to_vec());
        let rows = peer.client.do_get(ticket).await.map_err(|error| self.peer.restore(error))?;
        let handle = rows.headers().get_bin(actions::STATEMENT_HEADER).and_then(|value| value.to_bytes().ok());
        let handle = handle.ok_or_else(|| self.other_version("no handle"))?;
        let id = rows.headers().get(actions::JOB_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut rows = rows.into_inner();
        let first = rows.next().await.transpose().map_err(|error| self.peer.restore(error))?;
        let Some(DecodedPayload::Schema(schema)) = first.map(|message| message.payload) else {
            return Err(self.other_version("rows without a schema"));
        };
        let (rows, runtime) = (FlightRecordBatchStream::new(rows), self.runtime.clone());
        let control = RemoteControl { peer, id, handle, runtime, following: Arc::default() };
        Ok(RemoteQuery { control, schema, rows })
    }

    fn other_version(&self, what: &str) -> Error {
        Error::new(ErrorKind::Data, format!("{} sent {what}", self.url())).with_help("are client and scheduler of one version?")
    }

    pub(crate) async fn names(&self) -> Result<Names> {
        actions::names_from(&self.peer.answer(actions::NAMES, bytes::Bytes::new()).await?)
    }

    pub(crate) async fn cancel(&self, query: u64) -> Result<bool> {
        self.peer.ask(actions::CANCEL_JOB, encode(&query)?).await
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
    control: RemoteControl,
    schema: SchemaRef,
    rows: FlightRecordBatchStream,
}

/// A statement that runs elsewhere, as others than its reader hold it.
#[derive(Debug, Clone)]
pub(crate) struct RemoteControl {
    peer: Peer,
    id: Option<u64>,
    handle: bytes::Bytes,
    runtime: Handle,
    following: Arc<OnceLock<(watch::Receiver<JobProgress>, Routine)>>,
}

impl fmt::Debug for RemoteQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteQuery").field("control", &self.control).field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl RemoteQuery {
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    pub(crate) fn control(&self) -> RemoteControl {
        self.control.clone()
    }
}

impl RemoteControl {
    pub(crate) fn id(&self) -> Option<u64> {
        self.id
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
        next.map(|item| item.map(|batch| batch.map_err(|error| self.control.peer.restore(error))))
    }
}

/// Publishes a query's progress until it is over. One that is not heard of any more counts as failed: its rows say why.
async fn follow(peer: Peer, handle: bytes::Bytes, publish: watch::Sender<JobProgress>) {
    if let Ok(mut results) = peer.client.clone().do_action(Action::new(actions::PROGRESS, handle)).await {
        while let Ok(Some(result)) = results.message().await {
            match decode(&result.body) {
                Ok(progress) => publish.send_replace(progress),
                Err(_other_version) => break,
            };
        }
    }
    publish.send_if_modified(|progress| {
        let is_lost = !progress.state.is_over();
        if is_lost {
            progress.state = JobState::Failed;
        }
        is_lost
    });
}

/// The settings that are not the defaults, with their full names.
fn differing(query: &QueryConfig) -> Vec<(String, String)> {
    let default = QueryConfig::default();
    let differing = QueryConfig::KEYS.iter().filter(|key| query.get(key) != default.get(key));
    differing.filter_map(|key| Some((format!("windrow.query.{key}"), query.get(key)?))).collect()
}

async fn channel(target: &Target, ca: Option<&Path>) -> Result<Channel> {
    let Target { host, port, encrypts, .. } = target;
    let unfit = |source: tonic::transport::Error| {
        Error::new(ErrorKind::InvalidConfig, format!("{} cannot be called", target.address())).with_source(source)
    };
    let scheme = if *encrypts { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{host}:{port}")).map_err(unfit)?;
    if *encrypts {
        endpoint = endpoint.tls_config(client_tls(ca)?).map_err(unfit)?;
    }
    let endpoint = endpoint
        .connect_timeout(CONNECT_LIMIT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_LIMIT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    endpoint.connect().await.map_err(|source| {
        let error = Error::new(ErrorKind::Unavailable, format!("no scheduler answers at {}", target.address()));
        let certificate = error_chain(&source);
        match certificate.find("invalid peer certificate") {
            Some(at) => Error::new(
                ErrorKind::Denied,
                format!("{} is not trusted: {}", target.address(), certificate.get(at..).unwrap_or_default()),
            )
            .with_help("name the certificate that signed the server's with --tls-ca FILE"),
            None => {
                error.with_help("start one with `windrow local`, or check host, port, and whether it is grpc:// or grpc+tls://")
            }
        }
        .with_source(source)
    })
}

/// A scheduler with a certificate ends connections that are not encrypted, without a word.
fn broken_off(target: &Target, error: Error) -> Error {
    if error.kind != ErrorKind::Unavailable || target.encrypts {
        return error;
    }
    Error::new(ErrorKind::Unavailable, format!("{} broke off the connection", target.address()))
        .with_help("write grpc+tls:// if the scheduler has a certificate")
        .with_source(error)
}

/// A scheduler that asks for a credential, and none is known.
fn unknown(target: &Target, error: Error) -> Error {
    if error.kind != ErrorKind::Denied {
        return error;
    }
    let message = format!("{} wants to know who you are", target.address());
    Error::new(ErrorKind::Denied, message)
        .with_help("write USER@ before the host and give WINDROW_PASSWORD, or give a token in WINDROW_TOKEN")
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_that_differ_are_sent() {
        assert!(differing(&QueryConfig::default()).is_empty());
        let query = QueryConfig { partitions: 3, ..QueryConfig::default() };
        assert_eq!(differing(&query), [("windrow.query.partitions".to_owned(), "3".to_owned())]);
    }
}
