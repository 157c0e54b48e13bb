//! `windrow executor`: one executor that joins a scheduler, until that scheduler or somebody here asks for the end. SIGTERM asks
//! politely: it leaves once its work is done.

use std::io::Read;

use tokio::sync::oneshot;
use windrow::Error;
use windrow_core::config::{self, Config};
use windrow_flight::security::stores;
use windrow_flight::{ExecutorOptions, NetworkExecutorOptions, run_executor};

use crate::access;
use crate::args::ExecutorArguments;
use crate::end::End;
use crate::interrupt::{Asked, Interrupt};

/// Runs `windrow executor`.
pub(crate) async fn run(arguments: ExecutorArguments) -> Result<(), End> {
    let mut interrupt = Interrupt::listen()?;
    let config = config::load(None).map_err(End::starting)?;
    let orphaned = arguments.supervised.then(orphaned).transpose()?;
    let options = options(arguments, &config).map_err(End::starting)?;
    let (ask, asked) = oneshot::channel();
    let leave = async move {
        if asked.await.is_err() {
            std::future::pending().await
        }
    };
    let over = async move {
        let orphaned = async move {
            match orphaned {
                Some(end) => drop(end.await),
                None => std::future::pending().await,
            }
        };
        let interrupted = async move {
            if interrupt.asked().await == Asked::Leave {
                tracing::warn!("leaving once the running work is done; another signal ends it at once");
                // It is over already if nobody hears this.
                let _unheard = ask.send(());
                interrupt.asked().await;
            }
        };
        tokio::select! {
            () = interrupted => {}
            () = orphaned => {}
        }
    };
    run_executor(options, leave, over).await.map_err(End::connecting)
}

/// The settings, with what the command line says in their place.
fn options(arguments: ExecutorArguments, config: &Config) -> Result<NetworkExecutorOptions, Error> {
    let security = arguments.security.over(config.security.clone());
    // A supervisor speaks to its executors over the loopback interface.
    let security = if arguments.supervised { security.without_tls() } else { security };
    security.check()?;
    let insecure = arguments.security.insecure;
    let key = access::key_of_executor(&security, &arguments.scheduler, insecure)?;
    let (access, dialer) = access::access(key.as_ref(), &security, insecure)?;
    let name = arguments.name.unwrap_or_else(|| format!("executor-{}", std::process::id()));
    let settings = ExecutorOptions::new(name, &config.executor);
    Ok(NetworkExecutorOptions {
        scheduler: arguments.scheduler,
        bind: arguments.bind,
        advertise: arguments.advertise,
        client_networks: config.executor.client_networks.clone(),
        access: access.limited(&config.connections),
        dialer,
        executor: ExecutorOptions {
            slots: arguments.slots.unwrap_or(settings.slots),
            memory_limit: arguments.memory_limit.unwrap_or(settings.memory_limit),
            spill_dir: arguments.spill_dir.unwrap_or(settings.spill_dir),
            spill_limit: arguments.spill_limit.unwrap_or(settings.spill_limit),
            stores: stores(&security)?,
            ..settings
        },
    })
}

/// Resolves when standard input ends. A supervisor keeps the other end open and writes nothing, so the end comes with its death,
/// whatever killed it. A thread reads, because a blocked read must not hold up the runtime's end.
fn orphaned() -> Result<oneshot::Receiver<()>, Error> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("supervision".to_owned())
        .spawn(move || {
            let mut buffer = [0_u8; 64];
            let mut input = std::io::stdin().lock();
            loop {
                match input.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            // Nobody waits any more if the executor ended by itself.
            let _unheard = ended.send(());
        })
        .map_err(|source| Error::internal("no thread to watch the supervisor").with_source(source))?;
    Ok(end)
}
