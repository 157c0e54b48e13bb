//! One Python worker: a process with a socket as standard input. Next: `message.rs`.
//!
//! It begins with a few words that read `_worker.py` from the socket, so that the interpreter need not know our package, and versions
//! never differ. Its standard output is a pipe on which nothing is sent: when our end closes, the kernel kills the worker and what it
//! has started, whatever it is doing and however this process ended. What it prints goes to standard error, whose end is kept.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::watch;
use windrow_core::{Error, ErrorKind, Failed};
use windrow_planner::PythonFunction;

use super::message::{BYTES_MAX, HEAD_BYTES, Hello, Report, head, load, read_head};
use super::no_memory;
use crate::timer;

/// What a worker runs.
const SOURCE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../python-bindings/python/windrow/_worker.py"));

/// How long an interpreter may take until it says hello: pyarrow from a slow disk.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a worker whose socket is closed may take to end before it is killed.
const END_LIMIT: Duration = Duration::from_secs(2);
/// Bytes of standard error that are kept for errors.
const STDERR_KEPT: usize = 2048;

/// What a worker knows of the environment of this process, which holds secrets.
const ENVIRONMENT: [&str; 19] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONNOUSERSITE",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
];

/// Libraries that would otherwise start a thread for each core, in each worker.
const THREADS: [&str; 4] = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"];

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The function's fault.
    Report(Report),
    /// The worker is gone, or talks nonsense; [`Worker::end`] tells how.
    Died,
    /// The worker is gone, and so it went.
    Ended(String),
    /// The executor has no memory for it.
    NoMemory(Failed),
    /// It cannot be started, or does not fit the function.
    Wrong(Error),
}

/// How a worker ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) how: String,
    pub(super) by_signal: bool,
}

/// What starting a worker needs.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) program: PathBuf,
    pub(super) function: Arc<PythonFunction>,
    pub(super) memory: Arc<dyn MemoryPool>,
    pub(super) handle: Handle,
    pub(super) living: watch::Sender<usize>,
}

/// A process that has loaded a function. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Worker {
    socket: UnixStream,
    /// Closed first: that kills what the worker started, too.
    lifeline: Option<ChildStdout>,
    child: Option<Child>,
    stderr: Arc<Mutex<Vec<u8>>>,
    _memory: MemoryReservation,
    handle: Handle,
    living: watch::Sender<usize>,
}

impl Start {
    /// A worker that has loaded the function.
    pub(super) async fn worker(&self) -> Result<Worker, Trouble> {
        let memory = self.reserve()?;
        let mut worker = self.spawn(memory)?;
        match timer::deadline(START_LIMIT, worker.hello()).await {
            Some(Ok(hello)) => self.check(&hello)?,
            Some(Err(_died)) => {
                let end = worker.end().await;
                // By somebody else, not of itself.
                return Err(if end.by_signal { Trouble::Ended(end.how) } else { self.not_started(&end.how) });
            }
            None => return Err(self.not_started("it says nothing")),
        }
        match worker.load(&self.function).await {
            Err(Trouble::Died) => Err(Trouble::Ended(worker.end().await.how)),
            Err(trouble) => Err(trouble),
            Ok(()) => Ok(worker),
        }
    }

    fn reserve(&self) -> Result<MemoryReservation, Trouble> {
        let memory = MemoryConsumer::new(format!("Python worker of {}", self.function.name)).register(&self.memory);
        if let Some(bytes) = self.function.memory {
            let grown = memory.try_grow(usize::try_from(bytes).unwrap_or(usize::MAX));
            grown.map_err(|error| Trouble::NoMemory(no_memory(&self.function, bytes, &error)))?;
        }
        Ok(memory)
    }

