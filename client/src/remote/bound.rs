//! What goes to a scheduler elsewhere besides text: values of parameters, and rows for a table. Next: `flight-server/src/sql/prepared.rs`
//! and `ingest.rs`.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandPreparedStatementQuery,
    CommandStatementIngest, DoPutPreparedStatementResult, DoPutUpdateResult, ProstMessageExt, TableDefinitionOptions,
};
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use tokio::sync::oneshot;
use tonic::transport::Channel;
use windrow_core::{Error, Result};
use windrow_planner::{IngestMode, IngestTarget};

use super::{RemoteQuery, RemoteSession};

/// The action of Flight SQL that prepares a statement.
const PREPARE: &str = "CreatePreparedStatement";

impl RemoteSession {
    /// As [`Self::execute`], with the values of the statement's parameters.
    pub(crate) async fn execute_with(&self, sql: &str, values: &RecordBatch) -> Result<RemoteQuery> {
        let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
        let answer = self.peer.answer(PREPARE, request.as_any().encode_to_vec().into()).await?;
        let prepared =
            Any::decode(answer).ok().and_then(|any| any.unpack::<ActionCreatePreparedStatementResult>().ok().flatten());
        let handle = prepared.ok_or_else(|| self.other_version("no prepared statement"))?.prepared_statement_handle;
        let prepared_statement_handle = self.bind(handle, values).await?;
        self.run(&CommandPreparedStatementQuery { prepared_statement_handle }.as_any()).await
    }

    /// The handle with `values` bound to it.
    async fn bind(&self, handle: bytes::Bytes, values: &RecordBatch) -> Result<bytes::Bytes> {
        let command = CommandPreparedStatementQuery { prepared_statement_handle: handle };
        let encoder = FlightDataEncoderBuilder::new()
            .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())))
            .with_schema(values.schema());
        let messages = encoder.build(stream::iter([Ok(values.clone())])).try_collect::<Vec<_>>().await;
        let messages = messages.map_err(|error| self.peer.restore(error))?;
        let answer = put(self.peer.client.clone(), stream::iter(messages)).await.map_err(|error| self.peer.restore(error))?;
        let result = answer.and_then(|answer| DoPutPreparedStatementResult::decode(answer.app_metadata).ok());
        result.and_then(|result| result.prepared_statement_handle).ok_or_else(|| self.other_version("no handle for bound values"))
    }

    /// Writes rows into a table; returns how many. They are visible together, after the last one came.
    pub(crate) async fn ingest(
        &self,
        target: IngestTarget,
        schema: SchemaRef,
        rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    ) -> Result<u64> {
        let command = command(target).as_any().encode_to_vec();
        let encoder =
            FlightDataEncoderBuilder::new().with_flight_descriptor(Some(FlightDescriptor::new_cmd(command))).with_schema(schema);
        let encoded = encoder.build(rows.map_err(|error| FlightError::ExternalError(Box::new(error))).boxed());
        let (fail, failed) = oneshot::channel();
        let sending = put(self.peer.client.clone(), until_error(encoded, fail));
        // A stream that ended here would be a whole one there, and be published: so the call is broken off.
        let answer = tokio::select! {
            biased;
            Ok(error) = failed => return Err(sent(error)),
            answer = sending => answer.map_err(|error| self.peer.restore(error))?,
        };
        let result = answer.and_then(|answer| DoPutUpdateResult::decode(answer.app_metadata).ok());
        let result = result.ok_or_else(|| self.other_version("no count of rows"))?;
        Ok(u64::try_from(result.record_count).unwrap_or(0))
    }
}

/// The one answer to what was put.
async fn put(
    mut client: FlightSqlServiceClient<Channel>,
    messages: impl Stream<Item = FlightData> + Send + 'static,
) -> Result<Option<PutResult>, FlightError> {
    let mut answers = client.do_put(messages).await?;
    answers.message().await.map_err(FlightError::from)
}

/// The messages up to the first error, which `fail` hears of; then nothing, not even an end.
fn until_error(
    messages: impl Stream<Item = Result<FlightData, FlightError>> + Send + 'static,
    fail: oneshot::Sender<FlightError>,
) -> impl Stream<Item = FlightData> + Send + 'static {
    stream::unfold((messages.boxed(), fail), |(mut messages, fail)| async move {
        match messages.next().await? {
            Ok(message) => Some((message, (messages, fail))),
            Err(error) => {
                // Nobody listens if the call has ended already.
                let _unheard = fail.send(error);
                std::future::pending().await
            }
        }
    })
}

/// The error of the rows themselves, as whoever makes them said it.
fn sent(error: FlightError) -> Error {
    match error {
        FlightError::ExternalError(source) => match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(other) => Error::internal(format!("rows cannot be sent: {other}")),
        },
        other => Error::internal("rows cannot be sent").with_source(other),
    }
}

/// The numbers are those of `TableDefinitionOptions`: not there is to be created (1) or an error (2); there is an error (1), added to (2)
/// or replaced (3).
fn command(target: IngestTarget) -> CommandStatementIngest {
    let IngestTarget { catalog, schema, table, temporary, mode } = target;
    let (if_not_exist, if_exists) = match mode {
        IngestMode::Create => (1, 1),
        IngestMode::Append => (2, 2),
        IngestMode::Replace => (1, 3),
        IngestMode::CreateAppend => (1, 2),
    };
    let table_definition_options = Some(TableDefinitionOptions { if_not_exist, if_exists });
    CommandStatementIngest {
        table_definition_options,
        table,
        schema,
        catalog,
        temporary,
        transaction_id: None,
        options: Default::default(),
    }
}
