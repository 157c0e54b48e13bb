//! Reads shuffle output of executors in this process: the consumer gets the producer's batches themselves. Next: `network.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use parking_lot::RwLock;
use windrow_core::failure::{Failed, LostCause};
use windrow_core::ids::ExecutorId;
use windrow_core::task::{InputGroup, SegmentKey};
use windrow_core::transport::{FetchRequest, ShuffleTransport};
use windrow_executor::ShuffleStore;

use super::{lost_from, until_error};

/// The stores of the executors in this process.
#[derive(Debug, Default)]
pub struct InProcessTransport {
    stores: RwLock<BTreeMap<ExecutorId, Arc<ShuffleStore>>>,
}

impl InProcessTransport {
    /// A transport that knows no executor yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes `store` readable as `executor`'s.
    pub fn join(&self, executor: ExecutorId, store: Arc<ShuffleStore>) {
        self.stores.write().insert(executor, store);
    }

    /// Forgets an executor's store.
    pub fn leave(&self, executor: ExecutorId) {
        self.stores.write().remove(&executor);
    }

    /// Whether `executor` lives in this process.
    #[must_use]
    pub fn holds(&self, executor: ExecutorId) -> bool {
        self.stores.read().contains_key(&executor)
    }
}

impl ShuffleTransport<RecordBatch> for InProcessTransport {
    fn fetch(&self, request: FetchRequest) -> BoxStream<'static, Result<(u32, RecordBatch), Failed>> {
        let Some(first) = request.groups.first() else { return stream::empty().boxed() };
        let store = self.stores.read().get(&first.executor).cloned();
        fetch_from(store, request)
    }
}

/// Reads `request` from `store`; `None` if its executor is gone.
pub(crate) fn fetch_from(
    store: Option<Arc<ShuffleStore>>,
    request: FetchRequest,
) -> BoxStream<'static, Result<(u32, RecordBatch), Failed>> {
    let segment = request.segment;
    let batches = stream::iter(request.groups).flat_map(move |group| {
        let (group, store) = (Arc::new(group), store.clone());
        stream::iter(0..group.partitions.len()).flat_map(move |index| read(store.as_ref(), Arc::clone(&group), index, segment))
    });
    until_error(batches)
}

/// One segment: the partition number at `index` of the group, with each of its batches.
pub(crate) fn read(
    store: Option<&Arc<ShuffleStore>>,
    group: Arc<InputGroup>,
    index: usize,
    segment: u32,
) -> BoxStream<'static, Result<(u32, RecordBatch), Failed>> {
    let Some(store) = store else {
        let failed = lost_from(&group, index, LostCause::Unreachable, "it left this process");
        return stream::iter([Err(failed)]).boxed();
    };
    let partition = group.partitions.get(index).copied().unwrap_or_default();
    let batches = store.stream(group.incarnation, SegmentKey { attempt: group.attempt, partition, segment });
    batches.map_ok(move |batch| (partition, batch)).map_err(move |cause| lost_from(&group, index, cause, "")).boxed()
}
