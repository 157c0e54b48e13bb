//! Connections end when nobody needs them, and no call is hurt by it.

use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{CommandStatementQuery, CommandStatementUpdate, ProstMessageExt};
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use futures::StreamExt;
use prost::Message;
use windrow_core::config::{ConnectionsConfig, SchedulerConfig, SessionConfig};

use super::*;
use crate::testing::{Table, cut_everything};

/// A scheduler with an executor of its own network, and these limits.
struct Place {
    server: Server,
    key: ClusterKey,
    coordinator: Arc<Coordinator>,
    _warehouse: tempfile::TempDir,
    _executor: crate::routine::Routine,
}

impl Place {
    async fn start(connections: ConnectionsConfig) -> Self {
        let key = ClusterKey::random();
        let access = Access::with_key(key.clone()).limited(&connections);
        let folder = tempfile::tempdir().unwrap();
        let scheduler = SchedulerConfig { warehouse: folder.path().display().to_string(), ..SchedulerConfig::default() };
        let cut = CoordinatorOptions {
            scheduler,
            dialer: Dialer::with_key(&key),
            query: cut_everything(2),
            ..CoordinatorOptions::default()
        };
        let coordinator = Coordinator::start(cut).unwrap();
        let bind = "127.0.0.1:0".parse().unwrap();
        let server = serve(Arc::clone(&coordinator), ServeOptions { bind, access: access.clone() }).await.unwrap();
        let member = NetworkExecutorOptions {
            scheduler: server.address().to_string(),
            bind,
            advertise: None,
            client_networks: Vec::new(),
            access,
            dialer: Dialer::with_key(&key),
            executor: options("member"),
        };
        let executor = crate::routine::Routine::spawn("member", "executor", async move {
            run_executor(member, std::future::pending(), std::future::pending()).await.unwrap();
        });
        eventually("the executor joins", || coordinator.status().executors.len() == 1).await;
        Self { server, key, coordinator, _warehouse: folder, _executor: executor }
    }

    /// A call's header, with a session of its own or with that of its connection.
    fn token(&self, session: u64) -> MetadataValue<Ascii> {
        let ann = Principal::client("ann", Role::Writer);
        let token = Logins::new(&self.key).issue(&ann, session, Duration::from_secs(600), unix_millis()).unwrap();
        format!("Bearer {token}").parse().unwrap()
    }

    fn registrations(&self) -> u64 {
        let counters = self.coordinator.status().counters;
        counters.into_iter().find(|(name, _)| name == "executors_registered").map_or(0, |(_, count)| count)
    }
}

fn limits(idle: Duration, age: Duration) -> ConnectionsConfig {
    ConnectionsConfig { idle, age, ..ConnectionsConfig::default() }
}

fn signed<T>(message: T, token: &MetadataValue<Ascii>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", token.clone());
    request
}

fn statement(sql: &str) -> Vec<u8> {
    CommandStatementQuery { query: sql.to_owned(), transaction_id: None }.as_any().encode_to_vec()
}

