//! File scans beside the plan: which files each partition reads, and the options that DataFusion's encoding loses. Next:
//! `scan/guarded.rs`, which fails a task whose file is not the one that was planned, and names the file and line of a fault.
//!
//! A scan is taken apart when its stage is encoded and put together when a task is decoded:
//!
//! ```text
//! template            DataFusion's node without files, limit and format options; those options as [`Scan`]
//! partition_inputs    for each partition of the stage: the files of each scan that is sliced with the stage
//! ```
//!
//! A scan that every task reads entirely (the collected side of a join) keeps its files in the template.

mod footer;
mod guarded;
mod line;
mod unchanged;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::config::CsvOptions;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::{DataFusionError, internal_err, not_impl_err};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{CsvSource, FileGroup, FileScanConfig, FileSource, JsonSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use datafusion::physical_expr::{Partitioning, PhysicalExpr, RangePartitioning};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::protobuf;
use object_store::memory::InMemory;
use prost::Message;
use serde::{Deserialize, Serialize};

use self::line::Lines;
use crate::codec::wire::{decode_message, from_bytes, to_bytes};
use crate::narrow::Placement;

/// What a scan is besides DataFusion's encoding of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Scan {
    /// Its number among the leaves of the stage.
    number: u32,
    /// The stage's partition that reads group 0.
    offset: u32,
    /// How many file groups it has.
    groups: u32,
    /// Its files, if every task reads all of them.
    files: Option<Vec<Vec<FileSlice>>>,
    format: Format,
    compression: Compression,
    preserve_order: bool,
    limit: Option<u64>,
}

/// One file, or a part of one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FileSlice {
    /// A `PartitionedFile`: path, size, modification, range, partition values.
    file: Bytes,
    e_tag: Option<String>,
    version: Option<String>,
}

/// The files of a scan that is sliced with its stage.
#[derive(Debug)]
pub(crate) struct ScanFiles {
    number: u32,
    offset: u32,
    groups: Vec<Vec<FileSlice>>,
}

/// Files of a slice: by the scan's number, the stage's partitions with their files.
pub(crate) type Files = HashMap<u32, Vec<(u32, Vec<FileSlice>)>>;

