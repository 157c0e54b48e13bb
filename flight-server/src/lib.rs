//! The wire: the coordinator's loop, the control stream to executors, the shuffle service between them, and Flight SQL for
//! clients.
//!
//! Read in the order of a query: [`session`] (a statement arrives and is planned), [`coordinator`] (the only loop),
//! [`control`] (commands and reports over the network), [`transport`] and [`shuffle`] (segments between executors), [`results`]
//! (rows on their way to the client), [`security`] (who may call), [`sql`] (Flight SQL around all of it), `fetch` (results read from
//! executors), [`serve`] and [`executor_process`] (the processes).

mod broken_off;
pub mod control;
pub mod coordinator;
pub mod executor_process;
mod fetch;
mod lifetime;
mod listener;
mod request_limits;
pub mod results;
pub mod routine;
pub mod security;
pub mod serve;
pub mod session;
pub mod shuffle;
pub mod sql;
pub mod status;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod wire;
mod write;

pub use control::client::error_chain;
pub use coordinator::{Coordinator, CoordinatorOptions};
pub use executor_process::{NetworkExecutorOptions, run_executor};
pub use results::{Canceller, Statement};
pub use security::{Access, Dialer};
pub use serve::{ServeOptions, Server, serve};
pub use session::CoordinatorSession;
pub use status::{ClusterStatus, ExecutorState, ExecutorStatus, JobProgress, JobState, JobStatus};
pub use windrow_executor::{Executor, ExecutorOptions};
pub use windrow_planner::{Allowed, StorePolicy, Stores};
