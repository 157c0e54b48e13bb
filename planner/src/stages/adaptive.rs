//! The other form of a stage that joins two exchanges: if one side turns out small, it is broadcast, and the other side is scanned and
//! joined in one stage. The sizes that planning knows are guesses, or missing; the scheduler decides by what was measured.
//! Next: `core/src/stage.rs`, [`Alternative`].
//!
//! ```text
//! join  partitioned                              join  left side collected
//!   StageInput b, segment by segment      or       Coalesce
//!   StageInput p, segment by segment                 StageInput g, whole        g: all segments of b, broadcast
//!                                                  what p computes
//! ```
//!
//! Only one side can be waited for. Without estimates it is the one that is made from smaller files.
//!
//! Both forms give the same rows in as many partitions, but in other ones. So nothing above the join may rely on the exchange's keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_expr::Distribution;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::union::InterleaveExec;
use windrow_core::ids::StageId;
use windrow_core::stage::{Alternative, Exchange, InputRead, Stage, StageInput};

use super::{Output, Splitter, internal, number};
use crate::exchange::{partitions, with_children};
use crate::narrow::{Narrowing, can_narrow};
use crate::physical::may_broadcast_build;
use crate::stage_input::{LeafRead, StageInputExec};

/// How many times the limit an estimate may be for the other form to be prepared. Estimates of filters and joins are often ten times
/// too high, and preparing costs no more than some planning and the order in which two stages start.
const ESTIMATE_ERROR: u64 = 16;

/// A stage's plan as it was divided: its leaves count its inputs, to which the values of scalar subqueries are added at the end.
pub(super) struct Divided {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) inputs: Vec<StageInput>,
    /// Bytes of its rows in memory, as the planner guesses.
    pub(super) bytes: Precision<usize>,
    /// Bytes of the files that its rows are made from.
    pub(super) source_bytes: u64,
}

/// A join of two exchanges.
struct Join {
    node: Arc<dyn ExecutionPlan>,
    sides: Vec<Sides>,
}

/// Which side of a join may be small, and which inputs the sides read.
#[derive(Clone, Copy)]
struct Sides {
    build: u32,
    probe: u32,
    /// The build side is the right one.
    swapped: bool,
}

/// What the planner guesses of a plan's size.
pub(super) fn estimate(plan: &Arc<dyn ExecutionPlan>) -> Precision<usize> {
    let statistics = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new());
    statistics.map_or(Precision::Absent, |statistics| statistics.total_byte_size)
}

