//! Fourth arrow: the stage graph, what the planner makes of a query and the scheduler runs. Next: `scheduler/src/job.rs`.
//!
//! A stage is the part of a plan between exchanges. It has P partitions; each computes one output, divided into segments, one per
//! consumer partition of the exchange above it. Plans are opaque bytes here.
//!
//! ```text
//! SELECT k, count(*) FROM t GROUP BY k ORDER BY k        4 partitions of t, 3 partitions of the hash exchange
//!
//! s0  4 partitions  scan t, partial aggregate             output Hash(3): 4 x 3 segments
//! s1  3 partitions  final aggregate, sort                 input s0 Partitioned; output Single: 3 x 1 segments
//! s2  1 partition   sort-preserving merge                 input s1 Whole: its task reads all 3; output Result
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::StageId;

/// The stages of one job. A stage reads only stages before it, so the vector's order is a valid order of execution.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StageGraph {
    /// Producers first; the index is the [`StageId`].
    pub stages: Vec<Stage>,
    /// Settings that executors need to decode and run the templates, as `(key, value)`: the difference of the session's
    /// DataFusion options from the defaults.
    pub settings: Vec<(String, String)>,
}

/// The part of a plan between exchanges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its index in the graph.
    pub id: StageId,
    /// How many partitions it computes, at least one.
    pub partitions: u32,
    /// What its plan's stage input leaves read, in the order of their input index.
    pub inputs: Vec<StageInput>,
    /// How its output is divided.
    pub exchange: Exchange,
    /// What may be run again beside older siblings.
    pub repeats: Repeats,
    /// All partitions must run in one task: the plan has an operator that cannot be narrowed.
    pub whole: bool,
    /// Enough rows for every consumer: once committed partitions hold this many, the others count as committed and empty.
    pub row_limit: Option<u64>,
    /// The encoded plan, one for all slices, sent once to each executor. Opaque to the scheduler.
    pub template: Bytes,
    /// What a slice adds to the template for each partition (its files), one entry a partition, or empty where the template
    /// says it all. Opaque to the scheduler.
    pub partition_inputs: Vec<Bytes>,
    /// Bytes of source data each partition reads, one entry a partition, or empty where unknown.
    pub partition_bytes: Vec<u64>,
    /// A stage that must be complete before this one starts although it does not read it: its size decides whether this one is needed.
    pub after: Option<StageId>,
    /// What to run instead if an input turns out to be small.
    pub alternative: Option<Box<Alternative>>,
    /// The plan for people: one operator a line, indented.
    pub display: String,
}

/// Another form of a stage, with the same rows in as many partitions, for when an input turns out to be small. Decided once, when that
/// input is complete for the first time; neither form has started then, because the stage that would be spared waits for it.
///
/// ```text
/// hash join of b and p                       b is small: broadcast
///
/// b --hash--> join  <--hash-- p              b --hash--> g --broadcast--> scan of p, join
/// ```
///
/// The idea is that of Spark's adaptive query execution, which converts a sort-merge join to a broadcast join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternative {
    /// The stage whose output is measured.
    pub measured: StageId,
    /// The most bytes in memory that it may have.
    pub bytes_max: u64,
    /// The input that this form does without.
    pub spared: StageId,
    /// The stage in this form.
    pub stage: Stage,
}

/// One edge of the graph: which stage a leaf reads, and which part of it each partition needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageInput {
    /// The producing stage.
    pub stage: StageId,
    /// Which segments a partition of the consumer reads.
    pub read: InputRead,
}

/// Which segments of the producing stage a partition of the consuming stage reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputRead {
    /// Partition `p` of the consumer reads segment `p - offset` of every producer partition, if `offset <= p < offset + count`,
    /// and nothing otherwise. The offset is not zero below a union.
    Partitioned {
        /// The consumer partition that reads segment 0.
        offset: u32,
        /// How many consumer partitions read, equal to the exchange's count.
        count: u32,
    },
    /// Every task of the consumer reads segment 0 of every producer partition: merges and broadcasts.
    Whole,
    /// As `Whole`, read before the plan is decoded: at most one row, whose only column becomes a literal of the plan.
    Scalar,
}

/// How a stage's output is divided into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exchange {
    /// By hash of the keys (which the template holds) into this many segments.
    Hash {
        /// The number of consumer partitions.
        partitions: u32,
    },
    /// One segment, read by a single consumer partition.
    Merge,
    /// One segment, read by every task of the consumer, fetched once per executor.
    Broadcast,
    /// One segment, read by the client.
    Result,
}

impl Exchange {
    /// How many segments each producer partition writes.
    #[must_use]
    pub fn segments(&self) -> u32 {
        match self {
            Self::Hash { partitions } => *partitions,
            Self::Merge | Self::Broadcast | Self::Result => 1,
        }
    }
}

