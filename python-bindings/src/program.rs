//! The program `windrow` inside of the interpreter, and what of the library needs no session. Next: `cli/src/lib.rs`.

use std::ffi::OsString;

use pyo3::prelude::*;
use windrow_executor::machine as this_machine;

use crate::error::raise;

/// Runs the program `windrow` with `arguments`, the first of which is its name, and returns its exit code.
#[pyfunction]
pub(crate) fn run_program(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
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

/// Lets executors in this process give freed memory back to the system when they are short of it.
pub(crate) fn give_back_freed_memory() {
    windrow::give_back_freed_memory_with(give_back);
}

#[cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "the allocator has no safe interface to this"))]
fn give_back(is_short: bool) {
    #[cfg(target_env = "gnu")]
    if is_short {
        // SAFETY: may be called by any thread at any time.
        unsafe { libc::malloc_trim(0) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = is_short;
}
