//! The calls of Flight SQL that run statements, each turned into a statement of the request's session. Next: `prepared.rs`.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{DoPutError, FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedSubstraitPlanRequest, Any, CommandPreparedStatementQuery, CommandPreparedStatementUpdate,
    CommandStatementIngest, CommandStatementQuery, CommandStatementSubstraitPlan, CommandStatementUpdate,
    DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, CancelStatus, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo, SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Response, Status, Streaming};
use windrow_core::{Error, Result};

use super::plan_proto::CommandPlan;
use super::prepared::{Body, Prepared, all_values, body};
use super::results_calls::caller;
use super::session_proto::PreparedStatementResult;
use super::{SqlService, actions, fail, ingest, update, wire_schema};
use crate::results::Statement;
use crate::security::{Record, caller_of, record_of};
use crate::session::CoordinatorSession;

type DoGet = Response<<SqlService as FlightService>::DoGetStream>;

impl SqlService {
    /// Plans and submits a statement, and answers with the tickets for its rows once there are any. One that changes something has run
    /// when this returns, and its outcome is what the ticket gives.
    pub(super) async fn info(
        &self,
        prepared: &Prepared,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let (statement, session) = self.begin(prepared, &request).await?;
        self.keep_info(statement, &session, request).await
    }

    /// As [`Self::info`], for a client that comes back for the tickets.
    pub(super) async fn poll(
        &self,
        prepared: &Prepared,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        let (statement, session) = self.begin(prepared, &request).await?;
        self.keep_poll(statement, &session, request).await
    }

    async fn begin(
        &self,
        prepared: &Prepared,
        request: &Request<FlightDescriptor>,
    ) -> Result<(Statement, Arc<CoordinatorSession>), Status> {
        let session = self.sessions.of(request).await.map_err(fail)?;
        let values = prepared.rows().map_err(fail)?;
        let mut statement = session.execute_request(&prepared.request, values.as_ref()).await.map_err(fail)?;
        statement.job.into_iter().for_each(|job| record_of(request.extensions()).job(job));
        if prepared.request.changes_something() {
            statement = update::settled(statement).await.map_err(fail)?;
        }
        // From here on the statement's schema is the one that is announced.
        statement.schema = wire_schema::for_drivers(&statement.schema, keeps_views(&session));
        Ok((statement, session))
    }

    /// The schema that [`Self::info`] would announce, without running anything.
    pub(super) async fn schema_of(
        &self,
        prepared: &Prepared,
        request: &Request<FlightDescriptor>,
    ) -> Result<SchemaResult, Status> {
        let session = self.sessions.of(request).await.map_err(fail)?;
        let values = prepared.rows().map_err(fail)?;
        let description = session.describe_request(&prepared.request, values.as_ref()).await.map_err(fail)?;
        let schema = wire_schema::for_drivers(&description.schema, keeps_views(&session));
        Ok(SchemaResult { schema: wire_schema::ipc(&schema).map_err(fail)? })
    }

    /// The statement that is a ticket of ours.
    fn in_ticket(&self, message: &Any) -> Result<Prepared, Status> {
        let other = |error: arrow::error::ArrowError| Status::invalid_argument(error.to_string());
        if let Some(query) = message.unpack::<CommandStatementQuery>().map_err(other)? {
            return Ok(Prepared::new(query.query));
        }
        let command = message.unpack::<CommandPlan>().map_err(other)?;
        let command = command.ok_or_else(|| Status::unimplemented(format!("no ticket of the type {}", message.type_url)))?;
        Prepared::over(command).map_err(fail)
    }

    /// Plans, submits and reads a statement in one call, so that its job ends with its client, whenever that is.
    async fn run_and_read(&self, prepared: &Prepared, request: Request<Ticket>) -> Result<DoGet, Status> {
        let record = record_of(request.extensions());
        record.text("statement", &prepared.request.text());
        let session = self.sessions.of(&request).await.map_err(fail)?;
        let values = prepared.rows().map_err(fail)?;
        let statement = session.execute_request(&prepared.request, values.as_ref()).await.map_err(fail)?;
        let job = statement.job;
        job.into_iter().for_each(|job| record.job(job));
        let (handle, reading) = self.handles.read(statement).map_err(fail)?;
        // A client of ours: it knows every type.
        let schema = wire_schema::hydrated(&reading.schema());
        let mut response = Response::new(wire_schema::encode(schema, counted(reading, record)));
        let value = MetadataValue::from_bytes(&handle.to_be_bytes());
        response.metadata_mut().insert_bin(actions::STATEMENT_HEADER, value);
        if let Some(job) = job {
            response.metadata_mut().insert(actions::JOB_HEADER, MetadataValue::from(job.0));
        }
        Ok(response)
    }

