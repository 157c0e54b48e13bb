//! The coordinator: `event = next().await; for action in step(event) { perform(action) }`, the only loop.
//!
//! ```text
//! input.rs    what the loop is told                 fleet.rs    executors: names, incarnations, links, templates they have
//! state.rs    an input becomes events               jobs.rs     jobs: graphs, what their clients see, metrics
//! perform.rs  actions become commands and news      local.rs    executors in this process
//! system.rs   rows of the system tables
//! ```
//!
//! Everything the loop owns is behind one lock, which is held for one step at a time and never across an await, so that
//! [`Coordinator::status`] can look at it.

mod fleet;
mod input;
mod jobs;
mod local;
mod perform;
mod state;
mod system;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use windrow_auth::{Principal, Role};
use windrow_core::clock::SystemClock;
use windrow_core::config::{QueryConfig, ResultsConfig, SchedulerConfig, SessionConfig};
use windrow_core::failure::CancelReason;
use windrow_core::ids::{ExecutorId, Incarnation, JobId, SessionId};
use windrow_core::message::{Registration, Report};
use windrow_core::stage::StageGraph;
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::{Executor, ExecutorOptions, timer};
use windrow_planner::{
    Catalog, ClusterShape, PlannedJob, PlannerSession, SessionOptions, Stores, SystemSource, TablesRead, Viewer, Warehouse,
};

use crate::fetch::Sight;
use crate::results::{Asked, Statement};
use crate::routine::Routine;
use crate::security::{Dialer, OWNER, allowed};
use crate::session::CoordinatorSession;
use crate::status::ClusterStatus;
use crate::transport::{ClusterTransport, InProcessTransport};

pub(crate) use fleet::{Link, Member};
pub(crate) use input::{Departure, Departures, Input};
pub(crate) use jobs::{JobView, Submission, check, gone};
use local::LocalExecutor;
use state::State;

/// Inputs that wait for the loop. Reporters wait beyond it, so that a burst of reports is bounded where it is made.
const INPUTS_MAX: usize = 8192;

/// Inputs that are performed before timers are looked at again.
const BATCH: usize = 256;

/// Bytes in flight of one stream of results from an executor: the executors' own default (`executor.fetch_window`).
const RESULT_WINDOW: u64 = 8 << 20;

/// What a coordinator is started with.
#[derive(Debug, Clone, Default)]
pub struct CoordinatorOptions {
    /// The scheduler's settings.
    pub scheduler: SchedulerConfig,
    /// The settings that sessions begin with.
    pub query: QueryConfig,
    /// The files and object stores that statements may name, and that executors in this process open.
    pub stores: Arc<Stores>,
    /// The settings of results that are fetched by ticket.
    pub results: ResultsConfig,
    /// The settings of clients' sessions.
    pub session: SessionConfig,
    /// How results are fetched from executors.
    pub dialer: Dialer,
    /// Whether sessions take plans that clients made, beside SQL.
    pub accept_plans: bool,
}

/// The coordinator of one cluster, in any process.
#[derive(Debug)]
pub struct Coordinator {
    shared: Arc<Shared>,
    options: CoordinatorOptions,
    /// What all sessions share.
    catalog: Arc<Catalog>,
    locals: Mutex<Vec<LocalExecutor>>,
    warehouse: Warehouse,
    next_job: AtomicU64,
    next_session: AtomicU64,
    turning: Mutex<Option<Routine>>,
}

/// What the loop shares with everybody who tells it something.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    inputs: mpsc::Sender<Input>,
    departures: Arc<Departures>,
    /// Somebody else than the loop has performed a step: timers may have changed.
    stepped: Notify,
    shape: watch::Receiver<ClusterShape>,
    transport: Arc<ClusterTransport>,
}

