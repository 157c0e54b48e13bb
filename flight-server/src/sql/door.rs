//! The door: every call of Flight, as clients of Flight SQL make it. What it does not name falls through to the dispatch of the
//! crate `arrow-flight`, which lacks schemas, sessions and half of preparing. Next: `commands.rs`.

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::Command;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, PollInfo, PutResult,
    SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};
use windrow_auth::{Verb, authorize};

use super::plan_proto::CommandPlan;
use super::prepared::Prepared;
use super::results_calls::{caller, not_polled};
use super::{SqlService, actions, fail, flight_info, metadata, wire_schema};
use crate::security::{caller_of, record_of};

type Answers = BoxStream<'static, Result<arrow_flight::Result, Status>>;

/// Actions of the protocol, as they are listed.
const ACTIONS: [(&str, &str); 9] = [
    (CREATE_PREPARED, "prepares a statement: ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult"),
    (CREATE_PREPARED_PLAN, "prepares a plan: ActionCreatePreparedSubstraitPlanRequest, ActionCreatePreparedStatementResult"),
    (CLOSE_PREPARED, "forgets a prepared statement: ActionClosePreparedStatementRequest"),
    (CANCEL_FLIGHT_INFO, "ends a statement: CancelFlightInfoRequest, CancelFlightInfoResult"),
    (RENEW_ENDPOINT, "puts off the expiry of a result: RenewFlightEndpointRequest, FlightEndpoint"),
    (CANCEL_QUERY, "ends a statement, for old clients: ActionCancelQueryRequest, ActionCancelQueryResult"),
    (SET_OPTIONS, "sets options of the session: SetSessionOptionsRequest, SetSessionOptionsResult"),
    (GET_OPTIONS, "the options of the session: no body, GetSessionOptionsResult"),
    (CLOSE_SESSION, "closes the session: no body, CloseSessionResult"),
];

const CREATE_PREPARED: &str = "CreatePreparedStatement";
const CREATE_PREPARED_PLAN: &str = "CreatePreparedSubstraitPlan";
const CLOSE_PREPARED: &str = "ClosePreparedStatement";
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
const RENEW_ENDPOINT: &str = "RenewFlightEndpoint";
const CANCEL_QUERY: &str = "CancelQuery";
pub(super) const SET_OPTIONS: &str = "SetSessionOptions";
pub(super) const GET_OPTIONS: &str = "GetSessionOptions";
pub(super) const CLOSE_SESSION: &str = "CloseSession";

/// Actions that the dispatch below would decode, and that there are not.
const UNSUPPORTED: [&str; 4] = ["BeginTransaction", "EndTransaction", "BeginSavepoint", "EndSavepoint"];

/// The only Flight service that is registered.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    sql: SqlService,
}

impl Door {
    pub(super) fn new(sql: SqlService) -> Self {
        Self { sql }
    }
}

/// What a descriptor asks for.
enum Asked {
    /// Rows: the statement, with its values.
    Rows(Prepared),
    /// Something about the catalog.
    Metadata(Command),
    /// Something else.
    Other,
}

impl Door {
    fn asked(&self, descriptor: &FlightDescriptor) -> Result<Asked, Status> {
        if descriptor.r#type == i32::from(DescriptorType::Path) {
            return table(&descriptor.path).map(|text| Asked::Rows(Prepared::new(text)));
        }
        Ok(match metadata::command(&descriptor.cmd)? {
            Command::CommandStatementQuery(query) => Asked::Rows(Prepared::new(query.query)),
            Command::CommandStatementSubstraitPlan(query) => {
                Asked::Rows(Prepared::plan(query.plan, query.transaction_id.as_ref()).map_err(fail)?)
            }
            Command::CommandPreparedStatementQuery(query) => {
                Asked::Rows(self.sql.open(&query.prepared_statement_handle).map_err(fail)?)
            }
            Command::Unknown(any) => {
                match any.unpack::<CommandPlan>().map_err(|error| Status::invalid_argument(error.to_string()))? {
                    Some(command) => Asked::Rows(Prepared::over(command).map_err(fail)?),
                    None => Asked::Other,
                }
            }
            command if metadata::schema(&command).is_some() => Asked::Metadata(command),
            _ => Asked::Other,
        })
    }
}

/// The statement that reads the table at `path`: catalog, schema and table, or the last of them.
fn table(path: &[String]) -> Result<String, Status> {
    if path.is_empty() || path.len() > 3 || path.iter().any(String::is_empty) {
        return Err(Status::invalid_argument("the path of a table has one to three parts: catalog, schema, table"));
    }
    let quoted: Vec<String> = path.iter().map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    Ok(format!("SELECT * FROM {}", quoted.join(".")))
}

fn one(message: &impl Message) -> Answers {
    bytes(message.encode_to_vec().into())
}