    /// The answer to CreatePreparedStatement. Nothing runs.
    pub(super) async fn prepare(&self, request: &Request<Action>) -> Result<PreparedStatementResult, Status> {
        let query: ActionCreatePreparedStatementRequest = unpacked(&request.get_ref().body)?;
        record_of(request.extensions()).text("prepare", &query.query);
        self.prepared(Prepared::new(query.query), request).await
    }

    /// The answer to CreatePreparedSubstraitPlan.
    pub(super) async fn prepare_plan(&self, request: &Request<Action>) -> Result<PreparedStatementResult, Status> {
        let session = self.sessions.of(request).await.map_err(fail)?;
        session.planner().check_accepts_plans().map_err(fail)?;
        let query: ActionCreatePreparedSubstraitPlanRequest = unpacked(&request.get_ref().body)?;
        let prepared = Prepared::plan(query.plan, query.transaction_id.as_ref()).map_err(fail)?;
        record_of(request.extensions()).text("prepare", &prepared.request.text());
        self.prepared(prepared, request).await
    }

    async fn prepared(&self, prepared: Prepared, request: &Request<Action>) -> Result<PreparedStatementResult, Status> {
        let session = self.sessions.of(request).await.map_err(fail)?;
        let description = session.describe_request(&prepared.request, None).await.map_err(fail)?;
        let dataset_schema = match description.is_update {
            true => Bytes::new(),
            false => wire_schema::ipc(&wire_schema::for_drivers(&description.schema, keeps_views(&session))).map_err(fail)?,
        };
        Ok(PreparedStatementResult {
            prepared_statement_handle: self.seal(&prepared).map_err(fail)?,
            dataset_schema,
            parameter_schema: wire_schema::ipc(&wire_schema::for_drivers(&description.parameters, false)).map_err(fail)?,
            is_update: Some(description.is_update),
        })
    }
}

/// `rows`, noted as they pass.
pub(super) fn counted(
    rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    record: Record,
) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
    record.rows(0);
    rows.inspect_ok(move |batch| record.rows(batch.num_rows() as u64))
}

/// Notes how many rows were changed, where somebody counted.
fn record_count(record: &Record, rows: i64) {
    u64::try_from(rows).into_iter().for_each(|rows| record.rows(rows));
}

fn keeps_views(session: &CoordinatorSession) -> bool {
    session.planner().query_settings().wire_views
}

/// The message in an action's body.
pub(super) fn unpacked<M: ProstMessageExt>(body: &[u8]) -> Result<M, Status> {
    let invalid = || Status::invalid_argument(format!("the body of this action is a {}", M::type_url()));
    let any = Any::decode(body).map_err(|_why| invalid())?;
    any.unpack().ok().flatten().ok_or_else(invalid)
}

#[tonic::async_trait]
impl FlightSqlService for SqlService {
    type FlightService = Self;

    /// Opens a session for a caller whom the layer has let in. The answer, in a header and as payload, is a bearer token that names
    /// the session; where nobody is asked who they are, it is the session's name.
    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<std::pin::Pin<Box<dyn futures::Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        let caller = caller_of(request.extensions())?;
        let session = self.sessions.open(&caller, &[]).await.map_err(fail)?;
        let (header, value, payload) = match &self.credentials {
            None => (actions::SESSION_HEADER, format!("{session:016x}"), format!("{session:016x}")),
            Some(credentials) => {
                let token = credentials.issue(&caller.principal, session).map_err(fail)?;
                ("authorization", format!("Bearer {token}"), token)
            }
        };
        let payload = Bytes::from(payload);
        let answers: BoxStream<'static, _> = stream::iter([Ok(HandshakeResponse { protocol_version: 0, payload })]).boxed();
        let mut response = Response::new(answers);
        let mut value: MetadataValue<Ascii> =
            value.parse().map_err(|_not_ascii| fail(Error::internal("a token is not a header")))?;
        value.set_sensitive(true);
        response.metadata_mut().insert(header, value);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.info(&Prepared::new(query.query), request).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let prepared = self.open(&query.prepared_statement_handle).map_err(fail)?;
        self.info(&prepared, request).await
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Result<DoGet, Status> {
        self.redeem(&ticket.statement_handle, &request)
    }

