//! One path, two services: executors reach the one with all segments, clients the one with their results. Which of them a call is for
//! is decided here, by who calls, and by nothing that the call says. Next: `location.rs`.

use std::convert::Infallible;
use std::task::{Context, Poll};

use arrow_flight::flight_service_server::FlightServiceServer;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use windrow_auth::Principal;

use super::door::Door;
use crate::security::Caller;
use crate::shuffle::ShuffleService;

/// Both services of an executor.
#[derive(Debug, Clone)]
pub(super) struct ByCaller {
    executors: FlightServiceServer<ShuffleService>,
    clients: FlightServiceServer<Door>,
}

impl ByCaller {
    pub(super) fn new(executors: FlightServiceServer<ShuffleService>, clients: FlightServiceServer<Door>) -> Self {
        Self { executors, clients }
    }
}

impl NamedService for ByCaller {
    const NAME: &'static str = <FlightServiceServer<ShuffleService> as NamedService>::NAME;
}

impl Service<Request<Body>> for ByCaller {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Both always are.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match request.extensions().get::<Caller>().map(|caller| &caller.principal) {
            Some(Principal::Executor) => self.executors.call(request),
            Some(Principal::Client { .. }) => self.clients.call(request),
            None => Box::pin(async { Ok(Status::internal("a call that nobody has authenticated").into_http()) }),
        }
    }
}
