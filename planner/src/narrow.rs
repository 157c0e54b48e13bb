//! Narrowing: cuts a stage's plan to the partitions of one slice, by a rule for each operator. Called by `task_plan.rs`.
//!
//! A narrowed plan has exactly the slice's partitions, so that whatever DataFusion shares inside an operator (a build table, a queue
//! of files, a barrier of dynamic filters) is shared by partitions that run together. An operator without a rule is never passed
//! through: its stage runs whole. The same rules tell the planner where a leaf's partitions lie within the stage ([`leaves`]).
//!
//! ```text
//! UnionExec                     5 partitions, slice 2..4
//!   scan a   partitions 0..3      keeps its partition 2
//!   join     partitions 3..5      keeps its partition 0
//!     left   1 partition            whole: collected once per task
//!     scan b 2 partitions           keeps its partition 0
//! ```

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, JoinType, internal_err};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::async_func::AsyncFuncExec;
use datafusion::physical_plan::buffer::BufferExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode, SortMergeJoinExec};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use windrow_core::{Error, Result};

use crate::python::PythonMapExec;
use crate::runtime_filter::apply::RuntimeFilterExec;
use crate::runtime_filter::build::RuntimeFilterBuildExec;
use crate::scan::narrow_source;
use crate::stage_input::StageInputExec;
use crate::write::WriteExec;

/// Whether the partitions of a stage may be computed by different tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Narrowing {
    /// Any contiguous partitions may form a task.
    PerPartition,
    /// One task computes all partitions: [`windrow_core::stage::Stage::whole`].
    Whole,
}

/// Where the partitions of a leaf lie within the partitions of its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Its partition `i` is needed by the stage's partition `offset + i` alone.
    Sliced {
        /// The stage's partition that needs its partition 0.
        offset: u32,
        /// How many partitions the leaf has.
        count: u32,
    },
    /// Every task needs all of it: it is below a merge, or is the collected side of a join.
    Whole,
}

/// A leaf of a stage's plan and its place.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The scan, the [`StageInputExec`], or whatever else has no children.
    pub plan: Arc<dyn ExecutionPlan>,
    /// Its place.
    pub placement: Placement,
}

/// Whether `plan` can be narrowed to any of its partitions; otherwise, the stage is [`Narrowing::Whole`].
#[must_use]
pub fn can_narrow(plan: &Arc<dyn ExecutionPlan>) -> Narrowing {
    if partitions(plan) <= 1 || refusal(plan).is_none() { Narrowing::PerPartition } else { Narrowing::Whole }
}

/// Why `plan` cannot be narrowed, naming the operator, or `None` if it can.
#[must_use]
pub fn refusal(plan: &Arc<dyn ExecutionPlan>) -> Option<String> {
    match rule(plan) {
        Rule::Refused(why) | Rule::RightRefused(why) => Some(format!("{} {why}", plan.name())),
        Rule::Leaf | Rule::One => None,
        Rule::Right => plan.children().get(1).and_then(|right| refusal(right)),
        Rule::Each | Rule::Union => plan.children().into_iter().find_map(refusal),
    }
}

/// The leaves of a stage's plan with their places, in pre-order.
#[must_use]
pub fn leaves(plan: &Arc<dyn ExecutionPlan>) -> Vec<Leaf> {
    let mut found = Vec::new();
    place(plan, Some(0), &mut found);
    found
}

fn place(plan: &Arc<dyn ExecutionPlan>, offset: Option<u32>, found: &mut Vec<Leaf>) {
    let children = plan.children();
    if children.is_empty() {
        let placement = offset.map_or(Placement::Whole, |offset| Placement::Sliced { offset, count: partitions(plan) });
        found.push(Leaf { plan: Arc::clone(plan), placement });
        return;
    }
    let mut next = offset;
    let rule = rule(plan);
    for (index, child) in children.into_iter().enumerate() {
        match rule {
            Rule::Each => place(child, offset, found),
            Rule::Right | Rule::RightRefused(_) => place(child, if index == 1 { offset } else { None }, found),
            Rule::Union => {
                place(child, next, found);
                next = next.map(|next| next.saturating_add(partitions(child)));
            }
            Rule::One | Rule::Leaf | Rule::Refused(_) => place(child, None, found),
        }
    }
}

