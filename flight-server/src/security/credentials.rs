//! A header becomes a principal: passwords at the handshake, tokens at every call. Next: `caller.rs`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use windrow_auth::{Attempt, ClusterKey, Jwt, JwtOptions, Login, Logins, Passwords, Principal, Role, Sealer, Throttle, Tokens};
use windrow_core::clock::unix_millis;
use windrow_core::config::SecurityConfig;
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::timer;

use super::audit::Record;

/// What an executor's credential begins with.
const EXECUTOR_PREFIX: &str = "we1.";

/// How long an executor's credential holds. It is made anew long before (`dial.rs`), so this bounds what a stolen one is worth.
pub(super) const EXECUTOR_TTL: Duration = Duration::from_secs(600);

/// A wait of at most this long is for a place; a longer one is for having guessed.
const SOON: Duration = Duration::from_millis(100);

/// How long a place to verify a password in is waited for.
const PLACE_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of the largest credential: a JWT with many claims.
const CREDENTIAL_MAX: usize = 8 << 10;

/// How drivers write a name and a password: some with padding, some without.
const BASIC: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// The name of whoever holds the cluster's key.
pub(crate) const OWNER: &str = "owner";

/// Inside an executor's sealed credential.
#[derive(Debug, Serialize, Deserialize)]
struct ExecutorPass;

/// Who a credential belongs to.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    pub(super) principal: Principal,
    pub(super) login: Option<Login>,
}

impl From<Principal> for Verified {
    fn from(principal: Principal) -> Self {
        Self { principal, login: None }
    }
}

/// Why a call is not let in. What was wrong is not said: it would tell who exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// No credential, or one that does not hold.
    Unknown,
    /// Too many wrong ones; try again after this long.
    Later(Duration),
}

/// Everything that a credential can be verified against.
#[derive(Debug)]
pub struct Credentials {
    logins: Logins,
    executors: Sealer,
    passwords: Option<Arc<Passwords>>,
    tokens: Option<Tokens>,
    jwt: Option<Jwt>,
    throttle: Arc<Throttle>,
    login_ttl: Duration,
}

impl Credentials {
    /// Only whoever holds `key`.
    #[must_use]
    pub(super) fn of_key(key: &ClusterKey) -> Self {
        Self {
            logins: Logins::new(key),
            executors: executor_sealer(key),
            passwords: None,
            tokens: None,
            jwt: None,
            throttle: Arc::new(Throttle::new()),
            login_ttl: SecurityConfig::default().login_ttl,
        }
    }

    /// Also users, tokens and JWT, as `config` names them.
    pub(super) fn configured(key: &ClusterKey, config: &SecurityConfig) -> Result<Self> {
        let jwt = match (&config.jwt_key, &config.jwt_audience) {
            (None, None) => None,
            (Some(key_file), Some(audience)) => Some(Jwt::new(&JwtOptions {
                key_file: key_file.clone(),
                audience: audience.clone(),
                issuer: config.jwt_issuer.clone(),
                role_claim: config.jwt_role_claim.clone(),
            })?),
            (Some(_), None) => return Err(pair("security.jwt_key", "security.jwt_audience")),
            (None, Some(_)) => return Err(pair("security.jwt_audience", "security.jwt_key")),
        };
        Ok(Self {
            passwords: config.users_file.as_deref().map(Passwords::read).transpose()?.map(Arc::new),
            tokens: config.tokens_file.as_deref().map(Tokens::read).transpose()?,
            jwt,
            login_ttl: config.login_ttl,
            ..Self::of_key(key)
        })
    }

    /// Whether others than the holders of the key can log in.
    pub(super) fn has_users(&self) -> bool {
        self.passwords.is_some() || self.tokens.is_some() || self.jwt.is_some()
    }

    /// A token for `principal`, good for the configured time.
    ///
    /// # Errors
    /// `Internal` if it cannot be made, which is a bug.
    pub(crate) fn issue(&self, principal: &Principal, session: u64) -> Result<String> {
        self.logins.issue(principal, session, self.login_ttl, unix_millis())
    }

    /// Makes a login worthless before its time.
    pub(crate) fn revoke(&self, login: &Login) {
        self.logins.revoke(login);
    }

    /// Whether a login that another process of the cluster has verified was neither ended nor has expired here.
    pub(crate) fn holds(&self, login: &Login, now: u64) -> bool {
        self.logins.holds(login, now)
    }

