//! Runs one statement for a person or a pipe: rows to stdout as they come, progress and errors to stderr, Ctrl-C ends it.

use std::io::{self, Write};
use std::time::Duration;

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use windrow::{ErrorKind, Query, Session, StatementText};
use windrow_core::clock::Stopwatch;

use crate::end::End;
use crate::interrupt::{Asked, Interrupt};
use crate::report::{self, Source};
use crate::shell::progress::ProgressLine;
use crate::shell::render::{Format, Renderer};
use crate::terminal;

/// How statements are run.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    /// How rows are written.
    pub(crate) format: Format,
    /// A JSON line on stderr after each statement.
    pub(crate) timing: bool,
    /// `4 rows  1.84 s` on stderr after each query.
    pub(crate) summary: bool,
    /// A live line on stderr while a query runs.
    pub(crate) progress: bool,
    /// What the text comes from, for errors.
    pub(crate) name: String,
}

/// What a statement gave, for `--timing` and the line after it.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    seconds: f64,
    rows: u64,
    bytes: u64,
}

/// How often a running query is looked at while no rows come.
const TICK: Duration = Duration::from_millis(100);

/// Runs `statement` and writes its rows to stdout.
///
/// # Errors
/// [`End::Told`] if the statement failed, [`End::Interrupted`], [`End::Output`].
pub(crate) async fn run(
    session: &Session,
    statement: &StatementText,
    manner: &Manner,
    interrupt: &mut Interrupt,
) -> Result<(), End> {
    interrupt.forget();
    let watch = Stopwatch::start();
    let mut measured = Measured::default();
    let mut line = ProgressLine::new(manner.progress);
    let end = stream(session, statement, manner, interrupt, &watch, &mut measured, &mut line).await;
    line.clear();
    let end = match end {
        Ok(()) => Ok(()),
        Err(End::Failed(error)) => {
            let source = Source { name: &manner.name, statement };
            report::print(&error, Some(source));
            tell_timing(manner, &watch_end(&watch, measured), Some(&error.message));
            return Err(if error.kind == ErrorKind::Cancelled { End::Interrupted } else { End::Told });
        }
        Err(End::Interrupted) => {
            terminal::note("cancelled");
            tell_timing(manner, &watch_end(&watch, measured), Some("cancelled"));
            return Err(End::Interrupted);
        }
        Err(other) => Err(other),
    };
    tell_timing(manner, &measured, None);
    end
}

fn watch_end(watch: &Stopwatch, measured: Measured) -> Measured {
    Measured { seconds: watch.elapsed().as_secs_f64(), ..measured }
}

async fn stream(
    session: &Session,
    statement: &StatementText,
    manner: &Manner,
    interrupt: &mut Interrupt,
    watch: &Stopwatch,
    measured: &mut Measured,
    line: &mut ProgressLine,
) -> Result<(), End> {
    let mut query = tokio::select! {
        query = session.sql(&statement.text) => query?,
        asked = interrupt.asked() => return Err(stopped(asked)),
    };
    let schema = query.schema();
    let mut renderer = Renderer::new(manner.format, &schema, terminal::width(), io::BufWriter::new(io::stdout()));
    while let Some(batch) = next(&mut query, interrupt, line, watch).await? {
        measured.rows += u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
        measured.bytes += batch_bytes(&batch);
        if renderer.streams() {
            line.end();
        }
        renderer.write(&batch)?;
    }
    measured.seconds = watch.elapsed().as_secs_f64();
    line.clear();
    renderer.finish()?.flush()?;
    if manner.summary {
        terminal::note(&summary(*measured, schema.fields().is_empty(), &query));
    }
    Ok(())
}

/// The next batch; meanwhile keeps the live line fresh, and ends the query when somebody asks.
async fn next(
    query: &mut Query,
    interrupt: &mut Interrupt,
    line: &mut ProgressLine,
    watch: &Stopwatch,
) -> Result<Option<RecordBatch>, End> {
    loop {
        tokio::select! {
            biased;
            asked = interrupt.asked() => {
                query.cancel().await;
                return Err(stopped(asked));
            }
            batch = tokio::time::timeout(TICK, query.next()) => match batch {
                Ok(batch) => return Ok(batch.transpose()?),
                Err(_still_running) => line.show(&query.progress(), watch.elapsed()),
            },
        }
    }
}

/// The end of what a signal stopped.
pub(crate) fn stopped(asked: Asked) -> End {
    match asked {
        Asked::Cancel => End::Interrupted,
        Asked::Leave => End::Left,
    }
}

/// Bytes of the rows themselves: a batch that shares its buffers with others is not charged for them.
fn batch_bytes(batch: &RecordBatch) -> u64 {
    let bytes = batch
        .columns()
        .iter()
        .map(|column| column.to_data().get_slice_memory_size().unwrap_or_else(|_unsized| column.get_array_memory_size()));
    u64::try_from(bytes.sum::<usize>()).unwrap_or(u64::MAX)
}

/// `4 rows  1.84 s  shuffle 210 MB`, with what is worth saying.
fn summary(measured: Measured, is_command: bool, query: &Query) -> String {
    let progress = query.progress();
    let rows = if is_command { "ok".to_owned() } else { terminal::plural(measured.rows, "row") };
    let mut text = format!("{rows}  {:.2} s", measured.seconds);
    for (name, bytes) in [("shuffle", progress.shuffle_bytes), ("spill", progress.spill_bytes)] {
        if bytes > 0 {
            text.push_str(&format!("  {name} {}", terminal::size(bytes)));
        }
    }
    if progress.retries > 0 {
        text.push_str(&format!("  {}", terminal::plural(progress.retries, "retried attempt")));
    }
    if progress.reruns > 0 {
        text.push_str(&format!("  {} computed again", terminal::plural(progress.reruns, "lost partition")));
    }
    text
}

/// One line that programs read; nothing else on stderr begins with `{`.
fn tell_timing(manner: &Manner, measured: &Measured, error: Option<&str>) {
    if !manner.timing {
        return;
    }
    let mut line = serde_json::json!({ "seconds": measured.seconds, "rows": measured.rows, "bytes": measured.bytes });
    if let (Some(error), Some(object)) = (error, line.as_object_mut()) {
        object.insert("error".to_owned(), error.into());
    }
    terminal::note(&line.to_string());
}
