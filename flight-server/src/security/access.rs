//! What a listener asks of callers. Next: `layer.rs`.

use std::net::SocketAddr;
use std::sync::Arc;

use windrow_auth::{ClusterKey, Principal, Role};
use windrow_core::config::{ConnectionsConfig, SecurityConfig};
use windrow_core::{Error, ErrorKind, Result};
use windrow_planner::{Allowed, StorePolicy, Stores};

use super::audit::AuditLog;
use super::credentials::Credentials;
use super::tls::ServerTls;

/// What a listener asks of callers: credentials or nothing, encryption or not. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Access {
    key: ClusterKey,
    credentials: Option<Arc<Credentials>>,
    tls: Option<Arc<ServerTls>>,
    audit: Option<Arc<AuditLog>>,
    connections: ConnectionsConfig,
}

impl Access {
    /// Asks nobody who they are and encrypts nothing: everybody is an administrator. For a laboratory, behind a warning, and for
    /// tests of other things.
    #[must_use]
    pub fn open() -> Self {
        Self { key: ClusterKey::random(), credentials: None, tls: None, audit: None, connections: ConnectionsConfig::default() }
    }

    /// Lets in whoever holds the cluster's key, and nobody else.
    #[must_use]
    pub fn with_key(key: ClusterKey) -> Self {
        let credentials = Some(Arc::new(Credentials::of_key(&key)));
        Self { key, credentials, ..Self::open() }
    }

    /// As `config` says: users, tokens, JWT and certificates, beside the holders of the cluster's key.
    ///
    /// # Errors
    /// `InvalidConfig` for files that cannot be read or do not go together.
    pub fn configured(key: ClusterKey, config: &SecurityConfig) -> Result<Self> {
        let credentials = Some(Arc::new(Credentials::configured(&key, config)?));
        let tls = ServerTls::configured(config)?.map(Arc::new);
        Ok(Self { key, credentials, tls, ..Self::open() })
    }

    /// With a line in `security.audit_log`, if `config` names one, for each call that clients make. For the listener of a scheduler.
    ///
    /// # Errors
    /// `InvalidConfig` if the file cannot be written.
    pub fn audited(mut self, config: &SecurityConfig) -> Result<Self> {
        self.audit = config.audit_log.as_deref().map(AuditLog::open).transpose()?;
        Ok(self)
    }

    /// With these limits on the connections that clients make.
    #[must_use]
    pub fn limited(mut self, connections: &ConnectionsConfig) -> Self {
        self.connections = connections.clone();
        self
    }

    /// The limits on the connections that clients make.
    pub(crate) fn connections(&self) -> &ConnectionsConfig {
        &self.connections
    }

    /// Whether callers say who they are.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        self.credentials.is_some()
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn encrypts(&self) -> bool {
        self.tls.is_some()
    }

    /// What verifies credentials.
    #[must_use]
    pub fn credentials(&self) -> Option<&Arc<Credentials>> {
        self.credentials.as_ref()
    }

    /// What handles and tickets are sealed with: the cluster's key, or one of this process where nobody is asked.
    pub(crate) fn key(&self) -> &ClusterKey {
        &self.key
    }

    pub(crate) fn tls(&self) -> Option<Arc<ServerTls>> {
        self.tls.clone()
    }

    pub(crate) fn audit(&self) -> Option<&Arc<AuditLog>> {
        self.audit.as_ref()
    }

    /// Whether others than the holders of the cluster's key can log in.
    #[must_use]
    pub fn has_users(&self) -> bool {
        self.credentials.as_ref().is_none_or(|credentials| credentials.has_users())
    }

    /// Refuses an address that others can reach, unless callers say who they are and nobody else can listen, or everything is open
    /// because somebody wanted that.
    ///
    /// # Errors
    /// `InvalidConfig`, saying what to do.
    pub fn check_bind(&self, bind: SocketAddr) -> Result<()> {
        if bind.ip().is_loopback() || (self.authenticates() && self.encrypts()) {
            return Ok(());
        }
        if !self.authenticates() {
            tracing::warn!(%bind, "listening beyond this machine without authentication and encryption");
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("{bind} can be reached from other machines, where passwords and data would cross the network readable by others"),
        )
        .with_help(
            "give it a certificate with --tls-certificate and --tls-key (`windrow certs init` makes one), bind 127.0.0.1, or pass \
             --insecure on a network where everybody may read and run everything",
        ))
    }
}

/// The files and object stores that statements may name: those that `config` lists. Where it lists none, everything if only the
/// owner of the process can log in, who could read it anyway, and nothing if there are users.
///
/// # Errors
/// `InvalidConfig` for a folder that is not there or an url that is none.
pub fn stores(config: &SecurityConfig) -> Result<Arc<Stores>> {
    let is_listed = !config.allow_local.is_empty() || !config.allow_stores.is_empty();
    if !is_listed && !config.has_users() {
        return Ok(Arc::default());
    }
    Ok(Arc::new(Stores::new(StorePolicy::from_lists(&config.allow_local, &config.allow_stores)?)))
}

/// What the statements of `principal` may do.
pub(crate) fn allowed(principal: &Principal) -> Allowed {
    match principal.role() {
        Some(Role::Admin) => Allowed::Everything,
        Some(Role::Writer) => Allowed::Write,
        Some(Role::Reader) | None => Allowed::Read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_bound_unless_told_otherwise() {
        let closed = Access::with_key(ClusterKey::random());
        for loopback in ["127.0.0.1:0", "127.8.9.1:8815", "[::1]:0"] {
            assert!(closed.check_bind(loopback.parse().unwrap()).is_ok(), "{loopback}");
        }
        for public in ["0.0.0.0:0", "[::]:0", "192.168.1.2:8815", "[::ffff:127.0.0.1]:0"] {
            let error = closed.check_bind(public.parse().unwrap()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig, "{public}");
            let help = error.context.help.unwrap();
            assert!(help.contains("--insecure") && help.contains("--tls-certificate"), "{help}");
            assert!(Access::open().check_bind(public.parse().unwrap()).is_ok(), "{public}");
        }
    }
}
