//! Flags about who may come in and how this process proves who it is, for those subcommands that listen or connect.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use windrow::{Error, ErrorKind, Result};
use windrow_auth::{ClusterKey, file_of_port};
use windrow_core::config::SecurityConfig;
use windrow_flight::{Access, Dialer};

/// Flags of every listener.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ListenerFlags {
    /// The secret that scheduler and executors share; made if it is not there [default: a file of this user, by the scheduler's port]
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) secret_file: Option<PathBuf>,
    /// The certificate of this listener, in PEM form; an address that other machines reach needs one
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "Security")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// The certificate's private key
    #[arg(long, value_name = "FILE", requires = "tls_certificate", help_heading = "Security")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The certificate that signed those of scheduler and executors, which call each other encrypted [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Let everybody in who reaches the address, unencrypted, with every right
    #[arg(long, help_heading = "Security", conflicts_with_all = ["tls_certificate", "tls_ca"])]
    pub(crate) insecure: bool,
}

/// Flags about users, of a scheduler.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct UserFlags {
    /// Users with passwords, as `windrow user add` writes them
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) users_file: Option<PathBuf>,
    /// Tokens, as `windrow token create` writes them
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) tokens_file: Option<PathBuf>,
    /// The authority, in PEM form, whose certificates log in the users that they name, instead of a password
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) tls_client_ca: Option<PathBuf>,
}

impl ListenerFlags {
    /// The settings with the flags in their place.
    pub(crate) fn over(&self, config: SecurityConfig) -> SecurityConfig {
        SecurityConfig {
            secret_file: self.secret_file.clone().or(config.secret_file),
            tls_certificate: self.tls_certificate.clone().or(config.tls_certificate),
            tls_key: self.tls_key.clone().or(config.tls_key),
            tls_ca: self.tls_ca.clone().or(config.tls_ca),
            ..config
        }
    }
}

impl UserFlags {
    /// The settings with the flags in their place.
    pub(crate) fn over(&self, config: SecurityConfig) -> SecurityConfig {
        SecurityConfig {
            users_file: self.users_file.clone().or(config.users_file),
            tokens_file: self.tokens_file.clone().or(config.tokens_file),
            tls_client_ca: self.tls_client_ca.clone().or(config.tls_client_ca),
            ..config
        }
    }
}

/// Who is let in, and how others of the cluster are called.
pub(crate) fn access(key: Option<&ClusterKey>, config: &SecurityConfig, insecure: bool) -> Result<(Access, Dialer)> {
    let dialer = key.map_or_else(Dialer::open, Dialer::with_key);
    let is_encrypted = config.tls_certificate.is_some() && !insecure;
    let dialer = if is_encrypted { dialer.encrypted(config.tls_ca.as_deref())? } else { dialer };
    let access = match key {
        Some(key) if !insecure => Access::configured(key.clone(), config)?,
        _ => Access::open(),
    };
    Ok((access, dialer))
}

/// The secret of a scheduler that will listen on `bind`: the one of the settings, else the one of its port, which outlives it so that
/// executors know it again. `None` for any free port: it is made and published once the port is known.
pub(crate) fn key_of_scheduler(config: &SecurityConfig, bind: SocketAddr) -> Result<Option<ClusterKey>> {
    match (&config.secret_file, bind.port()) {
        (Some(path), _) => ClusterKey::read_or_make(path).map(Some),
        (None, 0) => Ok(None),
        (None, port) => ClusterKey::read_or_make(file_of_port(port)).map(Some),
    }
}

/// The secret of an executor for `scheduler`, `host:port`: the one of the settings, or for a scheduler on this machine the one of its
/// port. `None` if there is none and nobody asks.
pub(crate) fn key_of_executor(config: &SecurityConfig, scheduler: &str, insecure: bool) -> Result<Option<ClusterKey>> {
    if let Some(path) = &config.secret_file {
        return ClusterKey::read(path).map(Some);
    }
    let (host, port) = scheduler.rsplit_once(':').unwrap_or((scheduler, ""));
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match port.parse::<u16>() {
        Ok(port) if is_here && (!insecure || file_of_port(port).exists()) => {
            ClusterKey::read_or_make(file_of_port(port)).map(Some)
        }
        _ if insecure => Ok(None),
        _ => Err(Error::new(ErrorKind::InvalidConfig, format!("no secret to join the scheduler at {scheduler} with")).with_help(
            "give the scheduler's own --secret-file, a copy of which this machine needs; `windrow secret create` makes one",
        )),
    }
}
