//! What COPY, INSERT and CREATE TABLE write, and where: a statement becomes the query whose rows are written, and the place for its files. Next:
//! `exec.rs` for the operator, `publish.rs` for the place.

use std::collections::HashMap as Options;
use std::sync::Arc;

use bytesize::ByteSize;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::datasource::file_format::{FileFormat, file_type_to_format};
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::source_as_provider;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::dml::{CopyTo, InsertOp};
use datafusion::logical_expr::{DdlStatement, DmlStatement, LogicalPlan, WriteOp};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Value;
use object_store::ObjectStore;
use windrow_core::{Error, ErrorKind};

use super::append::fits;
use super::create::{NewTable, Warehouse, create_draft};
use super::exec::{WriteExec, WriteSpec};
use super::format::Format;
use super::publish::{Place, Publication, store_error, taken};
use super::target::{Target, files_below, is_file};
use crate::diagnose::ours;
use crate::files::text_kind;

/// Bytes of a file before the next one begins: 512 MiB, which one task reads in seconds and a store lists by the thousand.
const FILE_BYTES: u64 = 512 << 20;
/// The least that a statement may ask for: smaller files cost more to open than to read.
const FILE_BYTES_MIN: u64 = 64 << 10;

/// A write before its query is planned.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The query whose rows are written.
    pub(crate) input: LogicalPlan,
    /// Where the files go.
    pub(crate) publication: Publication,
    /// The table that is made of them.
    pub(crate) table: Option<NewTable>,
    spec: WriteSpec,
    is_single: bool,
}

impl Draft {
    pub(super) fn creating(input: LogicalPlan, publication: Publication, spec: WriteSpec, table: NewTable) -> Self {
        Self { input, publication, table: Some(table), spec, is_single: false }
    }

    /// Puts the operator that writes on top of the query's plan.
    ///
    /// # Errors
    /// `Unsupported` if the format cannot hold a column.
    pub(crate) fn on(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = plan.schema();
        let kept: Vec<usize> =
            (0..schema.fields().len()).filter(|&index| !self.spec.keys.contains(schema.field(index).name())).collect();
        if kept.is_empty() {
            let what = "every column is in PARTITIONED BY, so nothing is left for the files";
            return Err(ours(Error::new(ErrorKind::InvalidQuery, what)));
        }
        self.spec.format.check_columns(&schema.project(&kept)?)?;
        let is_spread = plan.output_partitioning().partition_count() > 1;
        let plan = if self.is_single && is_spread { Arc::new(CoalescePartitionsExec::new(plan)) as _ } else { plan };
        Ok(Arc::new(WriteExec::new(plan, Arc::new(self.spec.clone()), 0)))
    }
}

/// Says what DataFusion's parser leaves open in COPY and only a file's name tells: `x.csv.gz` is CSV, compressed by gzip.
pub(crate) fn complete(statement: &mut Statement) {
    match statement {
        Statement::Explain(explain) => complete(&mut explain.statement),
        Statement::CopyTo(copy) if copy.stored_as.is_none() => {
            let Some((kind, compression)) = text_kind(&copy.target) else { return };
            let (format, delimiter) = match kind.as_str() {
                "parquet" | "parq" => ("PARQUET", None),
                "csv" => ("CSV", None),
                "tsv" => ("CSV", Some("\t")),
                _ => ("JSON", None),
            };
            copy.stored_as = Some(format.to_owned());
            let mut add = |key: &str, value: &str| {
                let is_given = copy
                    .options
                    .iter()
                    .any(|(given, _)| given.eq_ignore_ascii_case(key) || given.to_lowercase() == format!("format.{key}"));
                if !is_given {
                    copy.options.push((key.to_owned(), Value::SingleQuotedString(value.to_owned())));
                }
            };
            if let Some(delimiter) = delimiter {
                add("delimiter", delimiter);
            }
            if let Some(compression) = compression {
                add("compression", compression);
            }
        }
        _ => {}
    }
}

/// Whether a plan writes files and is one that [`draft`] takes. A new table does if it is shared and there is a folder for it.
pub(crate) fn is_write(plan: &LogicalPlan, state: &SessionState, warehouse: &Warehouse) -> bool {
    match plan {
        LogicalPlan::Copy(_) => true,
        LogicalPlan::Dml(dml) => matches!(dml.op, WriteOp::Insert(_)),
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) => warehouse.takes(create, state),
        _ => false,
    }
}

