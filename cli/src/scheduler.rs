//! `windrow scheduler`: the coordinator with Flight SQL for clients and the control stream for executors on one port.

use std::sync::Arc;

use windrow::PublishedSecret;
use windrow_auth::ClusterKey;
use windrow_core::config;
use windrow_flight::security::stores;
use windrow_flight::{Coordinator, CoordinatorOptions, ServeOptions, serve};

use crate::access;
use crate::args::SchedulerArguments;
use crate::end::End;
use crate::interrupt::Interrupt;
use crate::terminal;

/// Runs `windrow scheduler` until it is asked to end.
pub(crate) async fn run(arguments: SchedulerArguments) -> Result<(), End> {
    let mut interrupt = Interrupt::listen()?;
    let config = config::load(None).map_err(End::starting)?;
    let mut scheduler = config.scheduler;
    scheduler.state_dir = arguments.state_dir.or(scheduler.state_dir);
    let security = arguments.users.over(arguments.security.over(config.security));
    let accept_plans = arguments.accept_plans || security.accept_plans;
    security.check().map_err(End::starting)?;
    let insecure = arguments.security.insecure;
    let known = access::key_of_scheduler(&security, arguments.bind).map_err(End::starting)?;
    let key = known.clone().unwrap_or_else(ClusterKey::random);
    let (access, dialer) = access::access(Some(&key), &security, insecure).map_err(End::starting)?;
    let access = access.audited(&security).map_err(End::starting)?.limited(&config.connections);
    let stores = stores(&security).map_err(End::starting)?;
    let url = if access.encrypts() { "grpc+tls" } else { "grpc" };
    let (query, results, session) = (config.query, config.results, config.session);
    let options = CoordinatorOptions { scheduler, query, results, session, stores, dialer, accept_plans };
    let coordinator = Coordinator::start(options).map_err(End::starting)?;
    let options = ServeOptions { bind: arguments.bind, access };
    let server = serve(Arc::clone(&coordinator), options).await.map_err(End::starting)?;
    let address = server.address();
    // Shells and executors of this user find the secret by the port.
    let is_there = known.is_some() && security.secret_file.is_none();
    let _published = if is_there { None } else { Some(PublishedSecret::new(&key, address.port())?) };
    terminal::note(&format!(
        "windrow {}   scheduler on {address}   (Ctrl-C stops)\n  \
         executor   windrow executor --scheduler {address}\n  \
         shell      windrow sql --connect {url}://{address}",
        env!("CARGO_PKG_VERSION")
    ));
    interrupt.asked().await;
    terminal::note("stopping");
    coordinator.shutdown().await;
    server.shutdown().await;
    Ok(())
}
