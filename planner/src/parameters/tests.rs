//! What drivers bind, to what they get.

use arrow::array::{Float64Array, Int64Array, StringArray, UInt8Array};
use arrow::util::pretty::pretty_format_batches;

use super::*;
use crate::session::{ClusterShape, Planned, PlannerSession, SessionOptions};
use crate::statement::changes_something;

const SHAPE: ClusterShape = ClusterShape { executors: 1, slots: 1 };

fn session() -> PlannerSession {
    PlannerSession::new(SessionOptions::default()).unwrap()
}

fn row(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn integer(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

fn text(value: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![value]))
}

/// The rows of a query as single-node DataFusion computes them once values are bound, each as text.
async fn answer(session: &PlannerSession, sql: &str, values: Option<&RecordBatch>) -> Vec<String> {
    let context = session.context();
    let plan = context.state().statement_to_plan(crate::sql::parse(sql).unwrap()).await.unwrap();
    let plan = bind(plan, Values::Rows(values)).unwrap();
    let batches = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
    let lines = pretty_format_batches(&batches).unwrap().to_string();
    let cells = |line: &str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ");
    lines.lines().skip(3).filter(|line| line.starts_with('|')).map(cells).collect()
}

async fn refusal(session: &PlannerSession, sql: &str, values: Option<&RecordBatch>) -> Error {
    match session.plan_with(sql, values, SHAPE).await {
        Err(error) => error,
        Ok(planned) => panic!("{sql}: {planned:?}"),
    }
}

async fn types(session: &PlannerSession, sql: &str) -> Vec<(String, DataType)> {
    let description = session.describe(sql).await.unwrap();
    description.parameters.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
}

/// A catalog's view makes a table that needs no file.
async fn with_table() -> PlannerSession {
    let session = session();
    session.plan("CREATE VIEW t AS SELECT 1 AS a, 'x' AS b, 2.5 AS c", SHAPE).await.unwrap();
    session
}

#[tokio::test]
async fn question_marks_are_numbered_outside_of_strings_comments_and_names() {
    let session = session();
    let sql = "SELECT ?, '?', \"?\" /* ? */, -- ?\n ? FROM (SELECT 7 AS \"?\")";
    let names: Vec<String> = types(&session, sql).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["$1", "$2"]);
    for mixed in ["SELECT ?, $1", "SELECT $name, ?"] {
        let error = session.describe(mixed).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidQuery);
        assert!(error.context.span.is_some(), "{error:?}");
    }
    let error = session.describe("SELECT ?, ?,\n nonsense FROM (SELECT 1 AS a)").await.unwrap_err();
    let span = error.context.span.unwrap();
    assert_eq!((span.start_line, span.start_column), (2, 2), "positions are those of the text");
}

