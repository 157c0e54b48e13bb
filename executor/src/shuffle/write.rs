//! Writes one partition of an attempt: divides its rows into segments, keeps them in full batches, commits them. Next: `store.rs`.
//!
//! Rows are routed by DataFusion's own partitioner, so that a row goes where DataFusion's repartition would have sent it. The
//! partitioner hands out slices of one reordered batch. For few consumers the slices are kept as they are: together they hold just
//! the rows that were to be kept. For many, they are collected until a segment has a full batch of rows and then copied together,
//! so that readers are not given crumbs. Memory for a segment is taken when it has rows, never by the number of consumer partitions.

use std::fmt;
use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::Time;
use datafusion::physical_plan::repartition::BatchPartitioner;
use windrow_core::failure::Failed;
use windrow_core::ids::Incarnation;
use windrow_core::stage::Exchange;
use windrow_core::task::PartitionStat;

use super::checksum::RowChecksum;
use super::compact::Compactor;
use super::segment_file::{SegmentFileWriter, Segments};
use super::store::{Finished, OutputKey, ShuffleStore};
use crate::classify::classify;

/// Rows of a full batch: DataFusion's batch size.
const BATCH_ROWS: usize = 8192;

/// Most consumers for which slices are kept as they come: a quarter of a full batch each, on average, is large enough to work on.
const UNCOPIED_CONSUMERS_MAX: usize = 4;

/// Bytes that collected slices may pin before all of them are copied. 32 MiB: four wide batches for each of a few consumers, and
/// small beside any executor's memory.
const PINNED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The writer of one partition. Dropping it before [`Self::finish`] drops everything it wrote.
pub struct PartitionWriter {
    store: Arc<ShuffleStore>,
    incarnation: Incarnation,
    key: OutputKey,
    schema: SchemaRef,
    compactor: Compactor,
    router: Option<BatchPartitioner>,
    segments: Vec<Segment>,
    /// Counts each buffer once over the whole partition.
    counter: RecordBatchMemoryCounter,
    reservation: MemoryReservation,
    pinned_bytes: usize,
    /// What the pinned slices were when they were last copied: copying again waits until as much is new.
    copied_bytes: usize,
    rows: u64,
    checksum: Option<RowChecksum>,
    file: Option<SegmentFileWriter>,
}

/// What was written for one consumer partition.
#[derive(Debug, Default)]
struct Segment {
    /// Slices that wait for more rows.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    done: Vec<RecordBatch>,
    bytes: u64,
}

