//! Small worlds for every change; the big one is in `tests/tests/sim`.

use super::{Options, run};
use crate::faults::Fault;

#[test]
fn small_worlds_end_right() {
    let seeds = 400;
    for seed in 0..seeds {
        run(&Options::small(seed)).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..10 {
        assert_eq!(run(&Options::small(seed)), run(&Options::small(seed)));
    }
}

#[test]
fn planted_bugs_are_found() {
    let faults = [
        Fault::StaleIncarnationAccepted,
        Fault::GenerationNotRaised,
        Fault::SlotLeakedOnCancel,
        Fault::ReleasedEarly,
        Fault::SliceSplit,
        Fault::WakeUpForgotten,
    ];
    for fault in faults {
        let found = (0..1_000).find_map(|seed| {
            let options = Options { planted: Some(fault), ..Options::small(seed) };
            run(&options).err().map(|failure| (seed, failure))
        });
        let (seed, failure) = found.unwrap_or_else(|| panic!("{fault:?} is not found"));
        println!("{fault:?}: seed {seed}: {}", failure.chars().take(160).collect::<String>());
    }
}
