//! The program under test as a child process: where it is, how it starts, and what /proc says of it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use windrow_tests::{fixtures, wait};

/// How long a process may take to start or to end before the test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The `windrow` program of this build.
pub(crate) fn path() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let program = here.parent().and_then(Path::parent).unwrap().join("windrow");
    assert!(program.exists(), "{} is not there: run `cargo build --workspace` with the same profile first", program.display());
    program
}

/// A fresh folder for one test.
pub(crate) fn scratch(name: &str) -> PathBuf {
    fixtures::scratch(env!("CARGO_TARGET_TMPDIR"), name)
}

/// The program with `arguments`, to be completed and run.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(path());
    command.args(arguments).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs the program to its end with `input` on its standard input.
pub(crate) fn run(arguments: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut child = command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().ok(); // a program that refuses its arguments does not read
    output
}

/// A long-running process, killed when the test is done with it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts the program and returns it with the first `grpc://` address or, for lack of one, the first `host:port` that it
    /// prints on either output.
    pub(crate) fn listening(arguments: &[&str]) -> (Self, String) {
        Self::listening_with(arguments, &[])
    }

    /// The same with variables in its environment.
    pub(crate) fn listening_with(arguments: &[&str], variables: &[(&str, &str)]) -> (Self, String) {
        let mut child =
            command(arguments).envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, receiver) = std::sync::mpsc::sync_channel(64);
        for output in [Box::new(child.stdout.take().unwrap()) as Box<dyn Read + Send>, Box::new(child.stderr.take().unwrap())] {
            let sender = sender.clone();
            // Reads to the end, so that the process never blocks on a full pipe.
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    sender.try_send(line).ok();
                }
            });
        }
        drop(sender);
        let mut seen = String::new();
        let process = Self { child };
        loop {
            // Dropping the process ends it.
            let line = receiver
                .recv_timeout(LIMIT)
                .unwrap_or_else(|error| panic!("{arguments:?} printed no address ({error}):\n{seen}"));
            if let Some(address) = address(&line) {
                return (process, address);
            }
            seen.push_str(&line);
            seen.push('\n');
        }
    }

    /// The same with at most so many open files.
    pub(crate) fn silent_with_handles(handles: u32, arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {handles} && exec \"$0\" \"$@\"")]).arg(path()).args(arguments);
        Self { child: command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap() }
    }

    /// Starts the program without reading its output.
    pub(crate) fn silent(arguments: &[&str]) -> Self {
        Self::silent_in(None, arguments, &[])
    }

    /// The same, perhaps in a network namespace, with variables in its environment.
    pub(crate) fn silent_in(namespace: Option<&str>, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = match namespace {
            // `ip` becomes the program, so that signals reach it.
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(path()).args(arguments).stdin(Stdio::null());
                command
            }
            None => self::command(arguments),
        };
        let child = command.envs(variables.iter().copied()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child }
    }

    /// Sends it a signal, as `kill -NAME` does.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success(), "kill -{name} {}", self.pid());
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().and_then(|status| status.code())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and the end awaited.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn address(line: &str) -> Option<String> {
    let start = line.find("127.0.0.1:")?;
    let rest = &line[start..];
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')).unwrap_or(rest.len());
    let address = rest[..end].trim_end_matches([':', '.']);
    let port = address.rsplit(':').next()?.parse::<u16>().ok()?;
    (port != 0).then(|| format!("grpc://{address}"))
}

/// Whether the process lives; a zombie does not.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// The living children of a process, and theirs.
pub(crate) fn descendants(parent: u32) -> Vec<u32> {
    let mut pairs = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect::<Vec<_>>();
        if let Some(parent) = fields.get(1).and_then(|parent| parent.parse::<u32>().ok()) {
            pairs.push((parent, pid));
        }
    }
    let mut found = vec![parent];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(pairs.iter().filter(|(parent, _)| *parent == pid).map(|(_, child)| *child));
        next += 1;
    }
    found.split_off(1)
}

/// Resident bytes of a process.
pub(crate) fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}

/// Open files of a process.
pub(crate) fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Waits until none of `pids` lives.
pub(crate) async fn gone(pids: &[u32]) {
    wait::until(&format!("the end of {pids:?}"), LIMIT, async || pids.iter().all(|pid| !alive(*pid)).then_some(())).await;
}
