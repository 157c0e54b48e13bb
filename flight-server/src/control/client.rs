//! The executor's end of the control stream: registers, sends reports and heartbeats, hands commands to the executor, and comes
//! back with a new registration whenever the stream ends. Next: `executor_process.rs`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use windrow_core::clock::{Clock, Millis, SystemClock};
use windrow_core::ids::Incarnation;
use windrow_core::message::{Command, Registration, Report};
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::{Executor, timer};

use super::codec::PostcardCodec;
use super::{COMMAND_BYTES_MAX, CONNECT_PATH};
use crate::routine::Routine;
use crate::security::Dialer;

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

/// How long an executor works on after the last heartbeat that the coordinator acknowledged, counted from its sending. Less than the
/// coordinator waits before it gives the executor's work to others.
const LEASE: Duration = Duration::from_secs(8);

/// Between two looks at the lease.
const LOOK: Duration = Duration::from_millis(500);

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
    dialer: Dialer,
    reports: mpsc::Receiver<Report>,
    /// True once somebody asked the executor to leave.
    leaving: watch::Receiver<bool>,
    clock: SystemClock,
    /// Heartbeats that are not acknowledged, and when they were sent.
    sent: Arc<Mutex<VecDeque<(u64, Millis)>>>,
    /// When the last heartbeat that was acknowledged was sent.
    leased_at: Millis,
}

impl ControlClient {
    /// A link to `scheduler` (`host:port`) that forwards `reports`.
    pub(crate) fn new(
        executor: Arc<Executor>,
        scheduler: &str,
        dialer: Dialer,
        registration: Registration,
        reports: mpsc::Receiver<Report>,
        leaving: watch::Receiver<bool>,
    ) -> Result<Self> {
        let endpoint = dialer
            .endpoint(scheduler)?
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        let (clock, leased_at) = (SystemClock::new(), Millis(0));
        Ok(Self { executor, registration, endpoint, dialer, reports, leaving, clock, sent: Arc::default(), leased_at })
    }

    /// Stays connected until the coordinator tells the executor to leave.
    ///
    /// # Errors
    /// `InvalidConfig` with the coordinator's sentence if it refuses the registration, `Denied` if it does not know the secret.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut backoff = BACKOFF;
        loop {
            let begin = self.clock.now();
            let ended = self.connect_once().await?;
            self.end_lease();
            if self.clock.now() >= begin.after(STABLE) {
                backoff = BACKOFF;
            }
            match ended {
                Ended::Shutdown => return Ok(()),
                Ended::Fenced => tracing::warn!(retry_in = ?backoff, "fenced by the coordinator, registering again"),
                Ended::Lost(status) => {
                    let error = error_chain(&status);
                    let hint = (self.leased_at == Millis(0)).then(|| self.dialer.hint());
                    tracing::warn!(error, hint, retry_in = ?backoff, "no connection to the coordinator");
                }
            }
            timer::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Ends what runs if nobody waits for it any more. What is committed can be read until the next registration.
    fn end_lease(&self) -> bool {
        let is_over = self.clock.now() >= self.leased_at.after(LEASE);
        if is_over {
            self.executor.abandon();
        }
        is_over
    }

    /// One connection, from its registration to its end.
    async fn connect_once(&mut self) -> Result<Ended> {
        // Reports of before are of an incarnation that ends with this registration.
        while self.reports.try_recv().is_ok() {}
        let (outgoing, queue) = mpsc::channel(REPORTS_MAX);
        if outgoing.try_send(Report::Register(self.registration.clone())).is_err() {
            return Err(Error::internal("a new queue of reports is full"));
        }
        let mut commands = match open(&self.endpoint, &self.dialer, queue).await {
            Ok(commands) => commands,
            Err(status) if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) => {
                return Err(Error::new(ErrorKind::Denied, "the scheduler does not know this executor's secret")
                    .with_help("give both the same file with --secret-file"));
            }
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
        self.leased_at = self.clock.now();
        self.sent.lock().clear();
        let beat = beat(Arc::clone(&self.executor), outgoing.clone(), self.clock.clone(), Arc::clone(&self.sent));
        let _heartbeat = Routine::spawn(&self.registration.name, "heartbeat", beat);
        self.pump(incarnation, &mut commands, &outgoing).await
    }

    /// The coordinator has heard a heartbeat.
    fn acknowledged(&mut self, seq: u64) {
        let mut sent = self.sent.lock();
        while let Some(&(number, at)) = sent.front()
            && number <= seq
        {
            self.leased_at = at;
            sent.pop_front();
        }
    }

    /// Carries commands and reports until the connection is over.
    async fn pump(
        &mut self,
        own: Incarnation,
        commands: &mut Streaming<Command>,
        outgoing: &mpsc::Sender<Report>,
    ) -> Result<Ended> {
        let mut is_leaving = false;
        loop {
            tokio::select! {
                command = commands.message() => match command {
                    Ok(Some(Command::Refused { message })) => return Err(Error::new(ErrorKind::InvalidConfig, message)),
                    Ok(Some(Command::Shutdown)) => return Ok(Ended::Shutdown),
                    Ok(Some(Command::HeartbeatSeen { seq })) => self.acknowledged(seq),
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
                is_asked = is_asked(&mut self.leaving), if !is_leaving => {
                    is_leaving = true;
                    if is_asked && outgoing.send(Report::Leaving { incarnation: own }).await.is_err() {
                        return Ok(Ended::Lost(Status::unavailable("the stream of reports is closed")));
                    }
                }
                () = timer::sleep(LOOK) => {
                    if self.end_lease() {
                        return Ok(Ended::Lost(Status::deadline_exceeded("no heartbeat was acknowledged in time")));
                    }
                }
            }
        }
    }
}

/// Whether somebody has asked the executor to leave; false if nobody can any more.
async fn is_asked(leaving: &mut watch::Receiver<bool>) -> bool {
    leaving.wait_for(|leaving| *leaving).await.is_ok()
}

/// A heartbeat each second, for as long as the connection stands.
async fn beat(
    executor: Arc<Executor>,
    outgoing: mpsc::Sender<Report>,
    clock: SystemClock,
    sent: Arc<Mutex<VecDeque<(u64, Millis)>>>,
) {
    loop {
        let heartbeat = executor.heartbeat();
        if let Report::Heartbeat { seq, .. } = &heartbeat {
            sent.lock().push_back((*seq, clock.now()));
        }
        if outgoing.send(heartbeat).await.is_err() {
            return;
        }
        timer::sleep(HEARTBEAT).await;
    }
}

async fn open(endpoint: &Endpoint, dialer: &Dialer, queue: mpsc::Receiver<Report>) -> Result<Streaming<Command>, Status> {
    let channel: Channel = endpoint.connect().await.map_err(|error| Status::unavailable(error_chain(&error)))?;
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(COMMAND_BYTES_MAX);
    grpc.ready().await.map_err(|error| Status::unavailable(error_chain(&error)))?;
    let codec = PostcardCodec::<Report, Command>::default();
    let mut request = Request::new(ReceiverStream::new(queue));
    dialer.sign(&mut request)?;
    let response = grpc.streaming(request, PathAndQuery::from_static(CONNECT_PATH), codec).await?;
    Ok(response.into_inner())
}

/// An error with its causes, because tonic's own sentence is `transport error`.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
