//! The simulator: the scheduler in a model world, from a seed. The world itself is `scheduler/src/sim/`.
//!
//! `WINDROW_SEED=n cargo test --workspace --test sim` replays one seed in every test; without it, fixed seeds run.
//! `WINDROW_ONLY=1,5,9` leaves out all faults but these, as a failure says that was made short. `WINDROW_HOURS=20000` makes the long run
//! longer.
#![expect(clippy::panic, reason = "test code: a panic fails the test with its reason")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use windrow_core::clock::Stopwatch;
use windrow_core::ids::ExecutorId;
use windrow_scheduler::Fault;
use windrow_scheduler::sim::{Broken, Mischief, Options, Report, Script, run, shrink};

/// Seeds of small worlds in one run.
const SMALL_WORLDS: u64 = 2_000;

/// Hours that clusters live in one run.
const HOURS: u64 = 2_000;

/// Small graphs that are hurt by one fault at every moment.
const GRAPHS: u64 = 12;

/// A world by its seed, and the faults that it took to break it.
type Regression = (fn(u64) -> Options, u64, &'static [u64]);

/// Worlds that broke once, a bug of copies and one of blame.
const REGRESSIONS: [Regression; 2] = [(Options::small, 79, &[1, 2, 9, 15, 18, 28]), (Options::small, 151, &[0])];

/// A number from outside.
#[expect(clippy::disallowed_methods, reason = "a seed to replay comes from outside")]
fn given(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    given(name).and_then(|text| text.parse().ok())
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    number("WINDROW_SEED").map_or(0..count, |seed| seed..seed + 1)
}

fn only() -> Option<BTreeSet<u64>> {
    given("WINDROW_ONLY").map(|text| text.split(',').filter_map(|number| number.trim().parse().ok()).collect())
}

/// Fails with the shortest form of the failure and the command that repeats it.
fn fail(options: &Options, broken: Broken) -> ! {
    let seed = options.seed;
    let (short, broken) = shrink(options).unwrap_or((options.clone(), broken));
    let only: Vec<_> = short.only.iter().flatten().map(u64::to_string).collect();
    let script = options.script.map_or_else(String::new, |(moment, script)| format!(", {script:?} at moment {moment}"));
    panic!(
        "seed {seed}{script}: {broken}\nreplay: WINDROW_SEED={seed} WINDROW_ONLY={} cargo test --workspace --test sim",
        only.join(",")
    )
}

/// Runs worlds on all cores; their reports in order.
fn run_all(worlds: &(dyn Fn(u64) -> Options + Sync), seeds: std::ops::Range<u64>) -> Vec<Report> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut reports = BTreeMap::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return reports;
            }
            let options = Options { only: only(), ..worlds(seed) };
            match run(&options) {
                Ok(report) => reports.insert(seed, report),
                Err(broken) => fail(&options, broken),
            };
        }
    };
    let reports = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|why| std::panic::resume_unwind(why)));
        joined.collect::<Vec<_>>()
    });
    reports.into_iter().flatten().collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Prints what happened, and fails if a kind of fault never did.
fn judge(what: &str, reports: &[Report]) {
    let sum = |value: &dyn Fn(&Report) -> u64| reports.iter().map(value).sum::<u64>();
    let hours = sum(&|report| report.virtual_ms) / 3_600_000;
    let struck: Vec<_> = Mischief::ALL.iter().map(|what| (*what, sum(&|report| report.struck(*what)))).collect();
    println!("{what}: {} worlds, {hours} cluster-hours, {} steps; faults fired: {struck:?}", reports.len(), sum(&|r| r.steps));
    println!(
        "{} jobs right, {} of them read again, {} cancelled, {} excused because a part of the result had left, {} given up for what they did to executors; \
         {} partitions lost, {} run again, {} copies of stragglers",
        sum(&|r| r.right.into()),
        sum(&|r| r.kept.into()),
        sum(&|r| r.cancelled.into()),
        sum(&|r| r.excused.into()),
        sum(&|r| r.poisoned.into()),
        sum(&|r| r.counters.partitions_lost),
        sum(&|r| r.counters.partitions_rerun),
        sum(&|r| r.counters.copies),
    );
    if reports.len() > 1 {
        let rare: Vec<_> = struck.iter().filter(|(_, count)| *count < 100).collect();
        assert!(rare.is_empty(), "these faults must fire: {rare:?}");
        assert!(sum(&|r| r.counters.copies) > 100 && sum(&|r| r.poisoned.into()) > 10, "copies and blame must happen");
    }
}

