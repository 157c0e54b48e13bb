//! What strikes a cluster besides `kill -9` (`kills.rs`) and a lack of memory and disk (`memory.rs`): executors that stand still, links
//! that break, bytes that change, files that vanish, tasks that end whoever runs them, and executors that leave. Every query's whole
//! answer is the oracle's, and a case whose fault did not strike fails.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use windrow::{ErrorKind, ExecutorState};
use windrow_tests::proxy::Rule;
use windrow_tests::rows;
use windrow_tests::{engine, wait};

use crate::answers;
use crate::cancel::files;
use crate::fleet::Fleet;
use crate::program::LIMIT;

/// Silences that kill after 3 s instead of 10.
pub(crate) const HASTY: [(&str, &str); 2] = [("WINDROW_SCHEDULER__SUSPECT_AFTER", "1s"), ("WINDROW_SCHEDULER__DEAD_AFTER", "3s")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_stands_still_is_replaced_and_comes_back() {
    let fleet = Fleet::with_tables("frozen", 3, &HASTY).await;
    let before = fleet.status(1).await.incarnation;
    fleet.run_until_met(18, async || fleet.members[1].process.signal("STOP")).await;
    fleet.until("its death", |all| all.iter().any(|one| one.state == ExecutorState::Dead)).await;
    fleet.members[1].process.signal("CONT");
    fleet.until("its return", |all| all.iter().all(|one| one.state == ExecutorState::Alive)).await;
    let after = fleet.status(1).await;
    assert!(after.incarnation > before, "{after:?}");
    fleet.run(18, async |_| {}).await;
    assert_eq!((fleet.status(1).await.slots_used, fleet.counter("executors_lost").await), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_stop_costs_nobody_their_work() {
    let fleet = Fleet::with_tables("stopped", 3, &[]).await;
    fleet
        .run_until_met(18, async || {
            fleet.members[0].process.signal("STOP");
            windrow_executor::timer::sleep(Duration::from_millis(1500)).await;
            fleet.members[0].process.signal("CONT");
        })
        .await;
    assert_eq!(fleet.counter("executors_lost").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_control_link_is_noticed_at_once_and_mended() {
    let fleet = Fleet::with_tables("control", 3, &[]).await;
    fleet
        .run_until_met(18, async || {
            let lost = fleet.counter("executors_lost").await;
            fleet.members[2].control.set(Rule::Cut);
            // Long before its silence would tell.
            wait::until("the loss", Duration::from_secs(5), async || {
                (fleet.counter("executors_lost").await > lost).then_some(())
            })
            .await;
        })
        .await;
    assert!(fleet.members[2].control.fired() > 0);
    fleet.members[2].control.set(Rule::Pass);
    fleet.until("its return", |all| all.iter().all(|one| one.state == ExecutorState::Alive)).await;
    fleet.run(18, async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_others_cannot_reach_is_not_killed_for_it() {
    let fleet = Fleet::with_tables("shuffle", 3, &[]).await;
    fleet.run_unreadable(Rule::Cut).await;
    assert_eq!(fleet.counter("executors_lost").await, 0);
    fleet.members[0].shuffle.set(Rule::Pass);
    fleet.run(18, async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_stands_open_and_carries_nothing_is_given_up() {
    let fleet = Fleet::with_tables("stall", 3, &[]).await;
    fleet.run_unreadable(Rule::Stall).await;
    assert_eq!(fleet.counter("executors_lost").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_bytes_on_the_way_never_change_the_answer() {
    let fleet = Fleet::with_tables("flips", 3, &[]).await;
    let mut fired = 0;
    for number in [18, 21, 5] {
        fleet
            .run(number, async |_| {
                for member in &fleet.members {
                    member.shuffle.set(Rule::Flip(7));
                }
                let flips =
                    async || (fleet.members.iter().map(|member| member.shuffle.fired()).sum::<u64>() > fired + 2).then_some(());
                let over = windrow_executor::timer::sleep(Duration::from_secs(1));
                tokio::select! {
                    () = wait::until("flips", LIMIT, flips) => {}
                    () = over => {}
                }
                for member in &fleet.members {
                    member.shuffle.set(Rule::Pass);
                }
            })
            .await;
        fired = fleet.members.iter().map(|member| member.shuffle.fired()).sum();
    }
    println!("faults fired: {fired} flipped bits");
    assert!(fired > 3, "{fired} bits were flipped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_late_links_only_cost_time() {
    let fleet = Fleet::with_tables("slow", 3, &[]).await;
    fleet.members[0].shuffle.set(Rule::Throttle(4 << 20));
    fleet.members[1].shuffle.set(Rule::Delay(Duration::from_millis(20)));
    fleet.members[2].control.set(Rule::Delay(Duration::from_millis(50)));
    fleet.run(3, async |_| {}).await;
    assert!(fleet.members.iter().all(|member| member.shuffle.fired() + member.control.fired() > 0));
    assert_eq!(fleet.counter("executors_lost").await, 0);
}

/// Some 60 MB of rows that are joined and grouped: with 96 MB of memory their exchanges go to disk.
const LARGE: &str = "SELECT count(*), sum(a.n), max(a.text), max(b.text) FROM \
    (SELECT value AS n, repeat(md5(CAST(value AS VARCHAR)), 2) AS text FROM generate_series(1, 600000)) a JOIN \
    (SELECT value * 2 AS n, repeat(md5(CAST(value AS VARCHAR)), 2) AS text FROM generate_series(1, 600000)) b ON a.n = b.n";

/// Runs [`LARGE`] on two executors and does `harm` to their files as often as there are some; how often it did.
async fn harm_files(test: &str, harm: impl Fn(&PathBuf) -> bool) -> u32 {
    let fleet = Fleet::start(
        test,
        2,
        "96MB",
        &[("WINDROW_SCHEDULER__GENERATIONS_MAX", "100"), ("WINDROW_SCHEDULER__ATTEMPTS_MAX", "100")],
    )
    .await;
    for setting in ["small_input = '0B'", "partitions = 16", "broadcast_limit = '0B'"] {
        engine::run(&fleet.session, &format!("SET windrow.query.{setting}")).await.unwrap();
    }
    let (_, quiet) = engine::run(&fleet.session, LARGE).await.unwrap();
    let quiet = rows::cells(&quiet)[0].iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(quiet[..2], ["300000".to_owned(), "90000300000".to_owned()]);
    let mut harmed = 0;
    for _ in 0..3 {
        let mut query = fleet.session.sql(LARGE).await.unwrap();
        let mut rounds = 0;
        while !query.progress().state.is_over() && rounds < 3 {
            for member in &fleet.members {
                let struck = files(&member.spill)
                    .iter()
                    .filter(|path| path.file_name().is_none_or(|name| name != "owner"))
                    .take(2)
                    .filter(|path| harm(path))
                    .count();
                harmed += u32::try_from(struck).unwrap();
                rounds += u32::from(struck > 0);
            }
            windrow_executor::timer::sleep(Duration::from_millis(20)).await;
        }
        let mut batches = Vec::new();
        while let Some(batch) = query.next_batch().await.unwrap() {
            batches.push(batch);
        }
        let cells = rows::cells(&batches)[0].iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(cells, quiet);
    }
    println!("faults fired: {harmed} files harmed");
    harmed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_vanish_are_made_again() {
    let harmed = harm_files("vanished", |path| fs::remove_file(path).is_ok()).await;
    assert!(harmed > 5, "{harmed} files were removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_change_are_made_again() {
    let flip = |path: &PathBuf| {
        use std::os::unix::fs::FileExt;
        let Ok(file) = fs::OpenOptions::new().read(true).write(true).open(path) else { return false };
        let middle = file.metadata().map_or(0, |metadata| metadata.len()) / 2;
        let mut byte = [0];
        middle > 0 && file.read_exact_at(&mut byte, middle).is_ok() && file.write_all_at(&[byte[0] ^ 4], middle).is_ok()
    };
    let harmed = harm_files("changed", flip).await;
    assert!(harmed > 5, "{harmed} files were changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_ends_its_executors_fails_its_query_and_nothing_else() {
    let cluster = answers::processes(3).await;
    let session = cluster.session().await.unwrap();
    engine::run(&session, "SET windrow.query.small_input = '0B'").await.unwrap();
    engine::run(&session, "SET windrow.query.partitions = 1").await.unwrap();
    // One task that takes minutes; this test plays its fault and ends whoever runs it.
    let sql = "SELECT count(*) FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b WHERE a.value * b.value = -1";
    let query = session.sql(sql).await.unwrap();
    for death in 0..3 {
        let busy = wait::until("an executor that runs it", LIMIT, async || {
            let executors = cluster.status().executors;
            executors.into_iter().find(|one| one.slots_used > 0 && one.state == ExecutorState::Alive)
        })
        .await;
        let index = busy.name.rsplit('-').next().unwrap().parse::<usize>().unwrap();
        cluster.kill(index).await.unwrap();
        wait::until("its loss", LIMIT, async || {
            let lost = cluster.status().counters.into_iter().find(|(name, _)| name == "executors_lost").unwrap().1;
            (lost > death).then_some(())
        })
        .await;
    }
    let error = windrow_executor::timer::deadline(LIMIT, query.collect())
        .await
        .unwrap_or_else(|| panic!("no end in {LIMIT:?}"))
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal, "{error}");
    for part in ["was running on these executors when they were lost", "lost its connection", "killed by order"] {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }
    let (_, batches) = engine::run(&session, "SELECT count(*) FROM generate_series(1, 1000)").await.unwrap();
    assert_eq!(rows::cells(&batches)[0][0].to_string(), "1000");
    let deaths: usize = cluster.status().executors.iter().map(|executor| executor.deaths.len()).sum();
    assert_eq!(deaths, 3, "{:?}", cluster.status().executors);
    drop(session);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executors_that_are_asked_to_leave_do_and_no_query_notices() {
    let mut fleet = Fleet::with_tables("drain", 3, &[]).await;
    fleet.run_until_met(18, async || fleet.session.drain("executor-0").await.unwrap()).await;
    fleet.becomes(0, ExecutorState::Left).await;
    wait::until("its end", LIMIT, async || fleet.members[0].process.exit_code()).await;
    fleet.run_until_met(18, async || fleet.members[1].process.signal("TERM")).await;
    let code = wait::until("its end", Duration::from_secs(40), async || fleet.members[1].process.exit_code()).await;
    assert_eq!(code, 0);
    fleet.run(18, async |_| {}).await;
    assert_eq!(fleet.counter("executors_lost").await, 0, "they were not lost, they left");
    let error = fleet.session.drain("executer-2").await.unwrap_err();
    assert_eq!((error.kind, error.context.suggestion.as_deref()), (ErrorKind::NotFound, Some("executor-2")));
    assert_eq!(fleet.session.drain("executor-0").await.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_without_any_executor_fails_after_a_while_and_says_why() {
    let fleet = Fleet::start("nobody", 1, "256MB", &[("WINDROW_SCHEDULER__NO_EXECUTOR_DEADLINE", "2s")]).await;
    fleet.members[0].process.signal("KILL");
    fleet.becomes(0, ExecutorState::Dead).await;
    engine::run(&fleet.session, "SET windrow.query.small_input = '0B'").await.unwrap();
    let run = engine::run(&fleet.session, "SELECT count(*) FROM generate_series(1, 1000)");
    let error = windrow_executor::timer::deadline(LIMIT, run).await.unwrap_or_else(|| panic!("no end in {LIMIT:?}")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.to_string().contains("no executor has been connected for 2 s"), "{error}");
}
