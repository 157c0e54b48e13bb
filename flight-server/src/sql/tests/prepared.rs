//! Prepared statements as drivers use them, and statements that change something.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    Any, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementUpdate, DoPutPreparedStatementResult,
    DoPutUpdateResult,
};
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;

use super::*;
use crate::sql::session_proto::PreparedStatementResult;

async fn prepare(cluster: &Cluster, sql: &str) -> PreparedStatementResult {
    let request = arrow_flight::sql::ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
    let answer = cluster.act("CreatePreparedStatement", request.as_any().encode_to_vec()).await.unwrap().remove(0);
    let any = Any::decode(answer).unwrap();
    assert!(any.type_url.ends_with("ActionCreatePreparedStatementResult"), "{}", any.type_url);
    PreparedStatementResult::decode(any.value).unwrap()
}

/// One column for each value, named as the Python driver names them.
fn row(values: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_from_iter(values.into_iter().enumerate().map(|(index, value)| (index.to_string(), value))).unwrap()
}

fn ints(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

async fn put(cluster: &Cluster, command: Vec<u8>, values: Option<RecordBatch>) -> Result<Bytes, tonic::Status> {
    let descriptor = FlightDescriptor::new_cmd(command);
    let messages: Vec<FlightData> = match values {
        None => vec![FlightData { flight_descriptor: Some(descriptor), ..FlightData::default() }],
        Some(batch) => FlightDataEncoderBuilder::new()
            .with_flight_descriptor(Some(descriptor))
            .build(futures::stream::iter([Ok(batch)]))
            .try_collect()
            .await
            .unwrap(),
    };
    let mut answers = cluster.raw().await.do_put(futures::stream::iter(messages)).await?.into_inner();
    Ok(answers.message().await?.unwrap().app_metadata)
}

async fn bind(cluster: &Cluster, handle: Bytes, values: RecordBatch) -> Bytes {
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle }.as_any().encode_to_vec();
    let answer = put(cluster, command, Some(values)).await.unwrap();
    DoPutPreparedStatementResult::decode(answer).unwrap().prepared_statement_handle.unwrap()
}

async fn rows(cluster: &Cluster, handle: Bytes) -> Result<Vec<RecordBatch>, tonic::Status> {
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle }.as_any().encode_to_vec();
    let info = cluster.raw().await.get_flight_info(FlightDescriptor::new_cmd(command)).await?.into_inner();
    Ok(read(&mut cluster.client().await, info).await)
}

async fn update(cluster: &Cluster, command: Vec<u8>, values: Option<RecordBatch>) -> Result<i64, tonic::Status> {
    Ok(DoPutUpdateResult::decode(put(cluster, command, values).await?).unwrap().record_count)
}

