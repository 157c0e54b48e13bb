//! Divides rows by a hash of their keys into parts of one file on disk. Next: `pieces.rs`.

use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::compute::{BatchCoalescer, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::internal_err;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_plan::metrics::SpillMetrics;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use windrow_core::failure::{Failed, Failure, LostCause, TransientKind};

use super::build::Size;
use crate::shuffle::segment_file::{SegmentFile, SegmentFileWriter, Segments};
use crate::spill::SpillDir;

/// Parts that rows are divided into at a time: one division makes a join fit into a sixteenth, two into a 256th.
pub(super) const PARTS: usize = 16;

/// Bytes of rows of one part that are put together before they are written.
const TOGETHER_BYTES: usize = 128 * 1024;

/// Rows that are put together, whatever their size: enough for compression to find something, and DataFusion's batch.
const TOGETHER_ROWS: (usize, usize) = (512, 8192);

/// Bytes that are written at a time. With what is put together, a division holds twice this.
const ROUND_BYTES: usize = PARTS * TOGETHER_BYTES;

/// Batches that are read ahead of the join.
const READ_AHEAD: usize = 2;

/// Any number that DataFusion does not use for its own exchanges and joins; the depth is added.
const SEED: u64 = 0x6772_6163_6520_6a6f;

/// Rows on disk.
#[derive(Debug, Clone)]
pub(super) struct Part {
    file: Arc<SegmentFile>,
    index: u32,
    schema: SchemaRef,
    pub(super) size: Size,
}

impl Part {
    /// Its rows, read batch by batch.
    pub(super) fn rows(&self) -> SendableRecordBatchStream {
        let (file, index) = (Arc::clone(&self.file), self.index);
        let read = move |batch| {
            let file = Arc::clone(&file);
            let read = tokio::task::spawn_blocking(move || file.read(index, batch));
            async move {
                let batch = read.await.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?;
                batch.map_err(|cause| external(unreadable(cause)))
            }
        };
        let rows = stream::iter(0..self.file.batches(index)).map(read).buffered(READ_AHEAD);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

fn unreadable(cause: LostCause) -> Failed {
    match cause {
        LostCause::Corrupt => Failed::new(Failure::Corrupt, "a part of a join on disk is damaged"),
        _ => {
            let failure = Failure::Transient { what: TransientKind::Io, retry_after_ms: None };
            Failed::new(failure, "a part of a join cannot be read from disk")
        }
    }
}

/// What a division has met.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Met {
    pub(super) rows: bool,
    pub(super) null_keys: bool,
}

/// Divides the rows of one side.
pub(super) struct Splitter {
    keys: Vec<PhysicalExprRef>,
    hash: RandomState,
    hashes: Vec<u64>,
    met: Met,
    schema: SchemaRef,
    together: Vec<BatchCoalescer>,
    sizes: Vec<Size>,
    round: Segments,
    round_bytes: usize,
    file: SegmentFileWriter,
    metrics: SpillMetrics,
}

impl Splitter {
    /// Divides rows of `schema` by `keys`, each depth by another hash.
    pub(super) fn new(
        keys: Vec<PhysicalExprRef>,
        schema: SchemaRef,
        depth: u32,
        spill: &Arc<SpillDir>,
        metrics: SpillMetrics,
    ) -> Result<Self> {
        let file = SegmentFileWriter::create(spill, PARTS).map_err(external)?;
        metrics.spill_file_count.add(1);
        Ok(Self {
            keys,
            hash: RandomState::with_seed(SEED.wrapping_add(u64::from(depth).wrapping_mul(0x9e37_79b9_7f4a_7c15))),
            hashes: Vec::new(),
            met: Met::default(),
            schema,
            together: Vec::new(),
            sizes: vec![Size::default(); PARTS],
            round: vec![Vec::new(); PARTS],
            round_bytes: 0,
            file,
            metrics,
        })
    }

    /// Divides all of `rows`.
    pub(super) async fn add_all(&mut self, rows: &mut SendableRecordBatchStream) -> Result<()> {
        while let Some(batch) = rows.next().await.transpose()? {
            self.add(batch)?;
        }
        Ok(())
    }

    /// Divides one batch. Writes to disk, and blocks for as long.
    pub(super) fn add(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        // Batches of a union may differ in what they say of nulls.
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec())?;
        self.met.rows = true;
        if self.together.is_empty() {
            let row_bytes = (get_record_batch_memory_size(&batch) / batch.num_rows()).max(1);
            let rows = (TOGETHER_BYTES / row_bytes).clamp(TOGETHER_ROWS.0, TOGETHER_ROWS.1);
            self.together = std::iter::repeat_with(|| BatchCoalescer::new(batch.schema(), rows)).take(PARTS).collect();
        }
        let divided = self.divide(&batch)?;
        for (together, rows) in self.together.iter_mut().zip(divided) {
            if !rows.is_empty() {
                together.push_batch(take_record_batch(&batch, &UInt32Array::from(rows))?)?;
            }
        }
        self.take_full();
        if self.round_bytes >= ROUND_BYTES { self.write() } else { Ok(()) }
    }

    /// The parts, and what was met on the way.
    pub(super) fn finish(mut self) -> Result<(Vec<Part>, Met)> {
        for together in &mut self.together {
            together.finish_buffered_batch()?;
        }
        self.take_full();
        self.write()?;
        let file = Arc::new(self.file.finish());
        self.metrics.spilled_bytes.add(usize::try_from(file.bytes()).unwrap_or(usize::MAX));
        let part = |(index, size)| Part { file: Arc::clone(&file), index, schema: Arc::clone(&self.schema), size };
        Ok(((0..).zip(self.sizes).map(part).collect(), self.met))
    }

    /// Which rows of `batch` go to which part.
    fn divide(&mut self, batch: &RecordBatch) -> Result<Vec<Vec<u32>>> {
        let mut keys = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            let key = key.evaluate(batch)?.into_array(batch.num_rows())?;
            self.met.null_keys |= key.logical_null_count() > 0;
            keys.push(key);
        }
        self.hashes.clear();
        self.hashes.resize(batch.num_rows(), 0);
        create_hashes(&keys, &self.hash, &mut self.hashes)?;
        let mut rows = vec![Vec::new(); PARTS];
        for (row, hash) in (0_u32..).zip(&self.hashes) {
            // The upper bits, multiplied down: an even division without a modulus.
            let part = (u128::from(*hash) * PARTS as u128) >> u64::BITS;
            let part = usize::try_from(part).ok().and_then(|part| rows.get_mut(part));
            let Some(part) = part else { return internal_err!("a hash beyond the last part") };
            part.push(row);
        }
        Ok(rows)
    }

    fn take_full(&mut self) {
        for ((together, round), size) in self.together.iter_mut().zip(&mut self.round).zip(&mut self.sizes) {
            while let Some(batch) = together.next_completed_batch() {
                let bytes = get_record_batch_memory_size(&batch);
                size.rows += batch.num_rows();
                size.bytes += bytes;
                self.round_bytes += bytes;
                self.metrics.spilled_rows.add(batch.num_rows());
                round.push(batch);
            }
        }
    }

    fn write(&mut self) -> Result<()> {
        self.file.append(&self.round).map_err(external)?;
        self.round.iter_mut().for_each(Vec::clear);
        self.round_bytes = 0;
        Ok(())
    }
}

fn external(failed: Failed) -> DataFusionError {
    DataFusionError::External(Box::new(failed))
}
