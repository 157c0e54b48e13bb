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
use bytes::Bytes;
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

/// Bytes of partition, checksum, and the chained checksum of both: the metadata of one block.
const METADATA_BYTES: usize = 12;

/// The partition of the message behind the last block.
const END: u32 = u32::MAX;

/// What ties the messages of an answer to their ticket and to each other, at both ends: a message that is missing, is there twice, or
/// belongs to another ticket fails its checksum. Blocks have their own.
#[derive(Debug)]
pub(crate) struct Chain {
    ticket: u32,
    messages: u64,
}

impl Chain {
    /// Of the answer to `ticket`, of which nothing is there yet.
    pub(crate) fn begin(ticket: &Ticket) -> Self {
        // A ticket ends with its checksum. One of both would be the same for all tickets.
        let checksum = ticket.ticket.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        Self { ticket: checksum, messages: 0 }
    }

    /// The checksum of the next message's partition and block checksum.
    fn next(&mut self, metadata: &[u8]) -> u32 {
        let mut place = [0; 12];
        place[..4].copy_from_slice(&self.ticket.to_le_bytes());
        place[4..].copy_from_slice(&self.messages.to_le_bytes());
        self.messages += 1;
        Block::checksum(&place, metadata)
    }

    /// The next message: a block.
    pub(crate) fn block(&mut self, partition: u32, block: Block) -> FlightData {
        let mut metadata = Vec::with_capacity(METADATA_BYTES);
        metadata.extend_from_slice(&partition.to_le_bytes());
        metadata.extend_from_slice(&block.crc.to_le_bytes());
        let check = self.next(&metadata);
        metadata.extend_from_slice(&check.to_le_bytes());
        FlightData { flight_descriptor: None, data_header: block.header, app_metadata: metadata.into(), data_body: block.body }
    }

    /// The last message. A stream that was cut off ends without one, and for gRPC may end well.
    pub(crate) fn end(&mut self) -> FlightData {
        self.block(END, Block { header: Bytes::new(), body: Bytes::new(), crc: Block::checksum(&[], &[]) })
    }

    /// The producer partition and the block of the next message, `None` for the last.
    ///
    /// # Errors
    /// [`LostCause::Corrupt`] if its metadata fails the checksum; the block's is verified by the decoder.
    pub(crate) fn accept(&mut self, data: FlightData) -> Result<Option<(u32, Block)>, LostCause> {
        let metadata: &[u8; METADATA_BYTES] = data.app_metadata.as_ref().try_into().map_err(|_length| LostCause::Corrupt)?;
        let (fields, check) = metadata.split_at(METADATA_BYTES - 4);
        if self.next(fields).to_le_bytes() != check {
            return Err(LostCause::Corrupt);
        }
        let [p0, p1, p2, p3, c0, c1, c2, c3, ..] = *metadata;
        let (partition, crc) = (u32::from_le_bytes([p0, p1, p2, p3]), u32::from_le_bytes([c0, c1, c2, c3]));
        if partition != END {
            return Ok(Some((partition, Block { header: data.data_header, body: data.data_body, crc })));
        }
        let is_empty = data.data_header.is_empty() && data.data_body.is_empty();
        if is_empty { Ok(None) } else { Err(LostCause::Corrupt) }
    }
}

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

/// The blocks of every segment of a request, in its order, and the end. Its batches are read and encoded one by one as the network takes
/// them.
fn blocks(store: Arc<ShuffleStore>, ticket: FetchTicket, chain: Chain) -> BoxStream<'static, Result<FlightData, Status>> {
    let segment = ticket.segment;
    let batches = stream::iter(ticket.groups).flat_map(move |group| {
        let (group, store) = (Arc::new(group), Arc::clone(&store));
        stream::iter(0..group.partitions.len()).flat_map(move |index| read(Some(&store), Arc::clone(&group), index, segment))
    });
    let mut encoder = Encoder { chain, current: None };
    batches
        .map(Some)
        .chain(stream::iter([None]))
        .map(move |item| match item {
            Some(Ok((partition, batch))) => {
                encoder.encode(partition, &batch).map_err(|error| Status::internal(error.to_string()))
            }
            Some(Err(failed)) => Err(failed_to_status(&failed)),
            None => Ok(vec![encoder.chain.end()]),
        })
        .map_ok(|messages| stream::iter(messages.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

/// One encoder for as long as the schema stays, so that a stream carries it once.
struct Encoder {
    chain: Chain,
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
        Ok(encoder.encode(batch)?.into_iter().map(|block| self.chain.block(partition, block)).collect())
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
        Ok(Response::new(blocks(Arc::clone(&self.store), ticket, Chain::begin(request.get_ref()))))
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
