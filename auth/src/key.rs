//! The secret that the processes of a cluster share, and where a cluster of this machine leaves it for its own user. Next: `seal.rs`.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use windrow_core::error::{Error, ErrorKind, Result};

use crate::secret_file::{make_private_folder, read_private_text, write_private, write_private_new};

const BYTES: usize = 32;

/// 256 bits that only the processes of one cluster, and whoever may start them, know.
#[derive(Clone)]
pub struct ClusterKey([u8; BYTES]);

impl ClusterKey {
    /// A new one.
    ///
    /// # Panics
    /// If the system has no randomness to give: there is no safe way on.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a key that is not random would be worse than none")]
    pub fn random() -> Self {
        let mut key = [0; BYTES];
        SystemRandom::new().fill(&mut key).expect("random numbers of the system");
        Self(key)
    }

    /// Reads what [`ClusterKey::to_text`] writes, 64 hexadecimal digits, or at least 32 bytes in Base64.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] that does not repeat the text.
    pub fn from_text(text: &str) -> Result<Self> {
        let text = text.trim();
        if let Some(key) = from_hexadecimal(text) {
            return Ok(Self(key));
        }
        let url_safe = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
        let bytes = URL_SAFE_NO_PAD.decode(url_safe).ok().filter(|bytes| bytes.len() >= BYTES);
        let bytes = bytes.ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "a cluster's secret has 64 hexadecimal digits, or 32 bytes or more in Base64")
                .with_help("windrow secret create --output FILE makes one")
        })?;
        // More bytes are a text with enough chance in it; exactly 32 are the key.
        let key = <[u8; BYTES]>::try_from(bytes.as_slice());
        Ok(Self(key.unwrap_or_else(|_longer| sha256(&bytes))))
    }

    /// As a line of text.
    #[must_use]
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Reads it from a file that only its owner may read.
    ///
    /// # Errors
    /// As [`crate::read_private`] and [`ClusterKey::from_text`], with the path.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_text(&read_private_text(path)?).map_err(|error| Error {
            message: format!("'{}' is not a cluster's secret: {}", path.display(), error.message),
            ..error
        })
    }

    /// Reads it, or makes a new one there. Of several processes that do this at a time one makes it, and all have the same.
    ///
    /// # Errors
    /// As [`ClusterKey::read`] and [`ClusterKey::write`].
    pub fn read_or_make(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match Self::read(path) {
            Err(error) if error.kind == ErrorKind::NotFound => {}
            read => return read,
        }
        let key = Self::random();
        match write_private_new(path, key.line().as_bytes()) {
            Ok(()) => Ok(key),
            // Somebody else was first, or there is a reason that reading does not have.
            Err(unwritten) => Self::read(path).map_err(|_unread| unwritten),
        }
    }

    /// Writes it into a file that only its owner may read, and replaces what is there.
    ///
    /// # Errors
    /// As [`crate::write_private`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        write_private(path.as_ref(), self.line().as_bytes())
    }

    /// Writes it into a file that is not there yet.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if it is there, or cannot be written.
    pub fn write_new(&self, path: impl AsRef<Path>) -> Result<()> {
        write_private_new(path.as_ref(), self.line().as_bytes())
    }

    /// The key itself, for what is derived from it.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn line(&self) -> String {
        format!("{}\n", self.to_text())
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(redacted)")
    }
}

/// Where Windrow keeps what one user's processes share: `$XDG_STATE_HOME/windrow`, or `~/.local/state/windrow`. It is made, for that
/// user alone, if it is not there; where that fails, what is written into it says why.
#[must_use]
pub fn state_folder() -> PathBuf {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".local/state")));
    let folder = state.unwrap_or_else(|| PathBuf::from("/var/lib")).join("windrow");
    let _ = make_private_folder(&folder);
    folder
}

/// Where a local cluster at `port` leaves its secret for shells of the same user.
#[must_use]
pub fn file_of_port(port: u16) -> PathBuf {
    state_folder().join(format!("secret-{port}"))
}

fn from_hexadecimal(text: &str) -> Option<[u8; BYTES]> {
    let digits = text.as_bytes();
    let mut key = [0; BYTES];
    if digits.len() != 2 * BYTES {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = char::from(*digit).to_digit(16)?;
            *byte = (*byte << 4) | u8::try_from(value).ok()?;
        }
    }
    Some(key)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_file::tests::{mode, set_mode};

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key = ClusterKey::random();
        assert_eq!(ClusterKey::from_text(&key.to_text()).unwrap().0, key.0);
        assert_eq!(ClusterKey::from_text(&format!("  {}\n", key.to_text())).unwrap().0, key.0);
        assert_ne!(ClusterKey::random().0, key.0);
        let hexadecimal: String = key.0.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(ClusterKey::from_text(&hexadecimal).unwrap().0, key.0);
        let standard = base64::engine::general_purpose::STANDARD.encode(key.0);
        assert_eq!(ClusterKey::from_text(&standard).unwrap().0, key.0);
    }

    #[test]
    fn longer_keys_count_whole() {
        let (long, other) = (URL_SAFE_NO_PAD.encode([7; 48]), URL_SAFE_NO_PAD.encode([&[7; 47][..], &[8]].concat()));
        assert_ne!(ClusterKey::from_text(&long).unwrap().0, ClusterKey::from_text(&other).unwrap().0);
    }

    #[test]
    fn short_or_strange_texts_are_no_keys() {
        for text in ["", "abc", &"ab".repeat(31), &"xyz ".repeat(20), &URL_SAFE_NO_PAD.encode([1; 31]), &"ä".repeat(64)] {
            let error = ClusterKey::from_text(text).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig);
            assert!(text.is_empty() || !format!("{error:?}").contains(text), "{text}");
        }
    }

    #[test]
    fn the_first_to_ask_makes_the_file_and_all_have_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| ClusterKey::read_or_make(&path).unwrap())).collect();
            asking.into_iter().map(|thread| thread.join().unwrap().0).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!((ClusterKey::read(&path).unwrap().0, mode(&path)), (keys[0], 0o600));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_can_read_is_neither_read_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let key = ClusterKey::random();
        key.write(&path).unwrap();
        set_mode(&path, 0o644);
        assert_eq!(ClusterKey::read(&path).unwrap_err().kind, ErrorKind::Denied);
        assert_eq!(ClusterKey::read_or_make(&path).unwrap_err().kind, ErrorKind::Denied);
        set_mode(&path, 0o600);
        assert_eq!(ClusterKey::read(&path).unwrap().0, key.0);
        assert!(ClusterKey::random().write_new(&path).is_err());
    }

    #[test]
    fn a_file_without_a_key_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_private(&path, b"planted").unwrap();
        let error = ClusterKey::read_or_make(&path).unwrap_err();
        assert!(error.message.contains("secret' is not a cluster's secret") && !error.message.contains("planted"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"planted");
    }

    #[test]
    fn the_secret_of_a_port_has_a_place_of_its_user() {
        let file = file_of_port(8815);
        assert!(file.is_absolute() && file.ends_with("windrow/secret-8815"), "{file:?}");
        assert_ne!(file, file_of_port(8816));
    }
}
