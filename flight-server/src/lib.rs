//! The wire: the coordinator's loop, the control stream to executors, the shuffle service between them, and Flight SQL for
//! clients.
//!
//! Read in the order of a query: [`session`] (a statement arrives and is planned), [`coordinator`] (the only loop),
//! [`control`] (commands and reports over the network), [`transport`] and [`shuffle`] (segments between executors), [`results`]
//! (rows on their way to the client), [`sql`] (Flight SQL around all of it), [`serve`] and [`executor_process`] (the processes).

pub mod control;
pub mod coordinator;
pub mod executor_process;
pub mod results;
pub mod routine;
pub mod serve;
pub mod session;
pub mod shuffle;
pub mod sql;
pub mod status;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod wire;

pub use coordinator::{Coordinator, CoordinatorOptions};
pub use executor_process::{NetworkExecutorOptions, run_executor};
pub use results::Statement;
pub use serve::{ServeOptions, Server, serve};
pub use session::CoordinatorSession;
pub use status::{ClusterStatus, ExecutorState, ExecutorStatus, JobProgress, JobState, JobStatus};
pub use windrow_executor::{Executor, ExecutorOptions};
