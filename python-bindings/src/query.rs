//! A running query: its rows as they come, or all of them, its progress, its end. Next: `table.rs`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StructArray};
use arrow::datatypes::{Field, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use pyo3_arrow::ffi::{ArrayReader, to_schema_pycapsule, to_stream_pycapsule};
use tokio::sync::Mutex;
use windrow::{Error, ErrorKind, QueryControl};

use crate::error::{About, raise_about};
use crate::runtime::{Hosted, runtime, wait_anywhere, wait_ticking};
use crate::session::columns;
use crate::status;
use crate::table::Table;

type Rows = Arc<Mutex<Option<windrow::Query>>>;

/// A running query. Its rows are read once; when nobody holds them any more, it ends.
#[pyclass(module = "windrow._windrow", frozen)]
pub(crate) struct Query {
    /// `None` once they were read, or given away.
    rows: Hosted<Rows>,
    control: Hosted<QueryControl>,
    schema: SchemaRef,
    text: String,
}

impl Query {
    pub(crate) fn new(query: windrow::Query, text: String) -> Self {
        let (control, schema) = (query.control(), query.schema());
        Self { rows: Hosted::new(Arc::new(Mutex::new(Some(query)))), control: Hosted::new(control), schema, text }
    }

    fn raise(&self, py: Python<'_>, error: &Error) -> PyErr {
        raise_about(py, error, About { text: Some(&self.text), query: self.control.id() })
    }

    /// Waits for rows; whoever is interrupted meanwhile ends the query.
    fn wait<T: Send>(
        &self,
        py: Python<'_>,
        tick: Option<&Bound<'_, PyAny>>,
        rows: impl Future<Output = windrow::Result<T>> + Send,
    ) -> PyResult<T> {
        let waited = wait_ticking(py, rows, |py| match tick {
            Some(tick) => tick.call1((status::progress(py, &self.control.progress())?,)).map(drop),
            None => Ok(()),
        });
        match waited {
            Ok(result) => result.map_err(|error| self.raise(py, &error)),
            Err(interrupt) => {
                self.end(py)?;
                Err(interrupt)
            }
        }
    }

    /// Ends the query without waiting for it.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        let control = QueryControl::clone(&self.control);
        drop(runtime(py)?.spawn(async move { control.cancel().await }));
        Ok(())
    }
}

#[pymethods]
impl Query {
    /// Its number, as `system.queries` shows it; `None` if it needed no job.
    #[getter]
    fn id(&self) -> Option<u64> {
        self.control.id()
    }

    /// The text of the statement.
    #[getter]
    fn text(&self) -> &str {
        &self.text
    }

    /// The names of the columns.
    #[getter]
    fn columns(&self) -> Vec<String> {
        columns(&self.schema)
    }

    /// An empty table of its columns.
    #[getter]
    fn schema(&self) -> Table {
        Table::new(Arc::clone(&self.schema), Vec::new())
    }

    /// How far it is.
    fn progress<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let _here = runtime(py)?;
        status::progress(py, &self.control.progress())
    }

    /// Ends it; whoever waits for its rows hears of it. Harmless after its end.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        self.end(py)
    }

    /// The next rows, `None` after the last; `tick` is called with the progress while it waits.
    #[pyo3(signature = (tick=None))]
    fn next_batch(&self, py: Python<'_>, tick: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Table>> {
        let rows = Arc::clone(&self.rows);
        let batch = self.wait(py, tick, async move { next_of(&mut *rows.lock().await).await })?;
        Ok(batch.map(|batch| Table::new(Arc::clone(&self.schema), vec![batch])))
    }

    /// All remaining rows; `tick` is called with the progress while it waits.
    #[pyo3(signature = (tick=None))]
    fn collect(&self, py: Python<'_>, tick: Option<&Bound<'_, PyAny>>) -> PyResult<Table> {
        let rows = Arc::clone(&self.rows);
        let batches = self.wait(py, tick, async move {
            let mut rows = rows.lock().await;
            let mut batches = Vec::new();
            while let Some(batch) = next_of(&mut rows).await? {
                batches.push(batch);
            }
            Ok(batches)
        })?;
        Ok(Table::new(Arc::clone(&self.schema), batches))
    }

    /// Hands the remaining rows over as a stream; who drops it ends the query.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let rows = Arc::clone(&self.rows);
        let query = self.wait(py, None, async move { Ok(rows.lock().await.take()) })?;
        let Some(query) = query else {
            let error = Error::new(ErrorKind::NotFound, "the rows of this query were read already")
                .with_help("keep its result: query.result() can be read as often as you like");
            return Err(self.raise(py, &error));
        };
        let field = Field::new_struct("", self.schema.fields().clone(), false).with_metadata(self.schema.metadata().clone());
        let reader = Reader { query: Hosted::new(Mutex::new(Some(query))), field: Arc::new(field) };
        Ok(to_stream_pycapsule(py, Box::new(reader), requested_schema)?)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        Ok(to_schema_pycapsule(py, self.schema.as_ref())?)
    }
}

/// The next batch; the query is let go with the last one, and with an error.
async fn next_of(rows: &mut Option<windrow::Query>) -> windrow::Result<Option<RecordBatch>> {
    let Some(query) = rows.as_mut() else { return Ok(None) };
    let next = query.next_batch().await;
    if !matches!(next, Ok(Some(_))) {
        *rows = None;
    }
    next
}

/// Rows for another library, which pulls them batch by batch.
struct Reader {
    query: Hosted<Mutex<Option<windrow::Query>>>,
    field: FieldRef,
}

impl ArrayReader for Reader {
    fn field(&self) -> FieldRef {
        Arc::clone(&self.field)
    }
}

impl Iterator for Reader {
    type Item = Result<ArrayRef, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let waited = wait_anywhere(async { next_of(&mut *self.query.lock().await).await });
        match waited {
            Ok(Ok(batch)) => batch.map(|batch| Ok(Arc::new(StructArray::from(batch)) as ArrayRef)),
            Ok(Err(error)) => Some(Err(ArrowError::ExternalError(Box::new(error)))),
            Err(interrupt) => {
                // Dropping the query ends it. The library raises an error of its own; the interrupt follows as soon as Python goes on.
                // Showing the interrupt itself would run Python, which would take it for handled.
                drop(interrupt);
                *self.query.blocking_lock() = None;
                interrupt_again();
                Some(Err(ArrowError::ComputeError("interrupted".to_owned())))
            }
        }
    }
}

/// Behaves as if SIGINT had come once more.
#[expect(unsafe_code, reason = "pyo3 has no safe way to it")]
fn interrupt_again() {
    // SAFETY: may be called by any thread at any time.
    unsafe { pyo3::ffi::PyErr_SetInterrupt() }
}
