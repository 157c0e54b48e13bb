//! The calls of Flight SQL, each turned into a statement of the request's session.

use arrow::ipc::writer::IpcWriteOptions;
use arrow::record_batch::RecordBatch;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{DoPutError, FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, Any, CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes,
    CommandGetTables, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementQuery,
    CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage, SchemaAsIpc, Ticket,
};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};
use windrow_core::{Error, ErrorKind, Result};

use super::{SqlService, actions, encode, flight_info, handles, metadata, wire_schema};
use crate::wire::to_status;

type DoGet = Response<<SqlService as FlightService>::DoGetStream>;

fn fail(error: Error) -> Status {
    to_status(&error)
}

impl SqlService {
    /// Plans and submits a statement, and answers with the ticket for its rows.
    async fn info(&self, sql: &str, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let session = self.sessions.of(request.metadata()).map_err(fail)?;
        let statement = session.execute(sql).await.map_err(fail)?;
        let schema = wire_schema(&statement.schema);
        let job = statement.job.map(|job| Bytes::copy_from_slice(&job.0.to_be_bytes()));
        let handle = self.handles.insert(statement).map_err(fail)?;
        let ticket = TicketStatementQuery { statement_handle: Bytes::copy_from_slice(&handle.to_be_bytes()) };
        let info = flight_info(&schema, ticket.as_any().encode_to_vec(), request.into_inner())?;
        Ok(Response::new(info.with_app_metadata(job.unwrap_or_default())))
    }

    /// Runs a statement to its end and counts its rows away.
    async fn update(&self, sql: &str, headers: &MetadataMap) -> Result<i64, Status> {
        let session = self.sessions.of(headers).map_err(fail)?;
        let mut statement = session.execute(sql).await.map_err(fail)?;
        while let Some(batch) = statement.next().await {
            batch.map_err(fail)?;
        }
        Ok(0)
    }
}

/// An answer of one batch.
fn answer(batch: Result<RecordBatch>) -> Result<DoGet, Status> {
    let batch = batch.map_err(fail)?;
    Ok(Response::new(encode(batch.schema(), stream::iter([Ok(batch)]))))
}

/// The ticket that repeats a command about the catalog.
fn repeat(
    command: impl ProstMessageExt,
    schema: arrow::datatypes::SchemaRef,
    request: Request<FlightDescriptor>,
) -> Result<Response<FlightInfo>, Status> {
    flight_info(&schema, command.as_any().encode_to_vec(), request.into_inner()).map(Response::new)
}

/// The statement in a prepared handle. The handle is the text itself, so that the server keeps nothing.
fn prepared(handle: &[u8]) -> Result<&str, Status> {
    std::str::from_utf8(handle).map_err(|_not_text| Status::invalid_argument("not the handle of a prepared statement"))
}

fn ipc(schema: &arrow::datatypes::Schema) -> Result<Bytes, Status> {
    let message: Result<IpcMessage, _> = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    let IpcMessage(bytes) = message.map_err(|source: arrow::error::ArrowError| {
        fail(Error::internal("a result's schema cannot be sent").with_source(source))
    })?;
    Ok(bytes)
}

#[tonic::async_trait]
impl FlightSqlService for SqlService {
    type FlightService = Self;

