//! Plans that are made by a producer and by hand, and bytes that are none.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::prelude::SessionContext;
use datafusion_substrait::logical_plan::producer::to_substrait_plan;
use datafusion_substrait::substrait::proto::expression::field_reference::{ReferenceType, RootReference, RootType};
use datafusion_substrait::substrait::proto::expression::literal::LiteralType;
use datafusion_substrait::substrait::proto::expression::reference_segment::{self, StructField};
use datafusion_substrait::substrait::proto::expression::{
    FieldReference, Literal, MaskExpression, ReferenceSegment, RexType, ScalarFunction, SingularOrList, mask_expression,
};
use datafusion_substrait::substrait::proto::extensions::SimpleExtensionDeclaration;
use datafusion_substrait::substrait::proto::extensions::simple_extension_declaration::{ExtensionFunction, MappingType};
use datafusion_substrait::substrait::proto::function_argument::ArgType;
use datafusion_substrait::substrait::proto::read_rel::local_files::FileOrFiles;
use datafusion_substrait::substrait::proto::read_rel::local_files::file_or_files::PathType;
use datafusion_substrait::substrait::proto::read_rel::{LocalFiles, NamedTable, ReadType};
use datafusion_substrait::substrait::proto::rel::RelType;
use datafusion_substrait::substrait::proto::rel_common::{Emit, EmitKind};
use datafusion_substrait::substrait::proto::set_rel::SetOp;
use datafusion_substrait::substrait::proto::r#type::{self, Kind, Nullability};
use datafusion_substrait::substrait::proto::{
    DdlRel, Expression, FilterRel, FunctionArgument, NamedStruct, Plan, PlanRel, ProjectRel, ReadRel, Rel, RelCommon, SetRel,
    Type, UpdateRel, Version, WriteRel, plan_rel,
};
use prost::Message;
use windrow_core::cases::Cases;
use windrow_core::config::QueryConfig;
use windrow_core::{Error, ErrorKind};

use crate::session::{ClusterShape, Planned, PlannerSession, SessionOptions};
use crate::{Allowed, Catalog, StorePolicy, Stores, check_substrait_version};

const SHAPE: ClusterShape = ClusterShape { executors: 1, slots: 1 };
const ROWS: &str = "AS SELECT * FROM (VALUES (1, 'x'), (2, 'y'), (3, NULL)) AS v (a, b)";

/// A session with the table `t (a BIGINT, b VARCHAR)`.
async fn session(options: SessionOptions) -> PlannerSession {
    let session = PlannerSession::new(SessionOptions { accept_plans: true, ..options }).unwrap();
    session.plan(&format!("CREATE TEMPORARY TABLE t {ROWS}"), SHAPE).await.unwrap();
    session
}

/// The plan that DataFusion makes of a text over the same table.
async fn produced(sql: &str) -> Plan {
    let context = SessionContext::new();
    context.sql(&format!("CREATE TABLE t {ROWS}")).await.unwrap();
    let plan = context.sql(sql).await.unwrap().into_unoptimized_plan();
    *to_substrait_plan(&plan, &context.state()).unwrap()
}

fn bytes(plan: &Plan) -> Bytes {
    plan.encode_to_vec().into()
}

fn relation(kind: RelType) -> Rel {
    Rel { rel_type: Some(kind) }
}

fn plan_of(relation: Rel) -> Plan {
    let relation = PlanRel { rel_type: Some(plan_rel::RelType::Rel(relation)) };
    Plan { relations: vec![relation], ..Plan::default() }
}

fn int64(nullability: Nullability) -> Type {
    let kind = r#type::I64 { nullability: nullability.into(), ..Default::default() };
    Type { kind: Some(Kind::I64(kind)) }
}

