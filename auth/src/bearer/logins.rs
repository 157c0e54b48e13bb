//! Logins: sealed, with an expiry, and the list of those that were ended before it. Next: `tokens.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use windrow_core::error::Result;

use crate::key::ClusterKey;
use crate::principal::Principal;
use crate::seal::Sealer;

const PREFIX: &str = "ws1.";

/// The longest text that is looked at: three times what the longest name makes.
const TEXT_BYTES_MAX: usize = 512;

/// Ended logins that are remembered until they expire, in some 40 MB.
const REVOKED_MAX: usize = 1 << 20;

/// Whoever a login was issued for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Who.
    pub principal: Principal,
    /// The session that was opened with it.
    pub session: u64,
    /// When it was issued, in milliseconds since 1970.
    pub issued_at: u64,
    /// From when on it is worth nothing, in milliseconds since 1970.
    pub expires_at: u64,
}

/// Issues logins and knows them again.
pub struct Logins {
    sealer: Sealer,
    revoked_max: usize,
    revoked: Mutex<Revoked>,
}

/// The logins that were ended before they expired.
#[derive(Default)]
struct Revoked {
    /// When each expires, by when it was issued and its session.
    logins: BTreeMap<(u64, u64), u64>,
    /// All logins issued until then are ended: what is given up once there are too many to list.
    all_until: Option<u64>,
    /// How many there may be before those that have expired are looked for.
    sweep_at: usize,
    /// The time, as last told.
    now: u64,
}

impl Logins {
    /// Logins of the cluster with this key. What was revoked is known to this object alone, and only as long as it lives.
    #[must_use]
    pub fn new(key: &ClusterKey) -> Self {
        Self::with_room(key, REVOKED_MAX)
    }

    fn with_room(key: &ClusterKey, revoked_max: usize) -> Self {
        Self { sealer: Sealer::new(key, "login"), revoked_max, revoked: Mutex::default() }
    }

    /// A login of `principal` for `ttl`, as text for an `authorization` header.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn issue(&self, principal: &Principal, session: u64, ttl: Duration, now_unix_ms: u64) -> Result<String> {
        let expires_at = now_unix_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let login = Login { principal: principal.clone(), session, issued_at: now_unix_ms, expires_at };
        let sealed = self.sealer.seal(&login, expires_at)?;
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// The login that `token` is, if this cluster issued it and it was neither ended nor has expired.
    #[must_use]
    pub fn verify(&self, token: &str, now_unix_ms: u64) -> Option<Login> {
        let sealed = token.strip_prefix(PREFIX).filter(|text| text.len() <= TEXT_BYTES_MAX)?;
        let login: Login = self.sealer.open(&URL_SAFE_NO_PAD.decode(sealed).ok()?, now_unix_ms).ok()?;
        let mut revoked = self.revoked.lock();
        revoked.now = now_unix_ms;
        (!revoked.has(&login)).then_some(login)
    }

    /// Whether a login was neither ended nor has expired; whoever asks knows that this cluster issued it.
    #[must_use]
    pub fn holds(&self, login: &Login, now_unix_ms: u64) -> bool {
        now_unix_ms < login.expires_at && !self.revoked.lock().has(login)
    }

    /// Ends a login. If there are a million that have not expired, the older half of them goes, and with it every login that is as old:
    /// those clients log in again.
    pub fn revoke(&self, login: &Login) {
        let mut revoked = self.revoked.lock();
        if !revoked.has(login) {
            revoked.logins.insert((login.issued_at, login.session), login.expires_at);
            revoked.make_room(self.revoked_max);
        }
    }
}

impl Revoked {
    fn has(&self, login: &Login) -> bool {
        self.all_until.is_some_and(|until| login.issued_at <= until)
            || self.logins.contains_key(&(login.issued_at, login.session))
    }

    fn make_room(&mut self, most: usize) {
        if self.logins.len() < self.sweep_at.clamp(most.min(1024), most) {
            return;
        }
        let now = self.now;
        self.logins.retain(|_, expires_at| *expires_at > now);
        if self.logins.len() >= most
            && let Some((issued_at, _)) = self.logins.keys().nth(self.logins.len() / 2).copied()
        {
            self.all_until = Some(issued_at);
            self.logins.retain(|(at, _), _| *at > issued_at);
        }
        // As many again, so that looking costs each login a constant share.
        self.sweep_at = 2 * self.logins.len();
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logins").field("revoked", &self.revoked.lock().logins.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::Role;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn alice() -> Principal {
        Principal::client("alice", Role::Writer)
    }

