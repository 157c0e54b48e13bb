//! The catalog of a scheduler with `--state-dir`: it outlives `kill -9`, is used by one scheduler at a time, and the system tables
//! tell of a query while it runs.

use windrow_core::ErrorKind;
use windrow_tests::{engine, wait};

use crate::program::{self, LIMIT, Process};

async fn text(session: &windrow::Session, sql: &str) -> String {
    let (_, batches) = engine::run(session, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_tables_and_views_outlive_a_killed_scheduler() {
    let folder = program::scratch("catalog");
    let (state, data) = (folder.join("state"), folder.join("sales.csv"));
    std::fs::write(&data, "id,city\n1,Oslo\n2,Rom\n").unwrap();
    let state_dir = state.to_string_lossy().into_owned();
    let arguments = ["scheduler", "--bind", "127.0.0.1:0", "--state-dir", &state_dir];
    let listing = "SELECT table_schema, table_name, table_type FROM information_schema.tables \
                   WHERE table_schema IN ('s', 'public') ORDER BY table_name";

    let (scheduler, url) = Process::listening(&arguments);
    let session = windrow::connect(Some(&url)).await.unwrap();
    let location = format!("STORED AS CSV LOCATION '{}' OPTIONS ('format.has_header' 'true')", data.display());
    for sql in [
        "CREATE SCHEMA s",
        &format!("CREATE EXTERNAL TABLE s.sales {location}"),
        "CREATE VIEW cities AS SELECT city FROM s.sales",
        "CREATE TEMPORARY VIEW own AS SELECT 1",
    ] {
        engine::run(&session, sql).await.unwrap();
    }
    let before = text(&session, listing).await;
    assert!(before.contains("sales") && before.contains("cities"), "{before}");
    let second = program::run(&arguments, "");
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && error.contains("another scheduler uses"), "{error}");

    // Statements are on their way when it is killed: each is done or not, and those that were answered are done.
    let other = windrow::connect(Some(&url)).await.unwrap();
    let busy = tokio::spawn(async move {
        let mut answered = 0;
        while engine::run(&other, &format!("CREATE SCHEMA busy_{answered}")).await.is_ok() {
            answered += 1;
        }
        answered
    });
    let some = "SELECT 1 FROM information_schema.schemata WHERE schema_name = 'busy_3'";
    wait::until("some schemas", LIMIT, async || text(&session, some).await.contains("| 1 ").then_some(())).await;
    scheduler.kill();
    let answered = busy.await.unwrap();

    let (scheduler, url) = Process::listening(&arguments);
    let session = windrow::connect(Some(&url)).await.unwrap();
    assert_eq!(text(&session, listing).await, before);
    let schemas = "SELECT count(*) AS n FROM information_schema.schemata WHERE schema_name LIKE 'busy_%'";
    let found = text(&session, schemas).await;
    assert!([answered, answered + 1].iter().any(|count| found.contains(&format!("| {count} "))), "{answered}: {found}");
    assert_eq!(engine::run(&session, "SELECT * FROM own").await.unwrap_err().kind, ErrorKind::NotFound);
    let scheduler_address = url.trim_start_matches("grpc://").to_owned();
    let executor = Process::silent(&["executor", "--scheduler", &scheduler_address, "--slots", "1", "--memory-limit", "256MB"]);
    let answer = text(&session, "SELECT city FROM cities ORDER BY city").await;
    assert!(answer.contains("Oslo") && answer.contains("Rom"), "{answer}");
    // The url may name the schema.
    let inside = windrow::connect(Some(&format!("{url}/s"))).await.unwrap();
    assert!(text(&inside, "SELECT city FROM sales ORDER BY city").await.contains("Oslo"));
    let nowhere = windrow::connect(Some(&format!("{url}/nowhere"))).await.unwrap_err();
    assert_eq!(nowhere.kind, ErrorKind::NotFound, "{nowhere}");
    executor.kill();
    scheduler.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn system_tables_tell_of_a_query_that_runs() {
    let cluster = engine::cluster(1).await;
    let (working, watching) = (engine::session(&cluster, 3).await, cluster.session().await.unwrap());
    let long = "SELECT count(*) FROM generate_series(1, 100000000000) AS numbers(x) WHERE x % 7 = 3";
    let query = working.sql(long).await.unwrap();
    let running = "SELECT q.id, q.sql, s.stage, t.executor FROM system.queries q \
                   JOIN system.stages s ON s.query_id = q.id JOIN system.tasks t ON t.query_id = q.id AND t.stage = s.stage \
                   JOIN system.executors e ON e.name = t.executor WHERE q.state = 'running' AND e.slots_used > 0";
    wait::until("the query in the tables", LIMIT, async || {
        text(&watching, running).await.contains("generate_series").then_some(())
    })
    .await;
    drop(query);
    wait::until("its end in the tables", LIMIT, async || {
        text(&watching, "SELECT state FROM system.queries").await.contains("cancelled").then_some(())
    })
    .await;
    drop((working, watching));
    cluster.shutdown().await;
}
