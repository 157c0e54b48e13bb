//! What must always hold, as one function over the whole state. Tests run it after every step.

use std::fmt;

use crate::Scheduler;

/// An invariant that does not hold: a bug of the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was found.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.message)
    }
}

impl std::error::Error for Violation {}

impl Scheduler {
    /// Recomputes what is counted and indexed and compares.
    ///
    /// # Errors
    /// The first [`Violation`] found.
    pub fn check(&self) -> Result<(), Violation> {
        self.executors.check().map_err(|message| Violation { invariant: "I3 slots", message })
    }
}
