//! Statements beyond every budget: an error with its name and the figure, a process that lives, and others who are answered.

use windrow_core::cases::Cases;
use windrow_core::config::QueryConfig;

use super::*;
use crate::session::{ClusterShape, PlannerSession, SessionOptions};

const SHAPE: ClusterShape = ClusterShape { executors: 1, slots: 1 };

fn session() -> PlannerSession {
    PlannerSession::new(SessionOptions { query: QueryConfig::default(), ..SessionOptions::default() }).unwrap()
}

fn joined(count: usize, word: &str, each: impl Fn(usize) -> String) -> String {
    (0..count).map(each).collect::<Vec<_>>().join(word)
}

/// What is over which budget: the words of its error with the figure and the bound.
fn hostile() -> Vec<(String, String)> {
    let deep = 10_000;
    let long = 100_000;
    let case = |(sql, what, count, most): (String, &str, usize, usize)| {
        (sql, format!("the statement has {count} {what}, at most {most} are allowed"))
    };
    let nested = |sql: String| (sql, nests_too_deeply().message);
    let mut cases: Vec<_> = [
        (format!("SELECT {}", joined(long, "+", |_| "1".into())), "operators in one chain", long - 1, CHAIN_MAX),
        (format!("SELECT {}", joined(long, " OR ", |_| "a".into())), "operators in one chain", long - 1, CHAIN_MAX),
        (format!("SELECT {}true", "NOT ".repeat(deep)), "operators in one chain", deep, CHAIN_MAX),
        (joined(deep, " UNION ALL ", |_| "SELECT 1".into()), "operators in one chain", deep - 1, CHAIN_MAX),
        (format!("SELECT '{}'", "x".repeat(TEXT_BYTES_MAX)), "bytes of text", TEXT_BYTES_MAX + 9, TEXT_BYTES_MAX),
        (format!("SELECT 'x' ~ '{}'", "(a|b)*".repeat(200_000)), "bytes of text", 1_200_015, TEXT_BYTES_MAX),
        (format!("SELECT 'x' ~ '{}'", "(a|b)*".repeat(10_000)), "bytes in one regular expression", 60_000, PATTERN_BYTES_MAX),
        (
            format!("SELECT regexp_like('x', '{}')", "(a|b)*".repeat(10_000)),
            "bytes in one regular expression",
            60_000,
            PATTERN_BYTES_MAX,
        ),
        (format!("SELECT {}", "x".repeat(1_000_000)), "bytes in one name", 1_000_000, NAME_BYTES_MAX),
        (format!("SELECT \"{}\"", "x".repeat(1_000_000)), "bytes in one name", 1_000_000, NAME_BYTES_MAX),
        (format!("SELECT * FROM '{}/'", "x".repeat(10_000)), "bytes in one name", 10_001, NAME_BYTES_MAX),
        (format!("SELECT 1 WHERE 1 IN ({})", joined(30_000, ",", |n| n.to_string())), "values in one list", 30_000, LIST_MAX),
        (
            format!("VALUES {}", joined(60_000, ",", |_| "(1)".into())),
            "expressions, tables and queries",
            NODES_MAX + 1,
            NODES_MAX,
        ),
        (format!("SELECT * FROM {}", joined(deep, ",", |n| format!("t{n}"))), "joined tables", deep, JOINS_MAX),
        (format!("SELECT * FROM t0 {}", joined(500, " ", |n| format!("JOIN t{n} USING (a)"))), "joined tables", 501, JOINS_MAX),
        (
            format!("WITH {} SELECT 1", joined(deep, ",", |n| format!("c{n} AS (SELECT 1)"))),
            "common table expressions",
            deep,
            CTES_MAX,
        ),
    ]
    .into_iter()
    .map(case)
    .collect();
    // Forty chains in each other's parentheses: none is too long, all of them together are.
    let chains = format!("SELECT {}1{}", format!("{}(", "1+".repeat(900)).repeat(20), ")".repeat(20));
    cases.push(case((chains, "operators over each other", 18_000, DEPTH_MAX)));
    cases.push(nested(format!("SELECT {}1{}", "(".repeat(deep), ")".repeat(deep))));
    cases.push(nested(format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(deep), " END".repeat(deep))));
    cases.push(nested(format!("SELECT * FROM {}SELECT 1{}", "(SELECT * FROM (".repeat(deep), "))".repeat(deep))));
    cases.push(nested(format!("SELECT {}1{}", "abs(".repeat(deep), ")".repeat(deep))));
    for (call, made) in [
        ("generate_series(1, 1000000000000000000)", "generate_series"),
        ("range(1000000000000)", "range"),
        ("repeat('x', 2000000000)", "repeat"),
        ("array_repeat(1, 3000000000)", "array_repeat"),
        ("lpad('x', 2000000000)", "lpad"),
    ] {
        cases.push((format!("SELECT {call}"), format!("{made}(..) would make ")));
    }
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m13_each_budget_is_named_and_others_are_answered_meanwhile() {
    let mut cases = Cases::of("M13");
    for (number, (sql, words)) in hostile().into_iter().enumerate() {
        let (hostile, other) = (session(), session());
        let shown = sql.chars().take(80).collect::<String>();
        let (refused, answered) = tokio::join!(hostile.plan(&sql, SHAPE), other.plan("SELECT 1", SHAPE));
        let error = refused.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidQuery, "{error}: {shown}");
        assert!(
            error.message.contains(&words),
            "'{words}' expected: {}: {shown}",
            error.message.chars().take(300).collect::<String>()
        );
        assert!(answered.is_ok(), "{answered:?}");
        for around in ["EXPLAIN ANALYZE ", "PREPARE p AS "] {
            let error = hostile.plan(&format!("{around}{sql}"), SHAPE).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidQuery, "{error}: {around}{shown}");
        }
        assert!(hostile.plan("SELECT 1", SHAPE).await.is_ok());
        cases.case(format!("{number}: {shown}"));
    }
    cases.are(26);
}

#[tokio::test]
async fn what_is_within_the_budgets_is_planned() {
    let session = session();
    for sql in [
        format!("SELECT {}", joined(900, "+", |_| "1".into())),
        format!("SELECT 1 WHERE 1 IN ({})", joined(10_000, ",", |n| n.to_string())),
        format!("WITH {} SELECT 1", joined(100, ",", |n| format!("c{n} AS (SELECT 1)"))),
        format!("SELECT * FROM {}", joined(6, ",", |n| format!("generate_series(1, 100000000) t{n}"))),
        "SELECT * FROM generate_series(1, 1000000000000000000)".to_owned(),
        "SELECT generate_series(1, 1000)".to_owned(),
    ] {
        let shown = sql.chars().take(80).collect::<String>();
        session.plan(&sql, SHAPE).await.unwrap_or_else(|error| panic!("{error}: {shown}"));
    }
}

#[tokio::test]
async fn a_regular_expression_that_does_not_compile_is_the_queries_fault() {
    let session = session();
    for pattern in ["(a{1000}){1000}".to_owned(), "(".repeat(1_000)] {
        // If planning compiles it, the error says so; else the rows' query will.
        if let Err(error) = session.plan(&format!("SELECT 'x' ~ '{pattern}'"), SHAPE).await {
            assert_eq!(error.kind, ErrorKind::InvalidQuery, "{error}");
            assert!(error.message.len() < 500, "{error}");
        }
    }
    assert!(session.plan("SELECT 1", SHAPE).await.is_ok());
}
