//! What the benches share: figures of many runs, printed as a table and as one JSON line.
//!
//! Each bench is one command, `cargo bench --workspace --bench NAME`. Compare figures only within one run: machines differ
//! and drift.

pub mod queries;

use std::time::Duration;

use serde_json::json;

/// Has the allocator keep freed pages, as the program does (`cli/src/main.rs`): otherwise a bench measures the system's page faults.
#[expect(unsafe_code, reason = "the allocator has no safe interface to its options")]
pub fn keep_pages() {
    /// `mi_option_purge_delay` of `mimalloc.h`, in milliseconds.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets one number in a table of the allocator; an unknown index is ignored.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 60_000) }
}

/// Durations of one measured thing.
#[derive(Debug, Clone)]
pub struct Series {
    name: String,
    sorted: Vec<Duration>,
}

impl Series {
    /// The durations of `name`, in any order.
    #[must_use]
    pub fn new(name: impl Into<String>, mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self { name: name.into(), sorted: durations }
    }

    /// The duration that `share` of a hundred runs do not exceed; zero without runs.
    #[must_use]
    pub fn percentile(&self, share: usize) -> Duration {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted.get((last * share.min(100)).div_ceil(100)).copied().unwrap_or_default()
    }
}

/// Prints a table of medians and tails, then the same as one JSON line.
pub fn print(title: &str, series: &[Series]) {
    println!("{title}");
    println!("{:<40} {:>6} {:>12} {:>12} {:>12}", "", "runs", "p50", "p99", "max");
    for one in series {
        let (p50, p99, max) = (one.percentile(50), one.percentile(99), one.percentile(100));
        println!("{:<40} {:>6} {p50:>12.2?} {p99:>12.2?} {max:>12.2?}", one.name, one.sorted.len());
    }
    let rows: Vec<_> = series
        .iter()
        .map(|one| {
            let micros = |share| one.percentile(share).as_micros();
            json!({"name": one.name, "runs": one.sorted.len(), "p50_us": micros(50), "p99_us": micros(99), "max_us": micros(100)})
        })
        .collect();
    println!("{}", json!({"bench": title, "series": rows}));
}
