//! Runtime filters in the division of a plan: whose keys are collected in a stage of their own, and who waits for them. Next:
//! `runtime_filter.rs`.
//!
//! The keys of a join's side come from where its rows are kept anyway:
//!
//! ```text
//! the side is an exchange                      the stage below it
//! its keys came through an exchange below it   the stage below that one: perhaps more keys, but none is missing
//! it is a filter over an aggregate (HAVING)    the side itself, which becomes a stage: few of many groups remain
//! ```

use std::sync::Arc;

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};
use windrow_core::ids::StageId;
use windrow_core::stage::{Exchange, InputRead, StageInput};

use super::{Output, Splitter, internal, number, only_child};
use crate::exchange::{Mark, mark, partitions, with_children};
use crate::runtime_filter::apply::{FilterUse, RuntimeFilterExec};
use crate::runtime_filter::build::{KEYS_MAX, RuntimeFilterBuildExec};
use crate::runtime_filter::place::{Reach, column, may_filter_left, may_filter_right, origin, place, reduces};
use crate::runtime_filter::push::{domain, selective_keys};
use crate::stage_input::StageInputExec;

/// A runtime filter that is already a stage: `leaf` stands for it in the plans that are not divided yet.
pub(super) struct FilterStage {
    pub(super) leaf: Arc<dyn ExecutionPlan>,
    pub(super) stage: StageId,
    pub(super) plan: Arc<dyn ExecutionPlan>,
}

/// A stage whose rows a runtime filter is made of.
struct Source {
    stage: StageId,
    plan: Arc<dyn ExecutionPlan>,
    /// The keys and the count of its hash exchange; none for a broadcast.
    hash: Option<(Vec<Arc<dyn PhysicalExpr>>, u32)>,
}

/// A key of a join's reducing side and the column of the other side that it is compared with.
type KeyPair = (Arc<dyn PhysicalExpr>, usize);

/// Most parts of a filter that a key is looked for in, where its part does not follow from its hash.
const UNROUTED_PARTS_MAX: u32 = 8;

/// A side whose files are smaller than those of the other by this factor is not made to wait for the other's keys.
const WORTH_WAITING: u64 = 16;

/// Where the keys of a join's side come from.
enum Reducer {
    /// The side is an exchange.
    Exchange,
    /// An exchange below, and which columns of its rows the pairs' keys are.
    Below(Arc<dyn ExecutionPlan>, Vec<KeyPair>),
    /// The side becomes a stage.
    Having,
}

