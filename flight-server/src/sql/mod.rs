//! Flight SQL, the front door for ADBC, JDBC, ODBC and plain Flight clients, and for our own.
//!
//! ```text
//! door.rs       the calls of the protocol         handles.rs   statements between GetFlightInfo and DoGet
//! actions.rs    our own actions                   sessions.rs  which session a request belongs to
//! metadata.rs   catalogs, schemas, tables, server information
//! ```
//!
//! Next: `serve.rs`. Nothing here plans or runs: it turns calls into statements of a session, and rows into messages.

pub mod actions;
mod door;
mod handles;
mod metadata;
mod sessions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightServiceServer;
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use futures::stream::{BoxStream, Stream};
use futures::{StreamExt, TryStreamExt};
use tonic::Status;
use windrow_core::{Error, Result};

use crate::coordinator::Coordinator;
use crate::wire::to_status;
use handles::Handles;
use sessions::Sessions;

/// Bytes of the largest message a client may send: a statement, or a page of parameters.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// The Flight SQL service of a coordinator.
#[derive(Debug, Clone)]
pub(crate) struct SqlService {
    coordinator: Arc<Coordinator>,
    sessions: Arc<Sessions>,
    handles: Arc<Handles>,
}

impl SqlService {
    /// A service with its default session.
    ///
    /// # Errors
    /// `InvalidConfig` if the coordinator's settings do not fit.
    pub(crate) async fn new(coordinator: Arc<Coordinator>) -> Result<Self> {
        let sessions = Arc::new(Sessions::new(Arc::clone(&coordinator)).await?);
        Ok(Self { coordinator, sessions, handles: Arc::default() })
    }

    /// The tonic service.
    pub(crate) fn server(self) -> FlightServiceServer<Self> {
        FlightServiceServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }
}

/// The schema as it is sent: dictionaries become their values. It is the same in every message about a statement.
fn wire_schema(schema: &SchemaRef) -> SchemaRef {
    let encoder = FlightDataEncoderBuilder::new().with_schema(Arc::clone(schema)).build(futures::stream::empty());
    encoder.known_schema().unwrap_or_else(|| Arc::clone(schema))
}

/// Rows as messages, the schema first.
fn encode(
    schema: SchemaRef,
    rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
) -> BoxStream<'static, Result<FlightData, Status>> {
    let rows = rows.map_err(|error| FlightError::from(to_status(&error)));
    FlightDataEncoderBuilder::new().with_schema(schema).build(rows).map_err(Status::from).boxed()
}

/// The answer to GetFlightInfo: one endpoint at this server.
fn flight_info(schema: &SchemaRef, ticket: Vec<u8>, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(|source| to_status(&Error::internal("a result's schema cannot be sent").with_source(source)))?;
    let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket: ticket.into() });
    Ok(info.with_endpoint(endpoint).with_descriptor(descriptor))
}
