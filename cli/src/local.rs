//! `windrow local`: a scheduler in this process and executors as supervised processes, until somebody asks for the end.

use std::net::{Ipv4Addr, TcpListener};

use windrow::{Error, LocalCluster};
use windrow_core::config;

use crate::args::LocalArguments;
use crate::end::End;
use crate::interrupt::Interrupt;
use crate::terminal;

/// The port that every example shows.
const PORT: u16 = 8815;

/// Runs `windrow local`.
pub(crate) async fn run(arguments: LocalArguments) -> Result<(), End> {
    let mut interrupt = Interrupt::listen()?;
    let program =
        std::env::current_exe().map_err(|source| Error::internal("the path of this program is unknown").with_source(source))?;
    let port = arguments.port.unwrap_or_else(default_port);
    let mut config = config::load(None).map_err(End::starting)?;
    config.security.accept_plans |= arguments.accept_plans;
    let (slots, memory_limit) = (config.executor.slots, config.executor.memory_limit.as_u64());
    let mut builder = LocalCluster::builder().config(config);
    if let Some(folder) = arguments.state_dir {
        builder = builder.state_dir(folder);
    }
    let start = builder
        .executors(arguments.executors)
        .slots(arguments.slots.unwrap_or(slots))
        .memory_limit(arguments.memory_limit.unwrap_or(memory_limit))
        .port(port)
        .processes(program)
        .start();
    let cluster = tokio::select! {
        cluster = start => cluster.map_err(End::starting)?,
        _ = interrupt.asked() => return Err(End::Interrupted),
    };
    terminal::note(&banner(&cluster)?);
    interrupt.asked().await;
    terminal::note("stopping");
    cluster.shutdown().await;
    Ok(())
}

/// The usual port, or a free one if that is taken; says which.
fn default_port() -> u16 {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)) {
        Ok(_free) => PORT,
        Err(reason) => {
            terminal::note(&format!("port {PORT} is not free ({reason}); taking another"));
            0
        }
    }
}

fn banner(cluster: &LocalCluster) -> Result<String, Error> {
    let status = cluster.status();
    let slots: u32 = status.executors.iter().map(|executor| executor.slots).sum();
    let memory: u64 = status.executors.iter().map(|executor| executor.memory_limit).sum();
    let url = cluster.url();
    Ok(format!(
        "windrow {}   {}, {}, {}   (Ctrl-C stops)\n  \
         shell      windrow sql --connect {url}\n  \
         status     windrow status --connect {url}\n  \
         others     the header `authorization: Bearer TOKEN`, for a week, with the TOKEN\n  \
         {}",
        env!("CARGO_PKG_VERSION"),
        terminal::plural(status.executors.len() as u64, "executor"),
        terminal::plural(u64::from(slots), "slot"),
        terminal::size(memory),
        cluster.token()?,
    ))
}
