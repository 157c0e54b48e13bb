//! The two ways to read shuffle output, behind one trait: from a store in this process, or over Flight. Next: `shuffle.rs`.

#[cfg(test)]
mod contract;
pub mod in_process;
pub mod network;

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use futures::stream::BoxStream;
use windrow_core::failure::{Failed, Failure, LostCause};
use windrow_core::task::InputGroup;
use windrow_core::transport::{FetchRequest, ShuffleTransport};

use crate::security::Dialer;

pub use in_process::InProcessTransport;
pub use network::NetworkTransport;

/// Reads in process what lives in this process, and the rest over the network.
#[derive(Debug)]
pub struct ClusterTransport {
    local: Arc<InProcessTransport>,
    network: NetworkTransport,
}

impl ClusterTransport {
    /// Both ways; `window` is the bytes in flight of one network stream, which `dialer` opens.
    #[must_use]
    pub fn new(local: Arc<InProcessTransport>, window: u64, dialer: Dialer) -> Self {
        Self { local, network: NetworkTransport::new(window, dialer) }
    }
}

impl ShuffleTransport<RecordBatch> for ClusterTransport {
    fn fetch(&self, request: FetchRequest) -> BoxStream<'static, Result<(u32, RecordBatch), Failed>> {
        let Some(first) = request.groups.first() else { return futures::stream::empty().boxed() };
        if first.address.is_none() || self.local.holds(first.executor) {
            self.local.fetch(request)
        } else {
            self.network.fetch(request)
        }
    }
}

/// The failure of a group whose `partitions` could not be read.
pub(crate) fn lost(group: &InputGroup, partitions: Vec<u32>, cause: LostCause, why: &str) -> Failed {
    let InputGroup { attempt, executor, incarnation, .. } = *group;
    let what = match cause {
        LostCause::Unreachable => "does not answer",
        LostCause::Missing => "does not hold it",
        LostCause::Corrupt => "holds it damaged",
        LostCause::Fenced => "has restarted",
    };
    let separator = if why.is_empty() { "" } else { ": " };
    let message = format!("output of {attempt} is lost, executor {executor} {what}{separator}{why}");
    Failed::new(Failure::LostInput { attempt, partitions, executor, incarnation, cause }, message)
}

/// The part of a group that is lost with one segment: that partition, or all from it on where the executor itself is gone.
pub(crate) fn lost_from(group: &InputGroup, index: usize, cause: LostCause, why: &str) -> Failed {
    let from = group.partitions.get(index..).unwrap_or_default();
    let partitions = match cause {
        LostCause::Missing | LostCause::Corrupt => from.iter().take(1).copied().collect(),
        LostCause::Unreachable | LostCause::Fenced => from.to_vec(),
    };
    lost(group, partitions, cause, why)
}

/// Ends a stream behind its first error.
pub(crate) fn until_error<T: Send + 'static>(
    stream: impl futures::Stream<Item = Result<T, Failed>> + Send + 'static,
) -> BoxStream<'static, Result<T, Failed>> {
    stream
        .scan(false, |has_failed, item| {
            let next = (!*has_failed).then_some(item);
            *has_failed = matches!(next, None | Some(Err(_)));
            std::future::ready(next)
        })
        .boxed()
}
