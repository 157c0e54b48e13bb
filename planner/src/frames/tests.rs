//! Plans of clients: what they may read, what bytes of theirs can do.

use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use datafusion::common::{Column, TableReference};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use windrow_core::{Error, ErrorKind};

use super::{Frames, ReadFiles, STEPS_DEPTH_MAX, Stub, frames_to_bytes, unparse};
use crate::session::{ClusterShape, Planned, PlannerSession, SessionOptions};
use crate::{Allowed, StorePolicy, Stores};

const SHAPE: ClusterShape = ClusterShape { executors: 1, slots: 1 };
const ALL: &str = "SELECT * FROM df";

async fn session(options: SessionOptions) -> PlannerSession {
    let session = PlannerSession::new(SessionOptions { accept_plans: true, ..options }).unwrap();
    session.plan("CREATE TEMPORARY TABLE t AS VALUES (1, 'x'), (2, 'y')", SHAPE).await.unwrap();
    session
}

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("column1", DataType::Int64, true), Field::new("column2", DataType::Utf8, true)]))
}

fn table(name: &str) -> LogicalPlan {
    Stub::Table(name.to_owned()).scan(columns()).unwrap()
}

fn query(text: &str, frames: Frames) -> LogicalPlan {
    Stub::Query { text: text.to_owned(), frames }.scan(columns()).unwrap()
}

fn filtered(plan: LogicalPlan, more_than: i64) -> LogicalPlan {
    let first = Expr::Column(Column::from(plan.schema().qualified_field(0)));
    LogicalPlanBuilder::from(plan).filter(first.gt(lit(more_than))).unwrap().build().unwrap()
}

fn rows() -> LogicalPlan {
    let batch = RecordBatch::try_new(
        columns(),
        vec![Arc::new(Int64Array::from(vec![Some(1), None])), Arc::new(StringArray::from(vec![None, Some("y")]))],
    );
    Stub::Rows(vec![batch.unwrap()]).scan(columns()).unwrap()
}

/// Plans in place of a client's: in its process, and as bytes.
async fn both(session: &PlannerSession, text: &str, plan: LogicalPlan) -> [Result<Planned, Error>; 2] {
    let frames = Frames::one("df", plan);
    let bytes = frames_to_bytes(&frames).unwrap();
    [session.plan_over(text, &frames, SHAPE).await, session.plan_over_bytes(text, &bytes, SHAPE).await]
}

async fn refused(session: &PlannerSession, text: &str, plan: LogicalPlan) -> Error {
    let [here, sent] = both(session, text, plan).await.map(Result::unwrap_err);
    assert_eq!((here.kind, &here.message), (sent.kind, &sent.message));
    here
}

#[tokio::test]
async fn stubs_are_what_a_text_would_find() {
    let session = session(SessionOptions::default()).await;
    let nested = Frames::one("inner", filtered(table("t"), 0));
    let plans = [
        table("t"),
        table("temp.t"),
        filtered(table("t"), 1),
        rows(),
        query("SELECT column1, column2 FROM t -- all\n", Frames::default()),
        filtered(query("SELECT * FROM \"inner\" WHERE column2 <> 'z'", nested), 0),
    ];
    for plan in plans {
        for planned in both(&session, ALL, plan.clone()).await {
            let schema = match planned.unwrap_or_else(|error| panic!("{plan}: {error}")) {
                Planned::Job(job) => job.schema,
                Planned::Rows { schema, .. } => schema,
                other => panic!("{other:?}"),
            };
            let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            assert_eq!(names, ["column1", "column2"]);
        }
    }
    let open = Stub::Table("t".to_owned()).open().unwrap();
    let described = session.describe_over(ALL, &Frames::one("df", open)).await.unwrap();
    assert_eq!(described.schema.field(0).data_type(), &DataType::Int64);
}

#[tokio::test]
async fn plans_read_only_what_the_session_may() {
    let session = session(SessionOptions { allowed: Allowed::Read, ..SessionOptions::default() }).await;
    assert_eq!(refused(&session, ALL, table("secret")).await.kind, ErrorKind::NotFound);
    assert_eq!(refused(&session, "COPY (SELECT * FROM df) TO '/tmp/x.parquet'", table("t")).await.kind, ErrorKind::Denied);
    assert_eq!(refused(&session, "CREATE TABLE public.copy AS SELECT * FROM df", table("t")).await.kind, ErrorKind::Denied);
    assert_eq!(refused(&session, "CREATE VIEW v AS SELECT * FROM df", table("t")).await.kind, ErrorKind::Unsupported);
    assert_eq!(refused(&session, ALL, query("DROP TABLE t", Frames::default())).await.kind, ErrorKind::Unsupported);
    let sneaky = query("SELECT * INTO public.copy FROM t", Frames::default());
    assert!(both(&session, ALL, sneaky).await.iter().all(Result::is_err));
}

