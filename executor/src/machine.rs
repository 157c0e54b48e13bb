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

/// The lowest limit of the process's cgroup and those above it; `None` without a limit.
fn cgroup() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_files(&groups).iter().filter_map(|file| limit_in(file)).min()
}

/// The files that hold the limits of the groups in `groups`, which is of the form of `/proc/self/cgroup`: version 2 has one hierarchy
/// without a name, version 1 one for memory. Inside a container the path may be that of the host, and the group is the root.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        let above = std::path::Path::new(path.trim_start_matches('/')).ancestors();
        files.extend(above.map(|group| format!("{root}/{}/{file}", group.display()).replace("//", "/")));
    }
    files
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
    fn limits_of_both_versions_of_cgroups_are_looked_for_up_to_the_root() {
        assert_eq!(
            limit_files("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"]
        );
        assert_eq!(
            limit_files("5:cpu,cpuacct:/x\n4:memory:/a\n"),
            ["/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
        assert_eq!(limit_files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
    }

    #[test]
    fn there_is_at_least_one_slot_and_some_memory() {
        assert!(slots() >= 1);
        assert!(memory_limit() > 0);
    }
}
