//! What is written, read back by single-node DataFusion: COPY and INSERT in every format, cut into more tasks than there are slots.

use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, UInt64Type};
use windrow::{ErrorKind, LocalCluster, Session};
use windrow_tests::rows::Answer;
use windrow_tests::{engine, fixtures, oracle};

fn corpus() -> &'static Path {
    fixtures::folder(env!("CARGO_TARGET_TMPDIR"))
}

fn scratch(name: &str) -> PathBuf {
    fixtures::scratch(env!("CARGO_TARGET_TMPDIR"), name)
}

struct Engine {
    cluster: LocalCluster,
    session: Session,
}

impl Engine {
    async fn start(partitions: u32) -> Self {
        let cluster = engine::cluster(2).await;
        let session = engine::session(&cluster, partitions).await;
        Self { cluster, session }
    }

    /// Runs a statement that writes and returns its count.
    async fn write(&self, sql: &str) -> u64 {
        let (schema, batches) = engine::run(&self.session, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(schema.field(0).name(), "count");
        assert_eq!(schema.field(0).data_type(), &DataType::UInt64);
        assert_eq!(batches.len(), 1);
        batches[0].column(0).as_primitive::<UInt64Type>().value(0)
    }

    async fn error(&self, sql: &str) -> windrow::Error {
        match engine::run(&self.session, sql).await {
            Ok(_) => panic!("no error: {sql}"),
            Err(error) => error,
        }
    }

    async fn answer(&self, sql: &str) -> Answer {
        let (schema, batches) = engine::run(&self.session, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        Answer::new(&schema, &batches).sorted()
    }

    async fn end(self) {
        drop(self.session);
        self.cluster.shutdown().await;
    }
}

async fn oracle_answer(sql: &str) -> Answer {
    let (schema, batches) = oracle::run(&oracle::session(), sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    Answer::new(&schema, &batches).sorted()
}

#[track_caller]
fn same(left: &Answer, right: &Answer, what: &str) {
    if let Some(difference) = left.difference(right) {
        panic!("{what}: {difference}");
    }
}

/// Every file below a folder, hidden ones and those in staging too.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

fn no_staging(folder: &Path) {
    assert!(!folder.join("_windrow").exists(), "{:?}", files(&folder.join("_windrow")));
}

/// The same rows come back from each format, at partition counts around those where counters and names change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_table_reads_back_the_same() {
    let events = format!("'{}/events/*.parquet'", corpus().display());
    let query = format!("SELECT k, grp, count(*) AS n, sum(id) AS s FROM {events} GROUP BY k, grp");
    let expected = oracle_answer(&query).await;
    for partitions in [1, 7, 127, 128, 129, 255, 256, 257] {
        let engine = Engine::start(partitions).await;
        let folder = scratch(&format!("copied-{partitions}"));
        let target = folder.join("out");
        let count = engine.write(&format!("COPY ({query}) TO '{}/' STORED AS PARQUET", target.display())).await;
        assert_eq!(count, expected.rows.len() as u64);
        let read = oracle_answer(&format!("SELECT * FROM '{}/'", target.display())).await;
        same(&read, &expected, &format!("{partitions} partitions"));
        no_staging(&target);
        // The written folder is a table for Windrow too.
        let own = engine.answer(&format!("SELECT * FROM '{}'", target.display())).await;
        same(&own, &expected, "read by Windrow");
        engine.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_ending_is_a_format() {
    let engine = Engine::start(5).await;
    let folder = scratch("endings");
    let query = format!(
        "SELECT id, name, CAST(id AS DOUBLE) / 4 AS quarter FROM '{}/events/*.parquet' WHERE name <> ''",
        corpus().display()
    );
    let expected = engine.answer(&query).await;
    for ending in ["parquet", "csv", "csv.gz", "csv.zst", "tsv", "json", "jsonl", "ndjson", "json.gz", "jsonl.zst"] {
        let path = folder.join(format!("out.{ending}"));
        let count = engine.write(&format!("COPY ({query}) TO '{}'", path.display())).await;
        assert_eq!(count, expected.rows.len() as u64, "{ending}");
        assert!(path.is_file(), "{ending} is one file");
        let own = engine.answer(&format!("SELECT id, name, quarter FROM '{}'", path.display())).await;
        assert_eq!(own.rows.len(), expected.rows.len(), "{ending}");
        same(&own, &Answer { columns: own.columns.clone(), ..expected.clone() }, ending);
    }
    no_staging(&folder);
    // A folder of compressed CSV with options of its own.
    let target = folder.join("text");
    let options = "STORED AS CSV OPTIONS (format.delimiter '|', compression 'gzip', has_header false)";
    engine.write(&format!("COPY ({query}) TO '{}/' {options}", target.display())).await;
    let written = files(&target);
    assert!(!written.is_empty() && written.iter().all(|path| path.to_string_lossy().ends_with(".csv.gz")), "{written:?}");
    engine.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_type_survives_parquet() {
    let engine = Engine::start(3).await;
    let folder = scratch("types");
    for table in ["typed", "nested"] {
        let source = format!("'{}/{table}/*.parquet'", corpus().display());
        let target = folder.join(table);
        engine.write(&format!("COPY (SELECT * FROM {source}) TO '{}/' STORED AS PARQUET", target.display())).await;
        let expected = oracle_answer(&format!("SELECT * FROM {source}")).await;
        same(&oracle_answer(&format!("SELECT * FROM '{}/'", target.display())).await, &expected, table);
    }
    let error = engine
        .error(&format!("COPY (SELECT * FROM '{}/nested/*.parquet') TO '{}'", corpus().display(), folder.join("n.csv").display()))
        .await;
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert!(error.message.contains("CSV"), "{error}");
    engine.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_of_partition_values_round_trip() {
    let engine = Engine::start(4).await;
    let folder = scratch("hive");
    let target = folder.join("out");
    // More folders than may be open at once, and a value that a path must quote.
    let query = format!(
        "SELECT id, name, concat('a/b=', CAST(id % 41 AS VARCHAR), ' %') AS word, id % 3 AS r FROM '{}/events/*.parquet'",
        corpus().display()
    );
    let count =
        engine.write(&format!("COPY ({query}) TO '{}/' STORED AS PARQUET PARTITIONED BY (word, r)", target.display())).await;
    let expected = oracle_answer(&format!("SELECT id, name, word, CAST(r AS VARCHAR) AS r FROM ({query})")).await;
    assert_eq!(count, expected.rows.len() as u64);
    let read = engine
        .answer(&format!("SELECT id, name, CAST(word AS VARCHAR) AS word, CAST(r AS VARCHAR) AS r FROM '{}/'", target.display()))
        .await;
    assert_eq!(read.rows.len(), expected.rows.len());
    let typed = Answer { columns: expected.columns.clone(), ..read };
    same(&typed, &expected, "hive");
    no_staging(&target);
    let error = engine
        .error(&format!(
            "COPY (SELECT id, NULLIF(id % 3, 0) AS r FROM '{}/events/*.parquet') TO '{}/' STORED AS PARQUET PARTITIONED BY (r)",
            corpus().display(),
            folder.join("nulls").display()
        ))
        .await;
    assert_eq!(error.kind, ErrorKind::Data, "{error}");
    engine.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inserted_rows_are_added_by_name() {
    let engine = Engine::start(5).await;
    let folder = scratch("insert");
    for (table, stored) in [("p", "PARQUET"), ("c", "CSV"), ("j", "JSON")] {
        let location = folder.join(table);
        fs::create_dir(&location).unwrap();
        engine::run(
            &engine.session,
            &format!(
                "CREATE EXTERNAL TABLE {table} (a BIGINT NOT NULL, b VARCHAR, c DOUBLE) STORED AS {stored} LOCATION '{}/'",
                location.display()
            ),
        )
        .await
        .unwrap();
        assert_eq!(engine.write(&format!("INSERT INTO {table} VALUES (1, 'x', 0.5), (2, 'y', NULL)")).await, 2);
        assert_eq!(
            engine
                .write(&format!(
                    "INSERT INTO {table} (c, a) SELECT id, id + 10 FROM '{}/events/*.parquet' WHERE id < 20",
                    corpus().display()
                ))
                .await,
            20
        );
        assert_eq!(engine.write(&format!("INSERT INTO {table} SELECT 1 AS a, 'z' AS b, 1 AS c WHERE false")).await, 0);
        let read = engine.answer(&format!("SELECT count(*), sum(a), count(b), sum(c) FROM {table}")).await;
        assert_eq!(read.rows[0].iter().map(ToString::to_string).collect::<Vec<_>>(), ["22", "393", "2", "190.5"], "{table}");
        let before = files(&location);
        let error = engine
            .error(&format!("INSERT INTO {table} SELECT NULLIF(id, 7), 'n', 0 FROM '{}/events/*.parquet'", corpus().display()))
            .await;
        assert!(error.message.contains("NOT NULL"), "{error}");
        assert_eq!(
            files(&location).iter().filter(|path| !path.to_string_lossy().contains("_windrow")).cloned().collect::<Vec<_>>(),
            before
        );
        assert_eq!(engine.write(&format!("INSERT OVERWRITE {table} VALUES (5, 'only', 5)")).await, 1);
        let read = engine.answer(&format!("SELECT a, b FROM {table}")).await;
        assert_eq!(read.rows.len(), 1, "{table}");
    }
    for sql in
        ["UPDATE p SET a = 1", "DELETE FROM p", "EXPLAIN DELETE FROM p", "EXPLAIN ANALYZE INSERT INTO p VALUES (1, 'x', 1)"]
    {
        assert_eq!(engine.error(sql).await.kind, ErrorKind::Unsupported, "{sql}");
    }
    engine.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_not_replaced_unasked() {
    let engine = Engine::start(3).await;
    let folder = scratch("taken");
    let (file, target) = (folder.join("x.parquet"), folder.join("out"));
    let copy = |rows: u32, to: &Path, more: &str| {
        let slash = if to.extension().is_none() { "/" } else { "" };
        format!("COPY (SELECT value AS v FROM generate_series(1, {rows})) TO '{}{slash}' STORED AS PARQUET {more}", to.display())
    };
    for to in [&file, &target] {
        assert_eq!(engine.write(&copy(10, to, "")).await, 10);
        let error = engine.error(&copy(20, to, "")).await;
        assert_eq!(error.kind, ErrorKind::InvalidQuery, "{error}");
        assert!(error.message.contains("exists already") && error.context.help.is_some_and(|help| help.contains("overwrite")));
        assert_eq!(oracle_answer(&format!("SELECT * FROM '{}'", to.display())).await.rows.len(), 10);
        assert_eq!(engine.write(&copy(20, to, "OPTIONS (overwrite true)")).await, 20);
        assert_eq!(oracle_answer(&format!("SELECT * FROM '{}'", to.display())).await.rows.len(), 20);
        let explained = engine.answer(&format!("EXPLAIN {}", copy(5, to, ""))).await;
        assert!(explained.rows.iter().any(|row| row[1].to_string().contains("WriteExec: format=Parquet")), "{explained:?}");
    }
    // A result without rows keeps its columns.
    let empty = folder.join("empty");
    assert_eq!(
        engine
            .write(&format!(
                "COPY (SELECT value AS v FROM generate_series(1, 9) WHERE value > 10) TO '{}/' STORED AS PARQUET",
                empty.display()
            ))
            .await,
        0
    );
    assert_eq!(oracle_answer(&format!("SELECT * FROM '{}/'", empty.display())).await.columns[0].0, "v");
    for (sql, kinds) in [
        (copy(1, &file.join("below.parquet"), ""), &[ErrorKind::NotFound, ErrorKind::Unavailable, ErrorKind::InvalidQuery][..]),
        (format!("COPY (SELECT 1 AS v) TO '{}/*.parquet'", folder.display()), &[ErrorKind::InvalidQuery]),
        ("COPY (SELECT 1 AS v) TO 'http://127.0.0.1:1/x.parquet'".to_owned(), &[ErrorKind::Unsupported]),
        ("COPY (SELECT 1 AS v) TO '/proc/nothing/here/' STORED AS PARQUET".to_owned(), &[ErrorKind::Denied, ErrorKind::NotFound]),
    ] {
        let error = engine.error(&sql).await;
        assert!(kinds.contains(&error.kind), "{sql}: {:?} {error}", error.kind);
    }
    no_staging(&folder);
    no_staging(&target);
    engine.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_added_to_folders_where_they_fit() {
    let engine = Engine::start(3).await;
    let folder = scratch("added");
    let copy = |query: &str, to: &str, more: &str| format!("COPY ({query}) TO '{}/{to}' STORED AS {more}", folder.display());
    let parquet = |query: &str| copy(query, "plain/", "PARQUET OPTIONS (append true)");
    std::fs::create_dir_all(folder.join("plain")).unwrap();
    std::fs::write(folder.join("plain/_SUCCESS"), "").unwrap();
    assert_eq!(engine.write(&parquet("SELECT value AS v, 'x' AS s FROM generate_series(1, 1000)")).await, 1000);
    assert_eq!(engine.write(&parquet("SELECT 'y' AS s, value AS v, true AS more FROM generate_series(1, 10)")).await, 10);
    assert_eq!(engine.write(&parquet("SELECT 1 AS v WHERE random() > 2")).await, 0);
    let read = oracle_answer(&format!("SELECT s, count(*) FROM '{}/plain/*.parquet' GROUP BY s", folder.display())).await;
    assert_eq!(read.rows.len(), 2, "{read:?}");
    let parts = |query: &str, keys: &str| copy(query, "parts/", &format!("PARQUET {keys} OPTIONS (append true)"));
    for _ in 0..2 {
        let sql = parts("SELECT value AS v, value % 3 AS k FROM generate_series(1, 9)", "PARTITIONED BY (k)");
        assert_eq!(engine.write(&sql).await, 9);
    }
    let read = engine.answer(&format!("SELECT v FROM '{}/parts/k=1/*.parquet'", folder.display())).await;
    assert_eq!(read.rows.len(), 6);
    let csv = |query: &str| copy(query, "text/", "CSV OPTIONS (append true)");
    assert_eq!(engine.write(&csv("SELECT 1 AS a, 2 AS b")).await, 1);
    assert_eq!(engine.write(&csv("SELECT 'text' AS a, 2 AS b")).await, 1);
    let kept = files(&folder);
    for (sql, says) in [
        (parquet("SELECT 'text' AS v, 'x' AS s"), "'v'"),
        (copy("SELECT 1 AS v, 'x' AS s", "plain/", "PARQUET PARTITIONED BY (s) OPTIONS (append true)"), "named after"),
        (parts("SELECT 1 AS v, 2 AS k", ""), "named after"),
        (parts("SELECT 1 AS v, 2 AS k, 3 AS l", "PARTITIONED BY (k, l)"), "named after"),
        (copy("SELECT 1 AS v", "plain/", "CSV OPTIONS (append true)"), "no csv"),
        (csv("SELECT 2 AS b, 1 AS a"), "a, b"),
        (copy("SELECT 1 AS v", "plain/", "PARQUET OPTIONS (append true, overwrite true)"), "exclude"),
        (copy("SELECT 1 AS v", "one.parquet", "PARQUET OPTIONS (append true)"), "one file"),
        (copy("SELECT 1 AS v", "plain/", "PARQUET OPTIONS (append 'perhaps')"), "true or false"),
    ] {
        let error = engine.error(&sql).await;
        assert!(matches!(error.kind, ErrorKind::InvalidQuery | ErrorKind::Unsupported), "{sql}: {error}");
        assert!(error.message.contains(says), "{sql}: {error}");
    }
    assert_eq!(files(&folder), kept);
    no_staging(&folder);
    engine.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_created_table_holds_what_was_selected_and_inserted() {
    let cluster = engine::cluster_with_warehouse(2, &scratch("warehouse")).await;
    let session = engine::session(&cluster, 5).await;
    let engine = Engine { cluster, session };
    let query = format!("SELECT id, name, k, grp FROM '{}/events/*.parquet'", corpus().display());
    let expected = oracle_answer(&query).await;
    assert_eq!(engine.write(&format!("CREATE TABLE copied AS {query}")).await, expected.rows.len() as u64);
    same(&engine.answer("SELECT * FROM copied").await, &expected, "created");
    assert_eq!(engine.error(&format!("CREATE TABLE copied AS {query}")).await.kind, ErrorKind::InvalidQuery);
    assert_eq!(engine.write(&format!("CREATE TABLE IF NOT EXISTS copied AS {query}")).await, 0);
    assert_eq!(engine.write("INSERT INTO copied SELECT * FROM copied").await, expected.rows.len() as u64);
    assert_eq!(engine.answer("SELECT * FROM copied").await.rows.len(), 2 * expected.rows.len());
    assert_eq!(engine.write("CREATE OR REPLACE TABLE copied AS SELECT id FROM copied WHERE id < 10").await, 20);
    assert_eq!(engine.answer("SELECT * FROM copied").await.rows.len(), 20);
    assert_eq!(engine.write("CREATE TABLE listed AS VALUES (1, 'a'), (2, 'b')").await, 2);
    assert_eq!(engine.write("CREATE TABLE bare (a INT NOT NULL, b VARCHAR)").await, 0);
    assert_eq!(engine.answer("SELECT * FROM bare").await.columns.len(), 2);
    assert_eq!(engine.write("INSERT INTO bare (a) VALUES (1), (2)").await, 2);
    let error = engine.error("INSERT INTO bare VALUES (NULL, 'x')").await;
    assert!(matches!(error.kind, ErrorKind::Data | ErrorKind::InvalidQuery) && error.message.contains("null"), "{error}");
    assert_eq!(engine.answer("SELECT a FROM bare WHERE b IS NULL").await.rows.len(), 2);
    engine::run(&engine.session, "DROP TABLE bare").await.unwrap();
    assert_eq!(engine.error("SELECT * FROM bare").await.kind, ErrorKind::NotFound);
    assert_eq!(engine.write("CREATE TABLE bare (a INT)").await, 0);
    engine.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_needs_no_setting_on_one_machine() {
    let engine = Engine::start(3).await;
    let query = format!("SELECT id, name FROM '{}/events/*.parquet'", corpus().display());
    let expected = oracle_answer(&query).await;
    for sql in ["CREATE TABLE copied AS", "CREATE TEMPORARY TABLE own AS"] {
        assert_eq!(engine.write(&format!("{sql} {query}")).await, expected.rows.len() as u64, "{sql}");
    }
    same(&engine.answer("SELECT * FROM copied").await, &expected, "shared");
    same(&engine.answer("SELECT * FROM temp.own").await, &expected, "temporary");
    // A temporary table of values is in memory.
    engine::run(&engine.session, "CREATE TEMPORARY TABLE listed AS VALUES (1, 'a')").await.unwrap();
    assert_eq!(engine.error("INSERT INTO listed VALUES (2, 'b')").await.kind, ErrorKind::Unsupported);
    assert_eq!(engine.answer("SELECT * FROM listed").await.rows.len(), 1);
    engine.end().await;
}

/// The files of a table that is dropped stay until the statements that read it are over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_is_read_to_its_end() {
    let warehouse = scratch("dropped");
    let cluster = engine::cluster_with_warehouse(2, &warehouse).await;
    let session = engine::session(&cluster, 5).await;
    let engine = Engine { cluster, session };
    assert_eq!(engine.write("CREATE TABLE t AS SELECT value AS v FROM generate_series(1, 300000)").await, 300_000);
    let mut slow = engine.session.sql("SELECT a.v, b.v FROM t a JOIN t b ON a.v % 30000 = b.v % 30000").await.unwrap();
    let mut rows = slow.next_batch().await.unwrap().unwrap().num_rows();
    engine::run(&engine.session, "DROP TABLE t").await.unwrap();
    assert_eq!(engine.error("SELECT * FROM t").await.kind, ErrorKind::NotFound);
    assert!(!files(&warehouse).is_empty(), "the files went before their readers");
    while let Some(batch) = slow.next_batch().await.unwrap() {
        rows += batch.num_rows();
    }
    assert_eq!(rows, 3_000_000);
    drop(slow);
    let limit = std::time::Duration::from_secs(10);
    windrow_tests::wait::until("no files", limit, async || files(&warehouse).is_empty().then_some(())).await;
    engine.end().await;
}
