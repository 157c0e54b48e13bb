//! What the machine has, where the settings leave it open.

use std::fs;

/// Shares of the machine's memory that an executor takes when no limit is set: three of four.
const SHARE: (u64, u64) = (3, 4);

/// Used where the system does not say how much memory there is.
const FALLBACK_BYTES: u64 = 4 << 30;

/// Partitions to compute at a time: the cores that this process may use.
#[must_use]
pub fn slots() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

/// The memory limit in bytes: three quarters of what the machine has or the process's cgroup allows.
#[must_use]
pub fn memory_limit() -> u64 {
    let total = [physical(), cgroup()].into_iter().flatten().min().unwrap_or(FALLBACK_BYTES);
    total / SHARE.1 * SHARE.0
}

fn physical() -> Option<u64> {
    parse_meminfo(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The lowest limit of the process's cgroup (version 2) and those above it, or of version 1's root; `None` without a limit.
fn cgroup() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").trim_start_matches('/');
    let mut limits: Vec<u64> = std::path::Path::new(group)
        .ancestors()
        .filter_map(|path| limit_in(&format!("/sys/fs/cgroup/{}/memory.max", path.display())))
        .collect();
    limits.extend(limit_in("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    limits.into_iter().min()
}

/// A file that holds a number of bytes, or the word `max`.
fn limit_in(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_the_systems_table() {
        assert_eq!(parse_meminfo("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16384 * 1024));
        assert_eq!(parse_meminfo("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn there_is_at_least_one_slot_and_some_memory() {
        assert!(slots() >= 1);
        assert!(memory_limit() > 0);
    }
}
