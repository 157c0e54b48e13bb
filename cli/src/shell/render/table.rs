//! A result as a box: names, types, rows. Long results are folded to their first and last rows, wide ones to their first and last
//! columns; both are counted below the box.

use std::collections::VecDeque;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use unicode_width::UnicodeWidthStr;

use crate::terminal;

/// Results up to this many rows are shown whole.
const ROWS_SHOWN: usize = 40;
/// Of a longer one, so many first and so many last rows.
const HALF: usize = ROWS_SHOWN / 2;

/// Collects what the box shows.
#[derive(Debug)]
pub(super) struct TableText {
    schema: SchemaRef,
    width: Option<usize>,
    rows: usize,
    head: Vec<RecordBatch>,
    head_rows: usize,
    /// At least the last [`HALF`] of the rows after the head, or all of them.
    tail: VecDeque<RecordBatch>,
    tail_rows: usize,
}

/// A cell's lines; a plan has many.
type Cell = Vec<String>;

impl TableText {
    pub(super) fn new(schema: SchemaRef, width: Option<usize>) -> Self {
        Self { schema, width, rows: 0, head: Vec::new(), head_rows: 0, tail: VecDeque::new(), tail_rows: 0 }
    }

    /// Keeps of `batch` what may be shown.
    pub(super) fn push(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows();
        let first = batch.num_rows().min(HALF.saturating_sub(self.head_rows));
        if first > 0 {
            self.head.push(batch.slice(0, first));
            self.head_rows += first;
        }
        let rest = batch.num_rows() - first;
        if rest > 0 {
            let kept = rest.min(ROWS_SHOWN);
            self.tail.push_back(batch.slice(batch.num_rows() - kept, kept));
            self.tail_rows += kept;
        }
        while let Some(oldest) = self.tail.front()
            && self.tail_rows - oldest.num_rows() >= HALF
            && self.rows > ROWS_SHOWN
        {
            self.tail_rows -= oldest.num_rows();
            self.tail.pop_front();
        }
    }

    /// The box and what is below it.
    pub(super) fn finish(self) -> Result<String, ArrowError> {
        let is_folded = self.rows > ROWS_SHOWN;
        let mut rows = cells(&self.head)?;
        let mut last = cells(&self.tail)?;
        if is_folded {
            last.drain(..last.len().saturating_sub(HALF));
            rows.push(vec![vec!["·".to_owned()]; self.schema.fields().len()]);
        }
        rows.extend(last);
        let columns = Columns::measure(&self.schema, &rows);
        let shown = columns.fitting(self.width);
        let mut text = columns.draw(&self.schema, &rows, &shown);
        let mut notes = Vec::new();
        if is_folded {
            notes.push(format!("{} ({ROWS_SHOWN} shown)", terminal::plural(self.rows as u64, "row")));
        }
        if shown.len() < self.schema.fields().len() {
            notes.push(format!("{} ({} shown)", terminal::plural(self.schema.fields().len() as u64, "column"), shown.len()));
        }
        if !notes.is_empty() {
            text.push_str(&format!("{}\n", notes.join(", ")));
        }
        Ok(text)
    }
}

fn cells<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Result<Vec<Vec<Cell>>, ArrowError> {
    let options = FormatOptions::default().with_null("NULL").with_display_error(true);
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| cell(&column.value(row).to_string())).collect());
        }
    }
    Ok(rows)
}

/// The lines of a value, without what would move the cursor.
fn cell(text: &str) -> Cell {
    let clean = |line: &str| -> String {
        line.replace('\t', "    ").chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    };
    text.trim_end_matches('\n').split('\n').map(|line| clean(line.trim_end_matches('\r'))).collect()
}

/// The width of each column in terminal columns, and whether it holds numbers.
struct Columns {
    widths: Vec<usize>,
    numeric: Vec<bool>,
}

