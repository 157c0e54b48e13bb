//! Arrow's values as Python's own. What needs a class of Python's library is made by `python/windrow/_values.py`. Next:
//! `parameters.rs`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Field, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType,
    IntervalUnit, IntervalYearMonthType, TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

/// Appends each value of `array` to `list`.
pub(crate) fn append<'py>(py: Python<'py>, array: &ArrayRef, list: &Bound<'py, PyList>) -> PyResult<()> {
    match array.data_type() {
        DataType::Null => each(array, list, |_row| Ok(py.None().into_bound(py))),
        DataType::Boolean => each(array, list, |row| array.as_boolean().value(row).into_bound_py_any(py)),
        DataType::Int8 => number::<Int8Type>(py, array, list),
        DataType::Int16 => number::<Int16Type>(py, array, list),
        DataType::Int32 => number::<Int32Type>(py, array, list),
        DataType::Int64 => number::<Int64Type>(py, array, list),
        DataType::UInt8 => number::<UInt8Type>(py, array, list),
        DataType::UInt16 => number::<UInt16Type>(py, array, list),
        DataType::UInt32 => number::<UInt32Type>(py, array, list),
        DataType::UInt64 => number::<UInt64Type>(py, array, list),
        DataType::Float16 => {
            each(array, list, |row| f32::from(array.as_primitive::<Float16Type>().value(row)).into_bound_py_any(py))
        }
        DataType::Float32 => number::<Float32Type>(py, array, list),
        DataType::Float64 => number::<Float64Type>(py, array, list),
        DataType::Utf8 => each(array, list, |row| array.as_string::<i32>().value(row).into_bound_py_any(py)),
        DataType::LargeUtf8 => each(array, list, |row| array.as_string::<i64>().value(row).into_bound_py_any(py)),
        DataType::Utf8View => each(array, list, |row| array.as_string_view().value(row).into_bound_py_any(py)),
        DataType::Binary => each(array, list, |row| bytes(py, array.as_binary::<i32>().value(row))),
        DataType::LargeBinary => each(array, list, |row| bytes(py, array.as_binary::<i64>().value(row))),
        DataType::BinaryView => each(array, list, |row| bytes(py, array.as_binary_view().value(row))),
        DataType::FixedSizeBinary(_) => each(array, list, |row| bytes(py, array.as_fixed_size_binary().value(row))),
        DataType::Decimal32(..) => decimal::<Decimal32Type>(py, array, list),
        DataType::Decimal64(..) => decimal::<Decimal64Type>(py, array, list),
        DataType::Decimal128(..) => decimal::<Decimal128Type>(py, array, list),
        DataType::Decimal256(..) => decimal::<Decimal256Type>(py, array, list),
        DataType::List(_) => each(array, list, |row| values(py, &array.as_list::<i32>().value(row))),
        DataType::LargeList(_) => each(array, list, |row| values(py, &array.as_list::<i64>().value(row))),
        DataType::FixedSizeList(..) => each(array, list, |row| values(py, &array.as_fixed_size_list().value(row))),
        DataType::ListView(item) => append(py, &as_type(array, &DataType::List(Arc::clone(item)))?, list),
        DataType::LargeListView(item) => append(py, &as_type(array, &DataType::LargeList(Arc::clone(item)))?, list),
        DataType::Struct(fields) => structs(py, array, fields, list),
        DataType::Map(..) => maps(py, array, list),
        DataType::Dictionary(_, value) => append(py, &as_type(array, value)?, list),
        DataType::RunEndEncoded(_, value) => append(py, &as_type(array, value.data_type())?, list),
        DataType::Union(..) => unions(py, array, list),
        DataType::Interval(unit) => intervals(py, array, *unit, list),
        DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Timestamp(..)
        | DataType::Duration(_) => moments(py, array, list),
    }
}

fn each<'py>(array: &ArrayRef, list: &Bound<'py, PyList>, value: impl Fn(usize) -> PyResult<Bound<'py, PyAny>>) -> PyResult<()> {
    for row in 0..array.len() {
        if array.is_null(row) {
            list.append(list.py().None())?;
        } else {
            list.append(value(row)?)?;
        }
    }
    Ok(())
}

