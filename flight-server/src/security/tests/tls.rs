//! TLS that does not fit, from both sides: certificates, names, versions; and certificates of clients as their logins.

use std::path::{Path, PathBuf};

use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightDescriptor, Ticket};
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use tonic::transport::{ClientTlsConfig, Identity};

use super::super::client_tls;
use super::*;

/// An authority in a folder.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate and its key, in PEM.
    fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// The files of a server's certificate.
    fn server(&self, hosts: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.sign(|params| {
            *params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            change(params);
        });
        let number = windrow_core::rand::unique();
        let files = ["", "-key"].map(|part| self.folder.join(format!("{number:x}{part}.pem")));
        std::fs::write(&files[0], certificate).unwrap();
        windrow_auth::write_private(&files[1], key.as_bytes()).unwrap();
        files.into()
    }

    /// What a client named `name` shows.
    fn client(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let (certificate, key) = self.sign(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.distinguished_name.push(DnType::CommonName, name);
            change(params);
        });
        Identity::from_pem(certificate, key)
    }
}

fn is_over(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
}

fn is_not_yet(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(3000, 1, 1), date_time_ymd(3001, 1, 1));
}

/// A scheduler with the certificate in `files`, users and, if there is one, an authority for clients.
async fn scheduler(folder: &Path, files: &(PathBuf, PathBuf), clients: Option<&Authority>) -> Server {
    let users = folder.join("users");
    Passwords::set(&users, "ann", Role::Reader, "correct horse").unwrap();
    let config = SecurityConfig {
        tls_certificate: Some(files.0.clone()),
        tls_key: Some(files.1.clone()),
        tls_client_ca: clients.map(Authority::ca),
        users_file: Some(users),
        ..SecurityConfig::default()
    };
    config.check().unwrap();
    let access = Access::configured(ClusterKey::random(), &config).unwrap();
    let coordinator = Coordinator::start(CoordinatorOptions::default()).unwrap();
    serve(coordinator, ServeOptions { bind: "127.0.0.1:0".parse().unwrap(), access }).await.unwrap()
}

/// A connection that is encrypted as `tls` says.
async fn connect(server: &Server, host: &str, tls: ClientTlsConfig) -> Result<Channel, String> {
    let url = format!("https://{host}:{}", server.address().port());
    let connecting = async {
        let endpoint = Endpoint::from_shared(url).unwrap().tls_config(tls).map_err(|error| crate::error_chain(&error))?;
        endpoint.connect().await.map_err(|error| crate::error_chain(&error))
    };
    timer::deadline(PATIENCE, connecting).await.expect("an answer in time")
}

fn with_authority(authority: &Authority) -> ClientTlsConfig {
    client_tls(Some(&authority.ca())).unwrap()
}

async fn logs_in(channel: Channel) -> Result<(), Status> {
    let mut client = FlightSqlServiceClient::new(channel);
    client.handshake("ann", "correct horse").await.map(drop).map_err(house::status_of)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m20_a_certificate_that_does_not_hold_is_refused_by_clients() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, others) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "others"));
    let hosts = ["localhost", "127.0.0.1"];
    let good = scheduler(folder.path(), &ours.server(&hosts, |_| {}), None).await;
    logs_in(connect(&good, "localhost", with_authority(&ours)).await.unwrap()).await.unwrap();
    let mut cases = Cases::of("M20");
    let own = ours.server(&hosts, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    for (name, files, host, trusted, says) in [
        ("an expired certificate", ours.server(&hosts, is_over), "localhost", &ours, "expired"),
        ("a certificate of the future", ours.server(&hosts, is_not_yet), "localhost", &ours, "not valid yet"),
        ("a certificate of another host", ours.server(&["db.example.org"], |_| {}), "localhost", &ours, "not valid for"),
        ("a certificate of another address", ours.server(&["127.0.0.2"], |_| {}), "127.0.0.1", &ours, "not valid for"),
        ("a certificate of another authority", ours.server(&hosts, |_| {}), "localhost", &others, "UnknownIssuer"),
        ("a certificate for clients", own, "localhost", &ours, "certificate"),
    ] {
        let server = scheduler(folder.path(), &files, None).await;
        let refused = connect(&server, host, with_authority(trusted)).await.expect_err(name);
        assert!(refused.contains("certificate") && refused.contains(says), "{name}: {refused}");
        cases.case(name);
    }
    cases.are(6);
}

