//! The tables of TPC-H as files, generated a batch at a time on every core: never more in memory than one row group a thread.
//!
//! Layout: `DIR/lineitem/part-0.parquet` to `part-3.parquet`, `DIR/nation/part-0.parquet`, and so on. The files carry no Arrow
//! schema, so that every engine reads the same plain types: bigint, decimal(15,2), date, text.

pub(crate) mod command;
mod write;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clap::ValueEnum;
use parking_lot::Mutex;
use windrow::{Error, ErrorKind, Result};

/// The format of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Apache Parquet, Snappy-compressed
    Parquet,
    /// Comma-separated, with a header
    Csv,
}

impl Format {
    /// The ending of the files.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }
}

/// A table of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Order positions: 6,000,000 rows at scale 1.
    Lineitem,
    /// 1,500,000 rows at scale 1.
    Orders,
    /// Which supplier has which part: 800,000 rows at scale 1.
    Partsupp,
    /// 200,000 rows at scale 1.
    Part,
    /// 150,000 rows at scale 1.
    Customer,
    /// 10,000 rows at scale 1.
    Supplier,
    /// 25 rows.
    Nation,
    /// 5 rows.
    Region,
}

impl Table {
    /// All of them, largest first.
    pub const ALL: [Self; 8] =
        [Self::Lineitem, Self::Orders, Self::Partsupp, Self::Part, Self::Customer, Self::Supplier, Self::Nation, Self::Region];

    /// Its name in SQL and of its folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lineitem => "lineitem",
            Self::Orders => "orders",
            Self::Partsupp => "partsupp",
            Self::Part => "part",
            Self::Customer => "customer",
            Self::Supplier => "supplier",
            Self::Nation => "nation",
            Self::Region => "region",
        }
    }

    /// Whether it grows enough with the scale to be worth several files.
    fn is_large(self) -> bool {
        matches!(self, Self::Lineitem | Self::Orders | Self::Partsupp | Self::Part | Self::Customer)
    }
}

/// What to generate.
#[derive(Debug, Clone)]
pub struct Options {
    /// The scale factor: about gigabytes of CSV. Greater than 0.
    pub scale: f64,
    /// The folder that gets a folder for each table. Those must not exist, or be empty.
    pub output: PathBuf,
    /// The files' format.
    pub format: Format,
    /// Files of each large table; the small ones have one.
    pub parts: u32,
}

/// What was generated of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generated {
    /// The table.
    pub table: Table,
    /// Its files.
    pub files: u32,
    /// Its rows.
    pub rows: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// One file to write.
#[derive(Debug, Clone, Copy)]
struct Part {
    table: Table,
    /// From 0.
    index: u32,
    count: u32,
}

/// Generates all tables and returns what each became, largest first. The same options give the same bytes.
///
/// Blocks, with as many threads as the machine has cores: call it from a thread that may block.
///
/// # Errors
/// `InvalidConfig` for a scale or part count that does not fit or a table's folder that is not empty, `Data` if a file cannot be
/// written. After an error the folder may hold a part of the files.
pub fn generate(options: &Options) -> Result<Vec<Generated>> {
    check(options)?;
    let parts: Vec<Part> = Table::ALL
        .into_iter()
        .flat_map(|table| {
            let count = if table.is_large() { options.parts } else { 1 };
            (0..count).map(move |index| Part { table, index, count })
        })
        .collect();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(parts.len());
    let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let written: Mutex<Vec<Result<Generated>>> = Mutex::new(Vec::with_capacity(parts.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed))
                    && !has_failed.load(Ordering::Relaxed)
                {
                    let result = write::part(options, *part);
                    has_failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    written.lock().push(result);
                }
            });
        }
    });
    let mut all = Vec::with_capacity(Table::ALL.len());
    let written = written.into_inner().into_iter().collect::<Result<Vec<Generated>>>()?;
    for table in Table::ALL {
        let files = written.iter().filter(|file| file.table == table);
        all.push(files.fold(Generated { table, files: 0, rows: 0, bytes: 0 }, |sum, file| Generated {
            table,
            files: sum.files + 1,
            rows: sum.rows + file.rows,
            bytes: sum.bytes + file.bytes,
        }));
    }
    Ok(all)
}

/// Refuses what cannot become tables, before the first file.
fn check(options: &Options) -> Result<()> {
    let refuse = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
    if !(options.scale > 0.0 && options.scale <= 100_000.0) {
        return refuse(format!("scale {} is not between 0 and 100,000; 1 is a gigabyte", options.scale));
    }
    if options.parts == 0 {
        return refuse("0 parts hold no table; 4 is usual".to_owned());
    }
    for table in Table::ALL {
        let folder = options.output.join(table.name());
        let is_used = match std::fs::read_dir(&folder) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        };
        if is_used {
            return refuse(format!("'{}' is there already and not empty; choose another folder", folder.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
