//! Values that leave the cluster and come back, which nobody can read or change meanwhile: tickets and logins. Next: `bearer.rs`.
//!
//! ```text
//! version (1 byte, authenticated) | nonce (12 bytes, random) | ChaCha20-Poly1305 of { expiry: 8 bytes, value in postcard }
//! ```
//!
//! Each purpose has a key of its own, derived by HKDF, so that what was sealed for one is nothing to another. Random nonces of 96 bits
//! do for 2^32 values of one key and purpose with a chance of one in 2^33 that any two are alike.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde::de::DeserializeOwned;
use windrow_core::error::{Error, Result};

use crate::key::ClusterKey;

/// How the bytes are laid out, and with what they are sealed.
const VERSION: u8 = 1;

/// Bytes before the value: when it expires.
const EXPIRY_BYTES: usize = size_of::<u64>();

/// Seals and opens values of one purpose.
pub struct Sealer {
    key: LessSafeKey,
    purpose: &'static str,
    random: SystemRandom,
}

/// Why sealed bytes are worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// Not sealed with this key for this purpose: forged, changed, cut, or another cluster's.
    NotOurs,
    /// Sealed here, and too long ago.
    Expired,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOurs => "it was not made by this cluster",
            Self::Expired => "it has expired",
        })
    }
}

impl std::error::Error for SealError {}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

impl Sealer {
    /// What seals for `purpose`: a short text that no other use has.
    #[must_use]
    #[expect(clippy::expect_used, reason = "HKDF refuses only outputs of more than 255 blocks, and this one is one block")]
    pub fn new(key: &ClusterKey, purpose: &'static str) -> Self {
        let info = [purpose.as_bytes()];
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"windrow seal 1").extract(key.as_bytes());
        let derived = derived.expand(&info, &CHACHA20_POLY1305).expect("the length of a key");
        Self { key: LessSafeKey::new(UnboundKey::from(derived)), purpose, random: SystemRandom::new() }
    }

    /// Seals `value` until `expires_at_unix_ms`.
    ///
    /// # Errors
    /// [`windrow_core::ErrorKind::Internal`] if the value has no encoding or the system no randomness.
    pub fn seal<T: Serialize>(&self, value: &T, expires_at_unix_ms: u64) -> Result<Vec<u8>> {
        let internal = |what: &str| Error::internal(format!("a value for {} cannot be sealed: {what}", self.purpose));
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_why| internal("the system gave no random numbers"))?;
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&nonce);
        let start = sealed.len();
        sealed.extend_from_slice(&expires_at_unix_ms.to_le_bytes());
        let mut sealed = postcard::to_extend(value, sealed).map_err(|_why| internal("it has no encoding"))?;
        let mut content = sealed.split_off(start);
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from([VERSION]), &mut content)
            .map_err(|_why| internal("it is too long"))?;
        sealed.append(&mut content);
        Ok(sealed)
    }

    /// The value that was sealed.
    ///
    /// # Errors
    /// [`SealError::NotOurs`] for whatever was not sealed with the same key for the same purpose, [`SealError::Expired`] from the time
    /// on that was given to [`Sealer::seal`].
    pub fn open<T: DeserializeOwned>(&self, sealed: &[u8], now_unix_ms: u64) -> Result<T, SealError> {
        let (&[version], sealed) = sealed.split_first_chunk::<1>().ok_or(SealError::NotOurs)?;
        let (nonce, content) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealError::NotOurs)?;
        if version != VERSION {
            return Err(SealError::NotOurs);
        }
        let mut content = content.to_vec();
        let opened = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from([version]), &mut content)
            .map_err(|_why| SealError::NotOurs)?;
        let (expires_at, value) = opened.split_first_chunk::<EXPIRY_BYTES>().ok_or(SealError::NotOurs)?;
        if now_unix_ms >= u64::from_le_bytes(*expires_at) {
            return Err(SealError::Expired);
        }
        postcard::from_bytes(value).map_err(|_why| SealError::NotOurs)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Ticket {
        job: u64,
        partition: u32,
        owner: String,
    }

    fn ticket() -> Ticket {
        Ticket { job: 7, partition: 3, owner: "alice".to_owned() }
    }

    fn key(byte: u8) -> ClusterKey {
        ClusterKey::from_text(&format!("{byte:02x}").repeat(32)).unwrap()
    }

    #[test]
    fn a_sealed_value_opens_until_it_expires() {
        let sealer = Sealer::new(&key(1), "tickets");
        let sealed = sealer.seal(&ticket(), 1_000).unwrap();
        assert_eq!(sealer.open::<Ticket>(&sealed, 999), Ok(ticket()));
        assert_eq!(Sealer::new(&key(1), "tickets").open::<Ticket>(&sealed, 0), Ok(ticket()));
        for now in [1_000, 1_001, u64::MAX] {
            assert_eq!(sealer.open::<Ticket>(&sealed, now), Err(SealError::Expired));
        }
    }

    #[test]
    fn what_is_inside_cannot_be_read_and_differs_each_time() {
        let sealer = Sealer::new(&key(1), "tickets");
        let (first, second) = (sealer.seal(&ticket(), 9).unwrap(), sealer.seal(&ticket(), 9).unwrap());
        assert_ne!(first, second);
        assert!(!first.windows(5).any(|window| window == b"alice"));
    }

    #[test]
    fn every_flipped_bit_is_a_forgery() {
        let sealer = Sealer::new(&key(1), "tickets");
        let sealed = sealer.seal(&ticket(), 1_000).unwrap();
        for index in 0..sealed.len() {
            for bit in 0..8 {
                let mut forged = sealed.clone();
                forged[index] ^= 1 << bit;
                assert_eq!(sealer.open::<Ticket>(&forged, 0), Err(SealError::NotOurs), "byte {index}, bit {bit}");
            }
        }
    }

    #[test]
    fn cut_and_extended_values_are_forgeries() {
        let sealer = Sealer::new(&key(1), "tickets");
        let sealed = sealer.seal(&ticket(), 1_000).unwrap();
        for length in 0..sealed.len() {
            assert_eq!(sealer.open::<Ticket>(&sealed[..length], 0), Err(SealError::NotOurs), "{length} bytes");
            assert_eq!(sealer.open::<Ticket>(&sealed[length + 1..], 0), Err(SealError::NotOurs), "from byte {}", length + 1);
        }
        for extra in [&[0][..], &[0; 16], &sealed] {
            assert_eq!(sealer.open::<Ticket>(&[&sealed, extra].concat(), 0), Err(SealError::NotOurs));
        }
    }

    #[test]
    fn other_keys_and_other_purposes_open_nothing() {
        let sealed = Sealer::new(&key(1), "tickets").seal(&ticket(), 1_000).unwrap();
        for other in [Sealer::new(&key(2), "tickets"), Sealer::new(&key(1), "logins"), Sealer::new(&key(1), "ticket")] {
            assert_eq!(other.open::<Ticket>(&sealed, 0), Err(SealError::NotOurs));
            // Not even that it would have expired is told.
            assert_eq!(other.open::<Ticket>(&sealed, 2_000), Err(SealError::NotOurs));
        }
    }

    #[test]
    fn a_value_of_another_type_is_not_ours() {
        let sealer = Sealer::new(&key(1), "tickets");
        let sealed = sealer.seal(&1_u8, 1_000).unwrap();
        assert_eq!(sealer.open::<Ticket>(&sealed, 0), Err(SealError::NotOurs));
    }
}
