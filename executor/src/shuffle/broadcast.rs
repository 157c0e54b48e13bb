//! Outputs that several attempts of this executor read whole: fetched once, shared until the job ends.
//!
//! Only what another executor holds comes here, and only while it is small beside the pool; everything else is read by each attempt
//! for itself. Which is which is decided per group of producer partitions, the unit in which outputs are fetched.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use windrow_core::failure::Failed;
use windrow_core::ids::{AttemptId, JobId};
use windrow_core::task::InputGroup;
use windrow_core::transport::{FetchRequest, ShuffleTransport};

use crate::memory::ExecutorPool;

/// The part of the pool that one group may take: one of sixteen.
const POOL_PART: usize = 16;

/// The shared outputs of one executor.
#[derive(Debug)]
pub(crate) struct Broadcasts {
    pool: Arc<ExecutorPool>,
    groups: Mutex<BTreeMap<Key, Arc<Group>>>,
}

/// The attempt that committed the output and its first partition: an attempt may have committed partitions in several groups.
type Key = (AttemptId, Option<u32>);

/// A group's batches by producer partition; `None` inside if it is too large to keep.
type Group = OnceCell<Option<Fetched>>;

#[derive(Debug)]
struct Fetched {
    batches: BTreeMap<u32, Vec<RecordBatch>>,
    _reservation: MemoryReservation,
}

impl Broadcasts {
    pub(crate) fn new(pool: Arc<ExecutorPool>) -> Self {
        Self { pool, groups: Mutex::default() }
    }

    /// The batches of `producer`, a partition of `group`; `None` if the group is too large to share and must be read directly.
    /// Attempts that ask at once wait for one fetch; if the one that fetches is cancelled, the next one does.
    ///
    /// # Errors
    /// The transport's; the next caller tries again.
    pub(crate) async fn read(
        &self,
        transport: &dyn ShuffleTransport<RecordBatch>,
        group: &InputGroup,
        producer: u32,
    ) -> Result<Option<Vec<RecordBatch>>, Failed> {
        let key = (group.attempt, group.partitions.first().copied());
        let cell = Arc::clone(self.groups.lock().entry(key).or_default());
        let fetched = cell.get_or_try_init(|| self.fetch(transport, group)).await?;
        Ok(fetched.as_ref().map(|fetched| fetched.batches.get(&producer).cloned().unwrap_or_default()))
    }

    /// Drops what was fetched for `job`, or for all jobs.
    pub(crate) fn forget(&self, job: Option<JobId>) {
        // Dropped without the lock: freeing batches takes time.
        let mut groups = self.groups.lock();
        let gone: BTreeMap<_, _> = groups.extract_if(.., |(attempt, _), _| job.is_none_or(|job| attempt.job == job)).collect();
        drop(groups);
        drop(gone);
    }

    async fn fetch(&self, transport: &dyn ShuffleTransport<RecordBatch>, group: &InputGroup) -> Result<Option<Fetched>, Failed> {
        let pool: Arc<dyn MemoryPool> = Arc::clone(&self.pool) as Arc<dyn MemoryPool>;
        let reservation = MemoryConsumer::new("Broadcast").with_can_spill(true).register(&pool);
        let mut counter = RecordBatchMemoryCounter::new();
        let mut batches: BTreeMap<u32, Vec<RecordBatch>> = BTreeMap::new();
        let mut stream = transport.fetch(FetchRequest { groups: vec![group.clone()], segment: 0 });
        while let Some(item) = stream.next().await {
            let (producer, batch) = item?;
            let bytes = counter.count_batch(&batch);
            let fits = counter.memory_usage() <= self.pool.limit() / POOL_PART;
            if !fits || reservation.try_grow(bytes).is_err() {
                return Ok(None);
            }
            batches.entry(producer).or_default().push(batch);
        }
        Ok(Some(Fetched { batches, _reservation: reservation }))
    }
}
