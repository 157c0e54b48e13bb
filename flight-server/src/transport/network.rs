//! Reads shuffle output of other processes over Flight: one stream per producing executor, one connection per address. Next:
//! `contract.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use windrow_core::failure::{Failed, LostCause};
use windrow_core::task::InputGroup;
use windrow_core::transport::{FetchRequest, ShuffleTransport};
use windrow_executor::shuffle::block::BlockDecoder;
use windrow_executor::timer;

use super::{lost_from, until_error};
use crate::control::client::error_chain;
use crate::security::Dialer;
use crate::shuffle::{Chain, ticket};
use crate::wire::status_to_failed;

/// A fetch that receives nothing for this long has failed (`docs/ARCHITECTURE.md`, timings).
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Tries to open a stream before the executor is called unreachable, and the wait between them.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Bytes of the largest block: HTTP/2 carries it in frames, so that this bounds memory only.
const BLOCK_BYTES_MAX: usize = 1 << 30;

/// Connections that are kept; the pool starts anew beyond it.
const CONNECTIONS_MAX: usize = 4096;

/// Bytes that HTTP/2 cannot exceed.
const WINDOW_MAX: u64 = (1 << 31) - 1;

/// Connections to other executors.
#[derive(Debug, Clone)]
pub struct NetworkTransport {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    channels: Mutex<BTreeMap<String, Channel>>,
    window: u32,
    dialer: Dialer,
}

impl NetworkTransport {
    /// No connection yet; `window` is the bytes in flight of one stream, `dialer` makes the connections.
    #[must_use]
    pub fn new(window: u64, dialer: Dialer) -> Self {
        let window = u32::try_from(window.clamp(64 << 10, WINDOW_MAX)).unwrap_or(u32::MAX >> 1);
        Self { pool: Arc::new(Pool { channels: Mutex::default(), window, dialer }) }
    }
}

impl Pool {
    /// The connection to `address`, made when it is first used.
    fn channel(&self, address: &str) -> Result<Channel, Status> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = self.dialer.endpoint(address).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let channel = endpoint
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .initial_stream_window_size(self.window)
            .initial_connection_window_size(
                u32::try_from(u64::from(self.window).saturating_mul(4).min(WINDOW_MAX)).unwrap_or(self.window),
            )
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(5))
            .connect_lazy();
        if channels.len() >= CONNECTIONS_MAX {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Forgets a connection that failed, so that the next fetch makes a new one.
    fn forget(&self, address: &str) {
        self.channels.lock().remove(address);
    }

    async fn open(&self, address: &str, ticket: &Ticket) -> Result<Streaming<FlightData>, Status> {
        let mut client = FlightServiceClient::new(self.channel(address)?).max_decoding_message_size(BLOCK_BYTES_MAX);
        let mut request = Request::new(ticket.clone());
        self.dialer.sign(&mut request)?;
        let opening = timer::deadline(SILENCE_MAX, client.do_get(request)).await;
        let opened = opening.unwrap_or_else(|| Err(Status::deadline_exceeded("no answer")));
        if opened.is_err() {
            self.forget(address);
        }
        opened.map(tonic::Response::into_inner)
    }

    /// Opens the stream, with further tries where the connection is at fault.
    async fn open_patiently(&self, address: &str, ticket: &Ticket) -> Result<Streaming<FlightData>, Status> {
        let mut tries = 1;
        loop {
            match self.open(address, ticket).await {
                Err(status) if tries < TRIES && is_connection(&status) => {
                    tracing::debug!(address, tries, error = %status, "a fetch could not be opened, trying again");
                    tries += 1;
                    timer::sleep(BETWEEN_TRIES).await;
                }
                opened => return opened,
            }
        }
    }
}

fn is_connection(status: &Status) -> bool {
    status_to_failed(status).is_none() && matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown)
}

impl ShuffleTransport<RecordBatch> for NetworkTransport {
    fn fetch(&self, request: FetchRequest) -> BoxStream<'static, Result<(u32, RecordBatch), Failed>> {
        let pool = Arc::clone(&self.pool);
        let opening = async move {
            let ticket = match ticket(&request) {
                Ok(ticket) => ticket,
                Err(error) => return stream::iter([Err(Failed::internal(error.to_string()))]).boxed(),
            };
            let reader = Reader::new(request, &ticket);
            let Some(address) = reader.address() else { return stream::empty().boxed() };
            match pool.open_patiently(&address, &ticket).await {
                Ok(data) => reader.batches(data.boxed()),
                Err(status) => {
                    let failed = reader.failed(&status);
                    stream::iter([Err(failed)]).boxed()
                }
            }
        };
        until_error(stream::once(opening).flatten())
    }
}

