//! Runs one file of `tests/clients` against a fresh cluster.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use windrow_core::clock::Stopwatch;
use windrow_tests::wait;

use crate::environment;
use crate::program;

/// How long a file may take.
const LIMIT: Duration = Duration::from_secs(600);

/// The Python files.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Runs `file` against a cluster of two executors with one slot each, and panics with what it printed if it does not pass.
pub(crate) async fn passes(file: &str) {
    let python = environment::python();
    let scratch = program::scratch(file);
    let state = scratch.join("state"); // where the cluster's secret is, and the program that the tests run looks for it
    let greeting = scratch.join("greeting");
    let output = File::create(&greeting).unwrap();
    let mut local = program::command(&["local", "--executors", "2", "--slots", "1", "--port", "0", "--memory-limit", "1GB"]);
    if file == "test_substrait.py" {
        local.arg("--accept-plans");
    }
    local.env("XDG_STATE_HOME", &state).stdout(output.try_clone().unwrap()).stderr(output);
    let _cluster = Running(local.spawn().unwrap());
    let greeted = wait::until("the cluster", program::LIMIT, async || greeted(&fs::read_to_string(&greeting).unwrap()));
    let (url, token) = greeted.await;
    let printed = scratch.join("printed");
    let output = File::create(&printed).unwrap();
    let mut pytest = Command::new(python);
    pytest
        .args(["-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-ra", "--durations=5", "-o", "faulthandler_timeout=60"])
        .arg("--basetemp")
        .arg(scratch.join("files"))
        .arg(file)
        .current_dir(folder())
        .env("WINDROW_URL", &url)
        .env("WINDROW_TOKEN", &token)
        .env("XDG_STATE_HOME", &state)
        .env("WINDROW_PROGRAM", program::path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output);
    let mut running = Running(pytest.spawn().unwrap());
    let watch = Stopwatch::start();
    let ended = wait::until(file, 2 * LIMIT, async || {
        let ended = running.0.try_wait().unwrap();
        (ended.is_some() || watch.elapsed() > LIMIT).then_some(ended)
    });
    let ended = ended.await;
    let said = fs::read_to_string(&printed).unwrap();
    match ended {
        Some(status) => assert!(status.success(), "{file} failed:\n{said}"),
        None => panic!("{file} did not end within {LIMIT:?}:\n{said}"),
    }
}

/// The address and the token in what `windrow local` prints, once both are there.
fn greeted(printed: &str) -> Option<(String, String)> {
    let word = |start: &str| printed.split_whitespace().find(|word| word.starts_with(start)).map(str::to_owned);
    // The token is on the last line; it is whole once the line has ended.
    printed.ends_with('\n').then(|| word("grpc://").zip(word("ws1."))).flatten()
}

/// A process that is gone when this is dropped.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
