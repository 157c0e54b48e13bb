//! What the program `windrow` does: the shell, scripts, clusters on this machine, operations and benchmarks.
//!
//! No engine is in here: every subcommand is arguments, calls of the `windrow` library, and text. Read `args.rs` (what can be
//! said), then the file of a subcommand; `sql.rs` and `statement.rs` lead to `shell/`. Next: `client/src/lib.rs`.
//!
//! It is a library so that tests can generate data with [`tpch::generate`].

mod access;
pub mod allocator;
mod args;
mod bench;
mod certs;
mod cpu;
mod credentials;
mod demo;
mod drain;
mod end;
mod executor;
mod interrupt;
mod local;
mod login;
mod password;
mod queries;
mod report;
mod scheduler;
mod shell;
mod sql;
mod statement;
mod status;
mod stream;
mod terminal;
pub mod tpch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command};
use crate::end::End;

/// Stacks of the threads that plan: deeply nested queries recurse.
const STACK_BYTES: usize = 8 << 20;

/// Runs the program with the arguments of the process and says how it ended.
#[must_use]
pub fn run() -> ExitCode {
    ExitCode::from(run_with(std::env::args_os()))
}

/// Runs the program with `arguments`, of which the first is its own name, and returns the exit code. Ends the process itself where the
/// arguments ask for help or are wrong.
#[must_use]
pub fn run_with(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = Arguments::parse_from(arguments);
    start_log();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build();
    let end = match runtime {
        Ok(runtime) => {
            let end = runtime.block_on(perform(arguments));
            // A thread that waits for a terminal or a pipe must not hold the end of the process.
            runtime.shutdown_background();
            end
        }
        Err(source) => Err(End::from(windrow::Error::internal("no threads to run on").with_source(source))),
    };
    end.map_or_else(|end| end.tell(), |()| 0)
}

async fn perform(arguments: Arguments) -> Result<(), End> {
    match arguments.command {
        None => sql::run(arguments.sql, Vec::new()).await,
        Some(Command::Sql(arguments)) => sql::run(arguments.options, arguments.paths).await,
        Some(Command::Local(arguments)) => local::run(arguments).await,
        Some(Command::Scheduler(arguments)) => scheduler::run(arguments).await,
        Some(Command::Executor(arguments)) => executor::run(arguments).await,
        Some(Command::Status(arguments)) => status::run(arguments).await,
        Some(Command::Drain(arguments)) => drain::run(arguments).await,
        Some(Command::Queries(arguments)) => queries::list(arguments).await,
        Some(Command::Cancel(arguments)) => queries::cancel(arguments).await,
        Some(Command::Tpch(arguments)) => tpch::command::run(&arguments),
        Some(Command::Bench(arguments)) => bench::run(arguments).await,
        Some(Command::Demo(arguments)) => demo::run(arguments).await,
        // These block, on files and on whoever types, and there is nothing else to do.
        Some(Command::Certs(arguments)) => tokio::task::block_in_place(|| certs::run(arguments)),
        Some(Command::User(arguments)) => tokio::task::block_in_place(|| credentials::user(arguments)),
        Some(Command::Token(arguments)) => tokio::task::block_in_place(|| credentials::token(arguments)),
        Some(Command::Secret(arguments)) => tokio::task::block_in_place(|| credentials::secret(arguments)),
    }
}

/// Sends log lines to stderr: warnings, or what `WINDROW_LOG` asks for (`WINDROW_LOG=windrow_flight=debug`).
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing_subscriber::filter::LevelFilter::WARN.into())
        .with_env_var("WINDROW_LOG")
        .from_env_lossy();
    let started =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal::colour()).try_init();
    if let Err(error) = started {
        tracing::debug!(%error, "the log was already started");
    }
}
