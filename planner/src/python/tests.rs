//! Plans with Python functions, from text and from clients, to stages.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, col, lit};
use windrow_core::ErrorKind;
use windrow_core::config::QueryConfig;

use super::*;
use crate::frames::{Frames, Stub, frames_to_bytes};
use crate::{Allowed, ClusterShape, Planned, PlannerSession, SessionOptions};

const SHAPE: ClusterShape = ClusterShape { executors: 2, slots: 4 };

fn function(name: &str, style: PythonStyle) -> PythonFunction {
    PythonFunction {
        name: name.to_owned(),
        pickle: b"opaque".as_slice().into(),
        style,
        format: PythonFormat::Arrow,
        schema: Arc::new(Schema::new(vec![Field::new(name, DataType::Float64, true)])),
        batch_size: 100,
        concurrency: None,
        memory: Some(1 << 20),
        deterministic: true,
        python: "3.13.1".to_owned(),
        cloudpickle: "3.1.0".to_owned(),
    }
}

fn session(allowed: Allowed) -> PlannerSession {
    let query = QueryConfig { partitions: 3, small_input: bytesize::ByteSize::b(0), ..QueryConfig::default() };
    PlannerSession::new(SessionOptions { query, allowed, accept_plans: true, ..SessionOptions::default() }).unwrap()
}

async fn with_functions(allowed: Allowed) -> PlannerSession {
    let session = session(allowed);
    for (name, style) in [("fee", PythonStyle::Values), ("ok", PythonStyle::Values), ("middle", PythonStyle::Groups)] {
        let text = create_python_function(&function(name, style)).unwrap();
        session.plan(&text, SHAPE).await.unwrap();
    }
    session
}

/// The optimized plan and the stages, as EXPLAIN shows them.
async fn explained(session: &PlannerSession, sql: &str) -> String {
    let planned = session.plan(&format!("EXPLAIN {sql}"), SHAPE).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let Planned::Rows { batches, .. } = planned else { panic!("{sql}: not explained") };
    arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
}

const ROWS: &str = "(SELECT value AS x, value * 2 AS y, value % 3 AS k FROM generate_series(1, 1000)) AS t";

#[tokio::test]
async fn a_call_becomes_a_step_wherever_an_expression_may_stand() {
    let session = with_functions(Allowed::Read).await;
    for (sql, steps) in [
        (format!("SELECT fee(x) + 1 AS a, y FROM {ROWS}"), 1),
        // One call, because the function is the same for the same values.
        (format!("SELECT fee(x), fee(x) + fee(y) FROM {ROWS}"), 2),
        (format!("SELECT fee(fee(x + 1)) FROM {ROWS}"), 2),
        (format!("SELECT x FROM {ROWS} WHERE ok(x) > 1 AND y > 3"), 1),
        (format!("SELECT x FROM {ROWS} ORDER BY fee(x) LIMIT 3"), 1),
        (format!("SELECT k, sum(fee(x)) FROM {ROWS} GROUP BY k"), 1),
        (format!("SELECT fee(k), count(*) FROM {ROWS} GROUP BY fee(k) HAVING fee(k) > 0"), 1),
        (format!("SELECT fee(sum(x)) FROM {ROWS}"), 1),
        (format!("SELECT sum(fee(x)) OVER (PARTITION BY k) FROM {ROWS}"), 1),
        (format!("SELECT k, middle(x) AS m, count(*) FROM {ROWS} GROUP BY k"), 1),
        (format!("SELECT middle(fee(x)) FROM {ROWS}"), 2),
        (format!("SELECT x FROM {ROWS} WHERE x IN (SELECT fee(y) FROM {ROWS})"), 1),
        ("SELECT fee(1)".to_owned(), 1),
    ] {
        let plan = explained(&session, &sql).await;
        assert_eq!(plan.matches("PythonMap: ").count(), steps, "{sql}\n{plan}");
        let job = session.plan(&sql, SHAPE).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert!(matches!(job, Planned::Job(_)), "{sql}: never in the coordinator");
    }
}

