//! Who is let in, asked of real listeners: every path of every service, with every credential that must not open it.

mod audit;
mod connections;
mod data;
mod house;
mod limits;
mod malformed;
mod tenants;
mod tickets;
mod tls;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use arrow_flight::HandshakeRequest;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use futures::TryStreamExt;
use http::uri::PathAndQuery;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use windrow_auth::{ClusterKey, Logins, Passwords, Principal, Role, Tokens};
use windrow_core::cases::Cases;
use windrow_core::clock::unix_millis;
use windrow_core::config::SecurityConfig;
use windrow_executor::{Executor, timer};

use super::credentials::{executor_pass, executor_sealer, owner_token};
use super::{Access, Dialer};
use crate::control::CONNECT_PATH;
use crate::control::codec::PostcardCodec;
use crate::fetch::{self, Asking, REDEEM_PATH, is_for_clients};
use crate::serve::listen;
use crate::testing::{PATIENCE, eventually, options};
use crate::transport::InProcessTransport;
use crate::{Coordinator, CoordinatorOptions, NetworkExecutorOptions, ServeOptions, Server, run_executor, serve};

const FLIGHT: [&str; 10] = [
    "Handshake",
    "ListFlights",
    "GetFlightInfo",
    "PollFlightInfo",
    "GetSchema",
    "DoGet",
    "DoPut",
    "DoExchange",
    "DoAction",
    "ListActions",
];

/// Every path, and some that are none: what is refused does not depend on what is there.
fn paths() -> Vec<String> {
    let flight = FLIGHT.iter().map(|name| format!("/arrow.flight.protocol.FlightService/{name}"));
    let others = [CONNECT_PATH, REDEEM_PATH, "/grpc.health.v1.Health/Check", "/windrow.Control/Other", "/", "/nothing/Here"];
    flight.chain(others.into_iter().map(str::to_owned)).collect()
}

/// A scheduler's and an executor's listener of one cluster.
struct Listeners {
    key: ClusterKey,
    folder: tempfile::TempDir,
    coordinator: Arc<Coordinator>,
    statements: Server,
    shuffle: Server,
    _executor: Arc<Executor>,
}

impl Listeners {
    async fn start() -> Self {
        let (key, folder) = (ClusterKey::random(), tempfile::tempdir().unwrap());
        let (users_file, tokens_file) = (folder.path().join("users"), folder.path().join("tokens"));
        Passwords::set(&users_file, "ann", Role::Writer, "correct horse").unwrap();
        Tokens::create(&tokens_file, "robot", Role::Reader, None).unwrap();
        let config = SecurityConfig { users_file: Some(users_file), tokens_file: Some(tokens_file), ..SecurityConfig::default() };
        let access = Access::configured(key.clone(), &config).unwrap();
        let bind = "127.0.0.1:0".parse().unwrap();
        let coordinator = Coordinator::start(CoordinatorOptions::default()).unwrap();
        let statements = serve(Arc::clone(&coordinator), ServeOptions { bind, access: access.clone() }).await.unwrap();
        let (reports, _queue) = tokio::sync::mpsc::channel(8);
        let executor = Executor::start(options("secured"), InProcessTransport::new(), reports).unwrap();
        let listener = listen(bind, &access).await.unwrap();
        let dialer = Dialer::with_key(&key);
        let asking = Asking::new(&statements.address().to_string(), dialer, listener.local_addr().unwrap().to_string()).unwrap();
        let shuffle = fetch::serve(listener, "secured", Arc::clone(executor.store()), &access, asking).unwrap();
        Self { key, folder, coordinator, statements, shuffle, _executor: executor }
    }

    fn tokens_file(&self) -> std::path::PathBuf {
        self.folder.path().join("tokens")
    }

    fn login(&self, role: Role) -> String {
        login(&self.key, role)
    }
}

fn login(key: &ClusterKey, role: Role) -> String {
    Logins::new(key).issue(&Principal::client("ann", role), 7, Duration::from_secs(60), unix_millis()).unwrap()
}

fn pass(key: &ClusterKey) -> String {
    executor_pass(&executor_sealer(key), unix_millis()).unwrap()
}

async fn channel(server: &Server) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.address())).unwrap().connect().await.unwrap()
}

/// Calls `path` with these `authorization` headers.
async fn call(channel: &Channel, path: &str, headers: &[Vec<u8>]) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(());
    for header in headers {
        let value = http::HeaderValue::from_bytes(header).unwrap();
        request.metadata_mut().as_mut().append("authorization", value);
    }
    let codec = PostcardCodec::<(), ()>::default();
    grpc.server_streaming(request, PathAndQuery::try_from(path).unwrap(), codec).await.and_then(|answer: Response<_>| {
        // A call that was let in and fails at once says so in the headers.
        match Status::from_header_map(answer.metadata().as_ref()) {
            Some(status) if status.code() != Code::Ok => Err(status),
            _ => Ok(()),
        }
    })
}