/// Speaks HTTP/2 as far as a client must that only waits: answers pings and settings; resolves at the GOAWAY with what it says.
async fn goes_away(server: &Server, token: &MetadataValue<Ascii>) -> u32 {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let frame = |kind: u8, flags: u8, id: u32, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &id.to_be_bytes(), body].concat()
    };
    let mut block = vec![0x83, 0x86];
    for (name, value) in [
        (":path", "/arrow.flight.protocol.FlightService/ListActions"),
        (":authority", "x"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("authorization", token.to_str().unwrap()),
    ] {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127 + 128, "one byte more of length is written");
            match u8::try_from(text.len()).unwrap() {
                short @ 0..127 => block.push(short),
                long => block.extend([127, long - 127]),
            }
            block.extend(text.bytes());
        }
    }
    let call = [frame(1, 4, 1, &block), frame(0, 1, 1, &[0; 5])].concat();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[frame(4, 0, 0, &[]), call].concat()).await.unwrap();
    loop {
        let mut head = [0_u8; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut body = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut body).await.unwrap();
        match (head[3], head[4]) {
            (4, 0) => stream.write_all(&frame(4, 1, 0, &[])).await.unwrap(),
            (6, 0) => stream.write_all(&frame(6, 1, 0, &body)).await.unwrap(),
            (7, _) => return u32::from_be_bytes([body[4], body[5], body[6], body[7]]),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m15_idle_and_old_connections_are_asked_to_go() {
    let (short, long) = (Duration::from_millis(100), Duration::from_secs(3600));
    let mut cases = Cases::of("M15");
    for (name, limits) in [("nothing is called", limits(short, long)), ("it is old", limits(long, short))] {
        let place = Place::start(limits).await;
        let said = timer::deadline(PATIENCE, goes_away(&place.server, &place.token(7))).await;
        assert_eq!(said, Some(0), "{name}: without an error");
        cases.case(name);
    }
    // Where a session belongs to the connection, both stay.
    let place = Place::start(limits(short, short)).await;
    let mut client = FlightServiceClient::new(channel(&place.server).await);
    let token = place.token(0);
    let update = |sql: &str| {
        let command = CommandStatementUpdate { query: sql.to_owned(), transaction_id: None }.as_any().encode_to_vec();
        let first = FlightData { flight_descriptor: Some(FlightDescriptor::new_cmd(command)), ..FlightData::default() };
        signed(futures::stream::iter([first]), &token)
    };
    client
        .do_put(update("SET windrow.query.directory = '/own'"))
        .await
        .unwrap()
        .into_inner()
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    timer::sleep(4 * short).await;
    let info = client.get_flight_info(signed(FlightDescriptor::new_cmd(statement("SHOW windrow.query.directory")), &token)).await;
    let ticket = info.unwrap().into_inner().endpoint[0].ticket.clone().unwrap();
    let rows = client.do_get(signed(ticket, &token)).await.unwrap().into_inner();
    let rows: Vec<FlightData> = rows.try_collect().await.unwrap();
    assert!(rows.iter().any(|row| row.data_body.windows(4).any(|part| part == b"/own")), "the session is the one before");
    cases.case("a session needs its connection");
    cases.are(3);
}

/// A result that is read for longer than a connection may be old or idle, while executors come and go over others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m15_calls_end_undisturbed_and_executors_stay() {
    let (short, table) = (Duration::from_millis(50), Table::new(4, 20_000, 100));
    let place = Place::start(limits(short, short)).await;
    let token = place.token(7);
    let mut client = FlightServiceClient::new(channel(&place.server).await);
    let mut cases = Cases::of("M15");
    let sql = format!("SELECT a.id, a.name FROM {} a", table.name());
    let mut rows = client.do_get(signed(Ticket::new(statement(&sql)), &token)).await.unwrap().into_inner();
    let (mut messages, mut bytes) = (0, 0);
    while let Some(message) = timer::deadline(PATIENCE, rows.next()).await.expect("a message in time") {
        (messages, bytes) = (messages + 1, bytes + message.unwrap().data_body.len());
        if messages < 10 {
            timer::sleep(2 * short).await;
        }
    }
    assert!(bytes > 4 * 20_000 * 100, "{bytes} bytes in {messages} messages: all of it");
    cases.case("a result that is read slowly");
    // The client's next calls are over other connections, which it makes without being told to.
    for _ in 0..5 {
        timer::sleep(2 * short).await;
        let descriptor = FlightDescriptor::new_cmd(statement(&format!("SELECT count(*) FROM {}", table.name())));
        let info = client.get_flight_info(signed(descriptor, &token)).await.unwrap().into_inner();
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let read = client.do_get(signed(ticket, &token)).await.unwrap().into_inner();
        read.try_collect::<Vec<_>>().await.unwrap();
    }
    cases.case("calls after the connection went");
    assert_eq!(place.registrations(), 1, "the executor's connection was never closed");
    cases.case("an executor's connection");
    cases.are(3);
}

/// An upload without an end: it is given up, nothing of it is there, and the server answers others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m15_uploads_and_handshakes_without_an_end_are_given_up() {
    let limits = ConnectionsConfig { message: Duration::from_millis(200), ..ConnectionsConfig::default() };
    let place = Place::start(limits).await;
    let token = place.token(7);
    let mut client = FlightServiceClient::new(channel(&place.server).await);
    let mut cases = Cases::of("M15");
    let endless = |first: Vec<FlightData>| futures::stream::iter(first).chain(futures::stream::pending());
    let batch = RecordBatch::try_from_iter([("n", Arc::new(arrow::array::Int64Array::from(vec![1, 2, 3])) as _)]).unwrap();
    let command = arrow_flight::sql::CommandStatementIngest {
        table_definition_options: Some(arrow_flight::sql::TableDefinitionOptions { if_not_exist: 1, if_exists: 1 }),
        table: "uploaded".to_owned(),
        ..Default::default()
    };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let messages = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(descriptor));
    let messages: Vec<FlightData> = messages.build(futures::stream::iter([Ok(batch)])).try_collect().await.unwrap();
    for (name, first) in [("no first message", vec![]), ("no second batch", messages)] {
        let put = client.do_put(signed(endless(first), &token));
        let put = async {
            match put.await {
                Ok(answers) => answers.into_inner().try_collect::<Vec<_>>().await.map(drop),
                Err(status) => Err(status),
            }
        };
        let status = timer::deadline(PATIENCE, put).await.expect("it is given up").expect_err(name);
        assert_eq!(status.code(), Code::ResourceExhausted, "{name}: {status}");
        assert!(status.message().contains("connections.message"), "{name}: {status}");
        cases.case(name);
    }
    let missing = client.get_flight_info(signed(FlightDescriptor::new_cmd(statement("SELECT * FROM uploaded")), &token)).await;
    assert_eq!(missing.unwrap_err().code(), Code::NotFound, "nothing was published");
    cases.case("what was half uploaded");
    let handshake = client.handshake(signed(futures::stream::pending(), &token)).await.unwrap().into_inner();
    timer::deadline(PATIENCE, handshake.try_collect::<Vec<_>>()).await.expect("an answer without a request").unwrap();
    cases.case("a handshake that never says anything");
    cases.are(4);
}