impl Coordinator {
    /// Starts the loop on the current runtime.
    ///
    /// # Errors
    /// `InvalidConfig` if a setting does not fit, or another coordinator uses the state folder; `Data` if what is there is damaged.
    pub fn start(options: CoordinatorOptions) -> Result<Arc<Self>> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::internal("a coordinator was started outside of a runtime"));
        }
        let catalog = match &options.scheduler.state_dir {
            Some(folder) => Arc::new(Catalog::open(folder)?),
            None => Arc::default(),
        };
        let (inputs, queue) = mpsc::channel(INPUTS_MAX);
        let local = InProcessTransport::new();
        let (shape_sender, shape) = watch::channel(ClusterShape { executors: 0, slots: 0 });
        let limits = (options.scheduler.clone(), options.results.unfetched_max.as_u64());
        let state = State::new(limits, Arc::new(SystemClock::new()), shape_sender, Arc::clone(&local));
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            inputs,
            departures: Arc::default(),
            stepped: Notify::new(),
            shape,
            transport: Arc::new(ClusterTransport::new(local, RESULT_WINDOW, options.dialer.clone())),
        });
        let turning = Routine::spawn("coordinator", "loop", turn(Arc::clone(&shared), queue));
        let warehouse = Warehouse::at(&options.scheduler.warehouse, Arc::clone(&options.stores));
        Ok(Arc::new(Self {
            shared,
            options,
            warehouse,
            catalog,
            locals: Mutex::default(),
            next_job: AtomicU64::new(1),
            next_session: AtomicU64::new(1),
            turning: Mutex::new(Some(turning)),
        }))
    }

    /// Opens a session of the cluster's owner with `settings` over the coordinator's own, each as `(windrow.query.key, value)`.
    ///
    /// # Errors
    /// `InvalidConfig` for an unknown key or a value that does not fit.
    pub async fn open_session(self: &Arc<Self>, settings: &[(String, String)]) -> Result<Arc<CoordinatorSession>> {
        self.open_session_for(&Principal::client(OWNER, Role::Admin), settings).await
    }

    /// Opens a session of `principal`, who may do in it what its role says.
    ///
    /// # Errors
    /// As [`Self::open_session`].
    pub async fn open_session_for(
        self: &Arc<Self>,
        principal: &Principal,
        settings: &[(String, String)],
    ) -> Result<Arc<CoordinatorSession>> {
        let mut query = self.options.query.clone();
        for (key, value) in settings {
            query.set(key.strip_prefix("windrow.query.").unwrap_or(key), value)?;
        }
        let id = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        let system: Arc<dyn SystemSource> = Arc::clone(&self.shared) as _;
        let viewer = Viewer { name: principal.name().to_owned(), is_admin: principal.is_admin() };
        let options = SessionOptions {
            query,
            catalog: Arc::clone(&self.catalog),
            viewer,
            system: Some(system),
            stores: Arc::clone(&self.options.stores),
            allowed: allowed(principal),
            warehouse: self.warehouse.clone(),
            accept_plans: self.options.accept_plans,
        };
        let planner = PlannerSession::new(options)?;
        Ok(Arc::new(CoordinatorSession::new(id, Arc::clone(self), planner, principal.name().to_owned())))
    }

    /// Starts an executor in this process and joins it to the cluster, at once.
    ///
    /// # Errors
    /// `InvalidConfig` if an option does not fit, `ResourcesExhausted` if its threads or its directory cannot be had.
    pub fn add_local_executor(self: &Arc<Self>, options: ExecutorOptions) -> Result<Arc<Executor>> {
        let options = ExecutorOptions { stores: Arc::clone(&self.options.stores), ..options };
        let local = LocalExecutor::start(&self.shared, options)?;
        let executor = Arc::clone(local.executor());
        self.locals.lock().push(local);
        Ok(executor)
    }

    /// The cluster at this moment.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        self.shared.state.lock().status()
    }

    /// Cancels a job. Nothing happens if it is unknown or over. Returns before its attempts have ended.
    pub fn cancel(&self, job: JobId) {
        self.shared.departures.push(Departure::Cancelled(job, CancelReason::Client));
    }

    /// Asks an executor to leave: it gets no new slices, finishes what it runs, and goes when nobody needs what it holds, at the latest
    /// after half a minute. What is still needed then is computed again elsewhere. Returns once it is asked.
    ///
    /// # Errors
    /// `NotFound` if nobody has this name, `Unavailable` if it is gone, `Unsupported` if it lives in this process.
    pub async fn drain(&self, name: &str) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.shared.tell(Input::Drain { name: name.to_owned(), reply }).await?;
        answer.await.unwrap_or_else(|_ended| Err(gone()))
    }

    /// Keeps how a supervised executor's process ended, for status and errors.
    pub fn note_death(&self, name: &str, cause: &str) {
        self.shared.state.lock().fleet.note_death(name.to_owned(), cause.to_owned());
    }

    /// Submits a hand-made graph, for benches and tests: no planning, `schema` is what its result stage writes. An invalid graph
    /// and a full queue of jobs are errors of the statement's rows.
    ///
    /// # Errors
    /// `Internal` if the graph is not valid, `Unavailable` if the coordinator has ended.
    pub async fn submit_graph(self: &Arc<Self>, graph: StageGraph, schema: SchemaRef) -> Result<Statement> {
        graph.validate()?;
        let planned = PlannedJob { graph, schema, reads: TablesRead::default() };
        crate::results::submit(self, planned, Asked::new("(a graph made by hand)", OWNER), false).await
    }

    /// Ends every job and the local executors, tells the others to leave, and ends the loop.
    pub async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        if self.shared.tell(Input::Shutdown { reply }).await.is_ok() {
            // The loop answers or has ended; both is what was asked for.
            let _ = timer::deadline(Duration::from_secs(5), done).await;
        }
        let locals = std::mem::take(&mut *self.locals.lock());
        for local in locals {
            local.shutdown().await;
        }
        drop(self.turning.lock().take());
    }

    /// Joins an executor that said who it is.
    ///
    /// # Errors
    /// `InvalidConfig` if it cannot be a member of this cluster: the sentence is for its log.
    pub(crate) fn connect(&self, registration: Registration, link: Link) -> Result<Connection> {
        self.shared.connect(registration, link)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn scheduler_config(&self) -> &SchedulerConfig {
        &self.options.scheduler
    }

    /// Bytes of a job's result above which it may be held for want of readers.
    pub(crate) fn unfetched_max(&self) -> u64 {
        Some(self.options.results.unfetched_max.as_u64()).filter(|bytes| *bytes > 0).unwrap_or(u64::MAX)
    }

    pub(crate) fn session_config(&self) -> &SessionConfig {
        &self.options.session
    }

    /// Whether sessions take plans that clients made.
    pub(crate) fn accepts_plans(&self) -> bool {
        self.options.accept_plans
    }

    pub(crate) fn results_config(&self) -> &ResultsConfig {
        &self.options.results
    }

    /// How clients see an executor; `None` if they cannot read from it, or it is of another incarnation by now.
    pub(crate) fn sight_of(&self, executor: ExecutorId, incarnation: Incarnation) -> Option<Sight> {
        let state = self.shared.state.lock();
        state.fleet.link(Member { executor, incarnation })?;
        let registration = &state.fleet.get(executor)?.registration;
        Some(Sight { address: registration.address.clone(), clients: registration.clients.clone()? })
    }

    /// Jobs that are not released.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.shared.state.lock().jobs.ids().len()
    }

    pub(crate) fn new_job(&self) -> JobId {
        JobId(self.next_job.fetch_add(1, Ordering::Relaxed))
    }
}

