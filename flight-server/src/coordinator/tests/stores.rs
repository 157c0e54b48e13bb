//! What may be opened, asked of statements that run and of plans that nobody planned here.

use windrow_planner::{StorePolicy, Stores};

use super::*;

/// A cluster of one executor that opens files below `root` only.
async fn listed(root: &std::path::Path) -> (Arc<Coordinator>, Arc<CoordinatorSession>) {
    let stores = Arc::new(Stores::new(StorePolicy::from_lists(&[root.to_owned()], &[]).unwrap()));
    let options = CoordinatorOptions { query: cut_everything(3), stores, ..CoordinatorOptions::default() };
    let coordinator = Coordinator::start(options).unwrap();
    coordinator.add_local_executor(crate::testing::options("e0")).unwrap();
    let session = coordinator.open_session(&[]).await.unwrap();
    (coordinator, session)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_root_is_read_by_patterns_hive_folders_and_single_files() {
    let root = Table::new(0, 0, 1);
    for file in ["data/a.csv", "data/b.csv", "hive/k=1/x.csv", "hive/k=2/x.csv"] {
        let path = root.folder().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "a\n1\n2\n").unwrap();
    }
    let (coordinator, session) = listed(root.folder()).await;
    let table = root.folder().display().to_string();
    session.execute(&format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{table}/data/'")).await.unwrap();
    for (from, sum) in [
        (format!("'{table}/data/*.csv'"), 6),
        (format!("'{table}/data/a.csv'"), 3),
        (format!("'{table}/data/'"), 6),
        (format!("'{table}/hive/' WHERE k = '2'"), 3),
        ("t".to_owned(), 6),
    ] {
        let statement = session.execute(&format!("SELECT sum(a) FROM {from}")).await.unwrap();
        assert_eq!(integers(&rows(statement).await.unwrap(), 0), [sum], "{from}");
    }
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_m10_a_plan_made_elsewhere_opens_nothing_outside_on_an_executor() {
    let table = Table::new(3, 10, 2);
    let graph = planned(&format!("SELECT name, sum(one) FROM {} GROUP BY name", table.name()), 3).await;
    let schema = session_schema(&table).await;
    let root = Table::new(0, 0, 1);
    let (coordinator, session) = listed(root.folder()).await;
    let statement = coordinator.submit_graph(graph, schema).await.unwrap();
    let error = rows(statement).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    assert!(error.message.contains("security.allow_local"), "{error}");
    let statement = session.execute("SELECT 1").await.unwrap();
    assert_eq!(integers(&rows(statement).await.unwrap(), 0), [1], "the executor goes on");
    coordinator.shutdown().await;
}

async fn session_schema(table: &Table) -> arrow::datatypes::SchemaRef {
    let coordinator = start(3);
    let session = coordinator.open_session(&[]).await.unwrap();
    let schema = session.schema(&format!("SELECT name, sum(one) FROM {} GROUP BY name", table.name())).await.unwrap();
    coordinator.shutdown().await;
    schema
}

#[tokio::test(flavor = "multi_thread")]
async fn security_m10_nothing_listed_opens_nothing() {
    let table = Table::new(1, 10, 2);
    let coordinator = {
        let stores = Arc::new(Stores::new(StorePolicy::from_lists(&[], &[]).unwrap()));
        Coordinator::start(CoordinatorOptions { stores, ..CoordinatorOptions::default() }).unwrap()
    };
    let session = coordinator.open_session(&[]).await.unwrap();
    let error = session.execute(&format!("SELECT * FROM {}", table.name())).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    coordinator.shutdown().await;
}
