//! Runs attempts and keeps what they produce. Sixth arrow of a query's line: a `TaskSpec` arrives, rows leave by the shuffle.
//!
//! Read in the order of an attempt's life: `executor.rs` (commands arrive), `attempt.rs` (one attempt runs), `classify.rs` (an error
//! becomes a failure), `memory.rs`, `query_memory.rs`, `watch.rs`, `spill.rs` and `operator_files.rs` (what it may use), `grace` (joins
//! that fit into that), `stoppable.rs` (joins that stop), `window_views.rs` (windows that do), `python.rs` (Python functions), then the `shuffle` module. `timer.rs` is the one place that waits
//! by time. How commands, reports and segments travel is not decided here: see `flight-server`.

mod attempt;
mod classify;
mod executor;
mod grace;
pub mod machine;
mod memory;
mod operator_files;
mod python;
mod query_memory;
pub mod shuffle;
mod spill;
mod stoppable;
#[cfg(test)]
mod testing;
pub mod timer;
mod watch;
mod window_views;

pub use classify::classify;
pub use executor::{Executor, ExecutorOptions};
pub use memory::ExecutorPool;
pub use shuffle::store::ShuffleStore;
pub use watch::give_back_freed_memory_with;
