//! What world is made, and how it is hurt.

use std::collections::BTreeSet;

use windrow_core::ids::ExecutorId;

use super::graphs::Shape;
use crate::faults::Fault;

/// How often faults strike while they do.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    /// Kills, in all.
    pub kills: u64,
    /// Times that an executor stands still, in all.
    pub freezes: u64,
    /// Times that an executor becomes slow, in all.
    pub slow: u64,
    /// Times that a disk fills up, in all.
    pub full_disks: u64,
    /// Times that two executors lose each other, in all.
    pub clogs: u64,
    /// Times that an executor and the scheduler lose each other, in all.
    pub mutes: u64,
    /// Executors asked to leave, in all.
    pub drains: u64,
    /// Outputs lost, in a thousand.
    pub lost_outputs: u64,
    /// Messages lost, in a thousand.
    pub dropped: u64,
    /// Messages repeated, in a thousand.
    pub repeated: u64,
    /// Messages delayed beyond others, in a thousand.
    pub delayed: u64,
    /// Attempts that fail by themselves, in a thousand.
    pub failed: u64,
    /// Jobs cancelled by their client, in a thousand.
    pub cancelled: u64,
    /// Stages whose rows vary that are taken for ones that repeat themselves, in a thousand.
    pub misjudged: u64,
}

/// A single fault at one moment of a world without others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Nothing.
    Nothing,
    /// An executor is killed; with its connection reset, or in silence.
    Kill(ExecutorId, bool),
    /// An executor stands still for so many milliseconds.
    Freeze(ExecutorId, u64),
    /// All files of an executor are gone.
    LoseOutputs(ExecutorId),
    /// An executor is asked to leave.
    Drain(ExecutorId),
    /// An executor's disk is full for some seconds.
    FillDisk(ExecutorId),
    /// An executor and the scheduler do not hear each other for so many milliseconds.
    Mute(ExecutorId, u64),
    /// An executor becomes slow.
    Slow(ExecutorId),
    /// The next message is lost.
    Drop,
    /// The next message comes twice.
    Repeat,
    /// The next message comes late.
    Delay,
    /// The next attempt fails.
    Fail,
}

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
    /// Of these, jobs with a partition that ends every executor that runs it.
    pub poisonous: u32,
    /// What jobs look like.
    pub shape: Shape,
    /// What strikes.
    pub rates: Rates,
    /// How long faults last, in virtual milliseconds.
    pub faulty_ms: u64,
    /// Run `check()` after every so many steps.
    pub check_every: u64,
    /// Keep outputs until the job ends.
    pub keep_outputs: bool,
    /// Every other job's client keeps the result and reads it again.
    pub keep_results: bool,
    /// Bytes of each job's result that may wait for a reader; 0 is no limit. With one, some clients read in order, and some when all is done.
    pub unfetched_max: u64,
    /// Timeouts of the scheduler, in percent of the defaults.
    pub timeouts_percent: u64,
    /// The faults that may strike, by number; `None` is all.
    pub only: Option<BTreeSet<u64>>,
    /// One fault, after so many happenings.
    pub script: Option<(u64, Script)>,
    /// A bug to find.
    pub planted: Option<Fault>,
}

impl Options {
    /// A world without faults.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            executors: 3,
            slots_max: 2,
            jobs: 1,
            poisonous: 0,
            shape: Shape::Small,
            rates: Rates::default(),
            faulty_ms: 1_000,
            check_every: 1,
            keep_outputs: seed.is_multiple_of(2),
            keep_results: seed.is_multiple_of(3),
            unfetched_max: if (seed / 3) % 2 == 1 { 1 + seed % 5 } else { 0 },
            timeouts_percent: 100,
            only: None,
            script: None,
            planted: None,
        }
    }

    /// A small world with every kind of fault, each switched off in half of the seeds.
    #[must_use]
    pub fn small(seed: u64) -> Self {
        let mut rng = windrow_core::rand::seeded(seed ^ 0x5EED);
        let mut some = |max: u64| if rng.bool() { rng.u64(1..=max) } else { 0 };
        let rates = Rates {
            kills: some(12),
            freezes: some(6),
            slow: some(6),
            full_disks: some(4),
            clogs: some(6),
            mutes: some(4),
            drains: some(4),
            lost_outputs: some(60),
            dropped: some(60),
            repeated: some(100),
            delayed: some(60),
            failed: some(80),
            cancelled: some(300),
            misjudged: if seed % 4 == 2 { 500 } else { 0 },
        };
        let keep_outputs = some(1) > 0;
        let world = Self {
            rates,
            keep_outputs,
            executors: rng.u32(1..=6),
            slots_max: rng.u32(1..=5),
            jobs: rng.u32(1..=6),
            faulty_ms: 20_000,
            timeouts_percent: *rng.choice(&[50, 100, 100, 400]).unwrap_or(&100),
            ..Self::calm(seed)
        };
        // Whoever is to be blamed must be the only one who kills.
        if seed % 8 == 7 { world.poisoned() } else { world }
    }

    fn poisoned(self) -> Self {
        let Rates { slow, lost_outputs, failed, .. } = self.rates;
        let rates = Rates { slow, lost_outputs, failed, ..Rates::default() };
        Self { poisonous: self.jobs.min(2), slots_max: 5, executors: self.executors.max(2), rates, ..self }
    }

    /// A small cluster for an hour, with jobs and faults all along.
    #[must_use]
    pub fn hour(seed: u64) -> Self {
        let small = Self::small(seed);
        let Rates { kills, freezes, slow, full_disks, clogs, mutes, drains, .. } = small.rates;
        let rates = Rates {
            kills: kills * 4,
            freezes: freezes * 4,
            slow: slow * 4,
            full_disks: full_disks * 4,
            clogs: clogs * 4,
            mutes: mutes * 4,
            drains: drains * 4,
            ..small.rates
        };
        Self { faulty_ms: 3_600_000, jobs: small.jobs * 6, rates, ..small }
    }

    /// A thousand executors and about a hundred thousand tasks.
    #[must_use]
    pub fn large(seed: u64) -> Self {
        let rates = Rates {
            kills: 100,
            freezes: 20,
            slow: 20,
            drains: 5,
            dropped: 1,
            repeated: 5,
            failed: 2,
            cancelled: 20,
            ..Rates::default()
        };
        Self {
            executors: 1_000,
            slots_max: 4,
            jobs: 60,
            shape: Shape::Wide { leaf: 2_000 },
            rates,
            faulty_ms: 30_000,
            check_every: 20_000,
            ..Self::calm(seed)
        }
    }

    /// Ten thousand executors and a million tasks.
    #[must_use]
    pub fn huge(seed: u64) -> Self {
        let large = Self::large(seed);
        let rates = Rates { kills: 50, freezes: 4, ..large.rates.clone() };
        Self { executors: 10_000, shape: Shape::Wide { leaf: 20_000 }, check_every: 1_000_000, rates, ..large }
    }

    /// One job on three executors, with one fault after so many happenings.
    #[must_use]
    pub fn scripted(seed: u64, script: Option<(u64, Script)>) -> Self {
        Self { script, faulty_ms: 60_000, ..Self::calm(seed) }
    }
}