/// Cuts `plan` to its partitions `slice`. The result's partition `i` gives the rows of the plan's partition `slice.start + i`.
///
/// # Errors
/// `Internal` naming the operator if it has no rule, which [`can_narrow`] has ruled out, or if `slice` is not of this plan.
pub fn narrow(plan: &Arc<dyn ExecutionPlan>, slice: Range<u32>) -> Result<Arc<dyn ExecutionPlan>> {
    let narrowed = cut(plan, slice.clone())
        .map_err(|error| Error::internal(format!("narrowing to {slice:?}: {error}")).with_source(error))?;
    if partitions(&narrowed) != slice.end - slice.start || narrowed.schema() != plan.schema() {
        return Err(Error::internal(format!(
            "{} narrowed to {slice:?} has {} partitions and the columns {}",
            plan.name(),
            partitions(&narrowed),
            narrowed.schema()
        )));
    }
    Ok(narrowed)
}

fn cut(plan: &Arc<dyn ExecutionPlan>, slice: Range<u32>) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    if slice == (0..partitions(plan)) {
        return Ok(Arc::clone(plan));
    }
    if slice.start >= slice.end || slice.end > partitions(plan) {
        return internal_err!("{} has {} partitions, not {slice:?}", plan.name(), partitions(plan));
    }
    if let Some(write) = plan.downcast_ref::<WriteExec>() {
        let input = cut(write.input(), slice.clone())?;
        return Ok(Arc::new(WriteExec::new(input, Arc::clone(write.spec()), write.first() + slice.start)));
    }
    let children = plan.children();
    match rule(plan) {
        Rule::Refused(why) | Rule::RightRefused(why) => internal_err!("{} {why}", plan.name()),
        Rule::One => internal_err!("{} has one partition", plan.name()),
        Rule::Leaf => cut_leaf(plan, slice),
        Rule::Union => cut_union(plan, slice),
        Rule::Each => {
            let children: datafusion::error::Result<Vec<_>> =
                children.into_iter().map(|child| cut(child, slice.clone())).collect();
            rebuild(plan, children?)
        }
        Rule::Right => match children.as_slice() {
            [left, right] => rebuild(plan, vec![Arc::clone(left), cut(right, slice)?]),
            _ => internal_err!("{} is not a join of two sides", plan.name()),
        },
    }
}

/// Rebuilds a node from itself, so that nothing it holds besides its children is lost.
fn rebuild(
    plan: &Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    Arc::clone(plan).replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

fn cut_leaf(plan: &Arc<dyn ExecutionPlan>, slice: Range<u32>) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    let count = (slice.end - slice.start) as usize;
    if let Some(input) = plan.downcast_ref::<StageInputExec>() {
        Ok(Arc::new(input.narrowed(slice)?))
    } else if plan.is::<EmptyExec>() {
        Ok(Arc::new(EmptyExec::new(plan.schema()).with_partitions(count)))
    } else if plan.is::<PlaceholderRowExec>() {
        Ok(Arc::new(PlaceholderRowExec::new(plan.schema()).with_partitions(count)))
    } else {
        match narrow_source(plan, slice.start as usize..slice.end as usize)? {
            Some(source) => Ok(source),
            None => internal_err!("{} is a leaf without a rule", plan.name()),
        }
    }
}

/// Shifts the slice by each child's offset and drops the children outside of it. The union's field names and nullability are those of
/// all its children together, so they are put back on what is left.
fn cut_union(plan: &Arc<dyn ExecutionPlan>, slice: Range<u32>) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    let mut kept = Vec::new();
    let mut offset = 0;
    for child in plan.children() {
        let count = partitions(child);
        let start = slice.start.clamp(offset, offset + count) - offset;
        let end = slice.end.clamp(offset, offset + count) - offset;
        if start < end {
            kept.push(with_fields(cut(child, start..end)?, &plan.schema())?);
        }
        offset += count;
    }
    with_fields(UnionExec::try_new(kept)?, &plan.schema())
}

/// `plan` with the names, nullability and metadata of `schema`'s fields; types are the same. Costs nothing per row.
pub(crate) fn with_fields(plan: Arc<dyn ExecutionPlan>, schema: &SchemaRef) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let held = plan.schema();
    if held.fields() == schema.fields() {
        return Ok(plan);
    }
    if held.fields().len() != schema.fields().len() {
        return internal_err!("{} has {} columns instead of {}", plan.name(), held.fields().len(), schema.fields().len());
    }
    let exprs = held.fields().iter().zip(schema.fields()).enumerate().map(|(index, (held, wanted))| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(held.name(), index));
        let expr = match held == wanted {
            true => column,
            false => Arc::new(CastExpr::new_with_target_field(column, Arc::clone(wanted), None)),
        };
        ProjectionExpr { expr, alias: wanted.name().clone() }
    });
    Ok(Arc::new(ProjectionExec::try_new(exprs, Arc::clone(&plan))?))
}

