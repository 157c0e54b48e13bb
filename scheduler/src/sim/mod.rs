//! A model world around the scheduler, in one thread from one seed: executors that compute symbols instead of rows, a bus that delays,
//! loses, repeats and reorders messages, clients that submit, read and cancel. Virtual time, no I/O.
//!
//! First faults strike; then everything heals, and every job must end with the right answer (`data.rs` says what is right) or a sentence
//! that says why not. [`Scheduler::check`](crate::Scheduler::check) runs after every step of small worlds and now and then in big ones.
//!
//! Read `world.rs` for the loop, `mischief.rs` for what strikes, `harm.rs` for what that does, `executor.rs` for what an executor does
//! with a command, `client.rs` for who reads results, `graphs.rs` for the jobs that are drawn, `shrink.rs` for a failure made short.

mod client;
mod data;
mod executor;
mod graphs;
mod harm;
mod mischief;
mod options;
mod shrink;
#[cfg(test)]
mod tests;
mod world;

use std::fmt;

use crate::status::Counters;

pub use graphs::Shape;
pub use mischief::{Mischief, Struck};
pub use options::{Options, Rates, Script};
pub use shrink::shrink;
pub use world::run;

/// What happened in a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Steps of the scheduler.
    pub steps: u64,
    /// Things that happened.
    pub happenings: u64,
    /// Virtual milliseconds until everything had ended.
    pub virtual_ms: u64,
    /// Equal for equal worlds: covers every action in order.
    pub trace: u64,
    /// The scheduler's counters at the end.
    pub counters: Counters,
    /// Jobs whose answer was right.
    pub right: u32,
    /// Jobs whose result was kept and gave the same rows when it was read again.
    pub kept: u32,
    /// Jobs that failed with a reason that the faults excuse.
    pub excused: u32,
    /// Jobs that were given up because a partition of theirs ends executors.
    pub poisoned: u32,
    /// Jobs that their client cancelled.
    pub cancelled: u32,
    /// Stages that took their other form.
    pub replaced: u64,
    /// How often each kind of [`Mischief`] struck, in the order of [`Mischief::ALL`].
    pub struck: [u64; Mischief::ALL.len()],
}

impl Report {
    /// How often a kind struck.
    #[must_use]
    pub fn struck(&self, what: Mischief) -> u64 {
        self.struck[what as usize]
    }
}

/// What went wrong in a world, and the faults that struck before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// A violated invariant, a wrong answer, a job that does not end, something left behind.
    pub message: String,
    /// What struck, in order.
    pub struck: Vec<Struck>,
}

/// Faults that a message lists.
const LISTED_MAX: usize = 40;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} faults and jobs before", self.message, self.struck.len())?;
        self.struck.iter().take(LISTED_MAX).try_for_each(|struck| write!(f, "\n  {struck}"))
    }
}

impl std::error::Error for Broken {}
