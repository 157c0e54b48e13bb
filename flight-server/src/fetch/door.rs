//! What clients may call at an executor: DoGet of a result's ticket, and what drivers say on every new connection, which is answered
//! and changes nothing. Next: `answering.rs`.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    IpcMessage, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, Streaming};
use windrow_auth::ClusterKey;
use windrow_core::task::{InputGroup, SegmentKey};
use windrow_core::transport::FetchRequest;
use windrow_core::{Error, ErrorKind};
use windrow_executor::ShuffleStore;

use super::asking::{Asking, Granted};
use crate::security::caller_of;
use crate::sql::actions::ticket_handle;
use crate::sql::session_options::nothing_to_do;
use crate::sql::tickets::Check;
use crate::sql::wire_schema;
use crate::transport::in_process::fetch_from;

/// Calls of Flight that clients make at executors.
const FOR_CLIENTS: [&str; 3] = [
    "/arrow.flight.protocol.FlightService/Handshake",
    "/arrow.flight.protocol.FlightService/DoGet",
    "/arrow.flight.protocol.FlightService/DoAction",
];

/// Clients that read here at a time; each holds a stream to the coordinator, which takes 128 of one connection. Others are relayed.
const READERS_MAX: usize = 100;

/// Bytes of the largest message of a client: a ticket, or options of a session.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Whether clients may call `path` at an executor.
pub(crate) fn is_for_clients(path: &str) -> bool {
    FOR_CLIENTS.contains(&path)
}

/// The Flight service of an executor for clients.
#[derive(Debug, Clone)]
pub(super) struct Door {
    store: Arc<ShuffleStore>,
    asking: Asking,
    tickets: Arc<Check>,
    places: Arc<Semaphore>,
}

impl Door {
    pub(super) fn new(store: Arc<ShuffleStore>, asking: Asking, key: &ClusterKey) -> Self {
        let places = Arc::new(Semaphore::new(READERS_MAX));
        Self { store, asking, tickets: Arc::new(Check::new(key)), places }
    }

    pub(super) fn server(self) -> FlightServiceServer<Self> {
        FlightServiceServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    /// Whether all of it is here: nothing has left yet, and the client has another way.
    fn check(&self, groups: &[InputGroup]) -> Result<(), Status> {
        let keys = groups.iter().flat_map(|group| {
            let key = |&partition| SegmentKey { attempt: group.attempt, partition, segment: 0 };
            group.partitions.iter().map(move |partition| (group.incarnation, key(partition)))
        });
        let is_here = |(incarnation, key)| self.store.holds(incarnation, &key);
        if keys.into_iter().all(is_here) { Ok(()) } else { Err(not_here()) }
    }
}

/// The same for every ticket that is not for this executor, whatever it is.
fn not_here() -> Status {
    Status::not_found("no such result here; send the ticket to the scheduler")
}

/// A schema from its IPC message.
fn schema_of(message: bytes::Bytes) -> Result<SchemaRef, Status> {
    let schema = Schema::try_from(IpcMessage(message));
    schema.map(Arc::new).map_err(|error| Status::internal(format!("a schema that does not decode: {error}")))
}

/// The rows of some groups; `granted` and `place` are held until the last has left.
fn rows(
    store: Arc<ShuffleStore>,
    groups: Vec<InputGroup>,
    granted: Granted,
    place: OwnedSemaphorePermit,
) -> BoxStream<'static, windrow_core::Result<arrow::record_batch::RecordBatch>> {
    let gone = |failed: windrow_core::Failed| {
        let what = format!("the rest of this result is not here any more: {}", failed.message);
        Error::new(ErrorKind::Unavailable, what).with_help("run the query again")
    };
    let rows = fetch_from(Some(store), FetchRequest { groups, segment: 0 });
    let rows = rows.map_ok(|(_, batch)| batch).map_err(gone);
    let end = async move {
        granted.all_left().await;
        drop(place);
    };
    let end = stream::once(end).filter_map(|()| std::future::ready(None));
    rows.try_filter(|batch| std::future::ready(batch.num_rows() > 0)).chain(end).boxed()
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

fn one<T: Send + 'static>(answer: T) -> Response<Answers<T>> {
    Response::new(stream::iter([Ok(answer)]).boxed())
}

fn elsewhere<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("an executor gives the rows of results only; send statements to the scheduler"))
}

#[tonic::async_trait]
impl FlightService for Door {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoExchangeStream = Answers<FlightData>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let login = caller_of(request.extensions())?.login.ok_or_else(not_here)?;
        let ticket = ticket_handle(&request.get_ref().ticket).ok_or_else(not_here)?;
        if !self.tickets.is_ours(&ticket) {
            return Err(not_here());
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place =
            place.map_err(|_full| Status::resource_exhausted("too many clients read here; send the ticket to the scheduler"))?;
        let (answer, granted) = self.asking.ask(ticket, login).await?;
        self.check(&answer.groups)?;
        let schema = schema_of(answer.schema)?;
        Ok(Response::new(wire_schema::encode(schema, rows(Arc::clone(&self.store), answer.groups, granted, place))))
    }

    /// Whoever comes this far has logged in already.
    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        Ok(one(HandshakeResponse::default()))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let name = request.get_ref().r#type.as_str();
        let body =
            nothing_to_do(name).ok_or_else(|| Status::unimplemented(format!("no action named '{name}' at an executor")))?;
        Ok(one(arrow_flight::Result { body }))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        elsewhere()
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        elsewhere()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        elsewhere()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        elsewhere()
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        elsewhere()
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        elsewhere()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        elsewhere()
    }
}