impl Splitter<'_> {
    /// The other form of the stage that will be `id`, if it has one. Adds a stage that broadcasts the build side, which runs only if
    /// this form is taken.
    pub(super) fn alternative(
        &mut self,
        plan: &Arc<dyn ExecutionPlan>,
        inputs: &[StageInput],
        output: &Output,
    ) -> Result<Option<Box<Alternative>>> {
        let Some(join) = self.broadcast_max.and_then(|_| join(plan)) else { return Ok(None) };
        let stages = |sides: &Sides| {
            let of = |input: u32| inputs.get(input as usize).map(|input| input.stage);
            Some((*sides, of(sides.build)?, of(sides.probe)?))
        };
        let possible = join.sides.iter().filter_map(stages).filter(|(_, build, probe)| self.may_spare(*build, *probe, plan));
        let Some((sides, build, probe)) = possible.min_by_key(|(_, build, _)| self.rank(*build)) else { return Ok(None) };
        let known = self.stages.len();
        let gathered = self.gather(&join.node, sides, inputs)?;
        let (new, inputs) = self.broadcast_form(plan, &join.node, sides, inputs, &gathered)?;
        if partitions(&new) != partitions(plan) || new.schema() != plan.schema() || can_narrow(&new) == Narrowing::Whole {
            self.stages.truncate(known);
            self.divided.truncate(known);
            return Ok(None);
        }
        let stage = self.encoded(&new, inputs, output)?;
        if let Some(probe) = self.stages.get_mut(probe.0 as usize) {
            probe.after = Some(build);
        }
        let bytes_max = self.broadcast_max.unwrap_or(0);
        Ok(Some(Box::new(Alternative { measured: build, bytes_max, spared: probe, stage })))
    }

    /// Whether the stage `probe` can be left out if `build` is small, and whether it may be.
    fn may_spare(&self, build: StageId, probe: StageId, plan: &Arc<dyn ExecutionPlan>) -> bool {
        let (Some(measured), Some(divided), Some(stage)) =
            (self.divided.get(build.0 as usize), self.divided.get(probe.0 as usize), self.stages.get(probe.0 as usize))
        else {
            return false;
        };
        let limit = self.broadcast_max.unwrap_or(0);
        let guess = match measured.bytes {
            Precision::Exact(bytes) => bytes as u64 <= limit,
            Precision::Inexact(bytes) => bytes as u64 <= limit.saturating_mul(ESTIMATE_ERROR),
            Precision::Absent => true,
        };
        let has_reader = self.stages.iter().any(|reader| {
            let form = reader.alternative.iter().flat_map(|form| &form.stage.inputs);
            reader.inputs.iter().chain(form).any(|input| input.stage == probe)
        });
        let alike = partitions(&divided.plan) == partitions(plan);
        let plain = stage.alternative.is_none() && stage.after.is_none() && stage.row_limit.is_none() && !stage.whole;
        guess && alike && plain && !has_reader && !waits_for(&self.stages, build, probe)
    }

    /// The lower, the likelier a stage is small.
    fn rank(&self, stage: StageId) -> (u64, u64) {
        let Some(divided) = self.divided.get(stage.0 as usize) else { return (u64::MAX, u64::MAX) };
        (divided.bytes.get_value().map_or(u64::MAX, |bytes| *bytes as u64), divided.source_bytes)
    }

    /// A stage that broadcasts what the join's build side reads segment by segment.
    fn gather(
        &mut self,
        join: &Arc<dyn ExecutionPlan>,
        sides: Sides,
        inputs: &[StageInput],
    ) -> Result<(StageId, Arc<dyn ExecutionPlan>)> {
        let leaf = only_leaf(join.children().get(usize::from(sides.swapped)).copied())
            .map(|leaf| Arc::new(leaf.with_input(0)) as Arc<dyn ExecutionPlan>)
            .ok_or_else(|| internal("a join of exchanges without a leaf"))?;
        let input = inputs.get(sides.build as usize).cloned().ok_or_else(|| internal("a leaf without its input"))?;
        let stage = self.finish(&leaf, vec![input], Output::of(Exchange::Broadcast))?;
        Ok((stage, leaf))
    }

    /// `plan` with the probe side's plan in the place of its exchange, and the inputs that it then has.
    fn broadcast_form(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        join: &Arc<dyn ExecutionPlan>,
        sides: Sides,
        inputs: &[StageInput],
        (gathered, leaf): &(StageId, Arc<dyn ExecutionPlan>),
    ) -> Result<(Arc<dyn ExecutionPlan>, Vec<StageInput>)> {
        let probe = inputs.get(sides.probe as usize).and_then(|input| self.divided.get(input.stage.0 as usize));
        let probe = probe.ok_or_else(|| internal("a probe side that was not divided"))?;
        let mut new = vec![StageInput { stage: *gathered, read: InputRead::Whole }];
        // Where the inputs of this stage are in the new list.
        let mut places = Vec::with_capacity(inputs.len());
        for (index, input) in (0_u32..).zip(inputs) {
            places.push(number(&new));
            if index != sides.build && index != sides.probe {
                new.push(input.clone());
            }
        }
        let first = number(&new);
        new.extend(probe.inputs.iter().cloned());

        let whole: Arc<dyn ExecutionPlan> = Arc::new(StageInputExec::whole(0, leaf)?);
        let left =
            if partitions(&whole) > 1 { Arc::new(CoalescePartitionsExec::new(whole)) as Arc<dyn ExecutionPlan> } else { whole };
        let right = renumbered(Arc::clone(&probe.plan), &|input| first + input)?;
        let joined = collected(join, sides.swapped)?.transform_down(|node| {
            if !node.is::<HashJoinExec>() {
                return Ok(Transformed::no(node));
            }
            let node = with_children(node, vec![Arc::clone(&left), Arc::clone(&right)])?;
            Ok(Transformed::new(node, true, TreeNodeRecursion::Jump))
        })?;
        let plan = Arc::clone(plan).transform_down(|node| {
            if Arc::ptr_eq(&node, join) {
                return Ok(Transformed::new(Arc::clone(&joined.data), true, TreeNodeRecursion::Jump));
            }
            moved(node, &|input| places.get(input as usize).copied().unwrap_or(input))
        })?;
        Ok((plan.data, new))
    }
}

