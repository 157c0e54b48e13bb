//! A query as others than its reader hold it: its number, its progress, its end. Next: `remote.rs`.

use tokio::sync::watch;
use windrow_flight::{Canceller, JobProgress, Statement};

use crate::remote::RemoteControl;

/// Ends a query from elsewhere and says how far it is. Cheap to clone; it does not keep the query alive.
#[derive(Debug, Clone)]
pub struct QueryControl {
    at: At,
}

#[derive(Debug, Clone)]
enum At {
    Here { id: Option<u64>, canceller: Option<Canceller>, progress: watch::Receiver<JobProgress> },
    Elsewhere(Box<RemoteControl>),
}

impl QueryControl {
    pub(crate) fn local(statement: &Statement) -> Self {
        let id = statement.job.map(|job| job.0);
        Self { at: At::Here { id, canceller: statement.canceller(), progress: statement.progress() } }
    }

    pub(crate) fn remote(control: RemoteControl) -> Self {
        Self { at: At::Elsewhere(Box::new(control)) }
    }

    /// Its number, as `system.queries` shows it; `None` if it needed no job.
    #[must_use]
    pub fn id(&self) -> Option<u64> {
        match &self.at {
            At::Here { id, .. } => *id,
            At::Elsewhere(control) => control.id(),
        }
    }

    /// As [`Query::cancel`](crate::Query::cancel).
    pub async fn cancel(&self) {
        match &self.at {
            At::Here { canceller: Some(canceller), .. } => canceller.cancel(),
            At::Here { canceller: None, .. } => {}
            At::Elsewhere(control) => control.cancel().await,
        }
    }

    /// As [`Query::progress`](crate::Query::progress).
    #[must_use]
    pub fn progress(&self) -> JobProgress {
        match &self.at {
            At::Here { progress, .. } => *progress.borrow(),
            At::Elsewhere(control) => control.progress(),
        }
    }
}
