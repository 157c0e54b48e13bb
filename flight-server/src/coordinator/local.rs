//! Executors in the coordinator's own process: reports by a channel, commands by a call, segments by reference.

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use tokio::sync::mpsc;
use windrow_core::Result;
use windrow_core::message::Report;
use windrow_core::transport::ShuffleTransport;
use windrow_executor::{Executor, ExecutorOptions, timer};

use super::fleet::Link;
use super::{Connection, Shared};
use crate::routine::Routine;

/// Reports that wait to be heard.
const REPORTS_MAX: usize = 1024;

/// Between heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A local executor with the routines that carry what it says.
#[derive(Debug)]
pub(super) struct LocalExecutor {
    executor: Arc<Executor>,
    _routines: [Routine; 2],
}

impl LocalExecutor {
    /// Starts an executor and joins it.
    pub(super) fn start(shared: &Arc<Shared>, options: ExecutorOptions) -> Result<Self> {
        let name = options.name.clone();
        let (reports, queue) = mpsc::channel(REPORTS_MAX);
        let transport = Arc::clone(&shared.transport) as Arc<dyn ShuffleTransport<RecordBatch>>;
        let executor = Executor::start(options, transport, reports)?;
        let registration = executor.registration(String::new());
        let connection = Arc::new(shared.connect(registration, Link::Local(Arc::clone(&executor)))?);
        let routines = [
            Routine::spawn_on(executor.runtime(), &name, "reports", pump(Arc::clone(&connection), queue)),
            Routine::spawn(&name, "heartbeat", beat(connection, Arc::clone(&executor))),
        ];
        Ok(Self { executor, _routines: routines })
    }

    pub(super) fn executor(&self) -> &Arc<Executor> {
        &self.executor
    }

    pub(super) async fn shutdown(self) {
        self.executor.shutdown().await;
    }
}

/// Has reports heard for as long as there are any to come, on the executor's own threads.
async fn pump(connection: Arc<Connection>, mut reports: mpsc::Receiver<Report>) {
    while let Some(report) = reports.recv().await {
        connection.report_here(report);
    }
}

async fn beat(connection: Arc<Connection>, executor: Arc<Executor>) {
    loop {
        connection.report(executor.heartbeat()).await;
        timer::sleep(HEARTBEAT).await;
    }
}
