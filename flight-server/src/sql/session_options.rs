//! Options of a session as drivers name them: `catalog`, `schema`, and every setting that SET knows. Next: `metadata.rs`.

use arrow_flight::Action;
use bytes::Bytes;
use prost::Message;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Request, Status};
use windrow_core::{Error, ErrorKind, Result};

use super::session_proto::{
    CloseSessionResult, ErrorValue, GetSessionOptionsResult, OptionError, OptionValue, SessionOptionValue,
    SetSessionOptionsRequest, SetSessionOptionsResult,
};
use super::sessions::COOKIE;
use super::{SqlService, fail};
use crate::security::caller_of;
use crate::session::CoordinatorSession;

const CATALOG: &str = "catalog";
const SCHEMA: &str = "schema";
const CATALOG_SETTING: &str = "datafusion.catalog.default_catalog";
const SCHEMA_SETTING: &str = "datafusion.catalog.default_schema";

/// How closing a session went, in the protocol's words.
const CLOSED: i32 = 1;

/// What an executor answers to an action of sessions: drivers send them on every connection, and the session is the coordinator's.
/// `None` for other actions.
pub(crate) fn nothing_to_do(action: &str) -> Option<Bytes> {
    let body = match action {
        super::door::SET_OPTIONS => SetSessionOptionsResult::default().encode_to_vec(),
        super::door::GET_OPTIONS => GetSessionOptionsResult::default().encode_to_vec(),
        super::door::CLOSE_SESSION => CloseSessionResult { status: CLOSED }.encode_to_vec(),
        _ => return None,
    };
    Some(body.into())
}

impl SqlService {
    /// SetSessionOptions. The answer's headers carry a cookie that names the session, unless the request did.
    pub(super) async fn set_options(&self, request: &Request<Action>) -> Result<(SetSessionOptionsResult, MetadataMap), Status> {
        let wanted = SetSessionOptionsRequest::decode(request.get_ref().body.clone())
            .map_err(|error| Status::invalid_argument(format!("not a SetSessionOptionsRequest: {error}")))?;
        let session = self.sessions.of(request).await.map_err(fail)?;
        let mut result = SetSessionOptionsResult::default();
        for (name, value) in wanted.session_options {
            if let Err((why, error)) = set_option(&session, &name, value).await {
                tracing::info!(option = %name, %error, "a session's option is not set");
                result.errors.insert(name, OptionError { value: why.into() });
            }
        }
        let mut headers = MetadataMap::new();
        if let Some(name) = self.sessions.name_for_cookie(request).await.map_err(fail)? {
            headers.insert("set-cookie", cookie(&format!("{COOKIE}={name:016x}")).map_err(fail)?);
        }
        Ok((result, headers))
    }

    /// GetSessionOptions.
    pub(super) async fn get_options(&self, request: &Request<Action>) -> Result<GetSessionOptionsResult, Status> {
        let session = self.sessions.of(request).await.map_err(fail)?;
        let (catalog, schema) = session.planner().defaults();
        let named = [(CATALOG, catalog), (SCHEMA, schema)].map(|(name, value)| (name.to_owned(), Some(value)));
        let all = named.into_iter().chain(session.planner().settings());
        let session_options = all.map(|(name, value)| {
            let option_value = value.map(OptionValue::String);
            (name, SessionOptionValue { option_value })
        });
        Ok(GetSessionOptionsResult { session_options: session_options.collect() })
    }

    /// CloseSession. It succeeds for a connection that has no session too: nothing is open afterwards.
    pub(super) fn close_session(&self, request: &Request<Action>) -> Result<(CloseSessionResult, MetadataMap), Status> {
        self.end_session(request)?;
        let mut headers = MetadataMap::new();
        if request.metadata().contains_key("cookie") {
            headers.insert("set-cookie", cookie(&format!("{COOKIE}=; Max-Age=0")).map_err(fail)?);
        }
        Ok((CloseSessionResult { status: CLOSED }, headers))
    }

    /// Closes the session of a request and makes its login worthless; whether there was one.
    pub(super) fn end_session<T>(&self, request: &Request<T>) -> Result<bool, Status> {
        let caller = caller_of(request.extensions())?;
        let session = self.sessions.close(&caller, request.metadata()).map_err(fail)?;
        if let Some(session) = &session {
            self.close_results(session);
        }
        // The owner's token opens many sessions: it names none.
        if let (Some(credentials), Some(login)) = (&self.credentials, caller.login.filter(|login| login.session != 0)) {
            credentials.revoke(&login);
        }
        Ok(session.is_some())
    }
}

fn cookie(text: &str) -> Result<MetadataValue<Ascii>> {
    let mut value: MetadataValue<Ascii> = text.parse().map_err(|_why| Error::internal("a session's name is not a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Sets one option, or erases it if it has no value.
async fn set_option(session: &CoordinatorSession, name: &str, value: SessionOptionValue) -> Result<(), (ErrorValue, Error)> {
    let unfit = |error| (ErrorValue::InvalidValue, error);
    let key = match name {
        CATALOG => CATALOG_SETTING,
        SCHEMA => SCHEMA_SETTING,
        other => other,
    };
    if !session.planner().settings().iter().any(|(known, _)| known == key) {
        return Err((ErrorValue::InvalidName, Error::new(ErrorKind::InvalidConfig, format!("no option named '{name}'"))));
    }
    let Some(value) = value.option_value else {
        return session.reset(key).await.map_err(|error| (ErrorValue::Error, error));
    };
    let text = text_of(value).ok_or_else(|| {
        unfit(Error::new(ErrorKind::InvalidConfig, format!("the option '{name}' takes one value, not a list of them")))
    })?;
    check_place(session, key, &text).map_err(unfit)?;
    session.set(key, &text).await.map_err(|error| match error.kind {
        ErrorKind::Denied | ErrorKind::Unsupported => (ErrorValue::Error, error),
        _ => (ErrorValue::InvalidValue, error),
    })
}

fn text_of(value: OptionValue) -> Option<String> {
    Some(match value {
        OptionValue::String(text) => text,
        OptionValue::Bool(is_so) => is_so.to_string(),
        OptionValue::Int64(number) => number.to_string(),
        OptionValue::Double(number) => number.to_string(),
        OptionValue::StringList(_) => return None,
    })
}

/// A catalog or schema that is not there would make every name unknown.
fn check_place(session: &CoordinatorSession, key: &str, value: &str) -> Result<()> {
    let catalogs = session.planner().catalogs();
    let (own, _) = session.planner().defaults();
    let is_there = match key {
        CATALOG_SETTING => catalogs.iter().any(|(catalog, _)| catalog == value),
        SCHEMA_SETTING => {
            catalogs.iter().any(|(catalog, schemas)| *catalog == own && schemas.iter().any(|schema| schema == value))
        }
        _ => true,
    };
    if is_there { Ok(()) } else { Err(Error::new(ErrorKind::NotFound, format!("no catalog or schema named '{value}'"))) }
}
