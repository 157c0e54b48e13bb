//! How this process calls others of its cluster: with the cluster's credential, and encrypted where they are. Next: `tls.rs`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use windrow_auth::{ClusterKey, Sealer};
use windrow_core::clock::unix_millis;
use windrow_core::{Error, ErrorKind, Result};

use super::credentials::{EXECUTOR_TTL, executor_pass, executor_sealer};
use super::tls::read;

/// Calls others of the cluster. Cheap to clone.
#[derive(Clone, Default)]
pub struct Dialer {
    pass: Option<Arc<Pass>>,
    tls: Option<ClientTlsConfig>,
}

/// The credential, and until when it is used, in milliseconds since 1970.
struct Pass {
    sealer: Sealer,
    current: Mutex<Option<(MetadataValue<Ascii>, u64)>>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("has_key", &self.pass.is_some()).field("encrypts", &self.tls.is_some()).finish()
    }
}

impl Dialer {
    /// Shows no credential and does not encrypt: for open clusters.
    #[must_use]
    pub fn open() -> Self {
        Self::default()
    }

    /// With the credential of an executor of `key`'s cluster.
    #[must_use]
    pub fn with_key(key: &ClusterKey) -> Self {
        let pass = Pass { sealer: executor_sealer(key), current: Mutex::new(None) };
        Self { pass: Some(Arc::new(pass)), tls: None }
    }

    /// Encrypted, with others whose certificates are signed by one in the PEM file `ca`, or by one that the machine trusts.
    ///
    /// # Errors
    /// `InvalidConfig` if the file cannot be read.
    pub fn encrypted(mut self, ca: Option<&Path>) -> Result<Self> {
        self.tls = Some(client_tls(ca)?);
        Ok(self)
    }

    /// What may be wrong where nobody who is called answers.
    pub(crate) fn hint(&self) -> &'static str {
        match &self.tls {
            None => "if the scheduler has a certificate, this process needs --tls-certificate, --tls-key and --tls-ca too",
            Some(_) => {
                "this process calls encrypted: the scheduler needs a certificate that --tls-ca has signed, for the name it is called by"
            }
        }
    }

    /// The way to `address`, `host:port`.
    ///
    /// # Errors
    /// `InvalidConfig` if it is not an address.
    pub(crate) fn endpoint(&self, address: &str) -> Result<Endpoint> {
        let unfit = |source: tonic::transport::Error| {
            Error::new(ErrorKind::InvalidConfig, format!("'{address}' is not an address; write it as host:port"))
                .with_source(source)
        };
        match &self.tls {
            None => Endpoint::from_shared(format!("http://{address}")).map_err(unfit),
            Some(tls) => {
                let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(unfit)?;
                endpoint.tls_config(tls.clone()).map_err(unfit)
            }
        }
    }

    /// Puts the credential on a call.
    ///
    /// # Errors
    /// `Internal` if it cannot be made, which is a bug.
    pub(crate) fn sign<T>(&self, request: &mut Request<T>) -> Result<(), Status> {
        if let Some(pass) = &self.pass {
            let value = pass.value().map_err(|error| Status::internal(error.to_string()))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(())
    }
}

impl Pass {
    /// A credential that holds for at least half of its time.
    fn value(&self) -> Result<MetadataValue<Ascii>> {
        let now = unix_millis();
        let mut current = self.current.lock();
        if let Some((value, until)) = &*current
            && now < *until
        {
            return Ok(value.clone());
        }
        let pass = executor_pass(&self.sealer, now)?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {pass}")
            .parse()
            .map_err(|source| Error::internal("a credential is not a header").with_source(source))?;
        value.set_sensitive(true);
        let half = u64::try_from(EXECUTOR_TTL.as_millis() / 2).unwrap_or(0);
        *current = Some((value.clone(), now.saturating_add(half)));
        Ok(value)
    }
}

/// How a client checks a server's certificate: signed by one in the PEM file `ca`, or, without one, by one that the machine trusts.
///
/// # Errors
/// `InvalidConfig` if the file cannot be read.
pub fn client_tls(ca: Option<&Path>) -> Result<ClientTlsConfig> {
    Ok(match ca {
        Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    })
}