/// Whether a re-run of one partition gives every consumer the same rows, as the planner proved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Repeats {
    /// Any partition may be run again beside its older siblings.
    Repeatable,
    /// Rows may move between the partitions of a task: a slice commits, is lost and runs again as a whole.
    AsSlice,
    /// Another run may give other rows: losing one output voids the stage's generation and all who read it.
    Varying,
}

impl StageGraph {
    /// The stage whose output the client reads: the last one.
    #[must_use]
    pub fn result(&self) -> Option<&Stage> {
        self.stages.last()
    }

    /// Puts the other form of a stage in its place. Says whether there was one.
    pub fn take_alternative(&mut self, stage: StageId) -> bool {
        let Some(stage) = self.stages.get_mut(stage.0 as usize) else { return false };
        let Some(alternative) = stage.alternative.take() else { return false };
        *stage = alternative.stage;
        true
    }

    /// Checks what the scheduler relies on: ids are indexes, producers come first, no stage waits for itself, counts are positive and
    /// fit their edges, and exactly the last stage has [`Exchange::Result`].
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal), naming the stage: a graph that fails here is a planner's bug.
    pub fn validate(&self) -> Result<()> {
        let last = self.stages.len().checked_sub(1).ok_or_else(|| Error::internal("a stage graph without stages"))?;
        for (index, stage) in self.stages.iter().enumerate() {
            stage.validate(index, index == last, &self.stages)?;
        }
        self.check_order()
    }

    /// Every stage can start at some time: what it waits for can, too.
    fn check_order(&self) -> Result<()> {
        let mut startable = vec![false; self.stages.len()];
        loop {
            let mut changed = false;
            for (index, stage) in self.stages.iter().enumerate() {
                let ready = |id: StageId| startable.get(id.0 as usize).copied().unwrap_or(false);
                if !startable[index] && stage.waits_for().all(ready) {
                    startable[index] = true;
                    changed = true;
                }
            }
            match startable.iter().position(|startable| !startable) {
                None => return Ok(()),
                Some(stage) if !changed => return Err(Error::internal(format!("stage {stage}: it waits for itself"))),
                Some(_) => {}
            }
        }
    }
}

impl Stage {
    /// A stage without inputs, plan or name whose partitions are [`Repeats::Repeatable`]: for graphs made by hand, in tests and benches.
    #[must_use]
    pub fn new(id: StageId, partitions: u32, exchange: Exchange) -> Self {
        Self {
            id,
            partitions,
            inputs: Vec::new(),
            exchange,
            repeats: Repeats::Repeatable,
            whole: false,
            row_limit: None,
            template: Bytes::new(),
            partition_inputs: Vec::new(),
            partition_bytes: Vec::new(),
            after: None,
            alternative: None,
            display: String::new(),
        }
    }

    /// The stages that must be complete before this one starts, once for each edge.
    pub fn waits_for(&self) -> impl Iterator<Item = StageId> + '_ {
        self.inputs.iter().map(|input| input.stage).chain(self.after)
    }

    fn validate(&self, index: usize, is_last: bool, stages: &[Stage]) -> Result<()> {
        let fail = |what: &str| Err(Error::internal(format!("stage {index}: {what}")));
        if self.id.0 as usize != index {
            return fail("its id is not its index");
        }
        if self.partitions == 0 || self.exchange.segments() == 0 {
            return fail("no partitions");
        }
        if is_last != (self.exchange == Exchange::Result) {
            return fail("exactly the last stage is read by the client");
        }
        let fits = |len: usize| len == 0 || len == self.partitions as usize;
        if !fits(self.partition_inputs.len()) || !fits(self.partition_bytes.len()) {
            return fail("per-partition data does not match its partitions");
        }
        for input in &self.inputs {
            let producer = stages.get(input.stage.0 as usize).filter(|_| (input.stage.0 as usize) < index);
            let Some(producer) = producer else { return fail("an input is not an earlier stage") };
            if let InputRead::Partitioned { offset, count } = input.read
                && (count != producer.exchange.segments() || offset.saturating_add(count) > self.partitions)
            {
                return fail("an input does not fit its exchange");
            }
        }
        if let Some(Alternative { measured, spared, stage, .. }) = self.alternative.as_deref() {
            let reads = |id: &StageId| self.inputs.iter().any(|input| input.stage == *id);
            let waits = stages.get(spared.0 as usize).is_some_and(|stage| stage.after == Some(*measured));
            if !reads(measured) || !reads(spared) || !waits || stage.inputs.iter().any(|input| input.stage == *spared) {
                return fail("its alternative spares nothing");
            }
            if (stage.partitions, stage.exchange, stage.row_limit) != (self.partitions, self.exchange, self.row_limit) {
                return fail("its alternative is another stage");
            }
            if stage.alternative.is_some() || stage.after.is_some() {
                return fail("its alternative depends on more");
            }
            stage.validate(index, is_last, stages)?;
        }
        Ok(())
    }
}
