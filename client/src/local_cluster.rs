//! A cluster on this machine: a coordinator and a listener here, executors here or as supervised processes. Next:
//! `supervisor.rs`.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use windrow_auth::ClusterKey;
use windrow_core::clock::SystemClock;
use windrow_core::config::Config;
use windrow_core::{Error, ErrorKind, Result, rand};
use windrow_executor::timer;
use windrow_flight::security::{owner_token, stores};
use windrow_flight::{Access, ClusterStatus, CoordinatorOptions, Dialer, ExecutorOptions, ExecutorState, ServeOptions};

use crate::engine::{Engine, shared_out};
use crate::secret::PublishedSecret;
use crate::session::Session;
use crate::supervisor::{ExecutorProcess, Supervisor};

/// How long executors may take to register: a cold start from a slow disk.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a token of [`LocalCluster::token`] holds.
const TOKEN_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long an executor may take to leave; the coordinator lets it go after half a minute.
const LEAVE_LIMIT: Duration = Duration::from_secs(40);
/// Between two looks at who has registered.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a [`LocalCluster`] is made of; see [`LocalCluster::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct LocalClusterBuilder {
    executors: u32,
    port: u16,
    program: Option<PathBuf>,
    leading: Vec<OsString>,
    config: Config,
}

impl LocalClusterBuilder {
    /// How many executors; 1 if not said.
    pub fn executors(mut self, executors: u32) -> Self {
        self.executors = executors;
        self
    }

    /// Partitions that each executor computes at a time; 0, the default, divides the cores of the machine.
    pub fn slots(mut self, slots: u32) -> Self {
        self.config.executor.slots = slots;
        self
    }

    /// Bytes of each executor's memory pool; 0, the default, divides three quarters of the machine's memory.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.config.executor.memory_limit = ByteSize::b(bytes);
        self
    }

    /// The loopback port that clients and executors connect to; 0, the default, takes a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The folder in which executors make theirs for spilled data.
    pub fn spill_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.config.executor.spill_dir = Some(folder.into());
        self
    }

    /// The folder in which the catalog outlives the cluster.
    pub fn state_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.config.scheduler.state_dir = Some(folder.into());
        self
    }

    /// All settings at once; what was said before is replaced. Executor processes read settings that are no flags of theirs from
    /// the environment and the configuration file, as this process did.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Runs each executor as a supervised process of `program`, the path of the `windrow` program.
    pub fn processes(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// What each executor process is given before the program's own arguments: for a program that runs `windrow` when told so, such as
    /// an interpreter of a language that `windrow` is a module of.
    pub fn leading_arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.leading = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Runs the executors in this process, as is the default.
    pub fn in_process(mut self) -> Self {
        self.program = None;
        self
    }

    /// Starts the cluster; returns when every executor is registered.
    ///
    /// # Errors
    /// `InvalidConfig` for counts that do not fit or a port that is taken, `NotFound` for a program that is not there,
    /// `Unavailable` with the end of an executor's log if it does not register in time.
    pub async fn start(self) -> Result<LocalCluster> {
        if self.executors == 0 {
            return Err(Error::new(ErrorKind::InvalidConfig, "executors = 0: a cluster needs at least one"));
        }
        let Config { scheduler, query, results, session, connections, security, .. } = self.config.clone();
        // Nobody but this machine can listen to its loopback interface.
        let security = security.without_tls();
        security.check()?;
        let key = match &security.secret_file {
            Some(path) => ClusterKey::read_or_make(path)?,
            None => ClusterKey::random(),
        };
        let stores = stores(&security)?;
        let access = Access::configured(key.clone(), &security)?.audited(&security)?.limited(&connections);
        let (dialer, accept_plans) = (Dialer::with_key(&key), security.accept_plans);
        let options = CoordinatorOptions { scheduler, query, results, session, stores, dialer, accept_plans };
        let engine = if self.program.is_some() { Engine::start(options)? } else { Engine::start_alone(options)? };
        let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let address = engine.serve(ServeOptions { bind, access }).await?;
        let secret = PublishedSecret::new(&key, address.port())?;
        let mut cluster =
            LocalCluster { engine, address, key, secret, supervisors: Vec::new(), executors: 0, next: 0, made_of: self };
        let executors = cluster.made_of.executors;
        match cluster.grow(executors).await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.shutdown().await;
                Err(error)
            }
        }
    }
}

