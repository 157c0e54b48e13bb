//! Watches what of the process is really in memory: the second line behind the pool, which counts only what it is told. Next: `spill.rs`.
//!
//! ```text
//! resident, of the bound (the limit and a fifth)        what happens
//! above 64 %                                            the allocator gives back freed memory, and keeps little of it for a minute
//! in use, but not by those who asked                    leaves the pool's capacity
//! above 80 %                                            no new slice starts beside others
//! above 95 %                                            the query that holds most fails with the figures, never the process
//! ```

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use datafusion::execution::memory_pool::MemoryPool;
use tokio::sync::Notify;
use windrow_core::{Error, ErrorKind, Result};

use crate::memory::ExecutorPool;
use crate::query_memory::Queries;

/// How often it looks. A query takes some megabytes in this time.
const INTERVAL: Duration = Duration::from_millis(20);

/// What the process may exceed the limit by, as a part of it.
const ABOVE_PART: usize = 5;

/// A limit below this counts without the program, which needs some of that itself.
const TINY: usize = 200 << 20;

/// Shares of the bound, in percent.
const GIVE_BACK: usize = 64;
const NO_NEW: usize = 80;
const END_LARGEST: usize = 95;

/// The most of the limit that is given to those who ask, and the least, as parts of it.
const CAPACITY_MAX: (usize, usize) = (7, 8);
const CAPACITY_MIN: (usize, usize) = (1, 8);

/// How the process's allocator gives freed memory back to the system.
static GIVE_BACK_FREED: OnceLock<fn(bool)> = OnceLock::new();

/// The limits of all executors in this process: each has its share of what is resident.
static LIMITS: AtomicUsize = AtomicUsize::new(0);

/// Says how the process's allocator gives freed memory back to the system. It is called from a thread of each executor: with `true`
/// whenever memory is short, to give back what is kept and to keep little from then on; with `false` a minute after that, when it may
/// keep again what it likes. A program with an allocator that keeps freed memory calls this before it starts an executor. The first
/// call counts.
pub fn give_back_freed_memory_with(give_back: fn(bool)) {
    let _ = GIVE_BACK_FREED.set(give_back);
}

/// A thread that watches; ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    limit: usize,
    is_short: Arc<AtomicBool>,
    /// Notified when memory is no longer short.
    pub(crate) eased: Arc<Notify>,
    _stop: SyncSender<()>,
}

impl Watch {
    pub(crate) fn start(name: &str, pool: &Arc<ExecutorPool>, queries: &Arc<Queries>) -> Result<Self> {
        let (stop, stopped) = sync_channel(1);
        let (is_short, eased) = (Arc::default(), Arc::<Notify>::default());
        let limit = pool.limit();
        LIMITS.fetch_add(limit, Ordering::Relaxed);
        let watcher = Watcher {
            pool: Arc::clone(pool),
            queries: Arc::clone(queries),
            bound: bound(limit, resident().unwrap_or(0)),
            is_short: Arc::clone(&is_short),
            eased: Arc::clone(&eased),
            ended: 0,
            keep_little: 0,
        };
        watcher.adapt(0);
        let thread = std::thread::Builder::new().name(format!("watch-{name}")).spawn(move || watcher.run(&stopped));
        thread.map_err(|source| {
            Error::new(ErrorKind::ResourcesExhausted, format!("cannot start a thread: {source}")).with_source(source)
        })?;
        Ok(Self { limit, is_short, eased, _stop: stop })
    }

    /// Whether no slice should start beside others.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        LIMITS.fetch_sub(self.limit, Ordering::Relaxed);
    }
}

struct Watcher {
    pool: Arc<ExecutorPool>,
    queries: Arc<Queries>,
    /// Most bytes that may be resident.
    bound: usize,
    is_short: Arc<AtomicBool>,
    eased: Arc<Notify>,
    /// Looks that are left until another query may be ended: one takes a moment to give its memory back.
    ended: u32,
    /// Looks that are left until the allocator may keep freed memory again.
    keep_little: u32,
}

/// Looks until another query may be ended: a second.
const PAUSE: u32 = 50;

/// Looks until the allocator may keep freed memory again: a minute.
const KEEP_LITTLE: u32 = 3000;

/// Most bytes that may be resident of a process with one executor of `limit` bytes, which has `resident` bytes at its start.
fn bound(limit: usize, resident: usize) -> usize {
    let above = limit / ABOVE_PART;
    limit.saturating_add(if limit < TINY { above.max(TINY).saturating_add(resident) } else { above })
}

impl Watcher {
    fn run(mut self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            if let Some(resident) = resident() {
                self.look(resident);
            }
        }
    }

    fn look(&mut self, mut resident: usize) {
        let of_bound = |percent: usize| self.bound / 100 * percent;
        if let Some(give_back) = GIVE_BACK_FREED.get() {
            if self.share(resident) > of_bound(GIVE_BACK) {
                self.keep_little = KEEP_LITTLE;
                give_back(true);
                resident = self::resident().unwrap_or(resident);
            } else if self.keep_little > 0 {
                self.keep_little -= 1;
                if self.keep_little == 0 {
                    give_back(false);
                }
            }
        }
        let resident = self.share(resident);
        self.adapt(resident);
        let busy = self.pool.reserved().saturating_sub(self.pool.held_by_store());
        let is_short = resident > of_bound(NO_NEW) || busy > self.pool.capacity() / 100 * NO_NEW;
        if self.is_short.swap(is_short, Ordering::Relaxed) && !is_short {
            self.eased.notify_waiters();
        }
        self.ended = self.ended.saturating_sub(1);
        if resident > of_bound(END_LARGEST)
            && self.ended == 0
            && let Some((job, held)) = self.queries.end_largest(resident, self.pool.limit())
        {
            tracing::warn!(%job, held, resident, limit = self.pool.limit(), "ended the query that holds most: memory is short");
            self.ended = PAUSE;
        }
    }

    /// This executor's share of what is resident.
    fn share(&self, resident: usize) -> usize {
        let limits = LIMITS.load(Ordering::Relaxed).max(1);
        let share = resident as u128 * self.pool.limit() as u128 / limits as u128;
        usize::try_from(share).unwrap_or(usize::MAX).min(resident)
    }

    /// Leaves to those who ask what the others do not use.
    fn adapt(&self, resident: usize) {
        let limit = self.pool.limit();
        let others = resident.saturating_sub(self.pool.reserved());
        let target = self.bound / 100 * NO_NEW;
        let (least, most) = (limit / CAPACITY_MIN.1 * CAPACITY_MIN.0, limit / CAPACITY_MAX.1 * CAPACITY_MAX.0);
        self.pool.set_capacity(target.saturating_sub(others).clamp(least, most));
    }
}

/// Bytes of this process that are in memory; `None` where the system does not say.
fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}
