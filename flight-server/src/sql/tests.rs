//! The whole wire on loopback: a coordinator's listener, executors with control streams and shuffle services, and Flight SQL's own
//! client.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::Int64Array;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{Action, FlightInfo, Ticket};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Request};
use windrow_core::ErrorKind;
use windrow_core::config::ResultsConfig;
use windrow_core::message::{Command, Report, build, decode, encode};
use windrow_executor::timer;

mod metadata;
mod prepared;
mod results;
mod schemas;
mod sessions;

use super::actions;
use crate::control::CONNECT_PATH;
use crate::control::codec::PostcardCodec;
use crate::routine::Routine;
use crate::status::{ClusterStatus, ExecutorState, JobProgress, JobState};
use crate::testing::{PATIENCE, Table, cut_everything, eventually, options};
use crate::wire::from_status;
use crate::{Access, Coordinator, CoordinatorOptions, Dialer, NetworkExecutorOptions, ServeOptions, Server, run_executor, serve};

/// A cluster on loopback. Executors are separate but for their process.
struct Cluster {
    coordinator: Arc<Coordinator>,
    server: Server,
    executors: Vec<Routine>,
}

impl Cluster {
    async fn start(executors: usize, partitions: u32) -> Self {
        Self::start_with(executors, partitions, ResultsConfig::default()).await
    }

    async fn start_with(executors: usize, partitions: u32, results: ResultsConfig) -> Self {
        let options = CoordinatorOptions { query: cut_everything(partitions), results, ..CoordinatorOptions::default() };
        let coordinator = Coordinator::start(options).unwrap();
        let bind = "127.0.0.1:0".parse().unwrap();
        let server = serve(Arc::clone(&coordinator), ServeOptions { bind, access: Access::open() }).await.unwrap();
        let mut cluster = Self { coordinator, server, executors: Vec::new() };
        for number in 0..executors {
            cluster.add(&format!("n{number}"));
        }
        cluster.await_alive(executors).await;
        cluster
    }

    fn add(&mut self, name: &str) {
        let options = NetworkExecutorOptions {
            scheduler: self.server.address().to_string(),
            bind: "127.0.0.1:0".parse().unwrap(),
            advertise: None,
            client_networks: Vec::new(),
            access: Access::open(),
            dialer: Dialer::open(),
            executor: options(name),
        };
        self.executors.push(Routine::spawn(name, "executor", async move {
            run_executor(options, std::future::pending(), std::future::pending()).await.unwrap();
        }));
    }

    fn alive(&self) -> usize {
        self.coordinator.status().executors.iter().filter(|executor| executor.state == ExecutorState::Alive).count()
    }

    fn used(&self) -> u32 {
        self.coordinator.status().executors.iter().map(|executor| executor.slots_used).sum()
    }

    async fn await_alive(&self, count: usize) {
        eventually("executors are connected", || self.alive() == count).await;
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.server.address())).unwrap().connect().await.unwrap()
    }

    async fn client(&self) -> FlightSqlServiceClient<Channel> {
        FlightSqlServiceClient::new(self.channel().await)
    }

    async fn raw(&self) -> FlightServiceClient<Channel> {
        FlightServiceClient::new(self.channel().await)
    }

    async fn act(&self, name: &str, body: impl Into<bytes::Bytes>) -> Result<Vec<bytes::Bytes>, tonic::Status> {
        let action = Action { r#type: name.to_owned(), body: body.into() };
        answers(&mut self.raw().await, action).await
    }
}

async fn answers(client: &mut FlightServiceClient<Channel>, action: Action) -> Result<Vec<bytes::Bytes>, tonic::Status> {
    client.do_action(action).await?.into_inner().map_ok(|result| result.body).try_collect().await
}

/// The coordinator's answer to one action, over the connection of `client`.
async fn act_of(client: &mut FlightSqlServiceClient<Channel>, name: &str, body: Vec<u8>) -> Result<bytes::Bytes, tonic::Status> {
    let action = Action { r#type: name.to_owned(), body: body.into() };
    Ok(answers(client.inner_mut(), action).await?.remove(0))
}

async fn read(client: &mut FlightSqlServiceClient<Channel>, info: FlightInfo) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    for endpoint in info.endpoint {
        let rows = client.do_get(endpoint.ticket.unwrap()).await.unwrap();
        let rows: Vec<RecordBatch> = timer::deadline(PATIENCE, rows.try_collect()).await.unwrap().unwrap();
        batches.extend(rows);
    }
    batches
}

