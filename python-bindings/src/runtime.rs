//! The one runtime of the process, and how Python waits for it: without the interpreter's lock, and listening for signals. Next:
//! `error.rs`.

use std::mem::ManuallyDrop;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::Runtime;
use windrow::{Error, ErrorKind};
use windrow_executor::timer;

use crate::error::raise;

/// Between two looks at signals.
const TICK: Duration = Duration::from_millis(100);
/// Stacks of the threads that plan: deeply nested queries recurse.
const STACK_BYTES: usize = 8 << 20;

/// The runtime, and the process in which its threads are.
struct Host {
    process: u32,
    runtime: Runtime,
}

static HOST: OnceLock<Host> = OnceLock::new();

/// The runtime of this process.
///
/// # Errors
/// `Unsupported` in a process that was forked from one that had a runtime: its threads, connections and child processes stayed there.
pub(crate) fn runtime(py: Python<'_>) -> PyResult<&'static Runtime> {
    let host = match HOST.get() {
        Some(host) => host,
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .thread_name("windrow")
                .thread_stack_size(STACK_BYTES)
                .build()
                .map_err(|source| PyRuntimeError::new_err(format!("no threads to run on: {source}")))?;
            // Another thread may have been faster; then this one has nothing to run and ends here.
            HOST.get_or_init(|| Host { process: std::process::id(), runtime })
        }
    };
    if host.process == std::process::id() {
        return Ok(&host.runtime);
    }
    let error = Error::new(
        ErrorKind::Unsupported,
        format!("this process was forked from process {}, which uses windrow: its threads did not come along", host.process),
    );
    Err(raise(py, &error.with_help("start processes with the method 'spawn' or 'forkserver' of multiprocessing"), None))
}

/// Waits for `future` without the interpreter's lock.
///
/// # Errors
/// What a signal's handler raised; the future is dropped then.
pub(crate) fn wait<F>(py: Python<'_>, future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    wait_ticking(py, future, |_py| Ok(()))
}

/// As [`wait`], and calls `tick` ten times a second.
///
/// # Errors
/// As [`wait`], and those of `tick`.
pub(crate) fn wait_ticking<F>(py: Python<'_>, future: F, mut tick: impl FnMut(Python<'_>) -> PyResult<()>) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let runtime = runtime(py)?;
    let mut future = pin!(future);
    loop {
        let pinned = future.as_mut();
        let done = py.detach(move || runtime.block_on(async move { timer::deadline(TICK, pinned).await }));
        if let Some(output) = done {
            return Ok(output);
        }
        py.check_signals()?;
        tick(py)?;
    }
}

/// Waits for `future` on a thread that may or may not be one of Python's: foreign libraries read streams from either.
///
/// # Errors
/// As [`wait`].
#[expect(unsafe_code, reason = "pyo3 has no safe way to ask whether Python knows a thread")]
pub(crate) fn wait_anywhere<F>(future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    // SAFETY: asks for a thread-local pointer, and looks only at whether there is one.
    let is_pythons = unsafe { !pyo3::ffi::PyGILState_GetThisThreadState().is_null() };
    let mut future = Some(future);
    let waited = match is_pythons {
        true => Python::try_attach(|py| future.take().map(|future| wait(py, future))).flatten(),
        false => None,
    };
    match (waited, future, HOST.get().filter(|host| host.process == std::process::id())) {
        (Some(waited), _, _) => waited,
        (None, Some(future), Some(host)) => Ok(host.runtime.block_on(future)),
        (None, _, _) => Err(PyRuntimeError::new_err("the threads of windrow are in another process, or gone")),
    }
}

/// Something whose end needs the runtime. In a forked process it is left as it is: it belongs to the parent.
#[derive(Debug)]
pub(crate) struct Hosted<T>(ManuallyDrop<T>);

impl<T> Hosted<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }
}

impl<T> std::ops::Deref for Hosted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for Hosted<T> {
    #[expect(unsafe_code, reason = "whether to drop is decided here")]
    fn drop(&mut self) {
        if let Some(host) = HOST.get().filter(|host| host.process == std::process::id()) {
            let _inside = host.runtime.enter();
            // SAFETY: the value is dropped once, here, and never used after.
            unsafe { ManuallyDrop::drop(&mut self.0) }
        }
    }
}
