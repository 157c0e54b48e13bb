//! Every kind of statement with every permission, as it is and inside of others.

use windrow_core::ErrorKind;
use windrow_core::cases::Cases;
use windrow_core::config::QueryConfig;

use super::Allowed;
use crate::session::{ClusterShape, PlannerSession, SessionOptions};
use crate::{StorePolicy, Stores};

const SHAPE: ClusterShape = ClusterShape { executors: 1, slots: 1 };

fn session(allowed: Allowed, directory: &str) -> PlannerSession {
    let query = QueryConfig { directory: directory.to_owned(), ..QueryConfig::default() };
    PlannerSession::new(SessionOptions { query, allowed, ..SessionOptions::default() }).unwrap()
}

/// Whether the statement is denied; whatever else is wrong with it is not asked here.
async fn is_denied(session: &PlannerSession, sql: &str) -> bool {
    let planned = session.plan(sql, SHAPE).await;
    let described = session.schema(sql).await;
    let denied = |error: windrow_core::Error| error.kind == ErrorKind::Denied;
    let (planned, described) = (planned.err().is_some_and(denied), described.err().is_some_and(denied));
    assert_eq!(planned, described, "describing is not asked the same: {sql}");
    planned
}

/// Statements by what they need.
const READ: [&str; 12] = [
    "SELECT 1",
    "SELECT * FROM own",
    "WITH x AS (SELECT 1 AS a) SELECT a FROM x",
    "VALUES (1), (2)",
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT * FROM own",
    "SHOW TABLES",
    "SHOW windrow.query.partitions",
    "SHOW ALL",
    "DESCRIBE own",
    "SELECT * FROM 'rows.csv'",
    "SELECT * FROM information_schema.tables",
];
const OWN: [&str; 13] = [
    "SET windrow.query.partitions = 3",
    "RESET windrow.query.partitions",
    "SET datafusion.execution.batch_size = 100",
    "RESET datafusion.execution.batch_size",
    "SET TIME ZONE = '+00:00'",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "CREATE TEMPORARY VIEW v AS SELECT 1",
    "CREATE TEMPORARY TABLE t AS SELECT 1",
    "CREATE VIEW temp.v AS SELECT 1",
    "DROP VIEW IF EXISTS temp.v",
    "BEGIN",
];
const WRITE: [&str; 18] = [
    "CREATE TABLE t AS SELECT 1",
    "CREATE TABLE t (a INT)",
    "CREATE VIEW v AS SELECT 1",
    "CREATE OR REPLACE VIEW v AS SELECT 1",
    "CREATE EXTERNAL TABLE e STORED AS CSV LOCATION 'rows.csv'",
    "CREATE SCHEMA s",
    "DROP TABLE own",
    "DROP VIEW IF EXISTS v",
    "DROP SCHEMA s",
    "DROP TABLE temp.a, own",
    "INSERT INTO own VALUES (1)",
    "UPDATE own SET a = 1",
    "DELETE FROM own",
    "TRUNCATE TABLE own",
    "COPY own TO 'written.parquet'",
    "COPY (SELECT 1) TO 'written.parquet' STORED AS PARQUET",
    "SELECT 1 AS a INTO own2",
    "WITH x AS (SELECT 1) SELECT * INTO own2 FROM x",
];
const ADMINISTER: [&str; 9] = [
    "CREATE DATABASE d",
    "CREATE FUNCTION f(INT) RETURNS INT RETURN 1",
    "DROP FUNCTION f",
    "GRANT SELECT ON own TO somebody",
    "REVOKE SELECT ON own FROM somebody",
    "CREATE USER somebody",
    "SET ROLE admin",
    "INSTALL httpfs",
    "KILL 1",
];

#[tokio::test]
async fn security_m11_each_kind_of_statement_needs_its_permission() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rows.csv"), "a\n1\n").unwrap();
    let directory = folder.path().display().to_string();
    let mut cases = Cases::of("M11");
    for (allowed, level) in [(Allowed::Read, 1), (Allowed::Write, 2), (Allowed::Everything, 3)] {
        let kinds = [(&READ[..], 0), (&OWN[..], 1), (&WRITE[..], 2), (&ADMINISTER[..], 3)];
        for (statements, need) in kinds {
            for sql in statements {
                let session = session(allowed, &directory);
                assert_eq!(is_denied(&session, sql).await, need > level, "{allowed:?}: {sql}");
                cases.case(format!("{allowed:?}: {sql}"));
            }
        }
    }
    cases.are(3 * 52);
    assert!(!folder.path().join("written.parquet").exists());
}