/// The join of two exchanges whose rows may come in other partitions: nothing between it and the stage's output minds.
fn join(plan: &Arc<dyn ExecutionPlan>) -> Option<Join> {
    if let Some(node) = plan.downcast_ref::<HashJoinExec>() {
        if *node.partition_mode() != PartitionMode::Partitioned || node.null_aware {
            return None;
        }
        let (left, right) = (only_leaf(Some(node.left()))?.input(), only_leaf(Some(node.right()))?.input());
        let mut sides = Vec::new();
        if may_broadcast_build(*node.join_type()) {
            sides.push(Sides { build: left, probe: right, swapped: false });
        }
        if may_broadcast_build(node.join_type().swap()) {
            sides.push(Sides { build: right, probe: left, swapped: true });
        }
        return Some(Join { node: Arc::clone(plan), sides });
    }
    if plan.is::<InterleaveExec>() {
        // It pairs partitions of equal keys without saying so.
        return None;
    }
    let required = plan.input_distribution_requirements().into_per_child();
    let mut children = plan.children().into_iter().zip(required);
    children.find_map(|(child, required)| matches!(required, Distribution::UnspecifiedDistribution).then(|| join(child))?)
}

/// The exchange that a side of a join is.
fn only_leaf(plan: Option<&Arc<dyn ExecutionPlan>>) -> Option<&StageInputExec> {
    let plan = plan?;
    if plan.is::<CooperativeExec>() {
        return only_leaf(plan.children().first().copied());
    }
    plan.downcast_ref::<StageInputExec>().filter(|leaf| matches!(leaf.read(), LeafRead::Partitioned { .. }))
}

/// Whether `stage` cannot start before `other` is complete.
fn waits_for(stages: &[Stage], stage: StageId, other: StageId) -> bool {
    let (mut seen, mut next) = (BTreeSet::from([stage]), vec![stage]);
    while let Some(stage) = next.pop() {
        let before = stages.get(stage.0 as usize).into_iter().flat_map(Stage::waits_for);
        next.extend(before.filter(|before| seen.insert(*before)));
    }
    seen.contains(&other)
}

/// The same join, which collects its left side, or what was its right side.
fn collected(node: &Arc<dyn ExecutionPlan>, swapped: bool) -> Result<Arc<dyn ExecutionPlan>> {
    let join = node.downcast_ref::<HashJoinExec>().ok_or_else(|| internal("a join that is none"))?;
    if swapped {
        return join.swap_inputs(PartitionMode::CollectLeft);
    }
    join.builder().with_partition_mode(PartitionMode::CollectLeft).recompute_properties().build_exec()
}

fn renumbered(plan: Arc<dyn ExecutionPlan>, place: &dyn Fn(u32) -> u32) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_down(|node| moved(node, place)).map(|transformed| transformed.data)
}

/// A leaf with its input's new number; any other node as it is.
fn moved(node: Arc<dyn ExecutionPlan>, place: &dyn Fn(u32) -> u32) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    Ok(match node.downcast_ref::<StageInputExec>() {
        Some(leaf) => Transformed::yes(Arc::new(leaf.with_input(place(leaf.input())))),
        None => Transformed::no(node),
    })
}
