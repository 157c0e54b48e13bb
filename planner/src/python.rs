//! Python functions in plans. Their code is bytes that nobody here looks into: an executor hands them to a Python worker
//! (`executor/src/python.rs`).
//!
//! ```text
//! function.rs   a function and how it is called       call.rs     calls in expressions
//! extract.rs    calls become steps of the plan         node.rs     that step, logical
//! exec.rs       that step, physical                    create.rs   functions that a session knows by name
//! ```
//!
//! `map_batches` is the step itself. A call in an expression is a place holder that DataFusion knows as a function and nobody can
//! evaluate; before the plan is optimized, each becomes a step below, and a column of that in its place. Next: `function.rs`.

mod call;
mod create;
mod exec;
mod extract;
mod function;
mod node;
#[cfg(test)]
mod tests;

pub(crate) use call::{aggregate_of, function_of, is_python, marker, marker_aggregate};
pub use call::{call_python, call_python_aggregate};
pub use create::create_python_function;
pub(crate) use create::{created, is_own_function};
pub(crate) use exec::PythonMapExec;
pub use exec::{PythonRunner, PythonRunners};
pub(crate) use extract::{extract, is_called_in};
pub use function::{PythonFormat, PythonFunction, PythonStyle};
pub use node::PythonMap;
pub(crate) use node::query_planner;