/// The first message of a client that knows nothing newer than `version`, without extensions.
fn client_hello(version: u8) -> Vec<u8> {
    let suites = [0xc0, 0x2f, 0xc0, 0x13, 0x00, 0x2f];
    let body = [&[3, version][..], &[7; 32], &[0], &[0, u8::try_from(suites.len()).unwrap()], &suites, &[1, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    let hello = [&[1, 0, 0, length][..], &body].concat();
    [&[0x16, 3, 1, 0, u8::try_from(hello.len()).unwrap()][..], &hello].concat()
}

/// Sends `bytes` and reads until the connection is closed.
async fn answer(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut read = Vec::new();
    // A reset ends it as well.
    let _ = timer::deadline(PATIENCE, stream.read_to_end(&mut read)).await.expect("it is closed in time");
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m20_old_versions_and_what_is_no_tls_get_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let server = scheduler(folder.path(), &ours.server(&["localhost"], |_| {}), None).await;
    let mut cases = Cases::of("M20");
    let plain = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    for (name, bytes) in [
        ("TLS 1.1 at most", client_hello(2)),
        ("TLS 1.0 at most", client_hello(1)),
        ("SSL 3 at most", client_hello(0)),
        ("HTTP/2 in clear", plain.to_vec()),
        ("HTTP/1.1 in clear", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("a record of 64 KiB", [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 4096]].concat()),
        ("half a ClientHello", client_hello(3)[..20].to_vec()),
    ] {
        let read = answer(&server, &bytes).await;
        // An alert or nothing: no hello of the server's, and no byte of HTTP.
        assert!(read.is_empty() || read.first() == Some(&0x15), "{name}: {read:?}");
        logs_in(connect(&server, "localhost", with_authority(&ours)).await.unwrap()).await.unwrap();
        cases.case(name);
    }
    let clear = Endpoint::from_shared(format!("http://{}", server.address())).unwrap().connect_lazy();
    logs_in(clear).await.unwrap_err();
    cases.case("a client that does not encrypt");
    // And the other way round: a listener in clear takes a ClientHello for no HTTP.
    let open = Listeners::start().await;
    let read = answer(&open.statements, &client_hello(3)).await;
    assert!(read.first() != Some(&0x16), "{read:?}");
    connect(&open.statements, "localhost", with_authority(&ours)).await.unwrap_err();
    cases.case("a client that encrypts, at a listener that does not");
    cases.are(9);
}

fn one_row() -> FlightDescriptor {
    let command = CommandStatementQuery { query: "SELECT 1 AS n".to_owned(), transaction_id: None };
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

/// Whether a client gets the answer to a statement without any header.
async fn is_served(channel: Channel) -> Result<(), Status> {
    let mut client = FlightServiceClient::new(channel);
    let info = client.get_flight_info(one_row()).await?.into_inner();
    let ticket: Ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut rows = client.do_get(ticket).await?.into_inner();
    while rows.try_next().await?.is_some() {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m4_a_certificate_is_the_login_of_the_user_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, people) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "people"));
    let server = scheduler(folder.path(), &ours.server(&["localhost"], |_| {}), Some(&people)).await;
    let tls = || with_authority(&ours);
    let connect = async |tls: ClientTlsConfig| connect(&server, "localhost", tls).await;
    is_served(connect(tls().identity(people.client("ann", |_| {}))).await.unwrap()).await.unwrap();
    // It may change into a login that other connections use, and nobody must show one.
    let with_certificate = connect(tls().identity(people.client("ann", |_| {}))).await.unwrap();
    let handshake =
        FlightServiceClient::new(with_certificate).handshake(futures::stream::iter([HandshakeRequest::default()])).await.unwrap();
    assert!(handshake.metadata().get("authorization").is_some());
    logs_in(connect(tls()).await.unwrap()).await.unwrap();

    let mut cases = Cases::of("M4");
    let is_client = |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for (name, identity) in [
        ("no certificate", None),
        ("a user that is none", Some(people.client("bob", |_| {}))),
        ("an executor's name", Some(people.client("executor", |_| {}))),
        ("the owner's name", Some(people.client("owner", |_| {}))),
        ("a name that cannot be one", Some(people.client("ann smith", |_| {}))),
        (
            "two names",
            Some(people.client("bob", |params| params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "ann"))),
        ),
        ("a certificate of another authority", Some(ours.client("ann", |_| {}))),
        ("an expired certificate", Some(people.client("ann", is_over))),
        ("a certificate of the future", Some(people.client("ann", is_not_yet))),
        ("a server's certificate", Some(people.client("ann", is_client))),
    ] {
        let tls = identity.into_iter().fold(tls(), ClientTlsConfig::identity);
        // With TLS 1.3 a client learns with its first call that its certificate was refused.
        let refused = match connect(tls).await {
            Ok(channel) => is_served(channel).await.expect_err(name).code(),
            Err(_at_once) => Code::Unavailable,
        };
        assert!(
            matches!(refused, Code::Unauthenticated | Code::Unavailable | Code::Unknown | Code::Cancelled),
            "{name}: {refused:?}"
        );
        cases.case(name);
    }
    // Who brings another credential is asked for that one.
    let certified = connect(tls().identity(people.client("ann", |_| {}))).await.unwrap();
    let wrong = call(&certified, "/arrow.flight.protocol.FlightService/ListFlights", &[bearer("wt1.x.y")]).await;
    assert_eq!(wrong.unwrap_err().code(), Code::Unauthenticated);
    cases.case("a wrong token beside a good certificate");
    let join = call(&certified, CONNECT_PATH, &[]).await;
    assert_eq!(join.unwrap_err().code(), Code::PermissionDenied);
    cases.case("a client's certificate where executors join");
    Passwords::remove(folder.path().join("users"), "ann").unwrap();
    let channel = connect(tls().identity(people.client("ann", |_| {}))).await.unwrap();
    let refused = async {
        while is_served(channel.clone()).await.is_ok() {
            timer::sleep(Duration::from_millis(20)).await;
        }
    };
    timer::deadline(PATIENCE, refused).await.expect("a removed user is refused");
    cases.case("a user that was removed");
    cases.are(13);
}
