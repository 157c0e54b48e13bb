//! The corpus of `tests/sql/*.slt`, run on single-node DataFusion, where its expected answers come from, and on Windrow with two
//! executors of one slot, seven partitions and every query cut; there once more without the files' statistics, so that measured sizes
//! decide how joins and slices run.
//!
//! `WINDROW_SLT_COMPLETE=1` writes the oracle's answers into the files; read them before they are committed.

use std::fmt;
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::prelude::SessionContext;
use sqllogictest::{AsyncDB, ColumnType, DBOutput, Record, Runner};
use windrow::{LocalCluster, Session};
use windrow_tests::{engine, fixtures, oracle, rows};

macro_rules! corpus {
    ($($file:ident)*) => {
        const FILES: &[&str] = &[$(stringify!($file)),*];
        mod slt_on_datafusion {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $file() { super::run_on_datafusion(stringify!($file)).await; })*
        }
        mod slt_on_windrow {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $file() { super::run_on_windrow(stringify!($file)).await; })*
        }
        mod slt_on_windrow_without_statistics {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $file() { super::run_without_statistics(stringify!($file)).await; })*
        }
    };
}

corpus! {
    aggregates ctes decimals_times expressions files grouping_sets joins nested not_in order_limit runtime_filters set_operations subqueries
    types windows
}

/// A result column by the kind of its type.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Boolean,
    Date,
    Integer,
    Nested,
    Other,
    Real,
    Text,
    Time,
}

impl Column {
    fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Dictionary(_, value) => Self::of(value),
            DataType::Boolean => Self::Boolean,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) => Self::Time,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            _ if data_type.is_integer() => Self::Integer,
            _ if data_type.is_numeric() => Self::Real,
            _ if data_type.is_nested() => Self::Nested,
            _ => Self::Other,
        }
    }
}

const LETTERS: [(char, Column); 8] = [
    ('B', Column::Boolean),
    ('D', Column::Date),
    ('I', Column::Integer),
    ('N', Column::Nested),
    ('?', Column::Other),
    ('R', Column::Real),
    ('T', Column::Text),
    ('P', Column::Time),
];

impl ColumnType for Column {
    fn from_char(letter: char) -> Option<Self> {
        LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, column)| column.clone())
    }

    fn to_char(&self) -> char {
        LETTERS.iter().find(|(_, column)| column == self).map_or('?', |(letter, _)| *letter)
    }
}

/// An engine's error as sqllogictest wants it.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// What a statement returned. A statement without columns is a command.
fn output(schema: &SchemaRef, batches: &[RecordBatch]) -> DBOutput<Column> {
    if schema.fields().is_empty() {
        return DBOutput::StatementComplete(0);
    }
    let types = schema.fields().iter().map(|field| Column::of(field.data_type())).collect();
    let shown = |cell: &rows::Cell| match cell.to_string() {
        text if text.is_empty() => "(empty)".to_owned(),
        text => text.replace('\n', "\\n").replace('\t', "\\t"),
    };
    let rows = rows::cells(batches).iter().map(|row| row.iter().map(shown).collect()).collect();
    DBOutput::Rows { types, rows }
}

/// The statement with the folder of its files.
fn with_data(sql: &str) -> String {
    sql.replace("$DATA", &data().to_string_lossy())
}

fn data() -> &'static Path {
    fixtures::folder(env!("CARGO_TARGET_TMPDIR"))
}

struct Oracle(SessionContext);

#[async_trait]
impl AsyncDB for Oracle {
    type Error = Refused;
    type ColumnType = Column;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Column>, Refused> {
        let (schema, batches) = oracle::run(&self.0, &with_data(sql)).await.map_err(|error| Refused(error.to_string()))?;
        Ok(output(&schema, &batches))
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "datafusion"
    }
}

struct Windrow(Session);

#[async_trait]
impl AsyncDB for Windrow {
    type Error = Refused;
    type ColumnType = Column;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Column>, Refused> {
        let answer = engine::run(&self.0, &with_data(sql)).await;
        let (schema, batches) = answer.map_err(|error| Refused(format!("{:?}: {error}", error.kind)))?;
        Ok(output(&schema, &batches))
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "windrow"
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("sql/{name}.slt"))
}

#[expect(clippy::disallowed_methods, reason = "a switch for people who write tests, not a setting")]
fn complete() -> bool {
    std::env::var("WINDROW_SLT_COMPLETE").is_ok()
}

async fn run_on_datafusion(name: &str) {
    let mut runner = Runner::new(|| async { Ok(Oracle(oracle::session())) });
    if complete() {
        let (validate, normalize) = (sqllogictest::default_validator, sqllogictest::default_normalizer);
        let strict = sqllogictest::strict_column_validator;
        runner.update_test_file(path(name), " ", validate, normalize, strict).await.unwrap();
    } else {
        run_all(name, &mut runner).await;
    }
}

async fn run_on_windrow(name: &str) {
    let cluster = engine::cluster(2).await;
    let session = engine::session(&cluster, 7).await;
    run_in(name, cluster, session).await;
}

/// No join is broadcast because of what planning knows, and partitions of little data share a slot.
async fn run_without_statistics(name: &str) {
    let cluster = engine::cluster_by_default(2).await;
    let session = engine::session(&cluster, 7).await;
    engine::run(&session, "SET datafusion.execution.collect_statistics = false").await.unwrap();
    run_in(name, cluster, session).await;
}

async fn run_in(name: &str, cluster: LocalCluster, session: Session) {
    let mut runner = Runner::new(|| async { Ok(Windrow(session.clone())) });
    run_all(name, &mut runner).await;
    drop(runner);
    drop(session);
    cluster.shutdown().await;
}

/// Runs every record of a file and reports all that fail, not only the first.
async fn run_all<D: AsyncDB<ColumnType = Column>, M: sqllogictest::MakeConnection<Conn = D>>(
    name: &str,
    runner: &mut Runner<D, M>,
) {
    runner.with_column_validator(sqllogictest::strict_column_validator);
    let records = sqllogictest::parse_file::<Column>(path(name)).unwrap();
    let queries = records.iter().filter(|record| matches!(record, Record::Query { .. } | Record::Statement { .. })).count();
    let mut failures = Vec::new();
    for record in records {
        if let Err(error) = runner.run_async(record).await {
            failures.push(error.to_string());
        }
    }
    runner.shutdown_async().await;
    assert!(queries > 0, "{name}.slt holds no statement");
    assert!(failures.is_empty(), "{} of {queries} statements of {name}.slt failed:\n\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn every_file_of_the_corpus_is_run() {
    let folder = std::fs::read_dir(path("x").parent().unwrap()).unwrap();
    let mut found = folder
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".slt")?.to_owned()))
        .collect::<Vec<_>>();
    found.sort();
    let mut listed = FILES.to_vec();
    listed.sort_unstable();
    assert_eq!(found, listed);
}
