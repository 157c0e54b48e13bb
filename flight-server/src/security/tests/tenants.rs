//! What is one client's is nobody else's: sessions, settings, temporary tables, prepared statements, jobs and results.

use arrow_flight::sql::{ActionCancelQueryRequest, CommandPreparedStatementQuery, ProstMessageExt};
use arrow_flight::{CancelFlightInfoRequest, Criteria, FlightDescriptor, RenewFlightEndpointRequest};
use prost::Message;
use windrow_core::cases::Cases;
use windrow_core::message::{decode, encode};

use super::house::{Guest, House, status_of};
use super::*;
use crate::sql::actions;
use crate::status::ClusterStatus;

const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 100000000000) AS t(x) WHERE x % 7 = 3 AND 'planted-literal' <> ''";

async fn prepared(guest: &mut Guest, sql: &str) -> Vec<u8> {
    let request = arrow_flight::sql::ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
    let answer = guest.act("CreatePreparedStatement", request.as_any().encode_to_vec()).await.unwrap().remove(0);
    let any = arrow_flight::sql::Any::decode(answer).unwrap();
    arrow_flight::sql::ActionCreatePreparedStatementResult::decode(any.value).unwrap().prepared_statement_handle.to_vec()
}

async fn run_prepared(guest: &mut Guest, handle: Vec<u8>) -> Result<(), Status> {
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle.into() };
    let mut request = Request::new(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()));
    request.metadata_mut().insert("authorization", guest.bearer());
    guest.client.inner_mut().get_flight_info(request).await.map(drop)
}

