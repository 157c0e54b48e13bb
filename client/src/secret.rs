//! The secret of a cluster on this machine, where its own user's shells and executors find it: in a file named by the port. Next:
//! `local_cluster.rs`.

use std::path::{Path, PathBuf};

use windrow_auth::{ClusterKey, file_of_port};
use windrow_core::Result;

/// A cluster's secret in the file of its port, readable by this user alone. Dropping it removes the file.
#[derive(Debug)]
pub struct PublishedSecret {
    path: PathBuf,
}

impl PublishedSecret {
    /// Writes `key` for the cluster that listens on `port`. What a cluster before it left there is replaced: nobody else can listen
    /// on the port.
    ///
    /// # Errors
    /// `Unavailable` if the file cannot be written.
    pub fn new(key: &ClusterKey, port: u16) -> Result<Self> {
        let path = file_of_port(port);
        key.write(&path)?;
        Ok(Self { path })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PublishedSecret {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the secret of a cluster that ended stays behind");
        }
    }
}