/// Options of the format that DataFusion's encoding loses or changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Format {
    Parquet,
    Csv {
        header: bool,
        delimiter: u8,
        quote: u8,
        terminator: Option<u8>,
        escape: Option<u8>,
        comment: Option<u8>,
        newlines_in_values: bool,
        truncated_rows: bool,
    },
    Json {
        newline_delimited: bool,
    },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Scan {
    /// Takes a scan apart: its description, its files unless the description holds them, and the scan that is left for DataFusion
    /// to encode.
    ///
    /// # Errors
    /// `NotImplemented` naming what cannot travel.
    pub(crate) fn take_apart(
        config: &FileScanConfig,
        number: u32,
        place: Placement,
    ) -> Result<(Self, Option<ScanFiles>, FileScanConfig)> {
        if config.expr_adapter_factory.is_some() {
            return not_impl_err!("a file scan with its own expression adapter");
        }
        if !config.file_source.table_schema().virtual_columns().is_empty() {
            return not_impl_err!("row numbers of a file scan");
        }
        let format = Format::of(config)?;
        // Orders of several files in a group are derived from their statistics again after decoding; otherwise nobody reads them.
        let ordered = !config.output_ordering.is_empty() && config.file_groups.iter().any(|group| group.len() > 1);
        let groups = config.file_groups.iter().map(|group| group.iter().map(|file| FileSlice::of(file, ordered)).collect());
        let groups: Vec<Vec<FileSlice>> = groups.collect::<Result<_>>()?;
        let mut bare = config.clone();
        (bare.file_groups, bare.limit) = (Vec::new(), None);
        if let Some(csv) = bare.file_source.downcast_ref::<CsvSource>() {
            bare.file_source = Arc::new(csv.clone().with_csv_options(CsvOptions::default()));
        }
        let mut scan = Self {
            number,
            offset: 0,
            groups: u32::try_from(groups.len()).unwrap_or(u32::MAX),
            files: None,
            format,
            compression: Compression::of(&config.file_compression_type),
            preserve_order: config.preserve_order,
            limit: config.limit.map(|limit| limit as u64),
        };
        match place {
            Placement::Sliced { offset, .. } => {
                scan.offset = offset;
                Ok((scan, Some(ScanFiles { number, offset, groups }), bare))
            }
            Placement::Whole => {
                scan.files = Some(groups);
                Ok((scan, None, bare))
            }
        }
    }

    /// Puts a scan together: what DataFusion decoded as `plan`, with this description and the slice's files. Groups outside of the
    /// slice are empty; narrowing drops them. Guarded, it refuses a file that changed since planning and names the file of a fault.
    pub(crate) fn put_together(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        files: &Files,
        is_guarded: bool,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let config = plan.downcast_ref::<DataSourceExec>().and_then(|exec| exec.data_source().downcast_ref::<FileScanConfig>());
        let Some(config) = config else { return internal_err!("{} decoded where a file scan was encoded", plan.name()) };
        let mut config = config.clone();
        let mut groups = vec![FileGroup::default(); self.groups as usize];
        let whole = self.files.iter().flatten().zip(0u32..).map(|(files, group)| (group, files));
        let sliced = files.get(&self.number).into_iter().flatten();
        let sliced = sliced.filter_map(|(partition, files)| Some((partition.checked_sub(self.offset)?, files)));
        for (group, files) in whole.chain(sliced) {
            let Some(slot) = groups.get_mut(group as usize) else {
                return internal_err!("files for group {group} of a scan with {}", self.groups);
            };
            *slot = FileGroup::new(files.iter().map(FileSlice::to_file).collect::<Result<_>>()?);
        }
        config.file_groups = groups;
        config.limit = self.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        config.preserve_order = self.preserve_order;
        config.file_compression_type = self.compression.into();
        config.file_source = self.format.restore(&config.file_source)?;
        if is_guarded {
            config.file_source = guarded::guarded(&config.file_source, self.lines(&config.file_source));
        }
        Ok(Arc::new(DataSourceExec::new(Arc::new(config))))
    }

    /// How the rows of a text file are found; `None` for other files, and for JSON that is one array.
    fn lines(&self, source: &Arc<dyn FileSource>) -> Option<Lines> {
        if !matches!(self.format, Format::Csv { .. } | Format::Json { newline_delimited: true }) {
            return None;
        }
        let schema = Arc::clone(source.table_schema().file_schema());
        let all = schema.fields().len();
        let columns = match source.projection() {
            Some(projection) => projection.column_indices().into_iter().filter(|&column| column < all).collect(),
            None => (0..all).collect(),
        };
        Some(Lines { schema, columns, csv: self.format.csv_options(), compression: self.compression.into() })
    }
}

/// A Parquet scan that also tests rows while it reads them, by what `test` makes of its columns `keys`; `None` for other plans. The
/// scan's own predicate moves into the reader as well: it is tested second, on the rows that are left.
pub(crate) fn with_row_filter(
    plan: &Arc<dyn ExecutionPlan>,
    keys: &[usize],
    test: &dyn Fn(Vec<Arc<dyn PhysicalExpr>>) -> Arc<dyn PhysicalExpr>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(scan) = plan.downcast_ref::<DataSourceExec>() else { return Ok(None) };
    let Some(config) = scan.data_source().downcast_ref::<FileScanConfig>() else { return Ok(None) };
    let schema = plan.schema();
    let source = guarded::inside(&config.file_source, |source| {
        let Some(parquet) = source.downcast_ref::<ParquetSource>() else { return Ok(None) };
        let mut columns: Vec<Arc<dyn PhysicalExpr>> = Vec::with_capacity(keys.len());
        for key in keys {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(*key).name(), *key));
            columns.push(match source.projection() {
                Some(projection) => projection.unproject_expr(&column)?,
                None => column,
            });
        }
        let mut predicate = test(columns);
        if let Some(own) = source.filter() {
            predicate = Arc::new(BinaryExpr::new(predicate, Operator::And, own));
        }
        let parquet = parquet.with_predicate(predicate).with_pushdown_filters(true);
        Ok(Some(Arc::new(parquet) as Arc<dyn FileSource>))
    })?;
    let Some(file_source) = source else { return Ok(None) };
    let mut config = config.clone();
    config.file_source = file_source;
    Ok(Some(Arc::new(DataSourceExec::new(Arc::new(config)))))
}

