//! Files that hold secrets: only their owner may read them, and they are never half written. Next: `key.rs`.
//!
//! All of it blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as Io, Read, Write};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use windrow_core::error::{Error, ErrorKind, Result};

/// The longest file that is read: far more than any key, and some hundred thousand users.
const BYTES_MAX: u64 = 32 << 20;

/// Reads a file that nobody but its owner may read.
///
/// # Errors
/// [`ErrorKind::NotFound`]; [`ErrorKind::Denied`] if it cannot be read, or if others can read it too, with the command that changes it.
pub fn read_private(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, error))?;
    if metadata.is_dir() {
        return Err(Error::new(ErrorKind::InvalidConfig, format!("'{}' is a folder, not a file", path.display())));
    }
    check_private(path, &metadata)?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, error))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Error::new(ErrorKind::InvalidConfig, format!("'{}' has more than {BYTES_MAX} bytes", path.display())));
    }
    Ok(bytes)
}

/// The same as text.
pub(crate) fn read_private_text(path: &Path) -> Result<String> {
    // The error of `from_utf8` would carry the bytes.
    String::from_utf8(read_private(path)?)
        .map_err(|_why| Error::new(ErrorKind::InvalidConfig, format!("'{}' is not text in UTF-8", path.display())))
}

/// Writes a file that only its owner may read, in one step: whoever reads meanwhile sees the old content or the new one.
///
/// # Errors
/// [`ErrorKind::Denied`] if the folder cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = NewFile::write(path, bytes, true)?;
    fs::rename(&new.0, path).map_err(|error| unwritable(path, error))?;
    sync_folder(path);
    Ok(())
}

/// The same for a file that must not be there yet.
pub(crate) fn write_private_new(path: &Path, bytes: &[u8]) -> Result<()> {
    write_new(path, bytes, true)
}

/// Writes a file that everybody may read and that must not be there yet.
pub(crate) fn write_public_new(path: &Path, bytes: &[u8]) -> Result<()> {
    write_new(path, bytes, false)
}

fn write_new(path: &Path, bytes: &[u8], is_private: bool) -> Result<()> {
    let new = NewFile::write(path, bytes, is_private)?;
    // Unlike a rename, a link does not replace what is there.
    fs::hard_link(&new.0, path).map_err(|error| unwritable(path, error))?;
    sync_folder(path);
    Ok(())
}

/// Makes a folder that only its owner may enter, with those above it. One that is there already stays as it is.
pub(crate) fn make_private_folder(path: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// The folder that `path` is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A complete file under a name of its own, which goes away unless it was renamed.
struct NewFile(PathBuf);

impl NewFile {
    fn write(path: &Path, bytes: &[u8], is_private: bool) -> Result<Self> {
        let mut unique = [0; 8];
        SystemRandom::new().fill(&mut unique).map_err(|_why| Error::internal("the system gave no random numbers"))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let new = folder_of(path).join(format!(".{name}.{:016x}", u64::from_le_bytes(unique)));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, if is_private { 0o600 } else { 0o644 });
        let mut file = options.open(&new).map_err(|error| unwritable(path, error))?;
        let new = Self(new);
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| unwritable(path, error))?;
        Ok(new)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After a rename there is nothing of this name.
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes the new name survive a loss of power, where the system can.
fn sync_folder(path: &Path) {
    if let Ok(folder) = File::open(folder_of(path)) {
        let _ = folder.sync_all();
    }
}

#[cfg(unix)]
fn check_private(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(Error::new(ErrorKind::Denied, format!("'{path}' holds secrets and others may read or change it (mode {mode:04o})"))
        .with_help(format!("run: chmod 600 '{path}'")))
}

#[cfg(not(unix))]
fn check_private(_path: &Path, _metadata: &fs::Metadata) -> Result<()> {
    Ok(())
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let path = path.display();
    let (kind, problem) = match error.kind() {
        Io::NotFound => (ErrorKind::NotFound, "is not there"),
        Io::PermissionDenied => (ErrorKind::Denied, "cannot be read by this user"),
        _ => (ErrorKind::Denied, "cannot be read"),
    };
    Error::new(kind, format!("'{path}' {problem}")).with_source(error)
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    let problem = match error.kind() {
        Io::AlreadyExists => "is there already",
        Io::NotFound => "cannot be written: there is no such folder",
        _ => "cannot be written",
    };
    Error::new(ErrorKind::Denied, format!("'{}' {problem}", path.display())).with_source(error)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    pub(crate) fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    pub(crate) fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_private_file_is_written_for_its_owner_alone_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for content in [&b"first"[..], b"second"] {
            write_private(&path, content).unwrap();
            assert_eq!((read_private(&path).unwrap().as_slice(), mode(&path)), (content, 0o600));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_file_that_others_may_read_or_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_private(&path, b"planted").unwrap();
        for open in [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666, 0o777] {
            set_mode(&path, open);
            let error = read_private(&path).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Denied, "{open:o}");
            assert_eq!(error.context.help.unwrap(), format!("run: chmod 600 '{}'", path.display()));
            assert!(!error.message.contains("planted"));
        }
        for private in [0o600, 0o400, 0o700] {
            set_mode(&path, private);
            assert_eq!(read_private(&path).unwrap(), b"planted", "{private:o}");
        }
    }

    #[test]
    fn new_files_replace_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_private_new(&path, b"first").unwrap();
        for write in [write_private_new, write_public_new] {
            let error = write(&path, b"second").unwrap_err();
            assert!(error.message.contains("is there already"), "{error}");
        }
        assert_eq!(read_private(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn what_is_not_a_readable_file_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert_eq!(read_private(&missing).unwrap_err().kind, ErrorKind::NotFound);
        assert!(read_private(folder.path()).unwrap_err().message.contains("is a folder"));
        assert!(write_private(&missing.join("x"), b"").unwrap_err().message.contains("no such folder"));
        write_private(&missing, &[0xff, 0xfe]).unwrap();
        assert!(read_private_text(&missing).unwrap_err().message.contains("not text"));
    }
}
