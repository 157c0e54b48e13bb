//! The faults of the model world. Whether a fault strikes is decided by the seed and the number of the opportunity, not by the generator
//! that draws everything else: so a world can be run again with some of its faults left out, which is how a failure is made short.

use std::collections::BTreeSet;
use std::fmt;

use super::data::mix;

/// What can strike. A job is one too, so that those which do not matter can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mischief {
    /// A job comes.
    Job,
    /// A client cancels.
    Cancel,
    /// An executor is killed.
    Kill,
    /// An executor stands still for a while.
    Freeze,
    /// An executor is many times slower for a while.
    Slow,
    /// An executor's disk is full for a while.
    FillDisk,
    /// Two executors cannot reach each other for a while.
    Clog,
    /// An executor and the scheduler do not hear each other for a while, one way or both.
    Mute,
    /// An executor is asked to leave.
    Drain,
    /// A committed output is gone.
    LoseOutput,
    /// A message is lost.
    Drop,
    /// A message comes twice.
    Repeat,
    /// A message comes late, after others.
    Delay,
    /// An attempt fails.
    Fail,
    /// The planner takes a stage whose rows vary for one that repeats itself.
    Misjudge,
}

impl Mischief {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::Job,
        Self::Cancel,
        Self::Kill,
        Self::Freeze,
        Self::Slow,
        Self::FillDisk,
        Self::Clog,
        Self::Mute,
        Self::Drain,
        Self::LoseOutput,
        Self::Drop,
        Self::Repeat,
        Self::Delay,
        Self::Fail,
        Self::Misjudge,
    ];
}

/// A fault that struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Struck {
    /// The number of the opportunity.
    pub number: u64,
    /// When, in virtual milliseconds.
    pub at: u64,
    /// What.
    pub what: Mischief,
    /// The executor or job that it concerns.
    pub who: u64,
}

impl fmt::Display for Struck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} at {} ms: {:?} {}", self.number, self.at, self.what, self.who)
    }
}

/// Decides what strikes, and remembers it.
#[derive(Debug)]
pub(crate) struct Faultline {
    seed: u64,
    next: u64,
    /// The opportunities that may strike; `None` is all.
    only: Option<BTreeSet<u64>>,
    pub(crate) struck: Vec<Struck>,
    counts: [u64; Mischief::ALL.len()],
}

impl Faultline {
    pub(crate) fn new(seed: u64, only: Option<BTreeSet<u64>>) -> Self {
        Self { seed, next: 0, only, struck: Vec::new(), counts: [0; Mischief::ALL.len()] }
    }

    /// An opportunity: strikes with a chance of so many in a thousand, and answers with a number drawn for it.
    pub(crate) fn strikes(&mut self, per_mille: u64, at: u64, what: Mischief, who: u64) -> Option<u64> {
        if per_mille == 0 {
            return None;
        }
        let number = self.next;
        self.next += 1;
        let drawn = mix(self.seed, number);
        if drawn % 1000 >= per_mille || self.only.as_ref().is_some_and(|only| !only.contains(&number)) {
            return None;
        }
        self.counts[what as usize] += 1;
        self.struck.push(Struck { number, at, what, who });
        Some(drawn / 1000)
    }

    /// How often each kind struck.
    pub(crate) fn counts(&self) -> [u64; Mischief::ALL.len()] {
        self.counts
    }
}
