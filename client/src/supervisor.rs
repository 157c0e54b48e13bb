//! Runs an executor as a process and starts it again when it dies. When it does so is decided in `restart.rs`.
//!
//! The child's standard input is a pipe held open here: however this process ends, the pipe closes and the child leaves. It runs in
//! a process group of its own, so that Ctrl-C on a terminal reaches this process alone, which then ends the child in order.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{mpsc, oneshot, watch};
use windrow_core::clock::Clock;
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::timer;
use windrow_flight::routine::Routine;

use crate::child_log;
use crate::restart::{AfterDeath, FIRST_WAIT, Restarts};

/// How long a child may take to leave before it is killed. 5 s: it deletes its spill files.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long the end of a dead child's log is waited for; a grandchild may hold the pipe open.
const LOG_LIMIT: Duration = Duration::from_secs(1);
/// Lines of the child's log that are kept for error messages.
const LOG_LINES: usize = 20;
/// Deaths that are remembered.
const DEATHS_KEPT: usize = 100;

/// How to start one executor.
#[derive(Debug, Clone)]
pub(crate) struct ExecutorProcess {
    /// The path of the `windrow` program.
    pub(crate) program: PathBuf,
    /// What comes before its own arguments, if the program is one that runs `windrow`.
    pub(crate) leading: Vec<OsString>,
    /// The coordinator, `host:port`.
    pub(crate) scheduler: String,
    /// The file with the cluster's secret, which is never an argument or in the environment itself.
    pub(crate) secret_file: PathBuf,
    pub(crate) name: String,
    pub(crate) slots: u32,
    /// In bytes.
    pub(crate) memory_limit: u64,
    /// Its own folder, emptied before each start.
    pub(crate) spill_dir: PathBuf,
    /// The interpreter of its Python functions, if it is to run any.
    pub(crate) python: Option<PathBuf>,
}

/// Hears how a process ended: the executor's name and the cause.
pub(crate) type OnDeath = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What is known of a supervised process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Its process, while it runs.
    pub(crate) pid: Option<u32>,
    /// Why it ended so far, oldest first.
    pub(crate) deaths: Vec<String>,
    /// Why it will not be started again.
    pub(crate) stopped: Option<String>,
    /// The last lines of its log.
    pub(crate) log: VecDeque<String>,
}

/// Keeps one executor process running. Dropping it kills the process; [`Supervisor::stop`] lets it end in order.
#[derive(Debug)]
pub(crate) struct Supervisor {
    name: String,
    seen: watch::Receiver<Seen>,
    orders: mpsc::Sender<Order>,
    _routine: Routine,
}

#[derive(Debug)]
enum Order {
    /// Kill the process; answered when it is dead.
    Kill(oneshot::Sender<()>),
    /// End the process and do not start it again.
    Stop,
}

impl Supervisor {
    /// Starts the process for the first time.
    ///
    /// # Errors
    /// `NotFound` or `Denied` if the program cannot be started, `Unavailable` if the spill directory cannot be made.
    pub(crate) fn start(process: ExecutorProcess, clock: Arc<dyn Clock>, on_death: OnDeath) -> Result<Self> {
        let child = process.spawn()?;
        let (publish, seen) = watch::channel(Seen { pid: child.id(), ..Seen::default() });
        let (orders, received) = mpsc::channel(4);
        let name = process.name.clone();
        let run = Run { process, clock, publish, orders: received, restarts: Restarts::default(), on_death };
        let routine = Routine::spawn(&name, "supervisor", run.supervise(child));
        Ok(Self { name, seen, orders, _routine: routine })
    }

    /// The executor's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What is known of the process.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Kills the process as `kill -9` does, and returns when it is dead. It is started again.
    pub(crate) async fn kill(&self) {
        let (answer, dead) = oneshot::channel();
        if self.orders.send(Order::Kill(answer)).await.is_ok() {
            // An error means that the process is over for good, which is what was asked for.
            let _ = dead.await;
        }
    }

    /// Ends the process in order, or by force after a while, and returns when it is gone.
    pub(crate) async fn stop(&self) {
        // The routine is over already if nobody takes the order.
        let _ = self.orders.send(Order::Stop).await;
        let mut seen = self.seen.clone();
        let _ = seen.wait_for(|seen| seen.stopped.is_some()).await;
    }
}

impl ExecutorProcess {
    fn spawn(&self) -> Result<Child> {
        self.empty_spill_dir().map_err(|source| {
            let message = format!("cannot empty the spill directory '{}': {source}", self.spill_dir.display());
            Error::new(ErrorKind::Unavailable, message).with_help("free the disk or choose another folder").with_source(source)
        })?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.leading)
            .arg("executor")
            .args(["--scheduler", &self.scheduler, "--name", &self.name])
            .args(["--slots", &self.slots.to_string(), "--memory-limit", &self.memory_limit.to_string()])
            .arg("--spill-dir")
            .arg(&self.spill_dir)
            .arg("--secret-file")
            .arg(&self.secret_file)
            .arg("--supervised")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(python) = &self.python {
            command.env("WINDROW_EXECUTOR__PYTHON", python);
        }
        command.spawn().map_err(|source| self.not_started(source))
    }

    /// What a killed executor left behind is nobody's. The executor makes its folder, and so removes it, also where this process is gone.
    fn empty_spill_dir(&self) -> std::io::Result<()> {
        std::env::split_paths(&self.spill_dir).try_for_each(|folder| match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => folder.parent().map_or(Ok(()), std::fs::create_dir_all),
        })
    }

    fn not_started(&self, source: std::io::Error) -> Error {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, format!("cannot start the program '{}': {source}", self.program.display())).with_source(source)
    }
}

