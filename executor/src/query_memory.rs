//! What one query holds of the executor's pool, and what it may: operators of an attempt ask here. Next: `watch.rs`.
//!
//! A query alone may have the pool, but for an eighth. That eighth is for those who hold less than their share, which is the pool
//! divided by the queries that hold something, and one more: so a small query that comes finds room beside a large one, and a query
//! that holds more than its share is refused before one that holds less. A query that holds nothing counts for nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};
use parking_lot::Mutex;
use windrow_core::failure::{Failed, Failure, Resource};
use windrow_core::ids::JobId;

use crate::memory::ExecutorPool;

/// The part of the pool that is kept for queries below their share.
const SPARE_PART: usize = 8;

/// The queries of one executor that have an attempt.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    by_job: Mutex<BTreeMap<JobId, Weak<QueryUse>>>,
    /// How many hold memory.
    holding: Arc<AtomicUsize>,
}

/// What a query holds, shared by its attempts.
#[derive(Debug)]
pub(crate) struct QueryUse {
    job: JobId,
    /// `windrow.query.memory_limit`; 0 is none.
    limit: usize,
    held: AtomicUsize,
    holding: Arc<AtomicUsize>,
    /// Why its attempts must end, once they must.
    ended: tokio::sync::watch::Sender<Option<Failed>>,
}

impl Queries {
    /// The use of `job`, made at its first attempt.
    pub(crate) fn of(&self, job: JobId, limit: usize) -> Arc<QueryUse> {
        let mut by_job = self.by_job.lock();
        by_job.retain(|_, query| query.strong_count() > 0);
        if let Some(query) = by_job.get(&job).and_then(Weak::upgrade) {
            return query;
        }
        let (held, holding) = (AtomicUsize::new(0), Arc::clone(&self.holding));
        let query = Arc::new(QueryUse { job, limit, held, holding, ended: tokio::sync::watch::Sender::new(None) });
        by_job.insert(job, Arc::downgrade(&query));
        query
    }

    /// Ends the attempts of the query that holds most, with the figures; its name and what it held.
    pub(crate) fn end_largest(&self, resident: usize, limit: usize) -> Option<(JobId, usize)> {
        let running = self.by_job.lock();
        let largest = running.values().filter_map(Weak::upgrade).filter(|query| query.ended.borrow().is_none());
        let query = largest.max_by_key(|query| query.held())?;
        let failure = Failure::Resources { what: Resource::Memory, asked: query.held() as u64, limit: limit as u64 };
        let message = format!(
            "{} holds {} bytes, the most of all queries, while {resident} bytes of the process are resident; executor.memory_limit is \
             {limit} bytes",
            query.job,
            query.held()
        );
        query.ended.send_replace(Some(Failed::new(failure, message)));
        Some((query.job, query.held()))
    }
}

impl QueryUse {
    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Resolves when its attempts must end.
    pub(crate) async fn ended(&self) -> Failed {
        let mut ended = self.ended.subscribe();
        let failed = ended.wait_for(Option::is_some).await.map(|failed| failed.clone());
        match failed {
            Ok(failed) => failed.unwrap_or_else(|| Failed::internal("a query that ended without a reason")),
            // The sender is in `self`.
            Err(_) => std::future::pending().await,
        }
    }

