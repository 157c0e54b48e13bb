//! Statements over frames at a scheduler elsewhere. Next: `planner/src/frames/unparse.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::FlightDescriptor;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use futures::TryStreamExt;
use prost::Message;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use windrow_core::{Error, ErrorKind, Result};
use windrow_flight::sql::{CommandPlan, actions};
use windrow_planner::{frames_to_bytes, unparse};

use super::{RemoteQuery, RemoteSession};
use crate::session::Over;

/// What makes a session keep the order of a query within another one.
const KEEPS_ORDER: &str = "SET datafusion.sql_parser.enable_subquery_sort_elimination = false";

impl RemoteSession {
    /// Starts a statement over frames.
    pub(crate) async fn execute_over(&self, over: &Over) -> Result<RemoteQuery> {
        if let Some(command) = self.as_plan(over) {
            match self.run(&command.as_any()).await {
                Err(error) if takes_no_plans(&error) => self.send_text_from_now_on().await?,
                read => return read,
            }
        }
        self.execute(&as_text(over)?).await
    }

    /// The columns of a statement over frames, without running it.
    pub(crate) async fn schema_over(&self, over: &Over) -> Result<SchemaRef> {
        if let Some(command) = self.as_plan(over) {
            match self.schema_of(&command).await {
                Err(error) if takes_no_plans(&error) => self.send_text_from_now_on().await?,
                described => return described,
            }
        }
        let command = CommandStatementQuery { query: as_text(over)?, transaction_id: None };
        self.schema_of(&command).await
    }

    /// Remembers that the scheduler takes no plans. A frame's text is a query within another, and keeps its order there.
    async fn send_text_from_now_on(&self) -> Result<()> {
        self.execute(KEEPS_ORDER).await?.try_collect::<Vec<_>>().await?;
        self.refuses_plans.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The statement with its frames as plans; `None` where none are taken, and for a frame that cannot be sent.
    fn as_plan(&self, over: &Over) -> Option<CommandPlan> {
        if self.refuses_plans.load(Ordering::Relaxed) {
            return None;
        }
        let frames = frames_to_bytes(&over.frames);
        frames
            .inspect_err(|error| tracing::debug!(%error, "a frame goes to the scheduler as SQL"))
            .ok()
            .map(|frames| CommandPlan::new(over.text(), frames))
    }

    async fn schema_of(&self, command: &impl ProstMessageExt) -> Result<SchemaRef> {
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let mut request = Request::new(descriptor);
        let mut header = |name: &'static str, value: &str| -> Result<()> {
            let value: MetadataValue<Ascii> =
                value.parse().map_err(|_not_ascii| Error::internal("a session's name is no header"))?;
            request.metadata_mut().insert(name, value);
            Ok(())
        };
        header(actions::SESSION_HEADER, &self.name)?;
        if let Some(token) = self.peer.client.token() {
            header("authorization", &format!("Bearer {token}"))?;
        }
        let mut client = self.peer.client.inner().clone();
        let answer = client.get_schema(request).await.map_err(|status| self.peer.restore(status.into()))?;
        Schema::try_from(&answer.into_inner()).map(Arc::new).map_err(|source| self.other_version("no schema").with_source(source))
    }
}

/// Whether the scheduler refused a plan as such, and would take SQL.
fn takes_no_plans(error: &Error) -> bool {
    error.kind == ErrorKind::Unsupported && error.message.contains("takes no plans")
}

/// The statement with its frames as text in it.
fn as_text(over: &Over) -> Result<String> {
    let frames = unparse(&over.frames).map_err(|error| {
        let what = format!("the frame cannot be said in SQL, and the scheduler takes no plans: {}", error.message);
        Error::new(ErrorKind::Unsupported, what)
            .with_help("an administrator sets security.accept_plans = true or starts the scheduler with --accept-plans")
    })?;
    Ok([over.before.as_str(), &frames, &over.query, &over.after].concat())
}
