//! Opens the inputs of an attempt: its own executor's segments as they are, everybody else's through the transport.
//!
//! Which segments an attempt reads was fixed when it was launched; this asks for exactly those, all executors at once, one stream
//! an executor, and holds at most `executor.fetch_window` bytes of each stream that nobody has taken yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;
use windrow_core::failure::{Failed, Failure, LostCause};
use windrow_core::ids::{ExecutorId, Incarnation};
use windrow_core::task::{InputGroup, InputVector, SegmentKey};
use windrow_core::transport::{FetchRequest, ShuffleTransport};
use windrow_planner::{InputPart, StageInputSource};

use super::broadcast::Broadcasts;
use super::store::ShuffleStore;
use crate::classify::join;

/// Batches that wait of one stream, besides the bound in bytes.
const BATCHES_WAITING_MAX: usize = 64;

/// The unit of the byte bound: a semaphore counts to 2^29 only where addresses have 32 bits.
const PERMIT_BYTES: usize = 1024;

/// The batches of one input part.
pub type Batches = BoxStream<'static, Result<RecordBatch, Failed>>;

/// Reads the inputs of one attempt.
#[derive(Debug)]
pub struct ShuffleReader {
    /// The reading executor: what it holds itself is not fetched.
    executor: ExecutorId,
    /// Its incarnation.
    incarnation: Incarnation,
    /// The inputs of the attempt.
    inputs: Vec<InputVector>,
    /// This executor's segments.
    store: Arc<ShuffleStore>,
    /// The way to the others'.
    transport: Arc<dyn ShuffleTransport<RecordBatch>>,
    /// Bytes that may wait of one stream.
    window: u64,
    /// What this executor's attempts share of whole inputs; `None` if this attempt is the only reader of its stage.
    broadcasts: Option<Arc<Broadcasts>>,
}

