//! The executor: performs the coordinator's commands and reports what came of them. Next: `attempt.rs`.
//!
//! It has a runtime of its own with one thread a slot, so that a query that keeps all of them busy never delays a heartbeat or a
//! shuffle read of somebody else. Commands arrive in order and are performed at once; whatever takes time is a task of that runtime.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryPool;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use windrow_core::config::query::MEMORY_LIMIT;
use windrow_core::failure::{CancelReason, Failed};
use windrow_core::ids::{AttemptId, Epoch, ExecutorId, Incarnation, JobId};
use windrow_core::message::{Command, Registration, Report, build};
use windrow_core::task::{JobStage, Outcome, TaskMetrics, TaskSpec};
use windrow_core::transport::ShuffleTransport;
use windrow_core::{Error, ErrorKind, Result};
use windrow_planner::Stores;

use crate::attempt::{Attempt, Services};
use crate::machine;
use crate::python::PythonWorkers;
use crate::shuffle::store::ShuffleStore;
use crate::watch::Watch;

/// Stack of the threads that run plans: deep plans recurse, and a stack overflow ends the process.
const STACK_BYTES: usize = 8 << 20;

/// Threads that read and write files, besides one a slot. Each keeps some freed memory of its own, so there are few.
const BLOCKING_THREADS: usize = 4;

/// When a thread without a file to read or write ends, and gives back what it keeps.
const BLOCKING_IDLE: Duration = Duration::from_secs(1);

/// How an executor is set up. See [`windrow_core::config::ExecutorConfig`] for what the settings mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorOptions {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Partitions computed at a time; 0 takes the cores.
    pub slots: u32,
    /// The memory pool in bytes; 0 takes three quarters of the machine's.
    pub memory_limit: u64,
    /// Where it makes its directory for spilled data; empty takes a folder of the system's temporary directory.
    pub spill_dir: PathBuf,
    /// Most bytes on disk.
    pub spill_limit: u64,
    /// The share of the memory limit, in percent, from which cold segments are written to disk.
    pub evict_from_percent: u32,
    /// Bytes in flight of one shuffle stream.
    pub fetch_window: u64,
    /// The files and object stores that its plans may open.
    pub stores: Arc<Stores>,
    /// The interpreter that runs Python functions; without one, none are run.
    pub python: Option<PathBuf>,
}

impl ExecutorOptions {
    /// Options of an executor named `name` with the settings of `config`.
    #[must_use]
    pub fn new(name: impl Into<String>, config: &windrow_core::config::ExecutorConfig) -> Self {
        Self {
            name: name.into(),
            slots: config.slots,
            memory_limit: config.memory_limit.as_u64(),
            spill_dir: config.spill_dir.clone().unwrap_or_default(),
            spill_limit: config.spill_limit.as_u64(),
            evict_from_percent: config.evict_from_percent,
            fetch_window: config.fetch_window.as_u64(),
            stores: Arc::default(),
            python: config.python.clone(),
        }
    }

    /// The same with the machine's figures in place of zeros and empty paths.
    fn resolved(mut self) -> Self {
        if self.slots == 0 {
            self.slots = machine::slots();
        }
        if self.memory_limit == 0 {
            self.memory_limit = machine::memory_limit();
        }
        if self.spill_dir.as_os_str().is_empty() {
            self.spill_dir = std::env::temp_dir().join("windrow");
        }
        self
    }
}

/// An executor. Dropping the last handle ends its work at once; [`Executor::shutdown`] also waits for it.
pub struct Executor {
    options: ExecutorOptions,
    services: Arc<Services>,
    state: Arc<Mutex<State>>,
    /// Notified whenever an attempt has ended.
    ended: Arc<Notify>,
    watch: Arc<Watch>,
    handle: Handle,
    /// Taken at the end: a runtime must not be dropped where futures run.
    runtime: Mutex<Option<Runtime>>,
}

/// What the executor knows of the coordinator and its jobs.
#[derive(Debug, Default)]
pub(crate) struct State {
    epoch: Epoch,
    executor: ExecutorId,
    incarnation: Incarnation,
    heartbeats: u64,
    templates: BTreeMap<JobStage, Arc<Template>>,
    running: BTreeMap<AttemptId, Running>,
    /// It is shutting down and takes nothing new.
    is_closing: bool,
}