    /// Opens a session: its name is in the response's header and its payload. Nobody is authenticated.
    async fn do_handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<std::pin::Pin<Box<dyn futures::Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        let name = format!("{:016x}", self.sessions.open(&[]).await.map_err(fail)?);
        let payload = Bytes::from(name.clone());
        let answers: BoxStream<'static, _> = stream::iter([Ok(HandshakeResponse { protocol_version: 0, payload })]).boxed();
        let mut response = Response::new(answers);
        let value = name.parse().map_err(|_not_ascii| fail(Error::internal("a session's name is not a header")))?;
        response.metadata_mut().insert(actions::SESSION_HEADER, value);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.info(&query.query, request).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.info(prepared(&query.prepared_statement_handle)?, request).await
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, _request: Request<Ticket>) -> Result<DoGet, Status> {
        let handle = handles::parse(&ticket.statement_handle).map_err(fail)?;
        let reading = self.handles.take(handle).map_err(fail)?;
        Ok(Response::new(encode(reading.schema(), reading)))
    }

    /// A statement as a ticket: planned, submitted and read in one call, so that its job ends with its client, whenever that is.
    async fn do_get_fallback(&self, request: Request<Ticket>, message: Any) -> Result<DoGet, Status> {
        let query = message.unpack::<CommandStatementQuery>().map_err(|error| Status::invalid_argument(error.to_string()))?;
        let query = query.ok_or_else(|| Status::unimplemented(format!("no ticket of the type {}", message.type_url)))?;
        let session = self.sessions.of(request.metadata()).map_err(fail)?;
        let statement = session.execute(&query.query).await.map_err(fail)?;
        let (handle, reading) = self.handles.read(statement).map_err(fail)?;
        let mut response = Response::new(encode(reading.schema(), reading));
        let value = MetadataValue::from_bytes(&handle.to_be_bytes());
        response.metadata_mut().insert_bin(actions::STATEMENT_HEADER, value);
        Ok(response)
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        self.update(&command.query, request.metadata()).await
    }

    async fn do_put_prepared_statement_update(
        &self,
        command: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        self.update(prepared(&command.prepared_statement_handle)?, request.metadata()).await
    }

    async fn do_put_prepared_statement_query(
        &self,
        _command: CommandPreparedStatementQuery,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        Err(fail(
            Error::new(ErrorKind::Unsupported, "parameters of prepared statements")
                .with_help("write the values into the statement"),
        ))
    }

    async fn do_put_error_callback(
        &self,
        _request: Request<PeekableFlightDataStream>,
        error: DoPutError,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        Err(Status::invalid_argument(format!("a DoPut without a command: {error}")))
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let session = self.sessions.of(request.metadata()).map_err(fail)?;
        let schema = session.schema(&query.query).await.map_err(fail)?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: query.query.into_bytes().into(),
            dataset_schema: ipc(&wire_schema(&schema))?,
            parameter_schema: Bytes::new(),
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Cancels the statement of the FlightInfo that the client sends back.
    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        _request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        const CANCELLED: i32 = 1;
        const NOT_CANCELLABLE: i32 = 3;
        let info =
            FlightInfo::decode(query.info).map_err(|error| Status::invalid_argument(format!("not a FlightInfo: {error}")))?;
        let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
        let cancelled = tickets
            .filter_map(|ticket| actions::ticket_handle(&ticket.ticket))
            .filter_map(|handle| handles::parse(&handle).ok())
            .filter(|handle| self.handles.cancel(*handle))
            .count();
        Ok(ActionCancelQueryResult { result: if cancelled > 0 { CANCELLED } else { NOT_CANCELLABLE } })
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        self.act(request).await.map(Response::new)
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        Some(actions::types().into_iter().map(Ok).collect())
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        repeat(query, query.into_builder().schema(), request)
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, _request: Request<Ticket>) -> Result<DoGet, Status> {
        answer(metadata::catalogs(query))
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = query.clone().into_builder().schema();
        repeat(query, schema, request)
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, _request: Request<Ticket>) -> Result<DoGet, Status> {
        answer(metadata::schemas(query))
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = query.clone().into_builder().schema();
        repeat(query, schema, request)
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Result<DoGet, Status> {
        let session = self.sessions.of(request.metadata()).map_err(fail)?;
        answer(metadata::tables(query, &session).await)
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        repeat(query, query.into_builder().schema(), request)
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, _request: Request<Ticket>) -> Result<DoGet, Status> {
        answer(metadata::table_types(query))
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        repeat(query, metadata::sql_info_schema(), request)
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, _request: Request<Ticket>) -> Result<DoGet, Status> {
        answer(metadata::sql_info(query))
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
