//! Python's values as Arrow's, for the parameters of a statement. `python/windrow/_values.py` says first what a value is. Next:
//! `values.rs`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, DurationMicrosecondArray, Float64Array, Int64Array, ListArray,
    NullArray, StringArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3_arrow::PyArray;

use crate::table::Table;

/// One row with a column for each value; the last ones have `names`. `None` without values.
pub(crate) fn row(py: Python<'_>, values: &[Bound<'_, PyAny>], names: &[String]) -> PyResult<Option<RecordBatch>> {
    if values.is_empty() {
        return Ok(None);
    }
    let describe = py.import("windrow._values")?.getattr("describe")?;
    let unnamed = values.len().saturating_sub(names.len());
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let array = array(&describe, value)?;
        let name = index.checked_sub(unnamed).and_then(|index| names.get(index)).cloned();
        fields.push(Field::new(name.unwrap_or_else(|| format!("${}", index + 1)), array.data_type().clone(), true));
        columns.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map(Some).map_err(unfit)
}

/// The table of columns of Python's values.
#[pyfunction]
pub(crate) fn table_of_columns(py: Python<'_>, names: Vec<String>, columns: Vec<Vec<Bound<'_, PyAny>>>) -> PyResult<Table> {
    let describe = py.import("windrow._values")?.getattr("describe")?;
    let values = columns.iter().map(|values| items(&describe, values)).collect::<PyResult<Vec<_>>>()?;
    let fields = names.iter().zip(&values).map(|(name, values)| Field::new(name, values.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    if values.is_empty() {
        return Ok(Table::new(schema, Vec::new()));
    }
    let batch = RecordBatch::try_new(Arc::clone(&schema), values).map_err(unfit)?;
    Ok(Table::new(schema, vec![batch]))
}

/// An array of this one value.
pub(crate) fn value(value: &Bound<'_, PyAny>) -> PyResult<ArrayRef> {
    array(&value.py().import("windrow._values")?.getattr("describe")?, value)
}

/// An array of one value.
fn array(describe: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<ArrayRef> {
    let (what, value): (String, Bound<'_, PyAny>) = describe.call1((value,))?.extract()?;
    Ok(match what.as_str() {
        "null" => Arc::new(NullArray::new(1)),
        "bool" => Arc::new(BooleanArray::from(vec![value.extract::<bool>()?])),
        "int" => match value.extract::<i64>() {
            Ok(number) => Arc::new(Int64Array::from(vec![number])),
            Err(_larger) => Arc::new(UInt64Array::from(vec![value.extract::<u64>()?])),
        },
        "float" => Arc::new(Float64Array::from(vec![value.extract::<f64>()?])),
        "text" => Arc::new(StringArray::from(vec![value.extract::<String>()?])),
        "bytes" => Arc::new(BinaryArray::from(vec![value.extract::<Vec<u8>>()?.as_slice()])),
        "date" => Arc::new(Date32Array::from(vec![value.extract::<i32>()?])),
        "time" => Arc::new(Time64MicrosecondArray::from(vec![value.extract::<i64>()?])),
        "timestamp" => Arc::new(TimestampMicrosecondArray::from(vec![value.extract::<i64>()?])),
        "timestamp_utc" => Arc::new(TimestampMicrosecondArray::from(vec![value.extract::<i64>()?]).with_timezone("UTC")),
        "duration" => Arc::new(DurationMicrosecondArray::from(vec![value.extract::<i64>()?])),
        "decimal" => {
            let (text, precision, scale): (String, u8, i8) = value.extract()?;
            cast(&StringArray::from(vec![text]), &DataType::Decimal128(precision, scale)).map_err(unfit)?
        }
        "list" => list(describe, &value.extract::<Vec<Bound<'_, PyAny>>>()?)?,
        "struct" => {
            let parts: Vec<(String, Bound<'_, PyAny>)> = value.extract()?;
            let column = |(name, value): &(String, Bound<'_, PyAny>)| {
                let array = array(describe, value)?;
                Ok((Arc::new(Field::new(name, array.data_type().clone(), true)), array))
            };
            Arc::new(StructArray::from(parts.iter().map(column).collect::<PyResult<Vec<_>>>()?))
        }
        "array" => value.extract::<PyArray>()?.into_inner().0,
        other => return Err(PyValueError::new_err(format!("a value of the kind '{other}'"))),
    })
}

fn list(describe: &Bound<'_, PyAny>, values: &[Bound<'_, PyAny>]) -> PyResult<ArrayRef> {
    let all = items(describe, values)?;
    let field = Arc::new(Field::new_list_field(all.data_type().clone(), true));
    let list = ListArray::try_new(field, OffsetBuffer::from_lengths([all.len()]), all, None);
    list.map(|list| Arc::new(list) as ArrayRef).map_err(unfit)
}

/// Values as one array: of the type of the first that is not null, or of floats if there are some among whole numbers.
fn items(describe: &Bound<'_, PyAny>, values: &[Bound<'_, PyAny>]) -> PyResult<ArrayRef> {
    let items = values.iter().map(|value| array(describe, value)).collect::<PyResult<Vec<_>>>()?;
    let mut types = items.iter().map(|item| item.data_type()).filter(|of| !of.is_null());
    let first = types.next().cloned().unwrap_or(DataType::Null);
    let has_floats = first.is_integer() && types.any(|of| *of == DataType::Float64);
    let of = if has_floats { DataType::Float64 } else { first };
    let items = items.iter().map(|item| cast(item, &of)).collect::<Result<Vec<_>, _>>().map_err(unfit)?;
    let parts: Vec<&dyn Array> = items.iter().map(AsRef::as_ref).collect();
    if parts.is_empty() { Ok(Arc::new(NullArray::new(0))) } else { concat(&parts).map_err(unfit) }
}

fn unfit(error: ArrowError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