/// A stage's plan as it was sent.
pub(crate) struct Template {
    /// The encoded plan.
    pub(crate) plan: Bytes,
    /// The job's settings, but for those below.
    pub(crate) settings: Vec<(String, String)>,
    /// `windrow.query.memory_limit` in bytes; 0 is none.
    pub(crate) memory_limit: usize,
    /// What its attempts decode the plan with, made by the first.
    pub(crate) context: OnceLock<Arc<TaskContext>>,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("bytes", &self.plan.len()).field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Template {
    fn new(plan: Bytes, mut settings: Vec<(String, String)>) -> Self {
        let limit = settings.iter().position(|(key, _)| key == MEMORY_LIMIT).map(|index| settings.swap_remove(index));
        // The coordinator writes a count of bytes.
        let memory_limit = limit.and_then(|(_, bytes)| bytes.parse().ok()).unwrap_or(0);
        Self { plan, settings, memory_limit, context: OnceLock::new() }
    }
}

/// An attempt that has not ended.
#[derive(Debug)]
struct Running {
    cancel: CancellationToken,
    /// It waits until memory is not short.
    waits: bool,
    why: Option<CancelReason>,
    /// Its partitions that are already committed are deleted too.
    drop_output: bool,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Executor {
    /// Starts an executor: its runtime, its memory pool and its directory on disk. It does nothing until it is
    /// [registered](Command::Registered). `reports` receives what attempts report; heartbeats are the caller's.
    ///
    /// # Errors
    /// `InvalidConfig` if the spill directory cannot be written, `ResourcesExhausted` if threads cannot be started.
    pub fn start(
        options: ExecutorOptions,
        transport: Arc<dyn ShuffleTransport<RecordBatch>>,
        reports: mpsc::Sender<Report>,
    ) -> Result<Arc<Self>> {
        let options = options.resolved();
        let runtime = Builder::new_multi_thread()
            .worker_threads(options.slots as usize)
            .thread_stack_size(STACK_BYTES)
            .max_blocking_threads(options.slots as usize + BLOCKING_THREADS)
            .thread_keep_alive(BLOCKING_IDLE)
            .thread_name(format!("windrow-{}", options.name))
            .enable_all()
            .build()
            .map_err(|source| {
                let message = format!("cannot start {} threads: {source}; lower executor.slots", options.slots);
                Error::new(ErrorKind::ResourcesExhausted, message).with_source(source)
            })?;
        let limit = usize::try_from(options.memory_limit).unwrap_or(usize::MAX);
        let (pool, spill) = ((limit, options.evict_from_percent), (options.spill_dir.as_path(), options.spill_limit));
        let store = ShuffleStore::open(pool, spill, runtime.handle().clone())?;
        start_eviction(&options.name, &store)?;
        let python =
            PythonWorkers::new(options.python.clone(), options.slots, Arc::clone(store.pool()) as _, runtime.handle().clone());
        let stores = Arc::clone(&options.stores);
        let services = Services::new(store, transport, reports, options.fetch_window, options.slots, stores, python)?;
        let watch = Watch::start(&options.name, services.store().pool(), services.queries())?;
        Ok(Arc::new(Self {
            watch: Arc::new(watch),
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
            services: Arc::new(services),
            state: Arc::default(),
            ended: Arc::default(),
            options,
        }))
    }

    /// What it says of itself when it joins; others reach its segments at `address`.
    #[must_use]
    pub fn registration(&self, address: String) -> Registration {
        Registration {
            name: self.options.name.clone(),
            slots: self.options.slots,
            memory_bytes: self.options.memory_limit,
            pid: std::process::id(),
            build: build().to_owned(),
            address,
            clients: None,
        }
    }

    /// The threads that its attempts run on.
    #[must_use]
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.handle
    }

    /// Performs a command, in the order of the calls. Never blocks: what takes time goes on behind.
    pub fn handle(&self, command: Command) {
        match command {
            Command::Registered { epoch, executor, incarnation } => self.registered(epoch, executor, incarnation),
            Command::Template { stage, template, settings } => {
                self.state.lock().templates.insert(stage, Arc::new(Template::new(template, settings)));
            }
            Command::Launch(spec) => self.launch(*spec),
            Command::Cancel { attempt, why } => {
                let runs = self.state.lock().cancel(why, |id| *id == attempt);
                if !runs && why != CancelReason::Enough {
                    self.services.store().release_attempt(attempt);
                }
            }
            Command::ReleaseStage { stage } => self.release_stage(stage),
            Command::ReleaseJob { job } => self.release_job(job),
            Command::Fence { incarnation } => self.fence(incarnation),
            Command::Shutdown => self.abandon(),
            // Of interest to the control link only.
            Command::Refused { .. } | Command::HeartbeatSeen { .. } => {}
        }
    }