fn script(text: &str) -> Vec<u8> {
    CommandStatementUpdate { query: text.to_owned(), transaction_id: None }.as_any().encode_to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_bound_and_bound_again_on_the_handle_that_came_back() {
    let table = Table::new(2, 10, 3);
    let cluster = Cluster::start(1, 2).await;
    let prepared = prepare(&cluster, &format!("SELECT id FROM {} WHERE id = ? OR id = ? ORDER BY id", table.name())).await;
    assert_eq!(prepared.is_update, Some(false));
    let unbound = rows(&cluster, prepared.prepared_statement_handle.clone()).await.unwrap_err();
    assert_eq!(unbound.code(), Code::InvalidArgument, "{unbound}");
    let first = bind(&cluster, prepared.prepared_statement_handle.clone(), row(vec![ints(vec![3]), ints(vec![12])])).await;
    assert_eq!(integers(&rows(&cluster, first.clone()).await.unwrap(), 0), [3, 12]);
    let text: ArrayRef = Arc::new(StringArray::from(vec!["7"]));
    let again = bind(&cluster, first.clone(), row(vec![text, ints(vec![8])])).await;
    assert_eq!(integers(&rows(&cluster, again).await.unwrap(), 0), [7, 8]);
    assert_eq!(integers(&rows(&cluster, first).await.unwrap(), 0), [3, 12], "a handle is a value");

    let mut statement = cluster.client().await.prepare("SELECT ? + 1, ?".to_owned(), None).await.unwrap();
    assert_eq!(statement.parameter_schema().unwrap().fields().len(), 2);
    let half: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
    statement.set_parameters(row(vec![ints(vec![41]), half])).unwrap();
    let info = statement.execute().await.unwrap();
    let answer = read(&mut cluster.client().await, info).await;
    assert_eq!(integers(&answer, 0), [42]);
    assert_eq!(answer[0].column(1).as_ref(), &Float64Array::from(vec![1.5]));
    statement.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_rows_are_several_results_in_order() {
    let cluster = Cluster::start(1, 2).await;
    let prepared = prepare(&cluster, "SELECT ? * 2").await;
    let bound = bind(&cluster, prepared.prepared_statement_handle, row(vec![ints(vec![5, 1, 3])])).await;
    assert_eq!(integers(&rows(&cluster, bound).await.unwrap(), 0), [10, 2, 6]);
    let prepared = prepare(&cluster, "SELECT n FROM (VALUES (1)) AS v(n) WHERE n < ? ORDER BY n").await;
    let bound = bind(&cluster, prepared.prepared_statement_handle, row(vec![ints(vec![5, 1])])).await;
    assert_eq!(rows(&cluster, bound).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_was_touched_is_no_handle() {
    let cluster = Cluster::start(1, 2).await;
    let handle = prepare(&cluster, "SELECT 1").await.prepared_statement_handle;
    assert_eq!(integers(&rows(&cluster, handle.clone()).await.unwrap(), 0), [1]);
    for index in 0..handle.len() {
        let mut forged = handle.to_vec();
        forged[index] ^= 1;
        for bad in [forged, handle[..index].to_vec()] {
            assert_eq!(rows(&cluster, bad.into()).await.unwrap_err().code(), Code::NotFound);
        }
    }
    let other = Cluster::start(1, 2).await;
    assert_eq!(rows(&other, handle).await.unwrap_err().code(), Code::NotFound, "of another cluster");
    let large: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(2 << 20)]));
    let handle = prepare(&cluster, "SELECT ?").await.prepared_statement_handle;
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle }.as_any().encode_to_vec();
    assert_eq!(put(&cluster, command, Some(row(vec![large]))).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_say_so_and_have_no_columns() {
    let table = Table::new(1, 2, 3);
    let cluster = Cluster::start(1, 2).await;
    for sql in ["CREATE VIEW v AS SELECT 1", "SET windrow.query.partitions = 3", "DROP VIEW IF EXISTS v"] {
        let prepared = prepare(&cluster, sql).await;
        assert_eq!((prepared.is_update, prepared.dataset_schema.len()), (Some(true), 0), "{sql}");
        let handle = prepared.prepared_statement_handle;
        let command = CommandPreparedStatementUpdate { prepared_statement_handle: handle.clone() }.as_any().encode_to_vec();
        assert_eq!(update(&cluster, command, None).await.unwrap(), 0, "{sql}");
        assert!(rows(&cluster, handle).await.unwrap().iter().all(|batch| batch.num_rows() == 0), "{sql}");
    }
    for sql in [format!("SELECT * FROM {}", table.name()), "EXPLAIN SELECT 1".to_owned(), "SHOW TABLES".to_owned()] {
        let prepared = prepare(&cluster, &sql).await;
        assert_eq!(prepared.is_update, Some(false), "{sql}");
        assert!(!prepared.dataset_schema.is_empty(), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_stops_at_its_first_error_and_says_where() {
    let cluster = Cluster::start(1, 2).await;
    let mut client = cluster.client().await;
    let good = "CREATE VIEW a AS SELECT ';' AS x;\n CREATE VIEW b AS SELECT x FROM a; -- the end";
    assert_eq!(client.execute_update(good.to_owned(), None).await.unwrap(), 0);
    let read = query(&mut client, "SELECT x FROM b").await;
    assert_eq!(read[0].column(0).as_ref(), &StringArray::from(vec![";"]));

    let bad = "CREATE VIEW c AS SELECT 1 AS n;\nCREATE VIEW d AS SELECT m FROM c;\nCREATE VIEW e AS SELECT 1";
    let status = put(&cluster, script(bad), None).await.unwrap_err();
    let error = from_status(&status);
    assert_eq!(error.kind, ErrorKind::InvalidQuery);
    assert!(error.message.starts_with("statement 2 of 3:"), "{error}");
    assert_eq!(error.context.span.unwrap().start_line, 2);

    let command = arrow_flight::sql::CommandStatementQuery { query: "SELECT 1; SELECT 2".to_owned(), transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let error = from_status(&cluster.raw().await.get_flight_info(descriptor).await.unwrap_err());
    assert_eq!((error.kind, error.context.span.unwrap().start_column), (ErrorKind::InvalidQuery, 11));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_runs_once_for_each_row_of_values() {
    let cluster = Cluster::start(1, 2).await;
    // A query counts nothing, so that what came back says how often it ran only by its error.
    let handle = prepare(&cluster, "SELECT 1 / ?").await.prepared_statement_handle;
    let command = CommandPreparedStatementUpdate { prepared_statement_handle: handle }.as_any().encode_to_vec();
    assert_eq!(update(&cluster, command.clone(), Some(row(vec![ints(vec![1, 2, 4])]))).await.unwrap(), -1);
    let status = update(&cluster, command.clone(), Some(row(vec![ints(vec![1, 2, 0])]))).await.unwrap_err();
    assert!(from_status(&status).message.starts_with("after 2 rows of values:"), "{status}");
    let none = row(vec![ints(vec![])]);
    assert_eq!(update(&cluster, command, Some(none)).await.unwrap(), 0, "no rows, no runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_without_a_command_is_told_what_is_missing() {
    let cluster = Cluster::start(1, 2).await;
    let status = cluster.raw().await.do_put(futures::stream::iter(Vec::<FlightData>::new())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("descriptor"), "{status}");
}
