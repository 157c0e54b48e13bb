//! Rows in memory: Arrow batches that other libraries read without a copy. Next: `values.rs`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchReader, StructArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyList};
use pyo3_arrow::ffi::{ArrayIterator, to_schema_pycapsule, to_stream_pycapsule};
use pyo3_arrow::input::AnyRecordBatch;

use crate::session::columns;
use crate::values;

/// Batches of one schema.
#[pyclass(module = "windrow._windrow", frozen)]
pub(crate) struct Table {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    rows: usize,
}

impl Table {
    pub(crate) fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        Self { schema, batches, rows }
    }

    /// The values of a column of text.
    pub(crate) fn column_texts(&self, index: usize) -> Vec<String> {
        let options = FormatOptions::default();
        let formatter = |array: &'_ ArrayRef| -> Vec<String> {
            let Ok(formatter) = ArrayFormatter::try_new(array.as_ref(), &options) else { return Vec::new() };
            (0..array.len()).map(|row| formatter.value(row).to_string()).collect()
        };
        self.column(index).flat_map(formatter).collect()
    }

    fn column(&self, index: usize) -> impl Iterator<Item = &ArrayRef> {
        self.batches.iter().filter_map(move |batch| batch.columns().get(index))
    }
}

#[pymethods]
impl Table {
    /// The rows of any Arrow object, without a copy.
    #[new]
    fn from_arrow(py: Python<'_>, data: AnyRecordBatch) -> PyResult<Self> {
        let reader = data.into_reader()?;
        let schema = reader.schema();
        let batches = py.detach(|| reader.collect::<Result<Vec<_>, ArrowError>>());
        let batches = batches.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self::new(schema, batches))
    }

    #[getter]
    fn columns(&self) -> Vec<String> {
        columns(&self.schema)
    }

    /// The names of the columns' types, as Arrow calls them.
    #[getter]
    fn types(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.data_type().to_string()).collect()
    }

    /// Whether each column may have nulls.
    #[getter]
    fn nullable(&self) -> Vec<bool> {
        self.schema.fields().iter().map(|field| field.is_nullable()).collect()
    }

    #[getter]
    fn num_rows(&self) -> usize {
        self.rows
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.batches.iter().map(RecordBatch::get_array_memory_size).sum()
    }

    /// Rows from `offset` on, `length` of them or fewer, without a copy.
    fn slice(&self, offset: usize, length: usize) -> Self {
        let (mut skip, mut left, mut batches) = (offset, length, Vec::new());
        for batch in &self.batches {
            if skip >= batch.num_rows() {
                skip -= batch.num_rows();
                continue;
            }
            let take = left.min(batch.num_rows() - skip);
            if take == 0 {
                break;
            }
            batches.push(batch.slice(skip, take));
            (skip, left) = (0, left - take);
        }
        Self::new(Arc::clone(&self.schema), batches)
    }

    /// Some of the columns, in the order of their numbers.
    fn select(&self, indices: Vec<usize>) -> PyResult<Self> {
        let bad = |error: ArrowError| PyIndexError::new_err(error.to_string());
        let schema = Arc::new(self.schema.project(&indices).map_err(bad)?);
        let batches = self.batches.iter().map(|batch| batch.project(&indices)).collect::<Result<_, _>>().map_err(bad)?;
        Ok(Self::new(schema, batches))
    }

    /// The batches, each as a table.
    fn batches(&self) -> Vec<Self> {
        self.batches.iter().map(|batch| Self::new(Arc::clone(&self.schema), vec![batch.clone()])).collect()
    }

    /// The same rows in one batch.
    fn combined(&self, py: Python<'_>) -> PyResult<Self> {
        let batch = py.detach(|| concat_batches(&self.schema, &self.batches));
        let batch = batch.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self::new(Arc::clone(&self.schema), vec![batch]))
    }

    /// One column as Python's values.
    fn column_values<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyList>> {
        let all = PyList::empty(py);
        for array in self.column(index) {
            values::append(py, array, &all)?;
        }
        Ok(all)
    }

    /// Each row as a dictionary; of two columns with one name, the last one.
    fn to_pylist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let names = self.columns();
        let columns = (0..names.len()).map(|index| self.column_values(py, index)).collect::<PyResult<Vec<_>>>()?;
        let rows = PyList::empty(py);
        for row in 0..self.rows {
            let dict = PyDict::new(py);
            for (name, column) in names.iter().zip(&columns) {
                dict.set_item(name, column.get_item(row)?)?;
            }
            rows.append(dict)?;
        }
        Ok(rows)
    }

    /// The text of each value of the first `limit` rows, and `None` for nulls; text longer than `width` characters is cut.
    #[pyo3(signature = (limit, width=40))]
    fn cells(&self, limit: usize, width: usize) -> PyResult<Vec<Vec<Option<String>>>> {
        let bad = |error: ArrowError| PyValueError::new_err(error.to_string());
        let options = FormatOptions::default().with_display_error(true);
        let mut rows = Vec::new();
        for batch in &self.slice(0, limit).batches {
            let columns: Result<Vec<_>, _> =
                batch.columns().iter().map(|array| ArrayFormatter::try_new(array.as_ref(), &options)).collect();
            let columns = columns.map_err(bad)?;
            for row in 0..batch.num_rows() {
                let cell = |(array, formatter): (&ArrayRef, &ArrayFormatter<'_>)| {
                    (!array.is_null(row)).then(|| cut(&formatter.value(row).to_string(), width))
                };
                rows.push(batch.columns().iter().zip(&columns).map(cell).collect());
            }
        }
        Ok(rows)
    }

    /// Whether both have the same columns and rows, however they are divided into batches.
    fn equals(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        if self.schema.fields() != other.schema.fields() || self.rows != other.rows {
            return Ok(false);
        }
        let same = py.detach(|| {
            let (left, right) = (concat_batches(&self.schema, &self.batches)?, concat_batches(&self.schema, &other.batches)?);
            Ok::<_, ArrowError>(left == right)
        });
        same.map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let field = Field::new_struct("", self.schema.fields().clone(), false).with_metadata(self.schema.metadata().clone());
        let arrays = self.batches.clone().into_iter().map(|batch| Ok(Arc::new(StructArray::from(batch)) as ArrayRef));
        Ok(to_stream_pycapsule(py, Box::new(ArrayIterator::new(arrays, Arc::new(field))), requested_schema)?)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        Ok(to_schema_pycapsule(py, self.schema.as_ref())?)
    }
}

/// `text` on one line, at most `width` characters of it.
fn cut(text: &str, width: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if line.chars().count() <= width {
        return line;
    }
    let mut kept: String = line.chars().take(width.saturating_sub(1)).collect();
    kept.push('\u{2026}');
    kept
}
