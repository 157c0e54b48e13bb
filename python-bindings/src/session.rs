//! One client's session: text and values in, queries out. Next: `query.rs`, and `client/src/session.rs` behind it.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::SchemaRef;
use futures::{Stream, stream};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3_arrow::input::AnyRecordBatch;
use tokio::sync::{RwLock, mpsc};
use windrow::{ConnectOptions, Error, ErrorKind, IngestMode, IngestTarget, Login};

use crate::error::raise;
use crate::query::Query;
use crate::runtime::{Hosted, runtime, wait};
use crate::{parameters, status};

/// Batches between whoever makes rows and the table that they go into.
const AHEAD: usize = 2;

/// A session of an engine in this process, or of a scheduler elsewhere.
#[pyclass(module = "windrow._windrow", frozen)]
pub(crate) struct Session {
    inner: Hosted<Arc<RwLock<Option<windrow::Session>>>>,
    url: Option<String>,
}

impl Session {
    pub(crate) fn new(session: windrow::Session) -> Self {
        let url = session.url().map(str::to_owned);
        Self { inner: Hosted::new(Arc::new(RwLock::new(Some(session)))), url }
    }

    /// The session, unless it was closed.
    pub(crate) fn open(&self, py: Python<'_>) -> PyResult<windrow::Session> {
        let inner = Arc::clone(&self.inner);
        let session = wait(py, async move { inner.read().await.clone() })?;
        session.ok_or_else(|| {
            let error = Error::new(ErrorKind::Unavailable, "the client is closed").with_help("connect again");
            raise(py, &error, None)
        })
    }
}

#[pymethods]
impl Session {
    /// Opens a session: without an url, of an engine in this process.
    #[staticmethod]
    #[pyo3(signature = (url=None, token=None, password=None, ca=None, executors=1, slots=None, memory_limit=None, python=None))]
    #[expect(clippy::too_many_arguments, reason = "each is one keyword in Python")]
    fn connect(
        py: Python<'_>,
        url: Option<String>,
        token: Option<String>,
        password: Option<String>,
        ca: Option<std::path::PathBuf>,
        executors: u32,
        slots: Option<u32>,
        memory_limit: Option<u64>,
        python: Option<std::path::PathBuf>,
    ) -> PyResult<Self> {
        let mut config = windrow_core::config::load(None).map_err(|error| raise(py, &error, None))?;
        config.executor.python = config.executor.python.or(python);
        let options = ConnectOptions {
            url,
            login: Login { token, password, ca },
            slots,
            memory_limit,
            executors,
            query: config.query,
            executor: config.executor,
            scheduler: config.scheduler,
        };
        wait(py, options.connect())?.map(Self::new).map_err(|error| raise(py, &error, None))
    }

    /// The scheduler's url; `None` if the engine runs in this process.
    #[getter]
    fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Starts a statement with a value for each of its parameters; `names` are those of the last ones.
    #[pyo3(signature = (text, values=Vec::new(), names=Vec::new()))]
    fn sql(&self, py: Python<'_>, text: String, values: Vec<Bound<'_, PyAny>>, names: Vec<String>) -> PyResult<Query> {
        let session = self.open(py)?;
        let values = parameters::row(py, &values, &names)?;
        let query = wait(py, session.sql_with(&text, values.as_ref()))?;
        query.map_err(|error| raise(py, &error, Some(&text))).map(|query| Query::new(query, text))
    }

    /// Writes the rows of an Arrow object into a table; returns how many.
    #[pyo3(signature = (table, data, mode, temporary=true, schema=None))]
    fn ingest(
        &self,
        py: Python<'_>,
        table: String,
        data: AnyRecordBatch,
        mode: &str,
        temporary: bool,
        schema: Option<String>,
    ) -> PyResult<u64> {
        let session = self.open(py)?;
        let mode = match mode {
            "create" => IngestMode::Create,
            "append" => IngestMode::Append,
            "replace" => IngestMode::Replace,
            "create_append" => IngestMode::CreateAppend,
            other => {
                let error = Error::new(ErrorKind::InvalidConfig, format!("mode '{other}' is none of ours"))
                    .with_help("write create, append, replace or create_append");
                return Err(raise(py, &error, None));
            }
        };
        let reader = data.into_reader()?;
        let target = IngestTarget { catalog: None, schema, table, temporary, mode };
        let columns = reader.schema();
        let rows = rows(py, reader)?;
        wait(py, session.ingest(target, columns, rows))?.map_err(|error| raise(py, &error, None))
    }

    /// The tables, functions and settings that the session knows.
    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let session = self.open(py)?;
        let names = wait(py, async move { session.names().await })?.map_err(|error| raise(py, &error, None))?;
        let all = PyDict::new(py);
        all.set_item("tables", names.tables)?;
        all.set_item("functions", PyList::new(py, names.functions)?)?;
        all.set_item("settings", PyList::new(py, names.settings)?)?;
        Ok(all)
    }

    /// Executors, queries and counters at this moment.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let session = self.open(py)?;
        let now = wait(py, async move { session.status().await })?.map_err(|error| raise(py, &error, None))?;
        status::status(py, &now)
    }

    /// Ends a query by its number; whether it was running.
    fn cancel(&self, py: Python<'_>, query: u64) -> PyResult<bool> {
        let session = self.open(py)?;
        wait(py, async move { session.cancel(query).await })?.map_err(|error| raise(py, &error, None))
    }

    /// Changes a setting of the session.
    fn set(&self, py: Python<'_>, name: String, value: String) -> PyResult<()> {
        let session = self.open(py)?;
        wait(py, async move { session.set(&name, &value).await })?.map_err(|error| raise(py, &error, None))
    }

    /// Ends the session; the engine too, if `engine` is set and it runs in this process. Harmless when done before.
    #[pyo3(signature = (engine=false))]
    fn close(&self, py: Python<'_>, engine: bool) -> PyResult<()> {
        let inner = Arc::clone(&self.inner);
        // A task of its own: what was begun is brought to its end even if nobody waits for it any more.
        let ending = runtime(py)?.spawn(async move {
            match inner.write().await.take() {
                Some(session) if engine => session.shutdown().await,
                Some(session) => session.close().await,
                None => {}
            }
        });
        wait(py, ending).map(drop)
    }

    /// Whether it was closed.
    #[getter]
    fn is_closed(&self) -> bool {
        self.inner.try_read().is_ok_and(|session| session.is_none())
    }
}

/// The batches of a reader, which a thread of its own reads: it may need the interpreter's lock, or wait for a network.
pub(crate) fn rows(
    py: Python<'_>,
    reader: Box<dyn RecordBatchReader + Send>,
) -> PyResult<impl Stream<Item = windrow::Result<RecordBatch>> + Send + 'static + use<>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let read = move || {
        for batch in reader {
            let batch = batch.map_err(|source| {
                Error::new(ErrorKind::Data, format!("the rows to register cannot be read: {source}")).with_source(source)
            });
            let is_last = batch.is_err();
            // Nobody takes them once the statement has failed.
            if sender.blocking_send(batch).is_err() || is_last {
                return;
            }
        }
    };
    let _thread = runtime(py)?.spawn_blocking(read);
    Ok(stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }))
}

/// The columns of a schema, for those that ask.
pub(crate) fn columns(schema: &SchemaRef) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}
