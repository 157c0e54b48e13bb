//! TPC-H at a small scale: the eight tables as Parquet, and the 22 texts that the `windrow bench` command uses too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::record_batch::{RecordBatch, RecordBatchReader};
use parquet::arrow::ArrowWriter;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator, RegionGenerator,
    SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow,
};

use crate::fixtures::FILES;

/// The tables.
pub const TABLES: [&str; 8] = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

/// The texts, as `(number, SQL)`.
pub fn queries() -> Vec<(u32, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/queries/tpch");
    (1..=22).map(|number| (number, fs::read_to_string(folder.join(format!("q{number:02}.sql"))).unwrap())).collect()
}

/// Writes all tables at `scale` below `folder`, [`FILES`] files each; the tables named in `empty` get files without rows.
pub fn write(folder: &Path, scale: f64, empty: &[&str]) {
    for table in TABLES {
        let files = (0..FILES).map(|file| folder.join(table).join(format!("part-{file}.parquet"))).collect::<Vec<_>>();
        fs::create_dir_all(folder.join(table)).unwrap();
        let mut reader = generate(table, scale);
        if empty.contains(&table) {
            files.iter().for_each(|file| write_file(file, &[RecordBatch::new_empty(reader.schema())]));
        } else {
            let batches = reader.by_ref().collect::<Result<Vec<_>, _>>().unwrap();
            deal(&files, &batches);
        }
    }
}

/// The first files get the rows in equal runs; a table with fewer rows than files leaves some without any.
fn deal(files: &[PathBuf], batches: &[RecordBatch]) {
    let rows = arrow::compute::concat_batches(&batches[0].schema(), batches).unwrap();
    let run = rows.num_rows().div_ceil(files.len());
    for (index, file) in files.iter().enumerate() {
        let start = (index * run).min(rows.num_rows());
        write_file(file, &[rows.slice(start, run.min(rows.num_rows() - start))]);
    }
}

fn write_file(path: &Path, batches: &[RecordBatch]) {
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batches[0].schema(), None).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.close().unwrap();
}

fn generate(table: &str, scale: f64) -> Box<dyn RecordBatchReader> {
    match table {
        "customer" => Box::new(CustomerArrow::new(CustomerGenerator::new(scale, 1, 1))),
        "lineitem" => Box::new(LineItemArrow::new(LineItemGenerator::new(scale, 1, 1))),
        "nation" => Box::new(NationArrow::new(NationGenerator::new(scale, 1, 1))),
        "orders" => Box::new(OrderArrow::new(OrderGenerator::new(scale, 1, 1))),
        "part" => Box::new(PartArrow::new(PartGenerator::new(scale, 1, 1))),
        "partsupp" => Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1))),
        "region" => Box::new(RegionArrow::new(RegionGenerator::new(scale, 1, 1))),
        "supplier" => Box::new(SupplierArrow::new(SupplierGenerator::new(scale, 1, 1))),
        _ => panic!("TPC-H has no table {table}"),
    }
}
