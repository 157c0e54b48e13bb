//! Calls Python functions, each in processes of its own: the Python workers of an executor. Next: `python/pool.rs`.
//!
//! ```text
//! PythonMapExec (planner/src/python/exec.rs)   a batch and a function
//!   python.rs            which worker takes it; a second one, if the first dies
//!   python/pool.rs       the workers of each function: busy, idle, at most so many
//!   python/worker.rs     one process: how it starts, how it ends, what it is told
//!   python/message.rs    what goes over its socket
//!     python-bindings/python/windrow/_worker.py    the other end
//! ```
//!
//! Nothing of a function happens in this process. A worker that dies costs the batch that it had, which is tried once more; what a
//! function does for ever ends when its query does, because dropping a call kills its worker.

mod message;
mod pool;
#[cfg(test)]
mod tests;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::MemoryPool;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use windrow_core::failure::{Failed, Failure, Resource};
use windrow_core::{Error, ErrorKind};
use windrow_planner::{PythonFunction, PythonRunner};

use crate::timer;
use message::Report;
use pool::Pool;
use worker::{Start, Trouble};

/// Workers that a batch is given to: another one after the death of the first.
const ATTEMPTS: u32 = 2;
/// How long the end of killed workers is waited for when the executor ends.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How often idle workers are looked at: those end that were idle at two looks.
const IDLE_LOOK: Duration = Duration::from_secs(30);

/// The Python workers of one executor.
#[derive(Debug)]
pub(crate) struct PythonWorkers {
    /// The interpreter, if functions may be called.
    program: Option<PathBuf>,
    slots: usize,
    memory: Arc<dyn MemoryPool>,
    handle: Handle,
    pools: Mutex<Vec<Arc<Pool>>>,
    /// Processes that have not ended.
    living: watch::Sender<usize>,
}

impl PythonWorkers {
    /// Workers of the interpreter `program`, as many for each function as there are `slots` unless it says otherwise. They end on
    /// `handle`, the executor's runtime.
    pub(crate) fn new(program: Option<PathBuf>, slots: u32, memory: Arc<dyn MemoryPool>, handle: Handle) -> Arc<Self> {
        let (slots, living) = (slots.max(1) as usize, watch::Sender::new(0));
        Arc::new(Self { program, slots, memory, handle, pools: Mutex::default(), living })
    }

    /// What plans call functions through.
    pub(crate) fn runner(self: &Arc<Self>) -> Arc<dyn PythonRunner> {
        Arc::new(Runner(Arc::clone(self)))
    }

    /// Ends all workers that are idle, and waits until every process is gone.
    pub(crate) async fn close(&self) {
        let pools = std::mem::take(&mut *self.pools.lock());
        drop(pools);
        let mut living = self.living.subscribe();
        let gone = timer::deadline(END_LIMIT, living.wait_for(|count| *count == 0)).await;
        if gone.is_none() {
            tracing::warn!(workers = *self.living.borrow(), "killed Python workers have not ended");
        }
    }

    fn workers_of(&self, function: &PythonFunction) -> usize {
        function.concurrency.map_or(self.slots, |workers| workers as usize)
    }

    fn start(&self, program: PathBuf, function: &Arc<PythonFunction>) -> Start {
        let (memory, handle) = (Arc::clone(&self.memory), self.handle.clone());
        Start { program, function: Arc::clone(function), memory, handle, living: self.living.clone() }
    }

    /// The pool of a function.
    fn pool(self: &Arc<Self>, function: &Arc<PythonFunction>) -> Arc<Pool> {
        let mut pools = self.pools.lock();
        if let Some(pool) = pools.iter().find(|pool| pool.function() == function) {
            return Arc::clone(pool);
        }
        if pools.is_empty() {
            self.handle.spawn(look_after(Arc::downgrade(self)));
        }
        let pool = Arc::new(Pool::new(Arc::clone(function), self.workers_of(function)));
        pools.push(Arc::clone(&pool));
        pool
    }

    /// Ends workers that nobody has used for long; whether there are pools left.
    fn tidy(&self) -> bool {
        let mut pools = self.pools.lock();
        pools.retain(|pool| {
            pool.tidy();
            // One that somebody else holds is in use.
            Arc::strong_count(pool) > 1 || !pool.is_empty()
        });
        !pools.is_empty()
    }

    /// Ends idle workers of all functions but one, whose memory another needs.
    fn make_room(&self, function: &PythonFunction) {
        for pool in self.pools.lock().iter().filter(|pool| pool.function().as_ref() != function) {
            pool.end_idle();
        }
    }

