//! Rows that a client sends: written by the coordinator into files as they arrive, published when all have come. Next: `publish.rs`.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::catalog::TableProvider;
use datafusion::common::{DFSchema, TableReference};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use windrow_core::error::nearest;
use windrow_core::{Error, ErrorKind};

use super::create::{Creation, NewTable, Warehouse, existing, new_table, taken};
use super::exec::WriteSpec;
use super::partition::PartitionFiles;
use super::publish::{Place, Publication, WrittenFile};
use super::statement::table_spec;
use crate::catalog::{CATALOG, TEMP};
use crate::diagnose::ours;
use crate::permission::Need;

/// What the keys begin with that name an extension type.
const EXTENSION: &str = "ARROW:extension:";

/// Where a client's rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestTarget {
    /// The catalog; the session's own if not named.
    pub catalog: Option<String>,
    /// The schema; the session's own if not named.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
    /// The table is the session's alone.
    pub temporary: bool,
    /// What happens if the table exists, or does not.
    pub mode: IngestMode,
}

/// What happens to a table that exists, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestMode {
    /// A new table; an error if it exists.
    Create,
    /// Rows are added; an error if it does not exist.
    Append,
    /// A new table, in the place of one that may exist.
    Replace,
    /// Rows are added; a new table if it does not exist.
    CreateAppend,
}

impl IngestTarget {
    /// What it needs. Whoever adds to a table by its name may meet one that is shared, so only a new table is the session's own.
    pub(crate) fn need(&self) -> Need {
        let is_new = matches!(self.mode, IngestMode::Create | IngestMode::Replace);
        if self.temporary && is_new { Need::ReadTemporary } else { Need::Write }
    }
}

/// Rows on their way into a table. Dropped before its files are published, it changes nothing.
pub struct Ingest {
    files: PartitionFiles,
    columns: Vec<Source>,
    schema: SchemaRef,
    table: Option<NewTable>,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Where a column of the table comes from.
enum Source {
    /// This column of the client's rows.
    Column(usize),
    /// None of them: it is null.
    Null,
}

/// Begins to write rows of `given` columns.
pub(crate) async fn ingest(
    target: &IngestTarget,
    given: &SchemaRef,
    state: &SessionState,
    warehouse: &Warehouse,
) -> Result<(Ingest, Publication)> {
    let (name, given) = (reference(target)?, &without_metadata(given));
    let found = existing(&name, state).await?;
    let is_new = match (target.mode, &found) {
        (IngestMode::Create, Some(_)) => return Err(taken(&name)),
        (IngestMode::Append, None) => {
            return Err(ours(Error::new(ErrorKind::NotFound, format!("there is no table '{name}' to add rows to"))));
        }
        (IngestMode::Create | IngestMode::CreateAppend, None) | (IngestMode::Replace, _) => true,
        (IngestMode::Append | IngestMode::CreateAppend, Some(_)) => false,
    };
    if let Some(provider) = found.filter(|_| !is_new) {
        return Ingest::append(&provider, &name, given, state).await;
    }
    let creation = Creation { name, or_replace: target.mode == IngestMode::Replace };
    let columns = Arc::new(DFSchema::try_from(given.as_ref().clone())?);
    let (publication, spec, table) = new_table(creation, columns, state, warehouse)?;
    let files = begin(spec, given, state)?;
    Ok((Ingest { files, columns: sources(given, given)?, schema: Arc::clone(given), table: Some(table) }, publication))
}

/// The columns without what their source says of itself: only what makes a type of its own is about the values.
fn without_metadata(schema: &Schema) -> SchemaRef {
    let plain = |field: &FieldRef| {
        let kept = field.metadata().iter().filter(|(key, _)| key.starts_with(EXTENSION));
        let kept = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
        field.as_ref().clone().with_metadata(kept)
    };
    Arc::new(Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>()))
}

fn reference(target: &IngestTarget) -> Result<TableReference> {
    let IngestTarget { catalog, schema, table, temporary, .. } = target;
    if *temporary {
        if let Some(schema) = schema.as_deref().filter(|schema| *schema != TEMP) {
            let what = format!("'{table}' is temporary, and the schema '{schema}' was named");
            let help = "name no schema; drivers keep the one of an earlier call, so use a new cursor";
            return Err(ours(Error::new(ErrorKind::InvalidQuery, what).with_help(help)));
        }
        return Ok(TableReference::full(CATALOG, TEMP, table.as_str()));
    }
    Ok(match (catalog.as_deref(), schema.as_deref()) {
        (Some(catalog), Some(schema)) => TableReference::full(catalog, schema, table.as_str()),
        (Some(catalog), None) => TableReference::full(catalog, "public", table.as_str()),
        (None, Some(schema)) => TableReference::partial(schema, table.as_str()),
        (None, None) => TableReference::bare(table.as_str()),
    })
}

