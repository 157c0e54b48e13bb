//! Keeps committed segments until nobody needs them: in memory first, on disk when memory is short. Next: `read.rs`.
//!
//! ```text
//!            commit             evicted behind the queries          the pool asks
//! (writer) ---------> Memory ------------------------------> Clean --------------> Disk
//!     \----------------------------------------------------------------------------^    written under pressure
//! ```
//!
//! Only committed output is here, so whatever is found may be read. A reader names the attempt that it was given and gets
//! [`LostCause::Missing`] for any other. Locks are held for map operations only, never across an await or a write.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Weak};

use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use windrow_core::failure::{CancelReason, Failed, LostCause};
use windrow_core::ids::{AttemptId, Incarnation, JobId, StageId};
use windrow_core::task::{JobStage, SegmentKey};

use super::segment_file::{SegmentFile, SegmentFileWriter, Segments};
use crate::memory::{ExecutorPool, Reclaim, STORE};
use crate::spill::SpillDir;

/// How long an operator waits for a segment that is being written. Far beyond any disk that works.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Batches of a segment that are read ahead of its reader.
const READ_AHEAD: usize = 2;

/// Names the output of one partition: the attempt and the partition.
pub type OutputKey = (AttemptId, u32);

/// The committed segments of one executor.
#[derive(Debug)]
pub struct ShuffleStore {
    state: Mutex<State>,
    /// An output was written to disk, or could not be.
    written: Condvar,
    pool: Arc<ExecutorPool>,
    spill: Arc<SpillDir>,
    runtime: Handle,
}

#[derive(Debug, Default)]
struct State {
    incarnation: Incarnation,
    outputs: BTreeMap<OutputKey, Output>,
    /// Outputs that hold memory, by the order of their commits: the coldest first.
    cold: BTreeMap<u64, OutputKey>,
    next: u64,
    /// Outputs that a thread is writing to disk right now.
    writing: BTreeSet<OutputKey>,
    memory_bytes: usize,
    clean_bytes: usize,
}

#[derive(Debug)]
struct Output {
    order: u64,
    /// What its memory takes from the pool; empty on disk.
    reservation: MemoryReservation,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Memory(Arc<Segments>),
    Clean(Arc<Segments>, Arc<SegmentFile>),
    /// On disk; batches written before a reader came are all in the file.
    Disk(Arc<SegmentFile>),
}

impl Place {
    /// How many batches a segment has: the same in memory and on disk, and in the same order.
    fn batches(&self, key: &SegmentKey) -> Option<usize> {
        match self {
            Self::Memory(segments) | Self::Clean(segments, _) => segments.get(key.segment as usize).map(Vec::len),
            Self::Disk(file) => Some(file.batches(key.segment)),
        }
    }
}

/// What a writer hands over.
#[derive(Debug)]
pub(crate) enum Finished {
    /// Everything is in memory, accounted by the reservation.
    Memory(Segments, MemoryReservation),
    /// Everything was written to disk.
    Disk(SegmentFile),
}

impl ShuffleStore {
    /// A store of its own with a pool of `limit` bytes, from `evict_from_percent` of which on it writes to directories that it makes
    /// below `spill_dir`, at most `spill_limit` bytes. Nothing can be committed before [`Self::begin`].
    ///
    /// # Errors
    /// `InvalidConfig` if the directory cannot be written.
    pub fn open(
        (limit, evict_from_percent): (usize, u32),
        (spill_dir, spill_limit): (&Path, u64),
        runtime: Handle,
    ) -> windrow_core::Result<Arc<Self>> {
        let pool = Arc::new(ExecutorPool::new(limit, evict_from_percent));
        Ok(Self::new(pool, SpillDir::create(spill_dir, spill_limit)?, runtime))
    }

    pub(crate) fn new(pool: Arc<ExecutorPool>, spill: Arc<SpillDir>, runtime: Handle) -> Arc<Self> {
        let store = Arc::new(Self { state: Mutex::default(), written: Condvar::new(), pool, spill, runtime });
        let weak: Weak<Self> = Arc::downgrade(&store);
        store.pool.reclaim_from(weak);
        store
    }

