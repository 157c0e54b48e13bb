//! Windrow, a distributed SQL engine, as a library: connect, ask, read batches.
//!
//! Without a url the whole engine runs in this process; with one, the session speaks Flight SQL to a scheduler.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> windrow::Result<()> {
//! let session = windrow::connect(None).await?;
//! let mut query = session.sql("SELECT x, x * x AS square FROM (VALUES (1), (2), (3)) AS t(x)").await?;
//! let mut rows = 0;
//! while let Some(batch) = query.next_batch().await? {
//!     rows += batch.num_rows();
//! }
//! assert_eq!(rows, 3);
//! session.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! First arrow of a query's line: [`Session::sql`]. Read in this order: `connect.rs`, `session.rs`, `query.rs`, `control.rs`; then `engine.rs` (a
//! coordinator in this process), `target.rs`, `login.rs` and `remote.rs` (one in another), `secret.rs`, `local_cluster.rs`, `supervisor.rs` and `restart.rs` (clusters
//! on this machine), `files.rs` and `statements.rs` (what a shell needs), `frame/mod.rs` (lazy dataframes). Next: `flight-server/src/session.rs`.

mod child_log;
mod connect;
mod control;
mod engine;
mod files;
pub mod frame;
mod local_cluster;
mod login;
mod query;
mod remote;
mod restart;
mod secret;
mod session;
mod statements;
mod supervisor;
mod target;
#[cfg(test)]
mod tests;

pub use connect::{ConnectOptions, connect};
pub use control::QueryControl;
pub use files::{create_table_text, table_name};
pub use frame::DataFrame;
pub use local_cluster::{LocalCluster, LocalClusterBuilder};
pub use login::Login;
pub use query::{Progress, Query};
pub use secret::PublishedSecret;
pub use session::Session;
pub use statements::{Open, StatementText, is_complete, open_at_end, split_statements};
pub use windrow_core::error::{Context, Error, ErrorKind, Result, Span};
pub use windrow_executor::give_back_freed_memory_with;
pub use windrow_flight::{ClusterStatus, ExecutorState, ExecutorStatus, JobState, JobStatus};
pub use windrow_planner::statement::changes_something;
pub use windrow_planner::{IngestMode, IngestTarget, Names, table_references};
