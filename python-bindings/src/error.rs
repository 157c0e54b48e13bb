//! Errors as Python raises them: a class for each kind, made by `python/windrow/_errors.py`. Next: `session.rs`.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use windrow::Error;

/// What a Python exception says beside the error: the text of the statement and the number of its query.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct About<'a> {
    pub(crate) text: Option<&'a str>,
    pub(crate) query: Option<u64>,
}

/// The exception for `error`.
pub(crate) fn raise(py: Python<'_>, error: &Error, text: Option<&str>) -> PyErr {
    raise_about(py, error, About { text, query: None })
}

/// As [`raise`], with more to say.
pub(crate) fn raise_about(py: Python<'_>, error: &Error, about: About<'_>) -> PyErr {
    exception(py, error, about).map_or_else(|failed| failed, PyErr::from_value)
}

fn exception<'py>(py: Python<'py>, error: &Error, about: About<'_>) -> PyResult<Bound<'py, PyAny>> {
    let span = error.context.span.map(|at| (at.start_line, at.start_column, at.end_line, at.end_column));
    let facts = PyDict::new(py);
    facts.set_item("kind", format!("{:?}", error.kind))?;
    facts.set_item("message", &error.message)?;
    facts.set_item("suggestion", error.context.suggestion.as_deref())?;
    facts.set_item("hint", error.context.help.as_deref())?;
    facts.set_item("position", span)?;
    facts.set_item("text", about.text)?;
    facts.set_item("query_id", about.query)?;
    py.import("windrow._errors")?.getattr("make")?.call((), Some(&facts))
}
