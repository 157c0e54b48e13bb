//! What the benches that run queries share: the queries, their answers as text, and what the system says of a process.

use std::path::{Path, PathBuf};

use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

const QUERIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/queries/tpch");

/// The tables of TPC-H.
pub const TPCH_TABLES: [&str; 8] = ["lineitem", "orders", "customer", "part", "partsupp", "supplier", "nation", "region"];

/// Whatever ends a bench.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A query and what it is called.
pub type Named = (String, String);

/// The `windrow` program that was built with this bench.
///
/// # Errors
/// That it was not.
pub fn program_of_this_build() -> Result<PathBuf, Failure> {
    let here = std::env::current_exe()?;
    let program = here.parent().and_then(Path::parent).map(|folder| folder.join("windrow"));
    program.filter(|program| program.exists()).ok_or_else(|| "build the program first, or add `-- --program=PATH`".into())
}

/// The queries of TPC-H.
///
/// # Errors
/// Those of reading their files.
pub fn tpch() -> Result<Vec<Named>, Failure> {
    (1..=22)
        .map(|number| {
            Ok((format!("q{number:02}"), std::fs::read_to_string(Path::new(QUERIES).join(format!("q{number:02}.sql")))?))
        })
        .collect()
}

/// Resident bytes and open files of each process.
#[must_use]
pub fn held(pids: &[u32]) -> Vec<(u64, usize)> {
    let files = |pid: &u32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    pids.iter().map(|pid| (status(*pid, "VmRSS:"), files(pid))).collect()
}

/// A figure of a process in bytes; 0 where the system does not say.
#[must_use]
pub fn status(pid: u32, what: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}

/// The rows as text in any order; sums of floats differ in their last digits by the order of their addends.
///
/// # Errors
/// A value that cannot be written.
pub fn lines(batches: &[RecordBatch]) -> Result<Vec<String>, Failure> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let values: Vec<String> = columns.iter().map(|column| rounded(&column.value(row).to_string())).collect();
            rows.push(values.join("|"));
        }
    }
    rows.sort_unstable();
    Ok(rows)
}

/// A number with a fraction, to six digits.
#[must_use]
pub fn rounded(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(number) if value.contains('.') => format!("{number:.6e}"),
        _ => value.to_owned(),
    }
}