impl Columns {
    fn measure(schema: &SchemaRef, rows: &[Vec<Cell>]) -> Self {
        let mut widths: Vec<usize> =
            schema.fields().iter().map(|field| field.name().width().max(type_name(field.data_type()).width())).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.iter().map(|line| line.width()).fold(*width, usize::max);
            }
        }
        let numeric = schema.fields().iter().map(|field| field.data_type().is_numeric()).collect();
        Self { widths, numeric }
    }

    /// The columns that fit: taken from both ends in turn, at least one.
    fn fitting(&self, width: Option<usize>) -> Vec<usize> {
        let Some(width) = width else { return (0..self.widths.len()).collect() };
        let (mut first, mut last) = (Vec::new(), Vec::new());
        let (mut low, mut high) = (0, self.widths.len());
        let mut used = 1;
        while low < high {
            let from_start = first.len() <= last.len();
            let index = if from_start { low } else { high - 1 };
            used += self.widths.get(index).copied().unwrap_or(0) + 3;
            if used > width && !first.is_empty() {
                break;
            }
            if from_start {
                first.push(index);
                low += 1;
            } else {
                last.push(index);
                high -= 1;
            }
        }
        first.extend(last.into_iter().rev());
        first
    }

    fn draw(&self, schema: &SchemaRef, rows: &[Vec<Cell>], shown: &[usize]) -> String {
        let rule = |left: &str, middle: &str, right: &str| {
            let bars: Vec<String> = shown.iter().map(|&index| "─".repeat(self.width(index) + 2)).collect();
            format!("{left}{}{right}\n", bars.join(middle))
        };
        let names: Vec<Cell> = schema.fields().iter().map(|field| vec![field.name().clone()]).collect();
        let types: Vec<Cell> = schema.fields().iter().map(|field| vec![type_name(field.data_type())]).collect();
        let mut text = rule("┌", "┬", "┐");
        self.draw_row(&mut text, &names, shown);
        self.draw_row(&mut text, &types, shown);
        text.push_str(&rule("├", "┼", "┤"));
        for row in rows {
            self.draw_row(&mut text, row, shown);
        }
        text.push_str(&rule("└", "┴", "┘"));
        text
    }

    fn draw_row(&self, text: &mut String, row: &[Cell], shown: &[usize]) {
        let height = shown.iter().filter_map(|&index| row.get(index)).map(Vec::len).max().unwrap_or(0);
        for line in 0..height {
            for &index in shown {
                let content = row.get(index).and_then(|cell| cell.get(line)).map_or("", String::as_str);
                let padding = " ".repeat(self.width(index).saturating_sub(content.width()));
                let is_numeric = self.numeric.get(index).copied().unwrap_or(false);
                let (before, after) = if is_numeric { (padding.as_str(), "") } else { ("", padding.as_str()) };
                text.push_str(&format!("│ {before}{content}{after} "));
            }
            text.push_str("│\n");
        }
    }

    fn width(&self, index: usize) -> usize {
        self.widths.get(index).copied().unwrap_or(0)
    }
}

/// The type as SQL users know it, short.
fn type_name(kind: &arrow::datatypes::DataType) -> String {
    use arrow::datatypes::DataType as T;
    match kind {
        T::Utf8 | T::LargeUtf8 | T::Utf8View => "varchar".to_owned(),
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => "bytea".to_owned(),
        T::Int8 => "tinyint".to_owned(),
        T::Int16 => "smallint".to_owned(),
        T::Int32 => "int".to_owned(),
        T::Int64 => "bigint".to_owned(),
        T::UInt8 => "tinyint unsigned".to_owned(),
        T::UInt16 => "smallint unsigned".to_owned(),
        T::UInt32 => "int unsigned".to_owned(),
        T::UInt64 => "bigint unsigned".to_owned(),
        T::Float16 | T::Float32 => "real".to_owned(),
        T::Float64 => "double".to_owned(),
        T::Date32 | T::Date64 => "date".to_owned(),
        T::Timestamp(_, None) => "timestamp".to_owned(),
        T::Timestamp(_, Some(zone)) => format!("timestamp {zone}"),
        T::Decimal32(p, s) | T::Decimal64(p, s) | T::Decimal128(p, s) | T::Decimal256(p, s) => format!("decimal({p},{s})"),
        T::List(item) | T::LargeList(item) | T::ListView(item) | T::LargeListView(item) | T::FixedSizeList(item, _) => {
            format!("{}[]", type_name(item.data_type()))
        }
        T::Struct(_) => "struct".to_owned(),
        T::Map(..) => "map".to_owned(),
        T::Dictionary(_, value) => type_name(value),
        T::RunEndEncoded(_, value) => type_name(value.data_type()),
        other => other.to_string().to_lowercase(),
    }
}