impl Splitter<'_> {
    /// A join in one stage. Where something reduces one side, the scans of the other wait for its keys.
    pub(super) fn rewrite_join(
        &mut self,
        plan: Arc<dyn ExecutionPlan>,
        inputs: &mut Vec<StageInput>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(join) = plan.downcast_ref::<HashJoinExec>() else { return self.rewrite_children(plan, inputs) };
        let (left, right, kind) = (join.left(), join.right(), *join.join_type());
        let left_keys: Vec<_> = join.on().iter().map(|(left, _)| Arc::clone(left)).collect();
        let right_keys: Vec<_> = join.on().iter().map(|(_, right)| Arc::clone(right)).collect();
        if !join.null_aware && may_filter_right(kind) {
            let reduced = self.rewrite_reduced((left, &left_keys), (right, &right_keys), inputs)?;
            if let Some((left, right)) = reduced {
                return with_children(plan, vec![left, right]);
            }
        }
        if !join.null_aware && may_filter_left(kind) {
            let reduced = self.rewrite_reduced((right, &right_keys), (left, &left_keys), inputs)?;
            if let Some((right, left)) = reduced {
                return with_children(plan, vec![left, right]);
            }
        }
        self.rewrite_children(plan, inputs)
    }

    /// Both sides of a join rewritten, if the first one's keys can reduce the second.
    #[expect(clippy::type_complexity, reason = "two plans")]
    fn rewrite_reduced(
        &mut self,
        (from, from_keys): (&Arc<dyn ExecutionPlan>, &[Arc<dyn PhysicalExpr>]),
        (to, to_keys): (&Arc<dyn ExecutionPlan>, &[Arc<dyn PhysicalExpr>]),
        inputs: &mut Vec<StageInput>,
    ) -> Result<Option<(Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>)>> {
        if source_bytes(to).saturating_mul(WORTH_WAITING) < source_bytes(from) {
            return Ok(None);
        }
        let pairs = from_keys.iter().zip(to_keys).map(|(from, to)| Some((Arc::clone(from), column(to)?)));
        let Some(pairs) = pairs.collect::<Option<Vec<KeyPair>>>() else { return Ok(None) };
        let (new, source, pairs) = match reducer(from, to, &pairs)? {
            None => return Ok(None),
            Some(Reducer::Exchange) => {
                let new = self.rewrite(Arc::clone(from), inputs)?;
                let stage = inputs.last().map(|input| input.stage).ok_or_else(|| internal("a hash exchange that was not cut"))?;
                (new, Some(source(from, stage)?), pairs)
            }
            Some(Reducer::Below(exchange, pairs)) => {
                let new = self.rewrite(Arc::clone(from), inputs)?;
                // It was cut as another plan if a filter was put below it meanwhile.
                let cut = self.exchanges.iter().find(|(known, _)| Arc::ptr_eq(known, &exchange));
                (new, cut.map(|(_, stage)| source(&exchange, *stage)).transpose()?, pairs)
            }
            Some(Reducer::Having) => {
                let count = u32::try_from(partitions(from)).map_err(|_too_many| internal("too many partitions"))?;
                let keys = from_keys.to_vec();
                let output = Output { exchange: Exchange::Hash { partitions: count }, keys: keys.clone(), row_limit: None };
                let stage = self.stage(Arc::clone(from), output)?;
                let leaf = StageInputExec::partitioned(number(inputs), from, keys.clone(), count)?;
                inputs.push(StageInput { stage, read: InputRead::Partitioned { offset: 0, count } });
                (Arc::new(leaf) as _, Some(Source { stage, plan: Arc::clone(from), hash: Some((keys, count)) }), pairs)
            }
        };
        let to = match source {
            Some(source) => self.reduced(to, &source, &pairs)?,
            None => Arc::clone(to),
        };
        let to = self.rewrite(to, inputs)?;
        Ok(Some((new, to)))
    }

    /// The right side of a join with the keys of its broadcast left side, made by `left`, passed on to its scans.
    pub(super) fn reduced_by_broadcast(
        &mut self,
        plan: &Arc<dyn ExecutionPlan>,
        left: Arc<dyn ExecutionPlan>,
        right: &Arc<dyn ExecutionPlan>,
        inputs: &[StageInput],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(join), Some(input)) = (plan.downcast_ref::<HashJoinExec>(), inputs.last()) else {
            return Ok(Arc::clone(right));
        };
        if !self.runtime_filters || join.null_aware || !may_filter_right(*join.join_type()) || !reduces(&left)? {
            return Ok(Arc::clone(right));
        }
        let pairs = join.on().iter().map(|(left, right)| Some((Arc::clone(left), column(right)?)));
        let Some(pairs) = pairs.collect::<Option<Vec<KeyPair>>>() else { return Ok(Arc::clone(right)) };
        self.reduced(right, &Source { stage: input.stage, plan: left, hash: None }, &pairs)
    }

    /// `plan` with a runtime filter of the keys of `source` at the scans that its columns come from; as it is, if there is no place for
    /// one.
    fn reduced(&mut self, plan: &Arc<dyn ExecutionPlan>, source: &Source, pairs: &[KeyPair]) -> Result<Arc<dyn ExecutionPlan>> {
        let placed = self.reduced_by(plan, source, pairs)?;
        if !Arc::ptr_eq(&placed, plan) || pairs.len() < 2 {
            return Ok(placed);
        }
        // The columns come from different scans.
        pairs.iter().try_fold(placed, |plan, pair| self.reduced_by(&plan, source, std::slice::from_ref(pair)))
    }

    fn reduced_by(
        &mut self,
        plan: &Arc<dyn ExecutionPlan>,
        source: &Source,
        pairs: &[KeyPair],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let keys: Vec<_> = pairs.iter().map(|(key, _)| Arc::clone(key)).collect();
        let columns: Vec<_> = pairs.iter().map(|(_, column)| *column).collect();
        let routed = source.hash.as_ref().is_some_and(|(by, _)| *by == keys);
        if source.hash.as_ref().is_some_and(|(_, count)| !routed && *count > UNROUTED_PARTS_MAX) {
            return Ok(Arc::clone(plan));
        }
        let schema = source.plan.schema();
        let types = keys.iter().map(|key| key.data_type(&schema)).collect::<Result<Vec<_>>>()?;
        place(plan, &columns, &mut |scan, columns, reach| {
            let held = scan.schema();
            let alike = columns.iter().zip(&types).all(|(column, wanted)| held.field(*column).data_type() == wanted);
            let domain = if let [column] = columns { domain(&scan, *column)? } else { None };
            let in_scan_only = reach == Reach::Near;
            // More keys than would be of use need not be collected.
            let keys_max = if in_scan_only { domain.map_or(0, selective_keys) } else { KEYS_MAX };
            if !alike || keys_max == 0 {
                return Ok(scan);
            }
            let leaf = self.filter_stage(source, &keys, keys_max)?;
            let columns = columns.iter().map(|index| as_key(&held, *index));
            let how = FilterUse { routed, domain, in_scan_only };
            Ok(Arc::new(RuntimeFilterExec::new(leaf, scan, columns.collect(), how)))
        })
    }

    /// A stage that makes the filter of `keys`, and the leaf that stands for it.
    fn filter_stage(&mut self, source: &Source, keys: &[Arc<dyn PhysicalExpr>], keys_max: u64) -> Result<Arc<dyn ExecutionPlan>> {
        let (leaf, read): (Arc<dyn ExecutionPlan>, _) = match &source.hash {
            Some((by, count)) => {
                let leaf = StageInputExec::partitioned(0, &source.plan, by.clone(), *count)?;
                (Arc::new(leaf), InputRead::Partitioned { offset: 0, count: *count })
            }
            None => {
                let leaf = Arc::new(StageInputExec::whole(0, &source.plan)?);
                (Arc::new(CoalescePartitionsExec::new(leaf)), InputRead::Whole)
            }
        };
        let plan: Arc<dyn ExecutionPlan> = Arc::new(RuntimeFilterBuildExec::new(leaf, keys.to_vec(), keys_max));
        let inputs = vec![StageInput { stage: source.stage, read }];
        let stage = self.finish(&plan, inputs, Output::of(Exchange::Broadcast))?;
        let leaf: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(plan.schema()));
        self.filters.push(FilterStage { leaf: Arc::clone(&leaf), stage, plan });
        Ok(leaf)
    }
}

