//! JSON web tokens of an identity provider, checked with its public key. Next: `jwt/ring_provider.rs`, the signatures themselves.
//!
//! The key says which algorithms count, never the token: a text that names another one, or `none`, is nobody's. `aud`, `exp` and `sub`
//! must be there; `nbf` counts if it is.

mod ring_provider;

use std::fmt;
use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use windrow_core::error::{Error, ErrorKind, Result};

use crate::principal::{Principal, Role, check_name};

/// How far clocks may differ.
const LEEWAY_SECONDS: u64 = 60;

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// An RSA key of 2048 bits in DER has 270 bytes; shorter keys can be broken.
const RSA_DER_BYTES_MIN: usize = 260;

/// How tokens are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtOptions {
    /// The public key in PEM: RSA from 2048 bits, P-256, P-384 or Ed25519.
    pub key_file: PathBuf,
    /// What `aud` must name.
    pub audience: String,
    /// What `iss` must be, if it matters.
    pub issuer: Option<String>,
    /// The claim that holds the role; a token without it is a reader's.
    pub role_claim: String,
}

/// Checks tokens.
pub struct Jwt {
    key: DecodingKey,
    validation: Validation,
    role_claim: String,
}

impl Jwt {
    /// Reads the key. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] or [`ErrorKind::InvalidConfig`] with what is wrong about the key or the audience.
    pub fn new(options: &JwtOptions) -> Result<Self> {
        if options.audience.is_empty() || options.issuer.as_ref().is_some_and(String::is_empty) || options.role_claim.is_empty() {
            return Err(Error::new(ErrorKind::InvalidConfig, "an audience, an issuer or a role's claim cannot be empty"));
        }
        ring_provider::install();
        let (key, algorithms) = read_key(&options.key_file)?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.algorithms = algorithms;
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_audience(&[&options.audience]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        if let Some(issuer) = &options.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        Ok(Self { key, validation, role_claim: options.role_claim.clone() })
    }

    /// Whom `token` was issued for: its `sub`, which must be a name that users can have.
    #[must_use]
    pub fn verify(&self, token: &str) -> Option<Principal> {
        // Extensions that must be understood are not.
        if token.len() > TOKEN_BYTES_MAX || decode_header(token).ok()?.crit.is_some() {
            return None;
        }
        let claims: Map<String, Value> = decode(token, &self.key, &self.validation).ok()?.claims;
        let name = claims.get("sub")?.as_str().filter(|name| check_name(name).is_ok())?;
        let role = match claims.get(&self.role_claim) {
            None => Role::Reader,
            Some(role) => role.as_str()?.parse().ok()?,
        };
        Some(Principal::client(name, role))
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms = &self.validation.algorithms;
        f.debug_struct("Jwt").field("algorithms", algorithms).field("role_claim", &self.role_claim).finish_non_exhaustive()
    }
}

/// The key in the file, and the algorithms that it is for.
fn read_key(path: &Path) -> Result<(DecodingKey, Vec<Algorithm>)> {
    let pem = std::fs::read(path).map_err(|error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::InvalidConfig };
        Error::new(kind, format!("the key '{}' cannot be read", path.display())).with_source(error)
    })?;
    let invalid = |problem: &str| {
        Error::new(ErrorKind::InvalidConfig, format!("'{}' {problem}", path.display()))
            .with_help("it takes a public key in PEM (BEGIN PUBLIC KEY): RSA from 2048 bits, P-256, P-384 or Ed25519")
    };
    let has = |label: &[u8]| pem.windows(label.len()).any(|window| window == label);
    if has(b"PRIVATE KEY-----") {
        return Err(invalid("has a private key, which has no business here"));
    }
    if !has(b"BEGIN PUBLIC KEY-----") && !has(b"BEGIN RSA PUBLIC KEY-----") {
        return Err(invalid("has no public key"));
    }
    let algorithms = |key: &DecodingKey, of: fn(usize) -> &'static [Algorithm]| {
        let length = key.try_get_as_bytes().map_or(0, <[u8]>::len);
        Some(of(length).to_vec()).filter(|algorithms| !algorithms.is_empty())
    };
    let (key, algorithms) = if let Ok(key) = DecodingKey::from_rsa_pem(&pem) {
        let algorithms = algorithms(&key, |length| match length {
            RSA_DER_BYTES_MIN.. => &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512],
            _ => &[],
        });
        (key, algorithms)
    } else if let Ok(key) = DecodingKey::from_ec_pem(&pem) {
        let algorithms = algorithms(&key, |length| match length {
            65 => &[Algorithm::ES256],
            97 => &[Algorithm::ES384],
            _ => &[],
        });
        (key, algorithms)
    } else if let Ok(key) = DecodingKey::from_ed_pem(&pem) {
        let algorithms = algorithms(&key, |length| if length == 32 { &[Algorithm::EdDSA] } else { &[] });
        (key, algorithms)
    } else {
        return Err(invalid("has a key of an unknown kind"));
    };
    Ok((key, algorithms.ok_or_else(|| invalid("has a key of a size that is not supported"))?))
}

#[cfg(test)]
mod tests;
