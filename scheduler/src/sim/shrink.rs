//! A failure made short: the same world with as few of its faults and jobs as still break it.

use std::collections::BTreeSet;

use super::{Broken, Options, run};

/// Worlds that are tried at most.
const TRIES_MAX: usize = 1_500;

/// Leaves out faults of a world that breaks, half of them at first and then fewer and fewer, for as long as it still breaks (Zeller and
/// Hildebrandt, *Simplifying and isolating failure-inducing input*, TSE 2002). `None` if it does not break.
#[must_use]
pub fn shrink(options: &Options) -> Option<(Options, Broken)> {
    let mut broken = run(options).err()?;
    let mut best = options.clone();
    let mut tries = 0;
    let mut parts = 2;
    loop {
        let struck: Vec<u64> = broken.struck.iter().map(|struck| struck.number).collect();
        let size = struck.len().div_ceil(parts).max(1);
        let mut is_shorter = false;
        for without in struck.chunks(size) {
            if tries == TRIES_MAX {
                return Some((best, broken));
            }
            tries += 1;
            let without: BTreeSet<u64> = without.iter().copied().collect();
            let only = struck.iter().copied().filter(|number| !without.contains(number)).collect();
            let fewer = Options { only: Some(only), ..options.clone() };
            if let Err(still) = run(&fewer)
                && still.struck.len() < broken.struck.len()
            {
                (best, broken, is_shorter) = (fewer, still, true);
                break;
            }
        }
        if is_shorter {
            parts = parts.saturating_sub(1).max(2);
        } else if size > 1 {
            parts = (parts * 2).min(broken.struck.len().max(2));
        } else {
            return Some((best, broken));
        }
    }
}