    /// Who the token of an `authorization: Bearer` header belongs to.
    pub(super) fn bearer(&self, token: &str) -> Result<Verified, Refused> {
        if token.len() > CREDENTIAL_MAX {
            return Err(Refused::Unknown);
        }
        let now = unix_millis();
        let verified = if let Some(sealed) = token.strip_prefix(EXECUTOR_PREFIX) {
            self.executor(sealed, now).then(|| Principal::Executor.into())
        } else if let Some(login) = self.logins.verify(token, now) {
            Some(Verified { principal: login.principal.clone(), login: Some(login) })
        } else {
            let fixed = self.tokens.as_ref().and_then(|tokens| tokens.verify(token, now));
            fixed.or_else(|| self.jwt.as_ref().and_then(|jwt| jwt.verify(token))).map(Verified::from)
        };
        verified.ok_or(Refused::Unknown)
    }

    /// The user whose certificate a connection has shown, as long as they are one.
    pub(super) fn certified(&self, name: &str) -> Result<Verified, Refused> {
        self.passwords.as_ref().and_then(|users| users.user(name)).map(Verified::from).ok_or(Refused::Unknown)
    }

    fn executor(&self, sealed: &str, now: u64) -> bool {
        let bytes = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(sealed).ok();
        bytes.is_some_and(|bytes| self.executors.open::<ExecutorPass>(&bytes, now).is_ok())
    }

    /// A place to verify a password in. Where only the places are taken, it waits a while for one.
    async fn admitted(&self, name: &str, address: IpAddr) -> Result<Attempt, Refused> {
        let waiting = async {
            loop {
                match self.throttle.admit(name, address, unix_millis()) {
                    Ok(attempt) => return Ok(attempt),
                    Err(wait) if wait <= SOON => timer::sleep(wait).await,
                    Err(wait) => return Err(Refused::Later(wait)),
                }
            }
        };
        timer::deadline(PLACE_WITHIN, waiting).await.unwrap_or(Err(Refused::Later(PLACE_WITHIN)))
    }

    /// Who the name and password of an `authorization: Basic` header belong to. Takes its time, by design.
    pub(super) async fn basic(&self, encoded: &str, address: IpAddr, record: &Record) -> Result<Verified, Refused> {
        let decoded = (encoded.len() <= CREDENTIAL_MAX).then(|| BASIC.decode(encoded).ok()).flatten();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(Refused::Unknown)?;
        let (name, password) = text.split_once(':').ok_or(Refused::Unknown)?;
        record.claims(name);
        let Some(passwords) = self.passwords.clone() else { return Err(Refused::Unknown) };
        let attempt = self.admitted(name, address).await?;
        let (name, password) = (name.to_owned(), password.to_owned());
        let verifying = tokio::task::spawn_blocking(move || {
            let principal = passwords.verify(&name, &password);
            match &principal {
                Some(_) => attempt.succeeded(),
                None => attempt.failed(),
            }
            principal
        });
        match verifying.await {
            Ok(Some(principal)) => Ok(principal.into()),
            Ok(None) => Err(Refused::Unknown),
            Err(error) => {
                tracing::error!(%error, "a password could not be verified");
                Err(Refused::Unknown)
            }
        }
    }
}

fn pair(given: &str, missing: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{given} is set and {missing} is not; they go together"))
}

pub(super) fn executor_sealer(key: &ClusterKey) -> Sealer {
    Sealer::new(key, "executor")
}

/// A credential of an executor, for [`EXECUTOR_TTL`] from `now`, in milliseconds since 1970.
///
/// # Errors
/// `Internal` if it cannot be made, which is a bug.
pub(super) fn executor_pass(sealer: &Sealer, now: u64) -> Result<String> {
    let expires = now.saturating_add(u64::try_from(EXECUTOR_TTL.as_millis()).unwrap_or(u64::MAX));
    let sealed = sealer.seal(&ExecutorPass, expires)?;
    Ok(format!("{EXECUTOR_PREFIX}{}", base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(sealed)))
}

/// A token for whoever holds `key`, good for `ttl`: an administrator.
///
/// # Errors
/// `Internal` if it cannot be made, which is a bug.
pub fn owner_token(key: &ClusterKey, ttl: Duration) -> Result<String> {
    Logins::new(key).issue(&Principal::client(OWNER, Role::Admin), 0, ttl, unix_millis())
}