#[tokio::test]
async fn rows_that_other_conditions_drop_are_not_sent_and_columns_that_nobody_needs_are_not_read() {
    let session = with_functions(Allowed::Read).await;
    let plan = explained(&session, &format!("SELECT fee(x) FROM {ROWS} WHERE ok(x) > 1 AND k = 2")).await;
    let (step, filter) = (plan.find("PythonMap: ok").unwrap(), plan.find("Int64(2)").unwrap());
    assert!(step < filter, "{plan}");
    assert!(!plan.contains("AS y"), "{plan}");
}

#[tokio::test]
async fn names_and_types_are_those_of_the_call() {
    let session = with_functions(Allowed::Read).await;
    let schema = session.schema(&format!("SELECT fee(x), middle(y) OVER () IS NULL FROM {ROWS}")).await;
    assert!(schema.is_ok_and(|schema| schema.field(0).name() == "fee(t.x)" && schema.field(0).data_type() == &DataType::Float64));
    let Planned::Job(job) = session.plan(&format!("SELECT fee(x) FROM {ROWS}"), SHAPE).await.unwrap() else { panic!("no job") };
    assert_eq!((job.schema.field(0).name().as_str(), job.schema.field(0).data_type()), ("fee(t.x)", &DataType::Float64));
}

#[tokio::test]
async fn a_call_where_it_cannot_be_taken_out_is_refused() {
    let session = with_functions(Allowed::Read).await;
    for sql in [
        format!("SELECT 1 FROM {ROWS} JOIN (VALUES (1)) AS u(z) ON fee(x) > z"),
        format!("SELECT fee(x), y FROM {ROWS} GROUP BY ROLLUP (fee(x), y)"),
        format!("SELECT middle(x) OVER (PARTITION BY k) FROM {ROWS}"),
    ] {
        let error = session.plan(&sql, SHAPE).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{sql}: {error}");
        assert!(error.message.contains("Python function"), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_function_belongs_to_its_session_and_takes_no_name_of_sql() {
    let own = with_functions(Allowed::Read).await;
    let other = session(Allowed::Everything);
    assert!(other.plan("SELECT fee(1)", SHAPE).await.is_err());
    let error = own.plan(&create_python_function(&function("sum", PythonStyle::Values)).unwrap(), SHAPE).await.unwrap_err();
    assert!(error.message.contains("'sum' is a function of SQL"), "{error}");
    let shared = create_python_function(&function("fee", PythonStyle::Values)).unwrap().replace("TEMPORARY ", "");
    assert_eq!(own.plan(&shared, SHAPE).await.unwrap_err().kind, ErrorKind::Denied);
    for text in ["zz", "00", "0"] {
        let forged = format!("CREATE TEMPORARY FUNCTION f() RETURNS TEXT LANGUAGE PYTHON AS '{text}'");
        assert_eq!(own.plan(&forged, SHAPE).await.unwrap_err().kind, ErrorKind::InvalidQuery, "{text}");
    }
}

fn rows() -> LogicalPlan {
    let columns = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    let rows = arrow::record_batch::RecordBatch::try_new(
        Arc::clone(&columns),
        vec![Arc::new(arrow::array::Int64Array::from(vec![1, 2, 3]))],
    );
    Stub::Rows(vec![rows.unwrap()]).scan(columns).unwrap()
}

fn frame() -> LogicalPlan {
    let filtered = LogicalPlanBuilder::from(rows()).filter(col("x").gt(lit(1))).unwrap().build().unwrap();
    let map = PythonMap::batches(Arc::new(filtered), Arc::new(function("score", PythonStyle::Batches))).unwrap();
    let fee = call_python(Arc::new(function("fee", PythonStyle::Values)), vec![col("score")]);
    let middle = call_python_aggregate(Arc::new(function("middle", PythonStyle::Groups)), vec![col("fee")]);
    let projected = LogicalPlanBuilder::from(map).project(vec![fee.alias("fee")]).unwrap();
    projected.aggregate(Vec::<datafusion::logical_expr::Expr>::new(), vec![middle.alias("m")]).unwrap().build().unwrap()
}

#[tokio::test]
async fn frames_with_functions_travel_as_bytes() {
    let session = session(Allowed::Read);
    let bytes = frames_to_bytes(&Frames::one("frame", frame())).unwrap();
    let text = "EXPLAIN SELECT * FROM frame";
    let planned = session.plan_over_bytes(text, &bytes, SHAPE).await.unwrap();
    let Planned::Rows { batches, .. } = planned else { panic!("not explained") };
    let plan = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    for step in
        ["PythonMap: score", "PythonMap: fee(", "PythonMap: middle(", "PythonMapExec: score, batch_size=100, memory=1048576"]
    {
        assert!(plan.contains(step), "{step}\n{plan}");
    }
    for cut in (0..bytes.len()).step_by(7) {
        assert!(session.plan_over_bytes(text, &bytes.slice(..cut), SHAPE).await.is_err());
    }
}

#[tokio::test]
async fn a_function_of_rows_is_given_the_order_of_a_query_and_no_sort_of_its_columns() {
    let session = session(Allowed::Read);
    for (is_sorted_before, sorts) in [(false, 1), (true, 2)] {
        let columns = LogicalPlanBuilder::from(rows());
        let input = if is_sorted_before { columns.sort(vec![col("x").sort(false, true)]).unwrap() } else { columns };
        let function = Arc::new(function("score", PythonStyle::Batches));
        let map = PythonMap::batches(Arc::new(input.build().unwrap()), function).unwrap();
        let sorted = LogicalPlanBuilder::from(map).sort(vec![col("score").sort(true, true)]).unwrap().build().unwrap();
        let bytes = frames_to_bytes(&Frames::one("frame", sorted)).unwrap();
        let planned = session.plan_over_bytes("EXPLAIN SELECT * FROM frame", &bytes, SHAPE).await.unwrap();
        let Planned::Rows { batches, .. } = planned else { panic!("not explained") };
        let plan = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
        assert_eq!(plan.matches("SortExec: expr=[score@0 ASC]").count(), 1, "{plan}");
        assert_eq!(plan.matches("SortExec: ").count(), sorts, "{plan}");
    }
}

#[tokio::test]
async fn what_is_not_the_same_each_time_is_said_of_its_stage() {
    use windrow_core::stage::Repeats;
    for (deterministic, wants) in [(true, false), (false, true)] {
        let session = session(Allowed::Read);
        let function = PythonFunction { deterministic, ..function("fee", PythonStyle::Values) };
        session.plan(&create_python_function(&function).unwrap(), SHAPE).await.unwrap();
        let planned = session.plan(&format!("SELECT k, sum(fee(x)) FROM {ROWS} GROUP BY k"), SHAPE).await.unwrap();
        let Planned::Job(job) = planned else { panic!("no job") };
        let varies = job.graph.stages.iter().any(|stage| stage.repeats == Repeats::Varying);
        assert_eq!(varies, wants);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    for wrong in [
        PythonFunction { batch_size: 0, ..function("f", PythonStyle::Values) },
        PythonFunction { concurrency: Some(0), ..function("f", PythonStyle::Values) },
        PythonFunction { schema: Arc::new(Schema::empty()), ..function("f", PythonStyle::Groups) },
    ] {
        assert_eq!(wrong.check().unwrap_err().kind, ErrorKind::InvalidQuery);
        assert!(PythonFunction::from_bytes(&wrong.to_bytes().unwrap()).is_err());
    }
    let right = function("f", PythonStyle::Batches);
    assert_eq!(PythonFunction::from_bytes(&right.to_bytes().unwrap()).unwrap(), right);
}
