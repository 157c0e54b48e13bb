//! Joins two sides that are on disk, piece by piece.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::compute::{filter_record_batch, is_not_null};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::{JoinType, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, HashJoinExecBuilder, PartitionMode};
use datafusion::physical_plan::metrics::{Count, SpillMetrics};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::scalar::ScalarValue;
use futures::{StreamExt, TryStreamExt, stream};

use super::build::{Collected, Collection, Grant, Size, collect};
use super::leaves::StreamsExec;
use super::split::{Part, Splitter};
use crate::spill::SpillDir;

/// Divisions of one join: three make 4096 pieces. What does not fit then is joined block by block.
const DEPTH_MAX: u32 = 3;

/// A piece is not divided again if its largest part kept more than this share of its rows: they have one key.
const SHRINKS: (usize, usize) = (3, 4);

/// What joining the pieces of one partition needs.
pub(super) struct Joiner {
    /// The join, whose children are not read.
    pub(super) join: HashJoinExec,
    pub(super) context: Arc<TaskContext>,
    pub(super) spill: Arc<SpillDir>,
    pub(super) metrics: SpillMetrics,
    /// Hash joins that were run.
    pub(super) joined: Count,
    /// Bytes that a piece may take although the pool refuses: without them nothing could go on while others hold everything.
    pub(super) least: usize,
    /// The partition, for messages.
    pub(super) partition: usize,
    /// Rows of the left side whose key is null are left out.
    pub(super) drop_null_keys: bool,
}

/// Both sides of a piece.
struct Piece {
    left: Part,
    right: Part,
    depth: u32,
}

/// Which rows a run over blocks gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// Those of the join type, of which no unmatched row of the right side is one.
    OfLeft,
    /// As `OfLeft`, with the sides changed.
    OfRight,
    /// The right side's rows without a partner, for a full join.
    UnmatchedRight,
}

/// What is still to be done.
enum Work {
    Join(Piece),
    Blocks { rows: Rows, blocks: SendableRecordBatchStream, other: Part },
}

/// The joined rows of pairs of parts.
pub(super) fn join_parts(
    joiner: Joiner,
    left: &[Part],
    right: Vec<Part>,
) -> impl futures::Stream<Item = Result<RecordBatch>> + Send + use<> {
    let pieces = left.iter().zip(right).map(|(left, right)| Work::Join(Piece { left: left.clone(), right, depth: 1 }));
    let state = State { joiner, work: pieces.collect(), current: None };
    stream::try_unfold(state, |mut state| async move {
        loop {
            if let Some(rows) = &mut state.current {
                if let Some(batch) = rows.next().await.transpose()? {
                    return Ok(Some((batch, state)));
                }
                state.current = None;
            }
            let Some(work) = state.work.pop_front() else { return Ok(None) };
            match work {
                Work::Join(piece) => state.join(piece).await?,
                Work::Blocks { rows, blocks, other } => state.join_block(rows, blocks, other).await?,
            }
        }
    })
}

struct State {
    joiner: Joiner,
    work: VecDeque<Work>,
    current: Option<SendableRecordBatchStream>,
}

impl State {
    async fn join(&mut self, piece: Piece) -> Result<()> {
        let Piece { left, right, depth } = &piece;
        if left.size.rows == 0 && right.size.rows == 0 {
            return Ok(());
        }
        if let Some(grant) = self.joiner.grant(left.size) {
            self.current = Some(self.joiner.build_left(self.joiner.rows_of_left(left)?, left.size, right.rows(), &grant)?);
        } else if let Some(grant) = self.joiner.grant(right.size) {
            self.current = Some(self.joiner.build_right(self.joiner.rows_of_left(left)?, right.rows(), right.size, &grant)?);
        } else if *depth < DEPTH_MAX {
            return self.divide(piece).await;
        } else {
            self.blocks(&piece)?;
        }
        Ok(())
    }

    /// Divides a piece, and queues its parts before everything else: their files go before others come.
    async fn divide(&mut self, piece: Piece) -> Result<()> {
        let (left_keys, right_keys) = self.joiner.keys();
        let left = self.joiner.split(&piece.left, left_keys, piece.depth).await?;
        let right = self.joiner.split(&piece.right, right_keys, piece.depth).await?;
        for (left, right) in left.into_iter().zip(right).rev() {
            let shrunk = shrunk(left.size, piece.left.size) || shrunk(right.size, piece.right.size);
            let depth = if shrunk { piece.depth + 1 } else { DEPTH_MAX };
            self.work.push_front(Work::Join(Piece { left, right, depth }));
        }
        Ok(())
    }

