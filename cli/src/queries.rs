//! `windrow queries` and `windrow cancel`: what runs on a cluster, and an end to it.

use std::io::Write;

use windrow::{ConnectOptions, Error, ErrorKind, Session};

use crate::args::{CancelArguments, QueriesArguments};
use crate::end::End;
use crate::login::LoginFlags;
use crate::status::{columns, job_row};

/// Runs `windrow queries`.
pub(crate) async fn list(arguments: QueriesArguments) -> Result<(), End> {
    let session = connect(arguments.connect, &arguments.login).await?;
    let status = session.status().await?;
    session.close().await;
    let jobs = status.jobs.iter().filter(|job| arguments.all || !job.progress.state.is_over());
    let rows = jobs.map(|job| {
        let mut row = job_row(job);
        row.insert(1, job.user.clone());
        row
    });
    let header = ["query", "user", "state", "stages", "tasks", "rows", "shuffle", "retries", "statement"];
    Ok(std::io::stdout().lock().write_all(columns(&header, rows).as_bytes())?)
}

/// Runs `windrow cancel`.
pub(crate) async fn cancel(arguments: CancelArguments) -> Result<(), End> {
    let id = number(&arguments.query)?;
    let session = connect(arguments.connect, &arguments.login).await?;
    let was_running = session.cancel(id).await;
    session.close().await;
    let what = if was_running? { "is cancelled" } else { "was over already" };
    Ok(writeln!(std::io::stdout().lock(), "query {id} {what}")?)
}

async fn connect(url: String, login: &LoginFlags) -> Result<Session, End> {
    let login = login.login(Some(&url)).map_err(End::starting)?;
    let options = ConnectOptions { url: Some(url), login, ..ConnectOptions::default() };
    options.connect().await.map_err(End::connecting)
}

/// `42`, or `job-42` as the lists show it.
fn number(text: &str) -> Result<u64, End> {
    text.strip_prefix("job-").unwrap_or(text).parse().map_err(|_why| {
        let message = format!("'{text}' is not the number of a query");
        End::Usage(Box::new(Error::new(ErrorKind::InvalidConfig, message).with_help("`windrow queries` shows them")))
    })
}
