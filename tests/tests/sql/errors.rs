//! Errors people can act on: the kind says what to do, the message names the thing, the position and the nearest name are there
//! where they can be. And whatever the query, the engine answers the next one.

use std::fs;
use std::path::{Path, PathBuf};

use windrow::{Error, ErrorKind, LocalCluster, Session};
use windrow_tests::{engine, fixtures};

struct Engine {
    cluster: LocalCluster,
    session: Session,
}

impl Engine {
    async fn start() -> Self {
        let cluster = engine::cluster(2).await;
        let session = engine::session(&cluster, 7).await;
        for table in ["events", "users"] {
            let sql = format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}/{table}/'", corpus().display());
            engine::run(&session, &sql).await.unwrap();
        }
        Self { cluster, session }
    }

    async fn error(&self, sql: &str) -> Error {
        match engine::run(&self.session, sql).await {
            Ok((_, batches)) => {
                let rows = batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>();
                panic!("{rows} rows instead of an error: {}", sql.chars().take(200).collect::<String>())
            }
            Err(error) => error,
        }
    }

    /// The engine still answers, and nothing of what failed is left.
    async fn end(self) {
        let (_, batches) = engine::run(&self.session, "SELECT count(*) FROM events WHERE id < 10").await.unwrap();
        assert_eq!(windrow_tests::rows::cells(&batches)[0][0].to_string(), "10");
        drop(self.session);
        self.cluster.shutdown().await;
    }
}

fn corpus() -> &'static Path {
    fixtures::folder(env!("CARGO_TARGET_TMPDIR"))
}

fn scratch(name: &str) -> PathBuf {
    fixtures::scratch(env!("CARGO_TARGET_TMPDIR"), name)
}

