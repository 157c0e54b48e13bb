//! Results read from executors: where clients are sent, what they get there, and who gets nothing.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{Action, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, PollInfo, Ticket};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use windrow_auth::{ClusterKey, Logins, Principal, Role};
use windrow_core::clock::unix_millis;
use windrow_core::config::{Fetch, ResultsConfig, SchedulerConfig};
use windrow_executor::timer;

use crate::routine::Routine;
use crate::security::{Access, Dialer};
use crate::sql::actions::ticket_handle;
use crate::testing::{PATIENCE, Table, cut_everything, eventually, options};
use crate::{Coordinator, CoordinatorOptions, ExecutorState, NetworkExecutorOptions, ServeOptions, Server, run_executor, serve};

const HERE: &str = "arrow-flight-reuse-connection://?";

/// A cluster with a secret; its executors are separate but for their process.
struct Cluster {
    key: ClusterKey,
    coordinator: Arc<Coordinator>,
    server: Server,
    executors: Vec<Routine>,
}

impl Cluster {
    async fn start(executors: usize, results: ResultsConfig) -> Self {
        let key = ClusterKey::random();
        let dialer = Dialer::with_key(&key);
        // Each partition has a slot of its own, however small it is.
        let scheduler = SchedulerConfig { slice_bytes: "0B".parse().unwrap(), ..SchedulerConfig::default() };
        let query = cut_everything(6);
        let options = CoordinatorOptions { scheduler, query, results, dialer, ..CoordinatorOptions::default() };
        let coordinator = Coordinator::start(options).unwrap();
        let bind = "127.0.0.1:0".parse().unwrap();
        let access = Access::with_key(key.clone());
        let server = serve(Arc::clone(&coordinator), ServeOptions { bind, access }).await.unwrap();
        let mut cluster = Self { key, coordinator, server, executors: Vec::new() };
        for number in 0..executors {
            cluster.add(&format!("n{number}"));
        }
        eventually("executors are connected", || cluster.alive() == executors).await;
        cluster
    }

    fn add(&mut self, name: &str) {
        let options = NetworkExecutorOptions {
            scheduler: self.server.address().to_string(),
            bind: "127.0.0.1:0".parse().unwrap(),
            advertise: None,
            client_networks: Vec::new(),
            access: Access::with_key(self.key.clone()),
            dialer: Dialer::with_key(&self.key),
            executor: options(name),
        };
        self.executors.push(Routine::spawn(name, "executor", async move {
            run_executor(options, std::future::pending(), std::future::pending()).await.unwrap();
        }));
    }

    fn alive(&self) -> usize {
        self.coordinator.status().executors.iter().filter(|executor| executor.state == ExecutorState::Alive).count()
    }

    fn login(&self, name: &str, session: u64) -> String {
        let principal = Principal::client(name, Role::Writer);
        Logins::new(&self.key).issue(&principal, session, Duration::from_secs(600), unix_millis()).unwrap()
    }

    /// A client of the coordinator.
    async fn client(&self, token: &str) -> Client {
        Client::at(&self.server.address().to_string(), token).await
    }

    fn held(&self) -> usize {
        self.coordinator.held()
    }
}

/// A plain Flight client with a token.
struct Client {
    flight: FlightServiceClient<Channel>,
    token: String,
}

impl Client {
    async fn at(address: &str, token: &str) -> Self {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { flight: FlightServiceClient::new(channel), token: token.to_owned() }
    }

