//! What becomes of statements: the shape of their stage graphs.

use std::fmt::Write;

use windrow_core::config::QueryConfig;
use windrow_core::stage::{Exchange, InputRead, Repeats, StageGraph};

use crate::session::{ClusterShape, Planned, PlannerSession, SessionOptions};

/// Seven CSV files of a few rows, as tables `t` (k, v, s) and `u` (k, w), planned for five partitions.
struct Fixture {
    session: PlannerSession,
    _directory: tempfile::TempDir,
}

impl Fixture {
    async fn new(partitions: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for table in ["t", "u"] {
            std::fs::create_dir(directory.path().join(table)).unwrap();
            for file in 0..7 {
                let mut text = String::from(if table == "t" { "k,v,s\n" } else { "k,w\n" });
                for row in 0..10 {
                    let _ = match table {
                        "t" => writeln!(text, "{},{},s{}", row + file, row * file, row % 3),
                        _ => writeln!(text, "{},{}", row * 2 + file, row),
                    };
                }
                std::fs::write(directory.path().join(table).join(format!("{file}.csv")), text).unwrap();
            }
        }
        let mut query = QueryConfig { partitions, directory: directory.path().display().to_string(), ..QueryConfig::default() };
        query.set("small_input", "0B").unwrap();
        let session = PlannerSession::new(SessionOptions { query, ..Default::default() }).unwrap();
        let fixture = Self { session, _directory: directory };
        for table in ["t", "u"] {
            fixture.plan(&format!("CREATE VIEW {table} AS SELECT * FROM '{table}/'")).await;
        }
        fixture
    }

    async fn plan(&self, sql: &str) -> Planned {
        self.session.plan(sql, ClusterShape { executors: 2, slots: 2 }).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn graph(&self, sql: &str) -> StageGraph {
        match self.plan(sql).await {
            Planned::Job(job) => job.graph,
            other => panic!("{sql} is no job: {other:?}"),
        }
    }
}

fn shape(graph: &StageGraph) -> Vec<(u32, Exchange)> {
    graph.stages.iter().map(|stage| (stage.partitions, stage.exchange)).collect()
}

#[tokio::test]
async fn an_ordered_aggregate_is_three_stages() {
    let graph = Fixture::new(5).await.graph("SELECT k, count(*) FROM t GROUP BY k ORDER BY k").await;
    assert_eq!(shape(&graph), [(5, Exchange::Hash { partitions: 5 }), (5, Exchange::Merge), (1, Exchange::Result)], "{graph:#?}");
    assert_eq!(graph.stages[1].inputs[0].read, InputRead::Partitioned { offset: 0, count: 5 });
    assert_eq!(graph.stages[2].inputs[0].read, InputRead::Whole);
    assert!(graph.stages.iter().all(|stage| stage.repeats == Repeats::Repeatable && !stage.whole));
    assert_eq!(graph.stages[0].partition_inputs.len(), 5);
    assert!(graph.stages[0].partition_bytes.iter().all(|bytes| *bytes > 0));
}

#[tokio::test]
async fn an_outer_join_is_never_broadcast_and_an_inner_one_is() {
    let fixture = Fixture::new(5).await;
    let broadcasts = |graph: &StageGraph| graph.stages.iter().filter(|stage| stage.exchange == Exchange::Broadcast).count();
    let outer = fixture.graph("SELECT * FROM t FULL JOIN u ON t.k = u.k").await;
    assert_eq!(broadcasts(&outer), 0, "{outer:#?}");
    let inner = fixture.graph("SELECT * FROM t CROSS JOIN u").await;
    assert_eq!(broadcasts(&inner), 1, "{inner:#?}");
}

#[tokio::test]
async fn a_scalar_subquery_is_a_stage_whose_value_is_read_before_decoding() {
    let graph = Fixture::new(5).await.graph("SELECT * FROM t WHERE v > (SELECT avg(w) FROM u)").await;
    let scalars: Vec<_> =
        graph.stages.iter().flat_map(|stage| &stage.inputs).filter(|input| input.read == InputRead::Scalar).collect();
    assert_eq!(scalars.len(), 1, "{graph:#?}");
    assert_eq!(graph.stages[scalars[0].stage.0 as usize].partitions, 1);
}

#[tokio::test]
async fn not_in_becomes_a_counted_anti_join() {
    let graph = Fixture::new(5).await.graph("SELECT * FROM t WHERE k NOT IN (SELECT k FROM u)").await;
    let plans: String = graph.stages.iter().map(|stage| stage.display.clone()).collect();
    assert!(plans.contains("Anti"), "{plans}");
    assert!(!graph.stages.iter().any(|stage| stage.whole), "{graph:#?}");
    assert!(graph.stages.iter().flat_map(|stage| &stage.inputs).any(|input| input.read == InputRead::Scalar));
}

#[tokio::test]
async fn a_limit_stops_the_stage_below_it() {
    let graph = Fixture::new(5).await.graph("SELECT * FROM t LIMIT 3 OFFSET 2").await;
    assert_eq!(graph.stages[0].row_limit, Some(5), "{graph:#?}");
    assert_eq!(graph.stages.last().unwrap().partitions, 1);
}

#[tokio::test]
async fn a_query_used_twice_runs_once() {
    let sql = "WITH a AS (SELECT k, sum(v) AS v FROM t GROUP BY k) SELECT * FROM a x JOIN a y ON x.k = y.v";
    let graph = Fixture::new(5).await.graph(sql).await;
    let scans = graph.stages.iter().filter(|stage| stage.display.contains("DataSourceExec")).count();
    assert_eq!(scans, 1, "{graph:#?}");
}

#[tokio::test]
async fn a_union_places_its_inputs_one_after_the_other() {
    let sql = "SELECT k, v FROM t UNION ALL SELECT k, count(*) FROM u GROUP BY k";
    let graph = Fixture::new(5).await.graph(sql).await;
    let last = graph.stages.last().unwrap();
    let offsets: Vec<_> = last.inputs.iter().map(|input| input.read).collect();
    assert_eq!(last.partitions, 10, "{graph:#?}");
    let at = |offset| InputRead::Partitioned { offset, count: 5 };
    assert_eq!(offsets, [at(5)], "the scan has the first five partitions");
}

#[tokio::test]
async fn chance_makes_a_stage_vary() {
    let fixture = Fixture::new(5).await;
    let graph = fixture.graph("SELECT k, random() FROM t").await;
    assert_eq!(graph.stages[0].repeats, Repeats::Varying);
    let graph = fixture.graph("SELECT k, row_number() OVER (PARTITION BY k ORDER BY s) FROM t").await;
    assert!(graph.stages.iter().any(|stage| stage.repeats == Repeats::Varying), "ranks over ties vary: {graph:#?}");
}

#[tokio::test]
async fn a_recursive_query_stays_in_one_task() {
    let sql = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 10) SELECT sum(i) FROM n";
    let graph = Fixture::new(5).await.graph(sql).await;
    let stage = graph.stages.iter().find(|stage| stage.display.contains("RecursiveQueryExec")).unwrap();
    assert!(stage.partitions == 1 || stage.whole, "{graph:#?}");
}

