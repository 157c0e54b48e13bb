//! Writes the files that the SQL corpus queries: small, the same on every machine, and spread over [`FILES`] files a table of which
//! one is empty, so that every stage has more partitions than rows in some of them. `tests/sql/tables.inc` declares the tables.
//!
//! Doubles are multiples of 0.25 and small, so that their sums are exact in any order.

mod text;
mod typed;
mod wide;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// How many files a table has.
pub const FILES: usize = 7;

/// The file of each table that holds no row.
const EMPTY_FILE: usize = 3;

/// The folder with all tables below `base` (cargo's folder for the binary's files), written once a process.
pub fn folder(base: &str) -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = scratch(base, "corpus");
        write(&folder);
        folder
    })
}

/// A fresh folder for this process below `base`, named for its use. Removes those that processes which are gone left behind.
pub fn scratch(base: &str, name: &str) -> PathBuf {
    let base = Path::new(base);
    fs::create_dir_all(base).unwrap();
    for entry in fs::read_dir(base).unwrap().filter_map(Result::ok) {
        let owner = entry.file_name().to_str().and_then(|name| name.strip_prefix("process-")?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            fs::remove_dir_all(entry.path()).ok(); // another process may be removing it too
        }
    }
    let folder = base.join(format!("process-{}", std::process::id())).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes every table of the corpus into `folder`.
pub fn write(folder: &Path) {
    table(folder, "events", &wide::events());
    table(folder, "users", &wide::users());
    table(folder, "lefts", &wide::lefts());
    table(folder, "rights", &wide::rights());
    table(folder, "edges", &wide::edges());
    table(folder, "typed", &typed::typed());
    table(folder, "nested", &typed::nested());
    table(folder, "nums", &wide::nums(false));
    table(folder, "nulls", &wide::nums(true));
    table(folder, "nothing", &wide::events().slice(0, 0));
    text::csv(folder);
    text::json(folder);
    hive(folder);
}

/// One table: a folder of Parquet files, rows dealt out in runs so that equal keys are in many files.
fn table(folder: &Path, name: &str, rows: &RecordBatch) {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).unwrap();
    for (index, part) in deal(rows).iter().enumerate() {
        parquet(&folder.join(format!("part-{index}.parquet")), part);
    }
}

/// Row `i` goes to file `i % 6`, skipping the empty file.
fn deal(rows: &RecordBatch) -> Vec<RecordBatch> {
    let filled = FILES - 1;
    let mut parts = vec![Vec::new(); FILES];
    for row in 0..rows.num_rows() {
        let file = row % filled;
        parts[if file >= EMPTY_FILE { file + 1 } else { file }].push(rows.slice(row, 1));
    }
    parts.iter().map(|rows_of_part| concat_batches(&rows.schema(), rows_of_part).unwrap()).collect()
}

/// One Parquet file with row groups of 64 rows, so that pruning and ranges have something to work on.
pub fn parquet(path: &Path, rows: &RecordBatch) {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(64)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

/// The events again, as `year=.../month=.../`.
fn hive(folder: &Path) {
    for (year, month, rows) in wide::by_month() {
        let folder = folder.join(format!("hive/year={year}/month={month}"));
        fs::create_dir_all(&folder).unwrap();
        parquet(&folder.join("part-0.parquet"), &rows);
    }
}