    /// Queues the runs that give a piece's rows block by block.
    fn blocks(&mut self, piece: &Piece) -> Result<()> {
        let left = |joiner: &Joiner| joiner.rows_of_left(&piece.left);
        let mut queue = |rows, blocks, other: &Part| self.work.push_front(Work::Blocks { rows, blocks, other: other.clone() });
        let (of_left, of_right) = (left(&self.joiner)?, piece.right.rows());
        match self.joiner.join.join_type() {
            JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                queue(Rows::OfLeft, of_left, &piece.right);
            }
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                queue(Rows::OfRight, of_right, &piece.left);
            }
            JoinType::Full => {
                queue(Rows::OfLeft, of_left, &piece.right);
                queue(Rows::UnmatchedRight, of_right, &piece.left);
            }
        }
        Ok(())
    }

    /// Joins the next block with all of the other side, and queues the blocks behind it.
    async fn join_block(&mut self, rows: Rows, mut blocks: SendableRecordBatchStream, other: Part) -> Result<()> {
        let (block, more) = match collect(&mut blocks, self.joiner.reservation(), self.joiner.least).await? {
            Collection::Whole(block) => (block, false),
            Collection::Refused(block) => (block, true),
        };
        if block.size.rows == 0 {
            return Ok(());
        }
        let Collected { batches, size, reservation } = block;
        let grant = Grant::new(reservation);
        let block: SendableRecordBatchStream =
            Box::pin(RecordBatchStreamAdapter::new(blocks.schema(), stream::iter(batches.into_iter().map(Ok))));
        self.current = Some(match rows {
            Rows::OfLeft => self.joiner.block_of_left(block, size, other.rows(), &grant)?,
            Rows::OfRight => self.joiner.build_right(self.joiner.rows_of_left(&other)?, block, size, &grant)?,
            Rows::UnmatchedRight => self.joiner.unmatched_right(self.joiner.rows_of_left(&other)?, block, size, &grant)?,
        });
        if more {
            self.work.push_front(Work::Blocks { rows, blocks, other });
        }
        Ok(())
    }
}

/// Whether a part is enough smaller than what it was divided from to be worth another division.
fn shrunk(part: Size, whole: Size) -> bool {
    part.rows.saturating_mul(SHRINKS.1) <= whole.rows.saturating_mul(SHRINKS.0)
}

impl Joiner {
    fn reservation(&self) -> MemoryReservation {
        MemoryConsumer::new(format!("GraceHashJoin[{}]", self.partition))
            .with_can_spill(true)
            .register(self.context.memory_pool())
    }

    /// Memory to build from `size`, if the pool has it.
    fn grant(&self, size: Size) -> Option<Grant> {
        let (need, reservation) = (size.need(), self.reservation());
        if need <= self.least {
            reservation.grow(need);
        } else {
            reservation.try_grow(need).ok()?;
        }
        Some(Grant::new(reservation))
    }

    fn keys(&self) -> (Vec<PhysicalExprRef>, Vec<PhysicalExprRef>) {
        self.join.on().iter().map(|(left, right)| (Arc::clone(left), Arc::clone(right))).unzip()
    }

    async fn split(&self, part: &Part, keys: Vec<PhysicalExprRef>, depth: u32) -> Result<Vec<Part>> {
        let mut rows = part.rows();
        let mut splitter = Splitter::new(keys, rows.schema(), depth, &self.spill, self.metrics.clone())?;
        splitter.add_all(&mut rows).await?;
        splitter.finish().map(|(parts, _)| parts)
    }

