//! Memory and disk that are not enough: what spills, what is refused and how, and that nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use windrow::{ErrorKind, Query, Session};
use windrow_tests::{engine, rows, wait};

use crate::cancel::files;
use crate::program::{self, LIMIT, Process};

const SOON: Duration = Duration::from_secs(5);

/// Some 150 MB of rows in memory, in no order of their text.
const ROWS: &str = "(SELECT value AS n, repeat(md5(CAST(value AS VARCHAR)), 3) AS text FROM generate_series(1, 1000000))";

/// A scheduler and one executor of two slots, with a spill folder of their own.
struct Node {
    _scheduler: Process,
    executor: Process,
    url: String,
    session: Session,
    spill: PathBuf,
    /// Files of an idle executor.
    idle_files: usize,
}

fn executor(url: &str, spill: &Path, options: &[&str]) -> Process {
    let spill = spill.to_string_lossy();
    let fixed = ["executor", "--scheduler", url.trim_start_matches("grpc://"), "--slots", "2", "--spill-dir", &spill];
    Process::silent(&[&fixed, options].concat())
}

impl Node {
    async fn start(spill: PathBuf, options: &[&str]) -> Self {
        let (scheduler, url) = Process::listening(&["scheduler", "--bind", "127.0.0.1:0"]);
        let executor = executor(&url, &spill, options);
        let session = windrow::connect(Some(&url)).await.unwrap();
        wait::until("the executor", LIMIT, async || (session.status().await.unwrap().executors.len() == 1).then_some(())).await;
        engine::run(&session, "SET windrow.query.small_input = '0B'").await.unwrap();
        let idle_files = files(&spill).len();
        Self { _scheduler: scheduler, executor, url, session, spill, idle_files }
    }

    /// Waits until something is on disk.
    async fn spills(&self) {
        wait::until("files on disk", LIMIT, async || (files(&self.spill).len() > self.idle_files).then_some(())).await;
    }

    async fn leaves_no_file(&self, after: &str) {
        let none = async || (files(&self.spill).len() == self.idle_files).then_some(());
        wait::until(&format!("no file after {after}"), SOON, none).await;
    }

    /// It works as before.
    async fn lives(&self) {
        let (_, batches) = engine::run(&self.session, "SELECT count(*) FROM generate_series(1, 1000)").await.unwrap();
        assert_eq!(rows::cells(&batches)[0][0].to_string(), "1000");
    }
}

