//! The state of a cluster as Python's dictionaries. Next: `cluster.rs`.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use windrow::{ClusterStatus, ExecutorStatus, JobStatus, Progress};

/// `status` as `{"executors": [...], "queries": [...], "counters": {...}}`.
pub(crate) fn status<'py>(py: Python<'py>, status: &ClusterStatus) -> PyResult<Bound<'py, PyDict>> {
    let executors = status.executors.iter().map(|one| executor(py, one)).collect::<PyResult<Vec<_>>>()?;
    let queries = status.jobs.iter().map(|one| query(py, one)).collect::<PyResult<Vec<_>>>()?;
    let counters = PyDict::new(py);
    for (name, value) in &status.counters {
        counters.set_item(name, value)?;
    }
    let all = PyDict::new(py);
    all.set_item("executors", PyList::new(py, executors)?)?;
    all.set_item("queries", PyList::new(py, queries)?)?;
    all.set_item("counters", counters)?;
    Ok(all)
}

fn executor<'py>(py: Python<'py>, one: &ExecutorStatus) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("name", &one.name)?;
    facts.set_item("pid", (one.pid > 0).then_some(one.pid))?;
    facts.set_item("state", format!("{:?}", one.state).to_lowercase())?;
    facts.set_item("slots", one.slots)?;
    facts.set_item("slots_used", one.slots_used)?;
    facts.set_item("memory_limit", one.memory_limit)?;
    facts.set_item("memory_bytes", one.memory_bytes)?;
    facts.set_item("store_bytes", one.store_bytes)?;
    facts.set_item("disk_bytes", one.disk_bytes)?;
    facts.set_item("address", (!one.address.is_empty()).then_some(&one.address))?;
    facts.set_item("deaths", &one.deaths)?;
    Ok(facts)
}

fn query<'py>(py: Python<'py>, one: &JobStatus) -> PyResult<Bound<'py, PyDict>> {
    let facts = progress(py, &one.progress)?;
    facts.set_item("id", one.id.0)?;
    facts.set_item("user", &one.user)?;
    facts.set_item("sql", &one.sql)?;
    facts.set_item("submitted", one.submitted)?;
    facts.set_item("error", one.error.as_deref())?;
    Ok(facts)
}

/// How far a query is.
pub(crate) fn progress<'py>(py: Python<'py>, one: &Progress) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("state", format!("{:?}", one.state).to_lowercase())?;
    facts.set_item("stages_done", one.stages_done)?;
    facts.set_item("stages", one.stages_total)?;
    facts.set_item("tasks_done", one.tasks_done)?;
    facts.set_item("tasks", one.tasks_total)?;
    facts.set_item("rows", one.rows)?;
    facts.set_item("shuffle_bytes", one.shuffle_bytes)?;
    facts.set_item("spill_bytes", one.spill_bytes)?;
    facts.set_item("retries", one.retries)?;
    facts.set_item("reruns", one.reruns)?;
    Ok(facts)
}