/// How one run of the process ended.
enum Ended {
    /// By order: not started again.
    Stopped,
    /// It was told to leave by the coordinator: not started again.
    Left,
    /// Killed by order: started again, and no sign of a crash loop.
    Killed(oneshot::Sender<()>),
    /// By itself.
    Died(String),
}

struct Run {
    process: ExecutorProcess,
    clock: Arc<dyn Clock>,
    publish: watch::Sender<Seen>,
    orders: mpsc::Receiver<Order>,
    restarts: Restarts,
    on_death: OnDeath,
}

impl Run {
    async fn supervise(mut self, first: Child) {
        let mut next = Ok(first);
        let stopped = loop {
            let ended = match next {
                Ok(child) => self.run(child).await,
                Err(error) => Ended::Died(format!("{error}")),
            };
            self.publish.send_modify(|seen| seen.pid = None);
            match self.wait_after(ended) {
                Ok(wait) => {
                    if self.waits_until_stop(wait).await {
                        break "it was stopped".to_owned();
                    }
                }
                Err(stopped) => break stopped,
            }
            next = self.process.spawn();
        };
        for folder in std::env::split_paths(&self.process.spill_dir) {
            let _ = std::fs::remove_dir_all(folder);
        }
        self.publish.send_modify(|seen| seen.stopped = Some(stopped));
    }

    /// Runs one child to its end. Its standard input stays open until then.
    async fn run(&mut self, mut child: Child) -> Ended {
        self.publish.send_modify(|seen| seen.pid = child.id());
        let input = child.stdin.take();
        let mut log = std::pin::pin!(forward(child.stderr.take(), self.process.name.clone(), self.publish.clone()));
        let mut log_is_over = false;
        loop {
            tokio::select! {
                status = child.wait() => {
                    if !log_is_over {
                        // Lines after the limit are a grandchild's.
                        let _ = timer::deadline(LOG_LIMIT, &mut log).await;
                    }
                    return ended(&status);
                }
                () = &mut log, if !log_is_over => log_is_over = true,
                order = self.orders.recv() => match order {
                    Some(Order::Kill(answer)) => {
                        end_by_force(&mut child).await;
                        return Ended::Killed(answer);
                    }
                    Some(Order::Stop) | None => {
                        drop(input);
                        // The log is read on, so that the child never waits for room in the pipe.
                        let both = async { tokio::join!(child.wait(), &mut log) };
                        if timer::deadline(STOP_LIMIT, both).await.is_none() {
                            end_by_force(&mut child).await;
                        }
                        return Ended::Stopped;
                    }
                },
            }
        }
    }

    /// How long to wait before the next start, or why there is none.
    fn wait_after(&mut self, ended: Ended) -> Result<Duration, String> {
        let cause = match ended {
            Ended::Stopped => return Err("it was stopped".to_owned()),
            Ended::Left => return Err("the scheduler told it to leave".to_owned()),
            Ended::Killed(answer) => {
                self.note_death("killed by order".to_owned());
                // Nobody waits any more if this fails.
                let _ = answer.send(());
                return Ok(FIRST_WAIT);
            }
            Ended::Died(cause) => cause,
        };
        let executor = self.process.name.as_str();
        let after = self.restarts.died(self.clock.now());
        match after {
            AfterDeath::Restart(wait) => tracing::warn!(executor, cause, ?wait, "executor died and is started again"),
            AfterDeath::GiveUp { deaths } => tracing::error!(executor, cause, deaths, "executor dies again and again, left down"),
        }
        self.note_death(cause.clone());
        match after {
            AfterDeath::Restart(wait) => Ok(wait),
            AfterDeath::GiveUp { deaths } => Err(format!("it died {deaths} times within a minute, the last time of: {cause}")),
        }
    }

    fn note_death(&self, cause: String) {
        (self.on_death)(&self.process.name, &cause);
        self.publish.send_modify(|seen| {
            if seen.deaths.len() == DEATHS_KEPT {
                seen.deaths.remove(0);
            }
            seen.deaths.push(cause);
        });
    }

    /// Waits before a restart; true if the order to stop came meanwhile.
    async fn waits_until_stop(&mut self, wait: Duration) -> bool {
        let mut over = std::pin::pin!(timer::sleep(wait));
        loop {
            tokio::select! {
                () = &mut over => return false,
                order = self.orders.recv() => match order {
                    // It is dead already.
                    Some(Order::Kill(answer)) => {
                        let _ = answer.send(());
                    }
                    Some(Order::Stop) | None => return true,
                },
            }
        }
    }
}

async fn end_by_force(child: &mut Child) {
    // Fails only if the child is dead already.
    let _ = child.kill().await;
}

/// Hands each line of the child's log to this process's log and remembers the last ones.
async fn forward(stderr: Option<ChildStderr>, executor: String, publish: watch::Sender<Seen>) {
    let Some(stderr) = stderr else { return };
    child_log::read_lines(stderr, |line| {
        child_log::log(&executor, &line);
        publish.send_modify(|seen| {
            if seen.log.len() == LOG_LINES {
                seen.log.pop_front();
            }
            seen.log.push_back(line);
        });
    })
    .await;
}

fn ended(status: &std::io::Result<ExitStatus>) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Err(error) => Ended::Died(format!("its end cannot be read: {error}")),
        Ok(status) if status.success() => Ended::Left,
        Ok(status) => Ended::Died(match (status.code(), status.signal()) {
            (_, Some(libc::SIGKILL)) => "killed by signal 9 (if nobody sent it, the machine ran out of memory)".to_owned(),
            (_, Some(signal)) => format!("ended by signal {signal}"),
            (Some(code), _) => format!("exit code {code}"),
            (None, None) => status.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests;
