//! Our own actions, beside those of Flight SQL: what a client of ours needs that the protocol has no word for. Bodies and results
//! are postcard, because both ends are of one build. Next: `metadata.rs`.

use std::time::Duration;

use arrow_flight::{Action, ActionType};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde::Serialize;
use tonic::{Request, Status};
use windrow_auth::{Principal, Role, Verb, authorize, authorize_stop};
use windrow_core::Result;
use windrow_core::ids::JobId;
use windrow_core::message::{decode, encode};
use windrow_executor::timer;
use windrow_planner::Names;

use super::results_calls::caller;
use super::{SqlService, fail, handles, tickets};
use crate::security::{caller_of, record_of};
use crate::status::JobProgress;
use crate::wire::to_status;

pub use super::sessions::SESSION_HEADER;

/// The header of a statement's rows with its handle, for [`CANCEL`] and [`PROGRESS`], if the ticket was the statement itself, as a
/// `CommandStatementQuery`.
pub const STATEMENT_HEADER: &str = "x-windrow-statement-bin";

/// The header beside [`STATEMENT_HEADER`] with the number of the statement's job, if it has one.
pub const JOB_HEADER: &str = "x-windrow-job";

/// Opens a session. Body: settings as `Vec<(String, String)>`, or empty. Result: `u64`, for the header [`SESSION_HEADER`] in
/// hexadecimal.
pub const OPEN_SESSION: &str = "windrow.open_session";

/// Closes the session that the header names. Result: `bool`, whether it was open.
pub const CLOSE_SESSION: &str = "windrow.close_session";

/// Names for completion. Result: [`names_from`] reads it.
pub const NAMES: &str = "windrow.names";

/// The state of the cluster. Result: [`ClusterStatus`](crate::ClusterStatus).
pub const STATUS: &str = "windrow.status";

/// Asks an executor to leave. Body: its name as text. Result: `bool`, true.
pub const DRAIN: &str = "windrow.drain";

/// Ends a query, whoever waits for it. Body: its number, `u64`. Result: `bool`, whether it was running.
pub const CANCEL_JOB: &str = "windrow.cancel_job";

/// Ends a job. Body: the handle of a statement, or the metadata of a FlightInfo. Result: `bool`, whether it was there.
pub const CANCEL: &str = "windrow.cancel";

/// How far a job is. Body as of [`CANCEL`]. Results: a [`JobProgress`] at once and after each change, until the
/// job is over or its rows were read.
pub const PROGRESS: &str = "windrow.progress";

/// Between two results of [`PROGRESS`].
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

type Results = BoxStream<'static, Result<arrow_flight::Result, Status>>;

/// The names in the result of [`NAMES`].
///
/// # Errors
/// `Data` if the bytes are of another version.
pub fn names_from(bytes: &[u8]) -> Result<Names> {
    let (tables, functions, settings) = decode(bytes)?;
    Ok(Names { tables, functions, settings })
}

/// The sealed ticket in a ticket of a statement; `None` if it is something else.
pub(crate) fn ticket_handle(ticket: &[u8]) -> Option<Bytes> {
    use arrow_flight::sql::{Any, TicketStatementQuery};
    use prost::Message;
    let any = Any::decode(ticket).ok()?;
    any.unpack::<TicketStatementQuery>().ok().flatten().map(|ticket| ticket.statement_handle)
}

