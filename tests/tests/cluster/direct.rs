//! Results read from the processes that hold them, by a plain Flight client, beside what the scheduler relays.

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use bytesize::ByteSize;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use windrow::{ExecutorState, LocalCluster};
use windrow_core::config::{Config, Fetch, QueryConfig, ResultsConfig};
use windrow_tests::rows::Answer;
use windrow_tests::wait;

use crate::answers::data;
use crate::program::{self, LIMIT};

const HERE: &str = "arrow-flight-reuse-connection://?";

/// A client of one address.
#[derive(Debug)]
struct Client {
    flight: FlightServiceClient<Channel>,
    token: String,
}

impl Client {
    /// `None` if nobody is there.
    async fn at(uri: &str, token: &str) -> Option<Self> {
        let http = uri.replace("grpc+tcp://", "http://").replace("grpc://", "http://");
        let channel = Endpoint::from_shared(http).unwrap().connect_timeout(Duration::from_secs(5)).connect().await.ok()?;
        Some(Self { flight: FlightServiceClient::new(channel), token: token.to_owned() })
    }

    fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if !self.token.is_empty() {
            let value: MetadataValue<Ascii> = format!("Bearer {}", self.token).parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    /// The answer about a statement once all of its result is there.
    async fn complete(&mut self, sql: &str) -> FlightInfo {
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        let mut next = Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()));
        let mut info = None;
        while let Some(descriptor) = next.take() {
            let request = self.signed(descriptor);
            let answer = self.flight.poll_flight_info(request).await.unwrap().into_inner();
            (next, info) = (answer.flight_descriptor, answer.info);
            windrow_executor::timer::sleep(Duration::from_millis(10)).await;
        }
        info.unwrap()
    }

    async fn get(&mut self, ticket: Ticket) -> Result<Answer, Status> {
        let request = self.signed(ticket);
        let mut rows = self.flight.do_get(request).await?.into_inner();
        let first = rows.message().await?;
        let rows = futures::stream::iter(first.map(Ok)).chain(rows.map_err(FlightError::from));
        let mut rows = FlightRecordBatchStream::new_from_flight_data(rows);
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await {
            batches.push(batch.map_err(Status::from)?);
        }
        Ok(Answer::new(rows.schema().unwrap(), &batches))
    }
}

fn executor_of(endpoint: &FlightEndpoint) -> Option<&str> {
    assert_eq!(endpoint.location.last().unwrap().uri, HERE, "the scheduler is the last resort");
    endpoint.location.first().map(|location| location.uri.as_str()).filter(|uri| *uri != HERE)
}

fn ticket_of(endpoint: &FlightEndpoint) -> Ticket {
    endpoint.ticket.clone().unwrap()
}

/// As drivers do: the executor first, and the scheduler if that fails. Whether it was the executor.
async fn read(endpoint: &FlightEndpoint, scheduler: &mut Client) -> (Answer, bool) {
    let token = scheduler.token.clone();
    if let Some(uri) = executor_of(endpoint)
        && let Some(mut executor) = Client::at(uri, &token).await
        && let Ok(answer) = executor.get(ticket_of(endpoint)).await
    {
        return (answer, true);
    }
    (scheduler.get(ticket_of(endpoint)).await.unwrap(), false)
}

async fn start() -> LocalCluster {
    let none = ByteSize::b(0);
    let query = QueryConfig { partitions: 8, small_input: none, broadcast_limit: none, ..QueryConfig::default() };
    let results = ResultsConfig { fetch: Fetch::Direct, ..ResultsConfig::default() };
    let builder = LocalCluster::builder().config(Config { query, results, ..Config::default() });
    builder.executors(2).slots(1).memory_limit(512 << 20).processes(program::path()).start().await.unwrap()
}

