//! The program `windrow` inside of the interpreter, and what of the library needs no session. Next: `cli/src/lib.rs`.

use std::ffi::OsString;

use pyo3::prelude::*;
use windrow_executor::machine as this_machine;

use crate::error::raise;

/// Runs the program `windrow` with `arguments`, the first of which is its name, and returns its exit code.
#[pyfunction]
pub(crate) fn run_program(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    windrow_cli::allocator::serve_program();
    py.detach(|| windrow_cli::run_with(arguments))
}

/// The cores and the bytes of memory that this process may use, as executors share them out.
#[pyfunction]
pub(crate) fn machine() -> (u32, u64) {
    (this_machine::slots(), this_machine::memory_limit())
}

/// The bytes in a text such as `2GB` or `512MiB`.
#[pyfunction]
pub(crate) fn parse_size(py: Python<'_>, text: &str) -> PyResult<u64> {
    windrow_core::config::parse_size(text).map_err(|error| raise(py, &error, None))
}

/// The tables that a text names without a schema.
#[pyfunction]
pub(crate) fn table_references(py: Python<'_>, text: &str) -> Vec<String> {
    py.detach(|| windrow::table_references(text))
}
