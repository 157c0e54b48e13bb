//! One schema for each statement: in its description, in GetSchema, in FlightInfo and before its rows.

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::sql::CommandStatementQuery;
use arrow_flight::{FlightDescriptor, IpcMessage, SchemaResult};

use super::*;

fn statement(sql: &str) -> FlightDescriptor {
    let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

async fn of_get_schema(client: &mut FlightSqlServiceClient<Channel>, descriptor: FlightDescriptor) -> Schema {
    let SchemaResult { schema } = client.inner_mut().get_schema(descriptor).await.unwrap().into_inner();
    Schema::try_from(IpcMessage(schema)).unwrap()
}

/// The schema message of a DoGet, and the rows.
async fn of_rows(client: &mut FlightSqlServiceClient<Channel>, ticket: Ticket) -> (SchemaRef, Vec<RecordBatch>) {
    let rows = client.inner_mut().do_get(ticket).await.unwrap().into_inner();
    let mut decoder = FlightDataDecoder::new(rows.map_err(FlightError::from));
    let (mut schema, mut batches) = (None, Vec::new());
    while let Some(message) = timer::deadline(PATIENCE, decoder.next()).await.unwrap() {
        match message.unwrap().payload {
            DecodedPayload::Schema(of_rows) => schema = Some(of_rows),
            DecodedPayload::RecordBatch(batch) => batches.push(batch),
            DecodedPayload::None => {}
        }
    }
    (schema.unwrap(), batches)
}

/// The schema of a statement, after every message about it was seen to have the same.
async fn one_schema(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Schema {
    let described = of_get_schema(client, statement(sql)).await;
    let prepared = client.prepare(sql.to_owned(), None).await.unwrap();
    assert_eq!(prepared.dataset_schema().unwrap(), &described, "{sql}");
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    assert_eq!(info.clone().try_decode_schema().unwrap(), described, "{sql}");
    let (schema, batches) = of_rows(client, info.endpoint[0].ticket.clone().unwrap()).await;
    assert_eq!(schema.as_ref(), &described, "{sql}");
    assert!(batches.iter().all(|batch| batch.schema_ref() == &schema), "{sql}");
    described
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_about_a_statement_has_the_same_schema() {
    let table = Table::new(2, 50, 3);
    let cluster = Cluster::start(1, 3).await;
    let mut client = cluster.client().await;
    let t = table.name();
    for sql in [
        format!("SELECT * FROM {t}"),
        format!("SELECT count(*), sum(one), avg(id), max(name) FROM {t}"),
        format!("SELECT name, count(*) AS n FROM {t} GROUP BY name ORDER BY n LIMIT 3"),
        format!("SELECT a.id, b.name FROM {t} a LEFT JOIN {t} b ON a.id = b.id + 1"),
        format!("SELECT id, row_number() OVER (ORDER BY id), lag(id) OVER (ORDER BY id) FROM {t}"),
        format!("SELECT id FROM {t} WHERE name IS NOT NULL UNION ALL SELECT NULL"),
        format!("SELECT id FROM {t} WHERE id IN (SELECT one FROM {t})"),
        format!("SELECT array_agg(name), struct(max(name), 1), make_array(max(name)) FROM {t}"),
        format!("SELECT arrow_cast(name, 'Utf8View') AS v, arrow_cast(name, 'Dictionary(Int32, Utf8)') AS d FROM {t}"),
        format!("SELECT arrow_cast(make_array(name), 'LargeList(Utf8View)') AS l, map([1], [name]) FROM {t}"),
        format!("SELECT now(), current_date, interval '1' day, 1.5, NULL, true, x'00', CAST(1 AS DECIMAL(7, 2)) FROM {t}"),
        "SELECT 1 AS one, 'x' AS two".to_owned(),
        "SELECT table_name FROM information_schema.tables".to_owned(),
        "VALUES (1, 'a'), (2, NULL)".to_owned(),
        "SHOW windrow.query.partitions".to_owned(),
        "SHOW TABLES".to_owned(),
        "EXPLAIN SELECT 1".to_owned(),
        "CREATE VIEW seen AS SELECT 1".to_owned(),
    ] {
        let described = one_schema(&mut client, &sql).await;
        for field in described.fields() {
            assert!(field.metadata().contains_key("ARROW:FLIGHT:SQL:TYPE_NAME"), "{sql}: {field:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_sent_as_plain_arrays_unless_the_session_wants_them() {
    let cluster = Cluster::start(1, 2).await;
    let mut client = cluster.client().await;
    let sql = "SELECT arrow_cast('a', 'Utf8View') AS t, arrow_cast(x'00', 'BinaryView') AS b, \
               make_array(arrow_cast('a', 'Utf8View')) AS l, named_struct('f', arrow_cast('a', 'Utf8View')) AS s";
    let types = |schema: &Schema| format!("{:?}", schema.fields().iter().map(|field| field.data_type()).collect::<Vec<_>>());
    let plain = of_get_schema(&mut client, statement(sql)).await;
    assert!(!types(&plain).contains("View"), "{plain:?}");
    assert_eq!(plain.field(0).metadata()["ARROW:FLIGHT:SQL:TYPE_NAME"], "VARCHAR");
    assert_eq!(query(&mut client, sql).await[0].schema().as_ref(), &plain);
    client.execute_update("SET windrow.query.wire_views = true".to_owned(), None).await.unwrap();
    let views = of_get_schema(&mut client, statement(sql)).await;
    assert_eq!(types(&views).matches("View").count(), 4, "{views:?}");
    assert_eq!(query(&mut client, sql).await[0].schema().as_ref(), &views);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_say_what_sql_calls_them() {
    let cluster = Cluster::start(1, 2).await;
    let mut client = cluster.client().await;
    let sql = "SELECT CAST(1 AS DECIMAL(7, 2)) AS d, CAST(1 AS INT) AS i, 'x' AS t";
    let schema = of_get_schema(&mut client, statement(sql)).await;
    let say = |field: usize, key: &str| schema.field(field).metadata().get(&format!("ARROW:FLIGHT:SQL:{key}")).cloned();
    assert_eq!((say(0, "TYPE_NAME"), say(0, "PRECISION")), (Some("DECIMAL".into()), Some("7".into())));
    assert_eq!((say(0, "SCALE"), say(1, "TYPE_NAME")), (Some("2".into()), Some("INTEGER".into())));
    assert_eq!((say(1, "IS_CASE_SENSITIVE"), say(2, "IS_CASE_SENSITIVE")), (Some("0".into()), Some("1".into())));
    assert_eq!((say(2, "IS_SEARCHABLE"), say(2, "IS_AUTO_INCREMENT")), (Some("1".into()), Some("0".into())));
    assert_eq!(say(2, "IS_READ_ONLY"), Some("1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_columns_say_of_which_table_they_are() {
    let table = Table::new(1, 5, 3);
    let cluster = Cluster::start(1, 2).await;
    let mut client = cluster.client().await;
    for sql in [
        format!("CREATE EXTERNAL TABLE things STORED AS CSV LOCATION '{}/'", table.folder().display()),
        "CREATE SCHEMA other".to_owned(),
        format!("CREATE EXTERNAL TABLE other.things STORED AS CSV LOCATION '{}/'", table.folder().display()),
        "CREATE TEMPORARY TABLE mine AS SELECT 1 AS n".to_owned(),
        "CREATE VIEW v AS SELECT id FROM things".to_owned(),
    ] {
        client.execute_update(sql, None).await.unwrap();
    }
    let say = |schema: &Schema| {
        let get = |field: &arrow::datatypes::Field, key: &str| field.metadata().get(&format!("ARROW:FLIGHT:SQL:{key}")).cloned();
        let of = |field: &arrow::datatypes::Field| {
            let names = ["CATALOG_NAME", "SCHEMA_NAME", "TABLE_NAME"].map(|key| get(field, key));
            names.into_iter().collect::<Option<Vec<_>>>().map_or_else(|| "-".to_owned(), |names| names.join("."))
        };
        schema.fields().iter().map(|field| of(field)).collect::<Vec<_>>().join(" ")
    };
    let (things, others) = ("windrow.public.things", "windrow.other.things");
    for (sql, expected) in [
        (
            "SELECT id, name AS label, id + 1 FROM things WHERE one = 1 ORDER BY id LIMIT 2".to_owned(),
            format!("{things} {things} -"),
        ),
        ("SELECT a.id, b.name FROM things AS a JOIN other.things AS b ON a.id = b.id".to_owned(), format!("{things} {others}")),
        (
            "SELECT b.name, mine.n FROM mine LEFT JOIN other.things b ON b.id = mine.n".to_owned(),
            format!("{others} windrow.temp.mine"),
        ),
        ("SELECT name, count(*) FROM things GROUP BY name".to_owned(), format!("{things} -")),
        ("SELECT DISTINCT name FROM things WHERE id IN (SELECT id FROM other.things)".to_owned(), things.to_owned()),
        ("SELECT id, row_number() OVER (ORDER BY id) FROM things".to_owned(), format!("{things} -")),
        (format!("SELECT id FROM {}", table.name()), "-".to_owned()),
        ("SELECT id FROM v".to_owned(), "-".to_owned()),
        ("SELECT id FROM things UNION ALL SELECT id FROM other.things".to_owned(), "-".to_owned()),
        ("SELECT state FROM system.queries".to_owned(), "windrow.system.queries".to_owned()),
    ] {
        let described = one_schema(&mut client, &sql).await;
        assert_eq!(say(&described), expected, "{sql}");
    }
    // What is listed of a table is what its columns say of themselves in a result.
    let request = arrow_flight::sql::CommandGetTables {
        table_name_filter_pattern: Some("things".to_owned()),
        include_schema: true,
        ..Default::default()
    };
    let info = client.get_tables(request).await.unwrap();
    let listed = read(&mut client, info).await.remove(0);
    let schemas = arrow::array::AsArray::as_binary::<i32>(listed.column(4).as_ref());
    let listed: Vec<Schema> =
        schemas.iter().map(|bytes| Schema::try_from(IpcMessage(bytes.unwrap().to_vec().into())).unwrap()).collect();
    let mut expected = Vec::new();
    for table in ["other.things", "public.things"] {
        expected.push(of_get_schema(&mut client, statement(&format!("SELECT * FROM {table}"))).await);
    }
    assert_eq!(listed, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_a_table() {
    let cluster = Cluster::start(1, 2).await;
    let mut client = cluster.client().await;
    client.execute_update("CREATE VIEW \"My\"\"t\" AS SELECT 7 AS n".to_owned(), None).await.unwrap();
    for path in [vec!["My\"t"], vec!["public", "My\"t"], vec!["windrow", "public", "My\"t"]] {
        let descriptor = FlightDescriptor::new_path(path.into_iter().map(str::to_owned).collect());
        let schema = of_get_schema(&mut client, descriptor.clone()).await;
        let info = client.inner_mut().get_flight_info(descriptor).await.unwrap().into_inner();
        assert_eq!(info.clone().try_decode_schema().unwrap(), schema);
        assert_eq!(integers(&read(&mut client, info).await, 0), [7]);
    }
    let empty = client.inner_mut().get_flight_info(FlightDescriptor::new_path(vec![])).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);
    let unknown = FlightDescriptor::new_path(vec!["nothing".to_owned()]);
    assert_eq!(client.inner_mut().get_flight_info(unknown).await.unwrap_err().code(), Code::NotFound);
}
