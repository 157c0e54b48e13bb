//! What the audit log says of each call, and what it never says.

use arrow_flight::Ticket;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use prost::Message;
use windrow_core::cases::Cases;
use windrow_core::message::encode;

use super::house::{House, OPTION, PASSWORD};
use super::*;
use crate::sql::actions;

/// One action of the script, and what its line must say.
struct Expected {
    name: &'static str,
    who: Option<&'static str>,
    what: &'static str,
    outcome: &'static str,
    rows: Option<u64>,
}

fn expect(
    name: &'static str,
    who: Option<&'static str>,
    what: &'static str,
    outcome: &'static str,
    rows: Option<u64>,
) -> Expected {
    Expected { name, who, what, outcome, rows }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m24_each_action_of_a_script_has_one_line() {
    let house = House::open().await;
    let channel = channel(&house.server).await;
    let (mut ann, mut bob) = (house.client("ann", Role::Reader).await, house.client("bob", Role::Writer).await);
    let table = format!("'{}'", house.data().join("rows.csv").display());
    let mut expected = Vec::new();
    let mut has_line = async |case: Expected| {
        expected.push(case);
        let text = house.log(expected.len()).await;
        assert_eq!(text.lines().count(), expected.len(), "{}: one line, not more:\n{text}", expected.last().unwrap().name);
    };

    handshake(&house.server, "ann", PASSWORD).await.unwrap();
    has_line(expect("a login", Some("ann"), "login", "done", None)).await;
    handshake(&house.server, "ann", "wrong").await.unwrap_err();
    has_line(expect("a wrong password", None, "login", "refused", None)).await;
    handshake(&house.server, "nobody", PASSWORD).await.unwrap_err();
    has_line(expect("an unknown name", None, "login", "refused", None)).await;
    call(&channel, "/arrow.flight.protocol.FlightService/GetFlightInfo", &[]).await.unwrap_err();
    has_line(expect("a call without a credential", None, "call", "refused", None)).await;
    call(&channel, CONNECT_PATH, &[bearer(&house.token("ann", Role::Reader))]).await.unwrap_err();
    has_line(expect("a client that wants to be an executor", Some("ann"), "join", "refused", None)).await;
    call(&channel, "/nothing/Here", &[bearer(&house.token("ann", Role::Reader))]).await.unwrap_err();
    has_line(expect("a call of nothing", Some("ann"), "call", "failed", None)).await;

    let info = ann.info(&format!("SELECT a FROM {table} ORDER BY a")).await.unwrap();
    has_line(expect("a query", Some("ann"), "statement", "done", None)).await;
    let endpoints = info.endpoint.len();
    assert_eq!(endpoints, 1);
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    assert_eq!(ann.read(info).await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    has_line(expect("its rows", Some("ann"), "fetch", "done", Some(3))).await;
    let foreign = bob.client.do_get(ticket).await.map(drop);
    assert!(foreign.is_err());
    has_line(expect("somebody else's rows", Some("bob"), "fetch", "failed", None)).await;
    let direct = CommandStatementQuery { query: format!("SELECT b FROM {table}"), transaction_id: None };
    let rows: Vec<RecordBatch> =
        ann.client.do_get(Ticket::new(direct.as_any().encode_to_vec())).await.unwrap().try_collect().await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    has_line(expect("a query read as it comes", Some("ann"), "statement", "done", Some(3))).await;

    ann.info("SELECT nothing FROM nowhere").await.unwrap_err();
    has_line(expect("a query that is wrong", Some("ann"), "statement", "failed", None)).await;
    ann.info("SELECT * FROM '/etc/passwd'").await.unwrap_err();
    has_line(expect("a file outside", Some("ann"), "statement", "refused", None)).await;
    ann.update("CREATE SCHEMA s").await.unwrap_err();
    has_line(expect("a change by a reader", Some("ann"), "statement", "refused", None)).await;
    bob.update("CREATE SCHEMA s").await.unwrap();
    has_line(expect("a change by a writer", Some("bob"), "statement", "done", Some(0))).await;
    let secret =
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://bucket/' OPTIONS ('aws.secret_access_key' '{OPTION}')");
    bob.update(&secret).await.unwrap_err();
    has_line(expect("a statement with a secret", Some("bob"), "statement", "refused", None)).await;
    ann.client.prepare(format!("SELECT b FROM {table} WHERE a = ?"), None).await.unwrap();
    has_line(expect("a statement that is prepared", Some("ann"), "prepare", "done", None)).await;
    ann.client.get_catalogs().await.unwrap();
    has_line(expect("metadata", Some("ann"), "metadata", "done", None)).await;
    ann.act(actions::STATUS, "").await.unwrap();
    has_line(expect("the cluster's state", Some("ann"), "status", "done", None)).await;
    ann.act(actions::CANCEL_JOB, encode(&77_777_u64).unwrap()).await.unwrap_err();
    has_line(expect("a cancellation of nothing", Some("ann"), "cancel", "failed", None)).await;
    ann.act(actions::DRAIN, b"house".to_vec()).await.unwrap_err();
    has_line(expect("a reader who drains", Some("ann"), "drain", "refused", None)).await;
    ann.act("no.such.action", "").await.unwrap_err();
    has_line(expect("an unknown action", Some("ann"), "action", "failed", None)).await;
    ann.act("CloseSession", "").await.unwrap();
    has_line(expect("the end of a session", Some("ann"), "session", "done", None)).await;

    let mut cases = Cases::of("M24");
    for (line, case) in house.lines().await.iter().zip(&expected) {
        let name = case.name;
        let field = |field: &str| line[field].as_str();
        assert_eq!(
            (field("who"), field("what"), field("outcome"), line["rows"].as_u64()),
            (case.who, Some(case.what), Some(case.outcome), case.rows),
            "{name}: {line}"
        );
        assert_eq!(line["error"].is_null(), case.outcome == "done", "{name}: {line}");
        assert!(line["address"].as_str().unwrap().starts_with("127.0.0.1:") && line["at"].as_u64().unwrap() > 1_600_000_000_000);
        cases.case(name);
    }
    let text = house.log(expected.len()).await;
    for planted in [PASSWORD, OPTION, "Bearer", "wrong", &house.token("ann", Role::Reader)[..8]] {
        assert!(!text.contains(planted), "'{planted}' is in the log:\n{text}");
    }
    assert!(text.contains("\"claims\":\"nobody\"") && text.contains("SELECT nothing FROM nowhere"), "{text}");
    house.still_answers("the script").await;
    cases.are(22);
}

/// A client that leaves has a line too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m24_a_call_whose_client_left_has_a_line() {
    let house = House::open().await;
    let mut ann = house.client("ann", Role::Reader).await;
    let endless = "SELECT count(*) FROM generate_series(1, 100000000000) AS t(x) WHERE x % 7 = 3";
    assert!(timer::deadline(Duration::from_millis(300), ann.info(endless)).await.is_none());
    drop(ann);
    let text = house.log(1).await;
    assert!(text.contains("\"outcome\":\"abandoned\"") && text.contains("generate_series"), "{text}");
}
