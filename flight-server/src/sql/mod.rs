//! Flight SQL, the front door for ADBC, JDBC, ODBC and plain Flight clients, and for our own.
//!
//! ```text
//! door.rs       every call of the protocol        sessions.rs          which session a request belongs to
//! commands.rs   those that run statements         session_options.rs   what drivers set of it, in session_proto.rs
//! prepared.rs   statements with values            metadata.rs          catalogs, schemas, tables, keys
//! update.rs     those that change something       sql_info.rs          what the server says of itself, with type_info.rs
//! handles.rs    statements read as they come      wire_schema.rs       rows as drivers read them
//! results.rs    results fetched by ticket         results_calls.rs     the calls about them
//! actions.rs    our own actions                   tickets.rs           what is sealed in a ticket
//! readers.rs    who reads them, and who waits      desk.rs              tickets that executors redeem
//! incoming.rs   batches that clients send, checked before they are decoded
//! plan_proto.rs  statements over plans that clients made
//! ```
//!
//! Next: `serve.rs`. Nothing here plans or runs: it turns calls into statements of a session, and rows into messages.

pub mod actions;
mod commands;
mod desk;
mod door;
mod handles;
mod incoming;
mod ingest;
mod metadata;
mod plan_proto;
mod prepared;
mod readers;
mod results;
mod results_calls;
pub(crate) mod session_options;
mod session_proto;
mod sessions;
mod sql_info;
#[cfg(test)]
mod tests;
pub(crate) mod tickets;
mod type_info;
mod update;
pub(crate) mod wire_schema;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_flight::flight_service_server::FlightServiceServer;
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use tonic::Status;
use windrow_auth::Sealer;
use windrow_core::{Error, Result};

use crate::coordinator::Coordinator;
use crate::security::{Access, Credentials};
use crate::wire::to_status;
pub(crate) use desk::Desk;
use door::Door;
use handles::Handles;
pub use plan_proto::CommandPlan;
pub(crate) use readers::Reader;
use results::Results;
use sessions::Sessions;

/// Bytes of the largest message a client may send: a statement, or a page of parameters.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// The Flight SQL service of a coordinator.
#[derive(Debug, Clone)]
pub(crate) struct SqlService {
    coordinator: Arc<Coordinator>,
    sessions: Arc<Sessions>,
    handles: Arc<Handles>,
    results: Arc<Results>,
    /// Issue tokens, where callers say who they are.
    credentials: Option<Arc<Credentials>>,
    /// Seals the handles of prepared statements.
    prepared: Arc<Sealer>,
}

impl SqlService {
    /// A service for those whom `access` lets in.
    pub(crate) fn new(coordinator: Arc<Coordinator>, access: &Access) -> Self {
        let sessions = Arc::new(Sessions::new(Arc::clone(&coordinator)));
        let prepared = Arc::new(Sealer::new(access.key(), prepared::PURPOSE));
        let results = Results::new(Arc::clone(&coordinator), access);
        let credentials = access.credentials().cloned();
        Self { coordinator, sessions, handles: Arc::default(), results, credentials, prepared }
    }

    /// Where executors ask whether they may give a result's rows to a client.
    pub(crate) fn desk(&self) -> Desk {
        Desk::new(Arc::clone(&self.results), self.credentials.clone())
    }

    /// The tonic service.
    pub(crate) fn server(self) -> FlightServiceServer<Door> {
        FlightServiceServer::new(Door::new(self)).max_decoding_message_size(REQUEST_BYTES_MAX)
    }
}

fn fail(error: Error) -> Status {
    to_status(&error)
}

/// The answer to GetFlightInfo: one endpoint at this server.
fn flight_info(schema: &SchemaRef, ticket: Vec<u8>, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(|source| to_status(&Error::internal("a result's schema cannot be sent").with_source(source)))?;
    let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket: ticket.into() });
    Ok(info.with_endpoint(endpoint).with_descriptor(descriptor))
}
