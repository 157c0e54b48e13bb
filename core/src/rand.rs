//! The only place that draws chance. Nothing secret is drawn here.

/// A number that is unlikely to be drawn twice, for ids.
#[must_use]
pub fn unique() -> u64 {
    fastrand::u64(..)
}

/// A generator that repeats its numbers for the same seed.
#[must_use]
pub fn seeded(seed: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed)
}

pub use fastrand::Rng;
