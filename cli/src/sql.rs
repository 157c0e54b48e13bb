//! `windrow sql`: connects, opens files as tables, then runs what it was given: `-c`, `-f`, a pipe, or a person at a terminal.
//! Each statement is `statement.rs`; the person's side is `shell/`.

use std::io::IsTerminal;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, BufReader};
use windrow::{ConnectOptions, Error, ErrorKind, Session, StatementText, split_statements};

use crate::args::SqlOptions;
use crate::end::End;
use crate::interrupt::Interrupt;
use crate::shell;
use crate::shell::render::Format;
use crate::statement::{self, Manner};
use crate::stream::StatementStream;

/// Runs `windrow sql`, or `windrow` without a subcommand.
pub(crate) async fn run(options: SqlOptions, paths: Vec<String>) -> Result<(), End> {
    let mut interrupt = Interrupt::listen()?;
    let session = tokio::select! {
        session = open(&options, &paths) => session?,
        asked = interrupt.asked() => return Err(statement::stopped(asked)),
    };
    let end = perform(&session, &options, &mut interrupt).await;
    session.close().await;
    end
}

async fn open(options: &SqlOptions, paths: &[String]) -> Result<Session, End> {
    let connect = ConnectOptions {
        url: options.connect.clone(),
        login: options.login.login(options.connect.as_deref()).map_err(End::starting)?,
        slots: options.slots,
        memory_limit: options.memory_limit,
        ..ConnectOptions::default()
    };
    let session = connect.connect().await.map_err(End::connecting)?;
    for path in paths {
        session.add_file(&windrow::table_name(path), path).await?;
    }
    Ok(session)
}

async fn perform(session: &Session, options: &SqlOptions, interrupt: &mut Interrupt) -> Result<(), End> {
    let has_work = !options.commands.is_empty() || options.file.is_some();
    if !has_work && std::io::stdin().is_terminal() {
        return shell::run(session, options, interrupt).await;
    }
    let mut manner = manner(options);
    let mut failed = None;
    for text in &options.commands {
        let ends = script(session, text, &manner, options.keep_going, interrupt).await;
        worse(&mut failed, ends, options.keep_going)?;
    }
    match options.file.as_deref() {
        Some(path) if path != Path::new("-") => {
            let text = read(path)?;
            manner.name = path.display().to_string();
            let ends = script(session, &text, &manner, options.keep_going, interrupt).await;
            worse(&mut failed, ends, options.keep_going)?;
        }
        Some(_) => worse(&mut failed, pipe(session, &manner, options.keep_going, interrupt).await, options.keep_going)?,
        // A program at the other end of a pipe reads the outcome of each statement and decides itself.
        None if !has_work => worse(&mut failed, pipe(session, &manner, true, interrupt).await, true)?,
        None => {}
    }
    failed.map_or(Ok(()), Err)
}

/// How scripts run: rows to stdout, nothing on stderr but errors and what was asked for.
fn manner(options: &SqlOptions) -> Manner {
    let is_terminal = std::io::stdout().is_terminal();
    let default = if is_terminal { Format::Table } else { Format::Csv };
    Manner {
        format: options.format.unwrap_or(default),
        timing: options.timing.is_some(),
        summary: false,
        progress: is_terminal && std::io::stderr().is_terminal(),
        name: "query".to_owned(),
    }
}

/// Remembers that a statement failed, or ends at once.
fn worse(failed: &mut Option<End>, end: Result<(), End>, keep_going: bool) -> Result<(), End> {
    match end {
        Ok(()) => Ok(()),
        Err(End::Told) if keep_going => {
            *failed = Some(End::Told);
            Ok(())
        }
        Err(end) => Err(end),
    }
}

/// Runs the statements of a text in order.
pub(crate) async fn script(
    session: &Session,
    text: &str,
    manner: &Manner,
    keep_going: bool,
    interrupt: &mut Interrupt,
) -> Result<(), End> {
    let mut failed = None;
    for statement in split_statements(text) {
        worse(&mut failed, statement::run(session, &statement, manner, interrupt).await, keep_going)?;
    }
    failed.map_or(Ok(()), Err)
}

/// Runs statements as they arrive on standard input.
async fn pipe(session: &Session, manner: &Manner, keep_going: bool, interrupt: &mut Interrupt) -> Result<(), End> {
    let mut input = BufReader::new(tokio::io::stdin());
    let mut stream = StatementStream::new();
    let mut failed = None;
    loop {
        let mut line = Vec::new();
        let length = tokio::select! {
            length = input.read_until(b'\n', &mut line) => length.map_err(|source| unreadable("standard input", source))?,
            asked = interrupt.asked() => return Err(statement::stopped(asked)),
        };
        let statements: Vec<StatementText> =
            if length == 0 { stream.finish() } else { stream.push_line(&String::from_utf8_lossy(&line)) };
        for statement in statements {
            worse(&mut failed, statement::run(session, &statement, manner, interrupt).await, keep_going)?;
        }
        if length == 0 {
            return failed.map_or(Ok(()), Err);
        }
    }
}

/// The text of a script.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| unreadable(&path.display().to_string(), source))
}

fn unreadable(name: &str, source: std::io::Error) -> Error {
    Error::new(ErrorKind::NotFound, format!("'{name}' cannot be read: {source}")).with_source(source)
}