fn process(made_of: &LocalClusterBuilder, program: PathBuf, cluster: &LocalCluster, options: ExecutorOptions) -> ExecutorProcess {
    let ExecutorOptions { name, slots, memory_limit, spill_dir, python, .. } = options;
    let base = if spill_dir.as_os_str().is_empty() { std::env::temp_dir() } else { spill_dir };
    let own = format!("windrow-{name}-{:016x}", rand::unique());
    let folders = std::env::split_paths(&base).map(|folder| folder.join(&own));
    // What was split can be joined again.
    let spill_dir = std::env::join_paths(folders).map_or_else(|_| base.join(&own), PathBuf::from);
    let (scheduler, secret_file) = (cluster.address.to_string(), cluster.secret.path().to_owned());
    ExecutorProcess {
        program,
        leading: made_of.leading.clone(),
        scheduler,
        secret_file,
        name,
        slots,
        memory_limit,
        spill_dir,
        python,
    }
}

/// A cluster on this machine. Dropping it ends it; [`Self::shutdown`] also waits for the end.
#[derive(Debug)]
pub struct LocalCluster {
    engine: Arc<Engine>,
    address: SocketAddr,
    key: ClusterKey,
    secret: PublishedSecret,
    /// Empty if the executors live in this process.
    supervisors: Vec<Arc<Supervisor>>,
    executors: u32,
    /// The number of the next executor: none is given twice.
    next: u32,
    made_of: LocalClusterBuilder,
}

impl LocalCluster {
    /// A cluster of one executor in this process, unless told otherwise.
    pub fn builder() -> LocalClusterBuilder {
        LocalClusterBuilder { executors: 1, port: 0, program: None, leading: Vec::new(), config: Config::default() }
    }

    /// Changes the number of executors, and returns when those that are new are registered, and those that are too many are gone: the last
    /// ones leave once they have finished what they run and nobody needs what they hold, so that no query notices. Where slots and memory
    /// were left to the machine, a new executor gets the share of one of `executors`; those that are there keep theirs.
    ///
    /// # Errors
    /// `InvalidConfig` for none, `Unsupported` for fewer where they live in this process, and those of starting.
    pub async fn scale(&mut self, executors: u32) -> Result<()> {
        if executors == 0 {
            return Err(Error::new(ErrorKind::InvalidConfig, "executors = 0: a cluster needs at least one"));
        }
        if executors < self.executors && self.supervisors.is_empty() {
            return Err(Error::unsupported("executors that live in this process do not leave alone")
                .with_help("start the cluster with processes"));
        }
        self.shrink(executors).await?;
        self.grow(executors).await
    }

    /// Adds executors until there are as many.
    async fn grow(&mut self, executors: u32) -> Result<()> {
        while self.executors < executors {
            self.add_executor(executors)?;
        }
        self.wait_until_registered().await
    }

    fn add_executor(&mut self, together: u32) -> Result<()> {
        let options = shared_out(&self.made_of.config.executor, format!("executor-{}", self.next), together);
        match &self.made_of.program {
            None => self.engine.add_executor(options)?,
            Some(program) => {
                let process = process(&self.made_of, program.clone(), self, options);
                let supervisor = Supervisor::start(process, SystemClock::shared(), self.engine.hears_of_deaths())?;
                let supervisor = Arc::new(supervisor);
                self.engine.add_supervisor(Arc::clone(&supervisor));
                self.supervisors.push(supervisor);
            }
        }
        self.next += 1;
        self.executors += 1;
        Ok(())
    }

    /// Lets the last executors leave until there are no more than `executors`.
    async fn shrink(&mut self, executors: u32) -> Result<()> {
        let mut leaving = Vec::new();
        while self.executors > executors {
            let Some(supervisor) = self.supervisors.pop() else { break };
            self.executors -= 1;
            // One that is down at the moment has nothing to finish.
            if let Err(error) = self.engine.drain(supervisor.name()).await {
                tracing::debug!(executor = supervisor.name(), %error, "an executor is stopped without being drained");
            }
            leaving.push(supervisor);
        }
        for supervisor in leaving {
            let name = supervisor.name();
            let is_gone = || {
                let status = self.engine.status();
                let known = status.executors.iter().find(|executor| executor.name == name);
                known.is_none_or(|executor| matches!(executor.state, ExecutorState::Dead | ExecutorState::Left))
            };
            let gone = async {
                while !is_gone() {
                    timer::sleep(LOOK_EVERY).await;
                }
            };
            // What takes longer is ended: its queries run again elsewhere what it held.
            let _late = timer::deadline(LEAVE_LIMIT, gone).await;
            supervisor.stop().await;
        }
        Ok(())
    }

