//! Supervised processes, with scripts in the place of the program.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tempfile::TempDir;
use windrow_core::ErrorKind;
use windrow_core::clock::SystemClock;
use windrow_executor::timer::deadline;

use super::{ExecutorProcess, Seen, Supervisor};

/// Says its arguments and leaves when its standard input ends.
const PATIENT: &str = "#!/bin/sh\necho \"started $*\" >&2\ncat > /dev/null\n";
/// Ends at once with an error.
const BROKEN: &str = "#!/bin/sh\necho 'ERROR no such flag' >&2\nexit 3\n";

/// The path of a script. All are written before the first is started: a file that is open for writing in a process about to be
/// started cannot be run.
fn script(name: &str) -> PathBuf {
    static SCRIPTS: OnceLock<TempDir> = OnceLock::new();
    let folder = SCRIPTS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("patient", PATIENT), ("broken", BROKEN)] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    });
    folder.path().join(name)
}

fn process(program: PathBuf, spill_dir: &Path) -> ExecutorProcess {
    ExecutorProcess {
        leading: Vec::new(),
        program,
        scheduler: "127.0.0.1:1".to_owned(),
        secret_file: "/none".into(),
        name: "executor-0".to_owned(),
        slots: 2,
        memory_limit: 64,
        spill_dir: spill_dir.join("spill"),
        python: None,
    }
}

fn start(program: PathBuf, spill_dir: &Path) -> windrow_core::Result<Supervisor> {
    Supervisor::start(process(program, spill_dir), SystemClock::shared(), std::sync::Arc::new(|_, _| {}))
}

async fn wait_for(supervisor: &Supervisor, condition: impl FnMut(&Seen) -> bool) -> Seen {
    let mut seen = supervisor.seen.clone();
    let seen = deadline(Duration::from_secs(20), seen.wait_for(condition)).await.expect("in time").expect("supervised");
    seen.clone()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_process_gets_its_flags_and_leaves_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let supervisor = start(script("patient"), folder.path()).unwrap();
    let seen = wait_for(&supervisor, |seen| !seen.log.is_empty()).await;
    let spill_dir = folder.path().join("spill");
    let flags = format!(
        "started executor --scheduler 127.0.0.1:1 --name executor-0 --slots 2 --memory-limit 64 --spill-dir {} --secret-file /none --supervised",
        spill_dir.display()
    );
    assert_eq!(Vec::from(seen.log), [flags]);
    assert!(!spill_dir.exists(), "an executor makes its folder, which this one does not");
    std::fs::create_dir(&spill_dir).unwrap();
    let pid = seen.pid.unwrap();
    supervisor.stop().await;
    assert!(!is_alive(pid));
    assert!(supervisor.seen().deaths.is_empty());
    assert!(!spill_dir.exists());
}

#[tokio::test]
async fn a_killed_process_is_started_again_with_an_empty_spill_folder() {
    let folder = tempfile::tempdir().unwrap();
    let supervisor = start(script("patient"), folder.path()).unwrap();
    let first = wait_for(&supervisor, |seen| seen.pid.is_some()).await.pid.unwrap();
    let left_behind = folder.path().join("spill/segment");
    std::fs::create_dir(folder.path().join("spill")).unwrap();
    std::fs::write(&left_behind, "x").unwrap();
    supervisor.kill().await;
    assert!(!is_alive(first));
    let seen = wait_for(&supervisor, |seen| seen.pid.is_some_and(|pid| pid != first)).await;
    assert_eq!(seen.deaths, ["killed by order"]);
    assert!(!left_behind.exists());
    supervisor.stop().await;
}

#[tokio::test]
async fn a_process_that_others_kill_is_started_again_and_the_signal_noted() {
    let folder = tempfile::tempdir().unwrap();
    let supervisor = start(script("patient"), folder.path()).unwrap();
    let first = wait_for(&supervisor, |seen| seen.pid.is_some()).await.pid.unwrap();
    let killed = tokio::process::Command::new("kill").args(["-9", &first.to_string()]).status().await.unwrap();
    assert!(killed.success());
    let seen = wait_for(&supervisor, |seen| seen.pid.is_some_and(|pid| pid != first)).await;
    assert!(seen.deaths[0].starts_with("killed by signal 9"), "{:?}", seen.deaths);
    supervisor.stop().await;
}

#[tokio::test]
async fn a_process_that_dies_again_and_again_is_left_down_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let supervisor = start(script("broken"), folder.path()).unwrap();
    let seen = wait_for(&supervisor, |seen| seen.stopped.is_some()).await;
    assert_eq!(seen.deaths, vec!["exit code 3"; 5]);
    assert_eq!(seen.stopped.unwrap(), "it died 5 times within a minute, the last time of: exit code 3");
    assert_eq!(Vec::from(seen.log), vec!["ERROR no such flag"; 5]);
    // Orders to a process that is over are answered.
    supervisor.kill().await;
    supervisor.stop().await;
}

#[tokio::test]
async fn dropping_the_supervisor_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let supervisor = Arc::new(start(script("patient"), folder.path()).unwrap());
    let pid = wait_for(&supervisor, |seen| seen.pid.is_some()).await.pid.unwrap();
    drop(supervisor);
    let gone = async {
        while is_alive(pid) {
            tokio::task::yield_now().await;
        }
    };
    deadline(Duration::from_secs(20), gone).await.expect("the process is gone");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let error = start(folder.path().join("windrow"), folder.path()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}