impl StageInputSource for ShuffleReader {
    fn open(&self, input: u32, part: InputPart, schema: SchemaRef) -> datafusion::error::Result<SendableRecordBatchStream> {
        let batches = self.read(input, part).map_err(|failed| DataFusionError::External(Box::new(failed)))?;
        let batches = batches.map_err(|failed| DataFusionError::External(Box::new(failed)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

impl ShuffleReader {
    /// A reader on `executor`, which keeps `store` and reaches the others by `transport`, with at most `window` bytes waiting of one
    /// stream.
    #[must_use]
    pub fn new(
        (executor, incarnation): (ExecutorId, Incarnation),
        inputs: Vec<InputVector>,
        store: Arc<ShuffleStore>,
        transport: Arc<dyn ShuffleTransport<RecordBatch>>,
        window: u64,
    ) -> Self {
        Self { executor, incarnation, inputs, store, transport, window, broadcasts: None }
    }

    /// Has whole inputs fetched once for all attempts that are given the same `broadcasts`.
    pub(crate) fn sharing(mut self, broadcasts: Option<Arc<Broadcasts>>) -> Self {
        self.broadcasts = broadcasts;
        self
    }

    /// The batches of `part` of input number `input`.
    ///
    /// # Errors
    /// `Internal` if the attempt has no such input.
    pub fn read(&self, input: u32, part: InputPart) -> Result<Batches, Failed> {
        let vector = self
            .inputs
            .get(input as usize)
            .ok_or_else(|| Failed::internal(format!("the plan reads input {input} of {}", self.inputs.len())))?;
        Ok(match part {
            InputPart::Segment(segment) => self.read_groups(vector.groups.iter().cloned(), segment),
            InputPart::Producer(producer) => self.read_producer(&vector.groups, producer),
        })
    }

    fn read_producer(&self, groups: &[InputGroup], producer: u32) -> Batches {
        let Some(group) = groups.iter().find(|group| group.partitions.binary_search(&producer).is_ok()) else {
            return stream::empty().boxed();
        };
        let narrowed = InputGroup { partitions: vec![producer], ..group.clone() };
        let Some(broadcasts) = self.broadcasts.as_ref().filter(|_| !self.holds(group)) else {
            return self.read_groups(std::iter::once(narrowed), 0);
        };
        let (broadcasts, transport, window) = (Arc::clone(broadcasts), Arc::clone(&self.transport), self.window);
        let group = group.clone();
        let shared = async move {
            Ok::<_, Failed>(match broadcasts.read(transport.as_ref(), &group, producer).await? {
                Some(batches) => stream::iter(batches.into_iter().map(Ok)).boxed(),
                None => remote(transport.as_ref(), vec![narrowed], 0, window),
            })
        };
        stream::once(shared).try_flatten().boxed()
    }

    /// Whether this executor's own store holds the group.
    fn holds(&self, group: &InputGroup) -> bool {
        group.executor == self.executor && group.incarnation == self.incarnation
    }

    fn read_groups(&self, groups: impl Iterator<Item = InputGroup>, segment: u32) -> Batches {
        let (here, away): (Vec<_>, Vec<_>) = groups.partition(|group| self.holds(group));
        let mut by_executor: BTreeMap<(ExecutorId, Incarnation), Vec<InputGroup>> = BTreeMap::new();
        for group in away {
            by_executor.entry((group.executor, group.incarnation)).or_default().push(group);
        }
        let mut streams = Vec::with_capacity(1 + by_executor.len());
        if !here.is_empty() {
            streams.push(local(Arc::clone(&self.store), FetchRequest { groups: here, segment }));
        }
        for groups in by_executor.into_values() {
            streams.push(remote(self.transport.as_ref(), groups, segment, self.window));
        }
        match streams.len() {
            1 => streams.pop().unwrap_or_else(|| stream::empty().boxed()),
            _ => stream::select_all(streams).boxed(),
        }
    }
}

/// Reads groups of one other executor.
fn remote(transport: &dyn ShuffleTransport<RecordBatch>, groups: Vec<InputGroup>, segment: u32, window: u64) -> Batches {
    let fetched = transport.fetch(FetchRequest { groups, segment });
    ahead(fetched.map_ok(|(_, batch)| batch).boxed(), window)
}

/// Reads the store, segment after segment, without copying.
fn local(store: Arc<ShuffleStore>, request: FetchRequest) -> Batches {
    let keys: Vec<(SegmentKey, ExecutorId, Incarnation)> = request
        .groups
        .iter()
        .flat_map(|group| {
            let key = move |&partition| SegmentKey { attempt: group.attempt, partition, segment: request.segment };
            group.partitions.iter().map(move |partition| (key(partition), group.executor, group.incarnation))
        })
        .collect();
    stream::iter(keys)
        .flat_map(move |(key, executor, incarnation)| {
            store.stream(incarnation, key).map_err(move |cause| lost(&key, executor, incarnation, cause))
        })
        .boxed()
}

/// The failure of a segment that could not be read.
pub(crate) fn lost(key: &SegmentKey, executor: ExecutorId, incarnation: Incarnation, cause: LostCause) -> Failed {
    let failure = Failure::LostInput { attempt: key.attempt, partitions: vec![key.partition], executor, incarnation, cause };
    let reason = match cause {
        LostCause::Unreachable => "does not answer",
        LostCause::Missing => "does not hold it",
        LostCause::Corrupt => "holds it damaged",
        LostCause::Fenced => "was started anew",
    };
    Failed::new(failure, format!("output of {} partition {} is lost: {executor} {reason}", key.attempt, key.partition))
}

/// Reads `batches` ahead of the consumer in a task of its own, at most `window` bytes.
fn ahead(mut batches: Batches, window: u64) -> Batches {
    let permits_max = u32::try_from(window / PERMIT_BYTES as u64).unwrap_or(u32::MAX).clamp(1, 1 << 28);
    let room = Arc::new(Semaphore::new(permits_max as usize));
    let (sender, receiver) = mpsc::channel::<(Result<RecordBatch, Failed>, Option<OwnedSemaphorePermit>)>(BATCHES_WAITING_MAX);
    let task = tokio::spawn(async move {
        while let Some(item) = batches.next().await {
            let permit = match &item {
                // A batch larger than the window waits for the whole of it.
                Ok(batch) => {
                    let permits = u32::try_from(batch.get_array_memory_size() / PERMIT_BYTES).unwrap_or(u32::MAX);
                    Arc::clone(&room).acquire_many_owned(permits.clamp(1, permits_max)).await.ok()
                }
                Err(_) => None,
            };
            let over = item.is_err();
            if sender.send((item, permit)).await.is_err() || over {
                return;
            }
        }
    });
    // Held by the stream: dropping it ends the task.
    let task = AbortOnDropHandle::new(task);
    stream::unfold(Some((receiver, task)), |state| async move {
        let (mut receiver, task) = state?;
        match receiver.recv().await {
            Some((item, _room)) => Some((item, Some((receiver, task)))),
            // A task that panicked must not look like the end of the rows.
            None => task.await.err().map(|error| (Err(join(&error)), None)),
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests;