async fn query(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Vec<RecordBatch> {
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    read(client, info).await
}

fn integers(batches: &[RecordBatch], column: usize) -> Vec<i64> {
    let columns = batches.iter().map(|batch| cast(batch.column(column), &DataType::Int64).unwrap());
    columns.flat_map(|array| array.as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()).collect()
}

fn endless(table: &Table) -> String {
    format!("SELECT count(*) FROM {0} a JOIN {0} b ON a.one = b.one JOIN {0} c ON a.one = c.one", table.name())
}

/// A statement as a ticket.
fn as_ticket(sql: String) -> Ticket {
    Ticket::new(arrow_flight::sql::CommandStatementQuery { query: sql, transaction_id: None }.as_any().encode_to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_over_the_wire_gives_its_rows() {
    let table = Table::new(4, 2_000, 10);
    let cluster = Cluster::start(2, 4).await;
    let mut client = cluster.client().await;
    let batches = query(&mut client, &format!("SELECT id FROM {} ORDER BY id", table.name())).await;
    assert_eq!(integers(&batches, 0), (0..8_000).collect::<Vec<_>>());
    let sql = format!("SELECT a.name, sum(b.one) FROM {0} a JOIN {0} b USING (id) GROUP BY a.name", table.name());
    assert_eq!(integers(&query(&mut client, &sql).await, 1).iter().sum::<i64>(), 8_000);
    eventually("slots are free", || cluster.used() == 0).await;
    let status: ClusterStatus = decode(&cluster.act(actions::STATUS, "").await.unwrap()[0]).unwrap();
    assert_eq!(status.executors.len(), 2);
    assert!(status.jobs.iter().all(|job| job.progress.state == JobState::Succeeded && job.progress.retries == 0), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_cross_the_wire_typed() {
    let cluster = Cluster::start(1, 2).await;
    let mut client = cluster.raw().await;
    let table = Table::new(1, 10, 1);
    let sql = format!("SELECT\n  nmae FROM {}", table.name());
    let command = arrow_flight::sql::CommandStatementQuery { query: sql, transaction_id: None };
    let descriptor = arrow_flight::FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let status = client.get_flight_info(descriptor).await.unwrap_err();
    let error = from_status(&status);
    assert_eq!((error.kind, status.code()), (ErrorKind::InvalidQuery, Code::InvalidArgument));
    assert_eq!(error.context.span.unwrap().start_line, 2);
    assert!(format!("{:?} {}", error.context.suggestion, error.message).contains("name"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_executor_costs_the_client_nothing() {
    let table = Table::new(8, 4_000, 50);
    let mut cluster = Cluster::start(3, 8).await;
    let mut client = cluster.client().await;
    let sql = format!("SELECT a.id, a.name FROM {0} a JOIN {0} b ON a.id = b.id ORDER BY a.id", table.name());
    let info = client.execute(sql, None).await.unwrap();
    eventually("something is committed", || {
        cluster.coordinator.status().counters.iter().any(|(name, value)| name == "partitions_committed" && *value > 0)
    })
    .await;
    drop(cluster.executors.remove(0));
    let ids = integers(&read(&mut client, info).await, 0);
    assert_eq!(ids, (0..32_000).collect::<Vec<_>>());
    cluster.await_alive(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_and_cancelling_free_every_slot() {
    let table = Table::new(4, 4_000, 10);
    let cluster = Cluster::start(2, 4).await;
    let mut client = cluster.client().await;

    let mut waiting = Box::pin(client.execute(endless(&table), None));
    assert!(timer::deadline(Duration::from_millis(50), &mut waiting).await.is_none());
    eventually("it runs", || cluster.used() > 0).await;
    drop(waiting);
    eventually("who does not wait for the answer frees the slots", || cluster.used() == 0).await;

    let ticket = as_ticket(endless(&table));
    let rows = client.do_get(ticket.clone()).await.unwrap();
    eventually("a statement as a ticket runs", || cluster.used() > 0).await;
    drop(rows);
    eventually("a reader that leaves frees the slots", || cluster.used() == 0).await;
    let rows = client.do_get(ticket).await.unwrap();
    eventually("it runs", || cluster.used() > 0).await;
    let handle = rows.headers().get_bin(actions::STATEMENT_HEADER).unwrap().to_bytes().unwrap();
    assert!(decode::<bool>(&cluster.act(actions::CANCEL, handle).await.unwrap()[0]).unwrap());
    let error = rows.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(error.to_string().contains("cancelled"), "{error}");
    eventually("its handle cancels it", || cluster.used() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_pushed_until_the_job_is_over() {
    let table = Table::new(4, 4_000, 10);
    let cluster = Cluster::start(1, 4).await;
    let mut client = cluster.client().await;
    let rows = client.do_get(as_ticket(endless(&table))).await.unwrap();
    let handle = rows.headers().get_bin(actions::STATEMENT_HEADER).unwrap().to_bytes().unwrap();
    let action = Action { r#type: actions::PROGRESS.to_owned(), body: handle.clone() };
    let mut follow = cluster.raw().await.do_action(action.clone()).await.unwrap().into_inner();
    let mut states = Vec::new();
    while let Some(result) = timer::deadline(PATIENCE, follow.message()).await.unwrap().unwrap() {
        let progress: JobProgress = decode(&result.body).unwrap();
        states.push(progress.state);
        if progress.tasks_done > 0 {
            cluster.act(actions::CANCEL, handle.clone()).await.ok();
        }
    }
    assert!(states.len() > 1, "{states:?}");
    eventually("slots are free", || cluster.used() == 0).await;
    drop(rows);
    // Who asks after the end is told how it ended.
    let mut late = cluster.raw().await.do_action(action).await.unwrap().into_inner();
    let mut last = None;
    while let Some(result) = timer::deadline(PATIENCE, late.message()).await.unwrap().unwrap() {
        last = Some(decode::<JobProgress>(&result.body).unwrap().state);
    }
    assert_eq!(last, Some(JobState::Cancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_keep_their_settings_apart() {
    let cluster = Cluster::start(1, 2).await;
    let mut own = cluster.client().await;
    let settings = encode(&vec![("windrow.query.partitions", "7")]).unwrap();
    let name: u64 = decode(&cluster.act(actions::OPEN_SESSION, settings).await.unwrap()[0]).unwrap();
    own.set_header(actions::SESSION_HEADER, format!("{name:x}"));
    assert_eq!(own.execute_update("SET windrow.query.directory = '/tmp'".to_owned(), None).await.unwrap(), 0);
    let show = |what: &str| format!("SHOW windrow.query.{what}");
    assert!(format!("{:?}", query(&mut own, &show("partitions")).await).contains('7'));
    assert!(format!("{:?}", query(&mut own, &show("directory")).await).contains("/tmp"));
    let mut other = cluster.client().await;
    assert!(!format!("{:?}", query(&mut other, &show("directory")).await).contains("/tmp"));
    other.set_header(actions::SESSION_HEADER, "1");
    assert!(other.execute(show("directory"), None).await.unwrap_err().to_string().contains("closed"));
    other.set_header(actions::SESSION_HEADER, "no number");
    assert!(other.execute(show("directory"), None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_tickets_and_actions_are_refused() {
    let cluster = Cluster::start(1, 2).await;
    let address = cluster.coordinator.status().executors[0].address.clone();
    let executor = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut executor = FlightServiceClient::new(executor);
    let mut random = windrow_core::rand::seeded(7);
    for length in 0..200 {
        let bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        let ticket = Ticket { ticket: bytes.clone().into() };
        // A ticket that happens to parse asks for nothing that is there.
        if let Ok(rows) = executor.do_get(ticket.clone()).await {
            assert!(rows.into_inner().try_collect::<Vec<_>>().await.is_ok_and(|rows| rows.is_empty()) || length > 0);
        }
        assert!(cluster.raw().await.do_get(ticket).await.is_err());
        assert!(cluster.act(actions::PROGRESS, bytes.clone()).await.is_err());
        match cluster.act(actions::CANCEL, bytes).await {
            Ok(answer) => assert!(length == 16 && !decode::<bool>(&answer[0]).unwrap(), "a number, but nobody's"),
            Err(_) => assert_ne!(length, 16),
        }
    }
    for handle in [vec![], vec![0; 15], vec![0; 16], vec![255; 17]] {
        let ticket = TicketStatementQuery { statement_handle: handle.into() }.as_any().encode_to_vec();
        let status = cluster.raw().await.do_get(Ticket { ticket: ticket.into() }).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }
    assert_eq!(cluster.act("windrow.nonsense", "").await.unwrap_err().code(), Code::Unimplemented);
    let oversize = cluster.act(actions::OPEN_SESSION, vec![0; super::REQUEST_BYTES_MAX + 1]).await.unwrap_err();
    assert_eq!(oversize.code(), Code::OutOfRange);
    assert_eq!(
        executor.get_flight_info(arrow_flight::FlightDescriptor::default()).await.unwrap_err().code(),
        Code::Unimplemented
    );
    // Everything lives on.
    assert!(!cluster.act(actions::STATUS, "").await.unwrap().is_empty());
    assert_eq!(cluster.alive(), 1);
}

/// Sends `first` on a new control stream and returns the first answer.
async fn control(cluster: &Cluster, first: Report) -> Result<Option<Command>, tonic::Status> {
    let mut grpc = tonic::client::Grpc::new(cluster.channel().await);
    grpc.ready().await.unwrap();
    let request = Request::new(futures::stream::iter([first]).chain(futures::stream::pending()));
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(CONNECT_PATH);
    let response = grpc.streaming(request, path, PostcardCodec::<Report, Command>::default()).await?;
    timer::deadline(PATIENCE, response.into_inner().message()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_on_the_control_stream_are_told_why() {
    let cluster = Cluster::start(1, 2).await;
    let leaving = Report::Leaving { incarnation: windrow_core::ids::Incarnation(1) };
    assert!(matches!(control(&cluster, leaving).await, Ok(None)), "no registration, no answer");
    let registration = windrow_core::message::Registration {
        name: "other".to_owned(),
        slots: 1,
        memory_bytes: 1,
        address: "127.0.0.1:1".to_owned(),
        build: "windrow 0.0.1 protocol 0".to_owned(),
        pid: 1,
        clients: None,
    };
    let Ok(Some(Command::Refused { message })) = control(&cluster, Report::Register(registration)).await else {
        panic!("refused")
    };
    assert!(message.contains("windrow 0.0.1 protocol 0") && message.contains(build()), "{message}");

    let mut grpc = tonic::client::Grpc::new(cluster.channel().await);
    grpc.ready().await.unwrap();
    let garbage = Request::new(futures::stream::iter([vec![250_u8; 40]]));
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(CONNECT_PATH);
    let response = grpc.streaming(garbage, path, PostcardCodec::<Vec<u8>, Command>::default()).await;
    let answer = match response {
        Ok(response) => timer::deadline(PATIENCE, response.into_inner().message()).await.unwrap(),
        Err(status) => Err(status),
    };
    assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
    assert_eq!(cluster.alive(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_comes_back_with_a_new_incarnation() {
    let mut cluster = Cluster::start(1, 2).await;
    let before = cluster.coordinator.status().executors[0].incarnation;
    drop(cluster.executors.remove(0));
    eventually("its loss is noticed by the reset", || cluster.alive() == 0).await;
    cluster.add("n0");
    cluster.await_alive(1).await;
    let executors = cluster.coordinator.status().executors;
    assert_eq!(executors.len(), 1, "the same name keeps its number");
    assert!(executors[0].incarnation > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn executors_leave_when_the_coordinator_shuts_down() {
    let mut cluster = Cluster::start(2, 2).await;
    cluster.coordinator.shutdown().await;
    for executor in cluster.executors.drain(..) {
        assert!(timer::deadline(PATIENCE, executor.over()).await.is_some());
    }
}
