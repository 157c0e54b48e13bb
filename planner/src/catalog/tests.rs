//! Sessions over one catalog: what they share, what they keep, what survives, and what is refused.

use std::path::Path;
use std::sync::{Arc, Barrier};

use arrow::util::pretty::pretty_format_batches;
use windrow_core::{Error, ErrorKind};

use super::*;
use crate::session::{ClusterShape, Planned, PlannerSession, SessionOptions};

const SHAPE: ClusterShape = ClusterShape { executors: 1, slots: 1 };

fn session(catalog: &Arc<Catalog>) -> PlannerSession {
    PlannerSession::new(SessionOptions { catalog: Arc::clone(catalog), ..Default::default() }).unwrap()
}

/// The rows of a statement that needs no executor; of others, the word `job`.
async fn answer(session: &PlannerSession, sql: &str) -> Result<String> {
    match session.plan(sql, SHAPE).await? {
        Planned::Rows { batches, .. } => Ok(pretty_format_batches(&batches).unwrap().to_string()),
        _ => Ok("job".to_owned()),
    }
}

async fn run(session: &PlannerSession, statements: &[&str]) {
    for sql in statements {
        answer(session, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

async fn fails(session: &PlannerSession, sql: &str, kind: ErrorKind, words: &str) -> Error {
    let error = answer(session, sql).await.expect_err(sql);
    assert_eq!(error.kind, kind, "{sql}: {error}");
    assert!(error.message.contains(words), "{sql}: no '{words}' in: {error}");
    error
}

async fn columns(session: &PlannerSession, table: &str) -> Vec<String> {
    let schema = session.schema(&format!("SELECT * FROM {table}")).await.unwrap_or_else(|error| panic!("{table}: {error}"));
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

fn sales(folder: &Path) -> String {
    std::fs::write(folder.join("sales.csv"), "id,city\n1,Oslo\n2,Rom\n").unwrap();
    format!("STORED AS CSV LOCATION '{}' OPTIONS ('format.has_header' 'true')", folder.join("sales.csv").display())
}

#[tokio::test]
async fn sessions_share_tables_and_views_and_keep_temporary_ones() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Arc::default();
    let (one, other) = (session(&catalog), session(&catalog));
    let files = sales(folder.path());
    run(
        &one,
        &[
            &format!("CREATE EXTERNAL TABLE sales {files}"),
            "CREATE SCHEMA reports",
            "CREATE VIEW reports.cities AS SELECT DISTINCT city FROM sales",
            "CREATE TABLE mine AS VALUES (1, 'x')",
            "CREATE TEMPORARY VIEW v AS SELECT id FROM sales",
            "CREATE TEMPORARY TABLE t AS VALUES (1)",
            &format!("CREATE EXTERNAL TABLE temp.files {files}"),
        ],
    )
    .await;
    assert_eq!(columns(&other, "sales").await, ["id", "city"]);
    assert_eq!(columns(&other, "windrow.public.sales").await, ["id", "city"]);
    assert_eq!(columns(&other, "reports.cities").await, ["city"]);
    assert_eq!(columns(&one, "mine JOIN v ON v.id = mine.column1").await, ["column1", "column2", "id"]);
    assert_eq!(columns(&one, "temp.t CROSS JOIN files").await, ["column1", "id", "city"]);
    for own in ["mine", "v", "t", "temp.files"] {
        let error = fails(&other, &format!("SELECT * FROM {own}"), ErrorKind::NotFound, &format!("no table named '{own}'")).await;
        assert!(!error.message.contains("search"), "{error}");
    }
    let names: Vec<String> = one.names().await.unwrap().tables.into_iter().map(|(name, _)| name).collect();
    for name in ["files", "mine", "reports.cities", "sales", "system.queries", "t", "v"] {
        assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
    }
    assert!(!other.names().await.unwrap().tables.iter().any(|(name, _)| name == "mine"));
    let suggested = fails(&other, "SELECT * FROM salse", ErrorKind::NotFound, "salse").await;
    assert_eq!(suggested.context.suggestion.as_deref(), Some("sales"));
}

#[tokio::test]
async fn a_temporary_name_hides_a_shared_one_and_only_where_no_schema_is_written() {
    let catalog = Arc::default();
    let (one, other) = (session(&catalog), session(&catalog));
    run(&one, &["CREATE VIEW v AS SELECT 1 AS shared", "CREATE TEMP VIEW v AS SELECT 2 AS own"]).await;
    assert_eq!(columns(&one, "v").await, ["own"]);
    assert_eq!(columns(&one, "public.v").await, ["shared"]);
    assert_eq!(columns(&other, "v").await, ["shared"]);
    run(&one, &["CREATE VIEW around AS SELECT 3 AS x", "WITH v AS (SELECT 4 AS cte) SELECT cte FROM v"]).await;
    fails(&one, "CREATE VIEW bad AS SELECT w.own FROM v JOIN temp.v AS w ON true", ErrorKind::InvalidQuery, "temporary table")
        .await;
    run(&one, &["DROP VIEW v"]).await;
    assert_eq!(columns(&one, "v").await, ["shared"]);
    run(&other, &["DROP VIEW v"]).await;
    fails(&one, "SELECT * FROM v", ErrorKind::NotFound, "no table named 'v'").await;
}

#[tokio::test]
async fn names_that_are_taken_missing_or_reserved_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = sales(folder.path());
    let session = session(&Arc::default());
    run(&session, &[&format!("CREATE EXTERNAL TABLE t {files}"), "CREATE VIEW v AS SELECT 1 AS a", "CREATE SCHEMA s"]).await;
    let query = ErrorKind::InvalidQuery;
    fails(&session, &format!("CREATE EXTERNAL TABLE t {files}"), query, "table 'public.t' already exists").await;
    fails(&session, "CREATE VIEW v AS SELECT 2", query, "view 'public.v' already exists").await;
    fails(&session, "CREATE OR REPLACE VIEW t AS SELECT 2", query, "table 'public.t' already exists").await;
    fails(&session, "CREATE SCHEMA s", query, "schema 's' already exists").await;
    fails(&session, "CREATE SCHEMA system", query, "schema 'system' already exists").await;
    fails(&session, "DROP TABLE v", query, "is a view").await;
    fails(&session, "DROP VIEW nope", ErrorKind::NotFound, "no view named 'public.nope'").await;
    fails(&session, "DROP SCHEMA nope", ErrorKind::NotFound, "no schema named 'nope'").await;
    fails(&session, "DROP SCHEMA public CASCADE", query, "built in").await;
    fails(&session, "DROP TABLE system.queries", query, "built in").await;
    fails(&session, "CREATE VIEW nope.v AS SELECT 1", ErrorKind::NotFound, "no schema named 'nope'").await;
    fails(&session, "CREATE VIEW other.public.v AS SELECT 1", ErrorKind::NotFound, "no catalog named 'other'").await;
    fails(&session, "CREATE DATABASE d", ErrorKind::Unsupported, "one catalog").await;
    fails(&session, "CREATE TABLE public.m AS VALUES (1)", ErrorKind::Unsupported, "the session's own").await;
    fails(&session, "CREATE VIEW twice AS SELECT 1 AS a, 2 AS a", query, "a").await;
    run(
        &session,
        &[
            &format!("CREATE EXTERNAL TABLE IF NOT EXISTS t {files}"),
            &format!("CREATE OR REPLACE EXTERNAL TABLE t {files}"),
            "CREATE OR REPLACE VIEW v AS SELECT 2 AS b",
            "CREATE SCHEMA IF NOT EXISTS s",
            "CREATE VIEW s.v AS SELECT 1 AS c",
            "DROP VIEW IF EXISTS nope",
            "DROP SCHEMA IF EXISTS nope",
        ],
    )
    .await;
    assert_eq!(columns(&session, "v").await, ["b"]);
    fails(&session, "DROP SCHEMA s", query, "not empty: v").await;
    run(&session, &["DROP SCHEMA s CASCADE"]).await;
    fails(&session, "SELECT * FROM s.v", ErrorKind::NotFound, "s.v").await;
}

#[tokio::test]
async fn the_current_schema_is_where_names_are_looked_up_and_made() {
    let catalog = Arc::default();
    let (one, other) = (session(&catalog), session(&catalog));
    run(&one, &["CREATE SCHEMA a", "SET datafusion.catalog.default_schema = 'a'", "CREATE VIEW v AS SELECT 1 AS in_a"]).await;
    assert_eq!(one.current_schema(), "a");
    assert_eq!((columns(&one, "v").await, columns(&other, "a.v").await), (vec!["in_a".to_owned()], vec!["in_a".to_owned()]));
    fails(&other, "SELECT * FROM v", ErrorKind::NotFound, "'v'").await;
    // A view means the same wherever it is read.
    run(&one, &["CREATE VIEW public.above AS SELECT in_a + 1 AS b FROM v"]).await;
    assert_eq!(columns(&other, "above").await, ["b"]);
    one.set_schema("public").unwrap();
    assert_eq!(columns(&one, "above").await, ["b"]);
    let error = one.set_schema("pubic").unwrap_err();
    assert_eq!((error.kind, error.context.suggestion.as_deref()), (ErrorKind::NotFound, Some("public")));
    assert!(one.set_catalog("windrow").is_ok() && one.set_catalog("datafusion").is_err());
    fails(&one, "SET datafusion.catalog.default_schema = 'nope'", ErrorKind::NotFound, "no schema named 'nope'").await;
    let shown = answer(&one, "SHOW datafusion.catalog.default_schema").await.unwrap();
    assert!(shown.contains("public"), "{shown}");
}

#[tokio::test]
async fn views_follow_what_they_read_and_one_that_contains_itself_is_an_error() {
    let session = session(&Arc::default());
    run(&session, &["CREATE VIEW a AS SELECT 1 AS x", "CREATE VIEW b AS SELECT * FROM a"]).await;
    run(&session, &["CREATE OR REPLACE VIEW a AS SELECT 1 AS x, 2 AS y"]).await;
    assert_eq!(columns(&session, "b").await, ["x", "y"]);
    fails(&session, "CREATE OR REPLACE VIEW a AS SELECT * FROM b WHERE nope > 1", ErrorKind::InvalidQuery, "nope").await;
    run(&session, &["CREATE OR REPLACE VIEW a AS SELECT x FROM b"]).await;
    fails(&session, "SELECT * FROM b", ErrorKind::InvalidQuery, "contains itself").await;
    run(&session, &["DROP VIEW a"]).await;
    fails(&session, "SELECT * FROM b", ErrorKind::NotFound, "the view 'public.b': no table named 'a'").await;
    let shown = answer(&session, "SHOW TABLES").await.unwrap();
    assert!(shown.contains("| windrow       | public             | b "), "{shown}");
}

#[tokio::test]
async fn a_catalog_on_disk_is_there_again_and_lists_tables_whose_files_are_gone() {
    let (state, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = state.path().join("state");
    let files = sales(data.path());
    {
        let session = session(&Arc::new(Catalog::open(&folder).unwrap()));
        run(
            &session,
            &[
                "CREATE SCHEMA s",
                &format!("CREATE EXTERNAL TABLE s.sales {files}"),
                "CREATE VIEW cities AS SELECT city FROM s.sales",
                "CREATE VIEW dropped AS SELECT 1",
                "DROP VIEW dropped",
                "CREATE TABLE own AS VALUES (1)",
            ],
        )
        .await;
        let error = Catalog::open(&folder).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidConfig);
        assert!(error.message.contains("another scheduler uses"), "{error}");
    }
    let catalog = Arc::new(Catalog::open(&folder).unwrap());
    let session = session(&catalog);
    assert_eq!(columns(&session, "cities").await, ["city"]);
    assert_eq!(catalog.definitions().len(), 3, "{:?}", catalog.definitions());
    std::fs::remove_file(data.path().join("sales.csv")).unwrap();
    drop((session, catalog));

    let session = self::session(&Arc::new(Catalog::open(&folder).unwrap()));
    let shown = answer(&session, "SHOW COLUMNS FROM system.queries").await.unwrap();
    assert!(shown.contains("tasks_done"), "{shown}");
    let sql = "SELECT column_name FROM information_schema.columns WHERE table_schema = 's' ORDER BY ordinal_position";
    let shown = answer(&session, sql).await.unwrap();
    assert!(shown.contains("id") && shown.contains("city"), "{shown}");
    for sql in ["SELECT * FROM s.sales", "SELECT * FROM cities"] {
        let failed = answer(&session, sql).await;
        assert!(failed.as_ref().is_err_and(|error| error.kind != ErrorKind::Internal), "{sql}: {failed:?}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let replaced = format!("CREATE OR REPLACE EXTERNAL TABLE s.sales {}", sales(elsewhere.path()));
    run(&session, &[&replaced, "SELECT * FROM cities", "DROP VIEW cities", "DROP SCHEMA s CASCADE"]).await;
}

#[tokio::test]
async fn a_table_that_no_statement_made_is_made_again_from_its_columns() {
    let (state, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sales(data.path());
    let schema = arrow::datatypes::Schema::new(vec![
        arrow::datatypes::Field::new("id", arrow::datatypes::DataType::Int32, true),
        arrow::datatypes::Field::new("place", arrow::datatypes::DataType::Utf8, true),
    ]);
    let body = Body::Table(TableDefinition {
        sql: String::new(),
        locations: vec![data.path().join("sales.csv").display().to_string()],
        format: "CSV".to_owned(),
        options: BTreeMap::from([("format.has_header".to_owned(), "true".to_owned())]),
        partition_columns: Vec::new(),
        columns: Columns::of(&schema).unwrap(),
    });
    let definition = Definition { schema: PUBLIC.into(), name: "t".into(), owner: String::new(), created_at: 0, body };
    Catalog::open(state.path()).unwrap().create(Object::new(definition, None), Existing::Refuse).unwrap();
    let session = session(&Arc::new(Catalog::open(state.path()).unwrap()));
    assert_eq!(columns(&session, "t").await, ["id", "place"]);
}

#[cfg(unix)]
#[test]
fn what_is_on_disk_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("deep/state");
    let _catalog = Catalog::open(&folder).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!((mode(&folder.join("catalog.redb")), mode(&folder.join("lock"))), (0o600, 0o600));
}

#[test]
fn of_many_who_create_a_name_exactly_one_wins() {
    let state = tempfile::tempdir().unwrap();
    for catalog in [Catalog::default(), Catalog::open(state.path()).unwrap()] {
        let barrier = Barrier::new(8);
        let create = |number: usize| {
            barrier.wait();
            catalog.create_schema(Definition::of_schema("same", &format!("user {number}"), 0), Existing::Refuse).is_ok()
        };
        let won = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || (create(number), number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).filter(|(won, _)| *won).collect::<Vec<_>>()
        });
        let [(_, winner)] = won.as_slice() else { panic!("{won:?}") };
        assert_eq!(catalog.definitions()[0].owner, format!("user {winner}"));
    }
}

#[derive(Debug)]
struct Fixed;

impl SystemSource for Fixed {
    fn snapshot(&self, viewer: &Viewer) -> SystemSnapshot {
        let query = |id, user: &str| QueryRow {
            id,
            user: user.to_owned(),
            state: "running",
            sql: "SELECT 1".into(),
            ..QueryRow::default()
        };
        let stage = |query_id, stage| StageRow { query_id, stage, state: "running", partitions: 4, ..StageRow::default() };
        let queries = [query(1, "ann"), query(2, "bob")].into_iter().filter(|query| viewer.sees(&query.user)).collect();
        SystemSnapshot { queries, stages: vec![stage(1, 0), stage(1, 1), stage(2, 0)], ..SystemSnapshot::default() }
    }
}

#[tokio::test]
async fn system_tables_are_answered_without_executors_and_join() {
    let open =
        |viewer| PlannerSession::new(SessionOptions { viewer, system: Some(Arc::new(Fixed)), ..Default::default() }).unwrap();
    let sql = "SELECT q.id, q.\"user\", sum(s.partitions) AS p FROM system.queries q JOIN windrow.system.stages s ON s.query_id = q.id \
               WHERE q.state = 'running' GROUP BY q.id, q.\"user\" ORDER BY q.id";
    let all = answer(&open(Viewer::owner()), sql).await.unwrap();
    assert!(all.contains("| 1  | ann  | 8 |") && all.contains("| 2  | bob  | 4 |"), "{all}");
    let bobs = answer(&open(Viewer { name: "bob".into(), is_admin: false }), sql).await.unwrap();
    assert!(!bobs.contains("ann") && bobs.contains("| 2  | bob  | 4 |"), "{bobs}");
    let session = open(Viewer::owner());
    run(&session, &["SET windrow.query.partitions = 7"]).await;
    let setting = answer(&session, "SELECT value FROM system.settings WHERE name = 'windrow.query.partitions'").await.unwrap();
    assert!(setting.contains("| 7 "), "{setting}");
    for table in ["executors", "tasks"] {
        assert_ne!(answer(&session, &format!("SELECT count(*) FROM system.{table}")).await.unwrap(), "job");
    }
}