    /// A prepared statement as a ticket, with the values that are bound to it.
    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<DoGet, Status> {
        let prepared = self.open(&query.prepared_statement_handle).map_err(fail)?;
        self.run_and_read(&prepared, request).await
    }

    /// A statement as a ticket.
    async fn do_get_fallback(&self, request: Request<Ticket>, message: Any) -> Result<DoGet, Status> {
        let prepared = self.in_ticket(&message)?;
        self.run_and_read(&prepared, request).await
    }

    /// Runs a statement, or a script of several. The body is not read: drivers send nothing.
    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let record = record_of(request.extensions());
        record.text("statement", &command.query);
        let session = self.sessions.of(&request).await.map_err(fail)?;
        update::run_script(&session, &command.query).await.inspect(|rows| record_count(&record, *rows)).map_err(fail)
    }

    /// Runs a plan to its end. Plans change nothing, so nobody counts.
    async fn do_put_substrait_plan(
        &self,
        command: CommandStatementSubstraitPlan,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let prepared = Prepared::plan(command.plan, command.transaction_id.as_ref()).map_err(fail)?;
        let record = record_of(request.extensions());
        record.text("statement", &prepared.request.text());
        let session = self.sessions.of(&request).await.map_err(fail)?;
        update::run_request(&session, &prepared.request).await.inspect(|rows| record_count(&record, *rows)).map_err(fail)
    }

    async fn do_put_statement_ingest(
        &self,
        command: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let record = record_of(request.extensions());
        record.is("ingest");
        let session = self.sessions.of(&request).await.map_err(fail)?;
        record.table(&[command.catalog.as_deref(), command.schema.as_deref(), Some(&command.table)]);
        let rows = ingest::ingest(command, &session, request.into_inner()).await;
        rows.inspect(|rows| record_count(&record, *rows)).map_err(fail)
    }

    /// Runs a prepared statement once for each row of the body; without a body, of the rows that are bound to its handle.
    async fn do_put_prepared_statement_update(
        &self,
        command: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let session = self.sessions.of(&request).await.map_err(fail)?;
        let prepared = self.open(&command.prepared_statement_handle).map_err(fail)?;
        let record = record_of(request.extensions());
        record.text("statement", &prepared.request.text());
        let rows = match body(request.into_inner()).await.map_err(fail)? {
            Body::Values(rows) => rows,
            Body::Empty => match prepared.rows().map_err(fail)? {
                Some(bound) => stream::iter([Ok(bound)]).boxed(),
                None => {
                    let done = update::run_request(&session, &prepared.request).await;
                    return done.inspect(|rows| record_count(&record, *rows)).map_err(fail);
                }
            },
        };
        update::run_for_each(&session, &prepared.request, rows).await.inspect(|rows| record_count(&record, *rows)).map_err(fail)
    }

    /// Binds values, in place of those that the handle has: the answer is another handle.
    async fn do_put_prepared_statement_query(
        &self,
        command: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        record_of(request.extensions()).is("bind");
        let prepared = self.open(&command.prepared_statement_handle).map_err(fail)?;
        let rows = all_values(request.into_inner()).await.map_err(fail)?;
        let bound = prepared.bind(rows.as_ref()).map_err(fail)?;
        let handle = self.seal(&bound).map_err(fail)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    async fn do_put_error_callback(
        &self,
        _request: Request<PeekableFlightDataStream>,
        error: DoPutError,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        Err(Status::invalid_argument(format!("a DoPut begins with a message whose descriptor holds a command: {error}")))
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
        request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        self.cancel_query(&query.info, &caller(&request))?;
        Ok(ActionCancelQueryResult { result: CancelStatus::Cancelled.into() })
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        self.act(request).await.map(Response::new)
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
