//! Tickets and names of results: whoever changes one, or has somebody else's, gets nothing and learns nothing.

use arrow_flight::sql::{Any, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{CancelFlightInfoRequest, FlightDescriptor, FlightEndpoint, RenewFlightEndpointRequest, Ticket};
use prost::Message;
use windrow_auth::Sealer;
use windrow_core::cases::Cases;
use windrow_core::config::ResultsConfig;

use super::house::{Guest, House, status_of};
use super::*;

/// The sealed part of a ticket.
fn sealed(ticket: &Ticket) -> Vec<u8> {
    let any = Any::decode(ticket.ticket.clone()).unwrap();
    any.unpack::<TicketStatementQuery>().unwrap().unwrap().statement_handle.to_vec()
}

fn ticket_of(sealed: Vec<u8>) -> Ticket {
    Ticket::new(TicketStatementQuery { statement_handle: sealed.into() }.as_any().encode_to_vec())
}

async fn refused(guest: &mut Guest, ticket: Ticket, what: &str) -> Status {
    match guest.client.do_get(ticket).await {
        Ok(_rows) => panic!("{what}: it opened"),
        Err(error) => status_of(error),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m6_only_the_ticket_that_was_made_opens_a_result_and_all_others_get_one_answer() {
    let house = House::open().await;
    let (mut ann, mut bob) = (house.client("ann", Role::Writer).await, house.client("bob", Role::Writer).await);
    let sql = format!("SELECT a FROM '{}'", house.data().join("rows.csv").display());
    let info = ann.info(&sql).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let good = sealed(&ticket);
    let mut cases = Cases::of("M6");
    let none = refused(&mut ann, ticket_of(b"WRT1 nothing".to_vec()), "nothing").await;
    assert_eq!(none.code(), Code::NotFound);
    let alike = |status: &Status, what: &str| {
        assert_eq!((status.code(), status.message()), (none.code(), none.message()), "{what}");
    };

    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        alike(&refused(&mut ann, ticket_of(flipped), "flipped").await, &format!("byte {at}"));
    }
    cases.case("each byte flipped");
    for length in 0..good.len() {
        alike(&refused(&mut ann, ticket_of(good[..length].to_vec()), "cut").await, &format!("cut at {length}"));
    }
    cases.case("cut at each byte");
    let other = Sealer::new(&ClusterKey::random(), "result tickets");
    let forged =
        |sealer: &Sealer, value: (u64, u64, u32, u32)| [b"WRT1".to_vec(), sealer.seal(&value, u64::MAX).unwrap()].concat();
    let own = Sealer::new(&house.key, "result tickets");
    let passes = Sealer::new(&house.key, "executor");
    let handle = Sealer::new(&house.key, "prepared statement").seal(&("SELECT 1", None::<Vec<u8>>), u64::MAX).unwrap();
    for (what, bytes) in [
        ("made with another key", forged(&other, (0, 1, 0, 1))),
        ("made with the cluster's key for another purpose", forged(&passes, (0, 1, 0, 1))),
        ("of a server before this one", forged(&own, (1, 1, 0, 1))),
        ("of a job that never was", forged(&own, (u64::MAX, u64::MAX, 0, u32::MAX))),
        ("whose partitions overflow", forged(&own, (0, 1, u32::MAX, u32::MAX))),
        ("with something behind it", [good.clone(), vec![0]].concat()),
        ("twice", [good.clone(), good.clone()].concat()),
        ("of a megabyte", vec![b'W'; 1 << 20]),
        ("of a megabyte that begins right", [b"WRT1".to_vec(), vec![0; 1 << 20]].concat()),
        ("that is the name of its job", info.app_metadata.to_vec()),
        ("that is a prepared statement", handle),
        ("that is a login", house.token("ann", Role::Admin).into_bytes()),
        ("that is a path", b"/etc/passwd".to_vec()),
        ("that is an address", b"grpc://127.0.0.1:1".to_vec()),
        ("that is empty", Vec::new()),
    ] {
        alike(&refused(&mut ann, ticket_of(bytes), what).await, what);
        cases.case(what);
    }
    alike(&refused(&mut bob, ticket.clone(), "somebody else's").await, "somebody else's");
    cases.case("somebody else's");
    let mut root = house.client("root", Role::Admin).await;
    alike(&refused(&mut root, ticket.clone(), "an administrator's").await, "an administrator's");
    cases.case("somebody else's, for an administrator");
    // The right one opens it, also from another connection of hers, after all of that.
    let mut again = house.client("ann", Role::Reader).await;
    assert_eq!(again.read(info.clone()).await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 3);

    for (what, bytes) in [
        ("a name with a flipped byte", info.app_metadata.iter().rev().map(|byte| byte ^ 1).collect::<Vec<u8>>()),
        ("a ticket in place of a name", good.clone()),
        ("an empty name", Vec::new()),
    ] {
        let mut foreign = info.clone();
        foreign.app_metadata = bytes.into();
        let body = CancelFlightInfoRequest::new(foreign).encode_to_vec();
        alike(&ann.act("CancelFlightInfo", body).await.unwrap_err(), what);
        cases.case(what);
    }
    ann.act("CancelFlightInfo", CancelFlightInfoRequest::new(info).encode_to_vec()).await.unwrap();
    let gone = refused(&mut ann, ticket.clone(), "after the end").await;
    assert!(matches!(gone.code(), Code::NotFound | Code::Cancelled) && gone.message().contains("cancelled"), "{gone:?}");
    cases.case("after it was cancelled");
    alike(&refused(&mut bob, ticket, "somebody else's, after the end").await, "somebody else's, after the end");
    cases.case("somebody else's, after it was cancelled");
    house.still_answers("forged tickets").await;
    cases.are(24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m6_a_ticket_is_worth_nothing_after_its_time() {
    let results = ResultsConfig { ttl: Duration::from_millis(300), ..ResultsConfig::default() };
    let house = House::open_with(CoordinatorOptions { results, ..CoordinatorOptions::default() }).await;
    let mut cases = Cases::of("M6");
    let (mut ann, mut bob) = (house.client("ann", Role::Writer).await, house.client("bob", Role::Writer).await);
    let sql = format!("SELECT a FROM '{}'", house.data().join("rows.csv").display());
    let info = ann.info(&sql).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    crate::testing::eventually("it expires", || house.coordinator.held() == 0).await;
    let late = async {
        loop {
            let status = refused(&mut ann, ticket.clone(), "expired").await;
            if status.message().contains("expired") {
                return status;
            }
        }
    };
    assert_eq!(timer::deadline(PATIENCE, late).await.unwrap().code(), Code::NotFound);
    cases.case("an expired one");
    assert!(!refused(&mut bob, ticket.clone(), "expired").await.message().contains("expired"));
    cases.case("somebody else's that is expired");
    let endpoint = FlightEndpoint::new().with_ticket(ticket);
    let renewed = ann.act("RenewFlightEndpoint", RenewFlightEndpointRequest::new(endpoint).encode_to_vec()).await;
    assert_eq!(renewed.unwrap_err().code(), Code::NotFound);
    cases.case("an expired one, to be renewed");
    let mut polled = Request::new(FlightDescriptor::new_cmd(info.app_metadata));
    polled.metadata_mut().insert("authorization", ann.bearer());
    assert_eq!(ann.client.inner_mut().poll_flight_info(polled).await.unwrap_err().code(), Code::NotFound);
    cases.case("an expired one, to be polled");
    cases.are(4);
}

/// Where the server connects to comes from its settings, and from nobody who calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m9_an_address_that_a_client_names_is_never_connected_to() {
    let house = House::open().await;
    let canary = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = canary.local_addr().unwrap();
    let mut root = house.client("root", Role::Admin).await;
    let mut cases = Cases::of("M9");
    let own = root.info("SELECT 1").await.unwrap();
    let mut elsewhere = own.clone();
    let place = format!("grpc://{address}");
    for endpoint in &mut elsewhere.endpoint {
        *endpoint = endpoint.clone().with_location(place.as_str());
    }
    let renew = RenewFlightEndpointRequest::new(elsewhere.endpoint[0].clone()).encode_to_vec();
    let renewed = root.act("RenewFlightEndpoint", renew).await.unwrap();
    assert!(!String::from_utf8_lossy(&renewed[0]).contains(&address.to_string()), "a location is the server's to say");
    cases.case("the location of an endpoint that is renewed");
    refused(&mut root, ticket_of(place.clone().into_bytes()), "an address").await;
    cases.case("a ticket that is an address");
    refused(&mut root, Ticket::new(place.clone()), "an address").await;
    cases.case("a bare ticket that is an address");
    let mut path = Request::new(FlightDescriptor::new_path(vec![place.clone()]));
    path.metadata_mut().insert("authorization", root.bearer());
    root.client.inner_mut().get_flight_info(path).await.unwrap_err();
    cases.case("a path that is an address");
    for (what, sql) in [
        ("a file over http", format!("SELECT * FROM 'http://{address}/x.csv'")),
        ("a table over http", format!("CREATE EXTERNAL TABLE c STORED AS CSV LOCATION 'http://{address}/x.csv'")),
        ("a copy over http", format!("COPY (SELECT 1) TO 'http://{address}/x.csv'")),
        (
            "the endpoint of a store",
            format!(
                "CREATE EXTERNAL TABLE c STORED AS CSV LOCATION 's3://bucket/x.csv' \
                 OPTIONS ('aws.endpoint' 'http://{address}', 'aws.allow_http' 'true', 'aws.region' 'x')"
            ),
        ),
        ("a file of a host", format!("SELECT * FROM 'file://{address}/etc/passwd'")),
        ("the metadata of a cloud", "SELECT * FROM 'http://169.254.169.254/latest/meta-data/x.csv'".to_owned()),
    ] {
        let error = root.error(&sql).await;
        assert_eq!(error.kind, windrow_core::ErrorKind::Denied, "{what}: {error}");
        cases.case(what);
    }
    root.act("CancelFlightInfo", CancelFlightInfoRequest::new(elsewhere).encode_to_vec()).await.unwrap();
    cases.case("the location of an endpoint that is cancelled");
    house.still_answers("addresses").await;
    assert!(timer::deadline(Duration::from_millis(300), canary.accept()).await.is_none(), "somebody connected");
    cases.are(11);
}
