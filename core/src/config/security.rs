//! Settings of who may connect, and what their queries may reach. `SECURITY.md` says how they belong together.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::duration;
use crate::error::{Error, ErrorKind, Result};

/// Settings of who may connect, and what their queries may reach. Files with secrets must be readable by their owner alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityConfig {
    /// Names, roles and hashes of passwords, as `windrow user add` writes them.
    pub users_file: Option<PathBuf>,
    /// Names, roles and hashes of tokens, as `windrow token create` writes them.
    pub tokens_file: Option<PathBuf>,
    /// The secret that the processes of a cluster share, as `windrow secret create` writes it. With it executors prove who they are, and
    /// logins and tickets are sealed. Without one a scheduler makes its own, which ends with it.
    pub secret_file: Option<PathBuf>,
    /// The certificate that this process shows, in PEM, with those between it and the authority. With it and `tls_key` everything is
    /// encrypted, what this process calls included: all processes of a cluster have one, or none has.
    pub tls_certificate: Option<PathBuf>,
    /// The key of `tls_certificate`, in PEM.
    pub tls_key: Option<PathBuf>,
    /// The authority, in PEM, that certificates of other processes of the cluster are verified against; those of the system if there is
    /// none.
    pub tls_ca: Option<PathBuf>,
    /// The authority, in PEM, whose certificates users may log in with instead of a password: a user of `users_file` is who the certificate
    /// names. Nobody is asked for one who brings another credential.
    pub tls_client_ca: Option<PathBuf>,
    /// The public key of an identity provider, in PEM, whose JSON web tokens are accepted: RSA, P-256, P-384 or Ed25519.
    pub jwt_key: Option<PathBuf>,
    /// What a web token's `aud` must name; required with `jwt_key`.
    pub jwt_audience: Option<String>,
    /// What a web token's `iss` must be, if it matters.
    pub jwt_issuer: Option<String>,
    /// The claim of a web token that holds the role: `reader`, `writer` or `admin`. A token without it is a reader's.
    pub jwt_role_claim: String,
    /// How long a login with a name and a password lasts.
    #[serde(with = "duration")]
    pub login_ttl: Duration,
    /// A file that gets a line of JSON for each call of a client, allowed or not: logins, statements, what is fetched, cancelled and
    /// refused. Only appended to; made for its owner alone.
    pub audit_log: Option<PathBuf>,
    /// Folders whose files queries may read and write; empty means none when users are configured, everything when only the owner of
    /// the process can log in. As one text, several are written as in `PATH`.
    #[serde(deserialize_with = "paths")]
    pub allow_local: Vec<PathBuf>,
    /// Prefixes of store URLs that queries may read and write, as in `s3://sales/2026/`; empty means none when users are configured,
    /// everything when only the owner of the process can log in. As one text, commas divide them.
    #[serde(deserialize_with = "prefixes")]
    pub allow_stores: Vec<String>,
    /// Whether clients may send plans instead of SQL: in the Substrait format, and those of dataframes. A plan may do what its sender's SQL may do and no more;
    /// but more code reads it, and that code was written for plans that programs make.
    pub accept_plans: bool,
}

impl Default for SecurityConfig {
    fn default() -> Self {
        Self {
            users_file: None,
            tokens_file: None,
            secret_file: None,
            tls_certificate: None,
            tls_key: None,
            tls_ca: None,
            tls_client_ca: None,
            jwt_key: None,
            jwt_audience: None,
            jwt_issuer: None,
            jwt_role_claim: "windrow_role".to_owned(),
            login_ttl: Duration::from_secs(12 * 3_600),
            audit_log: None,
            allow_local: Vec::new(),
            allow_stores: Vec::new(),
            accept_plans: false,
        }
    }
}

impl SecurityConfig {
    /// Whether anybody but the owner of the process can log in.
    #[must_use]
    pub fn has_users(&self) -> bool {
        self.users_file.is_some() || self.tokens_file.is_some() || self.jwt_key.is_some()
    }

    /// The same without encryption, for a cluster that nobody reaches from other machines.
    #[must_use]
    pub fn without_tls(self) -> Self {
        Self { tls_certificate: None, tls_key: None, tls_ca: None, tls_client_ca: None, ..self }
    }

