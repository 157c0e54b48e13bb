//! Lazy dataframes in one process: what they compute, compared with SQL on one node, and what they do not do before they are asked.

use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use futures::stream;
use windrow::frame::functions::sum;
use windrow::frame::{
    DataFrame, Explain, FileFormat, FileFormatOptions, ReadFiles, Sample, SampleSize, Write, WriteMode, col, lit,
};
use windrow::{ErrorKind, Session, connect};
use windrow_tests::frames::{self, Tables, cases, rows};
use windrow_tests::rows::Answer;
use windrow_tests::{engine, fixtures, oracle, tpch, tpch_frames};

fn data() -> &'static Path {
    fixtures::folder(env!("CARGO_TARGET_TMPDIR"))
}

async fn compare(partitions: u32, empty: bool) {
    let cluster = engine::cluster(2).await;
    let session = engine::session(&cluster, partitions).await;
    let tables = Tables::open(&session, data(), empty).await.unwrap();
    let oracle = frames::oracle(data(), empty).await.unwrap();
    let mut wrong = Vec::new();
    let cases = cases();
    for case in &cases {
        wrong.extend(case.difference(&tables, &oracle, empty).await);
    }
    drop((tables, session));
    cluster.shutdown().await;
    assert!(cases.len() >= 60, "{} cases", cases.len());
    assert!(wrong.is_empty(), "{} of {} frames are wrong\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_equal_sql_in_1_partition() {
    compare(1, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_equal_sql_in_3_partitions() {
    compare(3, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_equal_sql_in_128_partitions() {
    compare(128, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_equal_sql_in_257_partitions() {
    compare(257, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_equal_sql_without_rows() {
    compare(3, true).await;
}

async fn events(session: &Session) -> DataFrame {
    session.read(files("events/")).await.unwrap()
}

fn files(path: &str) -> ReadFiles {
    ReadFiles { paths: vec![data().join(path).display().to_string()], ..ReadFiles::default() }
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_runs_before_an_action() {
    let session = connect(None).await.unwrap();
    let frame = events(&session).await;
    let frame = frame.filter(col("v").gt(lit(1))).unwrap().aggregate(vec![col("grp")], vec![sum(col("v"))]).unwrap();
    let sorted = frame.sort(vec![col("grp").sort(true, false)]).unwrap();
    let _shown = format!("{sorted:?} {:?}", sorted.schema());
    assert!(session.status().await.unwrap().jobs.is_empty(), "a job ran");
    assert_eq!(sorted.count().await.unwrap(), 7);
    assert!(!session.status().await.unwrap().jobs.is_empty());
    drop((frame, sorted));
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_errors_that_say_what_was_meant() {
    let session = connect(None).await.unwrap();
    let frame = events(&session).await;
    let missing = frame.select(vec![col("amuont")]).unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
    assert_eq!(missing.context.suggestion.as_deref(), Some("amount"));
    let upper = frame.filter(col("GRP").eq(lit("a"))).unwrap_err();
    assert_eq!((upper.kind, upper.context.suggestion.as_deref()), (ErrorKind::NotFound, Some("grp")));
    let twice = frame.select(vec![col("id"), col("k").alias("id")]).unwrap_err();
    assert!(twice.message.contains("'id'"), "{twice}");
    let loose = frame.aggregate(vec![col("grp")], vec![col("v")]).unwrap_err();
    assert!(loose.message.contains("'v' is neither a key nor in an aggregate"), "{loose}");
    let no_boolean = frame.filter(col("v") + lit(1)).unwrap_err();
    assert_eq!(no_boolean.kind, ErrorKind::InvalidQuery);
    let no_table = session.table("evnets").await.unwrap_err();
    assert_eq!(no_table.kind, ErrorKind::NotFound, "{no_table}");
    let no_file = session.read(files("nowhere/")).await.unwrap_err();
    assert_eq!(no_file.kind, ErrorKind::NotFound, "{no_file}");
    let no_query = session.frame("SET windrow.query.partitions = 2").await.unwrap_err();
    assert_eq!(no_query.kind, ErrorKind::Unsupported, "{no_query}");
    let unordered = frame.tail(2).unwrap_err();
    assert_eq!(unordered.kind, ErrorKind::Unsupported);
    drop(frame);
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_and_frames_read_each_other() {
    let session = connect(None).await.unwrap();
    let frame = events(&session).await.filter(col("id").lt(lit(10))).unwrap();
    let sum = session.frame_with("SELECT sum(id) AS s FROM df", &[("df", &frame)]).await.unwrap();
    assert_eq!(numbers(&sum.collect().await.unwrap()), [45]);
    // A frame over a query over a frame, and a name in upper case.
    let again = session.frame_with("SELECT s + 1 AS t FROM Sums -- all\n;", &[("Sums", &sum)]).await.unwrap();
    let again = again.select(vec![(col("t") * lit(2)).alias("T")]).unwrap();
    assert_eq!(numbers(&again.collect().await.unwrap()), [92]);
    // A frame's name comes before that of a table, and only in its own query.
    session.sql("CREATE TEMPORARY TABLE df AS VALUES (7)").await.unwrap().collect().await.unwrap();
    assert_eq!(numbers(&sum.collect().await.unwrap()), [45]);
    assert_eq!(numbers(&session.table("df").await.unwrap().collect().await.unwrap()), [7]);
    let view = session.frame_with("CREATE VIEW v AS SELECT * FROM df", &[("df", &frame)]).await.unwrap_err();
    assert_eq!(view.kind, ErrorKind::Unsupported, "{view}");
    drop((frame, sum, again));
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_read_as_they_are_described() {
    let session = connect(None).await.unwrap();
    let all = events(&session).await.count().await.unwrap();
    assert_eq!(all, 1200);
    let hive = ReadFiles {
        hive_partitions: vec![("year".to_owned(), DataType::Int32), ("month".to_owned(), DataType::Int32)],
        ..files("hive/")
    };
    let hive = session.read(hive).await.unwrap();
    assert_eq!(hive.schema().field_with_name("year").unwrap().data_type(), &DataType::Int32);
    let late = hive.filter(col("year").eq(lit(2025))).unwrap();
    assert!(late.count().await.unwrap() > 0);
    assert!(late.count().await.unwrap() < hive.count().await.unwrap());
    drop((hive, late));
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_the_client_are_frames_few_or_many() {
    let session = connect(None).await.unwrap();
    for count in [0_i64, 3, 100_000] {
        let batches = session.sql(&format!("SELECT value AS n FROM generate_series(1, {count})")).await.unwrap();
        let schema = batches.schema();
        let batches = batches.collect().await.unwrap();
        let frame = session.from_batches(schema, stream::iter(batches.into_iter().map(Ok))).await.unwrap();
        assert_eq!(frame.columns(), ["n"]);
        let sum = frame.select(vec![sum(col("n")).alias("s")]).unwrap().collect().await.unwrap();
        let expected = count * (count + 1) / 2;
        assert_eq!(numbers(&sum).first().copied().unwrap_or_default(), expected);
        assert_eq!(frame.count().await.unwrap(), u64::try_from(count).unwrap());
        assert_eq!(frame.is_empty().await.unwrap(), count == 0);
    }
    session.close().await;
}

async fn temporary_tables(session: &Session) -> usize {
    let sql = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'temp'";
    let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
    usize::try_from(numbers(&batches)[0]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_persisted_frame_is_computed_once_and_goes_with_its_last_reader() {
    let session = connect(None).await.unwrap();
    let frame = events(&session).await.with_columns(vec![windrow::frame::functions::random().alias("r")]).unwrap();
    let kept = frame.persist().await.unwrap();
    assert_eq!(kept.schema().fields().len(), 10);
    assert_eq!(kept.schema().field(1).data_type(), frame.schema().field(1).data_type());
    let sums = kept.select(vec![sum(col("r"))]).unwrap();
    drop(kept);
    let one = rows(&sums).await.unwrap();
    assert_eq!(one.difference(&rows(&sums).await.unwrap()), None, "it was computed again");
    assert_eq!(temporary_tables(&session).await, 1);
    drop(sums);
    windrow_tests::wait::until("the table is gone", std::time::Duration::from_secs(20), async || {
        (temporary_tables(&session).await == 0).then_some(())
    })
    .await;
    drop(frame);
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_written_into_files() {
    let session = connect(None).await.unwrap();
    let folder = fixtures::scratch(env!("CARGO_TARGET_TMPDIR"), "frames-written");
    let frame = events(&session).await.select(vec![col("id"), col("grp")]).unwrap().drop_nulls(None).unwrap();
    let rows = frame.count().await.unwrap();
    let path = format!("{}/parts/", folder.display());
    let write = Write { path: path.clone(), partition_by: vec!["grp".to_owned()], ..Write::default() };
    assert_eq!(frame.write(write.clone()).await.unwrap(), rows);
    assert!(folder.join("parts/grp=a").is_dir());
    assert_eq!(frame.write(write.clone()).await.unwrap_err().kind, ErrorKind::InvalidQuery);
    assert_eq!(frame.head(5).unwrap().write(Write { mode: WriteMode::Overwrite, ..write }).await.unwrap(), 5);
    let back = session.read(ReadFiles { paths: vec![path], ..ReadFiles::default() }).await.unwrap();
    assert_eq!(back.count().await.unwrap(), 5);
    let text = format!("{}/few.csv.gz", folder.display());
    let write =
        Write { path: text.clone(), format: Some(FileFormat::Csv), compression: Some("gzip".to_owned()), ..Write::default() };
    assert_eq!(frame.write(write).await.unwrap(), rows);
    let csv = ReadFiles { format: FileFormatOptions::csv(), paths: vec![text], ..ReadFiles::default() };
    assert_eq!(session.read(csv).await.unwrap().count().await.unwrap(), rows);
    drop((frame, back));
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_with_a_seed_are_the_same_whatever_the_partitions() {
    let cluster = engine::cluster(2).await;
    let mut answers = Vec::new();
    for partitions in [1, 7] {
        let session = engine::session(&cluster, partitions).await;
        let frame = events(&session).await;
        let part = frame.sample(Sample { size: SampleSize::Fraction(0.25), seed: Some(7) }).unwrap();
        let few = frame.sample(Sample { size: SampleSize::Rows(10), seed: Some(7) }).unwrap();
        assert_eq!(few.count().await.unwrap(), 10);
        answers.push((rows(&part).await.unwrap().sorted(), rows(&few).await.unwrap().sorted()));
    }
    let [(part, few), (part_too, few_too)] = answers.as_slice() else { panic!("two answers") };
    assert_eq!(part.difference(part_too), None);
    assert_eq!(few.difference(few_too), None);
    assert!((200..400).contains(&part.rows.len()), "{} of 1200", part.rows.len());
    let session = engine::session(&cluster, 3).await;
    let other = events(&session).await.sample(Sample { size: SampleSize::Fraction(0.25), seed: Some(8) }).unwrap();
    assert!(rows(&other).await.unwrap().sorted().difference(part).is_some(), "another seed takes the same rows");
    drop((other, session));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn describe_has_a_row_for_each_statistic() {
    let session = connect(None).await.unwrap();
    let frame = events(&session).await.select(vec![col("id"), col("grp")]).unwrap();
    let described = rows(&frame.describe().unwrap()).await.unwrap();
    let line = |row: &Vec<windrow_tests::rows::Cell>| row.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
    let lines: Vec<String> = described.rows.iter().map(line).collect();
    assert_eq!(lines.len(), 9);
    assert_eq!(lines[0].split(" | ").take(2).collect::<Vec<_>>(), ["count", "1200"]);
    assert!(lines.iter().any(|line| line == "max | 1199 | f"), "{lines:?}");
    assert!(lines.iter().any(|line| line == "mean | 599.5 | NULL"), "{lines:?}");
    drop(frame);
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_shows_plans_and_what_ran() {
    let session = connect(None).await.unwrap();
    let frame = events(&session).await.aggregate(vec![col("grp")], vec![sum(col("v"))]).unwrap();
    let plans = rows_text(&frame.explain(Explain::default()).await.unwrap());
    assert!(plans.contains("Aggregate") && plans.contains("events"), "{plans}");
    let ran = rows_text(&frame.explain(Explain { analyze: true, verbose: false }).await.unwrap());
    assert!(ran.contains("rows"), "{ran}");
    // The limit is in the plan of the scan.
    let head = events(&session).await.head(3).unwrap();
    let plan = rows_text(&head.explain(Explain::default()).await.unwrap());
    assert!(plan.contains("fetch=3"), "{plan}");
    drop((frame, head));
    session.close().await;
}

fn rows_text(batches: &[RecordBatch]) -> String {
    arrow::util::pretty::pretty_format_batches(batches).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tpch_as_frames_equals_its_texts() {
    let folder = fixtures::scratch(env!("CARGO_TARGET_TMPDIR"), "tpch-frames");
    tpch::write(&folder, 0.01, &[]);
    let oracle = oracle::over(&folder, &tpch::TABLES).await.unwrap();
    let cluster = engine::cluster(2).await;
    let session = engine::session(&cluster, 5).await;
    for table in tpch::TABLES {
        let location = folder.join(table);
        let sql = format!("CREATE OR REPLACE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}/'", location.display());
        engine::run(&session, &sql).await.unwrap();
    }
    let tables = tpch_frames::Tables::of(&session).await.unwrap();
    let mut wrong = Vec::new();
    for (number, frame) in tpch_frames::QUERIES {
        let (schema, batches) = oracle::run(&oracle, &tpch::queries()[number - 1].1).await.unwrap();
        let found = rows(&frame(&tables).unwrap()).await.unwrap_or_else(|error| panic!("q{number:02}: {error}"));
        wrong.extend(found.difference(&Answer::new(&schema, &batches)).map(|difference| format!("q{number:02}: {difference}")));
    }
    drop((tables, session));
    cluster.shutdown().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