fn bearer(token: &str) -> Vec<u8> {
    format!("Bearer {token}").into_bytes()
}

/// Whether a call got past the layer: whatever the service says then is another matter.
fn is_refused(answer: &Result<(), Status>) -> bool {
    answer.as_ref().is_err_and(|status| matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied))
}

/// Credentials that open nothing, anywhere.
fn worthless(listeners: &Listeners) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let other = ClusterKey::random();
    let good = listeners.login(Role::Admin);
    let expired = Logins::new(&listeners.key)
        .issue(&Principal::client("ann", Role::Admin), 7, Duration::from_secs(60), unix_millis() - 61_000)
        .unwrap();
    let old_pass = executor_pass(&executor_sealer(&listeners.key), unix_millis() - 601_000).unwrap();
    let cut = &good[..good.len() - 1];
    vec![
        ("nothing", vec![]),
        ("an empty header", vec![vec![]]),
        ("a scheme alone", vec![b"Bearer".to_vec()]),
        ("an empty token", vec![b"Bearer ".to_vec()]),
        ("no scheme", vec![good.clone().into_bytes()]),
        ("another scheme", vec![format!("Token {good}").into_bytes()]),
        ("garbage", vec![bearer("x.y.z")]),
        ("a cut login", vec![bearer(cut)]),
        ("a longer login", vec![bearer(&format!("{good}A"))]),
        ("an expired login", vec![bearer(&expired)]),
        ("an expired pass", vec![bearer(&old_pass)]),
        ("another cluster's login", vec![bearer(&login(&other, Role::Admin))]),
        ("another cluster's pass", vec![bearer(&pass(&other))]),
        ("another cluster's owner", vec![bearer(&owner_token(&other, Duration::from_secs(60)).unwrap())]),
        ("a token nobody made", vec![bearer("wt1.AAAA.BBBB")]),
        ("a JWT without a key", vec![bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjk5OTk5OTk5OTl9.")]),
        ("a login in the clothes of a pass", vec![bearer(&format!("we1.{}", good.trim_start_matches("ws1.")))]),
        ("two headers", vec![bearer(&good), bearer(&good)]),
        ("an endless token", vec![bearer(&"A".repeat(9000))]),
        ("bytes that are no text", vec![b"Bearer \xff\xfe\xfd".to_vec()]),
        ("a wrong password", vec![format!("Basic {}", BASE64_STANDARD.encode("ann:wrong")).into_bytes()]),
        ("a name without a password", vec![format!("Basic {}", BASE64_STANDARD.encode("ann")).into_bytes()]),
        ("a password that is not base64", vec![b"Basic ann:correct horse".to_vec()]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m4_no_path_opens_without_a_credential_that_holds() {
    let listeners = Listeners::start().await;
    let (mut refused, mut cases) = (0, Cases::of("M4"));
    for (what, _) in worthless(&listeners) {
        cases.case(what);
    }
    for server in [&listeners.statements, &listeners.shuffle] {
        let channel = channel(server).await;
        for path in paths() {
            for (what, headers) in worthless(&listeners) {
                // Wrong passwords are counted, and soon wait: one path is enough for them.
                if what.contains("password") && !path.ends_with("Handshake") {
                    continue;
                }
                let answer = call(&channel, &path, &headers).await;
                let status = answer.expect_err(&format!("{what} opened {path}"));
                assert_eq!(status.code(), Code::Unauthenticated, "{what} at {path}: {status:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 500, "{refused} calls were tried");
    cases.are(23);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m5_clients_and_executors_cannot_do_each_others_calls() {
    let mut cases = Cases::of("M5");
    let listeners = Listeners::start().await;
    let (statements, shuffle) = (channel(&listeners.statements).await, channel(&listeners.shuffle).await);
    for path in paths() {
        for role in [Role::Reader, Role::Writer, Role::Admin] {
            let headers = [bearer(&listeners.login(role))];
            let is_control = path == CONNECT_PATH || path == REDEEM_PATH;
            assert_eq!(is_refused(&call(&statements, &path, &headers).await), is_control, "{role} at {path}");
            let answer = call(&shuffle, &path, &headers).await;
            assert_eq!(is_refused(&answer), !is_for_clients(&path), "{role} at an executor's {path}: {answer:?}");
        }
        let headers = [bearer(&pass(&listeners.key))];
        let answer = timer::deadline(Duration::from_secs(2), call(&statements, &path, &headers)).await;
        // The control stream answers at once and waits for a registration.
        let is_control = path == CONNECT_PATH || path == REDEEM_PATH;
        assert_eq!(answer.as_ref().is_some_and(is_refused), !is_control, "an executor at {path}: {answer:?}");
        assert!(!is_refused(&call(&shuffle, &path, &headers).await), "an executor at an executor's {path}");
        cases.case(path);
    }
    cases.are(16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m4_every_byte_of_a_token_counts() {
    let listeners = Listeners::start().await;
    let channel = channel(&listeners.statements).await;
    let path = "/arrow.flight.protocol.FlightService/ListActions";
    for token in [listeners.login(Role::Reader), pass(&listeners.key)] {
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let answer = call(&channel, path, &[bearer(std::str::from_utf8(&bytes).unwrap())]).await;
            assert_eq!(answer.unwrap_err().code(), Code::Unauthenticated, "byte {at}");
        }
    }
}

async fn handshake(server: &Server, name: &str, password: &str) -> Result<String, Status> {
    handshake_as(server, &BASE64_STANDARD.encode(format!("{name}:{password}"))).await
}

async fn handshake_as(server: &Server, encoded: &str) -> Result<String, Status> {
    let mut client = FlightServiceClient::new(channel(server).await);
    let hello = HandshakeRequest { protocol_version: 0, payload: bytes::Bytes::new() };
    let mut request = Request::new(futures::stream::iter([hello]));
    let basic = format!("Basic {encoded}");
    request.metadata_mut().insert("authorization", basic.parse::<MetadataValue<Ascii>>().unwrap());
    let response = client.handshake(request).await?;
    let header = response.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
    let answers: Vec<_> = response.into_inner().try_collect().await?;
    let payload = String::from_utf8(answers.first().unwrap().payload.to_vec()).unwrap();
    assert_eq!(header, format!("Bearer {payload}"));
    Ok(payload)
}

/// Asks something that needs no executor.
async fn ask(server: &Server, token: &str) -> Result<usize, arrow_flight::error::FlightError> {
    let mut client = FlightSqlServiceClient::new(channel(server).await);
    client.set_token(token.to_owned());
    let info = client.execute("SHOW windrow.query.partitions".to_owned(), None).await?;
    let ticket = info.endpoint.into_iter().next().unwrap().ticket.unwrap();
    let batches: Vec<_> = client.do_get(ticket).await?.try_collect().await?;
    Ok(batches.iter().map(arrow::record_batch::RecordBatch::num_rows).sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m4_a_password_is_exchanged_for_a_token() {
    let listeners = Listeners::start().await;
    let token = handshake(&listeners.statements, "ann", "correct horse").await.unwrap();
    assert_eq!(ask(&listeners.statements, &token).await.unwrap(), 1);
    // Drivers in Go leave the padding out.
    let unpadded = BASE64_STANDARD_NO_PAD.encode("ann:correct horse");
    assert!(!unpadded.ends_with('=') && BASE64_STANDARD.encode("ann:correct horse").ends_with('='));
    handshake_as(&listeners.statements, &unpadded).await.unwrap();
    let wrong = handshake(&listeners.statements, "ann", "wrong horse").await.unwrap_err();
    let unknown = handshake(&listeners.statements, "bob", "correct horse").await.unwrap_err();
    assert_eq!((wrong.code(), wrong.message()), (unknown.code(), unknown.message()), "who exists is not told");
    assert!(handshake(&listeners.shuffle, "ann", "correct horse").await.is_err(), "executors have no users");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m4_fixed_tokens_and_the_owners_open_statements() {
    let listeners = Listeners::start().await;
    let token = Tokens::create(listeners.tokens_file(), "reporter", Role::Reader, None).unwrap();
    // The file is looked at again after a moment.
    let answered = async {
        while ask(&listeners.statements, &token).await.is_err() {
            timer::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(timer::deadline(PATIENCE, answered).await.is_some());
    let owner = owner_token(&listeners.key, Duration::from_secs(60)).unwrap();
    assert_eq!(ask(&listeners.statements, &owner).await.unwrap(), 1);
    let expired = Tokens::create(listeners.tokens_file(), "late", Role::Reader, Some(unix_millis() - 1)).unwrap();
    assert!(ask(&listeners.statements, &expired).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m4_many_wrong_passwords_neither_end_nor_slow_the_server() {
    let listeners = Listeners::start().await;
    let token = listeners.login(Role::Reader);
    let attempts = (0..200).map(|n| {
        let server = &listeners.statements;
        async move { handshake(server, "ann", &format!("guess {n}")).await.unwrap_err().code() }
    });
    let guessing = futures::future::join_all(attempts);
    let asking = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let watch = windrow_core::clock::Stopwatch::start();
            assert_eq!(ask(&listeners.statements, &token).await.unwrap(), 1);
            slowest = slowest.max(watch.elapsed());
        }
        slowest
    };
    let (codes, slowest) = futures::future::join(guessing, asking).await;
    assert!(codes.iter().all(|code| *code == Code::Unauthenticated));
    assert!(slowest < Duration::from_secs(10), "a good client waited {slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m5_a_rogue_executor_cannot_join() {
    let listeners = Listeners::start().await;
    for dialer in [Dialer::open(), Dialer::with_key(&ClusterKey::random())] {
        let rogue = NetworkExecutorOptions {
            scheduler: listeners.statements.address().to_string(),
            bind: "127.0.0.1:0".parse().unwrap(),
            advertise: None,
            client_networks: Vec::new(),
            access: Access::open(),
            dialer,
            executor: options("rogue"),
        };
        let ended = timer::deadline(PATIENCE, run_executor(rogue, std::future::pending(), std::future::pending())).await;
        let error = ended.expect("refused for good, not tried again").unwrap_err();
        assert_eq!(error.kind, windrow_core::ErrorKind::Denied);
        assert!(error.context.help.unwrap().contains("--secret-file"));
    }
    assert!(listeners.coordinator.status().executors.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m5_a_cluster_with_one_secret_answers() {
    let listeners = Listeners::start().await;
    let member = NetworkExecutorOptions {
        scheduler: listeners.statements.address().to_string(),
        bind: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        client_networks: Vec::new(),
        access: Access::with_key(listeners.key.clone()),
        dialer: Dialer::with_key(&listeners.key),
        executor: options("member"),
    };
    let _running = crate::routine::Routine::spawn("member", "executor", async move {
        run_executor(member, std::future::pending(), std::future::pending()).await.unwrap();
    });
    eventually("the member", || listeners.coordinator.status().executors.len() == 1).await;
}

/// Connections that say nothing, or say it too slowly, are closed and take nothing from others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m15_silent_and_slow_connections_end() {
    let listeners = Listeners::start().await;
    let address = listeners.statements.address();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    // An HTTP/2 connection with settings and no call.
    slow.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    silent.push(slow);
    assert_eq!(ask(&listeners.statements, &listeners.login(Role::Reader)).await.unwrap(), 1);
    let closed = async {
        for mut stream in silent {
            let mut buffer = [0_u8; 1024];
            while let Ok(read) = stream.read(&mut buffer).await
                && read > 0
            {}
        }
    };
    assert!(timer::deadline(PATIENCE, closed).await.is_some(), "connections without a call are closed");
}

/// What is no HTTP/2, or breaks its rules, ends its own connection only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m15_malformed_bytes_end_their_connection_only() {
    let listeners = Listeners::start().await;
    let address = listeners.statements.address();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let frame = |length: [u8; 3], kind: u8, flags: u8, body: &[u8]| {
        [preface.as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0], &length, &[kind, flags, 0, 0, 0, 1], body].concat()
    };
    let mut closed_cases = Cases::of("M15");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a web browser", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("a TLS hello", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0]),
        ("zeros", vec![0; 4096]),
        ("an endless frame", frame([0xff, 0xff, 0xff], 0, 0, &[0; 1024])),
        ("headers that do not decode", frame([0, 0, 4], 1, 5, &[0xff, 0xff, 0xff, 0xff])),
        ("a continuation of nothing", frame([0, 0, 4], 9, 4, &[0; 4])),
        ("data of no stream", frame([0, 0, 4], 0, 1, &[0; 4])),
        ("a push from a client", frame([0, 0, 4], 5, 4, &[0; 4])),
    ];
    for (what, bytes) in cases {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(&bytes).await;
        let closed = async {
            let mut buffer = [0_u8; 1024];
            while let Ok(read) = stream.read(&mut buffer).await
                && read > 0
            {}
        };
        assert!(timer::deadline(PATIENCE, closed).await.is_some(), "{what}: closed");
        assert_eq!(ask(&listeners.statements, &listeners.login(Role::Reader)).await.unwrap(), 1, "after {what}");
        closed_cases.case(what);
    }
    closed_cases.are(8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m15_large_headers_are_refused() {
    let listeners = Listeners::start().await;
    let channel = channel(&listeners.statements).await;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = Request::new(());
    request.metadata_mut().insert("authorization", format!("Bearer {}", listeners.login(Role::Reader)).parse().unwrap());
    for n in 0..40 {
        let name = format!("x-filler-{n}");
        request
            .metadata_mut()
            .insert(tonic::metadata::MetadataKey::from_bytes(name.as_bytes()).unwrap(), "y".repeat(1000).parse().unwrap());
    }
    let path = PathAndQuery::from_static("/arrow.flight.protocol.FlightService/ListActions");
    let answer: Result<Response<tonic::Streaming<()>>, Status> =
        grpc.server_streaming(request, path, PostcardCodec::<(), ()>::default()).await;
    assert!(answer.is_err(), "40 kB of headers");
    assert_eq!(ask(&listeners.statements, &listeners.login(Role::Reader)).await.unwrap(), 1);
}
