//! The coordinator's end of the control stream. Next: `client.rs`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::server::{NamedService, StreamingService};
use tonic::{Code, Request, Response, Status, Streaming};
use windrow_core::message::{Command, Registration, Report};

use super::codec::PostcardCodec;
use super::{CONNECT_PATH, REPORT_BYTES_MAX};
use crate::coordinator::{Connection, Coordinator, Link};
use crate::fetch::{self, Answer, Ask, REDEEM_PATH};
use crate::routine::Routine;
use crate::security::record_of;
use crate::sql::Desk;

/// Commands on their way to one executor. More means that it does not read: its connection is given up.
const COMMANDS_MAX: usize = 16_384;

/// Bytes of the largest question about a ticket.
const ASK_BYTES_MAX: usize = 64 << 10;

/// How long a new connection may take to say who it is.
const REGISTER_WITHIN: Duration = Duration::from_secs(10);

/// The tonic service.
#[derive(Debug, Clone)]
pub(crate) struct ControlService {
    coordinator: Arc<Coordinator>,
    desk: Desk,
}

impl ControlService {
    pub(crate) fn new(coordinator: Arc<Coordinator>, desk: Desk) -> Self {
        Self { coordinator, desk }
    }
}

impl NamedService for ControlService {
    const NAME: &'static str = "windrow.Control";
}

impl<B> Service<http::Request<B>> for ControlService
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() == REDEEM_PATH {
            let method = Redeem(self.desk.clone());
            return Box::pin(async move {
                let codec = PostcardCodec::<Answer, Ask>::default();
                let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(ASK_BYTES_MAX);
                Ok(grpc.streaming(method, request).await)
            });
        }
        if request.uri().path() != CONNECT_PATH {
            return Box::pin(async {
                Ok(Status::new(Code::Unimplemented, "windrow.Control has only Connect and Redeem").into_http())
            });
        }
        let method = Connect(Arc::clone(&self.coordinator));
        Box::pin(async move {
            let codec = PostcardCodec::<Command, Report>::default();
            let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(REPORT_BYTES_MAX);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

/// An executor asks about a client's ticket.
struct Redeem(Desk);

impl StreamingService<Ask> for Redeem {
    type Response = Answer;
    type ResponseStream = BoxStream<'static, Result<Answer, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<Ask>>) -> Self::Future {
        let desk = self.0.clone();
        let record = record_of(request.extensions());
        Box::pin(async move { Ok(Response::new(fetch::answer(desk, request.into_inner(), record))) })
    }
}

struct Connect(Arc<Coordinator>);

impl StreamingService<Report> for Connect {
    type Response = Command;
    type ResponseStream = Commands;
    type Future = BoxFuture<Response<Commands>, Status>;

    fn call(&mut self, request: Request<Streaming<Report>>) -> Self::Future {
        let coordinator = Arc::clone(&self.0);
        Box::pin(async move { Ok(Response::new(connect(coordinator, request.into_inner()))) })
    }
}

/// Answers at once with the stream of commands; the first report is read behind it, because the other side may wait for the
/// response's headers before it sends.
fn connect(coordinator: Arc<Coordinator>, reports: Streaming<Report>) -> Commands {
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let reader = Routine::spawn("coordinator", "control", async move {
        if let Err(status) = read(coordinator, reports, sender).await {
            tracing::info!(error = %status, "a control stream ended");
        }
    });
    Commands { commands, _reader: reader }
}

async fn read(
    coordinator: Arc<Coordinator>,
    mut reports: Streaming<Report>,
    sender: mpsc::Sender<Command>,
) -> Result<(), Status> {
    let registration = match windrow_executor::timer::deadline(REGISTER_WITHIN, reports.message()).await {
        Some(first) => first_report(first?)?,
        None => return Err(Status::deadline_exceeded("no registration in time")),
    };
    let connection: Connection = match coordinator.connect(registration, Link::Network(sender.clone())) {
        Ok(connection) => connection,
        Err(refused) => {
            // The stream may be gone already; then nobody is left to be told.
            let _ = sender.send(Command::Refused { message: refused.to_string() }).await;
            return Err(Status::failed_precondition(refused.to_string()));
        }
    };
    drop(sender);
    while let Some(report) = reports.message().await? {
        connection.report(report).await;
    }
    Ok(())
}

fn first_report(first: Option<Report>) -> Result<Registration, Status> {
    match first {
        Some(Report::Register(registration)) => Ok(registration),
        Some(_) => Err(Status::invalid_argument("the first report of a control stream must be the registration")),
        None => Err(Status::cancelled("closed before the registration")),
    }
}

/// The stream of commands. It ends when the coordinator drops its link; when the network drops it, the reader ends with it.
#[derive(Debug)]
pub(crate) struct Commands {
    commands: mpsc::Receiver<Command>,
    _reader: Routine,
}

impl Stream for Commands {
    type Item = Result<Command, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.commands.poll_recv(context).map(|command| command.map(Ok))
    }
}
