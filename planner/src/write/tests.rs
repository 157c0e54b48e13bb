//! What a session may write, asked before anything is looked at.

use std::sync::Arc;

use windrow_core::ErrorKind;

use crate::session::{ClusterShape, PlannerSession, SessionOptions};
use crate::{Allowed, Planned, StorePolicy, Stores, Warehouse};

const SHAPE: ClusterShape = ClusterShape { executors: 1, slots: 1 };

fn session(allowed: Allowed) -> PlannerSession {
    PlannerSession::new(SessionOptions { allowed, ..SessionOptions::default() }).unwrap()
}

#[tokio::test]
async fn planning_a_write_leaves_nothing_and_needs_the_right() {
    let folder = tempfile::tempdir().unwrap();
    let copy = format!("COPY (SELECT 1 AS a) TO '{}/out/' STORED AS PARQUET", folder.path().display());
    let error = session(Allowed::Read).plan(&copy, SHAPE).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    let planned = session(Allowed::Write).plan(&copy, SHAPE).await.unwrap();
    assert!(matches!(planned, Planned::Write { .. }), "{planned:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_writes_is_not_prepared_by_sql() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = Warehouse::at(&folder.path().display().to_string(), Arc::default());
    let writer = PlannerSession::new(SessionOptions { warehouse, ..SessionOptions::default() }).unwrap();
    for sql in [
        "PREPARE p AS COPY (SELECT 1 AS a) TO '/tmp/never-written/' STORED AS PARQUET",
        "PREPARE p AS CREATE TABLE t AS SELECT 1 AS a",
    ] {
        let error = writer.plan(sql, SHAPE).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Unsupported | ErrorKind::InvalidQuery), "{sql}: {error}");
        assert!(writer.plan("EXECUTE p", SHAPE).await.is_err());
    }
}

#[tokio::test]
async fn a_new_table_is_written_where_there_is_a_folder_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display().to_string();
    let with = |warehouse| PlannerSession::new(SessionOptions { warehouse, ..SessionOptions::default() }).unwrap();
    let stored = with(Warehouse::at(&root, Arc::default()));
    let planned = stored.plan("CREATE TABLE t AS SELECT 1 AS a", SHAPE).await.unwrap();
    assert!(matches!(planned, Planned::Write { table: Some(_), .. }), "{planned:?}");
    // A temporary table is in memory wherever shared ones are, and so is every one where there is no folder.
    for (session, sql) in
        [(&stored, "CREATE TEMPORARY TABLE t AS SELECT 1 AS a"), (&with(Warehouse::default()), "CREATE TABLE t AS SELECT 1 AS a")]
    {
        let planned = session.plan(sql, SHAPE).await.unwrap();
        assert!(matches!(planned, Planned::Rows { .. }), "{sql}: {planned:?}");
    }
    // Rows of other tables do not go into memory.
    let error = with(Warehouse::default()).plan("CREATE TABLE u AS SELECT * FROM information_schema.tables", SHAPE).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert!(error.context.help.is_some_and(|help| help.contains("scheduler.warehouse")));
    std::fs::create_dir(folder.path().join("inner")).unwrap();
    let policy = StorePolicy::from_lists(&[folder.path().join("inner")], &[]).unwrap();
    let outside = with(Warehouse::at(&root, Arc::new(Stores::new(policy))));
    let error = outside.plan("CREATE TABLE t AS SELECT 1 AS a", SHAPE).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
