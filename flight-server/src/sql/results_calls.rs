//! The calls about results: GetFlightInfo and PollFlightInfo begin one, DoGet reads it, and the rest renews, lists and cancels. What
//! a statement is has been found out before. Next: `actions.rs`.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria, FlightDescriptor, FlightEndpoint,
    FlightInfo, Location, PollInfo, RenewFlightEndpointRequest, Ticket,
};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message;
use tonic::{Request, Response, Status};
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::timer;

use super::commands::counted;
use super::readers::Awaited;
use super::results::{Caller, Offer, Wish, unknown};
use super::{SqlService, actions, fail, tickets, wire_schema};
use crate::fetch::Asker;
use crate::results::Statement;
use crate::security::{self, record_of};
use crate::session::CoordinatorSession;

/// Clients come back to this server over the connection that they have.
const HERE: &str = "arrow-flight-reuse-connection://?";

/// How long GetFlightInfo waits for the rest of a result that will be read from executors, once its first partition is there.
const REST_WITHIN: Duration = Duration::from_secs(1);

/// How long GetFlightInfo waits for rows where its call cannot be taken back. Whoever cancels waits as long, and an error that comes
/// sooner is that of the execution.
const FIRST_WITHIN: Duration = Duration::from_millis(300);

/// Drivers over grpc-java, thus JDBC, wait for the answer of GetFlightInfo whatever happens: what a user cancels, or gives a time, is
/// the reading of rows.
fn waits_whatever_happens<T>(request: &Request<T>) -> bool {
    let agent = request.metadata().get(http::header::USER_AGENT.as_str()).and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| agent.contains("grpc-java"))
}

/// Who calls, as the layer in front of this service found out; `None` is nobody, who owns what nobody owns.
pub(super) fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<security::Caller>().map(|caller| caller.principal.clone())
}

/// Bytes of a protocol message.
fn parse<M: Message + Default>(bytes: &[u8]) -> Result<M, Status> {
    M::decode(bytes).map_err(|error| Status::invalid_argument(format!("not the message of this call: {error}")))
}

impl SqlService {
    /// GetFlightInfo: answers once the job of `statement` has failed or a partition of its result can be read; sooner where its call
    /// cannot be taken back.
    ///
    /// # Errors
    /// The job's.
    pub(super) async fn keep_info(
        &self,
        statement: Statement,
        session: &CoordinatorSession,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let asker = Asker::of(request.extensions());
        let is_patient = !waits_whatever_happens(&request);
        let offer = self.keep(statement, session, request).await?;
        let awaited = Awaited::new(&self.results, Arc::clone(&offer));
        if is_patient {
            self.readable(&offer, asker.as_ref()).await?;
        } else if let Some(readable) = timer::deadline(FIRST_WITHIN, self.readable(&offer, asker.as_ref())).await {
            readable?;
        }
        offer.touch();
        let info = self.answer(&offer, 0..offer.tickets.len(), asker.as_ref())?;
        awaited.hand_over();
        Ok(Response::new(info))
    }

    /// Waits until a partition of a result can be read, and for a while for the others if it will be read from executors.
    async fn readable(&self, offer: &Offer, asker: Option<&Asker>) -> Result<(), Status> {
        offer.kept.begun().await.map_err(fail)?;
        if self.results.will_be_direct(offer, asker) {
            // Where a partition is that is not there yet, nobody knows: only those that are can be read from executors.
            let _ = timer::deadline(REST_WITHIN, offer.kept.complete()).await;
            offer.kept.is_ready(0..0).map_err(fail)?;
        }
        Ok(())
    }

    /// The first PollFlightInfo of a statement: answers at once.
    ///
    /// # Errors
    /// The job's, if it has failed already.
    pub(super) async fn keep_poll(
        &self,
        statement: Statement,
        session: &CoordinatorSession,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        let asker = Asker::of(request.extensions());
        let offer = self.keep(statement, session, request).await?;
        let awaited = Awaited::new(&self.results, Arc::clone(&offer));
        let poll = self.poll_answer(&offer, asker.as_ref())?;
        awaited.hand_over();
        Ok(Response::new(poll))
    }

