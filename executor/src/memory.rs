//! The executor's memory pool: one bound for operators, shuffle segments and results. Next: `query_memory.rs`.
//!
//! An operator asks from within a poll, where nothing can be awaited. So the store writes cold segments to disk behind the queries
//! (from `executor.evict_from_percent` on) and keeps them in memory as *clean*; when a request does not fit, clean segments are
//! dropped at once, and if that is not enough more are written there and then. Only when no segment is left in memory is the operator
//! refused, which makes it spill.
//!
//! The pool counts what it is told. What it is not told (files being decoded, batches on their way, the program itself) is resident
//! all the same: `watch.rs` sees it and lowers the pool's *capacity*, so that both together stay within `executor.memory_limit`.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{OnceLock, Weak};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};

/// Who can give memory back at once, without waiting: the store, by dropping clean segments.
pub(crate) trait Reclaim: fmt::Debug + Send + Sync {
    /// Drops at least `bytes` if that much is clean, and returns what was dropped. With `may_write` also what first must be written
    /// to disk, which blocks.
    fn reclaim(&self, bytes: usize, may_write: bool) -> usize;

    /// Bytes of shuffle data in memory, for messages.
    fn held(&self) -> usize;
}

/// The pool of one executor.
pub struct ExecutorPool {
    /// `executor.memory_limit`.
    limit: usize,
    /// What of it is left for those that ask.
    capacity: AtomicUsize,
    /// The share of the capacity, in percent, from which the store evicts.
    evict_from_percent: usize,
    used: AtomicUsize,
    /// Bytes of the last request that was refused, for the figures of the failure.
    refused: AtomicUsize,
    reclaim: OnceLock<Weak<dyn Reclaim>>,
    pressure: OnceLock<SyncSender<()>>,
}

/// Consumers that are never refused. DataFusion's `RepartitionExec` reads what it spilled in an order that can wait for itself
/// when another input must progress first (`spill_pool.rs`), so it would hang instead of going slower. Its hash join takes what was
/// taken for it before and is given back as it takes (`grace/build.rs`), and would fail if another came between.
const NEVER_REFUSED: [&str; 2] = ["RepartitionExec[", "HashJoinInput"];

/// The store's consumer.
pub(crate) const STORE: &str = "ShuffleStore";

impl ExecutorPool {
    /// A pool of `limit` bytes that signals pressure from `evict_from_percent` of them on.
    #[must_use]
    pub fn new(limit: usize, evict_from_percent: u32) -> Self {
        Self {
            limit,
            capacity: AtomicUsize::new(limit),
            evict_from_percent: evict_from_percent.min(100) as usize,
            used: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            reclaim: OnceLock::new(),
            pressure: OnceLock::new(),
        }
    }

    /// The bound in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes of the last refused request.
    #[must_use]
    pub fn last_refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Bytes in use from which the store evicts.
    pub(crate) fn evict_from(&self) -> usize {
        (self.capacity() / 100).saturating_mul(self.evict_from_percent)
    }

    /// Bytes for those that ask.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Sets what is left for those that ask, at most the limit. Who holds more keeps it, and is refused more.
    pub(crate) fn set_capacity(&self, bytes: usize) {
        self.capacity.store(bytes.min(self.limit), Ordering::Relaxed);
        if self.used.load(Ordering::Relaxed) >= self.evict_from() {
            self.signal_pressure();
        }
    }

    /// Bytes of shuffle data in memory, which can all go to disk.
    pub(crate) fn held_by_store(&self) -> usize {
        self.reclaim.get().and_then(Weak::upgrade).map_or(0, |reclaim| reclaim.held())
    }

    /// What receives a message when the use rises above the eviction threshold; closed when the pool is dropped. Asked for once.
    pub(crate) fn pressure(&self) -> Receiver<()> {
        // One message that nobody has taken yet says as much as many.
        let (sender, receiver) = sync_channel(1);
        let _ = self.pressure.set(sender);
        receiver
    }

    /// Wakes the eviction.
    pub(crate) fn signal_pressure(&self) {
        if let Some(pressure) = self.pressure.get() {
            // A full channel: it is awake, or will be.
            let _ = pressure.try_send(());
        }
    }

    /// Tells the pool whom to ask; the first caller wins.
    pub(crate) fn reclaim_from(&self, reclaim: Weak<dyn Reclaim>) {
        // A second store for one pool would be a bug of ours that only costs memory; the first stays.
        let _ = self.reclaim.set(reclaim);
    }

    /// Takes `additional` if no more than `bound` bytes are in use then.
    fn fits(&self, additional: usize, bound: usize) -> bool {
        let fitted = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| used.checked_add(additional).filter(|sum| *sum <= bound));
        if let Ok(before) = fitted {
            self.signal(before, additional);
        }
        fitted.is_ok()
    }

    fn take(&self, additional: usize) {
        let before = self.used.fetch_add(additional, Ordering::Relaxed);
        self.signal(before, additional);
    }

    fn signal(&self, before: usize, additional: usize) {
        let evict_from = self.evict_from();
        if before < evict_from && before.saturating_add(additional) >= evict_from {
            self.signal_pressure();
        }
    }

    /// Asks for clean segments until `additional` would fit; false if there were none. With `may_write`, segments become clean here
    /// and now.
    fn make_room(&self, additional: usize, may_write: bool) -> bool {
        let wanted = self.used.load(Ordering::Relaxed).saturating_add(additional).saturating_sub(self.capacity());
        let Some(reclaim) = self.reclaim.get().and_then(Weak::upgrade) else { return false };
        reclaim.reclaim(wanted, may_write) > 0
    }
}

