//! The program's outside: exit codes, formats, timing lines, and what it refuses.

use std::fs;

use serde_json::Value;

use crate::program;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_pipe_runs_each_statement_and_times_it() {
    let output = program::run(&["sql", "--timing", "json", "--format", "csv"], "SELECT 1 AS a;\nSELECT 2 AS b, 'x' AS c;\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert!(out.contains("a\n1\n") && out.contains("b,c\n2,x\n"), "{out}");
    let err = text(&output.stderr);
    let lines = err.lines().filter(|line| line.starts_with('{')).collect::<Vec<_>>();
    assert_eq!(lines.len(), 2, "{err}");
    for line in lines {
        let timing = serde_json::from_str::<Value>(line).unwrap();
        assert!(timing["seconds"].as_f64().unwrap() > 0.0, "{line}");
        assert_eq!(timing["rows"], 1, "{line}");
        assert!(timing["bytes"].is_u64(), "{line}");
        assert!(timing.get("error").is_none_or(Value::is_null), "{line}");
    }
}

#[test]
fn a_failed_statement_is_timed_with_its_error_and_exits_1() {
    let output = program::run(&["sql", "--timing", "json", "-c", "SELECT nope FROM 'nowhere.csv'"], "");
    assert_eq!(output.status.code(), Some(1));
    let err = text(&output.stderr);
    let line = err.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no timing line: {err}"));
    assert!(serde_json::from_str::<Value>(line).unwrap()["error"].is_string(), "{line}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
}

#[test]
fn errors_point_into_the_query() {
    let folder = program::scratch("pointing");
    fs::write(folder.join("sales.csv"), "id,city\n1,Oslo\n").unwrap();
    let path = folder.join("sales.csv");
    let output = program::run(&["sql", "-c", "SELECT id,\n  citty FROM sales", &path.to_string_lossy()], "");
    assert_eq!(output.status.code(), Some(1));
    let err = text(&output.stderr);
    assert!(err.contains("^^^^^") && err.contains("city"), "{err}");
}

#[test]
fn exit_codes_tell_usage_from_queries() {
    for (arguments, code) in [
        (&["sql", "-c", "SELECT 1"][..], 0),
        (&["sql", "-c", "SELEC 1"], 1),
        (&["sql", "-c", "SELECT 1/0"], 1),
        (&["sql", "--no-such-flag"], 2),
        (&["no-such-command"], 2),
        (&["sql", "--format", "xml", "-c", "SELECT 1"], 2),
        (&["executor"], 2),
    ] {
        let output = program::run(arguments, "");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn every_format_writes_the_same_rows() {
    let sql = "SELECT * FROM (VALUES (1, 'a,b', 1.5), (2, NULL, -2.0)) AS t(id, word, n) ORDER BY id";
    let run = |format: &str| {
        let output = program::run(&["sql", "--format", format, "-c", sql], "");
        assert_eq!(output.status.code(), Some(0), "{format}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(run("csv"), "id,word,n\n1,\"a,b\",1.5\n2,,-2.0\n");
    let json = serde_json::from_str::<Value>(&run("json")).unwrap();
    assert_eq!(json[0], serde_json::json!({"id": 1, "word": "a,b", "n": 1.5}));
    assert_eq!(json.as_array().unwrap().len(), 2);
    let lines = run("jsonl");
    assert_eq!(lines.lines().count(), 2);
    assert_eq!(serde_json::from_str::<Value>(lines.lines().next().unwrap()).unwrap(), json[0]);
    let markdown = run("markdown");
    assert!(markdown.lines().count() == 4 && markdown.lines().all(|line| line.starts_with('|')), "{markdown}");
    let table = run("table");
    assert!(["id", "word", "a,b", "-2"].iter().all(|word| table.contains(word)), "{table}");
}

#[test]
fn a_file_is_a_table_of_its_name() {
    let folder = program::scratch("named");
    let path = folder.join("sales.csv");
    fs::write(&path, "id,city\n1,Oslo\n2,Lima\n").unwrap();
    let output =
        program::run(&["sql", "--format", "csv", "-c", "SELECT city FROM sales ORDER BY id DESC", &path.to_string_lossy()], "");
    assert_eq!(text(&output.stdout), "city\nLima\nOslo\n", "{}", text(&output.stderr));
    let script = folder.join("script.sql");
    fs::write(&script, format!("SELECT count(*) AS n FROM '{}'; -- done\n", path.display())).unwrap();
    let output = program::run(&["sql", "--format", "csv", "-f", &script.to_string_lossy()], "");
    assert_eq!(text(&output.stdout), "n\n2\n", "{}", text(&output.stderr));
}

#[test]
fn a_public_address_needs_to_be_asked_for() {
    for arguments in
        [&["scheduler", "--bind", "0.0.0.0:0"][..], &["executor", "--scheduler", "127.0.0.1:1", "--bind", "0.0.0.0:0"]]
    {
        let output = program::run(arguments, "");
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?} ended with {:?}", output.status);
        let err = text(&output.stderr);
        assert!(err.contains("--insecure") && err.contains("0.0.0.0"), "{arguments:?}: {err}");
    }
}

#[test]
fn explain_prints_the_stages() {
    let folder = program::scratch("explained");
    let path = folder.join("sales.csv");
    fs::write(&path, "id,city\n1,Oslo\n2,Lima\n").unwrap();
    let path = path.to_string_lossy();
    let sql = "SET windrow.query.small_input = '0B'; EXPLAIN SELECT city, count(*) FROM sales GROUP BY city";
    let output = program::run(&["sql", "--format", "table", "-c", sql, &path], "");
    let out = text(&output.stdout).to_lowercase();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(out.contains("stage 0: 1 partition -> result"), "{out}");
}