/// A read of `kind` that declares the column `a`.
fn read(kind: ReadType) -> ReadRel {
    let columns = r#type::Struct { types: vec![int64(Nullability::Nullable)], ..Default::default() };
    let base_schema = Some(NamedStruct { names: vec!["a".to_owned()], r#struct: Some(columns) });
    ReadRel { base_schema, read_type: Some(kind), ..ReadRel::default() }
}

fn table(names: &[&str]) -> Rel {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    relation(RelType::Read(Box::new(read(ReadType::NamedTable(NamedTable { names, advanced_extension: None })))))
}

fn column(field: i32) -> Expression {
    let field = StructField { field, child: None };
    let segment = ReferenceSegment { reference_type: Some(reference_segment::ReferenceType::StructField(Box::new(field))) };
    let reference = FieldReference {
        reference_type: Some(ReferenceType::DirectReference(segment)),
        root_type: Some(RootType::RootReference(RootReference {})),
    };
    Expression { rex_type: Some(RexType::Selection(Box::new(reference))) }
}

fn literal(literal_type: LiteralType) -> Expression {
    Expression { rex_type: Some(RexType::Literal(Literal { literal_type: Some(literal_type), ..Literal::default() })) }
}

/// A call of the only function that [`calling`] declares.
fn call(arguments: Vec<Expression>) -> Expression {
    let arguments = arguments.into_iter().map(|value| FunctionArgument { arg_type: Some(ArgType::Value(value)) }).collect();
    Expression { rex_type: Some(RexType::ScalarFunction(ScalarFunction { arguments, ..ScalarFunction::default() })) }
}

fn calling(name: &str, plan: Plan) -> Plan {
    let function = ExtensionFunction { name: name.to_owned(), ..ExtensionFunction::default() };
    let extensions = vec![SimpleExtensionDeclaration { mapping_type: Some(MappingType::ExtensionFunction(function)) }];
    Plan { extensions, ..plan }
}

fn project(input: Rel, expressions: Vec<Expression>) -> Rel {
    relation(RelType::Project(Box::new(ProjectRel { input: Some(Box::new(input)), expressions, ..ProjectRel::default() })))
}

async fn planned(session: &PlannerSession, plan: &Plan) -> Result<Planned, Error> {
    session.plan_substrait(&bytes(plan), None, SHAPE).await
}

/// The error of a plan, which running it and describing it have in common.
async fn refused(session: &PlannerSession, plan: &Bytes) -> Error {
    let error = session.plan_substrait(plan, None, SHAPE).await.unwrap_err();
    let described = session.describe_substrait(plan, None).await.unwrap_err();
    assert_eq!((error.kind, &error.message), (described.kind, &described.message));
    error
}

/// Whether it still plans for somebody.
async fn still_answers(session: &PlannerSession) {
    assert_eq!(schema(&planned(session, &plan_of(table(&["t"]))).await.unwrap()).fields().len(), 1);
}

fn schema(planned: &Planned) -> SchemaRef {
    match planned {
        Planned::Job(job) => Arc::clone(&job.schema),
        Planned::Rows { schema, .. } => Arc::clone(schema),
        other => panic!("not a query: {other:?}"),
    }
}

fn names(schema: &SchemaRef) -> Vec<&str> {
    schema.fields().iter().map(|field| field.name().as_str()).collect()
}

#[tokio::test]
async fn a_plan_is_the_query_that_it_was_made_of() {
    let session = session(SessionOptions::default()).await;
    for sql in [
        "SELECT a + 1 AS c, b FROM t WHERE a > 1 AND b IS NOT NULL",
        "SELECT b, count(*) AS n, sum(a) AS s FROM t GROUP BY b",
        "SELECT x.a, y.b FROM t AS x JOIN t AS y ON x.a = y.a",
        "SELECT a, row_number() OVER (PARTITION BY b ORDER BY a) AS r FROM t",
        "SELECT a FROM t WHERE a IN (SELECT max(a) FROM t) ORDER BY a LIMIT 2",
    ] {
        let plan = bytes(&produced(sql).await);
        let planned = session.plan_substrait(&plan, None, SHAPE).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let described = session.describe_substrait(&plan, None).await.unwrap();
        assert_eq!((&described.schema, described.is_update), (&schema(&planned), false), "{sql}");
        assert!(described.parameters.fields().is_empty(), "{sql}");
        assert_eq!(names(&described.schema), names(&session.schema(sql).await.unwrap()), "{sql}");
    }
}

#[tokio::test]
async fn what_a_read_says_beside_its_table_counts() {
    let session = session(SessionOptions::default()).await;
    // The consumer of DataFusion leaves this out of views, and of rows in the plan.
    session.plan("CREATE TEMPORARY VIEW v AS SELECT b, a, a AS c FROM t", SHAPE).await.unwrap();
    let RelType::Read(mut read) = table(&["v"]).rel_type.unwrap() else { panic!() };
    let columns = vec![int64(Nullability::Nullable), int64(Nullability::Nullable)];
    read.base_schema = Some(NamedStruct {
        names: vec!["c".to_owned(), "a".to_owned()],
        r#struct: Some(r#type::Struct { types: columns, ..Default::default() }),
    });
    let item = |field| mask_expression::StructItem { field, child: None };
    let select = Some(mask_expression::StructSelect { struct_items: vec![item(1)] });
    read.projection = Some(MaskExpression { select, ..MaskExpression::default() });
    read.filter = Some(Box::new(call(vec![column(0), literal(LiteralType::I64(1))])));
    let plan = calling("gt", plan_of(relation(RelType::Read(read.clone()))));
    let Planned::Job(job) = planned(&session, &plan).await.unwrap() else { panic!() };
    assert_eq!(names(&job.schema), ["a"]);
    let stages = format!("{:?}", job.graph.stages.iter().map(|stage| &stage.display).collect::<Vec<_>>());
    assert!(stages.contains("> 1"), "the filter is gone: {stages}");
    read.projection.as_mut().unwrap().select.as_mut().unwrap().struct_items = vec![item(2)];
    let plan = calling("gt", plan_of(relation(RelType::Read(read))));
    assert_eq!(refused(&session, &bytes(&plan)).await.kind, ErrorKind::InvalidQuery);
}

#[tokio::test]
async fn a_plan_for_other_columns_is_refused() {
    let session = session(SessionOptions::default()).await;
    let RelType::Read(read) = table(&["t"]).rel_type.unwrap() else { panic!() };
    let with = |name: &str, column: Type| {
        let columns = r#type::Struct { types: vec![column], ..Default::default() };
        let base_schema = Some(NamedStruct { names: vec![name.to_owned()], r#struct: Some(columns) });
        bytes(&plan_of(relation(RelType::Read(Box::new(ReadRel { base_schema, ..(*read).clone() })))))
    };
    let text = |nullability: Nullability| {
        let kind = r#type::String { nullability: nullability.into(), ..Default::default() };
        Type { kind: Some(Kind::String(kind)) }
    };
    for (plan, says) in [
        (with("z", int64(Nullability::Nullable)), "no column named 'z'"),
        (with("b", text(Nullability::Required)), "may be null"),
        (with("a", text(Nullability::Nullable)), "is Int64, not Utf8"),
    ] {
        let error = refused(&session, &plan).await;
        assert!(error.kind == ErrorKind::InvalidQuery && error.message.contains(says), "{error}");
    }
    let error = refused(&session, &bytes(&plan_of(table(&["tt"])))).await;
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::NotFound, "no table named 'tt'"));
    assert_eq!(error.context.suggestion.as_deref(), Some("t"));
}

#[tokio::test]
async fn versions_that_are_not_read_are_named() {
    let session = session(SessionOptions::default()).await;
    let (oldest, newest) = session.substrait_versions().unwrap();
    let of = |major, minor| {
        let version = Version { major_number: major, minor_number: minor, ..Version::default() };
        bytes(&Plan { version: Some(version), ..plan_of(table(&["t"])) })
    };
    let minor = newest.split('.').nth(1).unwrap().parse::<u32>().unwrap();
    for plan in [of(0, 29), of(0, minor), of(0, 0), bytes(&plan_of(table(&["t"])))] {
        assert!(session.plan_substrait(&plan, None, SHAPE).await.is_ok());
    }
    for plan in [of(0, 28), of(0, minor + 1), of(1, 0), of(u32::MAX, u32::MAX)] {
        let error = refused(&session, &plan).await;
        assert!(error.kind == ErrorKind::Unsupported && error.message.contains(&oldest) && error.message.contains(&newest));
    }
    // As it may be said beside a plan.
    for version in ["", "0.54.0", "v0.29", oldest.as_str(), newest.as_str()] {
        check_substrait_version(version).unwrap();
    }
    for (version, kind) in [("0.28.9", ErrorKind::Unsupported), ("1.0", ErrorKind::Unsupported), ("new", ErrorKind::InvalidQuery)]
    {
        assert_eq!(check_substrait_version(version).unwrap_err().kind, kind, "{version}");
    }
}

#[tokio::test]
async fn parameters_are_typed_by_the_plan_and_bound() {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::record_batch::RecordBatch;
    let session = session(SessionOptions::default()).await;
    let plan = bytes(&produced("SELECT a FROM t WHERE a > $1").await);
    let described = session.describe_substrait(&plan, None).await.unwrap();
    assert_eq!(described.parameters.field(0).name(), "$1");
    let row = |values: Vec<i64>| RecordBatch::try_from_iter([("0", Arc::new(Int64Array::from(values)) as ArrayRef)]).unwrap();
    assert!(session.plan_substrait(&plan, Some(&row(vec![1])), SHAPE).await.is_ok());
    assert!(session.plan_substrait(&plan, Some(&row(vec![1, 2])), SHAPE).await.is_ok());
    let error = session.plan_substrait(&plan, None, SHAPE).await.unwrap_err();
    assert!(error.message.contains("$1 has no value"), "{error}");
    let without = bytes(&produced("SELECT a FROM t").await);
    let error = session.plan_substrait(&without, Some(&row(vec![1])), SHAPE).await.unwrap_err();
    assert!(error.kind == ErrorKind::InvalidQuery && error.message.contains("0 parameters"), "{error}");
}

#[tokio::test]
async fn security_m12_plans_are_refused_unless_they_are_accepted() {
    let session = PlannerSession::new(SessionOptions::default()).unwrap();
    assert_eq!(session.substrait_versions(), None);
    let error = refused(&session, &bytes(&plan_of(table(&["t"])))).await;
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.context.help.unwrap().contains("--accept-plans"));
    // Not even looked at.
    assert_eq!(refused(&session, &Bytes::from_static(b"\xff\xff")).await.message, error.message);
}

#[tokio::test]
async fn security_m12_bytes_that_are_cut_or_flipped_are_an_error_or_another_plan() {
    let session = session(SessionOptions::default()).await;
    let plan = bytes(&produced("SELECT sum(a) AS s FROM t WHERE b = 'x'").await);
    assert!(session.plan_substrait(&plan, None, SHAPE).await.is_ok());
    let mut cases = Cases::of("M12");
    let mut wrong = Vec::new();
    let mut tried = |what: String, result: Result<Planned, Error>| {
        let expected = [ErrorKind::InvalidQuery, ErrorKind::NotFound, ErrorKind::Unsupported, ErrorKind::Data];
        match result {
            Err(error) if !expected.contains(&error.kind) || error.message.len() > 4_096 => {
                wrong.push(format!("{what}: {:?}: {error}", error.kind));
            }
            _ => {}
        }
    };
    for length in 0..plan.len() {
        tried(format!("cut at {length}"), session.plan_substrait(&plan.slice(..length), None, SHAPE).await);
        for bits in [1 << (length % 8), 0xff] {
            let mut flipped = plan.to_vec();
            flipped[length] ^= bits;
            tried(format!("byte {length} ^ {bits}"), session.plan_substrait(&flipped.into(), None, SHAPE).await);
        }
        cases.case(format!("byte {length}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    still_answers(&session).await;
    cases.are(174);
}

#[tokio::test]
async fn security_m12_plans_that_nest_or_hold_too_much_are_refused() {
    let session = session(SessionOptions::default()).await;
    let t = || table(&["t"]);
    let nested = |depth: usize| {
        (0..depth).fold(t(), |input, _level| {
            let condition = Some(Box::new(literal(LiteralType::Boolean(true))));
            relation(RelType::Filter(Box::new(FilterRel { input: Some(Box::new(input)), condition, ..FilterRel::default() })))
        })
    };
    let sets = |count: usize| {
        let inputs = vec![t(); count];
        relation(RelType::Set(SetRel { inputs, op: SetOp::UnionAll.into(), ..SetRel::default() }))
    };
    let list = |count: usize| {
        let options = (0..count).map(|value| literal(LiteralType::I64(value as i64))).collect();
        let list = SingularOrList { value: Some(Box::new(column(0))), options };
        project(t(), vec![Expression { rex_type: Some(RexType::SingularOrList(Box::new(list))) }])
    };
    assert!(planned(&session, &plan_of(nested(20))).await.is_ok());
    assert!(planned(&session, &plan_of(sets(100))).await.is_ok());
    assert!(planned(&session, &plan_of(list(1_000))).await.is_ok());
    // Each level is two messages: deeper than any stack if nobody counted.
    // Written from its end, where the innermost message is.
    let mut deep: Vec<u8> = Vec::new();
    while deep.len() < 1_000_000 {
        let mut start = vec![0x12];
        prost::encoding::encode_varint(deep.len() as u64, &mut start);
        deep.extend(start.into_iter().rev());
    }
    // A plan's third field is a tree, whose first is a relation.
    for tag in [0x0a, 0x1a] {
        let mut start = vec![tag];
        prost::encoding::encode_varint(deep.len() as u64, &mut start);
        deep.extend(start.into_iter().rev());
    }
    deep.reverse();
    let text = |length: usize| literal(LiteralType::String("x".repeat(length)));
    let made = |name: &str, arguments: Vec<Expression>| bytes(&calling(name, plan_of(project(t(), vec![call(arguments)]))));
    let many = |count: usize| project(t(), vec![literal(LiteralType::Boolean(true)); count]);
    let deep_list = (0..4).fold(list(15_000), |inner, _level| {
        let RelType::Project(list) = list(15_000).rel_type.unwrap() else { panic!() };
        project(inner, list.expressions)
    });
    let repeated = |count: usize| {
        let emit_kind = Some(EmitKind::Emit(Emit { output_mapping: vec![0; count] }));
        let common = Some(RelCommon { emit_kind, ..RelCommon::default() });
        relation(RelType::Project(Box::new(ProjectRel { input: Some(Box::new(t())), common, ..ProjectRel::default() })))
    };
    assert!(planned(&session, &plan_of(repeated(50))).await.is_ok());
    let mut cases = Cases::of("M12");
    for (what, plan, says) in [
        ("100 levels", bytes(&plan_of(nested(100))), "recursion limit"),
        ("a megabyte of levels", Bytes::from(deep), "recursion limit"),
        ("two megabytes", made("concat", vec![text(1 << 20), text(1 << 20)]), "bytes of a plan"),
        ("1,001 inputs", bytes(&plan_of(sets(1_001))), "inputs of unions"),
        ("20,001 values", bytes(&plan_of(list(20_001))), "values in one list"),
        ("60,000 expressions", bytes(&plan_of(deep_list)), "expressions, tables and queries"),
        ("5,000 columns of one name", bytes(&plan_of(many(5_000))), "comparisons of columns"),
        ("a column 500,000 times", bytes(&plan_of(repeated(500_000))), "comparisons of columns"),
        ("a value of 10^12 letters", made("repeat", vec![text(1), literal(LiteralType::I64(1_000_000_000_000))]), "elements"),
        ("a pattern of 20 KB", made("regexp_like", vec![text(1), text(20_000)]), "regular expression"),
        ("a name of 5 KB", bytes(&plan_of(table(&[&"n".repeat(5_000)]))), "bytes in one name"),
    ] {
        let error = refused(&session, &plan).await;
        assert!(error.kind == ErrorKind::InvalidQuery && error.message.contains(says), "{what}: {error}");
        cases.case(what);
        still_answers(&session).await;
    }
    cases.are(11);
}

/// Thirty levels of a column added to itself: as names they would be a gigabyte.
#[tokio::test]
async fn security_m12_names_of_columns_do_not_grow_with_the_plan() {
    let session = session(SessionOptions::default()).await;
    let plan = (0..30).fold(table(&["t"]), |input, level| project(input, vec![call(vec![column(level), column(level)])]));
    let schema = schema(&planned(&session, &calling("add", plan_of(plan))).await.unwrap());
    assert_eq!(schema.fields().len(), 31);
    assert!(names(&schema).iter().all(|name| name.len() < 1_000));
}

#[tokio::test]
async fn security_m12_a_plan_reaches_no_file_that_its_session_may_not_read() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("rows.csv"), "a\n1\n").unwrap();
    let stores = Arc::new(Stores::new(StorePolicy::from_lists(&[root.path().to_owned()], &[]).unwrap()));
    let query = QueryConfig { directory: root.path().display().to_string(), ..QueryConfig::default() };
    let session = session(SessionOptions { stores, query, ..SessionOptions::default() }).await;
    // A name is what it is in SQL.
    let inside = root.path().join("rows.csv");
    for name in ["rows.csv", inside.to_str().unwrap()] {
        assert!(planned(&session, &plan_of(table(&[name]))).await.is_ok(), "{name}");
    }
    let places = ["/etc/passwd", "file:///etc/passwd", "../x.csv", "http://169.254.169.254/x.csv", "s3://bucket/x.parquet"];
    let mut cases = Cases::of("M12");
    for place in places {
        let error = refused(&session, &bytes(&plan_of(table(&[place])))).await;
        assert_eq!(error.kind, ErrorKind::Denied, "{place}: {error}");
        cases.case(format!("the table {place}"));
        let path = |kind: PathType| {
            let items = vec![FileOrFiles { path_type: Some(kind), ..FileOrFiles::default() }];
            let files = ReadType::LocalFiles(LocalFiles { items, advanced_extension: None });
            bytes(&plan_of(relation(RelType::Read(Box::new(read(files))))))
        };
        // Not even what is allowed, nor a table whose name is that of the file.
        for plan in [path(PathType::UriFile(place.to_owned())), path(PathType::UriPathGlob(place.to_owned()))] {
            let error = refused(&session, &plan).await;
            assert!(error.kind == ErrorKind::Unsupported && error.message.contains("files"), "{place}: {error}");
        }
        cases.case(format!("the file {place}"));
    }
    let allowed = ReadType::LocalFiles(LocalFiles {
        items: vec![FileOrFiles { path_type: Some(PathType::UriFile("file:///t".to_owned())), ..FileOrFiles::default() }],
        advanced_extension: None,
    });
    let error = refused(&session, &bytes(&plan_of(relation(RelType::Read(Box::new(read(allowed))))))).await;
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    still_answers(&session).await;
    cases.are(5 * 2);
    assert!(Path::new("/etc/passwd").exists());
}

#[tokio::test]
async fn security_m12_a_plan_writes_nothing_whoever_sends_it() {
    let catalog: Arc<Catalog> = Arc::default();
    let mut cases = Cases::of("M12");
    for (role, allowed) in [("reader", Allowed::Read), ("writer", Allowed::Write), ("admin", Allowed::Everything)] {
        let options = SessionOptions { allowed, catalog: Arc::clone(&catalog), ..SessionOptions::default() };
        let session = session(options).await;
        let input = || Some(Box::new(table(&["t"])));
        for (what, kind) in [
            ("write", RelType::Write(Box::new(WriteRel { input: input(), ..WriteRel::default() }))),
            ("ddl", RelType::Ddl(Box::new(DdlRel { view_definition: input(), ..DdlRel::default() }))),
            ("update", RelType::Update(Box::<UpdateRel>::default())),
        ] {
            for (place, relation) in [("at the top", relation(kind.clone())), ("inside", project(relation(kind), vec![]))] {
                let error = refused(&session, &bytes(&plan_of(relation))).await;
                assert!(error.kind == ErrorKind::Unsupported && error.message.contains("only query"), "{error}");
                cases.case(format!("{what} {place} by a {role}"));
            }
        }
        still_answers(&session).await;
    }
    cases.are(3 * 3 * 2);
}

#[tokio::test]
async fn security_m12_a_plan_sees_the_tables_of_its_own_session() {
    let catalog: Arc<Catalog> = Arc::default();
    let options = || SessionOptions { catalog: Arc::clone(&catalog), ..SessionOptions::default() };
    let (mine, other) = (session(options()).await, session(options()).await);
    mine.plan("CREATE TEMPORARY VIEW secret AS SELECT * FROM t", SHAPE).await.unwrap();
    let mut cases = Cases::of("M12");
    for names in [&["secret"][..], &["temp", "secret"], &["windrow", "temp", "secret"], &["\u{1}search", "secret"]] {
        let plan = bytes(&plan_of(table(names)));
        assert!(mine.plan_substrait(&plan, None, SHAPE).await.is_ok(), "{names:?}");
        let error = refused(&other, &plan).await;
        assert_eq!(error.kind, ErrorKind::NotFound, "{names:?}: {error}");
        cases.case(format!("{names:?}"));
    }
    cases.are(4);
}
