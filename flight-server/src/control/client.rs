//! The executor's end of the control stream: registers, sends reports and heartbeats, hands commands to the executor, and comes
//! back with a new registration whenever the stream ends. Next: `executor_process.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use windrow_core::clock::{Clock, SystemClock};
use windrow_core::ids::Incarnation;
use windrow_core::message::{Command, Registration, Report};
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::{Executor, timer};

use super::codec::PostcardCodec;
use super::{COMMAND_BYTES_MAX, CONNECT_PATH};
use crate::routine::Routine;

/// Reports on their way out. A full queue makes attempts wait, not memory grow.
const REPORTS_MAX: usize = 1024;

/// Between heartbeats (`docs/ARCHITECTURE.md`, timings).
const HEARTBEAT: Duration = Duration::from_secs(1);

/// First and longest wait before another try to connect.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A connection that lasted this long was a good one: the next wait is short again. Two executors of one name, which fence each
/// other, wait longer and longer.
const STABLE: Duration = Duration::from_secs(10);

/// How long the coordinator may take to accept a connection, and then to answer the registration.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Why a control stream is over.
enum Ended {
    /// The coordinator told the executor to leave.
    Shutdown,
    /// The coordinator fenced this incarnation: register again.
    Fenced,
    /// The stream broke: register again.
    Lost(Status),
}

/// One executor's link to its coordinator.
pub(crate) struct ControlClient {
    executor: Arc<Executor>,
    registration: Registration,
    endpoint: Endpoint,
    reports: mpsc::Receiver<Report>,
}

impl ControlClient {
    /// A link to `scheduler` (`host:port`) that forwards `reports`.
    pub(crate) fn new(
        executor: Arc<Executor>,
        scheduler: &str,
        registration: Registration,
        reports: mpsc::Receiver<Report>,
    ) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{scheduler}")).map_err(|source| {
            Error::new(ErrorKind::InvalidConfig, format!("'{scheduler}' is not a scheduler's address; write it as host:port"))
                .with_source(source)
        })?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        Ok(Self { executor, registration, endpoint, reports })
    }

    /// Stays connected until the coordinator tells the executor to leave.
    ///
    /// # Errors
    /// `InvalidConfig` with the coordinator's sentence if it refuses the registration.
    pub(crate) async fn run(mut self) -> Result<()> {
        let clock = SystemClock::new();
        let mut backoff = BACKOFF;
        loop {
            let begin = clock.now();
            let ended = self.connect_once().await?;
            if clock.now() >= begin.after(STABLE) {
                backoff = BACKOFF;
            }
            match ended {
                Ended::Shutdown => return Ok(()),
                Ended::Fenced => tracing::warn!(retry_in = ?backoff, "fenced by the coordinator, registering again"),
                Ended::Lost(status) => {
                    tracing::warn!(error = %status.message(), retry_in = ?backoff, "no connection to the coordinator");
                }
            }
            timer::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// One connection, from its registration to its end.
    async fn connect_once(&mut self) -> Result<Ended> {
        // Reports of before are of an incarnation that ends with this registration.
        while self.reports.try_recv().is_ok() {}
        let (outgoing, queue) = mpsc::channel(REPORTS_MAX);
        if outgoing.try_send(Report::Register(self.registration.clone())).is_err() {
            return Err(Error::internal("a new queue of reports is full"));
        }
        let mut commands = match open(&self.endpoint, queue).await {
            Ok(commands) => commands,
            Err(status) => return Ok(Ended::Lost(status)),
        };
        let answer = timer::deadline(CONNECT_WITHIN, commands.message()).await;
        let incarnation = match answer.unwrap_or_else(|| Err(Status::deadline_exceeded("the registration was not answered"))) {
            Ok(Some(Command::Refused { message })) => return Err(Error::new(ErrorKind::InvalidConfig, message)),
            Ok(Some(registered @ Command::Registered { incarnation, .. })) => {
                self.executor.handle(registered);
                incarnation
            }
            Ok(Some(_)) => return Ok(Ended::Lost(Status::internal("the registration was not answered first"))),
            Ok(None) => return Ok(Ended::Lost(Status::unavailable("closed before the registration"))),
            Err(status) => return Ok(Ended::Lost(status)),
        };
        tracing::info!(name = %self.registration.name, %incarnation, "registered with the coordinator");
        let _heartbeat = Routine::spawn(&self.registration.name, "heartbeat", beat(Arc::clone(&self.executor), outgoing.clone()));
        self.pump(incarnation, &mut commands, &outgoing).await
    }

    /// Carries commands and reports until the connection is over.
    async fn pump(
        &mut self,
        own: Incarnation,
        commands: &mut Streaming<Command>,
        outgoing: &mpsc::Sender<Report>,
    ) -> Result<Ended> {
        loop {
            tokio::select! {
                command = commands.message() => match command {
                    Ok(Some(Command::Refused { message })) => return Err(Error::new(ErrorKind::InvalidConfig, message)),
                    Ok(Some(Command::Shutdown)) => return Ok(Ended::Shutdown),
                    Ok(Some(command)) => {
                        let is_own_end = matches!(command, Command::Fence { incarnation } if incarnation == own);
                        self.executor.handle(command);
                        if is_own_end {
                            return Ok(Ended::Fenced);
                        }
                    }
                    Ok(None) => return Ok(Ended::Lost(Status::unavailable("the coordinator closed the stream"))),
                    Err(status) => return Ok(Ended::Lost(status)),
                },
                report = self.reports.recv() => match report {
                    Some(report) => {
                        if outgoing.send(report).await.is_err() {
                            return Ok(Ended::Lost(Status::unavailable("the stream of reports is closed")));
                        }
                    }
                    None => return Ok(Ended::Shutdown),
                },
            }
        }
    }
}

/// A heartbeat each second, for as long as the connection stands.
async fn beat(executor: Arc<Executor>, outgoing: mpsc::Sender<Report>) {
    loop {
        if outgoing.send(executor.heartbeat()).await.is_err() {
            return;
        }
        timer::sleep(HEARTBEAT).await;
    }
}

async fn open(endpoint: &Endpoint, queue: mpsc::Receiver<Report>) -> Result<Streaming<Command>, Status> {
    let channel: Channel = endpoint.connect().await.map_err(|error| Status::unavailable(error_chain(&error)))?;
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(COMMAND_BYTES_MAX);
    grpc.ready().await.map_err(|error| Status::unavailable(error_chain(&error)))?;
    let codec = PostcardCodec::<Report, Command>::default();
    let request = Request::new(ReceiverStream::new(queue));
    let response = grpc.streaming(request, PathAndQuery::from_static(CONNECT_PATH), codec).await?;
    Ok(response.into_inner())
}

/// An error with its causes, because tonic's own sentence is `transport error`.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
