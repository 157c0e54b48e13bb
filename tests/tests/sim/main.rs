//! The simulator: the scheduler in a model world, from a seed. The world itself is `scheduler/src/sim/`.
//!
//! `WINDROW_SEED=n cargo test --release --workspace --test sim` replays one seed in every test; without it, fixed seeds run.
#![expect(clippy::panic, reason = "test code: a panic fails the test with its reason")]

use windrow_scheduler::Fault;
use windrow_scheduler::sim::{Options, Report, run};

/// Seeds of small worlds in one run.
const SMALL_WORLDS: u64 = 300;

/// The seed to replay, if one is given.
#[expect(clippy::disallowed_methods, reason = "a seed to replay comes from outside")]
fn seed() -> Option<u64> {
    std::env::var("WINDROW_SEED").ok().and_then(|text| text.parse().ok())
}

fn run_or_print(options: &Options) -> Report {
    run(options).unwrap_or_else(|failure| {
        let seed = options.seed;
        panic!("seed {seed}: {failure}\nreplay: WINDROW_SEED={seed} cargo test --release --workspace --test sim")
    })
}

#[test]
fn small_worlds_end_right() {
    let seeds = seed().map_or(0..SMALL_WORLDS, |seed| seed..seed + 1);
    let reports: Vec<Report> = seeds.map(|seed| run_or_print(&Options::small(seed))).collect();
    let sum = |value: fn(&Report) -> u64| reports.iter().map(value).sum::<u64>();
    let (kills, rerun) = (sum(|r| r.kills.into()), sum(|r| r.counters.partitions_rerun));
    println!("{} worlds: faults fired: {kills} kills, {} lost messages", reports.len(), sum(|r| r.dropped));
    println!(
        "{} jobs right, {} excused, {} cancelled",
        sum(|r| r.right.into()),
        sum(|r| r.excused.into()),
        sum(|r| r.cancelled.into())
    );
    assert!(seed().is_some() || (kills > 100 && rerun > 100), "the faults must fire: {kills} kills, {rerun} partitions rerun");
}

#[test]
fn a_thousand_executors_run_a_hundred_thousand_tasks() {
    let seed = seed().unwrap_or(1);
    println!("seed {seed}; replay: WINDROW_SEED={seed} cargo test --release --workspace --test sim");
    let report = run_or_print(&Options::large(seed));
    println!("{report:?}");
    assert!(report.counters.partitions_committed >= 100_000, "{} tasks", report.counters.partitions_committed);
    assert!(report.kills > 50 && report.counters.partitions_rerun > 0, "the faults must fire");
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in seed().map_or(0..20, |seed| seed..seed + 1) {
        assert_eq!(run(&Options::small(seed)), run(&Options::small(seed)));
    }
}

#[test]
fn planted_bugs_are_found() {
    let faults = [Fault::StaleIncarnationAccepted, Fault::GenerationNotRaised, Fault::SlotLeakedOnCancel];
    for fault in faults.into_iter().chain([Fault::ReleasedEarly, Fault::SliceSplit, Fault::WakeUpForgotten]) {
        let found = (0..1_000).find(|&seed| run(&Options { planted: Some(fault), ..Options::small(seed) }).is_err());
        assert!(found.is_some(), "{fault:?} is not found in 1,000 worlds");
    }
}
