//! Lazy frames: each step gives another one, and nothing runs before rows are asked for. Next: `client/src/frame/mod.rs`.

use arrow::array::RecordBatchReader;
use arrow::datatypes::DataType;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3_arrow::input::AnyRecordBatch;
use pyo3_arrow::{PyDataType, PySchema};
use windrow::frame::{
    DataFrame, Explain, FileFormat, FileFormatOptions, Join, JoinKind, Keep, Pivot, ReadFiles, Sample, SampleSize, ScalarValue,
    Unpivot, Write, WriteMode,
};
use windrow::{Error, ErrorKind};

use crate::error::raise;
use crate::expr::{Expr, Key, order};
use crate::parameters;
use crate::query::Query;
use crate::runtime::{Hosted, wait};
use crate::session::{Session, columns, rows};
use crate::table::Table;
use crate::udf::PythonFunction;

/// Where rows come from, and what is done with them.
#[pyclass(module = "windrow._windrow", frozen)]
pub(crate) struct Frame {
    inner: Hosted<DataFrame>,
}

impl Frame {
    fn new(frame: DataFrame) -> Self {
        Self { inner: Hosted::new(frame) }
    }

    fn step(&self, py: Python<'_>, step: impl FnOnce(&DataFrame) -> windrow::Result<DataFrame>) -> PyResult<Self> {
        step(&self.inner).map(Self::new).map_err(|error| raise(py, &error, None))
    }

    /// What an action gives.
    fn act<T: Send>(&self, py: Python<'_>, action: impl Future<Output = windrow::Result<T>> + Send) -> PyResult<T> {
        wait(py, action)?.map_err(|error| raise(py, &error, None))
    }
}

