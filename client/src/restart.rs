//! When a supervised process that died starts again, and when it no longer does. Pure: the caller brings the time.
//! Used by `supervisor.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use windrow_core::clock::Millis;

/// Deaths within [`WINDOW`] that stop the restarts.
pub(crate) const DEATHS_MAX: usize = 5;
/// How far back deaths count.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// The wait before the first restart; doubles with each death in the window. 100 ms: long enough for the port and the spill
/// directory of the dead process to be free, short enough that nobody waits.
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait, so that an executor is back within two seconds with time to start.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(1);

/// What to do after a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterDeath {
    /// Start again after this wait.
    Restart(Duration),
    /// It dies again and again: leave it.
    GiveUp {
        /// How often it died within the window.
        deaths: usize,
    },
}

/// Remembers the deaths of one process.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    deaths: VecDeque<Millis>,
}

impl Restarts {
    /// Notes a death at `now` and says what follows.
    pub(crate) fn died(&mut self, now: Millis) -> AfterDeath {
        while self.deaths.front().is_some_and(|at| at.after(WINDOW) <= now) {
            self.deaths.pop_front();
        }
        self.deaths.push_back(now);
        let deaths = self.deaths.len();
        if deaths >= DEATHS_MAX {
            return AfterDeath::GiveUp { deaths };
        }
        let doublings = u32::try_from(deaths - 1).unwrap_or(u32::MAX);
        AfterDeath::Restart(FIRST_WAIT.saturating_mul(2_u32.saturating_pow(doublings)).min(WAIT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::{AfterDeath, Restarts};
    use std::time::Duration;
    use windrow_core::clock::Millis;

    fn run(times: &[u64]) -> Vec<AfterDeath> {
        let mut restarts = Restarts::default();
        times.iter().map(|at| restarts.died(Millis(*at))).collect()
    }

    fn wait(millis: u64) -> AfterDeath {
        AfterDeath::Restart(Duration::from_millis(millis))
    }

    #[test]
    fn waits_double_with_each_death() {
        assert_eq!(run(&[0, 1_000, 2_000, 3_000]), [wait(100), wait(200), wait(400), wait(800)]);
    }

    #[test]
    fn the_fifth_death_within_a_minute_ends_the_restarts() {
        assert_eq!(run(&[0, 10_000, 20_000, 30_000, 59_999]).pop(), Some(AfterDeath::GiveUp { deaths: 5 }));
    }

    #[test]
    fn a_death_a_minute_ago_no_longer_counts() {
        assert_eq!(run(&[0, 10_000, 20_000, 30_000, 60_000]).pop(), Some(wait(800)));
        assert_eq!(run(&[0, 60_000, 120_000, 180_000, 240_000, 300_000]), [wait(100); 6]);
    }
}
