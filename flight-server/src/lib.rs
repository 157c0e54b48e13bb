//! The wire: the coordinator's loop, the control stream to executors, the shuffle service between them, and Flight SQL for
//! clients.
//!
//! Read in the order of a query: [`session`], [`coordinator`], [`results`], [`serve`], [`executor_process`].

pub mod coordinator;
pub mod executor_process;
pub mod results;
pub mod routine;
pub mod serve;
pub mod session;
pub mod status;
pub mod wire;

pub use coordinator::{Coordinator, CoordinatorOptions};
pub use executor_process::{NetworkExecutorOptions, run_executor};
pub use results::Statement;
pub use serve::{ServeOptions, Server, serve};
pub use session::CoordinatorSession;
pub use status::{ClusterStatus, ExecutorState, ExecutorStatus, JobProgress, JobState, JobStatus};

/// What an executor is started with.
#[derive(Debug, Clone, Default)]
pub struct ExecutorOptions {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Partitions it computes at a time.
    pub slots: u32,
    /// Its memory limit in bytes.
    pub memory_limit: u64,
    /// Where it spills.
    pub spill_dir: std::path::PathBuf,
    /// Most bytes on disk.
    pub spill_limit: u64,
    /// The share of the memory limit from which it writes behind.
    pub evict_from_percent: u32,
    /// Bytes in flight of one shuffle stream.
    pub fetch_window: u64,
}

/// A running executor.
#[derive(Debug)]
pub struct Executor {}