fn exprs(all: &[PyRef<'_, Expr>]) -> Vec<windrow::frame::Expr> {
    all.iter().map(|one| one.inner.clone()).collect()
}

fn unknown(py: Python<'_>, what: &str, met: &str, known: &str) -> PyErr {
    let error =
        Error::new(ErrorKind::InvalidConfig, format!("{what} = '{met}' is none of ours")).with_help(format!("write {known}"));
    raise(py, &error, None)
}

#[pymethods]
impl Frame {
    #[getter]
    fn columns(&self) -> Vec<String> {
        columns(&self.inner.schema())
    }

    /// An empty table of its columns.
    #[getter]
    fn schema(&self) -> Table {
        Table::new(self.inner.schema(), Vec::new())
    }

    fn select(&self, py: Python<'_>, columns: Vec<PyRef<'_, Expr>>) -> PyResult<Self> {
        self.step(py, |frame| frame.select(exprs(&columns)))
    }

    fn with_columns(&self, py: Python<'_>, columns: Vec<PyRef<'_, Expr>>) -> PyResult<Self> {
        self.step(py, |frame| frame.with_columns(exprs(&columns)))
    }

    fn filter(&self, py: Python<'_>, condition: &Expr) -> PyResult<Self> {
        self.step(py, |frame| frame.filter(condition.inner.clone()))
    }

    fn drop_columns(&self, py: Python<'_>, columns: Vec<String>) -> PyResult<Self> {
        self.step(py, |frame| frame.drop_columns(&columns))
    }

    fn rename(&self, py: Python<'_>, names: Vec<(String, String)>) -> PyResult<Self> {
        self.step(py, |frame| frame.rename(&names))
    }

    fn cast(&self, py: Python<'_>, types: Vec<(String, PyDataType)>) -> PyResult<Self> {
        let types: Vec<(String, DataType)> = types.into_iter().map(|(name, of)| (name, of.into_inner())).collect();
        self.step(py, |frame| frame.cast(&types))
    }

    fn fill_null(&self, py: Python<'_>, value: &Expr, columns: Option<Vec<String>>) -> PyResult<Self> {
        self.step(py, |frame| frame.fill_null(value.inner.clone(), columns.as_deref()))
    }

    fn drop_nulls(&self, py: Python<'_>, columns: Option<Vec<String>>) -> PyResult<Self> {
        self.step(py, |frame| frame.drop_nulls(columns.as_deref()))
    }

    fn with_row_index(&self, py: Python<'_>, name: &str, offset: i64) -> PyResult<Self> {
        self.step(py, |frame| frame.with_row_index(name, offset))
    }

    fn limit(&self, py: Python<'_>, offset: usize, count: Option<usize>) -> PyResult<Self> {
        self.step(py, |frame| frame.limit(offset, count))
    }

    fn tail(&self, py: Python<'_>, count: usize) -> PyResult<Self> {
        self.step(py, |frame| frame.tail(count))
    }

    fn sort(&self, py: Python<'_>, keys: Vec<Key<'_>>) -> PyResult<Self> {
        self.step(py, |frame| frame.sort(order(&keys)))
    }

    /// One row of those that are equal in `on`: any, the first, the last, or none if there are several.
    fn distinct(&self, py: Python<'_>, on: Option<Vec<PyRef<'_, Expr>>>, keep: &str, by: Vec<Key<'_>>) -> PyResult<Self> {
        let keep = match keep {
            "any" => Keep::Any,
            "first" => Keep::First(order(&by)),
            "last" => Keep::Last(order(&by)),
            "none" => Keep::None,
            other => return Err(unknown(py, "keep", other, "any, first, last or none")),
        };
        self.step(py, |frame| frame.distinct(on.as_deref().map(exprs), keep))
    }

    fn aggregate(&self, py: Python<'_>, keys: Vec<PyRef<'_, Expr>>, values: Vec<PyRef<'_, Expr>>) -> PyResult<Self> {
        self.step(py, |frame| frame.aggregate(exprs(&keys), exprs(&values)))
    }

    fn pivot(
        &self,
        py: Python<'_>,
        keys: Vec<PyRef<'_, Expr>>,
        on: &Expr,
        values: Vec<(Bound<'_, PyAny>, String)>,
        aggregates: Vec<PyRef<'_, Expr>>,
    ) -> PyResult<Self> {
        let value = |(value, name): (Bound<'_, PyAny>, String)| {
            let array = parameters::value(&value)?;
            let value = ScalarValue::try_from_array(&array, 0);
            Ok((value.map_err(|error| raise(py, &Error::internal(error.to_string()), None))?, name))
        };
        let values = values.into_iter().map(value).collect::<PyResult<Vec<_>>>()?;
        let pivot = Pivot { keys: exprs(&keys), on: on.inner.clone(), values, aggregates: exprs(&aggregates) };
        self.step(py, |frame| frame.pivot(pivot))
    }

    fn unpivot(&self, py: Python<'_>, index: Vec<String>, on: Vec<String>, variable: String, value: String) -> PyResult<Self> {
        self.step(py, |frame| frame.unpivot(Unpivot { index, on, variable, value }))
    }

    fn unnest(&self, py: Python<'_>, columns: Vec<String>) -> PyResult<Self> {
        self.step(py, |frame| frame.unnest(&columns))
    }

    #[expect(clippy::too_many_arguments, reason = "each is one keyword in Python")]
    fn join(
        &self,
        py: Python<'_>,
        other: &Self,
        kind: &str,
        on: Vec<(String, String)>,
        condition: Option<PyRef<'_, Expr>>,
        suffix: String,
        coalesce: Option<bool>,
        nulls_equal: bool,
    ) -> PyResult<Self> {
        let kind = match kind {
            "inner" => JoinKind::Inner,
            "left" => JoinKind::Left,
            "right" => JoinKind::Right,
            "full" | "outer" => JoinKind::Full,
            "semi" => JoinKind::Semi,
            "anti" => JoinKind::Anti,
            "cross" => JoinKind::Cross,
            other => return Err(unknown(py, "how", other, "inner, left, right, full, semi, anti or cross")),
        };
        let condition = condition.map(|condition| condition.inner.clone());
        let join = Join { kind, on, condition, suffix, coalesce, nulls_equal };
        self.step(py, |frame| frame.join(&other.inner, join))
    }

    fn union(&self, py: Python<'_>, other: &Self, by_name: bool) -> PyResult<Self> {
        self.step(py, |frame| frame.union(&other.inner, by_name))
    }

    fn intersect(&self, py: Python<'_>, other: &Self) -> PyResult<Self> {
        self.step(py, |frame| frame.intersect(&other.inner))
    }

    fn except_(&self, py: Python<'_>, other: &Self) -> PyResult<Self> {
        self.step(py, |frame| frame.except(&other.inner))
    }

    fn describe(&self, py: Python<'_>) -> PyResult<Self> {
        self.step(py, DataFrame::describe)
    }

    fn sample(&self, py: Python<'_>, fraction: Option<f64>, rows: Option<usize>, seed: Option<u64>) -> PyResult<Self> {
        let size = match (fraction, rows) {
            (Some(fraction), None) => SampleSize::Fraction(fraction),
            (None, Some(rows)) => SampleSize::Rows(rows),
            _ => {
                let error = Error::new(ErrorKind::InvalidConfig, "a sample is a part of the rows, or a number of them")
                    .with_help("write sample(fraction=0.1) or sample(n=100)");
                return Err(raise(py, &error, None));
            }
        };
        self.step(py, |frame| frame.sample(Sample { size, seed }))
    }

    /// The rows that a Python function makes of these.
    fn map_batches(&self, py: Python<'_>, function: &PythonFunction) -> PyResult<Self> {
        self.step(py, |frame| frame.map_batches(function.inner.as_ref().clone()))
    }

    /// Starts to compute the rows.
    fn query(&self, py: Python<'_>) -> PyResult<Query> {
        self.act(py, self.inner.query()).map(|query| Query::new(query, String::new()))
    }

    fn count(&self, py: Python<'_>) -> PyResult<u64> {
        self.act(py, self.inner.count())
    }

    fn is_empty(&self, py: Python<'_>) -> PyResult<bool> {
        self.act(py, self.inner.is_empty())
    }

    /// How the rows are computed, as a table of kinds and texts.
    fn explain(&self, py: Python<'_>, analyze: bool, verbose: bool) -> PyResult<Vec<(String, String)>> {
        let batches = self.act(py, self.inner.explain(Explain { analyze, verbose }))?;
        let mut lines = Vec::new();
        for batch in batches {
            let table = Table::new(batch.schema(), vec![batch]);
            let kinds = table.column_texts(0);
            lines.extend(kinds.into_iter().zip(table.column_texts(1)));
        }
        Ok(lines)
    }

    /// Writes the rows into files and returns their number.
    #[expect(clippy::too_many_arguments, reason = "each is one keyword in Python")]
    fn write(
        &self,
        py: Python<'_>,
        path: String,
        format: &str,
        partition_by: Vec<String>,
        mode: &str,
        compression: Option<String>,
        file_size: Option<u64>,
    ) -> PyResult<u64> {
        let format = match format {
            "parquet" => FileFormat::Parquet,
            "csv" => FileFormat::Csv,
            "json" => FileFormat::Json,
            other => return Err(unknown(py, "format", other, "parquet, csv or json")),
        };
        let mode = match mode {
            "error" => WriteMode::Error,
            "overwrite" => WriteMode::Overwrite,
            "append" => WriteMode::Append,
            other => return Err(unknown(py, "mode", other, "error, overwrite or append")),
        };
        let write = Write { path, format: Some(format), partition_by, mode, compression, file_size };
        self.act(py, self.inner.write(write))
    }

    fn persist(&self, py: Python<'_>) -> PyResult<Self> {
        self.act(py, self.inner.persist()).map(Self::new)
    }
}

/// The frame of a table.
#[pyfunction]
pub(crate) fn frame_of_table(py: Python<'_>, session: PyRef<'_, Session>, name: String) -> PyResult<Frame> {
    let session = session.open(py)?;
    wait(py, session.table(&name))?.map(Frame::new).map_err(|error| raise(py, &error, None))
}

/// The frame of a query, which may name other frames.
#[pyfunction]
pub(crate) fn frame_of_query(
    py: Python<'_>,
    session: PyRef<'_, Session>,
    text: String,
    frames: Vec<(String, Py<Frame>)>,
) -> PyResult<Frame> {
    let session = session.open(py)?;
    let frames: Vec<(&str, &DataFrame)> = frames.iter().map(|(name, frame)| (name.as_str(), &*frame.get().inner)).collect();
    wait(py, session.frame_with(&text, &frames))?.map(Frame::new).map_err(|error| raise(py, &error, Some(&text)))
}

/// The frame of an Arrow object's rows.
#[pyfunction]
pub(crate) fn frame_of_rows(py: Python<'_>, session: PyRef<'_, Session>, data: AnyRecordBatch) -> PyResult<Frame> {
    let session = session.open(py)?;
    let reader = data.into_reader()?;
    let schema = reader.schema();
    let rows = rows(py, reader)?;
    wait(py, session.from_batches(schema, rows))?.map(Frame::new).map_err(|error| raise(py, &error, None))
}

/// The frame of files.
#[pyfunction]
#[pyo3(signature = (session, format, paths, csv=None, schema=None, hive_partitions=Vec::new(), extension=None))]
#[expect(clippy::too_many_arguments, reason = "each is one keyword in Python")]
pub(crate) fn frame_of_files(
    py: Python<'_>,
    session: PyRef<'_, Session>,
    format: &str,
    paths: Vec<String>,
    csv: Option<Bound<'_, PyDict>>,
    schema: Option<PySchema>,
    hive_partitions: Vec<(String, PyDataType)>,
    extension: Option<String>,
) -> PyResult<Frame> {
    let session = session.open(py)?;
    let format = match format {
        "parquet" => FileFormatOptions::Parquet,
        "csv" => csv_options(csv.as_ref())?,
        "json" => FileFormatOptions::Json,
        "arrow" => FileFormatOptions::Arrow,
        other => return Err(unknown(py, "format", other, "parquet, csv, json or arrow")),
    };
    let schema = schema.map(PySchema::into_inner);
    let hive_partitions = hive_partitions.into_iter().map(|(name, of)| (name, of.into_inner())).collect();
    let files = ReadFiles { format, paths, schema, hive_partitions, extension, options: Vec::new() };
    wait(py, session.read(files))?.map(Frame::new).map_err(|error| raise(py, &error, None))
}

fn csv_options(given: Option<&Bound<'_, PyDict>>) -> PyResult<FileFormatOptions> {
    let byte = |name: &str| -> PyResult<Option<u8>> {
        let value = given.map(|given| given.get_item(name)).transpose()?.flatten();
        let text = value.map(|value| value.extract::<Option<String>>()).transpose()?.flatten();
        Ok(text.and_then(|text| text.bytes().next()))
    };
    let header = given.map(|given| given.get_item("has_header")).transpose()?.flatten();
    Ok(FileFormatOptions::Csv {
        has_header: header.map(|header| header.extract()).transpose()?.unwrap_or(true),
        delimiter: byte("delimiter")?.unwrap_or(b','),
        quote: byte("quote")?.unwrap_or(b'"'),
        escape: byte("escape")?,
        comment: byte("comment")?,
    })
}