impl fmt::Debug for PartitionWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionWriter").field("key", &self.key).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl PartitionWriter {
    /// A writer for `key`'s rows of `schema`.
    ///
    /// # Errors
    /// `Internal` if the exchange and its keys do not fit, which planning has ruled out.
    pub fn new(
        store: &Arc<ShuffleStore>,
        incarnation: Incarnation,
        key: OutputKey,
        exchange: Exchange,
        hash_keys: &[Arc<dyn PhysicalExpr>],
        schema: SchemaRef,
    ) -> Result<Self, Failed> {
        let segments = exchange.segments() as usize;
        let router = match exchange {
            // One consumer takes every row: nothing to compute.
            Exchange::Hash { partitions } if partitions > 1 => Some(
                BatchPartitioner::new_hash_partitioner(hash_keys.to_vec(), segments, Time::new())
                    .map_err(|error| classify(&error))?,
            ),
            Exchange::Hash { .. } | Exchange::Merge | Exchange::Broadcast | Exchange::Result => None,
        };
        Ok(Self {
            store: Arc::clone(store),
            incarnation,
            key,
            compactor: Compactor::new(&schema),
            schema,
            router,
            segments: std::iter::repeat_with(Segment::default).take(segments).collect(),
            counter: RecordBatchMemoryCounter::new(),
            reservation: store.reservation(),
            pinned_bytes: 0,
            copied_bytes: 0,
            rows: 0,
            checksum: None,
            file: None,
        })
    }

    /// Lets the partition's measures tell whether another run made the same rows.
    pub(crate) fn with_checksum(self, checksum: RowChecksum) -> Self {
        Self { checksum: Some(checksum), ..self }
    }

    /// Adds a batch. Waits only when memory is short and rows must go to disk.
    ///
    /// # Errors
    /// A failure of the keys' expressions, or `Resources` if neither memory nor disk has room.
    pub async fn push(&mut self, batch: RecordBatch) -> Result<(), Failed> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.rows += batch.num_rows() as u64;
        if let Some(checksum) = &mut self.checksum {
            checksum.add(&batch);
        }
        let grown = if self.router.is_some() { self.route(batch) } else { self.keep(0, batch) };
        let grown = grown.map_err(|error| classify(&error))?;
        self.reserve(grown).await
    }

    /// Commits the partition: from now on it can be read.
    ///
    /// # Errors
    /// As [`Self::push`]; `Cancelled` if the executor's incarnation is over.
    pub async fn finish(mut self) -> Result<PartitionStat, Failed> {
        let mut grown = 0;
        for index in 0..self.segments.len() {
            grown += self.flush(index).map_err(|error| classify(&error))?;
        }
        self.reserve(grown).await?;
        let segment_bytes = self.segments.iter().map(|segment| segment.bytes).collect();
        let checksum = self.checksum.as_ref().and_then(RowChecksum::sum);
        let stat = PartitionStat { rows: self.rows, segment_bytes, checksum };
        if self.file.is_some() {
            self.spill().await?;
        }
        let finished = match self.file.take() {
            Some(file) => Finished::Disk(file.finish()),
            None => Finished::Memory(self.take_segments(), self.reservation),
        };
        self.store.commit(self.incarnation, self.key, finished)?;
        Ok(stat)
    }

    /// Sends each row of `batch` to its segment; returns the bytes of batches that became full.
    fn route(&mut self, batch: RecordBatch) -> Result<usize, DataFusionError> {
        let Some(mut router) = self.router.take() else { return Ok(0) };
        let mut pinned = RecordBatchMemoryCounter::new();
        let mut full = Vec::new();
        let segments = &mut self.segments;
        let routed = router.partition(batch, |index, slice| {
            pinned.count_batch(&slice);
            let Some(segment) = segments.get_mut(index) else { return Ok(()) };
            segment.pending_rows += slice.num_rows();
            segment.pending.push(slice);
            if segment.pending_rows >= BATCH_ROWS {
                full.push(index);
            }
            Ok(())
        });
        self.router = Some(router);
        routed?;
        if self.segments.len() <= UNCOPIED_CONSUMERS_MAX {
            return self.keep_slices();
        }
        self.pinned_bytes += pinned.memory_usage();
        let mut grown = 0;
        for index in full {
            grown += self.flush(index)?;
        }
        if self.pinned_bytes > PINNED_BYTES_MAX.max(2 * self.copied_bytes) {
            self.unpin()?;
        }
        Ok(grown)
    }

    /// Adds the slices of one batch as they are; returns the bytes that this added. They share their buffers, so a segment's bytes are
    /// its share of the rows.
    fn keep_slices(&mut self) -> Result<usize, DataFusionError> {
        let rows: usize = self.segments.iter().map(|segment| segment.pending_rows).sum();
        let mut bytes = 0;
        for segment in &mut self.segments {
            for slice in &mut segment.pending {
                let whole = std::mem::replace(slice, RecordBatch::new_empty(Arc::clone(&self.schema)));
                *slice = self.compactor.compact(whole)?;
                bytes += self.counter.count_batch(slice);
            }
        }
        for segment in &mut self.segments {
            segment.bytes += (bytes as u64).saturating_mul(segment.pending_rows as u64) / (rows.max(1) as u64);
            segment.pending_rows = 0;
            segment.done.append(&mut segment.pending);
        }
        Ok(bytes)
    }

    /// Copies the slices of a segment together; returns the bytes that this added.
    fn flush(&mut self, index: usize) -> Result<usize, DataFusionError> {
        let Some(segment) = self.segments.get_mut(index) else { return Ok(0) };
        if segment.pending.is_empty() {
            return Ok(0);
        }
        segment.pending_rows = 0;
        let batch = together(&self.schema, std::mem::take(&mut segment.pending))?;
        self.keep(index, batch)
    }

    /// Adds a whole batch to a segment; returns the bytes that this added.
    fn keep(&mut self, index: usize, batch: RecordBatch) -> Result<usize, DataFusionError> {
        let batch = self.compactor.compact(batch)?;
        let bytes = self.counter.count_batch(&batch);
        if let Some(segment) = self.segments.get_mut(index) {
            segment.bytes += bytes as u64;
            segment.done.push(batch);
        }
        Ok(bytes)
    }

    /// Copies what waits in each segment, so that it no longer pins the batches it was cut from.
    fn unpin(&mut self) -> Result<(), DataFusionError> {
        let mut counter = RecordBatchMemoryCounter::new();
        for segment in self.segments.iter_mut().filter(|segment| !segment.pending.is_empty()) {
            let batch = together(&self.schema, std::mem::take(&mut segment.pending))?;
            let batch = self.compactor.compact(batch)?;
            counter.count_batch(&batch);
            segment.pending.push(batch);
        }
        self.copied_bytes = counter.memory_usage();
        self.pinned_bytes = self.copied_bytes;
        Ok(())
    }

    /// Takes `grown` bytes from the pool; if they are refused, everything full goes to disk instead.
    async fn reserve(&mut self, grown: usize) -> Result<(), Failed> {
        if grown == 0 || self.reservation.try_grow(grown).is_ok() {
            return Ok(());
        }
        self.spill().await
    }

    async fn spill(&mut self) -> Result<(), Failed> {
        let segments = self.take_segments();
        let (file, dir, count) = (self.file.take(), Arc::clone(self.store.spill()), self.segments.len());
        let written = tokio::task::spawn_blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => SegmentFileWriter::create(&dir, count)?,
            };
            file.append(&segments)?;
            Ok::<_, Failed>(file)
        });
        let file = written.await.map_err(|error| Failed::internal(format!("writing segments ended early: {error}")))??;
        self.file = Some(file);
        self.reservation.free();
        // Buffers of batches on disk are gone, and their addresses may be used again.
        self.counter = RecordBatchMemoryCounter::new();
        Ok(())
    }

    fn take_segments(&mut self) -> Segments {
        self.segments.iter_mut().map(|segment| std::mem::take(&mut segment.done)).collect()
    }
}

/// Copies `slices` together. A single slice is copied too, unless it is a full batch: it pins the batch that it was cut from.
fn together(schema: &SchemaRef, mut slices: Vec<RecordBatch>) -> Result<RecordBatch, ArrowError> {
    if let [single] = slices.as_slice() {
        if single.num_rows() >= BATCH_ROWS {
            return Ok(single.clone());
        }
        // Arrow gives a lone array back as it is, and copies two.
        slices.push(single.slice(0, 0));
    }
    concat_batches(schema, &slices)
}

#[cfg(test)]
mod tests;
