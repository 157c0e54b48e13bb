//! Results that are fetched by ticket: read again, in any order, by whom, for how long, and what is left when they are gone.

use arrow::compute::concat_batches;
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::CommandStatementQuery;
use arrow_flight::{CancelFlightInfoRequest, Criteria, FlightDescriptor, FlightEndpoint, PollInfo, RenewFlightEndpointRequest};
use tonic::Status;
use windrow_auth::{Principal, Role};

use super::super::SqlService;
use super::super::door::Door;
use super::*;
use crate::listener::Peer;
use crate::security::Caller;

/// A server behind which clients are known, called as the wire would.
struct Desk {
    cluster: Cluster,
    service: SqlService,
    door: Door,
}

type Who = Option<Principal>;

fn who(name: &str) -> Who {
    Some(Principal::client(name, Role::Writer))
}

fn asking<T>(message: T, who: &Who) -> Request<T> {
    let mut request = Request::new(message);
    let principal = who.clone().unwrap_or_else(|| Principal::client("owner", Role::Admin));
    request.extensions_mut().insert(Caller { principal, login: None, peer: Peer::nobody() });
    request
}

fn descriptor(sql: &str) -> FlightDescriptor {
    let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

impl Desk {
    async fn open(executors: usize, partitions: u32, results: ResultsConfig) -> Self {
        let cluster = Cluster::start_with(executors, partitions, results).await;
        let service = SqlService::new(Arc::clone(&cluster.coordinator), &Access::open());
        let door = Door::new(service.clone());
        Self { cluster, service, door }
    }

    async fn info(&self, sql: &str, who: &Who) -> FlightInfo {
        let info = self.door.get_flight_info(asking(descriptor(sql), who));
        timer::deadline(PATIENCE, info).await.unwrap().unwrap().into_inner()
    }

    async fn poll(&self, descriptor: FlightDescriptor, who: &Who) -> Result<PollInfo, Status> {
        self.door.poll_flight_info(asking(descriptor, who)).await.map(tonic::Response::into_inner)
    }

    /// The rows of an endpoint.
    async fn get(&self, endpoint: &FlightEndpoint, who: &Who) -> Result<RecordBatch, Status> {
        let rows = self.door.do_get(asking(endpoint.ticket.clone().unwrap(), who)).await?.into_inner();
        let mut rows = FlightRecordBatchStream::new_from_flight_data(rows.map_err(FlightError::from));
        let mut batches = Vec::new();
        while let Some(batch) = timer::deadline(PATIENCE, rows.next()).await.unwrap() {
            batches.push(batch.map_err(Status::from)?);
        }
        let schema = rows.schema().cloned().unwrap();
        Ok(concat_batches(&schema, &batches).unwrap())
    }

    async fn all(&self, info: &FlightInfo, who: &Who) -> Vec<i64> {
        let mut all = Vec::new();
        for endpoint in &info.endpoint {
            all.extend(integers(&[self.get(endpoint, who).await.unwrap()], 0));
        }
        all.sort_unstable();
        all
    }

    /// Jobs that are not over.
    fn jobs(&self) -> usize {
        let is_open = |job: &&crate::JobStatus| !job.progress.state.is_over();
        self.cluster.coordinator.status().jobs.iter().filter(is_open).count()
    }

    /// Jobs that are not released.
    fn held(&self) -> usize {
        self.cluster.coordinator.held()
    }

    async fn cancel(&self, info: &FlightInfo, who: &Who) -> Result<(), Status> {
        let body = CancelFlightInfoRequest::new(info.clone()).encode_to_vec();
        self.act("CancelFlightInfo", body, who).await.map(drop)
    }

    async fn act(&self, name: &str, body: Vec<u8>, who: &Who) -> Result<Vec<arrow_flight::Result>, Status> {
        let action = Action { r#type: name.to_owned(), body: body.into() };
        self.door.do_action(asking(action, who)).await?.into_inner().try_collect().await
    }
}

fn short(ttl: u64) -> ResultsConfig {
    ResultsConfig { ttl: Duration::from_millis(ttl), ..ResultsConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_read_again_in_any_order_and_by_several_at_once() {
    let table = Table::new(6, 500, 10);
    let desk = Desk::open(2, 6, ResultsConfig::default()).await;
    let info = desk.info(&format!("SELECT id, name FROM {}", table.name()), &None).await;
    assert!(info.endpoint.len() > 1 && !info.ordered, "{} endpoints", info.endpoint.len());
    let ids: Vec<i64> = (0..3_000).collect();
    let mut first = Vec::new();
    for endpoint in &info.endpoint {
        assert!(endpoint.expiration_time.is_some());
        assert_eq!(endpoint.location[0].uri, "arrow-flight-reuse-connection://?");
        first.push(desk.get(endpoint, &None).await.unwrap());
    }
    assert_eq!(desk.all(&info, &None).await, ids);
    for (endpoint, before) in info.endpoint.iter().zip(&first).rev() {
        let again = desk.get(endpoint, &None).await.unwrap();
        assert_eq!(
            format!("{}", pretty_format_batches(&[again]).unwrap()),
            format!("{}", pretty_format_batches(std::slice::from_ref(before)).unwrap())
        );
    }
    let together = info.endpoint.iter().chain(&info.endpoint).map(|endpoint| desk.get(endpoint, &None));
    let together = futures::future::try_join_all(together).await.unwrap();
    assert_eq!(together.iter().map(RecordBatch::num_rows).sum::<usize>(), 6_000);
    // A reader that leaves a complete result takes nothing from the others.
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    drop(desk.door.do_get(asking(ticket, &None)).await.unwrap());
    assert_eq!(desk.all(&info, &None).await, ids);
    // Over the wire, another connection reads the tickets of a first.
    let mut client = desk.cluster.client().await;
    let sql = format!("SELECT id FROM {} ORDER BY id", table.name());
    let info = client.execute(sql, None).await.unwrap();
    assert!(info.endpoint.len() == 1 && info.ordered);
    for _ in 0..2 {
        let mut other = desk.cluster.client().await;
        assert_eq!(integers(&read(&mut other, info.clone()).await, 0), ids);
    }
    eventually("a kept result holds no slot", || desk.cluster.used() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_share_tickets() {
    let table = Table::new(4, 300, 5);
    let desk = Desk::open(1, 4, ResultsConfig { endpoints_max: 3, ..ResultsConfig::default() }).await;
    for partitions in [128, 257] {
        let session = encode(&vec![("windrow.query.partitions", partitions.to_string())]).unwrap();
        let name: u64 = decode(&desk.act(actions::OPEN_SESSION, session.to_vec(), &None).await.unwrap()[0].body).unwrap();
        let sql = format!("SELECT a.id FROM {0} a JOIN {0} b ON a.id = b.id", table.name());
        let mut request = asking(descriptor(&sql), &None);
        request.metadata_mut().insert(actions::SESSION_HEADER, format!("{name:x}").parse().unwrap());
        let info = desk.door.get_flight_info(request).await.unwrap().into_inner();
        assert_eq!(info.endpoint.len(), 3);
        assert_eq!(desk.all(&info, &None).await, (0..1_200).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_with_an_executor_is_computed_again() {
    let table = Table::new(6, 500, 10);
    let mut desk = Desk::open(3, 6, ResultsConfig::default()).await;
    let sql = format!("SELECT a.id FROM {0} a JOIN {0} b ON a.id = b.id", table.name());
    let info = desk.info(&sql, &None).await;
    let ids: Vec<i64> = (0..3_000).collect();
    assert_eq!(desk.all(&info, &None).await, ids);
    // All that have a part of the result leave, whichever they are.
    desk.cluster.add("n3");
    desk.cluster.await_alive(4).await;
    for left in [3, 2, 1] {
        drop(desk.cluster.executors.remove(0));
        assert_eq!(desk.all(&info, &None).await, ids, "read again, {left} executors left");
        desk.cluster.await_alive(left).await;
    }
    let lost = desk.cluster.coordinator.status().counters;
    assert!(lost.iter().any(|(name, value)| name == "partitions_lost" && *value > 0), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_of_others_and_forged_ones_are_like_none() {
    let table = Table::new(2, 50, 5);
    let desk = Desk::open(1, 2, ResultsConfig::default()).await;
    let (alice, bob) = (who("alice"), who("bob"));
    let info = desk.info(&format!("SELECT id FROM {}", table.name()), &alice).await;
    assert_eq!(desk.all(&info, &alice).await.len(), 100);
    let foreign = desk.get(&info.endpoint[0], &bob).await.unwrap_err();
    let nobodys = desk.get(&info.endpoint[0], &None).await.unwrap_err();
    assert_eq!((foreign.code(), foreign.message()), (Code::NotFound, nobodys.message()));
    assert_eq!(desk.cancel(&info, &bob).await.unwrap_err().code(), Code::NotFound);
    let renew = RenewFlightEndpointRequest::new(info.endpoint[0].clone()).encode_to_vec();
    assert_eq!(desk.act("RenewFlightEndpoint", renew, &bob).await.unwrap_err().message(), foreign.message());
    let listed = (desk_list(&desk.door, &alice).await.len(), desk_list(&desk.door, &bob).await.len());
    assert_eq!(listed, (1, 0));

    let ticket = info.endpoint[0].ticket.clone().unwrap().ticket;
    let sealed = actions::ticket_handle(&ticket).unwrap();
    let ask = |handle: Vec<u8>| {
        let ticket = TicketStatementQuery { statement_handle: handle.into() }.as_any().encode_to_vec();
        desk.door.do_get(asking(Ticket::new(ticket), &alice))
    };
    for index in 0..sealed.len() {
        for bit in [1, 128] {
            let mut flipped = sealed.to_vec();
            flipped[index] ^= bit;
            let status = ask(flipped).await.err().unwrap();
            assert_eq!((status.code(), status.message()), (Code::NotFound, foreign.message()), "byte {index}");
        }
        assert_eq!(ask(sealed[..index].to_vec()).await.err().unwrap().code(), Code::NotFound, "cut at {index}");
    }
    assert_eq!(ask([&sealed[..], b"x"].concat()).await.err().unwrap().code(), Code::NotFound);
    assert_eq!(ask(info.app_metadata.to_vec()).await.err().unwrap().code(), Code::NotFound, "a job's name is no ticket");
    for index in 0..ticket.len() {
        let mut flipped = ticket.to_vec();
        flipped[index] ^= 1;
        assert!(desk.door.do_get(asking(Ticket::new(flipped), &alice)).await.is_err(), "byte {index} of the message");
    }
    let other = SqlService::new(Arc::clone(&desk.cluster.coordinator), &Access::open());
    let status = Door::new(other).do_get(asking(Ticket::new(ticket), &alice)).await.err().unwrap();
    assert_eq!((status.code(), status.message()), (Code::NotFound, foreign.message()), "another server's ticket");
    assert_eq!(desk.all(&info, &alice).await.len(), 100);
}

async fn desk_list(door: &Door, who: &Who) -> Vec<FlightInfo> {
    door.list_flights(asking(Criteria::default(), who)).await.unwrap().into_inner().try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn results_expire_and_say_so_to_their_owner_alone() {
    let table = Table::new(2, 50, 5);
    let desk = Desk::open(1, 2, short(4_000)).await;
    let (alice, bob) = (who("alice"), who("bob"));
    let info = desk.info(&format!("SELECT id FROM {}", table.name()), &alice).await;
    let renew = RenewFlightEndpointRequest::new(info.endpoint[0].clone()).encode_to_vec();
    let renewed = desk.act("RenewFlightEndpoint", renew, &alice).await.unwrap();
    let renewed = FlightEndpoint::decode(renewed[0].body.clone()).unwrap();
    let time = |endpoint: &FlightEndpoint| endpoint.expiration_time.map(|time| (time.seconds, time.nanos)).unwrap();
    assert!(time(&renewed) >= time(&info.endpoint[0]));
    assert_eq!(renewed.ticket, info.endpoint[0].ticket);
    eventually("the result expires", || desk.held() == 0).await;
    let error = desk.get(&info.endpoint[0], &alice).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("expired after 4s") && error.message().contains("results.ttl"), "{error}");
    assert!(!desk.get(&info.endpoint[0], &bob).await.unwrap_err().message().contains("expired"));
    assert!(desk_list(&desk.door, &alice).await.is_empty());
    assert!(desk.poll(FlightDescriptor::new_cmd(info.app_metadata.clone()), &alice).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_polled_until_it_is_done() {
    let table = Table::new(6, 2_000, 10);
    let desk = Desk::open(1, 6, ResultsConfig::default()).await;
    let sql = format!("SELECT a.id FROM {0} a JOIN {0} b ON a.id = b.id", table.name());
    let mut answer = desk.poll(descriptor(&sql), &None).await.unwrap();
    let (mut tickets, mut progress) = (Vec::new(), 0.0);
    let followed = async {
        loop {
            let info = answer.info.clone().unwrap();
            let now: Vec<_> = info.endpoint.iter().map(|endpoint| endpoint.ticket.clone().unwrap()).collect();
            assert!(now.starts_with(&tickets), "tickets are only appended");
            assert!(answer.progress() >= progress && answer.expiration_time.is_some());
            (tickets, progress) = (now, answer.progress());
            let Some(next) = answer.flight_descriptor.clone() else { break info };
            assert!(progress < 1.0);
            timer::sleep(Duration::from_millis(5)).await;
            answer = desk.poll(next, &None).await.unwrap();
        }
    };
    let info = timer::deadline(PATIENCE, followed).await.unwrap();
    assert_eq!(desk.all(&info, &None).await, (0..12_000).collect::<Vec<_>>());
    let again = desk.poll(FlightDescriptor::new_cmd(info.app_metadata.clone()), &None).await.unwrap();
    assert!(again.flight_descriptor.is_none() && again.progress == Some(1.0), "an old descriptor is harmless");
    let failing = format!("SELECT 1 / (id - id) FROM {}", table.name());
    let mut polled = desk.poll(descriptor(&failing), &None).await;
    let failed = async {
        while let Ok(answer) = &polled {
            timer::sleep(Duration::from_millis(5)).await;
            polled = desk.poll(answer.flight_descriptor.clone().unwrap(), &None).await;
        }
    };
    timer::deadline(PATIENCE, failed).await.unwrap();
    assert!(polled.unwrap_err().message().to_lowercase().contains("zero"));
    assert!(desk.door.get_flight_info(asking(descriptor(&failing), &None)).await.is_err(), "most errors come out of execute");
}

/// JDBC's users cancel by leaving the rows, so they must be there to leave.
#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_cannot_take_a_call_back_waits_for_rows_instead() {
    let table = Table::new(4, 4_000, 10);
    let desk = Desk::open(2, 4, ResultsConfig::default()).await;
    let info = |sql: String, agent: &'static str| {
        let mut request = asking(descriptor(&sql), &None);
        request.metadata_mut().insert("user-agent", agent.parse().unwrap());
        timer::deadline(Duration::from_secs(3), desk.door.get_flight_info(request))
    };
    assert!(info(endless(&table), "grpc-go/1.80.0").await.is_none(), "others wait for the first partition");
    eventually("who waits no more ends it", || desk.cluster.used() == 0 && desk.held() == 0).await;
    let endless = info(endless(&table), "grpc-java-netty/1.71.0").await.expect("an answer at once").unwrap().into_inner();
    let ticket = endless.endpoint[0].ticket.clone().unwrap();
    let rows = desk.door.do_get(asking(ticket, &None)).await.unwrap().into_inner();
    let mut rows = FlightRecordBatchStream::new_from_flight_data(rows.map_err(FlightError::from));
    assert!(timer::deadline(Duration::from_millis(500), rows.next()).await.is_none(), "no row yet");
    assert!(rows.schema().is_some(), "the schema is there before them");
    assert_eq!(desk.jobs(), 1);
    drop(rows);
    eventually("leaving the rows ends the job", || desk.cluster.used() == 0 && desk.held() == 0).await;
    // What is answered in time is as for everybody.
    let sql = format!("SELECT id FROM {}", table.name());
    let answered = info(sql.clone(), "grpc-java-netty/1.71.0").await.expect("an answer").unwrap().into_inner();
    assert_eq!(desk.all(&answered, &None).await, (0..16_000).collect::<Vec<_>>());
    let failing = format!("SELECT 1 / (id - id) FROM {}", table.name());
    let failed = async {
        let answer = info(failing, "grpc-java-netty/1.71.0").await.expect("an answer");
        match answer {
            Ok(answer) => desk.get(&answer.into_inner().endpoint[0], &None).await.map(drop),
            Err(status) => Err(status),
        }
    };
    assert!(failed.await.unwrap_err().message().to_lowercase().contains("zero"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_or_cancels_a_running_query_ends_it() {
    let table = Table::new(4, 4_000, 10);
    let desk = Desk::open(2, 4, ResultsConfig::default()).await;
    let alice = who("alice");
    // Cancelled by name, from anywhere, as often as one likes.
    let polled = desk.poll(descriptor(&endless(&table)), &alice).await.unwrap().info.unwrap();
    eventually("it runs", || desk.cluster.used() > 0).await;
    for _ in 0..2 {
        desk.cancel(&polled, &alice).await.unwrap();
        eventually("cancelling frees the slots", || desk.cluster.used() == 0 && desk.held() == 0).await;
    }
    // The last reader of a running job goes.
    let polled = desk.poll(descriptor(&endless(&table)), &alice).await.unwrap();
    let listed = desk_list(&desk.door, &alice).await;
    let ticket = listed[0].endpoint[0].ticket.clone().unwrap();
    let (one, two) = (asking(ticket.clone(), &alice), asking(ticket, &alice));
    let (one, two) = (desk.door.do_get(one).await.unwrap(), desk.door.do_get(two).await.unwrap());
    eventually("it runs", || desk.cluster.used() > 0).await;
    drop(one);
    assert!(desk.poll(polled.flight_descriptor.clone().unwrap(), &alice).await.is_ok(), "another reads on");
    let begin = windrow_core::clock::Stopwatch::start();
    drop(two);
    eventually("the last reader ends it", || desk.cluster.used() == 0 && desk.held() == 0).await;
    assert!(begin.elapsed() < Duration::from_secs(5), "ended after {:?}", begin.elapsed());
    let gone = desk.poll(polled.flight_descriptor.unwrap(), &alice).await.unwrap_err();
    assert!(gone.message().contains("cancelled"), "{gone}");
    // A job that is detached goes on.
    let settings = encode(&vec![("windrow.query.cancel_on_drop", "false")]).unwrap();
    let name: u64 = decode(&desk.act(actions::OPEN_SESSION, settings.to_vec(), &None).await.unwrap()[0].body).unwrap();
    let mut request = asking(descriptor(&endless(&table)), &None);
    request.metadata_mut().insert(actions::SESSION_HEADER, format!("{name:x}").parse().unwrap());
    drop(desk.door.poll_flight_info(request).await.unwrap());
    let detached = desk_list(&desk.door, &None).await;
    drop(desk.door.do_get(asking(detached[0].endpoint[0].ticket.clone().unwrap(), &None)).await.unwrap());
    eventually("it runs on", || desk.cluster.used() > 0).await;
    assert_eq!(desk_list(&desk.door, &None).await.len(), 1);
    desk.cancel(&detached[0], &None).await.unwrap();
    eventually("until it is cancelled", || desk.cluster.used() == 0 && desk.held() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_results_that_nobody_read() {
    let table = Table::new(2, 20, 5);
    let desk = Desk::open(1, 2, short(6_000)).await;
    for round in 0..200 {
        let sql =
            if round % 3 == 0 { "SHOW windrow.query.partitions".to_owned() } else { format!("SELECT id FROM {}", table.name()) };
        let info = desk.info(&sql, &None).await;
        if round % 2 == 0 {
            for endpoint in &info.endpoint {
                desk.get(endpoint, &None).await.unwrap();
            }
        }
    }
    eventually("every result expires", || desk.held() == 0 && desk.service.results.held() == 0).await;
    let is_bare = || {
        desk.cluster.coordinator.status().executors.iter().all(|executor| executor.slots_used == 0 && executor.store_bytes == 0)
    };
    eventually("and the executors hold nothing", is_bare).await;
    assert_eq!(desk.jobs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_coordinator_answers_itself_is_kept_too_until_its_session_ends() {
    let table = Table::new(2, 20, 5);
    let desk = Desk::open(1, 2, ResultsConfig::default()).await;
    let name: u64 = decode(&desk.act(actions::OPEN_SESSION, Vec::new(), &None).await.unwrap()[0].body).unwrap();
    let mut infos = Vec::new();
    for sql in [
        "SHOW windrow.query.partitions".to_owned(),
        format!("EXPLAIN ANALYZE SELECT id FROM {}", table.name()),
        format!("SELECT id FROM {}", table.name()),
    ] {
        let mut request = asking(descriptor(&sql), &None);
        request.metadata_mut().insert(actions::SESSION_HEADER, format!("{name:x}").parse().unwrap());
        let info = desk.door.get_flight_info(request).await.unwrap().into_inner();
        let rows = desk.get(&info.endpoint[0], &None).await.unwrap();
        assert!(rows.num_rows() > 0, "{sql}");
        assert_eq!(desk.get(&info.endpoint[0], &None).await.unwrap(), rows);
        infos.push(info);
    }
    let mut close = asking(Action { r#type: actions::CLOSE_SESSION.to_owned(), body: bytes::Bytes::new() }, &None);
    close.metadata_mut().insert(actions::SESSION_HEADER, format!("{name:x}").parse().unwrap());
    desk.door.do_action(close).await.unwrap().into_inner().try_collect::<Vec<_>>().await.unwrap();
    eventually("a session's results go with it", || desk.held() == 0).await;
    for info in infos {
        let error = desk.get(&info.endpoint[0], &None).await.unwrap_err();
        assert!(error.code() == Code::NotFound && error.message().contains("session was closed"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_were_read_make_room_and_others_do_not() {
    let table = Table::new(2, 20, 5);
    let desk = Desk::open(1, 2, ResultsConfig { kept_max: 8, ..ResultsConfig::default() }).await;
    let sql = format!("SELECT id FROM {}", table.name());
    let (unread, read) = (desk.info(&sql, &None).await, desk.info(&sql, &None).await);
    assert_eq!(desk.all(&read, &None).await.len(), 40);
    for _ in 0..30 {
        let info = desk.info(&sql, &None).await;
        assert_eq!(desk.all(&info, &None).await.len(), 40);
        assert!(desk.service.results.held() <= 8);
    }
    let gone = desk.get(&read.endpoint[0], &None).await.unwrap_err();
    assert!(gone.code() == Code::NotFound && gone.message().contains("results.kept_max"), "{gone}");
    assert_eq!(desk.all(&unread, &None).await.len(), 40, "nobody had read this one");
    let mut waiting = Vec::new();
    let refused = loop {
        match desk.door.get_flight_info(asking(descriptor(&sql), &None)).await {
            Ok(info) => waiting.push(info.into_inner()),
            Err(status) => break status,
        }
        assert!(waiting.len() <= 8);
    };
    assert!(refused.code() == Code::ResourceExhausted && refused.message().contains("kept_max"), "{refused}");
    for info in &waiting {
        assert_eq!(desk.all(info, &None).await.len(), 40);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_read_are_never_refused_for_want_of_room() {
    let table = Table::new(1, 20, 5);
    let desk = Desk::open(1, 2, ResultsConfig { kept_max: 16, ..ResultsConfig::default() }).await;
    let (desk, sql) = (Arc::new(desk), Arc::new(format!("SELECT id FROM {}", table.name())));
    let client = |_| {
        let (desk, sql) = (Arc::clone(&desk), Arc::clone(&sql));
        tokio::spawn(async move {
            for _ in 0..100 {
                let info = desk.info(&sql, &None).await;
                assert_eq!(desk.all(&info, &None).await.len(), 20);
                assert!(desk.service.results.held() <= 16);
            }
        })
    };
    futures::future::try_join_all((0..6).map(client)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_nobody_reads_stops_growing_and_keeps_nobody_waiting() {
    // Partitions with less share a task.
    let table = Table::new(6, 20_000, 10);
    let desk = Desk::open(1, 6, ResultsConfig { unfetched_max: "1B".parse().unwrap(), ..ResultsConfig::default() }).await;
    let sql = format!("SELECT a.id FROM {0} a JOIN {0} b ON a.id = b.id", table.name());
    let ids: Vec<i64> = (0..120_000).collect();
    let info = desk.info(&sql, &None).await;
    assert_eq!(info.endpoint.len(), 6);
    eventually("it is held, and holds no slot", || desk.cluster.used() == 0).await;
    let running = || desk.cluster.coordinator.status().jobs.iter().filter(|job| !job.progress.state.is_over()).count();
    assert_eq!(running(), 1, "a part of it has not begun");
    // Read from its end, and then as it comes.
    assert!(desk.get(info.endpoint.last().unwrap(), &None).await.unwrap().num_rows() > 0);
    assert_eq!(desk.all(&info, &None).await, ids);
    assert_eq!(running(), 0);
    // All at once, as some drivers do.
    let info = desk.info(&sql, &None).await;
    let together = info.endpoint.iter().map(|endpoint| desk.get(endpoint, &None));
    let together = timer::deadline(PATIENCE, futures::future::try_join_all(together)).await.unwrap().unwrap();
    assert_eq!(together.iter().map(RecordBatch::num_rows).sum::<usize>(), 120_000);
    // By who waits for the end before reading.
    let mut answer = desk.poll(descriptor(&sql), &None).await.unwrap();
    let followed = async {
        while let Some(next) = answer.flight_descriptor.clone() {
            timer::sleep(Duration::from_millis(5)).await;
            answer = desk.poll(next, &None).await.unwrap();
        }
        answer.info.unwrap()
    };
    let info = timer::deadline(PATIENCE, followed).await.unwrap();
    assert_eq!(desk.all(&info, &None).await, ids);
    // By who reads rows as they come, slowly.
    let mut client = desk.cluster.client().await;
    let mut rows = client.do_get(as_ticket(sql)).await.unwrap();
    let mut count = 0;
    while let Some(batch) = timer::deadline(PATIENCE, rows.next()).await.unwrap() {
        count += batch.unwrap().num_rows();
        timer::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(count, 120_000);
}
