//! What the program refuses to do, and what it leaves for nobody else: addresses, logs, files, memory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use windrow_auth::{Passwords, Role, make_development_ca};
use windrow_core::cases::Cases;
use windrow_tests::{engine, rows, wait};

use crate::program::{self, LIMIT, Process};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// Addresses that a process listens on, as the kernel writes them.
fn listening(pid: u32) -> Vec<String> {
    let of_process = |entry: fs::DirEntry| fs::read_link(entry.path()).ok().map(|link| link.to_string_lossy().into_owned());
    let sockets: Vec<String> =
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(|entry| of_process(entry.ok()?)).collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        for line in fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_own = sockets.iter().any(|socket| *socket == format!("socket:[{}]", fields[9]));
            if fields[3] == "0A" && is_own {
                found.push(fields[1].split(':').next().unwrap().to_owned());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m1_every_role_listens_on_loopback_unless_told_otherwise() {
    let mut cases = Cases::of("M1");
    let help = text(&program::run(&["scheduler", "--help"], "").stdout);
    assert!(help.contains("127.0.0.1:8815"), "{help}");
    cases.case("a scheduler's default");
    let (scheduler, url) = Process::listening(&["scheduler", "--bind", "127.0.0.1:0"]);
    let executor = Process::silent(&["executor", "--scheduler", url.trim_start_matches("grpc://"), "--memory-limit", "256MB"]);
    let (local, _) = Process::listening(&["local", "--port", "0", "--executors", "2"]);
    for (what, process) in [("a scheduler", &scheduler), ("an executor", &executor), ("a local cluster", &local)] {
        let all = || [vec![process.pid()], program::descendants(process.pid())].concat().into_iter().flat_map(listening);
        let addresses = wait::until(what, LIMIT, async || Some(all().collect::<Vec<_>>()).filter(|all| !all.is_empty())).await;
        assert!(addresses.iter().all(|address| address == "0100007F"), "{what}: {addresses:?}");
        cases.case(what);
    }
    cases.are(4);
}

/// Settings that open nothing by themselves, wherever they are given.
#[test]
fn security_m2_settings_in_the_environment_make_no_address_public() {
    let folder = program::scratch("m2-environment");
    make_development_ca(&folder, &["localhost".to_owned()]).unwrap();
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (certificate, key, users) = (file("server.pem"), file("server-key.pem"), file("users"));
    Passwords::set(Path::new(&users), "ann", Role::Reader, "correct horse").unwrap();
    let settings: [(&str, Vec<(&str, &str)>); 5] = [
        ("nothing", vec![]),
        ("a certificate without its key", vec![("WINDROW_SECURITY__TLS_CERTIFICATE", &certificate)]),
        ("a key without its certificate", vec![("WINDROW_SECURITY__TLS_KEY", &key)]),
        ("users without a certificate", vec![("WINDROW_SECURITY__USERS_FILE", &users)]),
        ("a certificate that is none", vec![("WINDROW_SECURITY__TLS_CERTIFICATE", &users), ("WINDROW_SECURITY__TLS_KEY", &key)]),
    ];
    let mut cases = Cases::of("M2");
    for (what, variables) in settings {
        for bind in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            for role in [&["scheduler"][..], &["executor", "--scheduler", "127.0.0.1:1"]] {
                let arguments = [role, &["--bind", bind]].concat();
                let output = program::command(&arguments).envs(variables.iter().copied()).output().unwrap();
                assert!(matches!(output.status.code(), Some(1 | 2)), "{what}, {arguments:?}: {:?}", output.status);
                assert!(!text(&output.stderr).is_empty() && !text(&output.stderr).contains("panicked"), "{what}, {arguments:?}");
                cases.case(format!("{what}: {arguments:?}"));
            }
        }
    }
    cases.are(30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m24_a_scheduler_that_cannot_write_its_audit_log_does_not_start_and_one_that_can_leaves_a_line_for_each_call() {
    let folder = program::scratch("m24");
    let mut cases = Cases::of("M24");
    for (what, path) in [("a folder", folder.clone()), ("a folder that is not there", folder.join("none/audit"))] {
        let variables = [("WINDROW_SECURITY__AUDIT_LOG", path.to_string_lossy().into_owned())];
        let output = program::command(&["scheduler", "--bind", "127.0.0.1:0"]).envs(variables).output().unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{what}: {:?}", output.status);
        assert!(text(&output.stderr).contains("security.audit_log"), "{what}: {}", text(&output.stderr));
        cases.case(what);
    }
    let log = folder.join("audit");
    let variables = [("WINDROW_SECURITY__AUDIT_LOG", log.to_str().unwrap())];
    let (scheduler, url) = Process::listening_with(&["scheduler", "--bind", "127.0.0.1:0"], &variables);
    let asked = program::run(&["sql", "--connect", &url, "-c", "SHOW windrow.query.partitions"], "");
    assert_eq!(asked.status.code(), Some(0), "{}", text(&asked.stderr));
    scheduler.signal("TERM");
    program::gone(&[scheduler.pid()]).await;
    let written = fs::read_to_string(&log).unwrap();
    let lines: Vec<_> = written.lines().filter(|line| line.contains("SHOW windrow.query.partitions")).collect();
    assert!(lines.len() == 1 && lines[0].contains("\"who\":\"owner\"") && lines[0].contains("\"outcome\":\"done\""), "{written}");
    cases.case("a statement has a line when the scheduler has ended");
    assert_eq!(mode(&log), 0o600);
    cases.case("the file is for its owner alone");
    cases.are(4);
}

fn folders(spill: &Path) -> Vec<PathBuf> {
    fs::read_dir(spill).map_or_else(|_| Vec::new(), |entries| entries.map(|entry| entry.unwrap().path()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m23_nothing_of_a_killed_executor_is_left_after_the_next_start() {
    let spill = program::scratch("m23-spill");
    let (_scheduler, url) = Process::listening(&["scheduler", "--bind", "127.0.0.1:0"]);
    let start = || {
        let spill = spill.to_string_lossy();
        Process::silent(&["executor", "--scheduler", url.trim_start_matches("grpc://"), "--slots", "1", "--spill-dir", &spill])
    };
    let mut cases = Cases::of("M23");
    let first = start();
    let own =
        wait::until("its folder", LIMIT, async || folders(&spill).into_iter().find(|path| path.join("owner").exists())).await;
    assert_eq!((mode(&own), mode(&own.join("owner"))), (0o700, 0o600));
    cases.case("the folder of a process is for its owner alone");
    first.kill();
    fs::write(own.join("segments-0"), "planted rows").unwrap();
    let _second = start();
    wait::until("the old folder is gone", LIMIT, async || (!own.exists()).then_some(())).await;
    cases.case("what a killed process left is gone");
    let now =
        wait::until("the new folder", LIMIT, async || folders(&spill).into_iter().find(|path| path.join("owner").exists())).await;
    assert_ne!(now, own);
    cases.case("the next one has a folder of another name");
    cases.are(3);
}

/// Rows that nobody reads stay where they are made, within what an executor may hold. Of a gigabyte, the scheduler has the 64 MB that it
/// holds back of a partition, what is on the way, and pages that its allocator keeps of both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m15_a_reader_that_never_reads_holds_up_nobody_and_costs_the_scheduler_nothing() {
    let (scheduler, url) = Process::listening(&["scheduler", "--bind", "127.0.0.1:0"]);
    let address = url.trim_start_matches("grpc://");
    let executor = Process::silent(&["executor", "--scheduler", address, "--slots", "2", "--memory-limit", "256MB"]);
    let (lazy, other) = (windrow::connect(Some(&url)).await.unwrap(), windrow::connect(Some(&url)).await.unwrap());
    let mut cases = Cases::of("M15");
    let small = "SELECT count(*) FROM generate_series(1, 1000)";
    engine::run(&other, small).await.unwrap();
    let before = program::resident(scheduler.pid());
    let unread = lazy.sql("SELECT value, repeat('x', 1000) FROM generate_series(1, 1000000)").await.unwrap();
    let (mut most, mut most_of_executor) = (0, 0);
    for _ in 0..40 {
        let (_, batches) = engine::run(&other, small).await.unwrap();
        assert_eq!(rows::cells(&batches)[0][0].to_string(), "1000");
        most = most.max(program::resident(scheduler.pid()).saturating_sub(before));
        most_of_executor = most_of_executor.max(program::resident(executor.pid()));
    }
    cases.case("somebody else is answered 40 times meanwhile");
    assert!(most < 256 << 20, "the scheduler grew by {most} bytes");
    cases.case("the scheduler does not grow");
    assert!(most_of_executor < 308 << 20, "the executor has {most_of_executor} bytes");
    cases.case("the executor stays within its limit");
    drop(unread);
    cases.are(3);
}