#[tokio::test]
async fn files_are_those_that_are_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("in");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(folder.path().join("out.csv"), "a\n1\n").unwrap();
    std::fs::write(inside.join("in.csv"), "a\n1\n").unwrap();
    let stores = Arc::new(Stores::new(StorePolicy::from_lists(std::slice::from_ref(&inside), &[]).unwrap()));
    let session = session(SessionOptions { stores, ..SessionOptions::default() }).await;
    let read = |path: &std::path::Path| {
        let files = ReadFiles {
            format: super::FileFormatOptions::csv(),
            paths: vec![path.display().to_string()],
            ..ReadFiles::default()
        };
        Stub::Files(files).open().unwrap()
    };
    assert!(both(&session, ALL, read(&inside.join("in.csv"))).await.iter().all(Result::is_ok));
    assert_eq!(refused(&session, ALL, read(&folder.path().join("out.csv"))).await.kind, ErrorKind::Denied);
    assert_eq!(refused(&session, ALL, read(&folder.path().join("nothing.csv"))).await.kind, ErrorKind::Denied);
    assert_eq!(refused(&session, ALL, read(&inside.join("nothing.csv"))).await.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_plan_of_something_else_is_refused() {
    let session = session(SessionOptions::default()).await;
    // A table of the client's own process.
    let memory = MemTable::try_new(columns(), vec![vec![]]).unwrap();
    let own =
        LogicalPlanBuilder::scan(TableReference::bare("m"), provider_as_source(Arc::new(memory)), None).unwrap().build().unwrap();
    let error = session.plan_over(ALL, &Frames::one("df", own.clone()), SHAPE).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert_eq!(frames_to_bytes(&Frames::one("df", own)).unwrap_err().kind, ErrorKind::Unsupported);
    // Steps that change something.
    let explained = LogicalPlanBuilder::from(table("t")).explain(false, false).unwrap().build().unwrap();
    assert_eq!(refused(&session, ALL, explained).await.kind, ErrorKind::Unsupported);
    // A table that is another one now.
    let other = Schema::new(vec![Field::new("column1", DataType::Date32, true)]);
    let changed = Stub::Table("t".to_owned()).scan(Arc::new(other)).unwrap();
    assert!(refused(&session, ALL, changed).await.message.contains("has changed since the frame was made"));
}

#[tokio::test]
async fn too_much_is_refused() {
    let session = session(SessionOptions::default()).await;
    let deep = (0..STEPS_DEPTH_MAX as i64 + 1).fold(table("t"), filtered);
    assert_eq!(refused(&session, ALL, deep).await.kind, ErrorKind::InvalidQuery);
    let first = || Expr::Column(Column::from(table("t").schema().qualified_field(0)));
    let list = first().in_list((0..30_000_i64).map(lit).collect(), false);
    let wide = LogicalPlanBuilder::from(table("t")).filter(list).unwrap().build().unwrap();
    assert_eq!(refused(&session, ALL, wide).await.kind, ErrorKind::InvalidQuery);
    let nested = (0..40).fold(table("t"), |plan, _| query("SELECT * FROM f", Frames::one("f", plan)));
    let error = session.plan_over(ALL, &Frames::one("df", nested.clone()), SHAPE).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidQuery, "{error}");
    assert!(frames_to_bytes(&Frames::one("df", nested)).is_err());
    let long = Bytes::from(vec![0_u8; 2 << 20]);
    assert_eq!(session.plan_over_bytes(ALL, &long, SHAPE).await.unwrap_err().kind, ErrorKind::InvalidQuery);
}

#[tokio::test]
async fn bytes_are_taken_only_where_plans_are() {
    let session = PlannerSession::new(SessionOptions::default()).unwrap();
    let bytes = frames_to_bytes(&Frames::one("df", rows())).unwrap();
    let error = session.plan_over_bytes(ALL, &bytes, SHAPE).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.context.help.is_some_and(|help| help.contains("security.accept_plans")));
    assert!(
        session
            .describe_over_bytes(ALL, &Bytes::from_static(b"\xff\xff"))
            .await
            .is_err_and(|error| error.kind == ErrorKind::Unsupported)
    );
}

#[tokio::test]
async fn mutated_bytes_are_errors_and_nothing_else() {
    let session = session(SessionOptions::default()).await;
    let plan = filtered(query("SELECT * FROM f", Frames::one("f", filtered(table("t"), 3))), 1);
    let whole = frames_to_bytes(&Frames::one("df", plan)).unwrap();
    let with_rows = frames_to_bytes(&Frames::one("df", rows())).unwrap();
    let mut chance = windrow_core::rand::seeded(14);
    for _ in 0..300 {
        let mut bytes = if chance.bool() { whole.to_vec() } else { with_rows.to_vec() };
        match chance.u8(0..3) {
            0 => bytes.truncate(chance.usize(0..bytes.len())),
            1 => bytes.extend((0..chance.usize(1..40)).map(|_| chance.u8(..)).collect::<Vec<_>>()),
            _ => {
                for _ in 0..chance.usize(1..6) {
                    let at = chance.usize(0..bytes.len());
                    bytes[at] = chance.u8(..);
                }
            }
        }
        if let Err(error) = session.plan_over_bytes(ALL, &bytes.into(), SHAPE).await {
            assert_ne!(error.kind, ErrorKind::Internal, "{error:?}");
        }
    }
}

#[test]
fn frames_are_said_in_sql() {
    let nested = Frames::one("inner", table("t"));
    let frames = Frames::one("df", filtered(query("SELECT * FROM \"inner\";", nested), 1));
    let text = unparse(&frames).unwrap();
    assert!(text.starts_with("WITH \"windrow_query_0\" AS (WITH \"inner\" AS (") && text.contains("\"df\" AS ("), "{text}");
    let options = ReadFiles { paths: vec!["a".to_owned(), "b".to_owned()], ..ReadFiles::default() };
    let several = Stub::Files(options).open().unwrap();
    assert_eq!(unparse(&Frames::one("df", several)).unwrap_err().kind, ErrorKind::Unsupported);
}
