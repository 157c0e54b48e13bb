//! Collects the build side of a join while it fits, and says what a build side costs. Next: `leaves.rs`.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::utils::memory::{RecordBatchMemoryCounter, estimate_memory_size};
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

/// What a build side holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) rows: usize,
    /// In memory.
    pub(super) bytes: usize,
}

impl Size {
    /// Bytes of the hash table over it: DataFusion's estimate, and a number a row for the chains.
    fn table(self) -> usize {
        let table = estimate_memory_size::<(u32, u64)>(self.rows, 0).unwrap_or(usize::MAX);
        table.saturating_add(self.rows.saturating_mul(size_of::<u32>()))
    }

    /// Bytes that a join needs to build from it: the batches, the one batch they are copied into, and the table.
    pub(super) fn need(self) -> usize {
        self.bytes.saturating_mul(2).saturating_add(self.table())
    }
}

/// Memory that was taken for a build, until the join that builds from it has taken its own: as each batch is handed over, then the
/// table, and when the first probe row is asked for the copy is over too.
#[derive(Debug, Clone, Default)]
pub(super) struct Grant(Arc<Mutex<Option<MemoryReservation>>>);

impl Grant {
    pub(super) fn new(reservation: MemoryReservation) -> Self {
        Self(Arc::new(Mutex::new(Some(reservation))))
    }

    fn shrink(&self, bytes: usize) {
        if let Some(reservation) = self.0.lock().as_ref() {
            reservation.resize(reservation.size().saturating_sub(bytes));
        }
    }

    /// Gives back what is left.
    pub(super) fn end(&self) {
        drop(self.0.lock().take());
    }

    /// `batches` of `size`, each of which leaves the grant as it is handed over.
    pub(super) fn hand_over(&self, batches: SendableRecordBatchStream, size: Size) -> SendableRecordBatchStream {
        let schema = batches.schema();
        let (each, last) = (self.clone(), self.clone());
        let mut counter = RecordBatchMemoryCounter::new();
        let batches = batches.inspect_ok(move |batch| each.shrink(counter.count_batch(batch)));
        let table = stream::once(async move { last.shrink(size.table()) }).filter_map(|()| async { None });
        let batches = batches.chain(table);
        Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema, batches))
    }

    /// `rows`, which end the grant when they are first asked for.
    pub(super) fn end_at(&self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let schema = rows.schema();
        let grant = self.clone();
        let ended = stream::once(async move { grant.end() }).filter_map(|()| async { None });
        Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema, ended.chain(rows)))
    }
}

/// Batches in memory, with the memory that a join over them needs.
pub(super) struct Collected {
    pub(super) batches: Vec<RecordBatch>,
    pub(super) size: Size,
    pub(super) reservation: MemoryReservation,
}

/// What became of a build side.
pub(super) enum Collection {
    /// All of it is here.
    Whole(Collected),
    /// The pool refused: what is here, and the batch that no longer fitted is the last of it.
    Refused(Collected),
}

/// Collects `rows` while `reservation` can hold a join over them, but `least` bytes in any case. Can be called again for what is left
/// of `rows`.
pub(super) async fn collect(
    rows: &mut SendableRecordBatchStream,
    reservation: MemoryReservation,
    least: usize,
) -> Result<Collection> {
    let mut counter = RecordBatchMemoryCounter::new();
    let mut collected = Collected { batches: Vec::new(), size: Size::default(), reservation };
    while let Some(batch) = rows.next().await.transpose()? {
        if batch.num_rows() == 0 {
            continue;
        }
        collected.size.rows += batch.num_rows();
        collected.size.bytes += counter.count_batch(&batch);
        collected.batches.push(batch);
        let need = collected.size.need();
        if need <= least {
            collected.reservation.resize(need);
        } else if collected.reservation.try_resize(need).is_err() {
            return Ok(Collection::Refused(collected));
        }
    }
    Ok(Collection::Whole(collected))
}
