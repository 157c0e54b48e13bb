//! A model world around the scheduler, in one thread from one seed: executors that compute symbols instead of rows, a bus that delays,
//! loses and repeats messages, clients that submit, read and cancel. Virtual time, no I/O.
//!
//! First faults strike; then everything heals, and every job must end with the right answer (`data.rs` says what is right) or a sentence
//! that says why not. [`Scheduler::check`](crate::Scheduler::check) runs after every step of small worlds and now and then in big ones.
//!
//! Read `world.rs` for the loop, `executor.rs` for what an executor does with a command, `client.rs` for who reads results,
//! `graphs.rs` for the jobs that are drawn.

mod client;
mod data;
mod executor;
mod graphs;
#[cfg(test)]
mod tests;
mod world;

use crate::faults::Fault;
use crate::status::Counters;

pub use graphs::Shape;
pub use world::run;

/// What world is made, and how it is hurt.
#[derive(Debug, Clone)]
pub struct Options {
    /// Draws everything.
    pub seed: u64,
    /// Model executors.
    pub executors: u32,
    /// Slots of each, at most.
    pub slots_max: u32,
    /// Jobs submitted.
    pub jobs: u32,
    /// What jobs look like.
    pub shape: Shape,
    /// Kills in the faulty phase.
    pub kills: u32,
    /// Messages lost, in a thousand, while there are faults.
    pub drop_per_mille: u64,
    /// Messages repeated, in a thousand, while there are faults.
    pub repeat_per_mille: u64,
    /// Attempts that fail by themselves, in a thousand, while there are faults.
    pub fail_per_mille: u64,
    /// Jobs cancelled by their client, in a thousand.
    pub cancel_per_mille: u64,
    /// How long faults last, in virtual milliseconds.
    pub faulty_ms: u64,
    /// Run `check()` after every so many steps.
    pub check_every: u64,
    /// Keep outputs until the job ends.
    pub keep_outputs: bool,
    /// A bug to find.
    pub planted: Option<Fault>,
}

impl Options {
    /// A small world with every kind of fault, each switched off in half of the seeds.
    #[must_use]
    pub fn small(seed: u64) -> Self {
        let mut rng = windrow_core::rand::seeded(seed ^ 0x5EED);
        let mut some = |max: u64| if rng.bool() { rng.u64(1..=max) } else { 0 };
        Self {
            seed,
            kills: u32::try_from(some(12)).unwrap_or(0),
            drop_per_mille: some(60),
            repeat_per_mille: some(100),
            fail_per_mille: some(80),
            cancel_per_mille: some(300),
            keep_outputs: some(1) > 0,
            executors: rng.u32(1..=6),
            slots_max: rng.u32(1..=5),
            jobs: rng.u32(1..=6),
            shape: Shape::Small,
            faulty_ms: 20_000,
            check_every: 1,
            planted: None,
        }
    }

    /// A thousand executors and about a hundred thousand tasks.
    #[must_use]
    pub fn large(seed: u64) -> Self {
        Self {
            seed,
            executors: 1_000,
            slots_max: 4,
            jobs: 60,
            shape: Shape::Wide,
            kills: 100,
            drop_per_mille: 1,
            repeat_per_mille: 5,
            fail_per_mille: 2,
            cancel_per_mille: 20,
            faulty_ms: 30_000,
            check_every: 20_000,
            keep_outputs: seed.is_multiple_of(2),
            planted: None,
        }
    }
}

/// What happened in a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Steps of the scheduler.
    pub steps: u64,
    /// Virtual milliseconds until everything had ended.
    pub virtual_ms: u64,
    /// Equal for equal worlds: covers every action in order.
    pub trace: u64,
    /// The scheduler's counters at the end.
    pub counters: Counters,
    /// Jobs whose answer was right.
    pub right: u32,
    /// Jobs that failed with a reason that the faults excuse.
    pub excused: u32,
    /// Jobs that their client cancelled.
    pub cancelled: u32,
    /// Executors killed.
    pub kills: u32,
    /// Stages that took their other form.
    pub replaced: u64,
    /// Messages lost.
    pub dropped: u64,
    /// Messages repeated.
    pub repeated: u64,
}