fn number<'py, T>(py: Python<'py>, array: &ArrayRef, list: &Bound<'py, PyList>) -> PyResult<()>
where
    T: ArrowPrimitiveType,
    T::Native: IntoPyObject<'py>,
{
    let numbers = array.as_primitive::<T>();
    each(array, list, |row| numbers.value(row).into_bound_py_any(py))
}

fn bytes<'py>(py: Python<'py>, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    Ok(PyBytes::new(py, value).into_any())
}

fn values<'py>(py: Python<'py>, array: &ArrayRef) -> PyResult<Bound<'py, PyAny>> {
    let list = PyList::empty(py);
    append(py, array, &list)?;
    Ok(list.into_any())
}

fn decimal<'py, T: DecimalType + ArrowPrimitiveType>(
    py: Python<'py>,
    array: &ArrayRef,
    list: &Bound<'py, PyList>,
) -> PyResult<()> {
    let class = py.import("decimal")?.getattr("Decimal")?;
    let numbers = array.as_primitive::<T>();
    each(array, list, |row| class.call1((numbers.value_as_string(row),)))
}

fn as_type(array: &ArrayRef, wanted: &DataType) -> PyResult<ArrayRef> {
    cast(array, wanted).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn structs<'py>(py: Python<'py>, array: &ArrayRef, fields: &arrow::datatypes::Fields, list: &Bound<'py, PyList>) -> PyResult<()> {
    let columns = array.as_struct().columns().iter().map(|column| values(py, column)).collect::<PyResult<Vec<_>>>()?;
    each(array, list, |row| {
        let dict = PyDict::new(py);
        for (field, column) in fields.iter().map(AsRef::<Field>::as_ref).zip(&columns) {
            dict.set_item(field.name(), column.get_item(row)?)?;
        }
        Ok(dict.into_any())
    })
}

fn maps<'py>(py: Python<'py>, array: &ArrayRef, list: &Bound<'py, PyList>) -> PyResult<()> {
    each(array, list, |row| {
        let entries = array.as_map().value(row);
        let (keys, items) = (values(py, entries.column(0))?, values(py, entries.column(1))?);
        let pairs = PyList::empty(py);
        for entry in 0..entries.len() {
            pairs.append(PyTuple::new(py, [keys.get_item(entry)?, items.get_item(entry)?])?)?;
        }
        Ok(pairs.into_any())
    })
}

fn unions<'py>(py: Python<'py>, array: &ArrayRef, list: &Bound<'py, PyList>) -> PyResult<()> {
    let union = array.as_union();
    for row in 0..array.len() {
        append(py, &union.value(row), list)?;
    }
    Ok(())
}

/// Months, days and nanoseconds.
fn intervals<'py>(py: Python<'py>, array: &ArrayRef, unit: IntervalUnit, list: &Bound<'py, PyList>) -> PyResult<()> {
    each(array, list, |row| {
        let parts = match unit {
            IntervalUnit::YearMonth => (array.as_primitive::<IntervalYearMonthType>().value(row), 0, 0),
            IntervalUnit::DayTime => {
                let value = array.as_primitive::<IntervalDayTimeType>().value(row);
                (0, value.days, i64::from(value.milliseconds) * 1_000_000)
            }
            IntervalUnit::MonthDayNano => {
                let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
                (value.months, value.days, value.nanoseconds)
            }
        };
        parts.into_bound_py_any(py)
    })
}

/// Dates, times and what is between them: a function of `_values.py` gets the number and makes the object.
fn moments<'py>(py: Python<'py>, array: &ArrayRef, list: &Bound<'py, PyList>) -> PyResult<()> {
    let module = py.import("windrow._values")?;
    let per_second = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 1_i64,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    let make = match array.data_type() {
        DataType::Date32 => module.getattr("dates")?.call0()?,
        DataType::Date64 => module.getattr("dates")?.call1((86_400_000_i64,))?,
        DataType::Time32(unit) | DataType::Time64(unit) => module.getattr("times")?.call1((per_second(unit),))?,
        DataType::Timestamp(unit, zone) => module.getattr("timestamps")?.call1((per_second(unit), zone.as_deref()))?,
        DataType::Duration(unit) => module.getattr("durations")?.call1((per_second(unit),))?,
        other => return Err(PyValueError::new_err(format!("{other} is no moment"))),
    };
    let numbers = as_type(array, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>();
    each(array, list, |row| make.call1((numbers.value(row),)))
}