    /// Ends what runs: nobody waits for it any more. What is committed stays.
    pub fn abandon(&self) {
        self.state.lock().cancel(CancelReason::Stale, |_| true);
    }

    /// The next heartbeat.
    #[must_use]
    pub fn heartbeat(&self) -> Report {
        let store = self.services.store();
        let mut state = self.state.lock();
        let seq = state.heartbeats;
        state.heartbeats += 1;
        Report::Heartbeat {
            incarnation: state.incarnation,
            seq,
            running: state.running.keys().copied().collect(),
            memory_bytes: store.pool().reserved() as u64,
            store_bytes: store.memory_bytes(),
            disk_bytes: store.disk_bytes(),
        }
    }

    /// Its committed segments.
    #[must_use]
    pub fn store(&self) -> &Arc<ShuffleStore> {
        self.services.store()
    }

    /// Cancels what runs, waits for its end, stops the runtime and removes the directory on disk.
    pub async fn shutdown(&self) {
        loop {
            let ended = self.ended.notified();
            {
                let mut state = self.state.lock();
                state.is_closing = true;
                state.cancel(CancelReason::Stale, |_| true);
                if state.running.is_empty() {
                    break;
                }
            }
            ended.await;
        }
        self.services.forget_broadcasts(None);
        self.services.python().close().await;
        self.services.store().clear().await;
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
        self.services.store().spill().remove();
    }

    fn registered(&self, epoch: Epoch, executor: ExecutorId, incarnation: Incarnation) {
        {
            let mut state = self.state.lock();
            if epoch < state.epoch {
                tracing::warn!(%epoch, known = %state.epoch, "refused a registration by a coordinator of an older epoch");
                return;
            }
            // What an earlier incarnation did belongs to nobody any more.
            state.cancel(CancelReason::Stale, |_| true);
            state.templates.clear();
            (state.epoch, state.executor, state.incarnation, state.heartbeats) = (epoch, executor, incarnation, 0);
            state.is_closing = false;
        }
        self.services.forget_broadcasts(None);
        self.services.store().begin(incarnation);
        tracing::info!(name = self.options.name, %executor, %incarnation, %epoch, "registered");
    }

    fn fence(&self, incarnation: Incarnation) {
        {
            let mut state = self.state.lock();
            if state.incarnation != incarnation {
                return;
            }
            state.cancel(CancelReason::Stale, |_| true);
            state.templates.clear();
            state.incarnation = Incarnation::default();
        }
        tracing::warn!(name = self.options.name, %incarnation, "fenced: all work and all outputs are dropped");
        self.services.forget_broadcasts(None);
        self.services.store().begin(Incarnation::default());
    }

    fn release_stage(&self, stage: JobStage) {
        {
            let mut state = self.state.lock();
            state.templates.remove(&stage);
            state.cancel(CancelReason::JobEnded, |id| id.job == stage.job && id.stage == stage.stage);
        }
        self.services.store().release_stage(stage);
    }

    fn release_job(&self, job: JobId) {
        {
            let mut state = self.state.lock();
            state.templates.retain(|stage, _| stage.job != job);
            state.cancel(CancelReason::JobEnded, |id| id.job == job);
        }
        self.services.forget_broadcasts(Some(job));
        self.services.store().release_job(job);
    }

    fn launch(&self, spec: TaskSpec) {
        let cancel = CancellationToken::new();
        let (template, executor, incarnation) = {
            let mut state = self.state.lock();
            let id = spec.attempt;
            if id.attempt.epoch < state.epoch || state.running.contains_key(&id) {
                tracing::warn!(attempt = %id, epoch = %state.epoch, "dropped a stale or repeated launch");
                return;
            }
            let template = match state.template(&id) {
                Ok(template) => template,
                Err(failed) => {
                    let incarnation = state.incarnation;
                    drop(state);
                    return self.report(ended(incarnation, id, Outcome::Failed(failed), TaskMetrics::default()));
                }
            };
            state.running.insert(id, Running { cancel: cancel.clone(), waits: true, why: None, drop_output: false });
            (template, state.executor, state.incarnation)
        };
        let attempt = Attempt { spec, template, executor, incarnation, services: Arc::clone(&self.services) };
        let (state, ended_now) = (Arc::clone(&self.state), Arc::clone(&self.ended));
        let watch = Arc::clone(&self.watch);
        self.handle.spawn(async move {
            admission(&watch, &state, &ended_now, attempt.spec.attempt, &cancel).await;
            supervise(attempt, cancel, state, ended_now).await;
        });
    }

