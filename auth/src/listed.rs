//! Files of credentials, one a line, which are read again when they change. Next: `password.rs` and `bearer.rs`, which say what a line is.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use windrow_core::clock::{Clock, Millis, SystemClock};
use windrow_core::error::{Error, ErrorKind, Result};

use crate::secret_file::{folder_of, read_private_text, write_private};

/// How often a file is looked at, at most.
const LOOK_EVERY_MS: u64 = 1_000;

/// What a file's lines say, as of a second ago.
pub(crate) struct Listed<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T>,
    clock: Arc<dyn Clock>,
    state: Mutex<State<T>>,
}

struct State<T> {
    content: Arc<T>,
    stamp: Option<Stamp>,
    looked_at: Millis,
}

/// What differs once a file was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<std::time::SystemTime>,
    length: u64,
    /// A file that was renamed into place has another one.
    inode: u64,
    mode: u32,
}

impl<T> Listed<T> {
    /// Reads the file at `path`, whose lines `parse` knows.
    pub(crate) fn read(path: &Path, parse: fn(&str) -> Result<T>) -> Result<Self> {
        Self::read_with_clock(path, parse, SystemClock::shared())
    }

    pub(crate) fn read_with_clock(path: &Path, parse: fn(&str) -> Result<T>, clock: Arc<dyn Clock>) -> Result<Self> {
        let stamp = stamp(path);
        let content = Arc::new(load(path, parse)?);
        let state = Mutex::new(State { content, stamp, looked_at: clock.now() });
        Ok(Self { path: path.to_owned(), parse, clock, state })
    }

    /// What the file says. Blocks while a changed file is read. One that cannot be read any more counts as it was: whoever writes it
    /// is not done, or is told by the log.
    pub(crate) fn content(&self) -> Arc<T> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if now.0.saturating_sub(state.looked_at.0) >= LOOK_EVERY_MS {
            state.looked_at = now;
            let stamp = stamp(&self.path);
            if stamp != state.stamp {
                state.stamp = stamp;
                match load(&self.path, self.parse) {
                    Ok(content) => state.content = Arc::new(content),
                    Err(error) => tracing::warn!(path = %self.path.display(), %error, "credentials stay as they were"),
                }
            }
        }
        Arc::clone(&state.content)
    }
}

impl<T> fmt::Debug for Listed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listed").field("path", &self.path).finish_non_exhaustive()
    }
}

fn load<T>(path: &Path, parse: fn(&str) -> Result<T>) -> Result<T> {
    parse(&read_private_text(path)?)
        .map_err(|error| Error { message: format!("'{}', {}", path.display(), error.message), ..error })
}

/// Calls `each` with every line that says something, and names the line that it does not accept.
pub(crate) fn each_line(text: &str, mut each: impl FnMut(&str) -> Result<(), String>) -> Result<()> {
    for (number, line) in (1_u32..).zip(text.lines()).filter(|(_, line)| !is_remark(line)) {
        each(line).map_err(|problem| Error::new(ErrorKind::InvalidConfig, format!("line {number}: {problem}")))?;
    }
    Ok(())
}

/// Writes the file at `path` anew with the lines that `change` makes of the ones there; none if there is no file. Whoever else changes
/// it at the same time comes after.
pub(crate) fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<String>) -> Result<()>) -> Result<()> {
    // The file itself is replaced, so that a lock on it would be one on what was. Where folders have no locks there is none.
    let folder = File::open(folder_of(path)).ok();
    let _locked = folder.as_ref().map(File::lock);
    let text = match read_private_text(path) {
        Err(error) if error.kind == ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines)?;
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    write_private(path, text.as_bytes())
}

/// Whether a line is empty or for people.
pub(crate) fn is_remark(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    #[cfg(unix)]
    let (inode, mode) = {
        use std::os::unix::fs::MetadataExt;
        (metadata.ino(), metadata.mode())
    };
    #[cfg(not(unix))]
    let (inode, mode) = (0, 0);
    Some(Stamp { modified: metadata.modified().ok(), length: metadata.len(), inode, mode })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::secret_file::tests::set_mode;

    /// A clock that a test moves.
    #[derive(Debug, Default)]
    pub(crate) struct Hands(pub(crate) AtomicU64);

    impl Clock for Hands {
        fn now(&self) -> Millis {
            Millis(self.0.load(Ordering::SeqCst))
        }
    }

    fn words(text: &str) -> Result<Vec<String>> {
        let mut words = Vec::new();
        each_line(text, |line| {
            if line.contains(' ') {
                return Err("more than a word".to_owned());
            }
            words.push(line.to_owned());
            Ok(())
        })?;
        Ok(words)
    }

    #[test]
    fn a_changed_file_is_read_again_after_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words");
        write_private(&path, b"# remark\n\none\n").unwrap();
        let clock = Arc::new(Hands::default());
        let listed = Listed::read_with_clock(&path, words, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        assert_eq!(*listed.content(), ["one"]);
        write_private(&path, b"two\n").unwrap();
        clock.0.store(999, Ordering::SeqCst);
        assert_eq!(*listed.content(), ["one"], "not looked at again within a second");
        clock.0.store(1_000, Ordering::SeqCst);
        assert_eq!(*listed.content(), ["two"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_any_more_counts_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words");
        write_private(&path, b"one\n").unwrap();
        let clock = Arc::new(Hands::default());
        let listed = Listed::read_with_clock(&path, words, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let tick = || clock.0.fetch_add(1_000, Ordering::SeqCst);
        write_private(&path, b"no word\n").unwrap();
        tick();
        assert_eq!(*listed.content(), ["one"], "a line is wrong");
        write_private(&path, b"planted\n").unwrap();
        set_mode(&path, 0o666);
        tick();
        assert_eq!(*listed.content(), ["one"], "others may have written it");
        set_mode(&path, 0o600);
        tick();
        assert_eq!(*listed.content(), ["planted"], "made private by its owner");
        fs::remove_file(&path).unwrap();
        tick();
        assert_eq!(*listed.content(), ["planted"], "gone");
        write_private(&path, b"back\n").unwrap();
        tick();
        assert_eq!(*listed.content(), ["back"]);
    }

    #[test]
    fn a_wrong_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words");
        write_private(&path, b"one\n\n# x\nno word\n").unwrap();
        let error = Listed::read(&path, words).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidConfig);
        assert!(error.message.ends_with("words', line 4: more than a word"), "{error}");
    }

    #[test]
    fn rewriting_keeps_other_lines_and_loses_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words");
        rewrite(&path, |lines| {
            lines.push("# kept".to_owned());
            Ok(())
        })
        .unwrap();
        std::thread::scope(|scope| {
            for number in 0..16 {
                let path = &path;
                scope.spawn(move || {
                    rewrite(path, |lines| {
                        lines.push(format!("w{number}"));
                        Ok(())
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap().lines().filter(|line| line.starts_with('w')).count(), 16);
        assert!(fs::read_to_string(&path).unwrap().starts_with("# kept\n"));
        let refused = rewrite(&path, |lines| {
            lines.clear();
            Err(Error::internal("no"))
        });
        assert!(refused.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 17);
    }
}
