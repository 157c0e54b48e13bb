//! The executor's directories on disk: evicted segments and operators' temporary files, under one quota. Next: `operator_files.rs`.
//!
//! Each executor has its own directory below each folder of `executor.spill_dir`, with a file that names its process. Whatever a
//! process that no longer exists left there is removed when the next executor starts. Files go to the directories in turn; one whose
//! disk is full gets no more until something was deleted, and one whose disk failed or gave back other bytes a few times gets none at
//! all, as long as there is a better one.
//!
//! Rows of queries are in these files: directories are for their owner alone (0700), and so are the files (0600). Nothing here follows
//! a link that somebody else has put where a directory or a file of ours is made, looked for or removed.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder};
use windrow_core::failure::{Failed, Failure, Resource, TransientKind};
use windrow_core::{Error, ErrorKind, Result};

use crate::operator_files::OperatorFiles;

const PREFIX: &str = "windrow-";
const OWNER: &str = "owner";

/// What an owner's file has at most: two numbers.
const OWNER_BYTES_MAX: u64 = 64;

/// Most runs that one merge of an external sort opens: bounds file handles and read buffers.
const MERGE_FAN_IN_MAX: usize = 64;

/// Failures of a disk after which it gets no more files.
const DISK_FAILURES_MAX: u32 = 3;

/// One executor's directories and their quota. Removed when dropped.
#[derive(Debug)]
pub(crate) struct SpillDir {
    places: Vec<Place>,
    limit: u64,
    used: AtomicU64,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// The directory that it is in was not there before.
    made_parent: bool,
    /// The system said that its disk is full.
    full: AtomicBool,
    /// How often it could not be written or read, or did not hold what was written.
    failures: AtomicU32,
}

impl SpillDir {
    /// Makes a directory below each of `parents`, separated as in `PATH`, and removes those of dead processes.
    pub(crate) fn create(parents: &Path, limit: u64) -> Result<Arc<Self>> {
        let places = std::env::split_paths(parents).map(|parent| Place::create(&parent)).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Self { places, limit, used: AtomicU64::new(0), next: AtomicUsize::new(0) }))
    }

    /// The directory for the next file.
    pub(crate) fn path(&self) -> &Path {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = || self.places.iter().cycle().skip(turn % self.places.len().max(1)).take(self.places.len());
        let has_room = |place: &&Place| !place.full.load(Ordering::Relaxed);
        let sound = || in_turn().filter(|place| place.is_sound());
        let place =
            sound().find(has_room).or_else(|| sound().next()).or_else(|| in_turn().find(has_room)).or_else(|| in_turn().next());
        place.map_or(Path::new("."), |place| &place.path)
    }

    /// Bytes on disk: segments and operators' files.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A path that no other file of these directories has.
    pub(crate) fn new_file(&self) -> PathBuf {
        self.path().join(format!("segments-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Makes a file at a path of [`Self::new_file`], for this user alone. A link that is there is not followed.
    pub(crate) fn create_file(path: &Path) -> io::Result<fs::File> {
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    /// The failure of writing `bytes` to `file`, which is in one of the directories.
    pub(crate) fn write_failed(&self, file: &Path, bytes: u64, source: &io::Error) -> Failed {
        let folder = self.place(file);
        let shown = folder.map_or(file, |place| &place.path).display();
        let is_full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let failure = if is_full {
            folder.iter().for_each(|place| place.full.store(true, Ordering::Relaxed));
            Failure::Resources { what: Resource::Disk, asked: bytes, limit: self.used() }
        } else {
            self.disk_failed(file);
            Failure::Transient { what: TransientKind::Io, retry_after_ms: None }
        };
        let message = format!(
            "cannot write {bytes} bytes to {shown}, where {} bytes are already spilled: {source}; free the disk or change \
             executor.spill_dir",
            self.used()
        );
        Failed::new(failure, message)
    }

    /// The disk of `file` failed, or gave back other bytes than were written.
    pub(crate) fn disk_failed(&self, file: &Path) {
        let Some(place) = self.place(file) else { return };
        if place.failures.fetch_add(1, Ordering::Relaxed) + 1 == DISK_FAILURES_MAX {
            tracing::error!(path = %place.path.display(), "this disk failed {DISK_FAILURES_MAX} times: it gets no more spill files");
        }
    }

    fn place(&self, file: &Path) -> Option<&Place> {
        self.places.iter().find(|place| file.starts_with(&place.path))
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
                    self.shown(),
                    self.limit
                ),
            )
        })
    }

    /// Returns `bytes` to the quota.
    pub(crate) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if bytes > 0 {
            self.places.iter().for_each(|place| place.full.store(false, Ordering::Relaxed));
        }
    }

    fn shown(&self) -> String {
        self.places.iter().map(|place| place.path.display().to_string()).collect::<Vec<_>>().join(" and ")
    }

    /// A disk manager for the operators of one attempt, whose files count against this quota and go with it.
    pub(crate) fn disk_manager(self: &Arc<Self>) -> datafusion::error::Result<DiskManager> {
        DiskManagerBuilder::default()
            .with_temp_file_factory(Arc::new(OperatorFiles::new(Arc::clone(self))))
            .with_max_spill_merge_fan_in(MERGE_FAN_IN_MAX)
            .build()
    }

    /// Removes the directories and everything in them.
    pub(crate) fn remove(&self) {
        self.places.iter().for_each(Place::remove);
    }
}