    fn spawn(&self, memory: MemoryReservation) -> Result<Worker, Trouble> {
        let failed = |source: std::io::Error| {
            let message =
                format!("cannot start the Python interpreter '{}' of executor.python: {source}", self.program.display());
            Trouble::Wrong(Error::new(ErrorKind::InvalidConfig, message))
        };
        let (ours, theirs) = Socket::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let socket = UnixStream::from_std(ours).map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.args(["-u", "-c", &bootstrap()]).env_clear();
        for name in THREADS {
            command.env(name, "1");
        }
        for name in ENVIRONMENT.iter().chain(&THREADS) {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // What lies in the working directory is not meant.
        command.env("PYTHONSAFEPATH", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(failed)?;
        // With it goes our copy of the worker's end of the socket, whose closing tells that the worker is gone.
        drop(command);
        self.living.send_modify(|count| *count += 1);
        let (lifeline, stderr) = (child.stdout.take(), Arc::new(Mutex::default()));
        if let Some(pipe) = child.stderr.take() {
            self.handle.spawn(keep_end(pipe, Arc::clone(&stderr)));
        }
        let (handle, living) = (self.handle.clone(), self.living.clone());
        Ok(Worker { socket, lifeline, child: Some(child), stderr, _memory: memory, handle, living })
    }

    fn not_started(&self, how: &str) -> Trouble {
        let message = format!("the Python interpreter '{}' of executor.python does not start: {how}", self.program.display());
        Trouble::Wrong(Error::new(ErrorKind::InvalidConfig, message))
    }

    /// Pickles are for the version that wrote them.
    fn check(&self, hello: &Hello) -> Result<(), Trouble> {
        let (program, function) = (self.program.display(), &self.function);
        if hello.pyarrow.is_empty() {
            let message = format!("the Python interpreter '{program}' of executor.python has no pyarrow: {}", hello.wrong);
            return Err(Trouble::Wrong(Error::new(ErrorKind::InvalidConfig, message)));
        }
        if hello.cloudpickle.is_empty() && !function.cloudpickle.is_empty() {
            let message = format!("the Python interpreter '{program}' of executor.python has no cloudpickle");
            return Err(Trouble::Wrong(Error::new(ErrorKind::InvalidConfig, message)));
        }
        for (what, here, there, parts) in
            [("Python", &hello.python, &function.python, 2), ("cloudpickle", &hello.cloudpickle, &function.cloudpickle, 1)]
        {
            let first = |version: &str| version.split('.').take(parts).collect::<Vec<_>>().join(".");
            if !there.is_empty() && first(here) != first(there) {
                let message = format!(
                    "the function '{}' was made with {what} {there}, and executors have {what} {here}; use the same version",
                    function.name
                );
                return Err(Trouble::Wrong(Error::unsupported(message)));
            }
        }
        Ok(())
    }
}

/// Reads as many bytes as the source has, and runs them.
fn bootstrap() -> String {
    let length = SOURCE.len();
    format!(
        "import os\nb = b''\nwhile len(b) < {length}:\n    c = os.read(0, {length} - len(b))\n    if not c:\n        os._exit(0)\n    b += c\n\
         exec(compile(b, 'windrow/_worker.py', 'exec'), {{'__name__': '__main__'}})"
    )
}

impl Worker {
    async fn hello(&mut self) -> Result<Hello, Trouble> {
        self.write(SOURCE.as_bytes()).await?;
        match self.read().await? {
            (b'H', body) => Hello::read(&body).ok_or(Trouble::Died),
            _ => Err(Trouble::Died),
        }
    }

    async fn load(&mut self, function: &PythonFunction) -> Result<(), Trouble> {
        let unsendable = |error: arrow::error::ArrowError| {
            Trouble::Wrong(Error::unsupported(format!("the schema of '{}' cannot be given to Python: {error}", function.name)))
        };
        let body = load(function).map_err(unsendable)?;
        self.send(b'L', &body).await?;
        match self.read().await? {
            (b'R', _) => Ok(()),
            (b'E', body) => {
                let report = Report::read(&body).ok_or(Trouble::Died)?;
                let kind = if report.is_memory() { report.kind } else { "load".to_owned() };
                Err(Trouble::Report(Report { kind, ..report }))
            }
            _ => Err(Trouble::Died),
        }
    }

    /// What the function makes of the rows of a message, as messages.
    pub(super) async fn call(&mut self, rows: &[u8]) -> Result<Vec<Vec<u8>>, Trouble> {
        self.send(b'B', rows).await?;
        let mut results = Vec::new();
        loop {
            match self.read().await? {
                (b'O', body) => results.push(body),
                (b'D', _) => return Ok(results),
                (b'E', body) => return Err(Report::read(&body).map_or(Trouble::Died, Trouble::Report)),
                _ => return Err(Trouble::Died),
            }
        }
    }

    async fn send(&mut self, kind: u8, body: &[u8]) -> Result<(), Trouble> {
        self.write(&head(kind, body.len())).await?;
        self.write(body).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.socket.write_all(bytes).await.map_err(|_why| Trouble::Died)
    }

    async fn read(&mut self) -> Result<(u8, Vec<u8>), Trouble> {
        let mut head = [0; HEAD_BYTES];
        self.socket.read_exact(&mut head).await.map_err(|_why| Trouble::Died)?;
        let (kind, length) = read_head(head);
        if length > BYTES_MAX {
            return Err(Trouble::Died);
        }
        let mut body = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        let read = (&mut self.socket).take(length).read_to_end(&mut body).await;
        match read {
            Ok(count) if count as u64 == length => Ok((kind, body)),
            _ => Err(Trouble::Died),
        }
    }

    /// Whether the process has not ended.
    pub(super) fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits for the end of a worker that does not answer any more, and says how it ended and what it said last.
    pub(super) async fn end(mut self) -> End {
        let Some(mut child) = self.child.take() else { return End { how: "it is gone".to_owned(), by_signal: false } };
        let (how, by_signal) = match timer::deadline(END_LIMIT, child.wait()).await {
            Some(Ok(status)) => (describe(status), status.signal().is_some()),
            Some(Err(error)) => (format!("its end cannot be read: {error}"), false),
            None => ("it broke the connection to its executor".to_owned(), false),
        };
        self.child = Some(child);
        let said = String::from_utf8_lossy(&self.stderr.lock()).trim().to_owned();
        End { how: if said.is_empty() { how } else { format!("{how}; it said: {said}") }, by_signal }
    }
}

fn describe(status: ExitStatus) -> String {
    const KILL: i32 = 9;
    match (status.code(), status.signal()) {
        (_, Some(KILL)) => "killed by signal 9 (if nobody sent it, the machine ran out of memory)".to_owned(),
        (_, Some(signal)) => format!("ended by signal {signal}"),
        (Some(code), _) => format!("exit code {code}"),
        (None, None) => status.to_string(),
    }
}

/// Keeps the last bytes that a worker writes, for as long as it writes.
async fn keep_end(mut pipe: ChildStderr, kept: Arc<Mutex<Vec<u8>>>) {
    let mut chunk = [0_u8; 1024];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        let mut kept = kept.lock();
        kept.extend(chunk.iter().take(count));
        let over = kept.len().saturating_sub(STDERR_KEPT);
        kept.drain(..over);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let Some(mut child) = self.child.take() else { return };
        // Fails only if it has ended.
        let _ = child.start_kill();
        let living = self.living.clone();
        self.handle.spawn(async move {
            let _ = child.wait().await;
            living.send_modify(|count| *count -= 1);
        });
    }
}