/// What each partition of a stage adds to the template; nothing at all if no scan is sliced.
pub(crate) fn partition_inputs(scans: &[ScanFiles], partitions: u32) -> Result<Vec<Bytes>> {
    if scans.is_empty() {
        return Ok(Vec::new());
    }
    let inputs = (0..partitions).map(|partition| {
        let files = scans.iter().filter_map(|scan| {
            let group = scan.groups.get(partition.checked_sub(scan.offset)? as usize)?;
            Some((scan.number, group))
        });
        Ok(to_bytes(&files.collect::<Vec<_>>())?.into())
    });
    inputs.collect()
}

/// The files of the partitions from `first` on.
pub(crate) fn files_of(inputs: &[Bytes], first: u32) -> Result<Files> {
    let mut files = Files::new();
    for (input, partition) in inputs.iter().zip(first..) {
        for (number, slices) in from_bytes::<Vec<(u32, Vec<FileSlice>)>>(input)? {
            files.entry(number).or_default().push((partition, slices));
        }
    }
    Ok(files)
}

impl FileSlice {
    fn of(file: &PartitionedFile, with_statistics: bool) -> Result<Self> {
        if !file.extensions.is_empty() {
            return not_impl_err!("a file scan with its own access plan");
        }
        let mut bare = file.clone();
        bare.arrow_schema = None;
        if !with_statistics {
            bare.statistics = None;
        }
        let encoded = protobuf::PartitionedFile::try_from(&bare)?.encode_to_vec().into();
        Ok(Self { file: encoded, e_tag: bare.object_meta.e_tag, version: bare.object_meta.version })
    }

    fn to_file(&self) -> Result<PartitionedFile> {
        let mut file = PartitionedFile::try_from(&decode_message::<protobuf::PartitionedFile>(&self.file)?)?;
        file.object_meta.e_tag.clone_from(&self.e_tag);
        file.object_meta.version.clone_from(&self.version);
        Ok(file)
    }
}

impl Format {
    fn of(config: &FileScanConfig) -> Result<Self> {
        let source = &config.file_source;
        if source.is::<ParquetSource>() {
            return Ok(Self::Parquet);
        }
        if let Some(csv) = source.downcast_ref::<CsvSource>() {
            // These eight are all that DataFusion's reader looks at; null regex, double quote and white space serve inference and
            // writing (datafusion-datasource-csv 55.2, `CsvSource::builder`).
            return Ok(Self::Csv {
                header: csv.has_header(),
                delimiter: csv.delimiter(),
                quote: csv.quote(),
                terminator: csv.terminator(),
                escape: csv.escape(),
                comment: csv.comment(),
                newlines_in_values: csv.newlines_in_values(),
                truncated_rows: csv.truncate_rows(),
            });
        }
        if let Some(json) = source.downcast_ref::<JsonSource>() {
            return Ok(Self::Json { newline_delimited: is_newline_delimited(json, config)? });
        }
        not_impl_err!("a scan of {} files", source.file_type())
    }

    fn restore(&self, decoded: &Arc<dyn FileSource>) -> Result<Arc<dyn FileSource>> {
        if let (Self::Parquet, Some(parquet)) = (self, decoded.downcast_ref::<ParquetSource>()) {
            let hint = parquet.table_parquet_options().global.metadata_size_hint;
            let restored = hint.map(|hint| Arc::new(parquet.clone().with_metadata_size_hint(hint)) as Arc<dyn FileSource>);
            return Ok(restored.unwrap_or_else(|| Arc::clone(decoded)));
        }
        if let (Self::Json { newline_delimited }, Some(json)) = (self, decoded.downcast_ref::<JsonSource>()) {
            return Ok(Arc::new(json.clone().with_newline_delimited(*newline_delimited)));
        }
        if let (Some(options), Some(csv)) = (self.csv_options(), decoded.downcast_ref::<CsvSource>()) {
            return Ok(Arc::new(csv.clone().with_csv_options(options)));
        }
        internal_err!("a scan of {} files was decoded as {self:?}", decoded.file_type())
    }

