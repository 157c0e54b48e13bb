//! A file or folder as a table: its name, and the statement that makes it one.

use std::path::Path;

use windrow_core::{Error, Result};

/// The name of the table for the file, folder, pattern or url at `path`: `data/2024 sales.csv.gz` is `_2024_sales`.
#[must_use]
pub fn table_name(path: &str) -> String {
    path.to_owned()
}

/// The statement that makes `path` the table `table`. Relative paths begin at `directory`, the client's.
///
/// # Errors
/// `NotFound` with the nearest name, `Unsupported` for an extension that is none of ours.
pub fn create_table_text(_table: &str, _path: &str, _directory: &Path) -> Result<String> {
    Err(Error::unsupported("files"))
}