    /// The batches of one committed segment one by one, from memory (shared, not copied) or from disk (verified). None for an empty
    /// segment of a committed partition. Holds two batches of a segment on disk at a time, however large it is.
    ///
    /// # Errors
    /// [`LostCause::Fenced`] for another incarnation, `Missing` if nothing of that attempt is committed here, `Corrupt` if a
    /// block on disk fails its checksum.
    pub fn stream(
        self: &Arc<Self>,
        incarnation: Incarnation,
        key: SegmentKey,
    ) -> BoxStream<'static, Result<RecordBatch, LostCause>> {
        let store = Arc::clone(self);
        let batches = async move {
            let count = store.place(incarnation, &key)?.batches(&key).ok_or(LostCause::Missing)?;
            let read = move |batch| {
                let store = Arc::clone(&store);
                async move { store.batch(incarnation, &key, batch).await }
            };
            Ok(stream::iter(0..count).map(read).buffered(READ_AHEAD))
        };
        stream::once(batches).try_flatten().boxed()
    }

    /// As [`Self::stream`], all at once.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub async fn read(self: &Arc<Self>, incarnation: Incarnation, key: &SegmentKey) -> Result<Vec<RecordBatch>, LostCause> {
        self.stream(incarnation, *key).try_collect().await
    }

    /// Asks anew for each batch: it may have left memory since the one before.
    async fn batch(&self, incarnation: Incarnation, key: &SegmentKey, batch: usize) -> Result<RecordBatch, LostCause> {
        let file = match self.place(incarnation, key)? {
            Place::Memory(segments) | Place::Clean(segments, _) => {
                let segment = segments.get(key.segment as usize);
                return segment.and_then(|batches| batches.get(batch)).cloned().ok_or(LostCause::Missing);
            }
            Place::Disk(file) => file,
        };
        let segment = key.segment;
        self.runtime.spawn_blocking(move || file.read(segment, batch)).await.map_err(|_stopped| LostCause::Missing)?
    }

    /// Whether a partition of a present incarnation is committed here.
    #[must_use]
    pub fn holds(&self, incarnation: Incarnation, key: &SegmentKey) -> bool {
        self.place(incarnation, key).is_ok()
    }

    /// Bytes of segments in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.state.lock().memory_bytes as u64
    }

    /// Bytes on disk: evicted segments and operators' files.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.spill.used()
    }

    pub(crate) fn pool(&self) -> &Arc<ExecutorPool> {
        &self.pool
    }

    pub(crate) fn spill(&self) -> &Arc<SpillDir> {
        &self.spill
    }

    /// An empty reservation for output that is being written.
    pub(crate) fn reservation(&self) -> MemoryReservation {
        let pool: Arc<dyn MemoryPool> = Arc::clone(&self.pool) as Arc<dyn MemoryPool>;
        MemoryConsumer::new(STORE).with_can_spill(true).register(&pool)
    }

    /// Starts a new incarnation: nothing of an older one can be read any more.
    pub fn begin(&self, incarnation: Incarnation) {
        let gone = self.take_all(incarnation);
        self.discard(gone);
    }

    /// As [`Self::begin`] with no incarnation, and returns when all memory is free and all files are removed.
    pub(crate) async fn clear(&self) {
        let gone = self.take_all(Incarnation::default());
        // It ends early only if the runtime does, and then what it was given is dropped all the same.
        let _ = self.runtime.spawn_blocking(move || drop(gone)).await;
    }

    fn take_all(&self, incarnation: Incarnation) -> Vec<Output> {
        let mut state = self.state.lock();
        state.incarnation = incarnation;
        state.remove_range((AttemptId::default(), 0), None)
    }

    /// Makes a partition's output readable.
    ///
    /// # Errors
    /// `Cancelled` if the executor is of another incarnation by now.
    pub(crate) fn commit(&self, incarnation: Incarnation, key: OutputKey, finished: Finished) -> Result<(), Failed> {
        let (place, reservation) = match finished {
            Finished::Memory(segments, reservation) => (Place::Memory(Arc::new(segments)), reservation),
            Finished::Disk(file) => (Place::Disk(Arc::new(file)), self.reservation()),
        };
        {
            let mut state = self.state.lock();
            if state.incarnation != incarnation {
                return Err(Failed::cancelled(CancelReason::Stale));
            }
            state.insert(key, place, reservation);
        }
        if self.must_evict() {
            self.pool.signal_pressure();
        }
        Ok(())
    }

    /// Deletes what an attempt committed here.
    pub(crate) fn release_attempt(&self, attempt: AttemptId) {
        let gone = self.state.lock().remove_range((attempt, 0), Some((attempt, u32::MAX)));
        self.discard(gone);
    }

    /// Deletes one partition's output, if it is there.
    pub(crate) fn release_output(&self, key: OutputKey) {
        let gone = self.state.lock().remove(&key);
        self.discard(gone.into_iter().collect());
    }

    /// Deletes every output of a stage.
    pub(crate) fn release_stage(&self, stage: JobStage) {
        let gone = self.state.lock().remove_range(stage_start(stage.job, stage.stage), next_stage(stage));
        self.discard(gone);
    }

    /// Deletes every output of a job.
    pub fn release_job(&self, job: JobId) {
        let end = job.0.checked_add(1).map(|next| stage_start(JobId(next), StageId(0)));
        let gone = self.state.lock().remove_range(stage_start(job, StageId(0)), end);
        self.discard(gone);
    }

    /// Writes cold segments to disk while the pool is above the eviction threshold. Blocks: runs on a thread of its own, so that
    /// queries that keep every other thread busy do not starve it.
    pub(crate) fn evict(&self) {
        while self.must_evict() && self.evict_coldest() {}
    }

    /// Writes the coldest output that is in memory only, unless another thread is at it; whether one was written.
    fn evict_coldest(&self) -> bool {
        let Some((key, segments)) = self.state.lock().start_writing() else { return false };
        let written = self.write(&segments);
        let mut state = self.state.lock();
        state.writing.remove(&key);
        self.written.notify_all();
        match written {
            Ok(file) => state.mark_clean(key, &segments, file),
            // It stays in memory; operators are refused earlier until the disk has room again.
            Err(failed) => {
                drop(state);
                tracing::warn!(%failed, "cannot evict a segment");
                return false;
            }
        }
        true
    }

    /// Waits until another thread has written what it is at; false if none is writing. Without this an operator would be refused
    /// while the segments that could make room for it are on their way to disk.
    fn await_writer(&self) -> bool {
        let mut state = self.state.lock();
        if state.writing.is_empty() {
            return false;
        }
        !self.written.wait_for(&mut state, WRITE_WAIT_MAX).timed_out()
    }

    fn write(&self, segments: &Segments) -> Result<SegmentFile, Failed> {
        let mut writer = SegmentFileWriter::create(&self.spill, segments.len())?;
        writer.append(segments)?;
        Ok(writer.finish())
    }

    fn must_evict(&self) -> bool {
        let clean = self.state.lock().clean_bytes;
        self.pool.reserved().saturating_sub(clean) >= self.pool.evict_from()
    }

    fn place(&self, incarnation: Incarnation, key: &SegmentKey) -> Result<Place, LostCause> {
        let state = self.state.lock();
        if state.incarnation != incarnation {
            return Err(LostCause::Fenced);
        }
        state.outputs.get(&(key.attempt, key.partition)).map(|output| output.place.clone()).ok_or(LostCause::Missing)
    }

    /// Frees memory and files away from the caller, who must not block.
    fn discard(&self, outputs: Vec<Output>) {
        if !outputs.is_empty() {
            self.runtime.spawn_blocking(move || drop(outputs));
        }
    }

    #[cfg(test)]
    pub(crate) fn file_of(&self, key: OutputKey) -> Option<Arc<SegmentFile>> {
        match &self.state.lock().outputs.get(&key)?.place {
            Place::Memory(_) => None,
            Place::Clean(_, file) | Place::Disk(file) => Some(Arc::clone(file)),
        }
    }
}