    #[test]
    fn a_login_is_known_again_until_it_expires() {
        let key = ClusterKey::random();
        let logins = Logins::new(&key);
        let token = logins.issue(&alice(), 7, HOUR, 1_000).unwrap();
        let login = Login { principal: alice(), session: 7, issued_at: 1_000, expires_at: 3_601_000 };
        assert_eq!(logins.verify(&token, 1_000).as_ref(), Some(&login));
        assert_eq!(Logins::new(&key).verify(&token, 3_600_999), Some(login), "another process of the cluster");
        assert_eq!(logins.verify(&token, 3_601_000), None);
        assert_eq!(Logins::new(&ClusterKey::random()).verify(&token, 1_000), None, "another cluster");
    }

    #[test]
    fn a_changed_login_is_none() {
        let logins = Logins::new(&ClusterKey::random());
        let token = logins.issue(&alice(), 7, HOUR, 0).unwrap();
        for index in 0..token.len() {
            for other in [b'A', b'B', b'_', b'.', b'=', b' '] {
                let mut forged = token.clone().into_bytes();
                if std::mem::replace(&mut forged[index], other) != other {
                    assert_eq!(logins.verify(std::str::from_utf8(&forged).unwrap(), 0), None, "byte {index}");
                }
            }
            assert_eq!(logins.verify(&token[..index], 0), None, "{index} bytes");
        }
        let extended = [format!("{token}A"), format!("{token}AAAA"), format!("{token}="), format!("{token} "), token.repeat(9)];
        let strange = ["", "ws1.", "ws1", "ws2.AAAA", "Bearer", "ws1.ä", "wt1.a.b"].map(str::to_owned);
        for text in extended.into_iter().chain(strange).chain([token.replace("ws1.", "")]) {
            assert_eq!(logins.verify(&text, 0), None, "{text}");
        }
    }

    #[test]
    fn the_longest_name_fits() {
        let longest = Principal::client("x".repeat(64), Role::Admin);
        let logins = Logins::new(&ClusterKey::random());
        let token = logins.issue(&longest, u64::MAX, HOUR, u64::MAX - 10).unwrap();
        assert_eq!(logins.verify(&token, u64::MAX - 10).unwrap().principal, longest);
    }

    #[test]
    fn an_ended_login_is_none_and_others_stay() {
        let logins = Logins::new(&ClusterKey::random());
        let [first, second] = [1, 2].map(|session| logins.issue(&alice(), session, HOUR, 0).unwrap());
        let login = logins.verify(&first, 0).unwrap();
        assert!(logins.holds(&login, 1) && !logins.holds(&login, login.expires_at));
        logins.revoke(&login);
        logins.revoke(&login);
        assert!(!logins.holds(&login, 1));
        assert_eq!(logins.verify(&first, 1), None);
        assert_eq!(logins.verify(&second, 1).unwrap().session, 2);
        let again = logins.issue(&alice(), 1, HOUR, 5).unwrap();
        assert!(logins.verify(&again, 5).is_some(), "a later login of the same session");
    }

    #[test]
    fn ended_logins_are_forgotten_once_they_have_expired() {
        let logins = Logins::with_room(&ClusterKey::random(), 1_000_000);
        for session in 0..10_000_u64 {
            let now = session * 1_000;
            let token = logins.issue(&alice(), session, Duration::from_secs(60), now).unwrap();
            logins.revoke(&logins.verify(&token, now).unwrap());
        }
        assert!(logins.revoked.lock().logins.len() <= 1_024 && logins.revoked.lock().all_until.is_none());
    }

    #[test]
    fn too_many_ended_logins_end_the_oldest_and_never_come_back() {
        let logins = Logins::with_room(&ClusterKey::random(), 100);
        let tokens: Vec<_> = (0..=1_000).map(|session| logins.issue(&alice(), session, HOUR, session).unwrap()).collect();
        for token in &tokens[..1_000] {
            if let Some(login) = logins.verify(token, 1_000) {
                logins.revoke(&login);
            }
            assert!(logins.revoked.lock().logins.len() <= 100);
        }
        assert!(tokens[..1_000].iter().all(|token| logins.verify(token, 1_000).is_none()));
        assert!(logins.verify(&tokens[1_000], 1_000).is_some(), "the newest stays");
    }
}
