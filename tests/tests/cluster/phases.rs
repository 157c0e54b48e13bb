//! `kill -9` in each phase of a shuffle: while a task scans, while it writes, when its executor holds nothing but inputs of others, while
//! a reader reads, after it has read, and while the client fetches the result. Every case waits for what shows the phase from outside.

use std::cell::Cell;

use windrow::{ClusterStatus, ExecutorState, ExecutorStatus, Progress};
use windrow_executor::timer;
use windrow_tests::proxy::Rule;
use windrow_tests::rows::Answer;
use windrow_tests::{engine, oracle, tpch, wait};

use crate::answers::{self, data};
use crate::cancel::files;
use crate::fleet::{Fleet, PATIENCE};
use crate::program::LIMIT;

/// As many as there are executors: each has one task of a stage.
const PARTITIONS: u32 = 3;

/// A scan that computes for a while.
const SCAN: &str =
    "SELECT l_orderkey, min(levenshtein(repeat(l_comment, 6), repeat(reverse(l_comment), 6))) FROM lineitem GROUP BY l_orderkey";

/// Some 200 MB of rows that cross the network, in many batches.
const WIDE: &str = "SELECT o_orderdate, count(*), min(l_comment), sum(v) \
    FROM (SELECT l_orderkey, l_comment, unnest(range(1, 30)) AS v FROM lineitem) \
    JOIN orders ON l_orderkey = o_orderkey GROUP BY o_orderdate";

/// A scan that is done at once, and a single task that takes a while; a third stage needs both.
const WAITING: &str = "SELECT a.k, n, m FROM (SELECT l_orderkey AS k, count(*) AS n FROM lineitem GROUP BY l_orderkey) a JOIN \
    (SELECT value AS k, max(levenshtein(repeat(CAST(value AS VARCHAR), 60), repeat('01234', 60))) AS m \
    FROM generate_series(1, 30000) GROUP BY value) b \
    ON a.k = b.k";

/// Little to read, and much to do with it.
const COMPUTING: &str = "SELECT k, max(levenshtein(repeat(m, 120), repeat(reverse(m), 120))) \
    FROM (SELECT l_orderkey % 300 AS k, min(l_comment) AS m FROM lineitem GROUP BY 1) GROUP BY k";

/// Some 10 MB of rows for the client, and nothing to shuffle.
const FETCHED: &str = "SELECT l_orderkey, l_linenumber, l_comment, md5(l_comment) FROM lineitem";

/// Nothing is joined by broadcast, so that both sides are shuffled.
const SHUFFLED: &str = "SET windrow.query.broadcast_limit = '0B'";

/// Runs `sql` on three executors, kills the one that `victim` chooses as soon as it chooses one, and compares the answer. Returns how
/// many partitions ran again.
async fn kill(test: &str, sql: &str, memory: &str, victim: impl AsyncFn(&Fleet) -> usize) -> u64 {
    let folder = &data().await.folder;
    let oracle = oracle::over(folder, &tpch::TABLES).await.unwrap();
    let (schema, expected) = oracle::run(&oracle, sql).await.unwrap();
    let expected = Answer::new(&schema, &expected).sorted();
    let fleet = Fleet::start(test, 3, memory, &[]).await;
    answers::prepare(&fleet.session, folder, PARTITIONS).await;
    engine::run(&fleet.session, SHUFFLED).await.unwrap();

    let query = fleet.session.sql(sql).await.unwrap();
    let schema = query.schema();
    let index = victim(&fleet).await;
    fleet.members[index].process.signal("KILL");
    fleet.members.iter().for_each(|member| member.shuffle.set(Rule::Pass));
    let batches =
        timer::deadline(PATIENCE, query.collect()).await.unwrap_or_else(|| panic!("no answer in {PATIENCE:?}")).unwrap();
    assert_eq!(Answer::new(&schema, &batches).sorted().difference(&expected), None);
    let jobs = fleet.session.status().await.unwrap().jobs;
    let Progress { lost, reruns, .. } = jobs.into_iter().max_by_key(|job| job.id).unwrap().progress;
    println!("{test}: {lost} partitions lost, {reruns} run again");
    assert!(reruns <= lost, "{reruns} partitions ran again, though only {lost} were lost");
    assert_eq!(fleet.counter("executors_lost").await, 1);
    fleet.leaves_nothing().await;
    reruns
}

