//! What drivers ask of the server and its catalog, with the types that they cast the answers to.

use arrow::array::AsArray;
use arrow::datatypes::{Schema, UInt32Type};
use arrow_flight::IpcMessage;
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys,
    CommandGetTables, CommandGetXdbcTypeInfo, SqlInfo,
};

use super::*;

/// The child of the union that a code's value is in: text, boolean, 64 bits, 32 bits, list of texts, map of lists.
fn child(code: i32) -> i8 {
    match code {
        0 | 1 | 2 | 6 | 7 | 504 | 513 | 514 | 529..=531 => 0,
        3..=5
        | 9..=11
        | 500..=502
        | 506
        | 515
        | 516
        | 518..=521
        | 523
        | 524
        | 527
        | 532
        | 536
        | 537
        | 539
        | 556
        | 563
        | 565
        | 566 => 1,
        572..=576 => 1,
        8 | 100 | 101 | 522 | 525 | 526 | 528 | 533..=535 | 538 | 540 | 564 | 567..=571 => 3,
        503 | 505 | 507 | 541..=555 | 557..=562 => 2,
        508..=512 => 4,
        517 => 5,
        other => panic!("the code {other} is new"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_code_has_a_value_of_the_type_that_drivers_read() {
    let cluster = Cluster::start(1, 2).await;
    let mut client = cluster.client().await;
    let info = client.get_sql_info(vec![]).await.unwrap();
    let advertised = info.clone().try_decode_schema().unwrap();
    let answer = read(&mut client, info).await.remove(0);
    assert_eq!(answer.schema().as_ref(), &advertised);
    let codes = answer.column(0).as_primitive::<UInt32Type>().values().to_vec();
    let values = answer.column(1).as_union();
    let all: Vec<i32> = (0..1000).filter(|code| SqlInfo::try_from(*code).is_ok()).collect();
    assert_eq!(all.len(), 91);
    for code in all {
        let at = codes.iter().position(|found| i32::try_from(*found).unwrap() == code);
        let at = at.unwrap_or_else(|| panic!("no value for {code}"));
        assert_eq!(values.type_id(at), child(code), "{code}");
    }
    let info = client.get_sql_info(vec![SqlInfo::FlightSqlServerTransaction, SqlInfo::SqlDatetimeFunctions]).await.unwrap();
    let answer = read(&mut client, info).await.remove(0);
    assert_eq!(answer.num_rows(), 2);
    assert!(format!("{answer:?}").contains("DATE_TRUNC"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_is_listed_by_pattern_and_with_schemas() {
    let cluster = Cluster::start(1, 2).await;
    let mut client = cluster.client().await;
    for sql in [
        "CREATE VIEW things AS SELECT 1 AS n, arrow_cast('x', 'Utf8View') AS t",
        "CREATE SCHEMA other",
        "CREATE VIEW other.thing_s AS SELECT 2 AS m",
    ] {
        client.execute_update(sql.to_owned(), None).await.unwrap();
    }
    let mut names = async |request: CommandGetTables| -> Vec<String> {
        let info = client.get_tables(request).await.unwrap();
        let advertised = info.clone().try_decode_schema().unwrap();
        let batches = read(&mut client, info).await;
        assert!(batches.iter().all(|batch| batch.schema().as_ref() == &advertised));
        batches
            .iter()
            .flat_map(|batch| batch.column(2).as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    };
    let pattern = |schema: Option<&str>, table: Option<&str>| CommandGetTables {
        db_schema_filter_pattern: schema.map(str::to_owned),
        table_name_filter_pattern: table.map(str::to_owned),
        ..CommandGetTables::default()
    };
    assert_eq!(names(pattern(None, Some("thing%"))).await, ["thing_s", "things"]);
    assert_eq!(names(pattern(None, Some("thing_"))).await, ["things"]);
    assert_eq!(names(pattern(None, Some("thing\\_s"))).await, ["thing_s"]);
    assert_eq!(names(pattern(Some("oth%"), None)).await, ["thing_s"]);
    assert!(names(pattern(None, Some("SELECT * FROM things WHERE n = 1"))).await.is_empty());
    let views = CommandGetTables { table_types: vec!["VIEW".to_owned()], ..CommandGetTables::default() };
    assert_eq!(names(views).await, ["thing_s", "things"]);
    let nowhere = CommandGetTables { catalog: Some(String::new()), ..CommandGetTables::default() };
    assert!(names(nowhere).await.is_empty());

    let request = CommandGetTables { include_schema: true, ..pattern(None, Some("things")) };
    let info = client.get_tables(request).await.unwrap();
    let batch = read(&mut client, info).await.remove(0);
    let schema = batch.column(4).as_binary::<i32>().value(0).to_vec();
    let schema = Schema::try_from(IpcMessage(schema.into())).unwrap();
    let info = client.execute("SELECT * FROM things".to_owned(), None).await.unwrap();
    let of_rows = info.try_decode_schema().unwrap();
    let types = |schema: &Schema| schema.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect::<Vec<_>>();
    assert_eq!(types(&schema), types(&of_rows));

    let info = client.get_db_schemas(CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: Some("oth__".into()) }).await;
    assert_eq!(read(&mut client, info.unwrap()).await[0].num_rows(), 1);
    let info = client.get_catalogs().await.unwrap();
    assert!(format!("{:?}", read(&mut client, info).await).contains("windrow"));
    let info = client.get_table_types().await.unwrap();
    assert_eq!(read(&mut client, info).await[0].num_rows(), 4);
    let completion = act_of(&mut client, actions::NAMES, vec![]).await.unwrap();
    let completion = actions::names_from(&completion).unwrap();
    assert!(completion.tables.iter().any(|(name, columns)| name == "things" && columns.len() == 2));
    assert!(completion.settings.iter().any(|name| name == "windrow.query.partitions"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_types_have_their_exact_columns() {
    let cluster = Cluster::start(1, 2).await;
    let mut client = cluster.client().await;
    let table = "t".to_owned();
    let primary = CommandGetPrimaryKeys { table: table.clone(), ..CommandGetPrimaryKeys::default() };
    let exported = CommandGetExportedKeys { table: table.clone(), ..CommandGetExportedKeys::default() };
    let imported = CommandGetImportedKeys { table, ..CommandGetImportedKeys::default() };
    for (info, columns) in [
        (client.get_primary_keys(primary).await.unwrap(), 6),
        (client.get_exported_keys(exported).await.unwrap(), 13),
        (client.get_imported_keys(imported).await.unwrap(), 13),
        (client.get_cross_reference(CommandGetCrossReference::default()).await.unwrap(), 13),
    ] {
        assert_eq!(info.clone().try_decode_schema().unwrap().fields().len(), columns);
        assert!(read(&mut client, info).await.iter().all(|batch| batch.num_rows() == 0));
    }
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
    let advertised = info.clone().try_decode_schema().unwrap();
    let types = read(&mut client, info).await.remove(0);
    assert_eq!((types.schema().as_ref(), advertised.fields().len()), (&advertised, 19));
    let names: Vec<&str> = types.column(0).as_string::<i32>().iter().flatten().collect();
    for name in ["BIGINT", "DOUBLE", "VARCHAR", "TIMESTAMP", "DECIMAL", "BOOLEAN"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: Some(12) }).await.unwrap();
    assert_eq!(read(&mut client, info).await[0].num_rows(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_are_listed_as_they_are() {
    let cluster = Cluster::start(1, 2).await;
    let listed = cluster.raw().await.list_actions(arrow_flight::Empty {}).await.unwrap().into_inner();
    let listed: Vec<String> = listed.map_ok(|action| action.r#type).try_collect().await.unwrap();
    assert!(listed.iter().any(|name| name == "CancelFlightInfo") && listed.iter().any(|name| name == "SetSessionOptions"));
    for name in &listed {
        let status = cluster.act(name, vec![0xff; 3]).await;
        assert!(status.is_ok() || status.is_err_and(|status| status.code() != Code::Unimplemented), "{name}");
    }
    for name in ["BeginTransaction", "EndSavepoint", "CreatePreparedSubstraitPlan", "NoSuchAction"] {
        assert!(!listed.iter().any(|listed| listed == name));
        assert_eq!(cluster.act(name, "").await.unwrap_err().code(), Code::Unimplemented, "{name}");
    }
}