    /// Checks that settings which need each other are there together.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] with the one that is missing.
    pub fn check(&self) -> Result<()> {
        let pairs = [
            ("tls_certificate", self.tls_certificate.is_some(), "tls_key", self.tls_key.is_some()),
            ("tls_key", self.tls_key.is_some(), "tls_certificate", self.tls_certificate.is_some()),
            // Who calls encrypted is called encrypted: by other executors, or by the scheduler.
            ("tls_ca", self.tls_ca.is_some(), "tls_certificate", self.tls_certificate.is_some()),
            ("tls_client_ca", self.tls_client_ca.is_some(), "tls_certificate", self.tls_certificate.is_some()),
            ("tls_client_ca", self.tls_client_ca.is_some(), "users_file", self.users_file.is_some()),
            ("jwt_key", self.jwt_key.is_some(), "jwt_audience", self.jwt_audience.is_some()),
            ("jwt_audience", self.jwt_audience.is_some(), "jwt_key", self.jwt_key.is_some()),
            ("jwt_issuer", self.jwt_issuer.is_some(), "jwt_key", self.jwt_key.is_some()),
        ];
        let incomplete = pairs.iter().find(|(_, is_set, _, has_other)| *is_set && !has_other);
        if let Some((setting, _, other, _)) = incomplete {
            let message = format!("security.{setting} is set without security.{other}");
            return Err(Error::new(ErrorKind::InvalidConfig, message).with_help(format!("set security.{other} as well")));
        }
        if self.login_ttl.is_zero() {
            return Err(Error::new(ErrorKind::InvalidConfig, "security.login_ttl = 0s would end each login at once"));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum List {
    Many(Vec<String>),
    One(String),
}

fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    Ok(match List::deserialize(deserializer)? {
        List::Many(paths) => paths.into_iter().map(PathBuf::from).collect(),
        List::One(text) => std::env::split_paths(&text).filter(|path| !path.as_os_str().is_empty()).collect(),
    })
}

fn prefixes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match List::deserialize(deserializer)? {
        List::Many(prefixes) => prefixes,
        List::One(text) => text.split(',').map(str::trim).filter(|prefix| !prefix.is_empty()).map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use figment::Figment;
    use figment::providers::{Format, Serialized, Toml};

    use super::*;
    use crate::config::Config;

    fn read(text: &str) -> Result<SecurityConfig, Box<figment::Error>> {
        let figment = Figment::from(Serialized::defaults(Config::default())).merge(Toml::string(text));
        figment.extract::<Config>().map(|config| config.security).map_err(Box::new)
    }

    #[test]
    fn the_default_is_read_as_it_is_written() {
        assert_eq!(read("").unwrap(), SecurityConfig::default());
        assert_eq!(SecurityConfig::default().login_ttl, Duration::from_secs(43_200));
        SecurityConfig::default().check().unwrap();
        assert!(!SecurityConfig::default().has_users());
        assert!(!SecurityConfig::default().accept_plans);
        assert!(read("[security]\naccept_plans = true").unwrap().accept_plans);
    }

    #[test]
    fn settings_are_read_and_unknown_ones_refused() {
        let text = "[security]\nusers_file = '/etc/windrow/users'\nlogin_ttl = '30m'\nallow_local = ['/data', '/scratch']\n\
                    allow_stores = ['s3://a/']\njwt_role_claim = 'role'";
        let security = read(text).unwrap();
        assert_eq!(
            (security.users_file.as_deref(), security.login_ttl),
            (Some("/etc/windrow/users".as_ref()), Duration::from_secs(1_800))
        );
        assert_eq!(
            (security.allow_local, security.allow_stores),
            (vec!["/data".into(), "/scratch".into()], vec!["s3://a/".to_owned()])
        );
        assert!(read("[security]\nuser_file = 'x'").unwrap_err().to_string().contains("user_file"));
        assert!(read("[security]\nlogin_ttl = 12").is_err() && read("[security]\nlogin_ttl = 'soon'").is_err());
    }

    /// As an environment variable gives it.
    #[test]
    fn lists_may_be_one_text() {
        let security = read("[security]\nallow_local = '/data:/my scratch'\nallow_stores = 's3://a/, gs://b/c'").unwrap();
        assert_eq!(security.allow_local, [PathBuf::from("/data"), PathBuf::from("/my scratch")]);
        assert_eq!(security.allow_stores, ["s3://a/", "gs://b/c"]);
        let none = read("[security]\nallow_local = ''\nallow_stores = ''").unwrap();
        assert!(none.allow_local.is_empty() && none.allow_stores.is_empty());
    }

    #[test]
    fn settings_that_need_another_say_so() {
        for (text, missing) in [
            ("tls_certificate = 'a'", "tls_key"),
            ("tls_key = 'a'", "tls_certificate"),
            ("tls_ca = 'a'", "tls_certificate"),
            ("tls_client_ca = 'a'", "tls_certificate"),
            ("tls_client_ca = 'a'\ntls_certificate = 'a'\ntls_key = 'b'", "users_file"),
            ("jwt_key = 'a'", "jwt_audience"),
            ("jwt_audience = 'a'", "jwt_key"),
            ("jwt_issuer = 'a'", "jwt_key"),
            ("login_ttl = '0s'", "login_ttl"),
        ] {
            let error = read(&format!("[security]\n{text}")).unwrap().check().unwrap_err();
            assert!(error.kind == ErrorKind::InvalidConfig && error.message.contains(missing), "{text}: {error}");
        }
        let complete = "[security]\ntls_certificate = 'a'\ntls_key = 'b'\njwt_key = 'c'\njwt_audience = 'd'\njwt_issuer = 'e'";
        let complete = read(complete).unwrap();
        complete.check().unwrap();
        assert!(complete.has_users());
    }
}
