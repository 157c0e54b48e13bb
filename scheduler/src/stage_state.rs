//! One stage of a running job: what each partition is doing, and where its outputs are. `job.rs` moves partitions from state to
//! state; nothing here looks at another stage. The states of a stage as a whole are drawn at
//! [`StagePhase`](crate::StagePhase).
//!
//! ```text
//!          +--> Delayed --+  (backoff)            a partition; the first four are open: they still read their inputs
//!          |--> Alone ----|  (needs an executor for itself)
//! Queued --+              +--> Running --> Committed --> Gone      nobody needs it: released or lost
//!   ^                             |  |         |           |
//!   +-----------------------------+  |         |           |       the attempt failed or its executor is gone
//!   +--------------------------------|---------+-----------+       the output is needed (again): generation + 1
//!                                    +--> Skipped                  the row limit is reached; committed and empty
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windrow_core::failure::LostHow;
use windrow_core::ids::{AttemptId, ExecutorId, Incarnation};
use windrow_core::stage::{Repeats, Stage};
use windrow_core::task::{InputGroup, PartitionStat, Slice};

use crate::runs::Runs;
use crate::speculation::Pace;

/// Executors whose bytes are added up for locality. With more holders than this, no executor holds enough of a hash exchange to be
/// worth preferring, and 64 x 65,536 segments are 32 MiB already.
const HOLDERS_MAX: usize = 64;

/// What a partition is doing. A number is the attempt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Queued,
    Delayed,
    Alone,
    Running(u32),
    Committed(u32),
    Skipped,
    Gone,
}

impl State {
    /// Whether it still has to read its inputs.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Delayed | Self::Alone | Self::Running(_))
    }

    /// Whether a consumer can read it now.
    pub(crate) fn is_available(self) -> bool {
        matches!(self, Self::Committed(_) | Self::Skipped)
    }
}

/// One partition of a stage.
#[derive(Debug, Clone)]
pub(crate) struct Partition {
    pub(crate) state: State,
    pub(crate) generation: u32,
    /// Whether this generation has been committed.
    pub(crate) committed: bool,
    /// Whether its rows left for the client.
    pub(crate) delivered: bool,
    /// Outputs of lower generations are void: another run may have given other rows.
    pub(crate) void_before: u32,
    pub(crate) failures: u32,
    pub(crate) crashes: u32,
    pub(crate) shortages: u32,
    /// The executors that were lost while they ran it, since it last committed.
    pub(crate) deaths: Vec<(ExecutorId, LostHow)>,
    /// [`Executors::lost_anyway`](crate::executors::Executors::lost_anyway) after the first of them.
    pub(crate) lost_anyway: u64,
    /// The longest slice it may be part of.
    pub(crate) slice_max: u32,
    /// Prefer another executor.
    pub(crate) avoid: Option<ExecutorId>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Of the rows that were last committed.
    pub(crate) checksum: Option<u64>,
    /// The sum of the `voids` of the inputs that it reads when it was committed.
    pub(crate) voids: u64,
}

impl Partition {
    fn new(state: State) -> Self {
        Self {
            state,
            generation: 0,
            committed: false,
            delivered: false,
            void_before: 0,
            failures: 0,
            crashes: 0,
            shortages: 0,
            deaths: Vec::new(),
            lost_anyway: 0,
            slice_max: u32::MAX,
            avoid: None,
            rows: 0,
            bytes: 0,
            checksum: None,
            voids: 0,
        }
    }

    /// Whether these rows are others than those of its last run, though it read the same.
    pub(crate) fn contradicts(&self, stat: &PartitionStat, voids: u64) -> bool {
        let may_differ = self.checksum.is_none() || stat.checksum.is_none() || self.voids != voids;
        !may_differ && (self.checksum, self.rows) != (stat.checksum, stat.rows)
    }

    /// Whether somebody may have read a committed output of it.
    pub(crate) fn was_committed(&self) -> bool {
        self.committed || self.generation > 0
    }
}

