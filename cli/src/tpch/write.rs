//! Writes one file of one table, under a temporary name until it is complete.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::csv;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchReader};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tpchgen::generators as rows;
use tpchgen_arrow as batches;
use windrow::{Error, ErrorKind, Result};

use super::{Format, Generated, Options, Part, Table};

/// Rows of a row group. 256 Ki: about 10 MB of lineitem, small enough that every slot gets some at scale 1.
const ROW_GROUP_ROWS: usize = 256 * 1024;
/// Rows of a batch on its way to the file.
const BATCH_ROWS: usize = 8192;

type Batches = Box<dyn RecordBatchReader>;

/// Writes one file and says what is in it.
pub(super) fn part(options: &Options, part: Part) -> Result<Generated> {
    let folder = options.output.join(part.table.name());
    let name = format!("part-{}.{}", part.index, options.format.extension());
    let (path, unfinished) = (folder.join(&name), folder.join(format!(".{name}.unfinished")));
    let failed = |source: Failure| source.at(&path);
    std::fs::create_dir_all(&folder).map_err(Failure::from).map_err(failed)?;
    let batches = generator(options.scale, part);
    let schema = batches.schema();
    let rows = match options.format {
        Format::Parquet => parquet(&unfinished, &schema, batches),
        Format::Csv => csv(&unfinished, &schema, batches),
    }
    .map_err(failed)?;
    std::fs::rename(&unfinished, &path).map_err(Failure::from).map_err(failed)?;
    let bytes = std::fs::metadata(&path).map_err(Failure::from).map_err(failed)?.len();
    Ok(Generated { table: part.table, files: 1, rows, bytes })
}

/// The rows of `part` as batches. The generators count parts from 1.
fn generator(scale: f64, part: Part) -> Batches {
    let (index, count) = (i32::try_from(part.index + 1).unwrap_or(i32::MAX), i32::try_from(part.count).unwrap_or(i32::MAX));
    macro_rules! table {
        ($batches:ident, $rows:ident) => {
            Box::new(batches::$batches::new(rows::$rows::new(scale, index, count)).with_batch_size(BATCH_ROWS))
        };
    }
    match part.table {
        Table::Lineitem => table!(LineItemArrow, LineItemGenerator),
        Table::Orders => table!(OrderArrow, OrderGenerator),
        Table::Partsupp => table!(PartSuppArrow, PartSuppGenerator),
        Table::Part => table!(PartArrow, PartGenerator),
        Table::Customer => table!(CustomerArrow, CustomerGenerator),
        Table::Supplier => table!(SupplierArrow, SupplierGenerator),
        Table::Nation => table!(NationArrow, NationGenerator),
        Table::Region => table!(RegionArrow, RegionGenerator),
    }
}

fn parquet(path: &Path, schema: &SchemaRef, batches: Batches) -> Result<u64, Failure> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(BufWriter::new(File::create(path)?), Arc::clone(schema), options)?;
    let rows = each(batches, |batch| Ok(writer.write(batch)?))?;
    writer.into_inner()?.flush()?;
    Ok(rows)
}

fn csv(path: &Path, schema: &SchemaRef, batches: Batches) -> Result<u64, Failure> {
    let mut writer = csv::Writer::new(BufWriter::new(File::create(path)?));
    // The header is there even where no row is.
    writer.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
    let rows = each(batches, |batch| Ok(writer.write(batch)?))?;
    writer.into_inner().flush()?;
    Ok(rows)
}

fn each(batches: Batches, mut write: impl FnMut(&RecordBatch) -> Result<(), Failure>) -> Result<u64, Failure> {
    let mut rows = 0;
    for batch in batches {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        write(&batch)?;
    }
    Ok(rows)
}

/// Whatever writing a file can meet.
#[derive(Debug)]
struct Failure(Box<dyn std::error::Error + Send + Sync>);

impl Failure {
    fn at(self, path: &Path) -> Error {
        Error::new(ErrorKind::Data, format!("'{}' cannot be written: {}", path.display(), self.0))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(Box::new(error))
    }
}

impl From<ArrowError> for Failure {
    fn from(error: ArrowError) -> Self {
        Self(Box::new(error))
    }
}

impl From<ParquetError> for Failure {
    fn from(error: ParquetError) -> Self {
        Self(Box::new(error))
    }
}
