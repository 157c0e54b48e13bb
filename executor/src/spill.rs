//! The executor's directory on disk: evicted segments and operators' temporary files, under one quota. Next: `operator_files.rs`.
//!
//! Each executor has its own directory below `executor.spill_dir`, with a file that names its process. Whatever a process that no
//! longer exists left there is removed when the next executor starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder};
use windrow_core::failure::{Failed, Failure, Resource};
use windrow_core::{Error, ErrorKind, Result};

use crate::operator_files::OperatorFiles;

const PREFIX: &str = "windrow-";
const OWNER: &str = "owner";

/// Most runs that one merge of an external sort opens: bounds file handles and read buffers.
const MERGE_FAN_IN_MAX: usize = 64;

/// One executor's directory and its quota. Removed when dropped.
#[derive(Debug)]
pub(crate) struct SpillDir {
    path: PathBuf,
    limit: u64,
    used: AtomicU64,
    next: AtomicU64,
}

impl SpillDir {
    /// Makes a directory below `parent` and removes those of dead processes.
    pub(crate) fn create(parent: &Path, limit: u64) -> Result<Arc<Self>> {
        let failed = |what: &str, path: &Path, source: std::io::Error| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("cannot {what} {}: {source}; set executor.spill_dir to a folder that can be written", path.display()),
            )
            .with_source(source)
        };
        fs::create_dir_all(parent).map_err(|source| failed("create the spill directory", parent, source))?;
        remove_stale(parent);
        let path = parent.join(format!("{PREFIX}{:016x}", windrow_core::rand::unique()));
        fs::create_dir(&path).map_err(|source| failed("create the spill directory", &path, source))?;
        let owner = Owner::this_process().to_string();
        fs::write(path.join(OWNER), owner).map_err(|source| failed("write to the spill directory", &path, source))?;
        Ok(Arc::new(Self { path, limit, used: AtomicU64::new(0), next: AtomicU64::new(0) }))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes on disk: segments and operators' files.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A path that no other file of this directory has.
    pub(crate) fn new_file(&self) -> PathBuf {
        self.path.join(format!("segments-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Takes `bytes` of the quota; give them back with [`Self::give_back`].
    pub(crate) fn take(&self, bytes: u64) -> Result<(), Failed> {
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| used.checked_add(bytes).filter(|sum| *sum <= self.limit));
        taken.map(|_| ()).map_err(|used| {
            Failed::new(
                Failure::Resources { what: Resource::Disk, asked: bytes, limit: self.limit },
                format!(
                    "writing {bytes} bytes to {} would exceed executor.spill_limit: {used} of {} bytes are in use",
                    self.path.display(),
                    self.limit
                ),
            )
        })
    }

    /// Returns `bytes` to the quota.
    pub(crate) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A disk manager for the operators of one attempt, whose files count against this quota and go with it.
    pub(crate) fn disk_manager(self: &Arc<Self>) -> datafusion::error::Result<DiskManager> {
        DiskManagerBuilder::default()
            .with_temp_file_factory(Arc::new(OperatorFiles::new(Arc::clone(self))))
            .with_max_spill_merge_fan_in(MERGE_FAN_IN_MAX)
            .build()
    }

    /// Removes the directory and everything in it.
    pub(crate) fn remove(&self) {
        remove_dir(&self.path);
    }
}

impl Drop for SpillDir {
    fn drop(&mut self) {
        self.remove();
    }
}

fn remove_dir(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a spill directory");
        }
        _ => {}
    }
}

/// Removes the directories below `parent` whose process is gone.
fn remove_stale(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // A directory without an owner's file is just being made by another process.
        let Ok(owner) = fs::read_to_string(entry.path().join(OWNER)) else { continue };
        if Owner::parse(&owner).is_some_and(|owner| !owner.is_alive()) {
            tracing::info!(path = %entry.path().display(), "removing the spill directory of a process that is gone");
            remove_dir(&entry.path());
        }
    }
}

/// A process: its number and when it started, because numbers are used again.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    started: u64,
}

impl Owner {
    fn this_process() -> Self {
        let pid = std::process::id();
        Self { pid, started: started(pid).unwrap_or(0) }
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.parse().ok()? })
    }

    fn is_alive(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.pid, self.started)
    }
}

/// When a process started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`, counted behind the command's name, which
/// may hold spaces.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_dead_process_is_removed_and_that_of_a_live_one_kept() {
        let parent = tempfile::tempdir().unwrap();
        let live = SpillDir::create(parent.path(), 100).unwrap();
        let stale = parent.path().join("windrow-stale");
        fs::create_dir(&stale).unwrap();
        // This process's number, started at another time: a number that was used again.
        fs::write(stale.join(OWNER), format!("{} 1", std::process::id())).unwrap();
        fs::write(stale.join("segments-0"), b"rows").unwrap();
        let second = SpillDir::create(parent.path(), 100).unwrap();
        assert!(!stale.exists());
        assert!(live.path().exists());
        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn exceeding_the_quota_names_the_directory_and_the_bytes() {
        let parent = tempfile::tempdir().unwrap();
        let dir = SpillDir::create(parent.path(), 100).unwrap();
        dir.take(60).unwrap();
        let failed = dir.take(50).unwrap_err();
        assert_eq!(failed.failure, Failure::Resources { what: Resource::Disk, asked: 50, limit: 100 });
        assert!(failed.message.contains(&dir.path().display().to_string()), "{failed}");
        assert!(failed.message.contains("50 bytes") && failed.message.contains("60 of 100"), "{failed}");
        dir.give_back(60);
        dir.take(100).unwrap();
    }
}