/// What `plan`, a COPY or an INSERT, writes. With `look`, the target is looked at, and refused if it may not be written.
///
/// # Errors
/// `InvalidQuery` for a target that is taken or is none; `Unsupported` for tables and formats that cannot be written.
pub(crate) async fn draft(
    plan: &LogicalPlan,
    state: &SessionState,
    directory: &str,
    warehouse: &Warehouse,
    look: bool,
) -> Result<Draft> {
    match plan {
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) => create_draft(create, state, warehouse),
        LogicalPlan::Copy(copy) => copy_draft(copy, state, directory, look).await,
        LogicalPlan::Dml(dml) => insert_draft(dml, state, look).await,
        other => Err(ours(Error::internal(format!("{} does not write", other.display())))),
    }
}

async fn copy_draft(copy: &CopyTo, state: &SessionState, directory: &str, look: bool) -> Result<Draft> {
    let mut options = copy.options.clone();
    let overwrite = flag(&mut options, "overwrite")?;
    let append = flag(&mut options, "append")?;
    let file_bytes_max = take(&mut options, "file_size").map(|value| file_size(&value)).transpose()?;
    let format = file_type_to_format(&copy.file_type)?.create(state, &options)?;
    let target = Target::parse(&copy.output_url, directory)?;
    let is_single = !target.is_folder && copy.partition_by.is_empty() && text_kind(&copy.output_url).is_some();
    let store = target.open(state)?;
    let place = match (is_single, overwrite, append) {
        (true, false, false) => Place::NewFile,
        (true, true, false) => Place::ReplaceFile,
        (false, false, false) => Place::NewFolder,
        (false, true, false) => Place::ReplaceFolder,
        (false, false, true) => Place::Append,
        (true, false, true) => return Err(never_added(&target)),
        (_, true, true) => {
            let what = "rows replace what is there, or are added to it: overwrite and append exclude each other";
            return Err(ours(Error::new(ErrorKind::InvalidQuery, what)));
        }
    };
    if look {
        may_be_written(store.as_ref(), &target, place).await.map_err(ours)?;
        if place == Place::Append {
            fits(copy.input.schema(), &copy.partition_by, &format, &store, &target, state).await?;
        }
    }
    let publication = Publication::new(store, target.clone(), place);
    let spec = WriteSpec {
        keys: copy.partition_by.clone(),
        file_bytes_max: if is_single { u64::MAX } else { file_bytes_max.unwrap_or(FILE_BYTES) },
        needs_file: place != Place::Append,
        ..spec(&publication, &target, &format, state)?
    };
    Ok(Draft { input: LogicalPlan::clone(&copy.input), publication, table: None, spec, is_single })
}

async fn insert_draft(dml: &DmlStatement, state: &SessionState, look: bool) -> Result<Draft> {
    let place = match &dml.op {
        WriteOp::Insert(InsertOp::Append) => Place::Append,
        WriteOp::Insert(InsertOp::Overwrite) => Place::ReplaceFolder,
        other => {
            return Err(ours(Error::unsupported(format!(
                "{} is not supported; tables of files are only appended to",
                other.name()
            ))));
        }
    };
    let provider = source_as_provider(&dml.target)?;
    let (publication, spec) = table_spec(&provider, &dml.table_name, place, state, look).await?;
    Ok(Draft { input: LogicalPlan::clone(&dml.input), publication, table: None, spec, is_single: false })
}