#[tokio::test]
async fn small_input_is_one_task() {
    let fixture = Fixture::new(0).await;
    fixture.plan("SET windrow.query.small_input = '1MB'").await;
    let graph = fixture.graph("SELECT t.k, count(*) FROM t JOIN u ON t.k = u.k GROUP BY t.k ORDER BY 2").await;
    assert_eq!(shape(&graph), [(1, Exchange::Result)], "{graph:#?}");
}

#[tokio::test]
async fn statements_about_the_session_are_answered_at_once() {
    let fixture = Fixture::new(5).await;
    for (sql, rows) in [("SET windrow.query.partitions = 9", 0), ("SHOW windrow.query.partitions", 1), ("SHOW TABLES", 2)] {
        match fixture.plan(sql).await {
            Planned::Rows { batches, .. } => {
                let found: usize = batches.iter().map(|batch| batch.num_rows()).sum();
                assert!(found >= rows, "{sql}: {found} rows");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    let shape = ClusterShape { executors: 1, slots: 1 };
    for (sql, message) in [
        ("SET windrow.query.partition = 9", "no setting named"),
        ("SET datafusion.optimizer.preserve_file_partitions = 3", "cannot be set"),
        ("SET datafusion.execution.batch_sise = 3", "no setting named"),
        ("INSERT INTO t VALUES (1, 2, 'x')", "not a table of files"),
        ("DELETE FROM t", "not supported"),
        ("SELECT * FROM 'nothing/*.parquet'", "no file matches"),
        ("SELECT * FROM tt", "no table named"),
        ("SELECT q FROM t", "no column named"),
        ("SELECT cuont(k) FROM t", "no function named"),
        ("SELEC 1", "expected"),
    ] {
        let error = fixture.session.plan(sql, shape).await.err().unwrap_or_else(|| panic!("{sql} was planned"));
        assert!(error.message.contains(message), "{sql}: {error:?}");
    }
    let error = fixture.session.plan("SELECT vv FROM t", shape).await.unwrap_err();
    assert_eq!(error.context.span.map(|span| (span.start_line, span.start_column)), Some((1, 8)), "{error:?}");
    let error = fixture.session.plan("SELECT cuont(k) FROM t", shape).await.unwrap_err();
    assert_eq!(error.context.suggestion.as_deref(), Some("count"), "{error:?}");
}

/// The stages that apply a runtime filter: for each, the columns that they test.
fn filters(graph: &StageGraph) -> Vec<String> {
    let lines = graph.stages.iter().flat_map(|stage| stage.display.lines());
    lines.filter_map(|line| line.trim().strip_prefix("RuntimeFilterExec: ").map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_reduced_side_of_a_join_drops_rows_of_the_other() {
    let fixture = Fixture::new(5).await;
    fixture.plan("SET windrow.query.broadcast_limit = '0B'").await;
    // Which sides of a join may lose rows without a partner, with t as the reduced one.
    for (join, expected) in [
        ("t JOIN u ON t.k = u.k", 1),
        ("t LEFT JOIN u ON t.k = u.k", 1),
        ("t RIGHT JOIN u ON t.k = u.k", 1), // the filter on t makes it an inner join
        ("(SELECT * FROM t WHERE v > 3) AS t FULL JOIN u ON t.k = u.k", 0),
        ("(SELECT * FROM t WHERE v > 3) AS t RIGHT JOIN u ON t.k = u.k", 0),
        ("t LEFT SEMI JOIN u ON t.k = u.k", 1),
        ("t LEFT ANTI JOIN u ON t.k = u.k", 1),
        ("u LEFT ANTI JOIN t ON t.k = u.k AND t.v > 3", 0),
    ] {
        let filter = if join.contains("> 3") { "" } else { "WHERE t.v > 3" };
        let graph = fixture.graph(&format!("SELECT * FROM {join} {filter}")).await;
        assert_eq!(filters(&graph).len(), expected, "{join}: {graph:#?}");
    }
    let without = fixture.graph("SELECT * FROM t JOIN u ON t.k = u.k").await;
    assert_eq!(filters(&without), Vec::<String>::new(), "nothing reduces either side");
    fixture.plan("SET windrow.query.runtime_filters = false").await;
    let off = fixture.graph("SELECT * FROM t JOIN u ON t.k = u.k WHERE t.v > 3").await;
    assert_eq!(filters(&off), Vec::<String>::new());
}

#[tokio::test]
async fn a_runtime_filter_goes_through_what_keeps_the_key() {
    let fixture = Fixture::new(5).await;
    fixture.plan("SET windrow.query.broadcast_limit = '0B'").await;
    let reduced = "(SELECT k FROM t WHERE v > 3) AS t";
    for (side, expected) in [
        ("(SELECT k, sum(w) FROM u GROUP BY k)", 1),
        ("(SELECT k FROM u UNION ALL SELECT k + 1 FROM u)", 2),
        // Both sides, and then one side's keys drop rows of the other.
        ("(SELECT a.k FROM u AS a JOIN u AS b ON a.k = b.k)", 3),
        ("(SELECT b.k FROM u AS a LEFT JOIN u AS b ON a.k = b.k)", 0), // a row without its partner is another row
        ("(SELECT a.k FROM u AS a LEFT JOIN u AS b ON a.k = b.k)", 3),
        ("(SELECT k, row_number() OVER (ORDER BY w) FROM u)", 0),
        ("(SELECT k FROM u ORDER BY w LIMIT 3)", 0),
        ("(SELECT max(k) AS k FROM u GROUP BY w)", 0),
    ] {
        let graph = fixture.graph(&format!("SELECT * FROM {reduced} LEFT JOIN {side} AS x ON t.k = x.k")).await;
        assert_eq!(filters(&graph).len(), expected, "{side}: {graph:#?}");
    }
}

#[tokio::test]
async fn keys_also_come_from_below_a_side_and_from_having() {
    let fixture = Fixture::new(5).await;
    fixture.plan("SET windrow.query.broadcast_limit = '0B'").await;
    let reduced = "(SELECT * FROM t WHERE v > 3) AS a";
    for (side, expected) in [
        ("(SELECT k FROM t GROUP BY k HAVING sum(v) > 30)", 1),
        ("(SELECT k, sum(v) FROM t GROUP BY k)", 0), // every group remains
        (&format!("(SELECT a.k FROM {reduced} JOIN t AS b ON a.k = b.k)"), 2),
        (&format!("(SELECT a.k FROM {reduced} LEFT ANTI JOIN t AS b ON a.k = b.k)"), 2),
        (&format!("(SELECT b.k FROM {reduced} RIGHT JOIN t AS b ON a.k = b.k)"), 0), // rows of b that a has no partner for
        (&format!("(SELECT a.k FROM {reduced} FULL JOIN t AS b ON a.k = b.k)"), 1), // its rows change partition, and that exchange has the keys
    ] {
        let graph = fixture.graph(&format!("SELECT * FROM u LEFT SEMI JOIN {side} AS x ON u.k = x.k")).await;
        assert_eq!(filters(&graph).len(), expected, "{side}: {graph:#?}");
    }
}

#[tokio::test]
async fn a_large_limit_sorts_what_a_small_one_keeps_in_memory() {
    let fixture = Fixture::new(5).await;
    for (limit, in_memory) in [(100_000, true), (100_001, false)] {
        let graph = fixture.graph(&format!("SELECT * FROM t ORDER BY v, k LIMIT {limit}")).await;
        assert_eq!(graph.stages.iter().any(|stage| stage.display.contains("TopK")), in_memory, "{graph:#?}");
        assert!(graph.stages.iter().any(|stage| stage.display.contains(&format!("fetch={limit}"))), "{graph:#?}");
    }
}

#[tokio::test]
async fn semi_joins_go_below_joins_that_drop_nothing() {
    let fixture = Fixture::new(5).await;
    fixture.plan("SET windrow.query.broadcast_limit = '0B'").await;
    // The stage that joins by w is the semi join's if it is below, and the inner join's if not.
    let first_join = |graph: &StageGraph| {
        let lines = graph.stages.iter().flat_map(|stage| stage.display.lines());
        lines.map(str::trim).find(|line| line.starts_with("HashJoinExec")).unwrap_or_default().to_owned()
    };
    let below = fixture.graph("SELECT * FROM t JOIN u ON t.k = u.k WHERE u.w IN (SELECT v FROM t)").await;
    assert!(first_join(&below).contains("Semi"), "{below:#?}");
    let above = fixture.graph("SELECT * FROM t JOIN u ON t.k = u.k WHERE t.s = 's1' AND u.w IN (SELECT v FROM t)").await;
    assert!(first_join(&above).contains("Inner"), "{above:#?}");
}

/// The display of the stage that is measured, and of the other form.
fn other_form(graph: &StageGraph) -> Option<(&str, &str)> {
    let form = graph.stages.iter().find_map(|stage| stage.alternative.as_deref())?;
    assert_eq!(graph.stages[form.spared.0 as usize].after, Some(form.measured));
    Some((&graph.stages[form.measured.0 as usize].display, &form.stage.display))
}

#[tokio::test]
async fn a_join_of_unknown_sizes_has_a_form_for_a_small_side() {
    let fixture = Fixture::new(5).await;
    // Only one side of an outer, semi or anti join may be broadcast; of an inner one, it is the one with the smaller files.
    let measured =
        [("JOIN", "/u/"), ("LEFT JOIN", "/u/"), ("RIGHT JOIN", "/t/"), ("LEFT SEMI JOIN", "/u/"), ("LEFT ANTI JOIN", "/u/")];
    for (join, table) in measured {
        let graph = fixture.graph(&format!("SELECT * FROM t {join} u ON t.k = u.k")).await;
        let (measured, form) = other_form(&graph).unwrap_or_else(|| panic!("{join}: {graph:#?}"));
        assert!(measured.contains(table), "{join}: {measured}");
        assert!(form.contains("mode=CollectLeft") && form.contains("DataSourceExec"), "{join}: {form}");
    }
    let graph = fixture.graph("SELECT * FROM t FULL JOIN u ON t.k = u.k").await;
    assert_eq!(other_form(&graph), None, "neither side of a full join may be broadcast: {graph:#?}");
    let graph = fixture.graph("SELECT t.k, count(*) FROM t JOIN u ON t.k = u.k GROUP BY t.k").await;
    assert_eq!(other_form(&graph), None, "groups are complete in a partition because of the exchange: {graph:#?}");
    let graph = fixture.graph("SELECT t.v, count(*) FROM t JOIN u ON t.k = u.k GROUP BY t.v").await;
    assert!(other_form(&graph).is_some_and(|(_, form)| form.contains("mode=Partial")), "{graph:#?}");
    fixture.plan("SET windrow.query.broadcast_limit = '0B'").await;
    assert_eq!(other_form(&fixture.graph("SELECT * FROM t JOIN u ON t.k = u.k").await), None);
}