/// How the keys of `from` can reduce `to`, if they can.
fn reducer(from: &Arc<dyn ExecutionPlan>, to: &Arc<dyn ExecutionPlan>, pairs: &[KeyPair]) -> Result<Option<Reducer>> {
    if mark(from)? == Mark::Hash {
        return Ok(reduces(from)?.then_some(Reducer::Exchange));
    }
    let keys: Option<Vec<_>> = pairs.iter().map(|(key, _)| column(key)).collect();
    let Some(keys) = keys else { return Ok(None) };
    if is_having(from) && from.output_ordering().is_none() && can_wait(to, pairs)? {
        return Ok(Some(Reducer::Having));
    }
    match origin(from, &keys)? {
        Some((exchange, columns)) if reduces(&exchange)? => {
            let schema = exchange.schema();
            let pairs = columns.iter().zip(pairs).map(|(column, (_, to))| (as_key(&schema, *column), *to));
            Ok(Some(Reducer::Below(exchange, pairs.collect())))
        }
        _ => Ok(None),
    }
}

/// Whether some scan below `plan` can wait for a filter of these keys, and saves an exchange by it.
fn can_wait(plan: &Arc<dyn ExecutionPlan>, pairs: &[KeyPair]) -> Result<bool> {
    let columns: Vec<_> = pairs.iter().map(|(_, column)| *column).collect();
    let mut can = false;
    place(plan, &columns, &mut |scan, _, reach| {
        can |= reach == Reach::Far;
        Ok(scan)
    })?;
    Ok(can)
}

/// A filter of groups, with nothing but projections between.
fn is_having(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let only = || plan.children().first().map(|child| Arc::clone(child));
    if plan.is::<ProjectionExec>() || plan.is::<CooperativeExec>() {
        return only().is_some_and(|child| is_having(&child));
    }
    plan.is::<FilterExec>() && plan.fetch().is_none() && only().is_some_and(|child| is_grouped(&child))
}

fn is_grouped(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if plan.is::<ProjectionExec>() || plan.is::<CooperativeExec>() {
        return plan.children().first().is_some_and(|child| is_grouped(child));
    }
    plan.downcast_ref::<AggregateExec>().is_some_and(|aggregate| !aggregate.group_expr().is_empty())
}

/// The stage below the hash exchange `plan`.
fn source(plan: &Arc<dyn ExecutionPlan>, stage: StageId) -> Result<Source> {
    let Partitioning::Hash(keys, count) = plan.output_partitioning().clone() else {
        return Err(internal("a hash exchange without keys"));
    };
    let count = u32::try_from(count).map_err(|_too_many| internal("too many partitions"))?;
    Ok(Source { stage, plan: only_child(plan)?, hash: Some((keys, count)) })
}

/// Bytes of the files below `plan`.
fn source_bytes(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let files = plan.downcast_ref::<DataSourceExec>().and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>());
    let own = files.iter().flat_map(|files| &files.file_groups).flat_map(FileGroup::iter);
    let own = own.map(PartitionedFile::effective_size).fold(0_u64, u64::saturating_add);
    plan.children().into_iter().map(source_bytes).fold(own, u64::saturating_add)
}

fn as_key(schema: &arrow::datatypes::SchemaRef, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(schema.field(index).name(), index))
}