    /// Where clients connect, `grpc://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    /// A token with which clients of other kinds log in as the cluster's owner, an administrator: as the header
    /// `authorization: Bearer TOKEN`. It holds for a week, and as long as the cluster. Sessions of this library that the same user
    /// opens need none.
    ///
    /// # Errors
    /// `Internal` if it cannot be made, which is a bug.
    pub fn token(&self) -> Result<String> {
        owner_token(&self.key, TOKEN_TTL)
    }

    /// A session that reaches the coordinator without the network. It ends with the cluster.
    ///
    /// # Errors
    /// `InvalidConfig` if the cluster's settings do not fit.
    pub async fn session(&self) -> Result<Session> {
        Session::local(Arc::clone(&self.engine)).await
    }

    /// Kills executor number `index` as `kill -9` does and returns once it is dead; its supervisor starts it again.
    ///
    /// # Errors
    /// `NotFound` if there is no such executor, `Unsupported` if it lives in this process.
    pub async fn kill(&self, index: usize) -> Result<()> {
        match self.supervisors.get(index) {
            Some(supervisor) => {
                supervisor.kill().await;
                Ok(())
            }
            None if index < self.executors as usize => {
                Err(Error::unsupported(format!("executor {index} lives in this process and cannot be killed alone")))
            }
            None => {
                Err(Error::new(ErrorKind::NotFound, format!("no executor {index}: there are {}, counted from 0", self.executors)))
            }
        }
    }

    /// The process of each executor; `None` while one is down, or if it lives in this process.
    #[must_use]
    pub fn pids(&self) -> Vec<Option<u32>> {
        (0..self.executors as usize).map(|index| self.supervisors.get(index)?.seen().pid).collect()
    }

    /// The cluster's executors, jobs and counters at this moment.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        self.engine.status()
    }

    /// Why executors of this cluster ended so far, as `(executor's name, cause)`, oldest first of each executor.
    #[must_use]
    pub fn deaths(&self) -> Vec<(String, String)> {
        let deaths_of = |supervisor: &Arc<Supervisor>| {
            let name = supervisor.name().to_owned();
            supervisor.seen().deaths.into_iter().map(move |cause| (name.clone(), cause))
        };
        self.supervisors.iter().flat_map(deaths_of).collect()
    }

    /// Ends every session, job and executor, and waits until they are gone.
    pub async fn shutdown(self) {
        self.engine.shutdown().await;
    }

    async fn wait_until_registered(&self) -> Result<()> {
        let all_registered = async {
            while self.registered() < self.executors as usize {
                self.check_supervisors()?;
                timer::sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        timer::deadline(START_LIMIT, all_registered).await.unwrap_or_else(|| Err(self.late()))
    }

    fn registered(&self) -> usize {
        self.engine.status().executors.iter().filter(|executor| executor.state == ExecutorState::Alive).count()
    }

    /// An executor that its supervisor gave up will not register.
    fn check_supervisors(&self) -> Result<()> {
        let stopped = self.supervisors.iter().find_map(|supervisor| Some((supervisor, supervisor.seen().stopped?)));
        let Some((supervisor, cause)) = stopped else { return Ok(()) };
        Err(Error::new(ErrorKind::Unavailable, format!("{} did not start: {cause}{}", supervisor.name(), log_of(supervisor))))
    }

    fn late(&self) -> Error {
        let registered = self.registered();
        let logs: String = self.supervisors.iter().map(|supervisor| log_of(supervisor)).collect();
        let message = format!("{registered} of {} executors registered within {} s{logs}", self.executors, START_LIMIT.as_secs());
        Error::new(ErrorKind::Unavailable, message)
    }
}

impl Drop for LocalCluster {
    /// Sessions that are still held do not keep it alive.
    fn drop(&mut self) {
        self.engine.end_unattended();
    }
}

/// The end of an executor's log, for an error message.
fn log_of(supervisor: &Supervisor) -> String {
    let log = supervisor.seen().log;
    let name = supervisor.name();
    if log.is_empty() { String::new() } else { format!("\nthe end of the log of {name}:\n  {}", Vec::from(log).join("\n  ")) }
}