    fn add(&self, bytes: usize) {
        if bytes > 0 && self.held.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.holding.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn subtract(&self, bytes: usize) {
        if bytes > 0 && self.held.fetch_sub(bytes, Ordering::Relaxed) == bytes {
            self.holding.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What must be left over if this query takes `additional` of `capacity` bytes.
    fn spare(&self, additional: usize, capacity: usize) -> usize {
        let holding = self.holding.load(Ordering::Relaxed) + usize::from(self.held() == 0);
        let share = capacity / (holding + 1);
        if self.held().saturating_add(additional) > share { capacity / SPARE_PART } else { 0 }
    }
}

/// The pool as the operators of one attempt see it.
pub(crate) struct QueryPool {
    pool: Arc<ExecutorPool>,
    query: Arc<QueryUse>,
}

impl QueryPool {
    pub(crate) fn new(pool: Arc<ExecutorPool>, query: Arc<QueryUse>) -> Self {
        Self { pool, query }
    }
}

impl fmt::Debug for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryPool").field("query", &self.query).finish_non_exhaustive()
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} holds {} bytes of the {}", self.query.job, self.query.held(), self.pool)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.pool.grow(reservation, additional);
        self.query.add(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.query.subtract(shrink);
        self.pool.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let (held, limit) = (self.query.held(), self.query.limit);
        if limit > 0 && held.saturating_add(additional) > limit && !self.pool.never_refuses(reservation) {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} asked for {additional} bytes, and its query holds {held} of the {limit} bytes of windrow.query.memory_limit",
                reservation.consumer().name()
            )));
        }
        self.pool.try_take(reservation, additional, self.query.spare(additional, self.pool.capacity()))?;
        self.query.add(additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.pool.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        match self.query.limit {
            0 => self.pool.memory_limit(),
            limit => MemoryLimit::Finite(limit.min(self.pool.capacity())),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    fn query(pool: &Arc<ExecutorPool>, queries: &Queries, job: u64, limit: usize) -> MemoryReservation {
        let query: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(Arc::clone(pool), queries.of(JobId(job), limit)));
        MemoryConsumer::new(format!("sort of {job}")).with_can_spill(true).register(&query)
    }

    #[test]
    fn a_query_below_its_share_finds_room_beside_one_that_took_all_it_may() {
        let (pool, queries) = (Arc::new(ExecutorPool::new(8000, 60)), Queries::default());
        let large = query(&pool, &queries, 1, 0);
        large.try_grow(7000).unwrap();
        large.try_grow(1).unwrap_err();
        let small = query(&pool, &queries, 2, 0);
        small.try_grow(900).unwrap();
        large.try_grow(1).unwrap_err();
        small.try_grow(100).unwrap();
        small.try_grow(1).unwrap_err();
        // The large one spills: it may come back to all but the eighth and what the other holds.
        large.free();
        large.try_grow(6000).unwrap();
        large.try_grow(1).unwrap_err();
        assert_eq!(pool.reserved(), 7000);
        drop((large, small));
        assert_eq!((pool.reserved(), queries.holding.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn idle_queries_cost_nothing() {
        let (pool, queries) = (Arc::new(ExecutorPool::new(8000, 60)), Queries::default());
        let idle: Vec<_> = (2..100).map(|job| query(&pool, &queries, job, 0)).collect();
        let one = query(&pool, &queries, 1, 0);
        one.try_grow(4000).unwrap();
        one.try_grow(3000).unwrap();
        drop(idle);
    }

    #[test]
    fn the_limit_of_a_query_is_refused_with_its_setting_and_holds_over_all_its_attempts() {
        let (pool, queries) = (Arc::new(ExecutorPool::new(8000, 60)), Queries::default());
        let (first, second) = (query(&pool, &queries, 1, 1000), query(&pool, &queries, 1, 1000));
        first.try_grow(700).unwrap();
        let error = second.try_grow(301).unwrap_err().to_string();
        for part in ["sort of 1", "301 bytes", "holds 700 of the 1000", "windrow.query.memory_limit"] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        second.try_grow(300).unwrap();
    }

    #[tokio::test]
    async fn the_query_that_holds_most_is_ended_with_figures() {
        let (pool, queries) = (Arc::new(ExecutorPool::new(8000, 60)), Queries::default());
        let (small, large) = (queries.of(JobId(1), 0), queries.of(JobId(2), 0));
        let (_one, two) = (query(&pool, &queries, 1, 0), query(&pool, &queries, 2, 0));
        two.try_grow(10).unwrap();
        assert_eq!(queries.end_largest(990, 900), Some((JobId(2), 10)));
        let failed = large.ended().await;
        assert_eq!(failed.failure, Failure::Resources { what: Resource::Memory, asked: 10, limit: 900 });
        assert!(failed.message.contains("990 bytes"), "{failed}");
        assert!(small.ended.borrow().is_none());
    }
}