impl Shared {
    /// Tells the loop something, waiting for its queue.
    ///
    /// # Errors
    /// `Unavailable` if the coordinator has ended.
    pub(crate) async fn tell(&self, input: Input) -> Result<()> {
        self.inputs.send(input).await.map_err(|_ended| Error::new(ErrorKind::Unavailable, "the coordinator has shut down"))
    }

    pub(crate) fn connect(self: &Arc<Self>, registration: Registration, link: Link) -> Result<Connection> {
        let member = self.state.lock().connect(registration, link)?;
        self.stepped.notify_one();
        Ok(Connection { member, shared: Arc::clone(self) })
    }

    pub(crate) fn transport(&self) -> &Arc<ClusterTransport> {
        &self.transport
    }

    pub(crate) fn departures(&self) -> &Arc<Departures> {
        &self.departures
    }

    pub(crate) fn shape(&self) -> watch::Receiver<ClusterShape> {
        self.shape.clone()
    }
}

/// An executor's way to the loop. Dropping it means that the connection is lost.
#[derive(Debug)]
pub(crate) struct Connection {
    member: Member,
    shared: Arc<Shared>,
}

impl Connection {
    /// Hands on a report, waiting for the loop's queue. A report to a coordinator that has ended is for nobody.
    pub(crate) async fn report(&self, report: Report) {
        let _ = self.shared.tell(Input::Report { from: self.member, report }).await;
    }

    /// Has a report heard on this thread: what it launches on the same executor starts without waking another thread. The loop is
    /// woken only if something is due earlier than it knows.
    pub(crate) fn report_here(&self, report: Report) {
        let is_earlier = {
            let mut state = self.shared.state.lock();
            let before = state.due();
            // Only a shutdown ends the loop, and this is none.
            let _ = state.hear(Input::Report { from: self.member, report });
            state.due().is_some_and(|due| before.is_none_or(|before| due < before))
        };
        if is_earlier {
            self.shared.stepped.notify_one();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.departures.push(Departure::Lost(self.member));
    }
}

/// The loop.
async fn turn(shared: Arc<Shared>, mut inputs: mpsc::Receiver<Input>) {
    loop {
        let wait = shared.state.lock().wait();
        tokio::select! {
            input = inputs.recv() => {
                let Some(mut input) = input else { return };
                for _ in 0..BATCH {
                    if shared.state.lock().hear(input).is_break() {
                        return;
                    }
                    match inputs.try_recv() {
                        Ok(next) => input = next,
                        Err(_empty) => break,
                    }
                }
            }
            () = shared.departures.some() => {}
            () = shared.stepped.notified() => {}
            () = timer::sleep(wait) => {}
        }
        for departure in shared.departures.take() {
            shared.state.lock().depart(departure);
        }
        shared.state.lock().pass_time();
    }
}
