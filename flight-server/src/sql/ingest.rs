//! Bulk ingest: the rows of a DoPut go into a table. Next: `../write.rs`.

use arrow_flight::sql::CommandStatementIngest;
use arrow_flight::sql::server::PeekableFlightDataStream;
use futures::{StreamExt, stream};
use windrow_core::{Error, ErrorKind, Result};
use windrow_planner::{IngestMode, IngestTarget};

use super::incoming::Incoming;
use crate::session::CoordinatorSession;

/// Writes the rows of `request`; returns how many. They are visible together, after the request has ended cleanly.
///
/// # Errors
/// `InvalidQuery` for a command or rows that do not fit, and those of [`CoordinatorSession::ingest`].
pub(crate) async fn ingest(
    command: CommandStatementIngest,
    session: &CoordinatorSession,
    request: PeekableFlightDataStream,
) -> Result<i64> {
    let target = target(&command)?;
    let mut rows = Incoming::new(request);
    let first = rows.next().await.transpose()?;
    let schema = match (&first, rows.schema()) {
        (Some(batch), _) => batch.schema(),
        (None, Some(schema)) => std::sync::Arc::clone(schema),
        (None, None) => return Err(Error::new(ErrorKind::InvalidQuery, "no rows and no schema were sent")),
    };
    let rows = stream::iter(first.map(Ok)).chain(rows);
    let count = session.ingest(target, schema, rows).await?;
    Ok(i64::try_from(count).unwrap_or(i64::MAX))
}

fn target(command: &CommandStatementIngest) -> Result<IngestTarget> {
    if command.transaction_id.is_some() {
        return Err(Error::unsupported("there are no transactions: rows are published when the request ends"));
    }
    if command.table.is_empty() {
        return Err(Error::new(ErrorKind::InvalidQuery, "no table is named"));
    }
    let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    Ok(IngestTarget {
        catalog: named(&command.catalog),
        schema: named(&command.schema),
        table: command.table.clone(),
        temporary: command.temporary,
        mode: mode(command)?,
    })
}

/// The numbers are those of `TableDefinitionOptions`: not there is to be created (1) or an error (2); there is an error (1), added to (2)
/// or replaced (3).
fn mode(command: &CommandStatementIngest) -> Result<IngestMode> {
    let options = command.table_definition_options.unwrap_or_default();
    match (options.if_not_exist, options.if_exists) {
        (1, 1) => Ok(IngestMode::Create),
        (2, 2) => Ok(IngestMode::Append),
        (1, 3) => Ok(IngestMode::Replace),
        (1, 2) => Ok(IngestMode::CreateAppend),
        (absent, present) => {
            let what = format!(
                "the table definition options ({absent}, {present}) are none of create, append, replace and create_append"
            );
            Err(Error::new(ErrorKind::InvalidQuery, what))
        }
    }
}

#[cfg(test)]
mod tests;