impl Reclaim for ShuffleStore {
    fn held(&self) -> usize {
        self.state.lock().memory_bytes
    }

    fn reclaim(&self, bytes: usize, may_write: bool) -> usize {
        let mut freed = 0;
        loop {
            // Collected first and dropped without the lock: freeing large batches takes time.
            let (more, dropped) = self.state.lock().drop_clean(bytes.saturating_sub(freed));
            drop(dropped);
            freed += more;
            if freed >= bytes || !may_write {
                return freed;
            }
            if !self.evict_coldest() && !self.await_writer() {
                return freed;
            }
        }
    }
}

impl State {
    fn insert(&mut self, key: OutputKey, place: Place, reservation: MemoryReservation) {
        let order = self.next;
        self.next += 1;
        if matches!(place, Place::Memory(_)) {
            self.memory_bytes += reservation.size();
            self.cold.insert(order, key);
        }
        if let Some(replaced) = self.outputs.insert(key, Output { order, reservation, place }) {
            // An attempt computes each partition once; should it not, the newer output counts.
            self.forget(&replaced);
        }
    }

    /// Takes a removed output out of the sums.
    fn forget(&mut self, output: &Output) {
        self.cold.remove(&output.order);
        let bytes = output.reservation.size();
        self.memory_bytes = self.memory_bytes.saturating_sub(bytes);
        if matches!(output.place, Place::Clean(..)) {
            self.clean_bytes = self.clean_bytes.saturating_sub(bytes);
        }
    }

