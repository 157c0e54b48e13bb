//! A request that breaks off is an error, never a clean end. Next: `sql/mod.rs`.
//!
//! tonic ends a stream of requests without a word when the other side resets it, as if all had been sent. A service that acts on the
//! end, as an ingest that publishes rows, would then act on half of them. In front of every service the reset becomes another error,
//! which tonic hands on.

use std::task::{Context, Poll};

use http::Request;
use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status};
use tower::Layer;

/// Puts [`BrokenOff`] in front of services.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BrokenOffLayer;

impl<S> Layer<S> for BrokenOffLayer {
    type Service = BrokenOff<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BrokenOff { inner }
    }
}

/// A service whose requests end with an error if they break off.
#[derive(Debug, Clone)]
pub(crate) struct BrokenOff<S> {
    inner: S,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for BrokenOff<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.inner.call(request.map(|body| Body::new(body.map_err(broken_off))))
    }
}

fn broken_off(status: Status) -> Status {
    match status.code() {
        Code::Cancelled => Status::aborted("the client broke off its request"),
        _ => status,
    }
}
