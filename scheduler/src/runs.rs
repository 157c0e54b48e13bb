//! A set of partitions as ascending runs, so that a hundred thousand queued partitions are one entry and a contiguous slice of them
//! is one look-up.

use std::collections::BTreeMap;

/// A set of partitions. No two runs touch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Runs {
    /// Start to end.
    runs: BTreeMap<u32, u32>,
    len: u32,
}

impl Runs {
    /// The partitions `0..count`.
    pub(crate) fn full(count: u32) -> Self {
        let runs = if count == 0 { BTreeMap::new() } else { BTreeMap::from([(0, count)]) };
        Self { runs, len: count }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The run with the lowest partitions.
    pub(crate) fn first(&self) -> Option<(u32, u32)> {
        self.runs.first_key_value().map(|(&start, &end)| (start, end))
    }

    /// The run that holds `partition`.
    fn run_of(&self, partition: u32) -> Option<(u32, u32)> {
        self.runs.range(..=partition).next_back().map(|(&start, &end)| (start, end)).filter(|&(_, end)| partition < end)
    }

    pub(crate) fn contains(&self, partition: u32) -> bool {
        self.run_of(partition).is_some()
    }

    /// Adds `partition`, joining the runs it touches. Says whether it was missing.
    pub(crate) fn insert(&mut self, partition: u32) -> bool {
        let Some(next) = partition.checked_add(1) else { return false };
        if self.contains(partition) {
            return false;
        }
        let end = self.runs.remove(&next).unwrap_or(next);
        match self.runs.range_mut(..partition).next_back() {
            Some((_, before)) if *before == partition => *before = end,
            _ => {
                self.runs.insert(partition, end);
            }
        }
        self.len += 1;
        true
    }

    /// Removes `partition`, cutting its run. Says whether it was there.
    pub(crate) fn remove(&mut self, partition: u32) -> bool {
        let Some((start, end)) = self.run_of(partition) else { return false };
        if start == partition {
            self.runs.remove(&start);
        } else {
            self.runs.insert(start, partition);
        }
        if partition + 1 < end {
            self.runs.insert(partition + 1, end);
        }
        self.len -= 1;
        true
    }

    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.runs.iter().flat_map(|(&start, &end)| start..end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Runs;

    proptest! {
        #[test]
        fn runs_are_a_set(steps in prop::collection::vec((any::<bool>(), 0_u32..40), 0..200)) {
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for (insert, partition) in steps {
                if insert {
                    prop_assert_eq!(runs.insert(partition), set.insert(partition));
                } else {
                    prop_assert_eq!(runs.remove(partition), set.remove(&partition));
                }
                prop_assert_eq!(runs.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(runs.len() as usize, set.len());
                let entries: Vec<_> = runs.runs.iter().collect();
                prop_assert!(entries.windows(2).all(|pair| pair[0].1 < pair[1].0), "no two runs touch");
            }
        }
    }
}
