//! As whom a client goes to a scheduler. Next: `remote.rs`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use arrow_flight::HandshakeRequest;
use arrow_flight::flight_service_client::FlightServiceClient;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use windrow_auth::{ClusterKey, file_of_port};
use windrow_core::{Error, ErrorKind, Result};
use windrow_flight::security::owner_token;
use windrow_flight::wire;

use crate::target::Target;

/// How long the token holds that whoever started a cluster makes for a session.
const OWNER_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// What proves who a client is. Without any of it, a scheduler on this machine is asked as its owner, if this user started it.
#[derive(Clone, Default)]
pub struct Login {
    /// A token that an administrator or a login gave out.
    pub token: Option<String>,
    /// The password of the user that the url names.
    pub password: Option<String>,
    /// A PEM file with the certificate that signed the server's; without it, those that this machine trusts.
    pub ca: Option<PathBuf>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("has_token", &self.token.is_some())
            .field("has_password", &self.password.is_some())
            .field("ca", &self.ca)
            .finish()
    }
}

impl Login {
    /// The token for `target`; `None` if nothing is known that could be shown.
    ///
    /// # Errors
    /// `Denied` for a wrong password, `InvalidConfig` if the url names a user and there is no password.
    pub(crate) async fn token(&self, target: &Target, client: &mut FlightServiceClient<Channel>) -> Result<Option<String>> {
        if let Some(token) = &self.token {
            return Ok(Some(token.trim().to_owned()));
        }
        match (&target.user, &self.password) {
            (Some(user), Some(password)) => handshake(client, user, password).await.map(Some),
            (Some(user), None) => Err(Error::new(ErrorKind::InvalidConfig, format!("no password for {user}"))
                .with_help("set WINDROW_PASSWORD, or connect from a terminal, which asks for it")),
            (None, _) if target.is_loopback() => owners(target.port),
            (None, _) => Ok(None),
        }
    }
}

/// The token of whoever started the scheduler on this port of this machine: only its own user can read the file it is made from.
fn owners(port: u16) -> Result<Option<String>> {
    let path = file_of_port(port);
    if !path.exists() {
        return Ok(None);
    }
    match ClusterKey::read(&path) {
        Ok(key) => owner_token(&key, OWNER_TTL).map(Some),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "the secret of a local scheduler cannot be read");
            Ok(None)
        }
    }
}

async fn handshake(client: &mut FlightServiceClient<Channel>, user: &str, password: &str) -> Result<String> {
    let hello = HandshakeRequest { protocol_version: 0, payload: bytes::Bytes::new() };
    let mut request = Request::new(futures::stream::iter([hello]));
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
    let mut basic: MetadataValue<Ascii> = basic.parse().map_err(|_not_ascii| Error::internal("a login is not a header"))?;
    basic.set_sensitive(true);
    request.metadata_mut().insert("authorization", basic);
    let response = client.handshake(request).await.map_err(|status| {
        // A status with a cause was made here, by the connection; one without was sent.
        match std::error::Error::source(&status) {
            Some(_) => Error::new(ErrorKind::Unavailable, "the connection is lost").with_source(status),
            None => wire::from_status(&status),
        }
    })?;
    let token = response.metadata().get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    token.map(str::to_owned).ok_or_else(|| {
        Error::new(ErrorKind::Data, "the server accepted the password and sent no token").with_help("is it a Windrow scheduler?")
    })
}