impl Place {
    fn create(parent: &Path) -> Result<Self> {
        let failed = |what: &str, path: &Path, source: io::Error| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("cannot {what} {}: {source}; set executor.spill_dir to a folder that can be written", path.display()),
            )
            .with_source(source)
        };
        let (path, made_parent) = make_below(parent).map_err(|source| failed("create a spill directory in", parent, source))?;
        let owner = Owner::this_process().to_string();
        let written = SpillDir::create_file(&path.join(OWNER)).and_then(|mut file| file.write_all(owner.as_bytes()));
        written.map_err(|source| failed("write to the spill directory", &path, source))?;
        // Whoever made a directory of this process may remove those of others of the same user.
        if let Ok(own) = fs::symlink_metadata(&path) {
            remove_stale(parent, own.uid());
        }
        Ok(Self { path, made_parent, full: AtomicBool::new(false), failures: AtomicU32::new(0) })
    }

    /// Removes the directory and everything in it, and the one that it is in if that was made for it and nothing else is there.
    fn remove(&self) {
        remove_dir(&self.path);
        if let Some(parent) = self.path.parent().filter(|_parent| self.made_parent) {
            let _not_empty = fs::remove_dir(parent);
        }
    }

    fn is_sound(&self) -> bool {
        self.failures.load(Ordering::Relaxed) < DISK_FAILURES_MAX
    }
}

impl Drop for SpillDir {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A new directory below `parent`, and whether that was made as well. Another process may be removing `parent` as the last of its own.
fn make_below(parent: &Path) -> io::Result<(PathBuf, bool)> {
    let mut tries = 3;
    loop {
        let made_parent = !parent.try_exists()?;
        fs::create_dir_all(parent)?;
        let path = parent.join(format!("{PREFIX}{:016x}", windrow_core::rand::unique()));
        // Fails for whatever is there already, and a link is something.
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => tries -= 1,
            made => return made.map(|()| (path, made_parent)),
        }
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

/// Removes the directories below `parent` that are `user`'s and whose process is gone.
fn remove_stale(parent: &Path, user: u32) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        // Of the entry itself: what somebody else made, or linked, is left alone and not looked into.
        let is_own = entry.metadata().is_ok_and(|about| about.is_dir() && about.uid() == user);
        if !is_own || !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // A directory without an owner's file is just being made by another process.
        let Ok(owner) = owner_of(&entry.path()) else { continue };
        if Owner::parse(&owner).is_some_and(|owner| !owner.is_alive()) {
            tracing::info!(path = %entry.path().display(), "removing the spill directory of a process that is gone");
            remove_dir(&entry.path());
        }
    }
}