async fn jobs(guest: &mut Guest) -> ClusterStatus {
    decode(&guest.act(actions::STATUS, "").await.unwrap()[0]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m7_results_jobs_and_cancelling_are_their_owners() {
    let house = House::open().await;
    let (mut ann, mut bob) = (house.client("ann", Role::Reader).await, house.client("bob", Role::Writer).await);
    let mut cases = Cases::of("M7");
    let info = ann.info("SELECT 1 AS mine").await.unwrap();
    let unknown = bob.act(actions::CANCEL, b"WRJ1 nothing".to_vec()).await.unwrap_err();
    let alike = |status: Status, what: &str| {
        assert_eq!((status.code(), status.message()), (unknown.code(), unknown.message()), "{what}");
    };
    let error = bob.client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.map(drop).map_err(status_of).unwrap_err();
    alike(error, "fetching");
    cases.case("fetching");
    let cancel = CancelFlightInfoRequest::new(info.clone()).encode_to_vec();
    alike(bob.act("CancelFlightInfo", cancel).await.unwrap_err(), "cancelling");
    cases.case("CancelFlightInfo");
    let query = ActionCancelQueryRequest { info: info.encode_to_vec().into() }.as_any().encode_to_vec();
    alike(bob.act("CancelQuery", query).await.unwrap_err(), "CancelQuery");
    cases.case("CancelQuery");
    alike(bob.act(actions::CANCEL, info.app_metadata.clone()).await.unwrap_err(), "windrow.cancel");
    cases.case("windrow.cancel");
    alike(bob.act(actions::PROGRESS, info.app_metadata.clone()).await.unwrap_err(), "windrow.progress");
    cases.case("windrow.progress");
    let renew = RenewFlightEndpointRequest::new(info.endpoint[0].clone()).encode_to_vec();
    alike(bob.act("RenewFlightEndpoint", renew).await.unwrap_err(), "renewing");
    cases.case("RenewFlightEndpoint");
    let mut polled = Request::new(FlightDescriptor::new_cmd(info.app_metadata.clone()));
    polled.metadata_mut().insert("authorization", bob.bearer());
    alike(bob.client.inner_mut().poll_flight_info(polled).await.unwrap_err(), "polling");
    cases.case("PollFlightInfo");
    for (guest, count) in [(&mut ann, 1), (&mut bob, 0)] {
        let mut list = Request::new(Criteria::default());
        list.metadata_mut().insert("authorization", guest.bearer());
        let flights: Vec<_> =
            guest.client.inner_mut().list_flights(list).await.unwrap().into_inner().try_collect().await.unwrap();
        assert_eq!(flights.len(), count);
    }
    cases.case("ListFlights");

    // A job that runs.
    let mut reading = house.client("ann", Role::Reader).await;
    let running = tokio::spawn(async move { reading.info(ENDLESS).await });
    let runs = |status: &ClusterStatus| status.jobs.iter().find(|job| job.sql.contains("planted-literal")).map(|job| job.id);
    crate::testing::eventually("it runs", || runs(&house.coordinator.status()).is_some()).await;
    let job = runs(&jobs(&mut ann).await).expect("she sees it");
    let seen = jobs(&mut bob).await;
    assert!(seen.jobs.is_empty() && !format!("{seen:?}").contains("planted-literal"), "{seen:?}");
    cases.case("windrow.status");
    let body = |id: u64| encode(&id).unwrap();
    let (foreign, missing) = (
        bob.act(actions::CANCEL_JOB, body(job.0)).await.unwrap_err(),
        bob.act(actions::CANCEL_JOB, body(job.0 + 1000)).await.unwrap_err(),
    );
    assert_eq!((foreign.code(), foreign.message()), (missing.code(), missing.message()));
    cases.case("windrow.cancel_job");
    for (what, sql) in [
        ("system.queries", "SELECT * FROM system.queries"),
        ("information_schema", "SELECT * FROM information_schema.tables WHERE table_name LIKE '%planted%'"),
        ("SHOW ALL", "SHOW ALL"),
    ] {
        let info = bob.info(sql).await.unwrap();
        let shown = format!("{:?}", bob.read(info).await.unwrap());
        assert!(!shown.contains("planted-literal"), "{what}: {shown}");
        cases.case(what);
    }
    assert!(!running.is_finished(), "hers runs on");
    ann.act(actions::CANCEL_JOB, body(job.0)).await.unwrap();
    assert_eq!(timer::deadline(PATIENCE, running).await.unwrap().unwrap().unwrap_err().code(), Code::Cancelled);
    house.still_answers("what is others'").await;
    cases.are(13);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m7_sessions_settings_and_temporary_tables_are_their_owners() {
    let house = House::open().await;
    let (mut ann, mut bob) = (house.client("ann", Role::Reader).await, house.client("bob", Role::Admin).await);
    let mut cases = Cases::of("M7");
    let name: u64 = decode(&ann.act(actions::OPEN_SESSION, "").await.unwrap()[0]).unwrap();
    ann.client.set_header(actions::SESSION_HEADER, format!("{name:x}"));
    ann.rows("SET windrow.query.partitions = 7").await.unwrap();
    ann.rows("CREATE TEMPORARY TABLE mine AS SELECT 41 AS planted").await.unwrap();
    assert_eq!(ann.rows("SELECT planted FROM mine").await.unwrap(), 1);
    assert_eq!(bob.error("SELECT planted FROM mine").await.kind, windrow_core::ErrorKind::NotFound);
    cases.case("a temporary table");
    assert_eq!(bob.error("SELECT planted FROM temp.mine").await.kind, windrow_core::ErrorKind::NotFound);
    cases.case("a temporary table by its schema");
    let info = bob.info("SHOW windrow.query.partitions").await.unwrap();
    assert!(!format!("{:?}", bob.read(info).await.unwrap()).contains("\"7\""));
    cases.case("a setting");
    for (what, session) in [
        ("her session by its name", name),
        ("a session next to hers", name + 1),
        ("session 0", 0),
        ("session 1", 1),
        ("the last session", u64::MAX),
    ] {
        let mut thief = house.client("bob", Role::Admin).await;
        thief.client.set_header(actions::SESSION_HEADER, format!("{session:x}"));
        let error = thief.error("SELECT planted FROM mine").await;
        assert_eq!(
            (error.kind, error.message.as_str()),
            (windrow_core::ErrorKind::NotFound, "this session is closed; connect again")
        );
        cases.case(what);
    }
    let mut thief = house.client("bob", Role::Admin).await;
    thief.client.set_header("cookie", format!("arrow_flight_session_id={name:x}"));
    assert_eq!(thief.error("SELECT planted FROM mine").await.kind, windrow_core::ErrorKind::NotFound);
    cases.case("her session by a cookie");
    thief.client.set_header("cookie", "arrow_flight_session_id=../../etc/passwd");
    assert_eq!(thief.error("SELECT 1").await.kind, windrow_core::ErrorKind::InvalidQuery);
    cases.case("a cookie that is no number");
    assert_eq!(ann.rows("SELECT planted FROM mine").await.unwrap(), 1, "hers is as it was");

    let handle = prepared(&mut ann, "SELECT 'planted-literal'").await;
    assert!(!handle.windows(7).any(|part| part == b"planted"), "nothing can be read in a handle");
    cases.case("what a handle holds");
    for at in (0..handle.len()).step_by(3) {
        let mut flipped = handle.clone();
        flipped[at] ^= 0x10;
        assert_eq!(run_prepared(&mut bob, flipped).await.unwrap_err().code(), Code::NotFound, "byte {at}");
    }
    cases.case("a handle with a flipped byte");
    for (what, bytes) in [
        ("a handle that is cut", handle[..handle.len() - 1].to_vec()),
        ("an empty handle", Vec::new()),
        ("a handle that is a statement", b"SELECT 1".to_vec()),
        ("a handle of a megabyte", vec![7; 1 << 20]),
    ] {
        assert_eq!(run_prepared(&mut bob, bytes).await.unwrap_err().code(), Code::NotFound, "{what}");
        cases.case(what);
    }
    house.still_answers("others' sessions").await;
    cases.are(16);
}
