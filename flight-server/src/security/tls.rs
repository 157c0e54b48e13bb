//! The certificate of a listener, read again when its files change, so that a new one needs no restart. Next: `control/mod.rs`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use windrow_core::clock::{Clock, Millis, SystemClock};
use windrow_core::config::SecurityConfig;
use windrow_core::{Error, ErrorKind, Result};

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The certificate and key of a listener.
pub(crate) struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    clock: SystemClock,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    changed: Changed,
    looked: Millis,
}

/// When the two files were written last.
type Changed = (Option<SystemTime>, Option<SystemTime>);

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// As `config` says, if it names a certificate.
    ///
    /// # Errors
    /// `InvalidConfig` if certificate and key do not go together or cannot be read.
    pub(super) fn configured(config: &SecurityConfig) -> Result<Option<Self>> {
        match (&config.tls_certificate, &config.tls_key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Self::new(certificate.clone(), key.clone()).map(Some),
            _ => Err(Error::new(ErrorKind::InvalidConfig, "a certificate and its key go together")
                .with_help("give both --tls-certificate and --tls-key; `windrow certs init` makes them")),
        }
    }

    fn new(certificate: PathBuf, key: PathBuf) -> Result<Self> {
        let changed = changed(&certificate, &key);
        let config = Arc::new(server_config(&certificate, &key)?);
        let clock = SystemClock::new();
        let current = Mutex::new(Current { config, changed, looked: clock.now() });
        Ok(Self { certificate, key, clock, current })
    }

    /// Encrypts a connection that was accepted.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.config()).accept(stream).await
    }

    /// The newest configuration that can be read.
    fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock();
        let now = self.clock.now();
        if now < current.looked.after(LOOK_EVERY) {
            return Arc::clone(&current.config);
        }
        current.looked = now;
        let changed = changed(&self.certificate, &self.key);
        if changed != current.changed {
            match server_config(&self.certificate, &self.key) {
                Ok(config) => {
                    tracing::info!(certificate = %self.certificate.display(), "a new certificate is in use");
                    (current.config, current.changed) = (Arc::new(config), changed);
                }
                // The files are perhaps half written: looked at again soon.
                Err(error) => tracing::warn!(%error, "a changed certificate cannot be used, the old one stays"),
            }
        }
        Arc::clone(&current.config)
    }
}

fn changed(certificate: &Path, key: &Path) -> Changed {
    let written = |path: &Path| std::fs::metadata(path).and_then(|about| about.modified()).ok();
    (written(certificate), written(key))
}

fn server_config(certificate: &Path, key: &Path) -> Result<ServerConfig> {
    let unfit = |path: &Path, source: &dyn fmt::Display| {
        Error::new(ErrorKind::InvalidConfig, format!("'{}' cannot be used for TLS: {source}", path.display()))
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|source| unfit(certificate, &source))?;
    if chain.is_empty() {
        return Err(unfit(certificate, &"it holds no certificate in PEM form"));
    }
    let bytes = windrow_auth::read_private(key)?;
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|source| unfit(key, &source))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| unfit(certificate, &source))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|source| unfit(key, &source))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The bytes of a file that settings name.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| {
        Error::new(ErrorKind::InvalidConfig, format!("'{}' cannot be read: {source}", path.display())).with_source(source)
    })
}
