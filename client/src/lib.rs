//! Windrow, a distributed SQL engine, as a library: connect, ask, read batches.
//!
//! Without a url the whole engine runs in this process; with one, the session speaks Flight SQL to a scheduler.
//!
//! ```no_run
//! # #[tokio::main]
//! # async fn main() -> windrow::Result<()> {
//! let session = windrow::connect(None).await?;
//! let mut query = session.sql("SELECT count(*) AS orders FROM 'orders.parquet'").await?;
//! while let Some(batch) = query.next_batch().await? {
//!     println!("{} rows", batch.num_rows());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! First arrow of a query's line: [`Session::sql`]. Read in this order: `connect.rs`, `session.rs`, `query.rs`; then `remote.rs`
//! (the session of another process), `local_cluster.rs` and `supervisor.rs` (clusters on this machine), `files.rs` and
//! `statements.rs` (what a shell needs). Next: `flight-server/src/coordinator.rs`.

mod connect;
mod files;
mod local_cluster;
mod query;
mod restart;
mod session;
mod statements;
mod status;
mod supervisor;

pub use connect::{ConnectOptions, connect};
pub use files::{create_table_text, table_name};
pub use local_cluster::{LocalCluster, LocalClusterBuilder};
pub use query::{Progress, Query};
pub use session::Session;
pub use statements::{Open, StatementText, is_complete, open_at_end, split_statements};
pub use status::{ClusterStatus, ExecutorState, ExecutorStatus, JobState, JobStatus};
pub use windrow_core::error::{Context, Error, ErrorKind, Result, Span};
pub use windrow_planner::Names;
