//! Small worlds for every change; the long ones are in `tests/tests/sim`.

use super::{Mischief, Options, run, shrink};
use crate::faults::Fault;

#[test]
fn small_worlds_end_right() {
    for seed in 0..400 {
        run(&Options::small(seed)).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn a_failure_is_made_short() {
    let planted = Some(Fault::GenerationNotRaised);
    let found = (0..200).map(|seed| Options { planted, ..Options::small(seed) }).find(|options| run(options).is_err());
    let options = found.expect("a world that breaks");
    let before = run(&options).unwrap_err().struck.len();
    let (short, broken) = shrink(&options).expect("it breaks");
    assert!(broken.struck.len() * 2 < before, "{before} faults became: {broken}");
    assert!(broken.struck.iter().any(|struck| struck.what == Mischief::Job), "{broken}");
    assert_eq!(run(&short).unwrap_err(), broken, "the short world is the same each time");
    for struck in &broken.struck {
        let only = broken.struck.iter().map(|struck| struck.number).filter(|number| *number != struck.number).collect();
        run(&Options { only: Some(only), ..options.clone() }).expect("each that is left is needed");
    }
}

/// The planted bugs of kept results are found; `tests/tests/sim` does this for all of them.
#[test]
fn results_that_are_not_kept_are_found() {
    for fault in [Fault::KeptForgotten, Fault::KeptRedealt, Fault::KeptWhole] {
        let world = |seed| Options { planted: Some(fault), ..Options::small(seed) };
        let found = (0..4_000).find_map(|seed| run(&world(seed)).err().map(|broken| (seed, broken)));
        let (seed, broken) = found.unwrap_or_else(|| panic!("{fault:?} is not found"));
        println!("{fault:?}: after {} worlds: {}", seed + 1, broken.message);
    }
    let kept: u32 = (0..200).map(|seed| run(&Options::small(seed)).map_or(0, |report| report.kept)).sum();
    assert!(kept > 50, "{kept} kept results");
}
