//! The shuffle service of an executor: Flight `DoGet` with a ticket that names segments, answered by their blocks. Next:
//! `results.rs`. It serves nothing else; what clients may read there is in `fetch/`.

use std::net::Ipv4Addr;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo,
    PutResult, SchemaResult, Ticket,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use windrow_core::failure::LostCause;
use windrow_core::message::{decode, encode};
use windrow_core::task::InputGroup;
use windrow_core::transport::FetchRequest;
use windrow_executor::ShuffleStore;
use windrow_executor::shuffle::block::{Block, BlockEncoder, Compression};

use crate::security::{Access, Serves};
use crate::serve::{Server, listen, start};
use crate::transport::in_process::read;
use crate::wire::failed_to_status;

/// Bytes of the largest ticket: a million producer partitions in a few thousand groups.
const TICKET_BYTES_MAX: usize = 16 << 20;

/// Bytes of partition, checksum, and the checksum of both, in front of nothing: the metadata of one block.
const METADATA_BYTES: usize = 12;

/// What a ticket holds: numbers and addresses only, checked against the store before anything is read.
#[derive(Debug, Serialize, Deserialize)]
struct FetchTicket {
    groups: Vec<InputGroup>,
    segment: u32,
}

/// The ticket for `request`.
///
/// # Errors
/// `Internal` if it cannot be encoded, which is a bug.
pub(crate) fn ticket(request: &FetchRequest) -> windrow_core::Result<Ticket> {
    let ticket = FetchTicket { groups: request.groups.clone(), segment: request.segment };
    Ok(Ticket { ticket: encode(&ticket)? })
}

fn parse(ticket: &Ticket) -> Result<FetchTicket, Status> {
    if ticket.ticket.len() > TICKET_BYTES_MAX {
        return Err(Status::invalid_argument(format!("a shuffle ticket of more than {TICKET_BYTES_MAX} bytes")));
    }
    decode(&ticket.ticket).map_err(|_not_ours| Status::invalid_argument("not a ticket of this version's shuffle service"))
}

/// A block as a Flight message.
pub(crate) fn to_flight(partition: u32, block: Block) -> FlightData {
    let mut metadata = Vec::with_capacity(METADATA_BYTES);
    metadata.extend_from_slice(&partition.to_le_bytes());
    metadata.extend_from_slice(&block.crc.to_le_bytes());
    let check = Block::checksum(&metadata, &[]);
    metadata.extend_from_slice(&check.to_le_bytes());
    FlightData { flight_descriptor: None, data_header: block.header, app_metadata: metadata.into(), data_body: block.body }
}

/// The producer partition and the block of a Flight message.
///
/// # Errors
/// [`LostCause::Corrupt`] if its metadata fails its own checksum; the block's is verified by the decoder.
pub(crate) fn from_flight(data: FlightData) -> Result<(u32, Block), LostCause> {
    let number = |at: usize| -> Option<u32> {
        let bytes = data.app_metadata.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let (Some(partition), Some(crc), Some(check)) = (number(0), number(4), number(8)) else { return Err(LostCause::Corrupt) };
    let is_whole = data.app_metadata.len() == METADATA_BYTES;
    if !is_whole || Block::checksum(&data.app_metadata[..8], &[]) != check {
        return Err(LostCause::Corrupt);
    }
    Ok((partition, Block { header: data.data_header, body: data.data_body, crc }))
}

/// The blocks of every segment of a request, in its order. Its batches are read and encoded one by one as the network takes them.
fn blocks(store: Arc<ShuffleStore>, ticket: FetchTicket) -> BoxStream<'static, Result<FlightData, Status>> {
    let segment = ticket.segment;
    let batches = stream::iter(ticket.groups).flat_map(move |group| {
        let (group, store) = (Arc::new(group), Arc::clone(&store));
        stream::iter(0..group.partitions.len()).flat_map(move |index| read(Some(&store), Arc::clone(&group), index, segment))
    });
    let mut encoder = Encoder::default();
    batches
        .map(move |item| match item {
            Ok((partition, batch)) => encoder.encode(partition, &batch).map_err(|error| Status::internal(error.to_string())),
            Err(failed) => Err(failed_to_status(&failed)),
        })
        .map_ok(|messages| stream::iter(messages.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

/// One encoder for as long as the schema stays, so that a stream carries it once.
#[derive(Default)]
struct Encoder {
    current: Option<(SchemaRef, BlockEncoder)>,
}

impl Encoder {
    fn encode(&mut self, partition: u32, batch: &RecordBatch) -> Result<Vec<FlightData>, ArrowError> {
        let schema = batch.schema();
        let is_new = self.current.as_ref().is_none_or(|(known, _)| !Arc::ptr_eq(known, &schema) && *known != schema);
        if is_new {
            self.current = Some((Arc::clone(&schema), BlockEncoder::new(&schema, Compression::None)?));
        }
        let Some((_, encoder)) = &mut self.current else { return Ok(Vec::new()) };
        Ok(encoder.encode(batch)?.into_iter().map(|block| to_flight(partition, block)).collect())
    }
}

/// The Flight service of an executor.
#[derive(Debug, Clone)]
pub(crate) struct ShuffleService {
    store: Arc<ShuffleStore>,
}

impl ShuffleService {
    /// The tonic service over `store`.
    pub(crate) fn server(store: Arc<ShuffleStore>) -> FlightServiceServer<Self> {
        FlightServiceServer::new(Self { store }).max_decoding_message_size(TICKET_BYTES_MAX + 1024)
    }
}

/// Serves the committed segments of `store` under the name `owner`, to executors alone.
///
/// # Errors
/// `Unavailable` if the listener has no address.
pub(crate) fn serve(
    listener: TcpListener,
    owner: &str,
    store: Arc<ShuffleStore>,
    access: &Access,
) -> windrow_core::Result<Server> {
    start(listener, owner, Routes::new(ShuffleService::server(store)), access, Serves::Shuffle)
}

/// As an executor does, on a port of its own of the loopback interface, for everybody: for measuring and for tests.
///
/// # Errors
/// `InvalidConfig` if no port is free.
pub async fn serve_on_loopback(store: Arc<ShuffleStore>) -> windrow_core::Result<Server> {
    let access = Access::open();
    serve(listen((Ipv4Addr::LOCALHOST, 0).into(), &access).await?, "shuffle", store, &access)
}

type Stream<T> = BoxStream<'static, Result<T, Status>>;

fn only_shuffle<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("an executor serves shuffle data only; send statements to the scheduler's address"))
}

#[tonic::async_trait]
impl FlightService for ShuffleService {
    type HandshakeStream = Stream<HandshakeResponse>;
    type ListFlightsStream = Stream<FlightInfo>;
    type DoGetStream = Stream<FlightData>;
    type DoPutStream = Stream<PutResult>;
    type DoExchangeStream = Stream<FlightData>;
    type DoActionStream = Stream<arrow_flight::Result>;
    type ListActionsStream = Stream<ActionType>;

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let ticket = parse(request.get_ref())?;
        Ok(Response::new(blocks(Arc::clone(&self.store), ticket)))
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        only_shuffle()
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        only_shuffle()
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        only_shuffle()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        only_shuffle()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        only_shuffle()
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        only_shuffle()
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        only_shuffle()
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        only_shuffle()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        only_shuffle()
    }
}
