//! Rows as text. csv, json lines, json and markdown stream; a table waits for the end, because its widths depend on every row it
//! shows, and keeps only the first and last rows. The table itself is `render/table.rs`.

mod table;

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::csv;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json;
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::ValueEnum;

use crate::end::End;
use table::TableText;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A box for people; shows the first and last rows of a long result
    Table,
    /// Comma-separated, with a header
    Csv,
    /// One array of objects
    Json,
    /// An object a line
    Jsonl,
    /// A table for a document
    Markdown,
}

/// Writes the batches of one result.
pub(crate) struct Renderer<W: Write> {
    schema: SchemaRef,
    encoder: Encoder,
    output: W,
}

/// What turns batches into text. The arrow writers write into memory, a batch at a time, so that an output that fails is met in
/// one place only.
enum Encoder {
    Table(TableText),
    Csv {
        has_header: bool,
    },
    Json(json::Writer<Vec<u8>, JsonArray>),
    Jsonl(json::Writer<Vec<u8>, LineDelimited>),
    Markdown {
        has_header: bool,
    },
    /// What EXPLAIN says: its lines are far too long for a box.
    Plan,
    /// A statement without columns writes nothing.
    Nothing,
}

impl<W: Write> fmt::Debug for Renderer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renderer").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl<W: Write> Renderer<W> {
    /// Writes rows of `schema` to `output`; a table drops columns that do not fit into `width`.
    pub(crate) fn new(format: Format, schema: &SchemaRef, width: Option<usize>, output: W) -> Self {
        let json = || json::WriterBuilder::new().with_explicit_nulls(true);
        let encoder = match format {
            _ if schema.fields().is_empty() => Encoder::Nothing,
            Format::Table if is_plan(schema) => Encoder::Plan,
            Format::Table => Encoder::Table(TableText::new(Arc::clone(schema), width)),
            Format::Csv => Encoder::Csv { has_header: false },
            Format::Json => Encoder::Json(json().build(Vec::new())),
            Format::Jsonl => Encoder::Jsonl(json().build(Vec::new())),
            Format::Markdown => Encoder::Markdown { has_header: false },
        };
        Self { schema: Arc::clone(schema), encoder, output }
    }

    /// Whether rows are written before the last one is there.
    pub(crate) fn streams(&self) -> bool {
        !matches!(self.encoder, Encoder::Table(_) | Encoder::Nothing)
    }

    /// Takes the next rows, and passes on what can be read already.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), End> {
        let text = match &mut self.encoder {
            Encoder::Table(table) => {
                table.push(batch);
                return Ok(());
            }
            Encoder::Nothing => return Ok(()),
            Encoder::Plan => plan_text(batch)?.into_bytes(),
            Encoder::Csv { has_header } => csv_text(batch, !std::mem::replace(has_header, true))?,
            Encoder::Json(writer) => {
                writer.write(batch)?;
                std::mem::take(writer.get_mut())
            }
            Encoder::Jsonl(writer) => {
                writer.write(batch)?;
                std::mem::take(writer.get_mut())
            }
            Encoder::Markdown { has_header } => {
                let header = if std::mem::replace(has_header, true) { String::new() } else { markdown_header(&self.schema) };
                (header + &markdown_rows(batch)?).into_bytes()
            }
        };
        self.output.write_all(&text)?;
        Ok(self.output.flush()?)
    }

    /// Writes what the end of the rows needs and gives the output back, flushed.
    pub(crate) fn finish(mut self) -> Result<W, End> {
        let text = match self.encoder {
            Encoder::Table(table) => table.finish()?.into_bytes(),
            Encoder::Csv { has_header: false } => csv_text(&RecordBatch::new_empty(self.schema), true)?,
            Encoder::Markdown { has_header: false } => markdown_header(&self.schema).into_bytes(),
            Encoder::Csv { .. } | Encoder::Markdown { .. } | Encoder::Plan | Encoder::Nothing => Vec::new(),
            Encoder::Json(mut writer) => {
                writer.finish()?;
                writer.get_mut().push(b'\n');
                writer.into_inner()
            }
            Encoder::Jsonl(mut writer) => {
                writer.finish()?;
                writer.into_inner()
            }
        };
        self.output.write_all(&text)?;
        self.output.flush()?;
        Ok(self.output)
    }
}

/// Whether rows of `schema` are those of EXPLAIN.
fn is_plan(schema: &Schema) -> bool {
    schema.fields().iter().map(|field| field.name().as_str()).eq(["plan_type", "plan"])
}

/// Each plan below its name, indented.
fn plan_text(batch: &RecordBatch) -> Result<String, ArrowError> {
    let options = FormatOptions::default();
    let [names, plans] = batch.columns() else { return Ok(String::new()) };
    let (names, plans) = (ArrayFormatter::try_new(names, &options)?, ArrayFormatter::try_new(plans, &options)?);
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        text.push_str(&format!("{}\n", names.value(row)));
        for line in plans.value(row).to_string().lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    Ok(text)
}

fn csv_text(batch: &RecordBatch, header: bool) -> Result<Vec<u8>, ArrowError> {
    let mut text = Vec::new();
    csv::WriterBuilder::new().with_header(header).build(&mut text).write(&flat(batch)?)?;
    Ok(text)
}

/// The batch with lists, structs and maps as text, which csv has no form for.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    if !schema.fields().iter().any(|field| field.data_type().is_nested()) {
        return Ok(batch.clone());
    }
    let options = FormatOptions::default();
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if !field.data_type().is_nested() {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
            continue;
        }
        let formatter = ArrayFormatter::try_new(column, &options)?;
        let texts = (0..column.len()).map(|row| (!column.is_null(row)).then(|| formatter.value(row).to_string()));
        columns.push(Arc::new(texts.collect::<StringArray>()));
        fields.push(Arc::new(Field::new(field.name(), arrow::datatypes::DataType::Utf8, true)));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn markdown_header(schema: &Schema) -> String {
    let names: Vec<String> = schema.fields().iter().map(|field| markdown_cell(field.name())).collect();
    let rules: Vec<&str> =
        schema.fields().iter().map(|field| if field.data_type().is_numeric() { "---:" } else { "---" }).collect();
    format!("| {} |\n| {} |\n", names.join(" | "), rules.join(" | "))
}

fn markdown_rows(batch: &RecordBatch) -> Result<String, ArrowError> {
    let options = FormatOptions::default();
    let formatters: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>()?;
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        let cells: Vec<String> = formatters.iter().map(|column| markdown_cell(&column.value(row).to_string())).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    Ok(text)
}

fn markdown_cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('\n', "<br>")
}

#[cfg(test)]
mod tests;
