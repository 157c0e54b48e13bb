//! Sessions and their options, as drivers set them.

use std::collections::BTreeMap;

use arrow_flight::CancelFlightInfoRequest;

use super::*;
use crate::sql::session_proto::{
    CloseSessionResult, ErrorValue, GetSessionOptionsResult, OptionValue, SessionOptionValue, SetSessionOptionsRequest,
    SetSessionOptionsResult, StringListValue,
};

fn options(pairs: Vec<(&str, Option<OptionValue>)>) -> Vec<u8> {
    let pairs = pairs.into_iter().map(|(name, option_value)| (name.to_owned(), SessionOptionValue { option_value }));
    SetSessionOptionsRequest { session_options: pairs.collect() }.encode_to_vec()
}

fn text(value: &str) -> Option<OptionValue> {
    Some(OptionValue::String(value.to_owned()))
}

async fn set(
    client: &mut FlightSqlServiceClient<Channel>,
    pairs: Vec<(&str, Option<OptionValue>)>,
) -> BTreeMap<String, ErrorValue> {
    let answer = act_of(client, "SetSessionOptions", options(pairs)).await.unwrap();
    let errors = SetSessionOptionsResult::decode(answer).unwrap().errors;
    errors.into_iter().map(|(name, error)| (name, ErrorValue::try_from(error.value).unwrap())).collect()
}

async fn get(client: &mut FlightSqlServiceClient<Channel>, name: &str) -> Option<OptionValue> {
    let answer = act_of(client, "GetSessionOptions", vec![]).await.unwrap();
    GetSessionOptionsResult::decode(answer).unwrap().session_options.remove(name).and_then(|value| value.option_value)
}

#[tokio::test(flavor = "multi_thread")]
async fn options_are_set_erased_and_refused_one_by_one() {
    let cluster = Cluster::start(1, 2).await;
    let mut client = cluster.client().await;
    assert_eq!(get(&mut client, "catalog").await, text("windrow"));
    assert_eq!(get(&mut client, "schema").await, text("public"));
    let before = get(&mut client, "windrow.query.partitions").await;
    client.execute_update("CREATE SCHEMA mine".to_owned(), None).await.unwrap();
    client.execute_update("CREATE VIEW mine.v AS SELECT 5 AS n".to_owned(), None).await.unwrap();
    let errors = set(
        &mut client,
        vec![
            ("schema", text("mine")),
            ("windrow.query.partitions", Some(OptionValue::Int64(7))),
            ("windrow.query.runtime_filters", Some(OptionValue::Bool(false))),
            ("no.such.option", text("x")),
            ("windrow.query.small_input", text("many")),
            ("windrow.query.directory", Some(OptionValue::StringList(StringListValue { values: vec!["a".into()] }))),
            ("catalog", text("nowhere")),
        ],
    )
    .await;
    let wanted = [
        ("catalog", ErrorValue::InvalidValue),
        ("no.such.option", ErrorValue::InvalidName),
        ("windrow.query.directory", ErrorValue::InvalidValue),
        ("windrow.query.small_input", ErrorValue::InvalidValue),
    ];
    assert_eq!(errors, wanted.map(|(name, why)| (name.to_owned(), why)).into_iter().collect());
    assert_eq!(get(&mut client, "windrow.query.partitions").await, text("7"));
    assert_eq!(get(&mut client, "windrow.query.runtime_filters").await, text("false"));
    assert_eq!(get(&mut client, "schema").await, text("mine"));
    assert_eq!(integers(&query(&mut client, "SELECT n FROM v").await, 0), [5], "names are looked for in the schema");
    assert!(set(&mut client, vec![("windrow.query.partitions", None), ("schema", None)]).await.is_empty());
    assert_ne!(get(&mut client, "windrow.query.partitions").await, text("7"));
    assert_eq!(get(&mut client, "schema").await, text("public"));
    assert!(before.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_connection_has_a_session_and_a_cookie_shares_it() {
    let cluster = Cluster::start(1, 2).await;
    let mut own = cluster.client().await;
    own.execute_update("SET windrow.query.directory = '/own'".to_owned(), None).await.unwrap();
    assert!(format!("{:?}", query(&mut own, "SHOW windrow.query.directory").await).contains("/own"));
    let mut other = cluster.client().await;
    assert_eq!(get(&mut other, "windrow.query.directory").await, text(""));

    let action = Action { r#type: "SetSessionOptions".to_owned(), body: options(vec![]).into() };
    let response = own.inner_mut().do_action(action).await.unwrap();
    let cookie = response.metadata().get("set-cookie").unwrap().to_str().unwrap().to_owned();
    assert!(cookie.starts_with("arrow_flight_session_id="), "{cookie}");
    other.set_header("cookie", cookie);
    drop(own);
    assert!(format!("{:?}", query(&mut other, "SHOW windrow.query.directory").await).contains("/own"));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_a_session_forgets_it() {
    let cluster = Cluster::start(1, 2).await;
    let mut client = cluster.client().await;
    client.execute_update("SET windrow.query.directory = '/own'".to_owned(), None).await.unwrap();
    for _again in 0..2 {
        let answer = act_of(&mut client, "CloseSession", vec![]).await.unwrap();
        assert_eq!(CloseSessionResult::decode(answer).unwrap().status, 1);
        assert_eq!(get(&mut client, "windrow.query.directory").await, text(""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flight_info_that_comes_back_bare_is_cancelled() {
    let table = Table::new(4, 4_000, 10);
    let cluster = Cluster::start(2, 4).await;
    let mut client = cluster.client().await;
    let command = arrow_flight::sql::CommandStatementQuery { query: endless(&table), transaction_id: None };
    let descriptor = arrow_flight::FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let polled = client.inner_mut().poll_flight_info(descriptor).await.unwrap().into_inner();
    let info = polled.info.unwrap();
    eventually("it runs", || cluster.used() > 0).await;
    let body = CancelFlightInfoRequest { info: Some(info) }.encode_to_vec();
    let answer = act_of(&mut client, "CancelFlightInfo", body.clone()).await.unwrap();
    assert_eq!(arrow_flight::CancelFlightInfoResult::decode(answer).unwrap().status, 1);
    eventually("cancelling frees the slots", || cluster.used() == 0).await;
    assert!(act_of(&mut client, "CancelFlightInfo", body).await.is_ok(), "twice is once");
    let bare = CancelFlightInfoRequest { info: Some(arrow_flight::FlightInfo::new()) }.encode_to_vec();
    assert_eq!(act_of(&mut client, "CancelFlightInfo", bare).await.unwrap_err().code(), Code::NotFound);
}