/// What an attempt committed, while any of it is still there.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub(crate) attempt: AttemptId,
    pub(crate) executor: ExecutorId,
    pub(crate) incarnation: Incarnation,
    pub(crate) slice: Slice,
    pub(crate) committed: u32,
}

/// One stage of a running job.
#[derive(Debug)]
pub(crate) struct StageState {
    pub(crate) partitions: Vec<Partition>,
    pub(crate) queued: Runs,
    pub(crate) open: u32,
    pub(crate) running: u32,
    pub(crate) available: u32,
    pub(crate) gone: u32,
    /// Outputs commit, are lost and run again with their whole slice.
    pub(crate) by_slice: bool,
    /// The highest generation of its partitions.
    pub(crate) generation: u32,
    /// By attempt number.
    pub(crate) outputs: BTreeMap<u32, Output>,
    groups: Option<Arc<Vec<InputGroup>>>,
    /// Open partitions of consuming stages, counted once for each edge. Below a union a partition does not read every input, but its
    /// stage becomes ready only when all of them are complete, so they are needed all the same.
    pub(crate) readers_open: u64,
    /// Edges, and stages waited for without an edge, whose producer is not complete.
    pub(crate) inputs_missing: u32,
    /// The stages that read or wait for it, once for each edge.
    pub(crate) consumers: Vec<usize>,
    /// Whether it is in the job's ready set.
    pub(crate) ready: bool,
    pub(crate) touched: BTreeSet<(ExecutorId, Incarnation)>,
    /// Bytes of each segment by holder, while there are few holders.
    locality: Option<BTreeMap<ExecutorId, Vec<u64>>>,
    /// Rows of the committed partitions.
    pub(crate) rows: u64,
    /// Bytes of the committed partitions.
    pub(crate) bytes: u64,
    /// Raised when any output is lost.
    pub(crate) losses: u64,
    /// Raised when outputs that may have been read are void, because another run may give other rows.
    pub(crate) voids: u64,
    pub(crate) next_task: u32,
    pub(crate) pace: Pace,
    /// Whether a look for stragglers is due.
    pub(crate) is_watched: bool,
    pub(crate) commits: u64,
    pub(crate) lost: u64,
    pub(crate) rerun: u64,
}

