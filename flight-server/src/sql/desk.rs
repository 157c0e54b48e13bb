//! Tickets that clients bring to executors: decided here, as those that they bring to the coordinator are. Next: `actions.rs`.

use std::sync::Arc;

use tonic::Status;
use windrow_auth::Login;
use windrow_core::clock::unix_millis;

use super::readers::Reader;
use super::results::{Results, unknown};
use super::{fail, wire_schema};
use crate::fetch::Answer;
use crate::security::Credentials;

/// Decides whether an executor may give the rows of a ticket to a client.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    results: Arc<Results>,
    credentials: Option<Arc<Credentials>>,
}

impl Desk {
    pub(super) fn new(results: Arc<Results>, credentials: Option<Arc<Credentials>>) -> Self {
        Self { results, credentials }
    }

    /// Lets the executor at `address` give the rows of `ticket` to whoever `login` is, and counts a reader for as long as it is held.
    ///
    /// # Errors
    /// `NOT_FOUND` if it is not theirs or not there; what the job failed with. `UNAUTHENTICATED` for a login that was ended.
    pub(crate) async fn give(&self, ticket: &[u8], login: &Login, address: &str) -> Result<(Answer, Reader), Status> {
        match &self.credentials {
            Some(credentials) if credentials.holds(login, unix_millis()) => {}
            // Executors do not hear of logins that are ended.
            Some(_) => return Err(Status::unauthenticated("not logged in any more")),
            None => return Err(fail(unknown())),
        }
        let (schema, groups, reader) = self.results.give(ticket, login, address).await.map_err(fail)?;
        let schema = wire_schema::ipc(&schema).map_err(fail)?;
        Ok((Answer { schema, groups }, reader))
    }
}
