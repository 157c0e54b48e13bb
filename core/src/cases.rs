//! Cases of a test that goes through a table, counted, so that `SECURITY.md` can say how many there are and be held to it.

use std::collections::BTreeSet;

/// The cases of one test, by name.
///
/// ```
/// let mut cases = windrow_core::cases::Cases::of("M4");
/// for wrong in ["no token", "an empty token"] {
///     cases.case(wrong);
/// }
/// cases.are(2);
/// ```
#[derive(Debug)]
pub struct Cases {
    rule: &'static str,
    names: BTreeSet<String>,
}

impl Cases {
    /// No cases yet of `rule`, as `SECURITY.md` numbers them.
    #[must_use]
    pub fn of(rule: &'static str) -> Self {
        Self { rule, names: BTreeSet::new() }
    }

    /// Counts one case.
    ///
    /// # Panics
    /// If there was one of this name.
    pub fn case(&mut self, name: impl Into<String>) {
        let name = name.into();
        assert!(!self.names.contains(&name), "{}: the case '{name}' is there twice", self.rule);
        self.names.insert(name);
    }

    /// Says how many there were, at the end of the test.
    ///
    /// # Panics
    /// If there were not `count`.
    pub fn are(self, count: usize) {
        assert_eq!(self.names.len(), count, "{}: {:?}", self.rule, self.names);
    }
}