/// What can be seen of a query from outside.
struct Seen {
    executors: Vec<ExecutorStatus>,
    progress: Progress,
}

/// Waits until `chooses` gives an executor's number.
async fn choose(what: &str, fleet: &Fleet, chooses: impl Fn(&Seen) -> Option<usize>) -> usize {
    wait::until(what, LIMIT, async || {
        let ClusterStatus { executors, jobs, .. } = fleet.session.status().await.unwrap();
        let progress = jobs.into_iter().max_by_key(|job| job.id)?.progress;
        chooses(&Seen { executors, progress })
    })
    .await
}

/// An executor that runs something, or one that does not.
fn one(fleet: &Fleet, seen: &Seen, is_busy: bool) -> Option<usize> {
    let found = seen.executors.iter().find(|one| one.state == ExecutorState::Alive && (one.slots_used > 0) == is_busy)?;
    fleet.members.iter().position(|member| member.name == found.name)
}

/// Bytes that executors sent each other.
fn sent(fleet: &Fleet) -> u64 {
    fleet.members.iter().map(|member| member.shuffle.bytes()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_scans() {
    let scans = async |fleet: &Fleet| {
        choose("a scan", fleet, |seen| if seen.progress.tasks_done == 0 { one(fleet, seen, true) } else { None }).await
    };
    kill("scan", SCAN, "512MB", scans).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_writes() {
    let writes = async |fleet: &Fleet| {
        let is_writing = |index: &usize| files(&fleet.members[*index].spill).len() > fleet.idle_files;
        choose("a file", fleet, |seen| (0..3).find(is_writing).filter(|_| seen.progress.tasks_done < 2 * PARTITIONS)).await
    };
    kill("write", WIDE, "96MB", writes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_when_it_holds_inputs_and_runs_nothing() {
    let holds = async |fleet: &Fleet| {
        choose("an idle holder", fleet, |seen| {
            let busy = seen.executors.iter().filter(|one| one.slots_used > 0).count();
            if seen.progress.tasks_done >= PARTITIONS && busy == 1 { one(fleet, seen, false) } else { None }
        })
        .await
    };
    kill("input-only", WAITING, "512MB", holds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_reads() {
    let reads = async |fleet: &Fleet| {
        fleet.members.iter().for_each(|member| member.shuffle.set(Rule::Throttle(20 << 20)));
        choose("a reader", fleet, |seen| if sent(fleet) > 10 << 20 { one(fleet, seen, true) } else { None }).await
    };
    kill("read", WIDE, "512MB", reads).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_it_has_read() {
    let computes = async |fleet: &Fleet| {
        // Nothing has moved for this many looks since something did.
        let (last, quiet) = (Cell::new(0), Cell::new(0));
        choose("one that computes", fleet, |seen| {
            let now = sent(fleet);
            let has_read = seen.progress.tasks_done >= PARTITIONS && now > 10_000;
            quiet.set(if has_read && last.replace(now) == now { quiet.get() + 1 } else { 0 });
            if quiet.get() >= 20 { one(fleet, seen, true) } else { None }
        })
        .await
    };
    kill("after-read", COMPUTING, "512MB", computes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_its_result_is_fetched() {
    let is_fetched = async |fleet: &Fleet| {
        fleet.members.iter().for_each(|member| member.shuffle.set(Rule::Throttle(1 << 20)));
        choose("all results", fleet, |seen| {
            let is_done = seen.progress.tasks_done == PARTITIONS && sent(fleet) > 100_000;
            if is_done { one(fleet, seen, false) } else { None }
        })
        .await
    };
    let rerun = kill("fetch", FETCHED, "512MB", is_fetched).await;
    assert!(rerun > 0, "the rows that it held had been sent");
}