fn begin(spec: WriteSpec, schema: &SchemaRef, state: &SessionState) -> Result<PartitionFiles> {
    let kept: Vec<usize> = (0..schema.fields().len()).filter(|&index| !spec.keys.contains(schema.field(index).name())).collect();
    spec.format.check_columns(&schema.project(&kept)?)?;
    PartitionFiles::new(Arc::new(spec), 0, schema, &state.task_ctx())
}

/// Finds the columns of the table by name.
fn sources(table: &SchemaRef, given: &SchemaRef) -> Result<Vec<Source>> {
    let invalid = |what: String| Error::new(ErrorKind::InvalidQuery, what);
    if let Some(unknown) = given.fields().iter().find(|field| table.field_with_name(field.name()).is_err()) {
        let names = table.fields().iter().map(|field| field.name().as_str());
        let error = invalid(format!("the table has no column '{}'", unknown.name()));
        return Err(ours(error.with_suggestion(nearest(unknown.name(), names))));
    }
    let source = |field: &FieldRef| match given.index_of(field.name()) {
        Ok(index) => match may_cast(given.field(index).data_type(), field.data_type()) {
            true => Ok(Source::Column(index)),
            false => {
                let (from, to) = (given.field(index).data_type(), field.data_type());
                Err(ours(invalid(format!("column '{}' is {from}, and {to} in the table", field.name()))))
            }
        },
        Err(_missing) if field.is_nullable() => Ok(Source::Null),
        Err(_missing) => Err(ours(invalid(format!("column '{}' is missing, and it is NOT NULL", field.name())))),
    };
    table.fields().iter().map(source).collect()
}

/// Whether a cast can keep every value, or tell which it would not.
fn may_cast(from: &DataType, to: &DataType) -> bool {
    let is_text = |of: &DataType| matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_bytes = |of: &DataType| {
        matches!(of, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
    };
    let value = |of: &DataType| match of {
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        other => other.clone(),
    };
    let (plain_from, plain_to) = (value(from), value(to));
    from == to
        || (can_cast_types(from, to)
            && (plain_from == plain_to
                || plain_from.is_null()
                || (plain_from.is_numeric() && plain_to.is_numeric())
                || (plain_from.is_temporal() && plain_to.is_temporal())
                || (is_text(&plain_from) && is_text(&plain_to))
                || (is_bytes(&plain_from) && is_bytes(&plain_to))))
}

/// Casts, and casts back to see that nothing is lost.
fn lossless(values: &ArrayRef, to: &FieldRef) -> Result<ArrayRef> {
    if values.data_type() == to.data_type() {
        return Ok(Arc::clone(values));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let lost = |why: String| {
        let what = format!("column '{}' has a value that {} cannot hold{why}", to.name(), to.data_type());
        ours(Error::new(ErrorKind::Data, what))
    };
    let cast = cast_with_options(values, to.data_type(), &options).map_err(|why| lost(format!(": {why}")))?;
    if values.data_type().is_null() || values.data_type().is_nested() {
        return Ok(cast);
    }
    let back = cast_with_options(&cast, values.data_type(), &options).map_err(|why| lost(format!(": {why}")))?;
    if distinct(&back, values)?.true_count() > 0 { Err(lost(String::new())) } else { Ok(cast) }
}

impl Ingest {
    /// Begins to add rows of `given` columns to a table.
    pub(super) async fn append(
        table: &Arc<dyn TableProvider>,
        name: &TableReference,
        given: &SchemaRef,
        state: &SessionState,
    ) -> Result<(Self, Publication)> {
        let (publication, spec) = table_spec(table, name, Place::Append, state, true).await?;
        let schema = table.schema();
        let files = begin(spec, &schema, state)?;
        Ok((Self { files, columns: sources(&schema, given)?, schema, table: None }, publication))
    }

    /// Writes some rows.
    ///
    /// # Errors
    /// `Data` for a value that the table's type cannot hold, or a null where there may be none; those of the store.
    pub async fn write(&mut self, batch: &RecordBatch) -> windrow_core::Result<()> {
        self.write_rows(batch).await.map_err(failed)
    }

    async fn write_rows(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = self.columns.iter().zip(self.schema.fields()).map(|(source, field)| match source {
            Source::Column(index) => lossless(batch.column(*index), field),
            Source::Null => Ok(new_null_array(field.data_type(), batch.num_rows())),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        // Nulls where there may be none are found by the writer, which names the column.
        let fields: Vec<_> = self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        self.files.write(&RecordBatch::try_new_with_options(schema, columns, &options)?).await
    }

    /// Completes the files: what is to be published, and the table to be created over them.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn finish(self) -> windrow_core::Result<(Vec<WrittenFile>, Option<NewTable>)> {
        let needs_file = self.table.is_some();
        Ok((self.files.finish(needs_file).await.map_err(failed)?, self.table))
    }
}

pub(super) fn failed(error: datafusion::error::DataFusionError) -> Error {
    crate::diagnose::diagnose(error, &crate::session::Names::default())
}