    /// A later PollFlightInfo, by the descriptor of the one before; `None` if the descriptor is that of a statement.
    ///
    /// # Errors
    /// The job's; `NotFound` if the result is gone or somebody else's.
    pub(super) async fn poll_again(&self, request: &Request<FlightDescriptor>) -> Option<Result<Response<PollInfo>, Status>> {
        let name = &request.get_ref().cmd;
        if !tickets::is_name(name) {
            return None;
        }
        let found = self.results.by_name(name, &caller(request)).map_err(fail);
        let answer = async {
            let offer = found?;
            offer.touch();
            offer.kept.await_end().await.map_err(fail)?;
            self.poll_answer(&offer, Asker::of(request.extensions()).as_ref()).map(Response::new)
        };
        Some(answer.await)
    }

    async fn keep(
        &self,
        statement: Statement,
        session: &CoordinatorSession,
        request: Request<FlightDescriptor>,
    ) -> Result<Arc<Offer>, Status> {
        let owner = caller(&request);
        let (descriptor, cancel_on_drop) = (request.into_inner(), session.cancels_on_drop());
        let wish = Wish { owner, session: session.id(), descriptor, cancel_on_drop };
        self.results.keep(statement, wish).await.map_err(fail)
    }

    /// DoGet of a ticket: its partitions, in order, as they are there.
    ///
    /// # Errors
    /// The job's, if it has failed; `NotFound` if the result is gone, or is not the caller's.
    pub(super) fn redeem<T>(
        &self,
        ticket: &[u8],
        request: &Request<T>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let (offer, partitions) = self.results.by_ticket(ticket, &caller(request)).map_err(fail)?;
        let record = record_of(request.extensions());
        record.job(offer.kept.job);
        offer.touch();
        offer.kept.is_ready(0..0).map_err(fail)?;
        let schema = Arc::clone(&offer.kept.schema);
        Ok(Response::new(wire_schema::encode(schema, counted(self.results.read(offer, partitions), record))))
    }

    /// RenewFlightEndpoint: the same endpoint with all its time before it.
    ///
    /// # Errors
    /// `NotFound` as in [`Self::redeem`].
    pub(super) fn renew(&self, request: &Request<Action>) -> Result<FlightEndpoint, Status> {
        let asked: RenewFlightEndpointRequest = parse(&request.get_ref().body)?;
        let ticket = asked.endpoint.and_then(|endpoint| endpoint.ticket).map(|ticket| ticket.ticket).unwrap_or_default();
        let handle = actions::ticket_handle(&ticket).ok_or_else(|| fail(unknown()))?;
        let (offer, partitions) = self.results.by_ticket(&handle, &caller(request)).map_err(fail)?;
        offer.touch();
        Ok(endpoint(&offer, ticket, self.results.location(&offer, partitions, Asker::of(request.extensions()).as_ref())))
    }

    /// CancelFlightInfo, by the sealed name in the info's metadata, from any connection of the owner.
    ///
    /// # Errors
    /// `NotFound` if it is not one, or somebody else's.
    pub(super) fn cancel_info(&self, body: &[u8], caller: &Caller) -> Result<CancelFlightInfoResult, Status> {
        let request: CancelFlightInfoRequest = parse(body)?;
        let info = request.info.ok_or_else(|| Status::invalid_argument("CancelFlightInfo without a FlightInfo"))?;
        self.results.cancel(&info.app_metadata, caller).map_err(fail)?;
        Ok(CancelFlightInfoResult::new(CancelStatus::Cancelled))
    }

    /// CancelQuery, the deprecated form: whether there was something to cancel.
    pub(super) fn cancel_query(&self, info: &[u8], caller: &Caller) -> Result<(), Status> {
        let info: FlightInfo = parse(info)?;
        self.results.cancel(&info.app_metadata, caller).map_err(fail)
    }