    fn csv_options(&self) -> Option<CsvOptions> {
        let Self::Csv { header, delimiter, quote, terminator, escape, comment, newlines_in_values, truncated_rows } = *self
        else {
            return None;
        };
        Some(CsvOptions {
            has_header: Some(header),
            delimiter,
            quote,
            terminator,
            escape,
            comment,
            newlines_in_values: Some(newlines_in_values),
            truncated_rows: Some(truncated_rows),
            ..CsvOptions::default()
        })
    }
}

/// JSON scans do not tell whether they read lines or one array. But only arrays refuse to be opened in part: the opener says so before
/// it reads anything, so an empty store serves.
fn is_newline_delimited(json: &JsonSource, config: &FileScanConfig) -> Result<bool> {
    let Some(file) = config.file_groups.iter().find_map(|group| group.iter().next()) else { return Ok(true) };
    let opener = json.with_batch_size(1).create_file_opener(Arc::new(InMemory::new()), config, 0)?;
    match opener.open(file.clone().with_range(0, 1)) {
        Ok(_never_polled) => Ok(true),
        Err(DataFusionError::NotImplemented(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Compression {
    fn of(compression: &FileCompressionType) -> Self {
        match compression.get_variant() {
            CompressionTypeVariant::GZIP => Self::Gzip,
            CompressionTypeVariant::BZIP2 => Self::Bzip2,
            CompressionTypeVariant::XZ => Self::Xz,
            CompressionTypeVariant::ZSTD => Self::Zstd,
            CompressionTypeVariant::UNCOMPRESSED => Self::None,
        }
    }
}

impl From<Compression> for FileCompressionType {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Gzip => Self::GZIP,
            Compression::Bzip2 => Self::BZIP2,
            Compression::Xz => Self::XZ,
            Compression::Zstd => Self::ZSTD,
            Compression::None => Self::UNCOMPRESSED,
        }
    }
}

/// A scan of files or of memory with only these of its partitions; `None` if `plan` is neither.
pub(crate) fn narrow_source(plan: &Arc<dyn ExecutionPlan>, slice: Range<usize>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(exec) = plan.downcast_ref::<DataSourceExec>() else { return Ok(None) };
    if let Some(scan) = exec.data_source().downcast_ref::<FileScanConfig>() {
        let mut scan = scan.clone();
        scan.file_groups = part(&scan.file_groups, &slice)?.to_vec();
        scan.output_partitioning = scan.output_partitioning.map(|whole| narrow_partitioning(whole, &slice)).transpose()?;
        return Ok(Some(Arc::new(exec.clone().with_data_source(Arc::new(scan)))));
    }
    if let Some(memory) = exec.data_source().downcast_ref::<MemorySourceConfig>() {
        let partitions = part(memory.partitions(), &slice)?;
        let narrowed = MemorySourceConfig::try_new(partitions, memory.original_schema(), memory.projection().clone())?
            .with_limit(exec.fetch())
            .with_show_sizes(memory.show_sizes());
        // Orders are in terms of the projected columns here but would be projected again: a projected scan drops its claim.
        let narrowed = match memory.projection() {
            None => narrowed.try_with_sort_information(memory.sort_information().to_vec())?,
            Some(_) => narrowed,
        };
        return Ok(Some(Arc::new(exec.clone().with_data_source(Arc::new(narrowed)))));
    }
    Ok(None)
}

fn part<'a, T>(all: &'a [T], slice: &Range<usize>) -> Result<&'a [T]> {
    match all.get(slice.clone()) {
        Some(part) => Ok(part),
        None => internal_err!("a scan of {} partitions narrowed to {slice:?}", all.len()),
    }
}

fn narrow_partitioning(whole: Partitioning, slice: &Range<usize>) -> Result<Partitioning> {
    let count = slice.len();
    Ok(match whole {
        Partitioning::Hash(keys, _) => Partitioning::Hash(keys, count),
        Partitioning::RoundRobinBatch(_) | Partitioning::UnknownPartitioning(_) => Partitioning::UnknownPartitioning(count),
        Partitioning::Range(range) => {
            let splits = part(range.split_points(), &(slice.start..slice.end.saturating_sub(1)))?;
            Partitioning::Range(RangePartitioning::try_new(range.ordering().clone(), splits.to_vec())?)
        }
    })
}