    fn remove_range(&mut self, start: OutputKey, end: Option<OutputKey>) -> Vec<Output> {
        let keys: Vec<OutputKey> = match end {
            Some(end) => self.outputs.range(start..end).map(|(key, _)| *key).collect(),
            None => self.outputs.range(start..).map(|(key, _)| *key).collect(),
        };
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    fn remove(&mut self, key: &OutputKey) -> Option<Output> {
        let removed = self.outputs.remove(key)?;
        self.forget(&removed);
        Some(removed)
    }

    /// The coldest output that is in memory only and that nobody writes, noted as being written.
    fn start_writing(&mut self) -> Option<(OutputKey, Arc<Segments>)> {
        let found = self.cold.values().find_map(|key| match &self.outputs.get(key)?.place {
            Place::Memory(segments) if !self.writing.contains(key) => Some((*key, Arc::clone(segments))),
            Place::Memory(_) | Place::Clean(..) | Place::Disk(_) => None,
        });
        self.writing.extend(found.iter().map(|(key, _)| *key));
        found
    }

    /// Notes that an output is on disk, if it is still the one that was written.
    fn mark_clean(&mut self, key: OutputKey, written: &Arc<Segments>, file: SegmentFile) {
        let Some(output) = self.outputs.get_mut(&key) else { return };
        if let Place::Memory(segments) = &output.place
            && Arc::ptr_eq(segments, written)
        {
            self.clean_bytes += output.reservation.size();
            output.place = Place::Clean(Arc::clone(segments), Arc::new(file));
        }
    }

    /// Turns clean outputs into outputs on disk until `bytes` are given back, the coldest first.
    fn drop_clean(&mut self, bytes: usize) -> (usize, Vec<Arc<Segments>>) {
        let (mut freed, mut dropped) = (0, Vec::new());
        if self.clean_bytes == 0 {
            return (freed, dropped);
        }
        let cold: Vec<(u64, OutputKey)> = self.cold.iter().map(|(order, key)| (*order, *key)).collect();
        for (order, key) in cold {
            if freed >= bytes {
                break;
            }
            let Some(output) = self.outputs.get_mut(&key) else { continue };
            if let Place::Clean(segments, file) = &output.place {
                dropped.push(Arc::clone(segments));
                output.place = Place::Disk(Arc::clone(file));
                freed += output.reservation.free();
                self.cold.remove(&order);
            }
        }
        self.clean_bytes = self.clean_bytes.saturating_sub(freed);
        self.memory_bytes = self.memory_bytes.saturating_sub(freed);
        (freed, dropped)
    }
}

/// The first key that an output of `stage` could have: ids are ordered by job, then stage.
fn stage_start(job: JobId, stage: StageId) -> OutputKey {
    (AttemptId { job, stage, ..AttemptId::default() }, 0)
}

/// The first key behind all outputs of `stage`; `None` if there is none.
fn next_stage(stage: JobStage) -> Option<OutputKey> {
    match stage.stage.0.checked_add(1) {
        Some(next) => Some(stage_start(stage.job, StageId(next))),
        None => stage.job.0.checked_add(1).map(|next| stage_start(JobId(next), StageId(0))),
    }
}

#[cfg(test)]
mod tests;