    /// ListFlights: the caller's results.
    ///
    /// # Errors
    /// `Internal` if a schema cannot be sent.
    pub(super) async fn list(
        &self,
        request: Request<Criteria>,
    ) -> Result<Response<BoxStream<'static, Result<FlightInfo, Status>>>, Status> {
        let mine = self.results.of(&caller(&request));
        let asker = Asker::of(request.extensions());
        let infos = mine.iter().map(|offer| self.answer(offer, 0..offer.tickets.len(), asker.as_ref()));
        let infos: Result<Vec<_>, _> = infos.collect();
        Ok(Response::new(stream::iter(infos?).map(Ok).boxed()))
    }

    /// CloseSession: its results go with it, but for those of jobs that were detached.
    pub(super) fn close_results(&self, session: &CoordinatorSession) {
        self.results.close_session(session.id());
    }

    /// The answer about a result to `asker`, with some of its tickets.
    fn answer(
        &self,
        offer: &Offer,
        tickets: impl IntoIterator<Item = usize>,
        asker: Option<&Asker>,
    ) -> Result<FlightInfo, Status> {
        let unsendable = |source| fail(Error::internal("a result's schema cannot be sent").with_source(source));
        let info = FlightInfo::new().try_with_schema(&offer.kept.schema).map_err(unsendable)?;
        let mut info = info.with_descriptor(offer.wish.descriptor.clone());
        let tickets = tickets.into_iter().filter_map(|index| offer.tickets.get(index));
        let endpoints = tickets.map(|(partitions, ticket)| {
            let ticket = TicketStatementQuery { statement_handle: ticket.clone() }.as_any().encode_to_vec();
            endpoint(offer, ticket.into(), self.results.location(offer, partitions.clone(), asker))
        });
        info.endpoint = endpoints.collect();
        // Rows that have an order are in one partition.
        info.ordered = offer.kept.partitions() == 1;
        info.app_metadata = offer.name.clone();
        Ok(info)
    }

    /// What PollFlightInfo answers now.
    fn poll_answer(&self, offer: &Offer, asker: Option<&Asker>) -> Result<PollInfo, Status> {
        let listed = offer.listed().map_err(fail)?;
        let is_done = listed.len() == offer.tickets.len();
        let mut answer = PollInfo::new().with_info(self.answer(offer, listed, asker)?);
        answer.progress = Some(offer.progress(is_done));
        if !is_done {
            answer.flight_descriptor = Some(FlightDescriptor::new_cmd(offer.name.clone()));
        }
        let mut time = answer.expiration_time.take().unwrap_or_default();
        (time.seconds, time.nanos) = timestamp(offer.expires_at());
        answer.expiration_time = Some(time);
        Ok(answer)
    }
}

fn endpoint(offer: &Offer, ticket: Bytes, executor: Option<String>) -> FlightEndpoint {
    let mut endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket });
    // In the order in which clients are to try them.
    endpoint.location = executor.into_iter().chain([HERE.to_owned()]).map(|uri| Location { uri }).collect();
    let mut time = endpoint.expiration_time.take().unwrap_or_default();
    (time.seconds, time.nanos) = timestamp(offer.expires_at());
    endpoint.expiration_time = Some(time);
    endpoint
}

/// Seconds and nanoseconds of milliseconds since 1970.
fn timestamp(millis: u64) -> (i64, i32) {
    let seconds = i64::try_from(millis / 1000).unwrap_or(i64::MAX);
    (seconds, i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0))
}

/// The error of a PollFlightInfo whose descriptor is no statement.
pub(super) fn not_polled() -> Status {
    fail(
        Error::new(ErrorKind::Unsupported, "this descriptor is no query, and only queries are polled")
            .with_help("call GetFlightInfo"),
    )
}
