//! The oracle: plain DataFusion on one node, with the options that decide types as Windrow sets them.

use std::path::Path;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

/// A session of plain DataFusion with two partitions; `FROM 'file'` works.
pub fn session() -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(2).with_information_schema(true);
    SessionContext::new_with_config(config).enable_url_table()
}

/// The schema and rows of one statement.
///
/// # Errors
/// DataFusion's own.
pub async fn run(session: &SessionContext, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let frame = session.sql(sql).await?;
    let schema = std::sync::Arc::clone(frame.schema().inner());
    Ok((schema, frame.collect().await?))
}

/// A session with every folder of `folder` that holds Parquet files as a table.
///
/// # Errors
/// DataFusion's own.
pub async fn over(folder: &Path, tables: &[&str]) -> Result<SessionContext> {
    let session = session();
    for table in tables {
        let path = folder.join(table);
        session.register_parquet(*table, path.to_string_lossy(), ParquetReadOptions::default()).await?;
    }
    Ok(session)
}