impl StageState {
    /// A stage with nothing done; a stage that nobody needs has nothing to do.
    pub(crate) fn new(stage: &Stage, needed: bool) -> Self {
        let state = if needed { State::Queued } else { State::Gone };
        Self {
            partitions: vec![Partition::new(state); stage.partitions as usize],
            queued: if needed { Runs::full(stage.partitions) } else { Runs::default() },
            open: if needed { stage.partitions } else { 0 },
            running: 0,
            available: 0,
            gone: if needed { 0 } else { stage.partitions },
            by_slice: stage.whole || stage.repeats != Repeats::Repeatable,
            generation: 0,
            outputs: BTreeMap::new(),
            groups: None,
            readers_open: 0,
            inputs_missing: 0,
            consumers: Vec::new(),
            ready: false,
            touched: BTreeSet::new(),
            locality: Some(BTreeMap::new()),
            rows: 0,
            bytes: 0,
            losses: 0,
            voids: 0,
            next_task: 0,
            pace: Pace::default(),
            is_watched: false,
            commits: 0,
            lost: 0,
            rerun: 0,
        }
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// Whether consumers can read every partition.
    pub(crate) fn is_complete(&self) -> bool {
        self.available as usize == self.partitions.len()
    }

    /// Moves a partition to another state and keeps this stage's counts right. Returns the state it had.
    pub(crate) fn set(&mut self, partition: u32, state: State) -> State {
        let entry = &mut self.partitions[partition as usize];
        let old = std::mem::replace(&mut entry.state, state);
        self.open = self.open + u32::from(state.is_open()) - u32::from(old.is_open());
        self.available = self.available + u32::from(state.is_available()) - u32::from(old.is_available());
        self.gone = self.gone + u32::from(state == State::Gone) - u32::from(old == State::Gone);
        self.running = self.running + u32::from(matches!(state, State::Running(_))) - u32::from(matches!(old, State::Running(_)));
        if let State::Committed(number) = old {
            self.rows = self.rows.saturating_sub(entry.rows);
            self.bytes = self.bytes.saturating_sub(entry.bytes);
            if let Some(output) = self.outputs.get_mut(&number) {
                output.committed -= 1;
                if output.committed == 0 {
                    self.outputs.remove(&number);
                }
            }
        }
        if old.is_available() || state.is_available() {
            self.groups = None;
        }
        match (old == State::Queued, state == State::Queued) {
            (true, false) => {
                self.queued.remove(partition);
            }
            (false, true) => {
                self.queued.insert(partition);
            }
            _ => {}
        }
        old
    }

    /// Adds a committed partition's bytes to its holder's.
    pub(crate) fn add_bytes(&mut self, executor: ExecutorId, segments: u32, stat: &PartitionStat) {
        let Some(holders) = &mut self.locality else { return };
        if holders.len() >= HOLDERS_MAX && !holders.contains_key(&executor) {
            self.locality = None;
            return;
        }
        let bytes = holders.entry(executor).or_default();
        let len = stat.segment_bytes.len().min(segments as usize);
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        for (sum, more) in bytes.iter_mut().zip(&stat.segment_bytes) {
            *sum = sum.saturating_add(*more);
        }
    }

    /// Forgets the bytes of one holder, or of all.
    pub(crate) fn forget_bytes(&mut self, executor: Option<ExecutorId>) {
        match (executor, &mut self.locality) {
            (Some(executor), Some(holders)) => {
                holders.remove(&executor);
            }
            (Some(_), None) => {}
            (None, locality) => *locality = Some(BTreeMap::new()),
        }
    }

    /// Each holder's bytes of `segments`, lowest executor first; nothing where there are too many holders to tell.
    pub(crate) fn bytes_by_holder(&self, segments: std::ops::Range<usize>) -> impl Iterator<Item = (ExecutorId, u64)> + '_ {
        self.locality.iter().flatten().map(move |(&executor, bytes)| {
            let end = segments.end.min(bytes.len());
            let sum = bytes.get(segments.start.min(end)..end).unwrap_or(&[]).iter().fold(0_u64, |sum, b| sum.saturating_add(*b));
            (executor, sum)
        })
    }

    /// Where the committed partitions are, grouped by attempt, ordered by first partition. Built once until an output changes, and
    /// shared by all tasks that read it.
    pub(crate) fn groups(&mut self, address: impl Fn(ExecutorId) -> Option<String>) -> Arc<Vec<InputGroup>> {
        if let Some(groups) = &self.groups {
            return Arc::clone(groups);
        }
        let mut groups: Vec<InputGroup> = Vec::with_capacity(self.outputs.len());
        let mut index_of: BTreeMap<u32, usize> = BTreeMap::new();
        // Most partitions have the attempt of the one before.
        let mut last = None;
        for (partition, entry) in (0_u32..).zip(&self.partitions) {
            let State::Committed(number) = entry.state else { continue };
            if let Some((_, index)) = last.filter(|(before, _)| *before == number) {
                let group: &mut InputGroup = &mut groups[index];
                group.partitions.push(partition);
                continue;
            }
            let Some(output) = self.outputs.get(&number) else { continue };
            let index = *index_of.entry(number).or_insert(groups.len());
            if index == groups.len() {
                groups.push(InputGroup {
                    attempt: output.attempt,
                    executor: output.executor,
                    incarnation: output.incarnation,
                    address: address(output.executor),
                    partitions: Vec::with_capacity(output.committed as usize),
                });
            }
            groups[index].partitions.push(partition);
            last = Some((number, index));
        }
        let groups = Arc::new(groups);
        self.groups = Some(Arc::clone(&groups));
        groups
    }
}
