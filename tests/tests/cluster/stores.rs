//! Tables in an object store that is overloaded, slow, cut off, down, or changes under a query.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use windrow::{ErrorKind, Result, Session};
use windrow_executor::timer;
use windrow_tests::store::{BUCKET, Store, Trouble};
use windrow_tests::{engine, rows, wait};

use crate::answers::{self, data};
use crate::fleet::{Fleet, PARTITIONS, PATIENCE};

/// A cluster that reads from `store`.
async fn bare_fleet(test: &str, store: &Store) -> Fleet {
    let environment = store.environment();
    let variables: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Fleet::start(test, 2, "512MB", &variables).await
}

/// A cluster whose tables are in `store`.
async fn fleet(test: &str, store: &Store) -> Fleet {
    let fleet = bare_fleet(test, store).await;
    answers::prepare(&fleet.session, Path::new(&format!("s3://{BUCKET}")), PARTITIONS).await;
    fleet
}

async fn run(session: &Session, sql: &str) -> Result<String> {
    let run = engine::run(session, sql);
    let (_, batches) = timer::deadline(PATIENCE, run).await.unwrap_or_else(|| panic!("no end in {PATIENCE:?}: {sql}"))?;
    Ok(rows::cells(&batches)[0][0].to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_trouble_costs_only_time() {
    let store = Store::over(&data().await.folder, Trouble { refused: 60, too_many: 30, slow: 20, cut: 60 }).await;
    let fleet = fleet("store-trouble", &store).await;
    for number in [3, 5, 18, 21] {
        fleet.run(number, async |_| {}).await;
    }
    fleet.leaves_nothing().await;
    println!("faults fired: {:?}", store.fired());
    let fired = store.fired();
    for (name, count) in [("503", &fired.refused), ("429", &fired.too_many), ("slow", &fired.slow), ("cut", &fired.cut)] {
        assert!(count.load(Relaxed) > 0, "{name} never happened");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_comes_back_in_time_costs_only_time_and_one_that_does_not_an_error() {
    let store = Store::over(&data().await.folder, Trouble::default()).await;
    let fleet = fleet("store-down", &store).await;
    let refused = || store.fired().refused.load(Relaxed);
    fleet
        .run(18, async |_| {
            store.set_down(true);
            wait::until("refusals", PATIENCE, async || (refused() > 10).then_some(())).await;
            store.set_down(false);
        })
        .await;

    store.set_down(true);
    let error = run(&fleet.session, "SELECT sum(l_quantity) FROM lineitem").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("lineitem"), "{error}");
    store.set_down(false);
    assert_eq!(run(&fleet.session, "SELECT count(*) FROM nation").await.unwrap(), "25");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_change_under_a_query_are_an_error_and_never_a_mixture() {
    let store = Store::over(&data().await.folder, Trouble { slow: 300, ..Trouble::default() }).await;
    let fleet = fleet("store-changed", &store).await;
    let query = fleet.session.sql("SELECT sum(l_quantity) FROM lineitem").await.unwrap();
    store.rewrite();
    let error = timer::deadline(PATIENCE, query.collect()).await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Data, "{error}");
    let text = error.to_string();
    assert!(text.contains("since the query was planned") && text.contains(&format!("s3://{BUCKET}/lineitem/")), "{text}");
    fleet.run(6, async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_by_its_http_address_and_stores_that_are_not_there() {
    let folder = &data().await.folder;
    let store = Store::over(folder, Trouble::default()).await;
    let fleet = fleet("store-http", &store).await;
    let file = fs::read_dir(folder.join("nation")).unwrap().next().unwrap().unwrap().file_name();
    let url = format!("{}/{BUCKET}/nation/{}", store.environment()[0].1, file.to_string_lossy());
    let count = run(&fleet.session, &format!("SELECT count(*) > 0 FROM '{url}'")).await.unwrap();
    assert_eq!(count, "true");
    for (missing, kind) in [
        ("s3://tables/nothing/*.parquet", ErrorKind::NotFound),
        ("s3://elsewhere/x.parquet", ErrorKind::Unavailable),
        ("http://127.0.0.1:1/x.parquet", ErrorKind::Unavailable),
        ("ftp://127.0.0.1/x.parquet", ErrorKind::Unsupported),
    ] {
        let error = run(&fleet.session, &format!("SELECT * FROM '{missing}'")).await.unwrap_err();
        assert_eq!(error.kind, kind, "{missing}: {error}");
        assert!(error.to_string().contains(missing.split("/x.").next().unwrap().trim_end_matches("*.parquet")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lists_and_gives_nothing_is_not_taken_for_one_of_damaged_files() {
    let store = Store::over(&data().await.folder, Trouble { refused: 1_000, ..Trouble::default() }).await;
    let fleet = bare_fleet("store-empty", &store).await;
    let sql = format!("CREATE EXTERNAL TABLE part (p_size INT) STORED AS PARQUET LOCATION 's3://{BUCKET}/part/'");
    engine::run(&fleet.session, &sql).await.unwrap();
    let error = run(&fleet.session, "SELECT sum(p_size) FROM part").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("503"), "{error}");
}