fn join_of(folder: &std::path::Path) -> String {
    let table = |name: &str| format!("'{}/*.parquet'", folder.join(name).display());
    format!(
        "SELECT l_orderkey, l_linenumber, l_comment, o_totalprice FROM {} JOIN {} ON l_orderkey = o_orderkey",
        table("lineitem"),
        table("orders")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executors_give_what_the_scheduler_relays_and_one_that_is_killed_costs_nothing() {
    let cluster = start().await;
    let token = cluster.token().unwrap();
    let mut scheduler = Client::at(&cluster.url(), &token).await.unwrap();
    let info = scheduler.complete(&join_of(&data().await.folder)).await;
    assert!(info.endpoint.len() >= 4, "{} endpoints", info.endpoint.len());
    let (mut relayed, mut rows) = (Vec::new(), 0);
    let mut executors = std::collections::BTreeSet::new();
    for endpoint in &info.endpoint {
        let (direct, is_direct) = read(endpoint, &mut scheduler).await;
        let relay = scheduler.get(ticket_of(endpoint)).await.unwrap();
        assert!(is_direct, "{:?}", endpoint.location);
        assert_eq!(direct.difference(&relay), None);
        rows += direct.rows.len();
        executors.extend(executor_of(endpoint).map(str::to_owned));
        relayed.push(relay.sorted());
    }
    assert!(rows > 100_000, "{rows} rows");
    assert_eq!(executors.len(), 2, "both processes hold a part");

    // One of them dies: its part is computed again by the time that the scheduler is asked for it.
    cluster.kill(0).await.unwrap();
    let mut fell_back = 0;
    for (endpoint, before) in info.endpoint.iter().zip(&relayed) {
        let (answer, is_direct) = read(endpoint, &mut scheduler).await;
        assert_eq!(answer.sorted().difference(before), None);
        fell_back += u32::from(!is_direct);
    }
    assert!(fell_back > 0, "nothing was lost");
    let again = scheduler.signed(FlightDescriptor::new_cmd(info.app_metadata.clone()));
    let again = scheduler.flight.poll_flight_info(again).await.unwrap().into_inner().info.unwrap();
    for (endpoint, before) in again.endpoint.iter().zip(&relayed) {
        let (answer, is_direct) = read(endpoint, &mut scheduler).await;
        assert!(is_direct, "the answer names where it is now");
        assert_eq!(answer.sorted().difference(before), None);
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m6_an_executor_process_gives_nothing_without_a_login_of_the_owner() {
    let cluster = start().await;
    let token = cluster.token().unwrap();
    let mut scheduler = Client::at(&cluster.url(), &token).await.unwrap();
    let info = scheduler.complete(&join_of(&data().await.folder)).await;
    let endpoint = &info.endpoint[0];
    let own = executor_of(endpoint).unwrap();
    let other = info.endpoint.iter().filter_map(executor_of).find(|uri| *uri != own).unwrap();
    let refused =
        async |uri: &str, token: &str, ticket: Ticket| Client::at(uri, token).await.unwrap().get(ticket).await.unwrap_err();
    let nobody = refused(own, "", ticket_of(endpoint)).await;
    assert_eq!(nobody.code(), Code::Unauthenticated, "a ticket alone is worth nothing");
    let stranger = start().await;
    let foreign = refused(own, &stranger.token().unwrap(), ticket_of(endpoint)).await;
    assert_eq!(foreign.code(), Code::Unauthenticated, "another cluster's owner");
    assert_eq!(refused(other, &token, ticket_of(endpoint)).await.code(), Code::NotFound, "the other executor's");
    let ticket = ticket_of(endpoint).ticket;
    for index in 0..ticket.len() {
        let mut flipped = ticket.to_vec();
        flipped[index] ^= 1 << (index % 8);
        assert_eq!(refused(own, &token, Ticket::new(flipped)).await.code(), Code::NotFound, "byte {index}");
    }
    let cancel = arrow_flight::CancelFlightInfoRequest::new(info.clone()).encode_to_vec();
    let action = arrow_flight::Action { r#type: "CancelFlightInfo".to_owned(), body: cancel.into() };
    let request = scheduler.signed(action);
    scheduler.flight.do_action(request).await.unwrap().into_inner().try_collect::<Vec<_>>().await.unwrap();
    wait::until("its release", LIMIT, async || {
        (refused(own, &token, ticket_of(endpoint)).await.code() == Code::Cancelled).then_some(())
    })
    .await;
    // Everything lives on.
    let alive = cluster.status().executors.iter().filter(|one| one.state == ExecutorState::Alive).count();
    assert_eq!(alive, 2);
    stranger.shutdown().await;
    cluster.shutdown().await;
}