    async fn call(
        self: Arc<Self>,
        function: Arc<PythonFunction>,
        rows: RecordBatch,
        first: u64,
    ) -> Result<Vec<RecordBatch>, Failed> {
        let program = self.program.clone().ok_or_else(not_allowed)?;
        let place = Place { function: &function, first, count: rows.num_rows() as u64 };
        let message = message::batch(&rows).map_err(|error| Failed::fatal(&place.unsendable(&error)))?;
        drop(rows);
        let pool = self.pool(&function);
        let Ok(_place) = pool.places().acquire().await else { return Err(Failed::internal("a pool of workers that is closed")) };
        let mut ends = Vec::new();
        for _attempt in 0..ATTEMPTS {
            let worker = match pool.take() {
                Some(worker) => Ok(worker),
                None => {
                    let start = self.start(program.clone(), &function);
                    match start.worker().await {
                        Err(Trouble::NoMemory(_)) => {
                            self.make_room(&function);
                            start.worker().await
                        }
                        started => started,
                    }
                }
            };
            let trouble = match worker {
                Ok(mut worker) => match worker.call(&message).await {
                    Ok(given) => {
                        pool.give_back(worker);
                        return message::results(given, &function.worker_schema())
                            .map_err(|error| Failed::fatal(&place.unreadable(&error)));
                    }
                    // A worker that ran out of memory is not what it was.
                    Err(Trouble::Report(report)) if !report.is_memory() => {
                        pool.give_back(worker);
                        Trouble::Report(report)
                    }
                    Err(Trouble::Died) => Trouble::Ended(worker.end().await.how),
                    Err(trouble) => trouble,
                },
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Ended(how) => {
                    tracing::warn!(function = function.name, %how, "a Python worker died");
                    ends.push(how);
                }
                Trouble::Report(report) => return Err(place.failed(&report)),
                Trouble::NoMemory(what) => return Err(what),
                Trouble::Wrong(error) => return Err(Failed::fatal(&error)),
                Trouble::Died => return Err(Failed::internal("a worker that died unseen")),
            }
        }
        Err(Failed::fatal(&place.died(&ends)))
    }
}

/// Looks after idle workers until there are none.
async fn look_after(workers: std::sync::Weak<PythonWorkers>) {
    loop {
        timer::sleep(IDLE_LOOK).await;
        match workers.upgrade() {
            Some(workers) if workers.tidy() => {}
            _ => return,
        }
    }
}

fn not_allowed() -> Failed {
    let message = "this cluster runs no Python functions: executor.python is not set; it names an interpreter with pyarrow and \
                   cloudpickle, and whoever may query can then run code on the executors";
    Failed::fatal(&Error::new(ErrorKind::Denied, message))
}

/// Which rows a call was about, for errors.
struct Place<'a> {
    function: &'a PythonFunction,
    first: u64,
    count: u64,
}

impl Place<'_> {
    /// `the function 'score' failed in rows 0..8192 of a partition`, for instance.
    fn sentence(&self, what: &str) -> String {
        let Self { function, first, count } = self;
        format!("the Python function '{}' {what} rows {first}..{} of a partition", function.name, first + count)
    }

    fn failed(&self, report: &Report) -> Failed {
        let Report { kind, line, traceback } = report;
        if report.is_memory() {
            let size = self.function.batch_size;
            let allowed =
                self.function.memory.map_or_else(|| "no limit was set".to_owned(), |bytes| format!("memory = {bytes} bytes"));
            let message = format!(
                "{} ({line}): {allowed}, batch_size = {size}; raise memory, or lower batch_size",
                self.sentence("ran out of memory with")
            );
            return Failed::new(Failure::Fatal { kind: ErrorKind::ResourcesExhausted }, message);
        }
        let message = match kind.as_str() {
            "load" => format!("the Python function '{}' cannot be loaded: {line}\n{traceback}", self.function.name),
            "wrong" => format!("{}: {line}", self.sentence("gave a wrong result for")),
            _ => format!("{}: {line}\n{traceback}", self.sentence("failed with")),
        };
        Failed::fatal(&Error::new(ErrorKind::InvalidQuery, message))
    }

    fn died(&self, ends: &[String]) -> Error {
        let how = ends.join("; then: ");
        let mut message =
            format!("{}, in {} workers one after the other: {how}", self.sentence("ended its process with"), ends.len());
        if let Some(bytes) = self.function.memory {
            message.push_str(&format!(" (memory = {bytes} bytes, batch_size = {})", self.function.batch_size));
        }
        Error::new(ErrorKind::InvalidQuery, message)
    }

    fn unsendable(&self, error: &arrow::error::ArrowError) -> Error {
        Error::unsupported(format!("{}: {error}", self.sentence("cannot be given")))
    }

    fn unreadable(&self, error: &arrow::error::ArrowError) -> Error {
        Error::new(ErrorKind::InvalidQuery, format!("{}: {error}", self.sentence("gave what cannot be read for")))
    }
}

/// The pool's refusal of a worker's memory.
fn no_memory(function: &PythonFunction, bytes: u64, error: &datafusion::error::DataFusionError) -> Failed {
    let what = Failure::Resources { what: Resource::Memory, asked: bytes, limit: 0 };
    Failed::new(what, format!("no memory for a Python worker of '{}', which takes {bytes} bytes: {error}", function.name))
}

#[derive(Debug)]
struct Runner(Arc<PythonWorkers>);

impl PythonRunner for Runner {
    fn concurrency(&self, function: &PythonFunction) -> usize {
        self.0.workers_of(function)
    }

    fn call(
        &self,
        function: Arc<PythonFunction>,
        rows: RecordBatch,
        first: u64,
    ) -> BoxFuture<'static, Result<Vec<RecordBatch>, Failed>> {
        Arc::clone(&self.0).call(function, rows, first).boxed()
    }
}