#[tokio::test]
async fn security_m11_what_is_nested_counts() {
    let mut cases = Cases::of("M11");
    for sql in [
        "EXPLAIN INSERT INTO own VALUES (1)",
        "EXPLAIN ANALYZE INSERT INTO own VALUES (1)",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/never-written.parquet' STORED AS PARQUET",
        "EXPLAIN CREATE VIEW v AS SELECT 1",
        "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
        "EXPLAIN VERBOSE DROP TABLE own",
        "PREPARE p AS INSERT INTO own VALUES (1)",
        "PREPARE p AS DELETE FROM own",
        "PREPARE p AS SELECT 1 AS a INTO own2",
        "PREPARE p AS CREATE TABLE t AS SELECT 1",
        "WITH x AS (INSERT INTO own VALUES (1) RETURNING 1) SELECT * FROM x",
        "SELECT * FROM (SELECT 1 AS a INTO own2)",
        "CREATE TEMPORARY VIEW v AS WITH x AS (DELETE FROM own RETURNING 1) SELECT * FROM x",
    ] {
        let reader = session(Allowed::Read, "");
        let error = reader.plan(sql, SHAPE).await.unwrap_err();
        // What the parser does not take cannot write either.
        assert!(matches!(error.kind, ErrorKind::Denied | ErrorKind::InvalidQuery), "{:?} {error}: {sql}", error.kind);
        if error.kind == ErrorKind::Denied {
            assert!(error.message.contains("role writer"), "{error}");
        }
        let writer = session(Allowed::Write, "");
        assert!(!is_denied(&writer, sql).await, "a writer is denied: {sql}");
        cases.case(sql);
    }
    cases.are(13);
}

#[tokio::test]
async fn security_m11_a_denied_statement_has_no_effect() {
    let reader = session(Allowed::Read, "");
    for sql in ["CREATE VIEW v AS SELECT 1 AS a", "PREPARE p AS DELETE FROM v", "CREATE SCHEMA s"] {
        assert!(is_denied(&reader, sql).await, "{sql}");
    }
    assert!(reader.names().await.unwrap().tables.iter().all(|(table, _)| table != "v"));
    let error = reader.plan("EXECUTE p", SHAPE).await.unwrap_err();
    assert!(error.message.contains("does not exist"), "{error}");
}

#[tokio::test]
async fn security_m10_options_that_reach_a_store_are_refused() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("rows.csv"), "a\n1\n").unwrap();
    let policy = StorePolicy::from_lists(&[root.path().to_owned()], &["s3://bucket/folder".to_owned()]).unwrap();
    let stores = std::sync::Arc::new(Stores::new(policy));
    let session = PlannerSession::new(SessionOptions { stores, ..SessionOptions::default() }).unwrap();
    let mut cases = Cases::of("M10");
    for option in [
        "'aws.endpoint' 'http://169.254.169.254/'",
        "'AWS.ACCESS_KEY_ID' 'x'",
        "endpoint 'http://127.0.0.1/'",
        "'gcp.service_account_path' '/etc/passwd'",
        "'azure.sas_token' 'x'",
        "'format.has_header' 'true', 'aws.region' 'x'",
        "'s3.allow_http' 'true'",
    ] {
        for sql in [
            format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://bucket/folder/x.csv' OPTIONS ({option})"),
            format!("COPY (SELECT 1) TO 's3://bucket/folder/x.csv' STORED AS CSV OPTIONS ({option})"),
            format!("EXPLAIN COPY (SELECT 1) TO 's3://bucket/folder/x.csv' STORED AS CSV OPTIONS ({option})"),
        ] {
            let error = session.plan(&sql, SHAPE).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Denied, "{error}: {sql}");
            assert!(error.message.contains("administrator"), "{error}");
            cases.case(sql);
        }
    }
    cases.are(7 * 3);
    let sql = format!(
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{}' OPTIONS ('format.has_header' 'true')",
        root.path().join("rows.csv").display()
    );
    session.plan(&sql, SHAPE).await.unwrap();
}
