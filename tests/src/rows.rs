//! Rows as text, and when two results are the same: equal schemas, equal rows, doubles within a relative 1e-9 because the order of
//! a sum is not part of a query's meaning.

use std::cmp::Ordering;
use std::fmt;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// One value of a result.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// A float, compared with a tolerance.
    Float(f64),
    /// Anything else, by its text.
    Text(String),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(value) => f.write_str(&float(*value)),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A float with ten digits, which is what is left of a sum whose order is free.
fn float(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    format!("{value:.9e}").parse::<f64>().map_or_else(|_| value.to_string(), |rounded| rounded.to_string())
}

/// The rows of `batches`, every value with its text; null is `NULL`.
pub fn cells(batches: &[RecordBatch]) -> Vec<Vec<Cell>> {
    let options = FormatOptions::default().with_null("NULL").with_display_error(true);
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter().map(|column| column_cells(column, &options)).collect::<Vec<_>>();
        rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()));
    }
    rows
}

fn column_cells(column: &dyn Array, options: &FormatOptions<'_>) -> Vec<Cell> {
    let formatter = ArrayFormatter::try_new(column, options).unwrap();
    let text = |row| Cell::Text(formatter.value(row).to_string());
    (0..column.len())
        .map(|row| match column.data_type() {
            _ if column.is_null(row) => text(row),
            DataType::Float64 => Cell::Float(column.as_primitive::<Float64Type>().value(row)),
            DataType::Float32 => Cell::Float(f64::from(column.as_primitive::<Float32Type>().value(row))),
            _ => text(row),
        })
        .collect()
}

/// A query's answer, ready to compare.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Name and type of each column.
    pub columns: Vec<(String, DataType)>,
    /// The rows, in the order they came.
    pub rows: Vec<Vec<Cell>>,
}

impl Answer {
    /// The answer of `schema` and `batches`.
    pub fn new(schema: &SchemaRef, batches: &[RecordBatch]) -> Self {
        let columns = schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
        Self { columns, rows: cells(batches) }
    }

    /// The same answer with its rows in an order of their own.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.rows.sort_by(|left, right| {
            left.iter().zip(right).map(|(left, right)| order(left, right)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
        self
    }

    /// What differs from `expected`, in words, or nothing.
    pub fn difference(&self, expected: &Self) -> Option<String> {
        if self.columns != expected.columns {
            return Some(format!("columns {:?}, expected {:?}", self.columns, expected.columns));
        }
        if self.rows.len() != expected.rows.len() {
            return Some(format!("{} rows, expected {}", self.rows.len(), expected.rows.len()));
        }
        let row = self.rows.iter().zip(&expected.rows).position(|(row, expected)| !row.iter().zip(expected).all(same))?;
        Some(format!("row {row} is {}, expected {}", line(&self.rows[row]), line(&expected.rows[row])))
    }
}

fn line(row: &[Cell]) -> String {
    row.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

fn order(left: &Cell, right: &Cell) -> Ordering {
    match (left, right) {
        (Cell::Float(left), Cell::Float(right)) => left.total_cmp(right),
        _ => left.to_string().cmp(&right.to_string()),
    }
}

fn same((left, right): (&Cell, &Cell)) -> bool {
    match (left, right) {
        (Cell::Float(left), Cell::Float(right)) => {
            left.total_cmp(right).is_eq() || (left - right).abs() <= 1e-9 * left.abs().max(right.abs())
        }
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(rows: &[&[Cell]]) -> Answer {
        let columns = vec![("x".to_owned(), DataType::Float64)];
        Answer { columns, rows: rows.iter().map(|row| row.to_vec()).collect() }
    }

    #[test]
    fn a_wrong_digit_a_missing_row_and_another_type_are_differences() {
        let one = answer(&[&[Cell::Float(1.0)]]);
        assert_eq!(one.difference(&one), None);
        assert_eq!(answer(&[&[Cell::Float(1.0 + 1e-12)]]).difference(&one), None);
        assert!(answer(&[&[Cell::Float(1.0 + 1e-6)]]).difference(&one).is_some());
        assert!(answer(&[]).difference(&one).is_some());
        let mut other = one.clone();
        other.columns[0].1 = DataType::Int64;
        assert!(other.difference(&one).is_some());
    }

    #[test]
    fn sorted_rows_do_not_depend_on_their_order() {
        let [a, b] = [[Cell::Text("a".into())], [Cell::Text("b".into())]];
        assert_eq!(answer(&[&a, &b]).sorted().difference(&answer(&[&b, &a]).sorted()), None);
        assert!(answer(&[&a, &b]).difference(&answer(&[&b, &a])).is_some());
    }
}
