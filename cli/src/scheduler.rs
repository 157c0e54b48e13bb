//! `windrow scheduler`: the coordinator with Flight SQL for clients and the control stream for executors on one port.

use windrow_core::config;
use windrow_flight::{Coordinator, CoordinatorOptions, ServeOptions, serve};

use crate::args::SchedulerArguments;
use crate::end::End;
use crate::interrupt::Interrupt;
use crate::terminal;

/// Runs `windrow scheduler` until it is asked to end.
pub(crate) async fn run(arguments: SchedulerArguments) -> Result<(), End> {
    let mut interrupt = Interrupt::listen()?;
    let config = config::load(None).map_err(End::starting)?;
    let coordinator = Coordinator::start(CoordinatorOptions { scheduler: config.scheduler, query: config.query })?;
    let options = ServeOptions { bind: arguments.bind, insecure: arguments.insecure };
    let server = serve(std::sync::Arc::clone(&coordinator), options).await.map_err(End::starting)?;
    let address = server.address();
    terminal::note(&format!(
        "windrow {}   scheduler on {address}   (Ctrl-C stops)\n  \
         executor   windrow executor --scheduler {address}\n  \
         shell      windrow sql --connect grpc://{address}",
        env!("CARGO_PKG_VERSION")
    ));
    interrupt.asked().await;
    terminal::note("stopping");
    coordinator.shutdown().await;
    server.shutdown().await;
    Ok(())
}
