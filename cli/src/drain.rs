//! `windrow drain`: lets an executor leave, and waits until it has.

use std::io::Write;
use std::time::Duration;

use windrow::{ConnectOptions, Error, ErrorKind};

use crate::args::DrainArguments;
use crate::end::End;

/// How long it waits: the scheduler gives an executor half a minute.
const LIMIT: Duration = Duration::from_secs(45);

/// Runs `windrow drain`.
pub(crate) async fn run(arguments: DrainArguments) -> Result<(), End> {
    let login = arguments.login.login(Some(&arguments.connect)).map_err(End::starting)?;
    let options = ConnectOptions { url: Some(arguments.connect), login, ..ConnectOptions::default() };
    let session = options.connect().await.map_err(End::connecting)?;
    let name = arguments.name;
    session.drain(&name).await?;
    let is_gone = session.wait_until_gone(&name, LIMIT).await;
    session.close().await;
    if !is_gone? {
        let message = format!("executor '{name}' was asked to leave and has not after {} s", LIMIT.as_secs());
        return Err(Error::new(ErrorKind::Unavailable, message).with_help("see `windrow status` and its log").into());
    }
    Ok(writeln!(std::io::stdout().lock(), "{name} has left")?)
}