    fn with_token<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value: MetadataValue<Ascii> = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        request
    }

    async fn info(&mut self, sql: &str) -> FlightInfo {
        let request = self.with_token(descriptor(sql));
        timer::deadline(PATIENCE, self.flight.get_flight_info(request)).await.unwrap().unwrap().into_inner()
    }

    async fn poll(&mut self, descriptor: FlightDescriptor) -> PollInfo {
        let request = self.with_token(descriptor);
        self.flight.poll_flight_info(request).await.unwrap().into_inner()
    }

    /// The answer once all of the result is there.
    async fn complete(&mut self, sql: &str) -> FlightInfo {
        let mut answer = self.poll(descriptor(sql)).await;
        while let Some(next) = answer.flight_descriptor.clone() {
            timer::sleep(Duration::from_millis(5)).await;
            answer = self.poll(next).await;
        }
        answer.info.unwrap()
    }

    async fn open(&mut self, ticket: Ticket) -> Result<FlightRecordBatchStream, Status> {
        let request = self.with_token(ticket);
        let mut rows = timer::deadline(PATIENCE, self.flight.do_get(request)).await.unwrap()?.into_inner();
        // Drivers have the error of a call, too, when its first message does not come.
        let first = timer::deadline(PATIENCE, rows.message()).await.unwrap()?;
        let rows = futures::stream::iter(first.map(Ok)).chain(rows.map_err(FlightError::from));
        Ok(FlightRecordBatchStream::new_from_flight_data(rows))
    }

    async fn get(&mut self, ticket: Ticket) -> Result<(SchemaRef, RecordBatch), Status> {
        let mut rows = self.open(ticket).await?;
        let mut batches = Vec::new();
        while let Some(batch) = timer::deadline(PATIENCE, rows.next()).await.unwrap() {
            batches.push(batch.map_err(Status::from)?);
        }
        let schema = rows.schema().cloned().unwrap();
        Ok((Arc::clone(&schema), concat_batches(&schema, &batches).unwrap()))
    }

    async fn act(&mut self, name: &str) -> Result<Vec<arrow_flight::Result>, Status> {
        let request = self.with_token(Action { r#type: name.to_owned(), body: bytes::Bytes::new() });
        self.flight.do_action(request).await?.into_inner().try_collect().await
    }
}

fn descriptor(sql: &str) -> FlightDescriptor {
    let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

fn direct() -> ResultsConfig {
    ResultsConfig { fetch: Fetch::Direct, ..ResultsConfig::default() }
}

/// Where the rows are, if not here.
fn executor_of(endpoint: &FlightEndpoint) -> Option<String> {
    let uris: Vec<&str> = endpoint.location.iter().map(|location| location.uri.as_str()).collect();
    match uris.as_slice() {
        [own] if *own == HERE => None,
        [executor, second] if *second == HERE => Some(executor.strip_prefix("grpc+tcp://").unwrap().to_owned()),
        other => panic!("{other:?}"),
    }
}

fn ticket_of(endpoint: &FlightEndpoint) -> Ticket {
    endpoint.ticket.clone().unwrap()
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    let mut ids = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
    ids.sort_unstable();
    ids
}

fn joined(table: &Table) -> String {
    format!("SELECT a.id, a.name FROM {0} a JOIN {0} b ON a.id = b.id", table.name())
}

#[tokio::test(flavor = "multi_thread")]
async fn executors_give_the_rows_that_the_coordinator_gives() {
    let table = Table::new(6, 500, 10);
    let cluster = Cluster::start(2, direct()).await;
    let token = cluster.login("ann", 7);
    let mut client = cluster.client(&token).await;
    let info = client.complete(&joined(&table)).await;
    let announced = Arc::new(info.clone().try_decode_schema().unwrap());
    let (mut all, mut executors) = (Vec::new(), std::collections::BTreeSet::new());
    for endpoint in info.endpoint.iter().chain(&info.endpoint) {
        let address = executor_of(endpoint).expect("all of it is at executors");
        let mut executor = Client::at(&address, &token).await;
        let (schema, rows) = executor.get(ticket_of(endpoint)).await.unwrap();
        let (relayed_schema, relayed) = client.get(ticket_of(endpoint)).await.unwrap();
        assert_eq!((&schema, &relayed_schema), (&announced, &announced), "one schema everywhere");
        assert_eq!(rows, relayed);
        all.extend(ids(&rows));
        executors.insert(address);
    }
    assert_eq!(executors.len(), 2, "rows are on both");
    all.sort_unstable();
    assert_eq!(all, (0..3_000).flat_map(|id| [id, id]).collect::<Vec<i64>>(), "each row once, and read again");
    // Another login of the same name reads them, too, as other processes of a client do.
    let other = cluster.login("ann", 8);
    let address = executor_of(&info.endpoint[0]).unwrap();
    assert!(Client::at(&address, &other).await.get(ticket_of(&info.endpoint[0])).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_answer_is_sent_to_executors_too() {
    let table = Table::new(6, 500, 10);
    let cluster = Cluster::start(2, direct()).await;
    let mut client = cluster.client(&cluster.login("ann", 7)).await;
    // One partition: it is there when the answer is.
    let info = client.info(&format!("SELECT id FROM {} ORDER BY id", table.name())).await;
    assert!(info.endpoint.len() == 1 && executor_of(&info.endpoint[0]).is_some());
    // What the coordinator answers itself is there.
    let info = client.info("SHOW windrow.query.partitions").await;
    assert_eq!(executor_of(&info.endpoint[0]), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_to_an_executor_without_a_reason() {
    let table = Table::new(6, 500, 10);
    let auto = Cluster::start(1, ResultsConfig::default()).await;
    let token = auto.login("ann", 7);
    let mut client = auto.client(&token).await;
    let small = client.complete(&joined(&table)).await;
    assert!(small.endpoint.iter().all(|endpoint| executor_of(endpoint).is_none()), "it is small");

    let wide = Table::new(6, 1_500, 10);
    let info = client.complete(&format!("SELECT id, repeat(name, 1000) AS t FROM {}", wide.name())).await;
    let located = info.endpoint.iter().filter(|endpoint| executor_of(endpoint).is_some()).count();
    assert_eq!(located, info.endpoint.len(), "90 MB, all on this machine");
    drop(client);

    let relay = Cluster::start(1, ResultsConfig { fetch: Fetch::Relay, ..ResultsConfig::default() }).await;
    let token = relay.login("ann", 7);
    let mut client = relay.client(&token).await;
    let info = client.complete(&joined(&table)).await;
    assert!(info.endpoint.iter().all(|endpoint| executor_of(endpoint).is_none()));
    let address = relay.coordinator.status().executors[0].address.clone();
    let refused = Client::at(&address, &token).await.get(ticket_of(&info.endpoint[0])).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "not even if it asks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m6_tickets_at_executors_are_worth_nothing_without_their_owner() {
    let table = Table::new(6, 200, 10);
    let cluster = Cluster::start(2, direct()).await;
    let token = cluster.login("ann", 7);
    let mut client = cluster.client(&token).await;
    let info = client.complete(&joined(&table)).await;
    let addresses: Vec<String> = cluster.coordinator.status().executors.iter().map(|one| one.address.clone()).collect();
    let endpoint = &info.endpoint[0];
    let (ticket, own) = (ticket_of(endpoint), executor_of(endpoint).unwrap());
    let other = addresses.iter().find(|address| **address != own).unwrap();

    let wrong_place = Client::at(other, &token).await.get(ticket.clone()).await.unwrap_err();
    let foreign = Client::at(&own, &cluster.login("bob", 9)).await.get(ticket.clone()).await.unwrap_err();
    assert_eq!((wrong_place.code(), foreign.code()), (Code::NotFound, Code::NotFound));
    assert_eq!(wrong_place.message(), foreign.message(), "there or not is the same");
    // The cluster's own credential opens segments, not results; a client's opens results, not segments.
    let pass = crate::security::executor_pass_for_tests(&cluster.key);
    let by_executor = Client::at(&own, &pass).await.get(ticket.clone()).await.unwrap_err();
    assert_eq!(by_executor.code(), Code::InvalidArgument);
    let segments = crate::shuffle::ticket(&windrow_core::transport::FetchRequest { groups: vec![], segment: 0 }).unwrap();
    assert_eq!(Client::at(&own, &token).await.get(segments).await.unwrap_err().code(), Code::NotFound);
    // Nobody, and who is somebody elsewhere.
    for stranger in [
        "",
        "x.y.z",
        &Logins::new(&ClusterKey::random())
            .issue(&Principal::client("ann", Role::Writer), 7, Duration::from_secs(60), unix_millis())
            .unwrap(),
    ] {
        let refused = Client::at(&own, stranger).await.get(ticket.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }

    let sealed = ticket_handle(&ticket.ticket).unwrap();
    let mut reader = Client::at(&own, &token).await;
    let sealed_as =
        |handle: Vec<u8>| Ticket::new(TicketStatementQuery { statement_handle: handle.into() }.as_any().encode_to_vec());
    for index in 0..sealed.len() {
        let mut flipped = sealed.to_vec();
        flipped[index] ^= 1 << (index % 8);
        let refused = reader.get(sealed_as(flipped)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "byte {index}");
        let refused = reader.get(sealed_as(sealed[..index].to_vec())).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "cut at {index}");
    }
    assert_eq!(reader.get(Ticket::new(descriptor("SELECT 1").cmd)).await.unwrap_err().code(), Code::NotFound, "no statements");
    assert_eq!(reader.get(sealed_as(info.app_metadata.to_vec())).await.unwrap_err().code(), Code::NotFound, "a job's name");
    assert!(reader.get(ticket.clone()).await.is_ok(), "the ticket itself still holds");

    // A login that was ended is ended at executors, too, although they did not hear of it.
    let ended = cluster.login("ann", 11);
    let mut leaving = cluster.client(&ended).await;
    assert!(Client::at(&own, &ended).await.get(ticket.clone()).await.is_ok());
    leaving.act("CloseSession").await.unwrap();
    assert_eq!(Client::at(&own, &ended).await.get(ticket.clone()).await.unwrap_err().code(), Code::Unauthenticated);

    let cancel = arrow_flight::CancelFlightInfoRequest::new(info.clone()).encode_to_vec();
    let request = client.with_token(Action { r#type: "CancelFlightInfo".to_owned(), body: cancel.into() });
    client.flight.do_action(request).await.unwrap();
    eventually("it is released", || cluster.held() == 0).await;
    let gone = reader.get(ticket).await.unwrap_err();
    assert!(gone.code() == Code::Cancelled && gone.message().contains("cancelled"), "its owner is told why: {gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_drivers_say_on_every_connection_is_answered() {
    let cluster = Cluster::start(1, direct()).await;
    let address = cluster.coordinator.status().executors[0].address.clone();
    let mut client = Client::at(&address, &cluster.login("ann", 7)).await;
    for action in ["SetSessionOptions", "GetSessionOptions", "CloseSession"] {
        assert_eq!(client.act(action).await.unwrap().len(), 1, "{action}");
    }
    let hello = client.with_token(futures::stream::iter([HandshakeRequest::default()]));
    client.flight.handshake(hello).await.unwrap();
    for action in ["CancelFlightInfo", "windrow.status", "CreatePreparedStatement", ""] {
        assert_eq!(client.act(action).await.unwrap_err().code(), Code::Unimplemented, "{action}");
    }
    // It is logged in still: closing a session is the coordinator's.
    assert_eq!(client.act("CloseSession").await.unwrap().len(), 1);
    let statement = client.with_token(descriptor("SELECT 1"));
    assert_eq!(client.flight.get_flight_info(statement).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_at_an_executor_keeps_the_result_and_one_that_left_does_not() {
    let table = Table::new(6, 3_000, 2_000);
    let cluster = Cluster::start(1, ResultsConfig { ttl: Duration::from_millis(1_500), ..direct() }).await;
    let token = cluster.login("ann", 7);
    let mut client = cluster.client(&token).await;
    let info = client.complete(&format!("SELECT id, name FROM {}", table.name())).await;
    let endpoint = &info.endpoint[0];
    let address = executor_of(endpoint).unwrap();
    let all = client.get(ticket_of(endpoint)).await.unwrap().1.num_rows();
    let mut reader = Client::at(&address, &token).await;
    let mut rows = reader.open(ticket_of(endpoint)).await.unwrap();
    let mut read = rows.next().await.unwrap().unwrap().num_rows();
    // Longer than results that nobody asks for are kept.
    timer::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(cluster.held(), 1, "it is being read");
    while let Some(batch) = rows.next().await {
        read += batch.unwrap().num_rows();
    }
    assert!(read == all && read > 2_000, "{read} of {all} rows");
    drop(reader.open(ticket_of(endpoint)).await.unwrap());
    drop(reader);
    eventually("nobody reads it any more", || cluster.held() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_executor_sends_clients_to_the_coordinator_and_then_to_another() {
    let table = Table::new(6, 500, 10);
    let mut cluster = Cluster::start(2, direct()).await;
    let token = cluster.login("ann", 7);
    let mut client = cluster.client(&token).await;
    let info = client.complete(&joined(&table)).await;
    let name = info.app_metadata.clone();
    drop(cluster.executors.remove(0));
    eventually("its loss is noticed", || cluster.alive() == 1).await;
    let (mut all, mut refused) = (Vec::new(), 0);
    for endpoint in &info.endpoint {
        let address = executor_of(endpoint).unwrap();
        let direct = match Channel::from_shared(format!("http://{address}")).unwrap().connect().await {
            Ok(_) => Client::at(&address, &token).await.get(ticket_of(endpoint)).await.ok(),
            Err(_gone) => None,
        };
        refused += u32::from(direct.is_none());
        let rows = match direct {
            Some((_, rows)) => rows,
            None => client.get(ticket_of(endpoint)).await.unwrap().1,
        };
        all.extend(ids(&rows));
    }
    all.sort_unstable();
    assert_eq!(all, (0..3_000).collect::<Vec<i64>>());
    assert!(refused > 0, "something was lost");
    let again = client.poll(FlightDescriptor::new_cmd(name)).await.info.unwrap();
    let left =
        cluster.coordinator.status().executors.iter().find(|one| one.state == ExecutorState::Alive).unwrap().address.clone();
    for endpoint in &again.endpoint {
        assert_eq!(executor_of(endpoint).as_ref(), Some(&left), "where it was computed again");
        Client::at(&left, &token).await.get(ticket_of(endpoint)).await.unwrap();
    }
}