    fn report(&self, report: Report) {
        let reports = self.services.reports().clone();
        self.handle.spawn(async move { reports.send(report).await });
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.state.lock().cancel(CancelReason::Stale, |_| true);
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

impl State {
    /// Ends the running attempts that `which` selects and has their output deleted, unless it is [`CancelReason::Enough`]; whether
    /// there was one.
    fn cancel(&mut self, why: CancelReason, which: impl Fn(&AttemptId) -> bool) -> bool {
        let mut any = false;
        for (_, running) in self.running.iter_mut().filter(|(id, _)| which(id)) {
            running.why.get_or_insert(why);
            running.drop_output |= why != CancelReason::Enough;
            running.cancel.cancel();
            any = true;
        }
        any
    }

    fn template(&self, id: &AttemptId) -> Result<Arc<Template>, Failed> {
        if self.is_closing {
            return Err(Failed::cancelled(CancelReason::Stale));
        }
        let stage = JobStage { job: id.job, stage: id.stage };
        let template = self.templates.get(&stage).map(Arc::clone);
        template.ok_or_else(|| Failed::internal(format!("attempt {id} was launched before its stage's template came")))
    }
}

/// Waits while memory is short and others run, who give theirs back when they end. Ends at once if the attempt is cancelled.
async fn admission(watch: &Watch, state: &Mutex<State>, ended: &Notify, id: AttemptId, cancel: &CancellationToken) {
    loop {
        let (eased, other_ended) = (watch.eased.notified(), ended.notified());
        tokio::pin!(eased, other_ended);
        // From here on nothing is missed.
        eased.as_mut().enable();
        other_ended.as_mut().enable();
        {
            let mut state = state.lock();
            let alone = state.running.values().all(|running| running.waits);
            if let Some(running) = state.running.get_mut(&id)
                && (alone || !watch.is_short())
            {
                running.waits = false;
                return;
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = eased => {}
            () = other_ended => {}
        }
    }
}

/// Runs an attempt to its end, whatever that is, frees its slots and reports.
async fn supervise(attempt: Attempt, cancel: CancellationToken, state: Arc<Mutex<State>>, ended_now: Arc<Notify>) {
    let (id, incarnation) = (attempt.spec.attempt, attempt.incarnation);
    let services = Arc::clone(&attempt.services);
    let (outcome, metrics) = attempt.run(&cancel).await;
    let running = state.lock().running.remove(&id);
    let (why, drop_output) = running.map_or((None, false), |running| (running.why, running.drop_output));
    if drop_output {
        services.store().release_attempt(id);
    }
    if why == Some(CancelReason::JobEnded) {
        // It may have fetched more after the job was released.
        services.forget_broadcasts(Some(id.job));
    }
    // Before the report, which waits while nobody takes reports.
    ended_now.notify_waiters();
    let outcome = match (outcome, why) {
        (Err(Failed { failure: windrow_core::Failure::Cancelled { .. }, .. }), Some(why)) => {
            Outcome::Failed(Failed::cancelled(why))
        }
        (Err(failed), _) => Outcome::Failed(failed),
        (Ok(()), _) => Outcome::Succeeded,
    };
    // Whoever listened is gone if this fails; then nobody waits for the report either.
    let _ = services.reports().send(ended(incarnation, id, outcome, metrics)).await;
}

fn ended(incarnation: Incarnation, attempt: AttemptId, outcome: Outcome, metrics: TaskMetrics) -> Report {
    Report::AttemptEnded { incarnation, attempt, outcome, metrics: Box::new(metrics) }
}

/// Starts the thread that writes cold segments to disk whenever the pool is under pressure; it ends with the store.
fn start_eviction(name: &str, store: &Arc<ShuffleStore>) -> Result<()> {
    let pressure = store.pool().pressure();
    let store = Arc::downgrade(store);
    let routine = move || {
        for () in pressure {
            let Some(store) = store.upgrade() else { return };
            store.evict();
        }
    };
    let thread = std::thread::Builder::new().name(format!("evict-{name}")).spawn(routine);
    thread.map(drop).map_err(|source| {
        Error::new(ErrorKind::ResourcesExhausted, format!("cannot start a thread: {source}")).with_source(source)
    })
}

#[cfg(test)]
mod tests;
