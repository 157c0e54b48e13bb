//! Fifth arrow: what the scheduler hands to an executor and what comes back. Next: `executor/src/attempt.rs`.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::failure::Failed;
use crate::ids::{AttemptId, ExecutorId, Incarnation, StageId};
use crate::stage::{Exchange, InputRead};

/// Contiguous partitions `start..end` of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slice {
    /// The first partition.
    pub start: u32,
    /// One past the last partition; greater than `start`.
    pub end: u32,
}

impl Slice {
    /// The number of partitions. Its attempt occupies a slot for each, or fewer where they share.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it has no partition; never true of a slice that the scheduler made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// The partitions, in order.
    pub fn iter(&self) -> std::ops::Range<u32> {
        self.start..self.end
    }

    /// Whether `partition` is one of them.
    #[must_use]
    pub fn contains(&self, partition: u32) -> bool {
        self.start <= partition && partition < self.end
    }
}

/// Everything an executor needs to run one attempt, besides the stage's template, which it is sent once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Which attempt this is.
    pub attempt: AttemptId,
    /// The partitions to compute; all run at once.
    pub slice: Slice,
    /// The stage's partition count.
    pub partitions: u32,
    /// How the output is divided.
    pub exchange: Exchange,
    /// Where each input's committed outputs are, in the order of the stage's inputs: the attempt reads this and nothing else.
    pub inputs: Vec<InputVector>,
    /// What the slice adds to the template, one entry a partition of the slice, or empty.
    pub partition_inputs: Vec<Bytes>,
}

/// The fixed input of one attempt for one stage input: for every producer partition that holds rows, who committed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputVector {
    /// Which segments the partitions of the slice read.
    pub read: InputRead,
    /// Committed outputs, grouped by the attempt that made them, ordered by first partition. Partitions that a row limit made
    /// unnecessary are in no group. Shared between all tasks that read the same outputs.
    pub groups: Arc<Vec<InputGroup>>,
}

/// Producer partitions that one attempt committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputGroup {
    /// The attempt that made them; a store refuses to serve any other.
    pub attempt: AttemptId,
    /// Where they are.
    pub executor: ExecutorId,
    /// The incarnation of the executor that holds them.
    pub incarnation: Incarnation,
    /// The executor's shuffle address as it registered it; `None` in process.
    pub address: Option<String>,
    /// The partitions, ascending.
    pub partitions: Vec<u32>,
}

/// Names the output of one producer partition for one consumer partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentKey {
    /// The attempt that wrote it: carries job, stage and generation.
    pub attempt: AttemptId,
    /// The producer partition.
    pub partition: u32,
    /// The consumer partition.
    pub segment: u32,
}

/// What one committed partition measured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartitionStat {
    /// Rows written.
    pub rows: u64,
    /// Bytes in memory of each segment, one entry a consumer partition; its sum is the partition's output.
    pub segment_bytes: Vec<u64>,
    /// A sum over hashes of its rows, whatever their order: equal in every run of a partition whose stage is
    /// [`Repeatable`](crate::stage::Repeats::Repeatable). `None` where runs may differ without harm, as in the partial states of an
    /// aggregate.
    pub checksum: Option<u64>,
}

impl PartitionStat {
    /// Bytes over all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segment_bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every partition of the slice was reported done before.
    Succeeded,
    /// It ended early; partitions reported done before stay committed, unless the stage commits by slice.
    Failed(Failed),
}

/// What an attempt measured, for EXPLAIN ANALYZE and the dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskMetrics {
    /// DataFusion's metrics per operator of the stage's plan in pre-order, as `(operator index, metric name, value)`; times are
    /// nanoseconds, sizes bytes.
    pub operators: Vec<(u32, String, u64)>,
    /// Rows written to the shuffle store.
    pub rows: u64,
    /// Bytes written to the shuffle store.
    pub shuffle_bytes: u64,
    /// Bytes written to disk by operators.
    pub spill_bytes: u64,
    /// Wall time of the attempt in microseconds.
    pub micros: u64,
}

/// A stage of a job, for messages that concern the whole of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobStage {
    /// The job.
    pub job: crate::ids::JobId,
    /// The stage.
    pub stage: StageId,
}