/// The text of a directory's owner file, which must be a file: a pipe would hold up the start.
fn owner_of(directory: &Path) -> io::Result<String> {
    let path = directory.join(OWNER);
    if !fs::symlink_metadata(&path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    fs::File::open(&path)?.take(OWNER_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
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
    use windrow_core::cases::Cases;

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
    fn who_made_the_folder_of_its_directory_removes_it_if_nobody_else_uses_it() {
        let there = tempfile::tempdir().unwrap();
        let parent = there.path().join("own");
        let maker = SpillDir::create(&parent, 100).unwrap();
        let other = SpillDir::create(&parent, 100).unwrap();
        drop(maker);
        assert!(other.path().exists(), "another uses it");
        drop(other);
        assert!(parent.exists(), "who found it there leaves it");
        fs::remove_dir(&parent).unwrap();
        drop(SpillDir::create(&parent, 100).unwrap());
        assert!(!parent.exists());
        drop(SpillDir::create(there.path(), 100).unwrap());
        assert!(there.path().exists(), "it was there before");
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    fn plant_stale(parent: &Path, name: &str) -> PathBuf {
        let stale = parent.join(name);
        fs::create_dir(&stale).unwrap();
        fs::write(stale.join(OWNER), format!("{} 1", std::process::id())).unwrap();
        stale
    }

    #[test]
    fn security_m23_directories_and_files_are_for_their_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let mut cases = Cases::of("M23");
        let dir = SpillDir::create(parent.path(), 100).unwrap();
        let other = SpillDir::create(parent.path(), 100).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
        cases.case("the directory");
        assert_eq!(mode(&dir.path().join(OWNER)), 0o600);
        cases.case("the owner's file");
        let path = dir.new_file();
        let _file = SpillDir::create_file(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        cases.case("a segment file");
        let manager = dir.disk_manager().unwrap();
        let file = Arc::new(manager).create_tmp_file("rows").unwrap();
        let operators = file.path().unwrap().to_owned();
        assert_eq!(mode(&operators), 0o600);
        cases.case("an operator's file");
        let name = |dir: &SpillDir| dir.path().file_name().unwrap().to_string_lossy().into_owned();
        let random = name(&dir).trim_start_matches(PREFIX).to_owned();
        assert!(name(&dir) != name(&other) && random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()));
        cases.case("each process has one of its own, whose name nobody guesses");
        cases.are(5);
    }

    #[test]
    fn security_m23_what_a_dead_process_left_is_gone_after_a_start_and_nothing_else() {
        let (parent, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut cases = Cases::of("M23");
        let kept = outside.path().join("kept");
        fs::write(&kept, "rows").unwrap();
        let stale = plant_stale(parent.path(), "windrow-stale");
        fs::create_dir(stale.join("attempt-1")).unwrap();
        fs::write(stale.join("attempt-1/rows"), "rows").unwrap();
        std::os::unix::fs::symlink(outside.path(), stale.join("folder")).unwrap();
        std::os::unix::fs::symlink(&kept, stale.join("segments-0")).unwrap();
        let linked = plant_stale(outside.path(), "windrow-elsewhere");
        std::os::unix::fs::symlink(&linked, parent.path().join("windrow-linked")).unwrap();
        let piped = parent.path().join("windrow-piped");
        fs::create_dir(&piped).unwrap();
        make_pipe(&piped.join(OWNER));
        let borrowed = parent.path().join("windrow-borrowed");
        fs::create_dir(&borrowed).unwrap();
        std::os::unix::fs::symlink(stale.join(OWNER), borrowed.join(OWNER)).unwrap();
        let unnamed = plant_stale(parent.path(), "somebody-elses");
        let started = SpillDir::create(parent.path(), 100).unwrap();
        for (what, is_right) in [
            ("a dead process's rows are gone", !stale.exists()),
            ("a link in them is removed, not followed", kept.exists()),
            ("a directory elsewhere that is linked stays", linked.exists()),
            ("a pipe in place of the owner's file holds nothing up", piped.exists()),
            ("a link in place of the owner's file is not read", borrowed.exists()),
            ("a directory of another name stays", unnamed.exists()),
            ("the new one is there", started.path().exists()),
        ] {
            assert!(is_right, "{what}");
            cases.case(what);
        }
        cases.are(7);
    }

    fn make_pipe(path: &Path) {
        let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
        assert!(status.success());
    }

    #[test]
    fn security_m8_files_are_made_beside_what_is_planted_and_removed_without_following_it() {
        let (parent, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut cases = Cases::of("M8");
        let dir = SpillDir::create(parent.path(), 100).unwrap();
        let kept = outside.path().join("kept");
        fs::write(&kept, "rows").unwrap();
        // Where the next files will be.
        for (what, target) in [("a link to a file", kept.clone()), ("a link to nothing", outside.path().join("made"))] {
            let next = dir.path().join(what);
            std::os::unix::fs::symlink(&target, &next).unwrap();
            assert_eq!(SpillDir::create_file(&next).unwrap_err().kind(), io::ErrorKind::AlreadyExists, "{what}");
            assert_eq!((fs::read_to_string(&kept).unwrap().as_str(), outside.path().join("made").exists()), ("rows", false));
            cases.case(what);
        }
        std::os::unix::fs::symlink(outside.path(), dir.path().join("a link to a folder")).unwrap();
        let path = dir.path().to_owned();
        drop(dir);
        assert!(!path.exists() && kept.exists());
        cases.case("a link to a folder, at the end");
        let made = SpillDir::create(parent.path(), 100).unwrap();
        for _ in 0..50 {
            let path = made.new_file();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let number = name.strip_prefix("segments-").unwrap();
            assert!(number.bytes().all(|byte| byte.is_ascii_digit()) && path.parent() == Some(made.path()), "{name}");
        }
        cases.case("names are a number and nothing that somebody sent");
        cases.are(4);
    }

    #[test]
    fn files_go_to_the_folders_in_turn_and_a_full_disk_gets_none_until_something_is_deleted() {
        let parents = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let paths = std::env::join_paths(parents.iter().map(tempfile::TempDir::path)).unwrap();
        let dir = SpillDir::create(Path::new(&paths), 100).unwrap();
        let holds =
            |parent: &tempfile::TempDir, files: &[PathBuf]| files.iter().filter(|file| file.starts_with(parent.path())).count();
        let files: Vec<PathBuf> = (0..8).map(|_| dir.path().to_owned()).collect();
        assert_eq!((holds(&parents[0], &files), holds(&parents[1], &files)), (4, 4));
        dir.take(10).unwrap();
        let failed = dir.write_failed(&files[0].join("x"), 7, &io::ErrorKind::StorageFull.into());
        assert_eq!(failed.failure, Failure::Resources { what: Resource::Disk, asked: 7, limit: 10 });
        assert!(failed.message.contains(&files[0].display().to_string()) && failed.message.contains("7 bytes"), "{failed}");
        assert!((0..8).all(|_| !dir.new_file().starts_with(&files[0])));
        dir.give_back(10);
        assert!((0..8).any(|_| dir.path().starts_with(&files[0])));
        drop(dir);
        assert!(parents.iter().all(|parent| fs::read_dir(parent).unwrap().next().is_none()));
    }

    #[test]
    fn a_disk_that_failed_a_few_times_gets_no_more_files_unless_there_is_no_other() {
        let parents = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let paths = std::env::join_paths(parents.iter().map(tempfile::TempDir::path)).unwrap();
        let dir = SpillDir::create(Path::new(&paths), 100).unwrap();
        let (bad, good) = (dir.path().to_owned(), dir.path().to_owned());
        for _ in 0..DISK_FAILURES_MAX {
            assert!((0..4).any(|_| dir.new_file().starts_with(&bad)));
            let failed = dir.write_failed(&bad.join("x"), 7, &io::Error::other("input/output error"));
            assert_eq!(failed.failure, Failure::Transient { what: TransientKind::Io, retry_after_ms: None });
        }
        assert!((0..8).all(|_| dir.new_file().starts_with(&good)));
        dir.write_failed(&good.join("x"), 7, &io::ErrorKind::StorageFull.into());
        assert!((0..8).all(|_| dir.new_file().starts_with(&good)), "a disk that may have room again is better than a broken one");
        (0..DISK_FAILURES_MAX).for_each(|_| dir.disk_failed(&good));
        assert!(dir.new_file().starts_with(&bad), "of two bad ones the one with room");
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