/// How an operator's partitions depend on those of its children.
enum Rule {
    /// Has no children; keeps the slice's partitions.
    Leaf,
    /// Partition `i` needs partition `i` of every child.
    Each,
    /// Partition `i` needs all of the left child and partition `i` of the right one.
    Right,
    /// As `Right`, but rows of the left side come out after all right partitions have ended: cannot be narrowed.
    RightRefused(&'static str),
    /// The children's partitions one after the other.
    Union,
    /// One partition made of everything below.
    One,
    /// Cannot be narrowed.
    Refused(&'static str),
}

fn partitions(plan: &Arc<dyn ExecutionPlan>) -> u32 {
    u32::try_from(plan.output_partitioning().partition_count()).unwrap_or(u32::MAX)
}

fn rule(plan: &Arc<dyn ExecutionPlan>) -> Rule {
    let rule = operator_rule(plan);
    let count = partitions(plan);
    let fits = match rule {
        Rule::Each => plan.children().into_iter().all(|child| partitions(child) == count),
        Rule::Right | Rule::RightRefused(_) => plan.children().get(1).is_some_and(|right| partitions(right) == count),
        Rule::One => count == 1,
        Rule::Leaf | Rule::Union | Rule::Refused(_) => true,
    };
    if fits { rule } else { Rule::Refused("has other partitions than its rule expects") }
}

fn operator_rule(plan: &Arc<dyn ExecutionPlan>) -> Rule {
    if plan.children().is_empty() {
        return Rule::Leaf;
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return match aggregate.mode() {
            AggregateMode::Partial
            | AggregateMode::PartialReduce
            | AggregateMode::FinalPartitioned
            | AggregateMode::SinglePartitioned => Rule::Each,
            AggregateMode::Final | AggregateMode::Single => Rule::One,
        };
    }
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        return if sort.preserve_partitioning() { Rule::Each } else { Rule::One };
    }
    if let Some(window) = plan.downcast_ref::<WindowAggExec>() {
        return window_rule(window.window_expr().iter().all(|expr| !expr.partition_by().is_empty()));
    }
    if let Some(window) = plan.downcast_ref::<BoundedWindowAggExec>() {
        return window_rule(window.window_expr().iter().all(|expr| !expr.partition_by().is_empty()));
    }
    if plan.is::<UnionExec>() {
        return Rule::Union;
    }
    if per_partition(plan) {
        return Rule::Each;
    }
    if one_partition(plan) {
        return Rule::One;
    }
    join_rule(plan)
}

fn window_rule(partitioned: bool) -> Rule {
    if partitioned { Rule::Each } else { Rule::One }
}

#[expect(deprecated, reason = "plans made by older rules may still hold CoalesceBatchesExec")]
fn per_partition(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<ProjectionExec>()
        || plan.is::<FilterExec>()
        || plan.is::<datafusion::physical_plan::coalesce_batches::CoalesceBatchesExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<BufferExec>()
        || plan.is::<LocalLimitExec>()
        || plan.is::<UnnestExec>()
        || plan.is::<AsyncFuncExec>()
        || plan.is::<InterleaveExec>()
        || plan.is::<SortMergeJoinExec>()
        || plan.is::<RuntimeFilterBuildExec>()
        || plan.is::<WriteExec>()
        || plan.is::<PythonMapExec>()
}

fn one_partition(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<CoalescePartitionsExec>()
        || plan.is::<SortPreservingMergeExec>()
        || plan.is::<GlobalLimitExec>()
        || plan.is::<RecursiveQueryExec>()
        || plan.is::<ScalarSubqueryExec>()
        || plan.is::<datafusion::datasource::sink::DataSinkExec>()
        || plan.is::<AnalyzeExec>()
}

fn join_rule(plan: &Arc<dyn ExecutionPlan>) -> Rule {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return match join.partition_mode() {
            PartitionMode::Partitioned => Rule::Each,
            PartitionMode::CollectLeft => collected(plan, *join.join_type()),
            PartitionMode::Auto => Rule::Refused("has no partition mode"),
        };
    }
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        return collected(plan, *join.join_type());
    }
    if plan.is::<CrossJoinExec>() || plan.is::<RuntimeFilterExec>() {
        return Rule::Right;
    }
    if plan.is::<RepartitionExec>() {
        return Rule::Refused("moves rows between the partitions of a task");
    }
    Rule::Refused("has no rule for narrowing")
}

/// A join that collects its left side. Types that emit left rows do so when the last right partition ends, which no task of several
/// can know.
fn collected(plan: &Arc<dyn ExecutionPlan>, join: JoinType) -> Rule {
    match join {
        JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => Rule::Right,
        JoinType::Left | JoinType::Full | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
            match partitions(plan) {
                0 | 1 => Rule::Right,
                _ => Rule::RightRefused("emits rows of its collected side when the last partition of the other side ends"),
            }
        }
    }
}
