//! The executor's memory pool: one bound for operators, shuffle segments and results. Next: `spill.rs`.
//!
//! An operator asks from within a poll, where nothing can be awaited. So the store writes cold segments to disk behind the queries
//! (from `executor.evict_from_percent` on) and keeps them in memory as *clean*; when a request does not fit, clean segments are
//! dropped at once, and only if that is not enough is the operator refused, which makes it spill.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};
use tokio::sync::Notify;

/// Who can give memory back at once, without waiting: the store, by dropping clean segments.
pub(crate) trait Reclaim: fmt::Debug + Send + Sync {
    /// Drops at least `bytes` if that much is clean, and returns what was dropped.
    fn reclaim(&self, bytes: usize) -> usize;
}

/// The pool of one executor.
pub struct ExecutorPool {
    limit: usize,
    /// Bytes in use from which the store evicts.
    evict_from: usize,
    used: AtomicUsize,
    /// Bytes of the last request that was refused, for the figures of the failure.
    refused: AtomicUsize,
    reclaim: OnceLock<Weak<dyn Reclaim>>,
    pressure: Arc<Notify>,
}

/// Consumers that are never refused: DataFusion's `RepartitionExec` reads what it spilled in an order that can wait for itself
/// when another input must progress first (`spill_pool.rs`), so it would hang instead of going slower.
const NEVER_REFUSED: &str = "RepartitionExec[";

impl ExecutorPool {
    /// A pool of `limit` bytes that signals pressure from `evict_from_percent` of them on.
    #[must_use]
    pub fn new(limit: usize, evict_from_percent: u32) -> Self {
        let evict_from = (limit / 100).saturating_mul(evict_from_percent.min(100) as usize);
        Self {
            limit,
            evict_from,
            used: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            reclaim: OnceLock::new(),
            pressure: Arc::new(Notify::new()),
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

    pub(crate) fn evict_from(&self) -> usize {
        self.evict_from
    }

    /// Notified when the use rises above the eviction threshold.
    pub(crate) fn pressure(&self) -> &Arc<Notify> {
        &self.pressure
    }

    /// Tells the pool whom to ask; the first caller wins.
    pub(crate) fn reclaim_from(&self, reclaim: Weak<dyn Reclaim>) {
        // A second store for one pool would be a bug of ours that only costs memory; the first stays.
        let _ = self.reclaim.set(reclaim);
    }

    fn fits(&self, additional: usize) -> bool {
        let fitted = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(additional).filter(|sum| *sum <= self.limit)
        });
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
        if before < self.evict_from && before.saturating_add(additional) >= self.evict_from {
            self.pressure.notify_one();
        }
    }

    /// Asks for clean segments until `additional` would fit; false if there were none.
    fn make_room(&self, additional: usize) -> bool {
        let wanted = self.used.load(Ordering::Relaxed).saturating_add(additional).saturating_sub(self.limit);
        let Some(reclaim) = self.reclaim.get().and_then(Weak::upgrade) else { return false };
        reclaim.reclaim(wanted) > 0
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
        let debt = self.used.load(Ordering::Relaxed).saturating_sub(self.limit);
        if debt > 0 {
            self.make_room(0);
            self.pressure.notify_one();
        }
    }

    fn shrink(&self, _reservation: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if self.fits(additional) || (self.make_room(additional) && self.fits(additional)) {
            return Ok(());
        }
        self.pressure.notify_one();
        let name = reservation.consumer().name();
        if name.starts_with(NEVER_REFUSED) {
            self.take(additional);
            return Ok(());
        }
        self.refused.store(additional, Ordering::Relaxed);
        Err(DataFusionError::ResourcesExhausted(format!(
            "{name} asked for {additional} bytes more than its {}, and {} of {} bytes are in use (executor.memory_limit)",
            reservation.size(),
            self.used.load(Ordering::Relaxed),
            self.limit,
        )))
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}