/// The types of our actions, for clients that list them.
pub(super) fn types() -> Vec<ActionType> {
    let named = [
        (OPEN_SESSION, "opens a session with settings of its own"),
        (CLOSE_SESSION, "closes the session of the request"),
        (NAMES, "names of tables, columns, functions and settings"),
        (STATUS, "executors, jobs and counters"),
        (DRAIN, "asks an executor to leave when its work is done"),
        (CANCEL_JOB, "ends a query by its number"),
        (CANCEL, "ends the job of a statement"),
        (PROGRESS, "how far the job of a statement is, until it is over"),
    ];
    named.into_iter().map(|(name, what)| ActionType { r#type: name.to_owned(), description: what.to_owned() }).collect()
}

/// What the audit log calls an action.
pub(super) fn what_of(name: &str) -> &'static str {
    match name {
        "CreatePreparedStatement" => "prepare",
        "ClosePreparedStatement" => "close",
        "CancelFlightInfo" | "CancelQuery" | CANCEL | CANCEL_JOB => "cancel",
        "RenewFlightEndpoint" => "renew",
        "SetSessionOptions" | "GetSessionOptions" | "CloseSession" | OPEN_SESSION | CLOSE_SESSION => "session",
        NAMES => "metadata",
        STATUS => "status",
        PROGRESS => "progress",
        DRAIN => "drain",
        _ => "action",
    }
}

impl SqlService {
    /// Performs one of our actions.
    pub(super) async fn act(&self, request: Request<Action>) -> Result<Results, Status> {
        let Action { r#type: name, body } = request.get_ref();
        match name.as_str() {
            OPEN_SESSION => {
                let settings: Vec<(String, String)> = if body.is_empty() { vec![] } else { decode(body).map_err(fail)? };
                one(&self.sessions.open(&caller_of(request.extensions())?, &settings).await.map_err(fail)?)
            }
            CLOSE_SESSION => one(&self.end_session(&request)?),
            NAMES => {
                let session = self.sessions.of(&request).await.map_err(fail)?;
                let Names { tables, functions, settings } = session.names().await.map_err(fail)?;
                one(&(tables, functions, settings))
            }
            STATUS => {
                let caller = caller_of(request.extensions())?;
                let mut status = self.coordinator.status();
                // What others ask is theirs.
                let Principal::Client { name, role } = &caller.principal else {
                    return Err(Status::permission_denied("not a client"));
                };
                status.jobs.retain(|job| *role == Role::Admin || *job.user == **name);
                one(&status)
            }
            CANCEL_JOB => {
                let id = JobId(decode(body).map_err(fail)?);
                record_of(request.extensions()).job(id);
                let job = self.coordinator.status().jobs.into_iter().find(|job| job.id == id);
                let owner = job.as_ref().map(|job| Principal::client(job.user.as_str(), Role::Reader));
                authorize_stop(&caller_of(request.extensions())?.principal, owner.as_ref(), "query").map_err(fail)?;
                let is_running = job.is_some_and(|job| !job.progress.state.is_over());
                if is_running {
                    self.coordinator.cancel(id);
                }
                one(&is_running)
            }
            DRAIN => {
                authorize(&caller_of(request.extensions())?.principal, Verb::Administer).map_err(fail)?;
                let name = std::str::from_utf8(body).map_err(|_not_text| Status::invalid_argument("the name is not UTF-8"))?;
                self.coordinator.drain(name).await.map_err(fail)?;
                one(&true)
            }
            CANCEL if tickets::is_name(body) => {
                self.results.cancel(body, &caller(&request)).map_err(fail)?;
                one(&true)
            }
            CANCEL => one(&self.handles.cancel(handles::parse(body).map_err(fail)?)),
            PROGRESS if tickets::is_name(body) => {
                Ok(follow(self.results.by_name(body, &caller(&request)).map_err(fail)?.kept.progress()))
            }
            PROGRESS => {
                let progress = self.handles.progress(handles::parse(body).map_err(fail)?).map_err(fail)?;
                Ok(follow(progress))
            }
            other => Err(Status::unimplemented(format!("no action named '{other}'"))),
        }
    }
}

fn one<T: Serialize>(value: &T) -> Result<Results, Status> {
    let result = result(value)?;
    Ok(stream::iter([Ok(result)]).boxed())
}

fn result<T: Serialize>(value: &T) -> Result<arrow_flight::Result, Status> {
    encode(value).map(|body| arrow_flight::Result { body }).map_err(|error| to_status(&error))
}

/// Every state of a job from now on, at most one each [`PROGRESS_EVERY`].
fn follow(progress: tokio::sync::watch::Receiver<JobProgress>) -> Results {
    stream::unfold((progress, None), |(mut progress, last): (_, Option<JobProgress>)| async move {
        if let Some(last) = last {
            if last.state.is_over() {
                return None;
            }
            timer::sleep(PROGRESS_EVERY).await;
            progress.changed().await.ok()?;
        }
        let now = *progress.borrow_and_update();
        Some((result(&now), (progress, Some(now))))
    })
    .boxed()
}