#[tokio::test]
async fn types_are_inferred_in_the_order_of_binding() {
    let session = with_table().await;
    let sql = "SELECT ?, a FROM t WHERE b = ? AND a BETWEEN ? AND ? AND c IN (?) LIMIT ?";
    let found: Vec<DataType> = types(&session, sql).await.into_iter().map(|(_, data_type)| data_type).collect();
    let wanted = [DataType::Null, DataType::Utf8, DataType::Int64, DataType::Int64, DataType::Float64, DataType::Int64].to_vec();
    assert_eq!(found, wanted);
    let found = types(&session, "SELECT a FROM t WHERE b = $name AND a > $least").await;
    assert_eq!(found, [("$name".to_owned(), DataType::Utf8), ("$least".to_owned(), DataType::Int64)]);
    let found = types(&session, "SELECT $3 + a FROM t WHERE a = $1").await;
    let names = ["$1", "$2", "$3"].map(str::to_owned);
    assert_eq!(found.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
    assert_eq!(found[1].1, DataType::Null, "a number that is left out takes anything");
    assert!(types(&session, "PREPARE p AS SELECT ? + a FROM t").await.is_empty(), "they are for EXECUTE");
}

#[tokio::test]
async fn values_are_bound_by_position_and_named_ones_by_name() {
    let session = session();
    let values = row(vec![("0", integer(20)), ("1", integer(3))]);
    for sql in ["SELECT ? - ?", "SELECT $1 - $2"] {
        assert_eq!(answer(&session, sql, Some(&values)).await, ["17"], "{sql}");
    }
    assert_eq!(answer(&session, "SELECT $2 - $1, $1", Some(&values)).await, ["-17 20"]);
    let values = row(vec![("y", integer(3)), ("x", integer(20))]);
    assert_eq!(answer(&session, "SELECT $x - $y", Some(&values)).await, ["17"]);
    assert!(refusal(&session, "SELECT $z", Some(&values)).await.message.contains("$z"));
}

#[tokio::test]
async fn values_are_cast_where_nothing_is_lost() {
    let session = with_table().await;
    let is_one = "SELECT count(*) FROM (VALUES (1), (2)) AS v(n) WHERE n = ?";
    let small: ArrayRef = Arc::new(UInt8Array::from(vec![1]));
    for (value, count) in [(small, "1"), (text("01"), "1"), (integer(3), "0")] {
        assert_eq!(answer(&session, is_one, Some(&row(vec![("0", value)]))).await, [count]);
    }
    let half: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
    assert_eq!(answer(&session, is_one, Some(&row(vec![("0", half)]))).await, ["0"], "1.5 does not become 1");
    let error = refusal(&session, is_one, Some(&row(vec![("0", text("one"))]))).await;
    assert_eq!(error.kind, ErrorKind::InvalidQuery);
    assert!(error.message.contains("$1") && error.message.contains("Int64"), "{error}");
    let null: ArrayRef = Arc::new(Int64Array::from(vec![None]));
    assert_eq!(answer(&session, "SELECT ? IS NULL", Some(&row(vec![("0", null)]))).await, ["true"]);
}

#[tokio::test]
async fn missing_and_superfluous_values_are_refused() {
    let session = session();
    let one = row(vec![("0", integer(1))]);
    for (sql, values) in [("SELECT ?", None), ("SELECT ?, ?", Some(&one)), ("SELECT 1", Some(&one))] {
        assert_eq!(refusal(&session, sql, values).await.kind, ErrorKind::InvalidQuery, "{sql}");
    }
    let none = one.slice(0, 0);
    assert_eq!(refusal(&session, "SELECT ?", Some(&none)).await.kind, ErrorKind::InvalidQuery);
    assert_eq!(answer(&session, "SELECT 1", None).await, ["1"]);
}

#[tokio::test]
async fn a_number_that_asks_for_billions_of_values_is_refused_before_any_has_room() {
    let session = session();
    for sql in ["SELECT $4000000000", "SELECT ?4000000000", "PREPARE p AS SELECT $4000000000", "SELECT $10001"] {
        for error in [session.describe(sql).await.unwrap_err(), refusal(&session, sql, None).await] {
            assert_eq!(error.kind, ErrorKind::InvalidQuery, "{sql}");
            assert!(error.message.contains("at most 10000"), "{sql}: {error}");
        }
    }
    assert_eq!(session.describe("SELECT $10000").await.unwrap().parameters.fields().len(), 10_000);
}

#[tokio::test]
async fn several_rows_are_one_query_after_the_other() {
    let session = session();
    let values = row(vec![("0", Arc::new(Int64Array::from(vec![30, 10, 20])) as ArrayRef)]);
    assert_eq!(answer(&session, "SELECT ? + 1", Some(&values)).await, ["31", "11", "21"]);
    let sorted = "SELECT n FROM (VALUES (1), (2)) AS v(n) WHERE n < ? ORDER BY n";
    assert_eq!(refusal(&session, sorted, Some(&values)).await.kind, ErrorKind::Unsupported);
}

fn schema_of(planned: Planned) -> SchemaRef {
    match planned {
        Planned::Rows { schema, .. } => schema,
        Planned::Job(job) | Planned::Analyze(job) | Planned::Write { job, .. } => job.schema,
    }
}

#[tokio::test]
async fn a_description_is_the_schema_of_every_run() {
    let session = with_table().await;
    for sql in [
        "SELECT a, b FROM t",
        "SELECT count(*), sum(a), avg(c) FROM t",
        "SELECT a, row_number() OVER (ORDER BY a) FROM t",
        "SELECT * FROM t LEFT JOIN (SELECT 1 AS d) ON a = d",
        "SELECT a FROM t UNION ALL SELECT NULL",
        "SELECT arrow_cast('x', 'Utf8View'), [1, 2], named_struct('f', 1)",
        "SELECT a FROM t WHERE a IS NOT NULL",
        "SHOW windrow.query.partitions",
        "EXPLAIN SELECT a FROM t",
        "SHOW TABLES",
    ] {
        let description = session.describe(sql).await.unwrap();
        assert_eq!(description.schema, schema_of(session.plan(sql, SHAPE).await.unwrap()), "{sql}");
        assert!(!description.is_update && !description.schema.fields().is_empty(), "{sql}");
    }
    let sql = "SELECT a + ?, ? FROM t";
    let described = session.describe(sql).await.unwrap().schema;
    let values = row(vec![("0", integer(1)), ("1", text("x"))]);
    let schema = schema_of(session.plan_with(sql, Some(&values), SHAPE).await.unwrap());
    assert_eq!(session.describe_with(sql, Some(&values)).await.unwrap().schema, schema);
    assert_eq!(described.field(0), schema.field(0));
    assert!(schema.field(1).is_nullable() && described.field(1).data_type().is_null());
}

#[tokio::test]
async fn updates_have_no_columns_and_describing_them_changes_nothing() {
    let session = session();
    for sql in ["CREATE VIEW v AS SELECT 1", "SET windrow.query.partitions = 3", "PREPARE p AS SELECT 1 AS one"] {
        let description = session.describe(sql).await.unwrap();
        assert!(description.is_update && description.schema.fields().is_empty(), "{sql}");
        assert!(changes_something(sql));
    }
    assert!(session.describe("SELECT * FROM v").await.is_err(), "nothing was created");
    session.plan("PREPARE p AS SELECT 1 AS one", SHAPE).await.unwrap();
    let execute = session.describe("EXECUTE p").await.unwrap();
    assert!(!execute.is_update);
    assert_eq!(execute.schema.field(0).name(), "one");
}

#[tokio::test]
async fn a_second_statement_is_refused_where_it_begins() {
    let error = session().describe("SELECT ';';\n  SELECT 2").await.unwrap_err();
    let span = error.context.span.unwrap();
    assert_eq!((error.kind, span.start_line, span.start_column), (ErrorKind::InvalidQuery, 2, 3));
}