#[test]
fn worlds_that_broke_once_do_not_any_more() {
    for (world, seed, only) in REGRESSIONS {
        let options = Options { only: Some(only.iter().copied().collect()), ..world(seed) };
        run(&options).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn small_worlds_end_right() {
    judge("small", &run_all(&Options::small, seeds(SMALL_WORLDS)));
}

#[test]
fn a_thousand_hours_end_right() {
    let watch = Stopwatch::start();
    judge("hours", &run_all(&Options::hour, seeds(number("WINDROW_HOURS").unwrap_or(HOURS))));
    println!("in {:.0} s", watch.elapsed().as_secs_f64());
}

/// One fault of each kind, at every moment of small jobs.
#[test]
fn every_fault_at_every_moment() {
    let mut worlds = Vec::new();
    for seed in seeds(GRAPHS) {
        let calm = Options::scripted(seed, Some((0, Script::Nothing)));
        let moments = run(&calm).unwrap_or_else(|broken| fail(&calm, broken)).happenings;
        let executors = (0..3).map(ExecutorId);
        let each = executors.flat_map(|executor| {
            [
                Script::Kill(executor, true),
                Script::Kill(executor, false),
                Script::Freeze(executor, 5_000),
                Script::Freeze(executor, 15_000),
                Script::LoseOutputs(executor),
                Script::Drain(executor),
                Script::FillDisk(executor),
                Script::Mute(executor, 6_000),
                Script::Slow(executor),
            ]
        });
        let scripts: Vec<_> = each.chain([Script::Drop, Script::Repeat, Script::Delay, Script::Fail]).collect();
        for moment in 0..moments {
            worlds.extend(scripts.iter().map(|script| Options::scripted(seed, Some((moment, *script)))));
        }
    }
    println!("{} worlds of one fault each", worlds.len());
    let world = |index: u64| worlds[usize::try_from(index).unwrap_or(usize::MAX)].clone();
    let reports = run_all(&world, 0..worlds.len() as u64);
    let rerun: u64 = reports.iter().map(|report| report.counters.partitions_rerun).sum();
    assert!(rerun > 1_000 || number("WINDROW_SEED").is_some(), "the faults must cost something: {rerun} partitions ran again");
}

#[test]
fn ten_thousand_executors_run_a_million_tasks() {
    let watch = Stopwatch::start();
    let options = Options::huge(number("WINDROW_SEED").unwrap_or(1));
    let report = run(&options).unwrap_or_else(|broken| panic!("seed {}: {}", options.seed, broken.message));
    println!("{} tasks in {:.0} s: {report:?}", report.counters.partitions_committed, watch.elapsed().as_secs_f64());
    assert!(report.counters.partitions_committed >= 1_000_000, "{} tasks", report.counters.partitions_committed);
    assert!(report.struck(Mischief::Kill) == 50 && report.counters.partitions_rerun > 0, "the faults must fire");
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in seeds(100) {
        assert_eq!(run(&Options::small(seed)), run(&Options::small(seed)));
    }
}

/// The proof that the simulator can fail: each of these bugs is found.
#[test]
fn planted_bugs_are_found() {
    for fault in Fault::ALL {
        let world = |seed| Options { planted: Some(fault), ..Options::small(seed) };
        let found = (0..10_000).find_map(|seed| run(&world(seed)).err().map(|broken| (seed, broken)));
        let Some((seed, broken)) = found else { panic!("{fault:?} is not found in 10,000 worlds") };
        println!("{fault:?}: after {} worlds: {}", seed + 1, broken.message.chars().take(120).collect::<String>());
    }
}
