//! The module `windrow._windrow`: what the Python package needs of the `windrow` library, with nothing of its own. Classes here are
//! plain and typed; what people see is built on them in `python/windrow`.
//!
//! Read in this order: `runtime.rs` (how Python waits), `error.rs`; `session.rs`, `cluster.rs`, `query.rs`, `table.rs` (the classes);
//! `expr.rs`, `frame.rs` (lazy frames), `udf.rs` (functions of Python); `parameters.rs` and `values.rs` (Python's values to Arrow's and back), `program.rs`. Next: `client/src/lib.rs`.

mod cluster;
mod error;
mod expr;
mod frame;
mod parameters;
mod program;
mod query;
mod runtime;
mod session;
mod status;
mod table;
mod udf;
mod values;

use pyo3::prelude::*;

/// What the package `windrow` is built on. Nothing here is for direct use.
#[pymodule]
mod _windrow {
    #[pymodule_export]
    use crate::cluster::Cluster;
    #[pymodule_export]
    use crate::expr::{Expr, function_names, has_aggregate, parse_type};
    #[pymodule_export]
    use crate::frame::{Frame, frame_of_files, frame_of_query, frame_of_rows, frame_of_table};
    #[pymodule_export]
    use crate::parameters::table_of_columns;
    #[pymodule_export]
    use crate::program::{machine, parse_size, run_program, table_references};
    #[pymodule_export]
    use crate::query::Query;
    #[pymodule_export]
    use crate::session::Session;
    #[pymodule_export]
    use crate::table::Table;
    #[pymodule_export]
    use crate::udf::{PythonFunction, call_python};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        windrow_cli::allocator::serve_guest();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
