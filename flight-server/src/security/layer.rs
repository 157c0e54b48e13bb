//! The one layer in front of every service: no call passes it without a principal that may call that service. Next: `caller.rs`.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::{Code, Status};
use tower::Layer;
use windrow_auth::{Principal, Role, Verb, authorize};
use windrow_core::config::ConnectionsConfig;

use super::access::Access;
use super::audit::{AuditLog, Record};
use super::audited::{counted_answer, counted_request};
use super::caller::Caller;
use super::credentials::{Credentials, OWNER, Refused, Verified};
use crate::control::CONNECT_PATH;
use crate::fetch::{REDEEM_PATH, is_for_clients};
use crate::listener::{OpenCall, Peer};
use crate::request_limits::Bounded;
use crate::wire::to_status;

/// The one call that takes a name and a password, and answers with a token.
const HANDSHAKE_PATH: &str = "/arrow.flight.protocol.FlightService/Handshake";

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serves {
    /// Statements of clients, and the control streams of executors.
    Statements,
    /// Shuffle data for executors and the coordinator, results for clients.
    Shuffle,
}

/// Puts [`Authenticate`] in front of services.
#[derive(Debug, Clone)]
pub(crate) struct AuthenticateLayer {
    credentials: Option<Arc<Credentials>>,
    /// Where calls of clients are written down.
    audit: Option<Arc<AuditLog>>,
    serves: Serves,
    connections: Arc<ConnectionsConfig>,
}

impl AuthenticateLayer {
    pub(crate) fn new(access: &Access, serves: Serves) -> Self {
        let audit = access.audit().filter(|_log| serves == Serves::Statements).cloned();
        let connections = Arc::new(access.connections().clone());
        Self { credentials: access.credentials().cloned(), audit, serves, connections }
    }

    async fn record(&self, path: &str, peer: &Peer) -> Record {
        match &self.audit {
            Some(log) => log.begin(path, peer).await,
            None => Record::default(),
        }
    }

    /// What a call of `path` by `caller` does, as far as the service tells. At an executor the same call means another thing from an
    /// executor and from a client, and reaches another service (`fetch/by_caller.rs`).
    fn verb(&self, path: &str, caller: &Principal) -> Verb<'static> {
        match self.serves {
            Serves::Shuffle if *caller != Principal::Executor && is_for_clients(path) => Verb::Query,
            Serves::Shuffle => Verb::Fetch,
            Serves::Statements if path == CONNECT_PATH || path == REDEEM_PATH => Verb::Join,
            Serves::Statements => Verb::Query,
        }
    }

    /// Who calls where nobody is asked.
    fn anybody(&self, path: &str) -> Principal {
        match self.verb(path, &Principal::Executor) {
            Verb::Query => Principal::client(OWNER, Role::Admin),
            _ => Principal::Executor,
        }
    }

    /// Who calls `path`, if they may.
    async fn caller(&self, path: &str, headers: &HeaderMap, peer: &Peer, record: &Record) -> Result<Verified, Status> {
        let verified = match &self.credentials {
            Some(credentials) => {
                // Users log in at the scheduler alone.
                let may_log_in = self.serves == Serves::Statements && path == HANDSHAKE_PATH;
                let certified = peer.certified.as_deref().filter(|_name| self.serves == Serves::Statements);
                verify(credentials, (may_log_in, certified), headers, peer, record).await.map_err(|refused| refuse(&refused))?
            }
            None => self.anybody(path).into(),
        };
        record.by(&verified.principal);
        authorize(&verified.principal, self.verb(path, &verified.principal)).map_err(|denied| to_status(&denied))?;
        Ok(verified)
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authenticate { inner, rules: self.clone() }
    }
}

/// A service behind authentication.
#[derive(Debug, Clone)]
pub(crate) struct Authenticate<S> {
    inner: S,
    rules: AuthenticateLayer,
}

impl<S> Service<Request<Body>> for Authenticate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that was polled ready serves this call; its clone waits for the next.
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        let rules = self.rules.clone();
        Box::pin(async move {
            let Some(peer) = request.extensions().get::<Peer>().cloned() else {
                return Ok(Status::internal("a call without a connection").into_http());
            };
            let record = rules.record(request.uri().path(), &peer).await;
            match rules.caller(request.uri().path(), request.headers(), &peer, &record).await {
                Ok(Verified { principal, login }) => {
                    peer.is_welcome();
                    request.headers_mut().remove(AUTHORIZATION);
                    if principal == Principal::Executor {
                        peer.is_of_member();
                    } else {
                        request = request.map(|body| Bounded::body(body, &rules.connections));
                    }
                    let call = peer.call();
                    request.extensions_mut().insert(Caller { principal, login, peer });
                    if !record.is_kept() {
                        return inner.call(request).await.map(|answer| held_by(call, answer));
                    }
                    request.extensions_mut().insert(record.clone());
                    let answer = inner.call(counted_request(request, &record)).await;
                    answer.map(|answer| held_by(call, counted_answer(answer, record)))
                }
                Err(status) => {
                    record.ended(Some(&status));
                    tracing::info!(address = %peer.address, path = request.uri().path(), code = ?status.code(), "a call was refused");
                    Ok(status.into_http())
                }
            }
        })
    }
}

/// `answer`, with which `call` ends.
fn held_by(call: OpenCall, answer: Response<Body>) -> Response<Body> {
    answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _open = &call;
            frame
        }))
    })
}

async fn verify(
    credentials: &Credentials,
    (may_log_in, certified): (bool, Option<&str>),
    headers: &HeaderMap,
    peer: &Peer,
    record: &Record,
) -> Result<Verified, Refused> {
    if let Some(name) = certified.filter(|_name| !headers.contains_key(AUTHORIZATION)) {
        record.claims(name);
        return credentials.certified(name);
    }
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Refused::Unknown) };
    let text = value.to_str().map_err(|_not_ascii| Refused::Unknown)?;
    let (scheme, credential) = text.split_once(' ').ok_or(Refused::Unknown)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        credentials.bearer(credential.trim())
    } else if scheme.eq_ignore_ascii_case("basic") && may_log_in {
        credentials.basic(credential.trim(), peer.address.ip(), record).await
    } else {
        Err(Refused::Unknown)
    }
}

/// One answer for every wrong credential.
fn refuse(refused: &Refused) -> Status {
    match refused {
        Refused::Unknown => Status::new(
            Code::Unauthenticated,
            "not logged in: the server knows no such name, password or token; give a user and password, or a token",
        ),
        Refused::Later(wait) => {
            Status::new(Code::Unauthenticated, format!("too many wrong passwords; try again in {} s", wait.as_secs().max(1)))
        }
    }
}