#[track_caller]
fn has(error: &Error, kinds: &[ErrorKind], words: &[&str]) {
    assert!(kinds.contains(&error.kind), "{:?} instead of {kinds:?}: {error}", error.kind);
    for word in words {
        assert!(error.message.contains(word), "no '{word}' in: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_names_have_a_position_and_a_suggestion() {
    let engine = Engine::start().await;
    for (sql, name, suggestion, line, column) in [
        ("SELECT * FROM evnts", "evnts", "events", 1, 15),
        ("SELECT e.id\nFROM events e\nJOIN usrs u ON e.k = u.uk", "usrs", "users", 3, 6),
        ("SELECT id,\n  grpp FROM events", "grpp", "grp", 2, 3),
        ("SELECT e.idd FROM events e", "idd", "id", 1, 8),
    ] {
        let error = engine.error(sql).await;
        has(&error, &[ErrorKind::InvalidQuery, ErrorKind::NotFound], &[name]);
        let met = error.context.suggestion.as_deref().unwrap_or_default();
        assert!(met.ends_with(suggestion), "suggests '{met}' for: {sql}");
        let span = error.context.span.unwrap_or_else(|| panic!("no position for: {sql}"));
        assert_eq!((span.start_line, span.start_column), (line, column), "{sql}");
    }
    let error = engine.error("SELECT cuont(id) FROM events").await;
    has(&error, &[ErrorKind::InvalidQuery, ErrorKind::NotFound], &["cuont"]);
    assert_eq!(error.context.suggestion.as_deref(), Some("count"));
    let error = engine.error("SELECT id FORM events WHERE").await;
    has(&error, &[ErrorKind::InvalidQuery], &[]);
    assert!(error.context.span.is_some(), "a syntax error has a position: {error}");
    engine.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_files_are_named() {
    let engine = Engine::start().await;
    for path in ["/nowhere/at/all.parquet", "/nowhere/*.csv", "/nowhere/x.csv.gz", "/nowhere/folder/"] {
        let error = engine.error(&format!("SELECT * FROM '{path}'")).await;
        has(&error, &[ErrorKind::NotFound], &["/nowhere/"]);
    }
    engine.end().await;
}

const READ_ALL: &str = "SELECT count(*), min(id), max(name), sum(amount), max(day), min(ts), bool_and(ok) FROM";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_parquet_is_a_fault_of_the_data_and_named() {
    let engine = Engine::start().await;
    let folder = scratch("broken");
    let whole = fs::read(corpus().join("events/part-0.parquet")).unwrap();
    let mut long_footer = whole.clone();
    let end = long_footer.len();
    long_footer[end - 8..end - 4].copy_from_slice(&u32::MAX.to_le_bytes());
    for (name, bytes) in [
        ("truncated", &whole[..whole.len() / 2]),
        ("headless", &whole[whole.len() / 2..]),
        ("tiny", &b"PAR1"[..]),
        ("seven-bytes", &b"PAR1PAR"[..]),
        ("garbage", &[0xA5; 4096][..]),
        ("text", &b"id,name\n1,one\n"[..]),
        ("long-footer", &long_footer[..]),
    ] {
        let path = folder.join(format!("{name}.parquet"));
        fs::write(&path, bytes).unwrap();
        let error = engine.error(&format!("{READ_ALL} '{}'", path.display())).await;
        has(&error, &[ErrorKind::Data], &[&path.display().to_string()]);
        fs::remove_file(path).unwrap();
    }
    engine.end().await;
}

/// Whatever byte is wrong, there is an answer or an error of the data that names the file; never a panic, never a hang.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bytes_in_parquet_never_break_the_engine() {
    let engine = Engine::start().await;
    let folder = scratch("flipped");
    let whole = fs::read(corpus().join("events/part-0.parquet")).unwrap();
    fs::copy(corpus().join("events/part-1.parquet"), folder.join("good.parquet")).unwrap();
    let path = folder.join("bad.parquet");
    let mut errors = 0;
    for step in 0..60 {
        let mut bytes = whole.clone();
        // Two thirds of the flips in the pages, the rest in the footer, where each byte means more.
        let at = if step % 3 < 2 { whole.len() * step / 60 } else { whole.len() - 12 - step * 17 };
        bytes[at] ^= 1 << (step % 8);
        fs::write(&path, bytes).unwrap();
        match engine::run(&engine.session, &format!("{READ_ALL} '{}/*.parquet'", folder.display())).await {
            Ok(_) => {}
            Err(error) => {
                has(&error, &[ErrorKind::Data], &["bad.parquet"]);
                errors += 1;
            }
        }
    }
    println!("faults fired: {errors} of 60 flips were noticed");
    assert!(errors > 10, "only {errors} flips were noticed");
    engine.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_does_not_parse_is_named_with_its_line() {
    let engine = Engine::start().await;
    let folder = scratch("text");
    let rows = |bad: usize, fault: &str| {
        let rows = (1..=200_000).map(|n| if n == bad { format!("{fault}\n") } else { format!("{n},{}\n", n * 10) });
        format!("id,n\n{}", rows.collect::<String>())
    };
    let json = |bad: usize, fault: &str| {
        let rows = (1..=1_000).map(|n| if n == bad { format!("{fault}\n") } else { format!("{{\"id\":{n},\"n\":{n}}}\n") });
        rows.collect::<String>()
    };
    let csv = "STORED AS CSV OPTIONS ('format.has_header' 'true')";
    for (name, text, stored, line, word) in [
        ("word.csv", "id,n\n1,10\n2,20\n3,thirty\n4,40\n".to_owned(), csv, 4, "thirty"),
        ("blank.csv", "id,n\r\n\r\n1,10\r\n\r\n3,thirty\r\n".to_owned(), csv, 5, "thirty"),
        ("wide.csv", "id,n\n1,10\n2,20,200\n".to_owned(), csv, 3, "2"),
        ("narrow.csv", "id,n\n1\n".to_owned(), csv, 2, "1"),
        ("first.csv", rows(1, "1,one"), csv, 2, "one"),
        ("middle.csv", rows(150_000, "150000,none"), csv, 150_001, "none"),
        ("last.csv", rows(200_000, "x,2"), csv, 200_001, "x"),
        ("middle.json", json(500, "{\"id\":500,\"n\":\"many\"}"), "STORED AS JSON", 500, "many"),
        ("syntax.json", json(700, "{\"id\":700,\"n\"; 3}"), "STORED AS JSON", 700, ";"),
        ("open.json", json(1_000, "{\"id\":1000,\"n\":"), "STORED AS JSON", 1_000, ""),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        let table = name.replace('.', "_");
        let (stored, options) =
            stored.split_once(" OPTIONS").map_or((stored, String::new()), |(s, o)| (s, format!("OPTIONS{o}")));
        let create = format!("CREATE EXTERNAL TABLE {table} (id INT, n INT) {stored} LOCATION '{}' {options}", path.display());
        engine::run(&engine.session, &create).await.unwrap();
        let error = engine.error(&format!("SELECT sum(id), sum(n) FROM {table}")).await;
        has(&error, &[ErrorKind::Data], &[&format!("{}, line {line}: ", path.display()), word]);
    }
    engine.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_the_queries_fault() {
    let engine = Engine::start().await;
    for (sql, words) in [
        ("SELECT id FROM events LIMIT -1", &["LIMIT"][..]),
        ("SELECT id FROM events OFFSET -1", &["OFFSET"]),
        ("SELECT day + ok FROM events", &[]),
        ("SELECT id FROM events WHERE name", &[]),
        ("SELECT sum(name) FROM events", &["sum"]),
        ("SELECT id, count(*) FROM events", &[]),
        ("SELECT id FROM events UNION SELECT uk, uname FROM users", &[]),
        ("SELECT * FROM events JOIN users ON nope = uk", &["nope"]),
        ("INSERT", &[]),
        ("SELECT 1; SELECT 2", &[]),
        ("", &[]),
        (";", &[]),
        ("-- nothing", &[]),
    ] {
        let error = engine.error(sql).await;
        has(&error, &[ErrorKind::InvalidQuery], words);
    }
    for (sql, word) in [
        ("SELECT sum(CAST(name AS INT)) FROM events", "Int32"),
        ("SELECT sum(1 / (id - 500)) FROM events", "zero"),
        ("SELECT k, (SELECT uk FROM users) FROM events", "more than one row"),
    ] {
        let error = engine.error(sql).await;
        has(&error, &[ErrorKind::InvalidQuery, ErrorKind::Data], &[]);
        assert!(error.message.to_lowercase().contains(&word.to_lowercase()), "no '{word}' in: {error}");
    }
    engine.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurdly_deep_or_long_queries_get_an_answer_or_a_clear_error() {
    let engine = Engine::start().await;
    let depth = 10_000;
    let chain = |word: &str| vec!["1"; depth].join(word);
    for (what, sql) in [
        ("parentheses", format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth))),
        ("sum", format!("SELECT {}", chain("+"))),
        ("sum over a table", format!("SELECT sum(id+{}) FROM events", chain("+"))),
        ("or", format!("SELECT count(*) FROM events WHERE {}", vec!["id = 1"; depth].join(" OR "))),
        ("not", format!("SELECT {}true", "NOT ".repeat(depth))),
        ("case", format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(depth), " END".repeat(depth))),
        ("subqueries", format!("SELECT * FROM {}events{}", "(SELECT * FROM ".repeat(depth), ")".repeat(depth))),
        ("unions", vec!["SELECT id FROM events"; 2_000].join(" UNION ALL ")),
        ("functions", format!("SELECT {}id{} FROM events", "abs(".repeat(depth), ")".repeat(depth))),
        (
            "a list",
            format!(
                "SELECT count(*) FROM events WHERE id IN ({})",
                (0..depth).map(|n| n.to_string()).collect::<Vec<_>>().join(",")
            ),
        ),
    ] {
        if let Err(error) = engine::run(&engine.session, &sql).await {
            let kinds = [ErrorKind::InvalidQuery, ErrorKind::ResourcesExhausted, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind), "{what}: {:?}: {error}", error.kind);
            assert!(!error.message.is_empty() && error.message.len() < 2_000, "{what}: {} bytes of message", error.message.len());
        }
    }
    engine.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_settings_are_refused_with_what_is_allowed() {
    let engine = Engine::start().await;
    for value in ["-1", "65537", "4294967297", "many", "1.5", ""] {
        let error = engine.error(&format!("SET windrow.query.partitions = '{value}'")).await;
        has(&error, &[ErrorKind::InvalidConfig], &["windrow.query.partitions"]);
    }
    let error = engine.error("SET windrow.query.partition = 3").await;
    has(&error, &[ErrorKind::InvalidConfig], &["windrow.query.partition"]);
    assert_eq!(error.context.suggestion.as_deref(), Some("windrow.query.partitions"));
    let error = engine.error("SET windrow.query.small_input = 'lots'").await;
    has(&error, &[ErrorKind::InvalidConfig], &["lots"]);
    // A thousand partitions of seven files are absurd and allowed.
    engine::run(&engine.session, "SET windrow.query.partitions = 1000").await.unwrap();
    let (_, batches) = engine::run(&engine.session, "SELECT grp, count(*) FROM events GROUP BY grp").await.unwrap();
    assert_eq!(windrow_tests::rows::cells(&batches).len(), 7);
    engine.end().await;
}
