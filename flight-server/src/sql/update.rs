//! Statements that change something: run once, to their end, and counted. Next: `wire_schema.rs`.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type, UInt64Type};
use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use windrow_core::{Error, Result};
use windrow_planner::statement::{self, ScriptStatement};

use crate::results::Statement;
use crate::session::{CoordinatorSession, Request};

/// What a driver is told where nobody counted.
const UNKNOWN: i64 = -1;

/// Runs `text`, one statement or several, one after the other; the rows that they changed. Stops at the first error.
///
/// # Errors
/// Those of the statement that fails, which says which one it is.
pub(super) async fn run_script(session: &CoordinatorSession, text: &str) -> Result<i64> {
    let script = statement::split(text)?;
    if let [_, _, ..] = script.as_slice() {
        let (count, mut sum) = (script.len(), Some(0));
        for (number, statement) in script.iter().enumerate() {
            let one = Request::Sql(statement.text.clone());
            let rows = run(session, &one, None).await.map_err(|error| of_script(statement, number, count, error))?;
            sum = add(sum, rows);
        }
        return Ok(sum.unwrap_or(UNKNOWN));
    }
    run(session, &Request::Sql(text.to_owned()), None).await.map(|rows| rows.unwrap_or(UNKNOWN))
}

/// Runs a statement, a script of several, or a plan.
///
/// # Errors
/// As [`run_script`].
pub(super) async fn run_request(session: &CoordinatorSession, request: &Request) -> Result<i64> {
    match request {
        Request::Sql(text) => run_script(session, text).await,
        Request::Substrait(_) | Request::Frames { .. } => run(session, request, None).await.map(|rows| rows.unwrap_or(UNKNOWN)),
    }
}

fn of_script(statement: &ScriptStatement, number: usize, count: usize, error: Error) -> Error {
    let mut error = statement.place(error);
    let done = if number == 0 { "nothing was done".to_owned() } else { format!("those before it were done: {number}") };
    error.message = format!("statement {} of {count}: {}", number + 1, error.message);
    if error.context.help.is_none() { error.with_help(done) } else { error }
}

/// Runs a prepared statement for each row of values, in order; the rows that it changed. An INSERT of values is one write of all of
/// them; another statement is run once for each row.
///
/// # Errors
/// Those of the statement for the first row that fails, which says how many were done; none of an INSERT.
pub(super) async fn run_for_each(
    session: &CoordinatorSession,
    request: &Request,
    mut values: BoxStream<'static, Result<RecordBatch>>,
) -> Result<i64> {
    if let Request::Sql(text) = request
        && let Some(rows) = session.insert_bound(text, &mut values).await?
    {
        return Ok(i64::try_from(rows).unwrap_or(i64::MAX));
    }
    let (mut done, mut sum) = (0_usize, Some(0));
    while let Some(batch) = values.try_next().await? {
        for row in 0..batch.num_rows() {
            let rows = run(session, request, Some(&batch.slice(row, 1))).await.map_err(|mut error| {
                if done > 0 {
                    error.message = format!("after {done} rows of values: {}", error.message);
                }
                error
            })?;
            (done, sum) = (done + 1, add(sum, rows));
        }
    }
    Ok(sum.unwrap_or(UNKNOWN))
}

fn add(sum: Option<i64>, rows: Option<i64>) -> Option<i64> {
    sum.zip(rows).map(|(sum, rows)| sum.saturating_add(rows))
}

/// Runs one statement to its end; the rows that it changed, `None` if nobody counted.
async fn run(session: &CoordinatorSession, request: &Request, values: Option<&RecordBatch>) -> Result<Option<i64>> {
    let mut statement = session.execute_request(request, values).await?;
    if !request.changes_something() {
        while let Some(batch) = statement.next().await {
            batch?;
        }
        return Ok(None);
    }
    let batches: Vec<RecordBatch> = statement.try_collect().await?;
    let mut count = 0_i64;
    for batch in batches.iter().filter(|batch| batch.num_columns() > 0) {
        match counted(batch) {
            Some(rows) => count = count.saturating_add(rows),
            None => return Ok(None),
        }
    }
    Ok(Some(count))
}

/// The sum of a batch that is a count of rows.
fn counted(batch: &RecordBatch) -> Option<i64> {
    let [column] = batch.columns() else { return None };
    let sum = match column.data_type() {
        DataType::UInt64 => {
            let counts = column.as_primitive_opt::<UInt64Type>()?;
            counts.iter().flatten().try_fold(0_u64, u64::checked_add).and_then(|sum| i64::try_from(sum).ok())?
        }
        DataType::Int64 => column.as_primitive_opt::<Int64Type>()?.iter().flatten().try_fold(0_i64, i64::checked_add)?,
        _ => return None,
    };
    (column.null_count() == 0).then_some(sum)
}

/// `statement` after it has run: its outcome, to be read once or again.
///
/// # Errors
/// Those of running it.
pub(super) async fn settled(statement: Statement) -> Result<Statement> {
    let schema = std::sync::Arc::clone(&statement.schema);
    let batches: Vec<RecordBatch> = statement.try_collect().await?;
    Ok(Statement::ready(schema, batches))
}
