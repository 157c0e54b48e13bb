//! The virtual environment with the clients, made once for each `tests/clients/requirements.txt` and Python, and reused by every run
//! after. Next: `suite.rs`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use windrow_tests::python;

use crate::suite;

/// The interpreter that has the clients.
pub(crate) fn python() -> &'static Path {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    // Cargo's folder for files of tests, below its target directory.
    let ready =
        || python::environment("clients", &suite::folder().join("requirements.txt"), Path::new(env!("CARGO_TARGET_TMPDIR")));
    PYTHON.get_or_init(ready).as_deref().unwrap_or_else(|error| panic!("{error}"))
}