    /// The left side's rows of a piece.
    fn rows_of_left(&self, part: &Part) -> Result<SendableRecordBatchStream> {
        let rows = part.rows();
        if !self.drop_null_keys {
            return Ok(rows);
        }
        let [(key, _)] = self.join.on() else { return Err(internal_datafusion_err!("a null-aware join of several keys")) };
        let (key, schema) = (Arc::clone(key), rows.schema());
        let rows = rows.and_then(move |batch| std::future::ready(without_null_keys(&batch, &key)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// The join over one partition of these sides. Collects the left one.
    fn over(&self, left: SendableRecordBatchStream, right: SendableRecordBatchStream) -> Result<HashJoinExecBuilder> {
        let children: Vec<Arc<dyn ExecutionPlan>> = vec![StreamsExec::of(left), StreamsExec::of(right)];
        let builder = self.join.builder().reset_state().with_partition_mode(PartitionMode::Partitioned);
        Ok(builder.with_fetch(None).with_null_aware(false).with_new_children(children)?.recompute_properties())
    }

    fn run(&self, join: &Arc<dyn ExecutionPlan>) -> Result<SendableRecordBatchStream> {
        self.joined.add(1);
        let rows = join.execute(0, Arc::clone(&self.context))?;
        let schema = self.join.schema();
        Ok(with_schema(rows, schema))
    }

    fn build_left(
        &self,
        left: SendableRecordBatchStream,
        size: Size,
        right: SendableRecordBatchStream,
        grant: &Grant,
    ) -> Result<SendableRecordBatchStream> {
        let join = self.over(grant.hand_over(left, size), grant.end_at(right))?;
        self.run(&join.build_exec()?)
    }

    fn build_right(
        &self,
        left: SendableRecordBatchStream,
        right: SendableRecordBatchStream,
        size: Size,
        grant: &Grant,
    ) -> Result<SendableRecordBatchStream> {
        let join = self.over(grant.end_at(left), grant.hand_over(right, size))?.build()?;
        self.run(&join.swap_inputs(PartitionMode::Partitioned)?)
    }

    fn block_of_left(
        &self,
        block: SendableRecordBatchStream,
        size: Size,
        right: SendableRecordBatchStream,
        grant: &Grant,
    ) -> Result<SendableRecordBatchStream> {
        let join = self.over(grant.hand_over(block, size), grant.end_at(right))?;
        let join = match self.join.join_type() {
            JoinType::Full => join.with_type(JoinType::Left),
            _ => join,
        };
        self.run(&join.build_exec()?)
    }

    /// The rows of a block of the right side that have no partner, as a full join gives them.
    fn unmatched_right(
        &self,
        left: SendableRecordBatchStream,
        block: SendableRecordBatchStream,
        size: Size,
        grant: &Grant,
    ) -> Result<SendableRecordBatchStream> {
        let (left_schema, right_schema) = (left.schema(), block.schema());
        let join = self.over(grant.end_at(left), grant.hand_over(block, size))?;
        let join = join.with_type(JoinType::RightAnti).with_projection(None).build()?;
        let rows = join.swap_inputs(PartitionMode::Partitioned)?;
        let mut columns = Vec::new();
        for field in left_schema.fields() {
            let null: PhysicalExprRef = Arc::new(Literal::new(ScalarValue::try_from(field.data_type())?));
            columns.push(ProjectionExpr { expr: null, alias: field.name().clone() });
        }
        for (index, field) in right_schema.fields().iter().enumerate() {
            let column: PhysicalExprRef = Arc::new(Column::new(field.name(), index));
            columns.push(ProjectionExpr { expr: column, alias: field.name().clone() });
        }
        if let Some(kept) = self.join.projection.as_deref() {
            columns = kept.iter().filter_map(|&index| columns.get(index).cloned()).collect();
        }
        let padded: Arc<dyn ExecutionPlan> = Arc::new(ProjectionExec::try_new(columns, rows)?);
        self.run(&padded)
    }
}

fn without_null_keys(batch: &RecordBatch, key: &PhysicalExprRef) -> Result<RecordBatch> {
    let key = key.evaluate(batch)?.into_array(batch.num_rows())?;
    Ok(filter_record_batch(batch, &is_not_null(&key)?)?)
}

/// `rows` with the names, nullability and metadata of `schema`.
fn with_schema(rows: SendableRecordBatchStream, schema: SchemaRef) -> SendableRecordBatchStream {
    let target = Arc::clone(&schema);
    let rows = rows.map(move |batch| {
        let batch = batch?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&target), batch.columns().to_vec(), &options)?)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}