/// How long a session may be idle in a test.
const IDLE: Duration = Duration::from_secs(1);

async fn cancel(guest: &mut house::Guest, info: arrow_flight::FlightInfo) {
    guest.act("CancelFlightInfo", arrow_flight::CancelFlightInfoRequest { info: Some(info) }.encode_to_vec()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m14_sessions_that_nobody_uses_are_closed_with_what_they_hold() {
    let session = SessionConfig { idle_max: IDLE };
    let house = house::House::open_with(CoordinatorOptions { session, ..CoordinatorOptions::default() }).await;
    let (mut ann, mut bob) = (house.client("ann", Role::Writer).await, house.client("bob", Role::Reader).await);
    let mut cases = Cases::of("M14");
    let opened = ann.act(crate::sql::actions::OPEN_SESSION, vec![]).await.unwrap();
    let name = windrow_core::message::decode::<u64>(&opened[0]).unwrap();
    for guest in [&mut ann, &mut bob] {
        guest.client.set_header(crate::sql::actions::SESSION_HEADER, format!("{name:016x}"));
    }
    ann.update("CREATE TEMPORARY TABLE mine AS SELECT 1 AS n").await.unwrap();
    // A statement that runs for longer than that uses it, and so does a result that is there to be read.
    let endless = "SELECT count(*) FROM generate_series(1, 1000000000000) AS t(x) WHERE x % 7 = 3";
    let mut request = signed(FlightDescriptor::new_cmd(statement(endless)), &ann.bearer());
    request.metadata_mut().insert(crate::sql::actions::SESSION_HEADER, format!("{name:016x}").parse().unwrap());
    let polled = ann.client.inner_mut().poll_flight_info(request).await.unwrap().into_inner();
    timer::sleep(2 * IDLE).await;
    assert_eq!(ann.rows("SELECT * FROM mine").await.unwrap(), 1, "it is in use");
    cases.case("a session whose statement runs is not idle");
    assert_eq!(ann.rows(&format!("SELECT * FROM '{}'", house.data().join("rows.csv").display())).await.unwrap(), 3);
    cancel(&mut ann, polled.info.unwrap()).await;
    timer::sleep(2 * IDLE).await;
    assert_eq!(ann.rows("SELECT * FROM mine").await.unwrap(), 1);
    cases.case("a session whose result is kept is not idle");
    let listing = signed(arrow_flight::Criteria::default(), &ann.bearer());
    let kept = ann.client.inner_mut().list_flights(listing).await;
    let kept: Vec<arrow_flight::FlightInfo> = kept.unwrap().into_inner().try_collect().await.unwrap();
    for info in kept {
        cancel(&mut ann, info).await;
    }
    // A question would be a use: so nobody asks for longer than it may be idle.
    timer::sleep(3 * IDLE).await;
    let error = ann.error("SELECT * FROM mine").await;
    assert_eq!(error.kind, windrow_core::ErrorKind::NotFound);
    assert!(error.message.contains("not used for 1s") && error.context.help.unwrap().contains("session.idle_max"));
    cases.case("an idle session is closed and says so");
    let foreign = bob.error("SELECT 1").await;
    assert!(foreign.message.contains("closed") && !foreign.message.contains("not used"), "{foreign}");
    cases.case("to others it never was");
    cases.are(4);
}