/// How rows are added to a table of files.
pub(super) async fn table_spec(
    provider: &Arc<dyn TableProvider>,
    name: &TableReference,
    place: Place,
    state: &SessionState,
    look: bool,
) -> Result<(Publication, WriteSpec)> {
    let Some(table) = provider.downcast_ref::<ListingTable>() else {
        let what = format!("rows cannot be inserted into {name}: it is not a table of files");
        return Err(ours(Error::unsupported(what).with_help(
            "INSERT works for tables made by CREATE EXTERNAL TABLE over a folder, and by CREATE TABLE where an administrator has \
                 set scheduler.warehouse",
        )));
    };
    let [location] = table.table_paths().as_slice() else {
        return Err(ours(Error::unsupported(format!("rows cannot be inserted into {name}: it has several locations"))));
    };
    if !location.is_collection() || location.get_glob().is_some() {
        let what = format!("rows cannot be inserted into {name}: its location is a file or a pattern, not a folder");
        return Err(ours(Error::unsupported(what).with_help("a location of a folder ends with /")));
    }
    let target = Target::parse(&format!("{}{}", location.object_store().as_str(), location.prefix()), "")?;
    let store = target.open(state)?;
    if look {
        let is_taken = is_file(store.as_ref(), &target.path).await.unwrap_or(false);
        if is_taken {
            return Err(ours(Error::new(ErrorKind::InvalidQuery, format!("'{}' is a file, not a folder", target.name()))));
        }
    }
    let publication = Publication::new(store, target.clone(), place);
    let options = table.options();
    let schema = provider.schema();
    let not_null = schema.fields().iter().enumerate().filter(|(_, field)| !field.is_nullable()).map(|(index, _)| index);
    let spec = WriteSpec {
        keys: options.table_partition_cols.iter().map(|(name, _)| name.clone()).collect(),
        not_null: not_null.filter_map(|index| u32::try_from(index).ok()).collect(),
        ..spec(&publication, &target, &options.format, state)?
    };
    let ending = spec.format.ending()?;
    if !ending.ends_with(&options.file_extension) {
        let what = format!(
            "rows cannot be inserted into {name}: it reads files that end with '{}', and '{ending}' would be written",
            options.file_extension
        );
        return Err(ours(Error::unsupported(what)));
    }
    Ok((publication, spec))
}

/// What all writes to `target` have in common.
pub(super) fn spec(
    publication: &Publication,
    target: &Target,
    format: &Arc<dyn FileFormat>,
    state: &SessionState,
) -> Result<WriteSpec> {
    Ok(WriteSpec {
        store: target.store.clone(),
        staging: publication.staging().into(),
        write: publication.write().to_owned(),
        format: Format::of(format, state.config_options().catalog.has_header)?,
        keys: Vec::new(),
        not_null: Vec::new(),
        file_bytes_max: FILE_BYTES,
        needs_file: false,
    })
}

/// Refuses a target where something is, unless it is to be replaced or added to, and one of the wrong kind.
async fn may_be_written(store: &dyn ObjectStore, target: &Target, place: Place) -> windrow_core::Result<()> {
    let failed = |error: object_store::Error| store_error(&format!("looking at '{}'", target.name()), &error);
    let wrong = |what: &str| Error::new(ErrorKind::InvalidQuery, format!("'{}' is {what}", target.name()));
    let is_single = matches!(place, Place::NewFile | Place::ReplaceFile);
    let is_there = is_file(store, &target.path).await.map_err(failed)?;
    if !is_single && is_there {
        return Err(wrong("a file, not a folder").with_help("name another folder, or a file with an ending like .parquet"));
    }
    let below = files_below(store, &target.path, 1).await.map_err(failed)?;
    if is_single && below.iter().any(|found| *found != target.path) {
        return Err(wrong("a folder with files, not a file").with_help("write / at its end to write files into it"));
    }
    let is_new = matches!(place, Place::NewFile | Place::NewFolder);
    if is_new && (is_there || !below.is_empty()) { Err(taken(target)) } else { Ok(()) }
}

fn never_added(target: &Target) -> DataFusionError {
    let what = format!("rows cannot be added to the one file '{}'", target.name());
    ours(Error::unsupported(what).with_help("name a folder, with / at its end: rows are added to it as further files"))
}

fn take(options: &mut Options<String, String>, key: &str) -> Option<String> {
    let long = options.remove(&format!("format.{key}"));
    options.remove(key).or(long)
}

fn flag(options: &mut Options<String, String>, key: &str) -> Result<bool> {
    let Some(value) = take(options, key) else { return Ok(false) };
    value.to_lowercase().parse().map_err(|_not_a_flag| {
        ours(Error::new(ErrorKind::InvalidQuery, format!("the option {key} is true or false, not '{value}'")))
    })
}

fn file_size(value: &str) -> Result<u64> {
    let bytes: ByteSize = value.parse().map_err(|why| {
        let what = format!("the option file_size is a size like '256MB', not '{value}': {why}");
        ours(Error::new(ErrorKind::InvalidQuery, what))
    })?;
    Ok(bytes.as_u64().max(FILE_BYTES_MIN))
}
