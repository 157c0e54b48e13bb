//! Functions of Python that run on executors: what the package pickled, and how it is called. Next: `client/src/frame/python.rs`.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyList;
use pyo3_arrow::{PyDataType, PySchema};
use windrow::frame::{self, PythonFormat, PythonStyle};
use windrow::{Error, ErrorKind};

use crate::error::raise;
use crate::expr::Expr;
use crate::runtime::wait;
use crate::session::Session;

/// A function of Python's, as executors are given it.
#[pyclass(module = "windrow._windrow", frozen)]
pub(crate) struct PythonFunction {
    pub(crate) inner: Arc<frame::PythonFunction>,
}

#[pymethods]
impl PythonFunction {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "each is one keyword in Python")]
    fn new(
        py: Python<'_>,
        name: String,
        pickle: &[u8],
        style: &str,
        format: &str,
        schema: &Bound<'_, PyAny>,
        batch_size: u32,
        concurrency: Option<u32>,
        memory: Option<u64>,
        deterministic: bool,
        python: String,
        cloudpickle: String,
    ) -> PyResult<Self> {
        let unknown = |what: &str, met: &str, known: &str| {
            let error = Error::new(ErrorKind::InvalidConfig, format!("{what} = '{met}' is none of ours"));
            raise(py, &error.with_help(format!("write {known}")), None)
        };
        let style = match style {
            "batches" => PythonStyle::Batches,
            "values" => PythonStyle::Values,
            "groups" => PythonStyle::Groups,
            other => return Err(unknown("style", other, "batches, values or groups")),
        };
        let format = match format {
            "arrow" => PythonFormat::Arrow,
            "pandas" => PythonFormat::Pandas,
            "polars" => PythonFormat::Polars,
            "numpy" => PythonFormat::Numpy,
            other => return Err(unknown("format", other, "arrow, pandas, polars or numpy")),
        };
        let (pickle, schema) = (Bytes::copy_from_slice(pickle), columns(schema)?);
        let function = frame::PythonFunction {
            name,
            pickle,
            style,
            format,
            schema,
            batch_size,
            concurrency,
            memory,
            deterministic,
            python,
            cloudpickle,
        };
        function.check().map_err(|error| raise(py, &error, None))?;
        Ok(Self { inner: Arc::new(function) })
    }

    /// Makes it known to a session's SQL, by its name.
    fn register(&self, py: Python<'_>, session: PyRef<'_, Session>) -> PyResult<()> {
        let session = session.open(py)?;
        wait(py, session.register_python(&self.inner))?.map_err(|error| raise(py, &error, None))
    }
}

/// The columns that a list of names and types means, or a schema of Arrow.
fn columns(given: &Bound<'_, PyAny>) -> PyResult<SchemaRef> {
    if !given.is_instance_of::<PyList>() {
        return Ok(given.extract::<PySchema>()?.into_inner());
    }
    let columns = given.extract::<Vec<(String, PyDataType)>>()?;
    let fields = columns.into_iter().map(|(name, of)| Field::new(name, of.into_inner(), true));
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// A call of a function of columns, or of groups.
#[pyfunction]
pub(crate) fn call_python(
    py: Python<'_>,
    function: PyRef<'_, PythonFunction>,
    arguments: Vec<PyRef<'_, Expr>>,
) -> PyResult<Expr> {
    let arguments = arguments.iter().map(|argument| argument.inner.clone()).collect();
    frame::python_call(&function.inner, arguments).map(Expr::from).map_err(|error| raise(py, &error, None))
}