/// Follows the order of a request while its blocks arrive, to know what is lost when they stop.
pub(crate) struct Reader {
    request: FetchRequest,
    chain: Chain,
    /// The last message was there.
    is_over: bool,
    decoder: BlockDecoder,
    /// Where in the request the last block was: group, and index of its partition.
    position: (usize, usize),
}

impl Reader {
    pub(crate) fn new(request: FetchRequest, ticket: &Ticket) -> Self {
        Self { request, chain: Chain::begin(ticket), is_over: false, decoder: BlockDecoder::new(), position: (0, 0) }
    }

    fn address(&self) -> Option<String> {
        self.request.groups.first().map(|group| group.address.clone().unwrap_or_default())
    }

    /// The batches of `data`, which ends with an error if it does not follow the request.
    pub(crate) fn batches(
        mut self,
        data: BoxStream<'static, Result<FlightData, Status>>,
    ) -> BoxStream<'static, Result<(u32, RecordBatch), Failed>> {
        let data = stream::unfold(data, |mut data| async move {
            let next = timer::deadline(SILENCE_MAX, data.next()).await;
            next.unwrap_or_else(|| Some(Err(Status::deadline_exceeded("no data")))).map(|item| (item, data))
        });
        let items = data.map(Some).chain(stream::iter([None]));
        items.filter_map(move |item| std::future::ready(self.accept(item).transpose())).boxed()
    }

    /// The batch of a message, if it is one's last; `None` is the end of the stream.
    fn accept(&mut self, item: Option<Result<FlightData, Status>>) -> Result<Option<(u32, RecordBatch)>, Failed> {
        let Some(item) = item else {
            return if self.is_over { Ok(None) } else { Err(self.lost(LostCause::Unreachable, "its answer was cut off")) };
        };
        let data = item.map_err(|status| self.failed(&status))?;
        if self.is_over {
            return Err(self.lost(LostCause::Corrupt, "a message behind the last one"));
        }
        let message = self.chain.accept(data).map_err(|cause| self.lost(cause, "a block's metadata"))?;
        let Some((partition, block)) = message else {
            self.is_over = true;
            return Ok(None);
        };
        if !self.advance(partition) {
            return Err(self.lost(LostCause::Corrupt, &format!("partition {partition} was not asked for here")));
        }
        match self.decoder.push(block) {
            Ok(batch) => Ok(batch.map(|batch| (partition, batch))),
            Err(cause) => Err(self.lost(cause, "")),
        }
    }

    /// Moves to `partition` in the request's order; false if it does not come any more.
    fn advance(&mut self, partition: u32) -> bool {
        let (group, index) = self.position;
        for (at, candidate) in self.request.groups.iter().enumerate().skip(group) {
            let from = if at == group { index } else { 0 };
            let found = candidate.partitions.iter().skip(from).position(|known| *known == partition);
            if let Some(found) = found {
                self.position = (at, from + found);
                return true;
            }
        }
        false
    }

    fn group(&self) -> Option<&InputGroup> {
        self.request.groups.get(self.position.0)
    }

    fn lost(&self, cause: LostCause, why: &str) -> Failed {
        match self.group() {
            Some(group) => lost_from(group, self.position.1, cause, why),
            None => Failed::internal("a fetch of nothing failed"),
        }
    }

    /// What a status means: the other side's own failure, or that it cannot be reached.
    fn failed(&self, status: &Status) -> Failed {
        if let Some(failed) = status_to_failed(status) {
            return failed;
        }
        self.lost(LostCause::Unreachable, &error_chain(status))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use bytes::Bytes;
    use futures::TryStreamExt;
    use windrow_core::failure::Failure;
    use windrow_core::ids::{AttemptId, ExecutorId, Incarnation};
    use windrow_executor::shuffle::block::{BlockEncoder, Compression};

    use super::*;

    fn request() -> FetchRequest {
        let group = |number: u32, partitions: &[u32]| InputGroup {
            attempt: AttemptId { task: windrow_core::ids::TaskId(number), ..AttemptId::default() },
            executor: ExecutorId(1),
            incarnation: Incarnation(1),
            address: Some("127.0.0.1:1".to_owned()),
            partitions: partitions.to_vec(),
        };
        FetchRequest { groups: vec![group(0, &[0, 1]), group(1, &[5])], segment: 0 }
    }

    fn messages() -> Vec<FlightData> {
        messages_of(&[0, 5])
    }

    fn messages_of(partitions: &[u32]) -> Vec<FlightData> {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int64Array::from_iter_values(0..20))),
            ("name", Arc::new(StringArray::from_iter_values((0..20).map(|n| format!("name {n}"))))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut encoder = BlockEncoder::new(&batch.schema(), Compression::None).unwrap();
        let mut chain = Chain::begin(&ticket(&request()).unwrap());
        let mut messages = Vec::new();
        for partition in partitions {
            messages.extend(encoder.encode(&batch).unwrap().into_iter().map(|block| chain.block(*partition, block)));
        }
        messages.push(chain.end());
        messages
    }

    async fn read(messages: Vec<FlightData>) -> Result<Vec<(u32, RecordBatch)>, Failed> {
        Reader::new(request(), &ticket(&request()).unwrap())
            .batches(stream::iter(messages.into_iter().map(Ok)).boxed())
            .try_collect()
            .await
    }

    #[tokio::test]
    async fn every_flipped_byte_is_found_before_decoding() {
        assert_eq!(read(messages()).await.unwrap().len(), 2);
        let fields: [fn(&mut FlightData) -> &mut Bytes; 3] =
            [|data| &mut data.data_header, |data| &mut data.data_body, |data| &mut data.app_metadata];
        let mut flips = 0;
        for message in 0..messages().len() {
            for field in fields {
                let length = field(&mut messages()[message]).len();
                for position in 0..length {
                    let mut damaged = messages();
                    let bytes = field(&mut damaged[message]);
                    let mut copy = bytes.to_vec();
                    copy[position] ^= 1 << (position % 8);
                    *bytes = copy.into();
                    let failed = read(damaged).await.unwrap_err();
                    let is_corrupt = matches!(failed.failure, Failure::LostInput { cause: LostCause::Corrupt, .. });
                    assert!(is_corrupt, "message {message}, byte {position}: {failed:?}");
                    flips += 1;
                }
            }
        }
        assert!(flips > 1000, "{flips} bytes were flipped");
    }

    #[tokio::test]
    async fn a_partition_out_of_order_or_not_asked_for_is_refused() {
        for partitions in [[5, 0], [0, 6]] {
            let failed = read(messages_of(&partitions)).await.unwrap_err();
            assert!(matches!(failed.failure, Failure::LostInput { cause: LostCause::Corrupt, .. }), "{failed:?}");
        }
    }

    #[tokio::test]
    async fn a_message_that_is_missing_twice_there_or_of_another_ticket_is_found() {
        let whole = messages();
        assert!(read(whole[..whole.len() - 1].to_vec()).await.unwrap_err().message.contains("cut off"), "the end is missing");
        for index in 0..whole.len() - 1 {
            let mut without = whole.clone();
            without.remove(index);
            assert!(read(without).await.is_err(), "message {index} is missing");
            let mut twice = whole.clone();
            twice.insert(index, whole[index].clone());
            assert!(read(twice).await.is_err(), "message {index} is there twice");
        }
        let more = [&whole[..], &whole[whole.len() - 1..]].concat();
        assert!(read(more).await.is_err(), "something comes behind the end");
        let other = ticket(&FetchRequest { segment: 1, ..request() }).unwrap();
        let read = Reader::new(request(), &other).batches(stream::iter(whole.into_iter().map(Ok)).boxed());
        assert!(read.try_collect::<Vec<_>>().await.is_err(), "another ticket");
    }

    #[tokio::test]
    async fn a_cut_message_is_corrupt() {
        for keep in 0..12 {
            let mut cut = messages();
            cut[0].app_metadata.truncate(keep);
            assert!(read(cut).await.is_err(), "{keep} bytes of metadata");
        }
    }
}