fn bytes(body: Bytes) -> Answers {
    stream::iter([Ok(arrow_flight::Result { body })]).boxed()
}

fn with_headers(headers: MetadataMap, answers: Answers) -> Response<Answers> {
    Response::from_parts(headers, answers, Extensions::new())
}

#[tonic::async_trait]
impl FlightService for Door {
    type HandshakeStream = <SqlService as FlightService>::HandshakeStream;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = Answers;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        FlightService::handshake(&self.sql, request).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.sql.list(request).await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let record = record_of(request.extensions());
        match self.asked(request.get_ref())? {
            Asked::Rows(statement) => {
                record.text("statement", &statement.request.text());
                self.sql.info(&statement, request).await
            }
            Asked::Metadata(command) => {
                record.is("metadata");
                let schema = metadata::schema(&command).ok_or_else(|| Status::internal("a command without a schema"))?;
                // The command is its own ticket.
                let ticket = request.get_ref().cmd.to_vec();
                flight_info(&schema, ticket, request.into_inner()).map(Response::new)
            }
            Asked::Other => FlightService::get_flight_info(&self.sql, request).await,
        }
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let record = record_of(request.extensions());
        record.is("poll");
        if let Some(answer) = self.sql.poll_again(&request).await {
            return answer;
        }
        match self.asked(request.get_ref())? {
            Asked::Rows(statement) => {
                record.text("statement", &statement.request.text());
                self.sql.poll(&statement, request).await
            }
            Asked::Metadata(_) | Asked::Other => Err(not_polled()),
        }
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let schema = match self.asked(request.get_ref())? {
            Asked::Rows(statement) => {
                record_of(request.extensions()).text("schema", &statement.request.text());
                self.sql.schema_of(&statement, &request).await?
            }
            Asked::Metadata(command) => {
                let schema = metadata::schema(&command).ok_or_else(|| Status::internal("a command without a schema"))?;
                SchemaResult { schema: wire_schema::ipc(&schema).map_err(fail)? }
            }
            Asked::Other => return Err(Status::unimplemented("this command has no schema")),
        };
        Ok(Response::new(schema))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        if let Ok(command) = metadata::command(&request.get_ref().ticket)
            && metadata::schema(&command).is_some()
        {
            record_of(request.extensions()).is("metadata");
            let session = self.sql.sessions.of(&request).await.map_err(fail)?;
            let is_read_only = authorize(&caller_of(request.extensions())?.principal, Verb::Write).is_err();
            let batch = metadata::answer(command, &session, is_read_only).await.map_err(fail)?;
            let batch = batch.ok_or_else(|| Status::internal("a command without an answer"))?;
            return Ok(Response::new(wire_schema::encode(batch.schema(), stream::iter([Ok(batch)]))));
        }
        FlightService::do_get(&self.sql, request).await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        FlightService::do_put(&self.sql, request).await
    }

    async fn list_actions(&self, _request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let takes_plans = self.sql.coordinator.accepts_plans();
        let there = ACTIONS.into_iter().filter(|(name, _)| takes_plans || *name != CREATE_PREPARED_PLAN);
        let of_protocol = there.map(|(name, what)| ActionType { r#type: name.to_owned(), description: what.to_owned() });
        let all: Vec<_> = of_protocol.chain(actions::types()).map(Ok).collect();
        Ok(Response::new(stream::iter(all).boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        record_of(request.extensions()).is(actions::what_of(&request.get_ref().r#type));
        match request.get_ref().r#type.as_str() {
            CREATE_PREPARED => Ok(Response::new(bytes(self.sql.prepare(&request).await?.packed()))),
            CREATE_PREPARED_PLAN => Ok(Response::new(bytes(self.sql.prepare_plan(&request).await?.packed()))),
            CLOSE_PREPARED | CANCEL_QUERY => FlightService::do_action(&self.sql, request).await,
            CANCEL_FLIGHT_INFO => Ok(Response::new(one(&self.sql.cancel_info(&request.get_ref().body, &caller(&request))?))),
            RENEW_ENDPOINT => Ok(Response::new(one(&self.sql.renew(&request)?))),
            SET_OPTIONS => {
                let (result, headers) = self.sql.set_options(&request).await?;
                Ok(with_headers(headers, one(&result)))
            }
            GET_OPTIONS => Ok(Response::new(one(&self.sql.get_options(&request).await?))),
            CLOSE_SESSION => {
                let (result, headers) = self.sql.close_session(&request)?;
                Ok(with_headers(headers, one(&result)))
            }
            other if UNSUPPORTED.contains(&other) => Err(Status::unimplemented(format!("no action named '{other}'"))),
            _ => FlightService::do_action(&self.sql, request).await,
        }
    }

    async fn do_exchange(&self, _request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented("there is no DoExchange here"))
    }
}