impl ExecutorPool {
    pub(crate) fn never_refuses(&self, reservation: &MemoryReservation) -> bool {
        NEVER_REFUSED.iter().any(|spared| reservation.consumer().name().starts_with(spared))
    }

    /// Takes `additional` bytes for `reservation` if `spare` bytes are left over, after the store gave what it has. An operator that
    /// cannot spill would fail, so it is refused only above the limit itself.
    pub(crate) fn try_take(&self, reservation: &MemoryReservation, additional: usize, spare: usize) -> Result<()> {
        let name = reservation.consumer().name();
        // The store writes its own batches, and need not wait for others of its own.
        let may_write = name != STORE;
        let bound = if reservation.consumer().can_spill() { self.capacity().saturating_sub(spare) } else { self.limit };
        while !self.fits(additional, bound) {
            if self.make_room(additional.saturating_add(spare), may_write) {
                continue;
            }
            self.signal_pressure();
            if self.never_refuses(reservation) {
                self.take(additional);
                break;
            }
            self.refused.store(additional, Ordering::Relaxed);
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{name} asked for {additional} bytes more than its {}, and {} of {} bytes are in use, {} of them by shuffle data; executor.memory_limit is {} bytes",
                reservation.size(),
                self.used.load(Ordering::Relaxed),
                self.capacity(),
                self.held_by_store(),
                self.limit,
            )));
        }
        Ok(())
    }
}

impl fmt::Debug for ExecutorPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorPool").field("limit", &self.limit).field("used", &self.used).finish_non_exhaustive()
    }
}

impl fmt::Display for ExecutorPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "executor pool of {} bytes, {} in use", self.limit, self.used.load(Ordering::Relaxed))
    }
}

impl MemoryPool for ExecutorPool {
    fn name(&self) -> &str {
        "executor"
    }

    fn grow(&self, _reservation: &MemoryReservation, additional: usize) {
        self.take(additional);
        let debt = self.used.load(Ordering::Relaxed).saturating_sub(self.capacity());
        if debt > 0 {
            self.make_room(0, false);
            self.signal_pressure();
        }
    }

    fn shrink(&self, _reservation: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.try_take(reservation, additional, 0)
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    #[derive(Debug)]
    struct Clean(AtomicUsize, OnceLock<MemoryReservation>);

    impl Reclaim for Clean {
        fn reclaim(&self, bytes: usize, _may_write: bool) -> usize {
            self.0.fetch_add(1, Ordering::Relaxed);
            let Some(held) = self.1.get() else { return 0 };
            let freed = held.size().min(bytes);
            held.shrink(freed);
            freed
        }

        fn held(&self) -> usize {
            self.1.get().map_or(0, MemoryReservation::size)
        }
    }

    fn pool(limit: usize) -> (Arc<ExecutorPool>, Arc<dyn MemoryPool>) {
        let pool = Arc::new(ExecutorPool::new(limit, 60));
        (Arc::clone(&pool), pool)
    }

    #[test]
    fn a_refusal_names_consumer_bytes_limit_and_setting() {
        let (ours, pool) = pool(1000);
        let sort = MemoryConsumer::new("ExternalSorter[0]").register(&pool);
        sort.try_grow(900).unwrap();
        let error = sort.try_grow(101).unwrap_err();
        assert!(matches!(error, DataFusionError::ResourcesExhausted(_)));
        for part in ["ExternalSorter[0]", "101", "900 of 1000", "executor.memory_limit"] {
            assert!(error.to_string().contains(part), "{part} is not in: {error}");
        }
        assert_eq!((ours.last_refused(), ours.reserved()), (101, 900));
        sort.try_grow(100).unwrap();
    }

    #[test]
    fn clean_segments_are_dropped_before_an_operator_is_refused() {
        let (ours, pool) = pool(1000);
        let held = MemoryConsumer::new("ShuffleStore").register(&pool);
        held.grow(800);
        let clean = Arc::new(Clean(AtomicUsize::new(0), OnceLock::from(held)));
        let weak: Weak<Clean> = Arc::downgrade(&clean);
        ours.reclaim_from(weak);
        let sort = MemoryConsumer::new("ExternalSorter[0]").register(&pool);
        sort.try_grow(200).unwrap();
        assert_eq!(clean.0.load(Ordering::Relaxed), 0);
        sort.try_grow(300).unwrap();
        assert_eq!((clean.0.load(Ordering::Relaxed), ours.reserved()), (1, 1000));
        sort.try_grow(501).unwrap_err();
        assert_eq!(ours.reserved(), 500, "what was clean is gone, and the refused bytes were not taken");
    }

    #[test]
    fn repartitions_are_never_refused_and_grow_counts_a_debt() {
        let (ours, pool) = pool(100);
        let repartition = MemoryConsumer::new("RepartitionExec[3]").register(&pool);
        repartition.try_grow(150).unwrap();
        assert_eq!(ours.reserved(), 150);
        let other = MemoryConsumer::new("other").register(&pool);
        other.grow(10);
        other.try_grow(1).unwrap_err();
        drop(repartition);
        other.try_grow(90).unwrap();
        drop(other);
        assert_eq!(ours.reserved(), 0);
    }
}
