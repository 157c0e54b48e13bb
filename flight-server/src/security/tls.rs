//! The certificate of a listener, read again when its files change, so that a new one needs no restart. Next: `control/mod.rs`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
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
    files: Files,
    clock: SystemClock,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    changed: Changed,
    looked: Millis,
}

/// What the configuration is read from.
#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    /// Signs the certificates of clients.
    client_ca: Option<PathBuf>,
}

/// When the files were written last.
type Changed = [Option<SystemTime>; 3];

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.files).finish_non_exhaustive()
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
            (Some(certificate), Some(key)) => {
                let (certificate, key, client_ca) = (certificate.clone(), key.clone(), config.tls_client_ca.clone());
                Self::new(Files { certificate, key, client_ca }).map(Some)
            }
            _ => Err(Error::new(ErrorKind::InvalidConfig, "a certificate and its key go together")
                .with_help("give both --tls-certificate and --tls-key; `windrow certs init` makes them")),
        }
    }

    fn new(files: Files) -> Result<Self> {
        let changed = files.changed();
        let config = Arc::new(files.server_config()?);
        let clock = SystemClock::new();
        let current = Mutex::new(Current { config, changed, looked: clock.now() });
        Ok(Self { files, clock, current })
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
        let changed = self.files.changed();
        if changed != current.changed {
            match self.files.server_config() {
                Ok(config) => {
                    tracing::info!(certificate = %self.files.certificate.display(), "a new certificate is in use");
                    (current.config, current.changed) = (Arc::new(config), changed);
                }
                // The files are perhaps half written: looked at again soon.
                Err(error) => tracing::warn!(%error, "a changed certificate cannot be used, the old one stays"),
            }
        }
        Arc::clone(&current.config)
    }
}

impl Files {
    fn changed(&self) -> Changed {
        let written = |path: &Path| std::fs::metadata(path).and_then(|about| about.modified()).ok();
        [written(&self.certificate), written(&self.key), self.client_ca.as_deref().and_then(written)]
    }

    fn server_config(&self) -> Result<ServerConfig> {
        let Self { certificate, key, client_ca } = self;
        let chain = certificates(certificate)?;
        let bytes = windrow_auth::read_private(key)?;
        let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|source| unfit(key, &source))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| unfit(certificate, &source))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(authority) => builder.with_client_cert_verifier(verifier(authority, provider)?),
        };
        let mut config = builder.with_single_cert(chain, private).map_err(|source| unfit(key, &source))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// Verifies the certificates of those clients that show one; the others bring another credential, as executors do.
fn verifier(authority: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        roots.add(certificate).map_err(|source| unfit(authority, &source))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    builder.allow_unauthenticated().build().map_err(|source| unfit(authority, &source))
}

/// The certificates of a file, of which there is one at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let all = all.map_err(|source| unfit(path, &source))?;
    if all.is_empty() {
        return Err(unfit(path, &"it holds no certificate in PEM form"));
    }
    Ok(all)
}

fn unfit(path: &Path, source: &dyn fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("'{}' cannot be used for TLS: {source}", path.display()))
}

/// The bytes of a file that settings name.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| {
        Error::new(ErrorKind::InvalidConfig, format!("'{}' cannot be read: {source}", path.display())).with_source(source)
    })
}
