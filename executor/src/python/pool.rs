//! The workers of one function on one executor. Next: `worker.rs`.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use windrow_planner::PythonFunction;

use super::worker::Worker;

/// Workers that have loaded one function. As many are busy as there are places taken.
#[derive(Debug)]
pub(super) struct Pool {
    function: Arc<PythonFunction>,
    places: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    worker: Worker,
    /// It was idle when somebody looked.
    was_seen: bool,
}

impl Pool {
    /// A pool of at most `workers`.
    pub(super) fn new(function: Arc<PythonFunction>, workers: usize) -> Self {
        Self { function, places: Semaphore::new(workers), idle: Mutex::default() }
    }

    pub(super) fn function(&self) -> &Arc<PythonFunction> {
        &self.function
    }

    /// Who holds one may have a worker.
    pub(super) fn places(&self) -> &Semaphore {
        &self.places
    }

    /// A worker that is idle: the one used last, so that the others can go.
    pub(super) fn take(&self) -> Option<Worker> {
        loop {
            let mut idle = self.idle.lock().pop()?;
            // Somebody may have killed it.
            if idle.worker.is_alive() {
                return Some(idle.worker);
            }
        }
    }

    pub(super) fn give_back(&self, worker: Worker) {
        self.idle.lock().push(Idle { worker, was_seen: false });
    }

    /// Ends workers that were idle at the last look and are so still.
    pub(super) fn tidy(&self) {
        let mut idle = self.idle.lock();
        idle.retain(|one| !one.was_seen);
        idle.iter_mut().for_each(|one| one.was_seen = true);
    }

    pub(super) fn end_idle(&self) {
        self.idle.lock().clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.idle.lock().is_empty()
    }
}