/// Counts the rows of a query.
async fn count(mut query: Query) -> windrow::Result<usize> {
    let mut rows = 0;
    while let Some(batch) = query.next_batch().await? {
        rows += batch.num_rows();
    }
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spilled_files_go_with_the_query_however_it_ends() {
    let node = Node::start(program::scratch("spill-ends"), &["--memory-limit", "96MB"]).await;
    let sorted = format!("SELECT n, text FROM {ROWS} ORDER BY text");

    let query = node.session.sql(&sorted).await.unwrap();
    node.spills().await;
    assert_eq!(count(query).await.unwrap(), 1_000_000);
    node.leaves_no_file("success").await;

    let failing = format!("SELECT n / (n - 1000000), text FROM ({sorted})");
    let query = node.session.sql(&failing).await.unwrap();
    node.spills().await;
    let error = count(query).await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("divide by zero"), "{error}");
    node.leaves_no_file("a failure").await;

    let query = node.session.sql(&sorted).await.unwrap();
    node.spills().await;
    drop(query);
    node.leaves_no_file("a cancel").await;
    node.lives().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_executor_left_on_disk_is_removed_by_the_next() {
    let spill = program::scratch("spill-killed");
    let node = Node::start(spill.clone(), &["--memory-limit", "96MB"]).await;
    let query = node.session.sql(&format!("SELECT n, text FROM {ROWS} ORDER BY text")).await.unwrap();
    node.spills().await;
    node.executor.kill();
    drop(query);
    let left: Vec<PathBuf> = fs::read_dir(&spill).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().any(|folder| files(folder).len() > 1), "it was killed with files on disk");
    let _next = executor(&node.url, &spill, &["--memory-limit", "96MB"]);
    wait::until("an empty folder", LIMIT, async || left.iter().all(|folder| !folder.exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_may_open_few_files_lives_on() {
    let (_scheduler, url) = Process::listening(&["scheduler", "--bind", "127.0.0.1:0"]);
    let spill = program::scratch("handles").to_string_lossy().into_owned();
    let address = url.trim_start_matches("grpc://");
    let arguments =
        ["executor", "--scheduler", address, "--slots", "2", "--memory-limit", "96MB", "--spill-dir", &spill, "--name", "few"];
    let _executor = Process::silent_with_handles(48, &arguments);
    let session = windrow::connect(Some(&url)).await.unwrap();
    wait::until("the executor", LIMIT, async || (session.status().await.unwrap().executors.len() == 1).then_some(())).await;
    engine::cut(&session, 64).await;
    // Every partition writes files, and every reader opens those of all.
    let sql = format!("SELECT text, count(*) FROM {ROWS} GROUP BY text");
    match count(session.sql(&sql).await.unwrap()).await {
        Ok(rows) => assert_eq!(rows, 1_000_000),
        Err(error) => assert_eq!(error.kind, ErrorKind::ResourcesExhausted, "{error}"),
    }
    let (_, batches) = engine::run(&session, "SELECT count(*) FROM generate_series(1, 1000)").await.unwrap();
    assert_eq!(rows::cells(&batches)[0][0].to_string(), "1000");
    let status = session.status().await.unwrap();
    assert_eq!(status.counters.iter().find(|(name, _)| name == "executors_lost").unwrap().1, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_quota_is_an_error_that_names_it() {
    let spill = program::scratch("spill-quota");
    let node = Node::start(spill.clone(), &["--memory-limit", "96MB", "--spill-limit", "8MB"]).await;
    let query = node.session.sql(&format!("SELECT n, text FROM {ROWS} ORDER BY text")).await.unwrap();
    let error = count(query).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ResourcesExhausted, "{error}");
    let text = error.to_string();
    assert!(text.contains("executor.spill_limit") && text.contains(&*spill.to_string_lossy()), "{text}");
    node.leaves_no_file("a refusal").await;
    node.lives().await;
}

/// A file system of a few megabytes, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&folder).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_an_error_that_names_folder_and_bytes() {
    let Some(disk) = SmallDisk::mount(program::scratch("spill-full")) else {
        eprintln!("SKIPPED: a full disk needs the right to mount a tmpfs");
        return;
    };
    let node = Node::start(disk.0.clone(), &["--memory-limit", "96MB"]).await;
    let query = node.session.sql(&format!("SELECT n, text FROM {ROWS} ORDER BY text")).await.unwrap();
    let error = count(query).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ResourcesExhausted, "{error}");
    let text = error.to_string();
    let says = ["executor.spill_dir", "bytes", "No space left", &*disk.0.to_string_lossy()].map(|part| text.contains(part));
    assert_eq!(says, [true; 4], "{text}");
    node.leaves_no_file("a full disk").await;
    node.lives().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_query_is_served_beside_a_large_one() {
    let node = Node::start(program::scratch("spill-fair"), &["--memory-limit", "96MB"]).await;
    // One partition: the second slot is free for others.
    engine::run(&node.session, "SET windrow.query.partitions = 1").await.unwrap();
    let large = format!("SELECT a.n, a.text FROM {ROWS} a JOIN {ROWS} b ON a.text = b.text ORDER BY a.text, b.n");
    let large = node.session.sql(&large).await.unwrap();
    node.spills().await;
    let small = "SELECT value % 1000 AS k, count(*) AS c FROM generate_series(1, 100000) GROUP BY value % 1000 ORDER BY k";
    for _ in 0..3 {
        let other = windrow::connect(Some(&node.url)).await.unwrap();
        let (_, batches) = engine::run(&other, small).await.unwrap();
        assert_eq!(rows::cells(&batches).len(), 1000);
    }
    assert!(!large.progress().state.is_over(), "the large one was to run all the while");
    drop(large);
    node.leaves_no_file("a cancel").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_keeps_to_its_own_limit() {
    let node = Node::start(program::scratch("spill-query"), &["--memory-limit", "1GB"]).await;
    let sorted = format!("SELECT n, text FROM {ROWS} ORDER BY text");
    assert_eq!(count(node.session.sql(&sorted).await.unwrap()).await.unwrap(), 1_000_000);
    assert_eq!(files(&node.spill).len(), node.idle_files, "there is room for all of it");
    engine::run(&node.session, "SET windrow.query.memory_limit = '32MB'").await.unwrap();
    let query = node.session.sql(&sorted).await.unwrap();
    node.spills().await;
    assert_eq!(count(query).await.unwrap(), 1_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cross_join_with_a_large_left_side_goes_to_disk() {
    let node = Node::start(program::scratch("spill-cross"), &["--memory-limit", "96MB"]).await;
    let sql = format!(
        "SELECT count(*), sum(length(a.text) * b.x) FROM {ROWS} a CROSS JOIN (SELECT * FROM (VALUES (1), (2)) AS v(x)) b"
    );
    let query = node.session.sql(&sql).await.unwrap();
    node.spills().await;
    let cells = rows::cells(&query.collect().await.unwrap());
    assert_eq!((cells[0][0].to_string(), cells[0][1].to_string()), ("2000000".to_owned(), "288000000".to_owned()));
    node.leaves_no_file("success").await;
}
