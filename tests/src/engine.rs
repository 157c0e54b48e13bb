//! Windrow under test: a cluster in this process, and sessions whose every query is cut into stages.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow::{LocalCluster, Result, Session};
use windrow_core::config::Config;

/// Memory of each executor: far more than the small data of these suites needs.
pub const MEMORY: u64 = 1 << 30;

/// `executors` executors of one slot in this process, so that every stage of more partitions needs several waves: partitions of little
/// data do not share a slot.
pub async fn cluster(executors: u32) -> LocalCluster {
    let mut config = Config::default();
    config.scheduler.slice_bytes = "0B".parse().unwrap();
    start(executors, config).await
}

/// As [`cluster`], with all settings as they are by default.
pub async fn cluster_by_default(executors: u32) -> LocalCluster {
    start(executors, Config::default()).await
}

/// As [`cluster`], with a folder for the tables of CREATE TABLE.
pub async fn cluster_with_warehouse(executors: u32, folder: &std::path::Path) -> LocalCluster {
    let mut config = Config::default();
    config.scheduler.slice_bytes = "0B".parse().unwrap();
    config.scheduler.warehouse = folder.display().to_string();
    start(executors, config).await
}

async fn start(executors: u32, config: Config) -> LocalCluster {
    LocalCluster::builder().config(config).executors(executors).slots(1).memory_limit(MEMORY).in_process().start().await.unwrap()
}

/// A session of `cluster` that cuts every query, however small its input, into stages of `partitions` partitions.
pub async fn session(cluster: &LocalCluster, partitions: u32) -> Session {
    let session = cluster.session().await.unwrap();
    cut(&session, partitions).await;
    session
}

/// Makes `session` cut every query into stages of `partitions` partitions.
pub async fn cut(session: &Session, partitions: u32) {
    for setting in [format!("partitions = {partitions}"), "small_input = '0B'".to_owned()] {
        run(session, &format!("SET windrow.query.{setting}")).await.unwrap();
    }
}

/// The schema and rows of one statement.
///
/// # Errors
/// The engine's own.
pub async fn run(session: &Session, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let query = session.sql(sql).await?;
    let schema = query.schema();
    Ok((schema, query.collect().await?))
}
