//! Where a session comes from: an engine in this process, or a scheduler elsewhere. Next: `session.rs`.

use bytesize::ByteSize;
use windrow_core::config::{ExecutorConfig, QueryConfig, SchedulerConfig};
use windrow_core::{Error, ErrorKind, Result};
use windrow_flight::CoordinatorOptions;

use crate::engine::{Engine, shared_out};
use crate::login::Login;
use crate::remote::RemoteSession;
use crate::session::Session;

/// Opens a session: `None` runs the engine in this process, with a slot for each core; `Some("grpc://127.0.0.1:8815")` asks a
/// scheduler.
///
/// # Errors
/// `InvalidConfig` for an url that is none of ours, `Unavailable` if nobody answers there.
pub async fn connect(url: Option<&str>) -> Result<Session> {
    ConnectOptions { url: url.map(str::to_owned), ..ConnectOptions::default() }.connect().await
}

/// How to connect. What is not about the query shapes the engine in this process and does not go with an url.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The scheduler's url; `None` runs the engine in this process.
    pub url: Option<String>,
    /// What proves to the scheduler who we are.
    pub login: Login,
    /// Partitions that each executor computes at a time; `None` takes it from `executor`.
    pub slots: Option<u32>,
    /// Bytes of each executor's memory pool; `None` takes it from `executor`.
    pub memory_limit: Option<u64>,
    /// Executors in this process, at least one.
    pub executors: u32,
    /// Settings that the session begins with.
    pub query: QueryConfig,
    /// Settings of each executor in this process. What is 0 is computed and divided by their number.
    pub executor: ExecutorConfig,
    /// Settings of the scheduler in this process.
    pub scheduler: SchedulerConfig,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            url: None,
            login: Login::default(),
            slots: None,
            memory_limit: None,
            executors: 1,
            query: QueryConfig::default(),
            executor: ExecutorConfig::default(),
            scheduler: SchedulerConfig::default(),
        }
    }
}

impl ConnectOptions {
    /// Opens a session. An engine in this process lives as long as its last session or query.
    ///
    /// # Errors
    /// `InvalidConfig` for options that do not go together, `Unavailable` if nobody answers at the url.
    pub async fn connect(mut self) -> Result<Session> {
        if let Some(url) = self.url.take() {
            self.check_remote()?;
            return RemoteSession::connect(&url, &self.login, &self.query).await.map(Session::remote);
        }
        self.embedded().await
    }

    async fn embedded(self) -> Result<Session> {
        if self.executors == 0 {
            return Err(Error::new(ErrorKind::InvalidConfig, "executors = 0: an engine needs at least one"));
        }
        let mut executor = self.executor;
        executor.slots = self.slots.unwrap_or(executor.slots);
        executor.memory_limit = self.memory_limit.map_or(executor.memory_limit, ByteSize::b);
        let engine = Engine::start_alone(CoordinatorOptions {
            scheduler: self.scheduler,
            query: self.query,
            ..CoordinatorOptions::default()
        })?;
        for index in 0..self.executors {
            engine.add_executor(shared_out(&executor, format!("executor-{index}"), self.executors))?;
        }
        Session::local(engine).await
    }

    fn check_remote(&self) -> Result<()> {
        let shapes =
            [("slots", self.slots.is_some()), ("memory_limit", self.memory_limit.is_some()), ("executors", self.executors > 1)];
        match shapes.iter().find(|(_, is_set)| *is_set) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Error::new(ErrorKind::InvalidConfig, format!("{name} shapes an engine in this process, not a scheduler's"))
                    .with_help("leave it out, or leave out the url"))
            }
        }
    }
}
