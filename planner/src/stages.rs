//! Fifth arrow: a physical plan is divided at its exchanges into a graph of stages, whose plans are encoded. Next:
//! `scheduler/src/job.rs`. Does not choose executors or slices.
//!
//! ```text
//! SortPreservingMerge              s2  SortPreservingMerge
//!   Sort                    cut          StageInput s1, whole
//!     Aggregate final       --->   s1  Sort, Aggregate final
//!       Repartition hash                 StageInput s0, segment by segment
//!         Aggregate partial        s0  Aggregate partial, scan; output divided by hash
//!           scan
//! ```

mod adaptive;
mod reduce;

use std::cell::RefCell;
use std::sync::Arc;

use datafusion::common::stats::Precision;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::{ScalarSubqueryExec, ScalarSubqueryLink};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};
use windrow_core::Error;
use windrow_core::ids::StageId;
use windrow_core::stage::{Exchange, InputRead, Stage, StageInput};

use crate::codec::encode_stage;
use crate::diagnose::ours;
use crate::exchange::{Mark, mark, partitions, with_children};
use crate::explain::stage_display;
use crate::narrow::{Leaf, Narrowing, Placement, can_narrow, leaves};
use crate::repeats::repeats;
use crate::stage_input::StageInputExec;
use adaptive::{Divided, estimate};
use reduce::FilterStage;

/// What may be done to a plan when it is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Division {
    /// Divide it at its exchanges; otherwise, only scalar subqueries become stages of their own.
    pub(crate) cut: bool,
    /// Where it is cut, let one side of a join drop rows of the other where they are scanned.
    pub(crate) runtime_filters: bool,
    /// Where it is cut, the most bytes of a build side that is broadcast once it is measured; never, if none.
    pub(crate) broadcast_max: Option<u64>,
}

/// Divides `plan` into stages, producers first; the last one is read by the client.
///
/// # Errors
/// `Unsupported`, naming the operator, where a stage's plan cannot be sent to an executor or divided.
pub(crate) fn split(plan: Arc<dyn ExecutionPlan>, division: Division, context: &TaskContext) -> Result<Vec<Stage>> {
    let Division { cut, runtime_filters, broadcast_max } = division;
    let (runtime_filters, broadcast_max) = (cut && runtime_filters, broadcast_max.filter(|_| cut));
    let mut splitter = Splitter {
        cut,
        runtime_filters,
        broadcast_max,
        context,
        stages: Vec::new(),
        divided: Vec::new(),
        exchanges: Vec::new(),
        scalars: Vec::new(),
        filters: Vec::new(),
    };
    splitter.stage(plan, Output::of(Exchange::Result))?;
    Ok(splitter.stages)
}

/// How a stage's rows leave it.
struct Output {
    exchange: Exchange,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The consumer needs no more rows than this.
    row_limit: Option<u64>,
}

impl Output {
    fn of(exchange: Exchange) -> Self {
        Self { exchange, keys: Vec::new(), row_limit: None }
    }
}

/// A scalar subquery that is already a stage: `node` owns the results that its expressions point to.
struct ScalarStage {
    node: Arc<dyn ExecutionPlan>,
    link: usize,
    stage: StageId,
}

struct Splitter<'a> {
    cut: bool,
    runtime_filters: bool,
    broadcast_max: Option<u64>,
    context: &'a TaskContext,
    stages: Vec<Stage>,
    /// The plan of each stage.
    divided: Vec<Divided>,
    /// The hash exchanges that are cut, and the stages below them.
    exchanges: Vec<(Arc<dyn ExecutionPlan>, StageId)>,
    scalars: Vec<ScalarStage>,
    filters: Vec<FilterStage>,
}

impl Splitter<'_> {
    /// Makes a stage of `plan`, after the stages below it.
    fn stage(&mut self, plan: Arc<dyn ExecutionPlan>, output: Output) -> Result<StageId> {
        let mut inputs = Vec::new();
        let plan = self.rewrite(plan, &mut inputs)?;
        self.finish(&plan, inputs, output)
    }

    /// Replaces what is below the exchanges of `plan` by stage inputs, whose edges are added to `inputs`.
    fn rewrite(&mut self, plan: Arc<dyn ExecutionPlan>, inputs: &mut Vec<StageInput>) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(subqueries) = plan.downcast_ref::<ScalarSubqueryExec>() {
            let main = Arc::clone(subqueries.input());
            self.scalar_stages(&plan)?;
            return self.rewrite(main, inputs);
        }
        match if self.cut { mark(&plan)? } else { Mark::None } {
            Mark::Hash => self.cut_hash(&plan, inputs),
            Mark::Merge => self.cut_merge(plan, inputs),
            Mark::BroadcastLeft => self.cut_broadcast(plan, inputs),
            Mark::Drop => self.rewrite(only_child(&plan)?, inputs),
            Mark::Keep => Ok(plan),
            Mark::None if self.runtime_filters && plan.is::<HashJoinExec>() => self.rewrite_join(plan, inputs),
            Mark::None => match self.filters.iter().find(|filter| Arc::ptr_eq(&filter.leaf, &plan)) {
                Some(filter) => {
                    let leaf = StageInputExec::whole(number(inputs), &filter.plan)?;
                    inputs.push(StageInput { stage: filter.stage, read: InputRead::Whole });
                    Ok(Arc::new(leaf))
                }
                None => self.rewrite_children(plan, inputs),
            },
        }
    }

    fn rewrite_children(&mut self, plan: Arc<dyn ExecutionPlan>, inputs: &mut Vec<StageInput>) -> Result<Arc<dyn ExecutionPlan>> {
        let old: Vec<_> = plan.children().into_iter().map(Arc::clone).collect();
        if old.is_empty() {
            return Ok(plan);
        }
        let mut new = Vec::with_capacity(old.len());
        for child in &old {
            new.push(self.rewrite(Arc::clone(child), inputs)?);
        }
        let unchanged = old.iter().zip(&new).all(|(old, new)| Arc::ptr_eq(old, new));
        if unchanged { Ok(plan) } else { with_children(plan, new) }
    }

    /// Each subquery becomes a stage of one partition, read before the plans that use its value are decoded.
    fn scalar_stages(&mut self, node: &Arc<dyn ExecutionPlan>) -> Result<()> {
        let links: Vec<ScalarSubqueryLink> =
            node.downcast_ref::<ScalarSubqueryExec>().map(|exec| exec.subqueries().to_vec()).unwrap_or_default();
        for (link, subquery) in links.into_iter().enumerate() {
            let plan = if partitions(&subquery.plan) > 1 {
                Arc::new(CoalescePartitionsExec::new(subquery.plan)) as Arc<dyn ExecutionPlan>
            } else {
                subquery.plan
            };
            let stage = self.stage(plan, Output::of(Exchange::Broadcast))?;
            self.scalars.push(ScalarStage { node: Arc::clone(node), link, stage });
        }
        Ok(())
    }

    fn cut_hash(&mut self, plan: &Arc<dyn ExecutionPlan>, inputs: &mut Vec<StageInput>) -> Result<Arc<dyn ExecutionPlan>> {
        let Partitioning::Hash(keys, count) = plan.output_partitioning().clone() else {
            return Err(internal("a hash exchange without keys"));
        };
        let ordering = plan.output_ordering().cloned();
        let fetch = plan.downcast_ref::<RepartitionExec>().and_then(ExecutionPlan::fetch);
        if fetch.is_some() {
            return Err(internal("a hash exchange with a limit"));
        }
        let child = only_child(plan)?;
        let count = u32::try_from(count).map_err(|_too_many| internal("too many partitions"))?;
        let output = Output { exchange: Exchange::Hash { partitions: count }, keys: keys.clone(), row_limit: None };
        let stage = self.stage(Arc::clone(&child), output)?;
        if let (Some(_), Some(divided)) = (self.broadcast_max, self.divided.get_mut(stage.0 as usize)) {
            divided.bytes = estimate(&child);
        }
        self.exchanges.push((Arc::clone(plan), stage));
        let leaf = StageInputExec::partitioned(number(inputs), &child, keys, count)?;
        // The offset is corrected when the stage is finished: only then is the place of the leaf known.
        inputs.push(StageInput { stage, read: InputRead::Partitioned { offset: 0, count } });
        let leaf: Arc<dyn ExecutionPlan> = Arc::new(leaf);
        Ok(match ordering {
            // The exchange kept an order that operators above rely on. Segments are read in no order, so sort again.
            Some(ordering) => Arc::new(SortExec::new(ordering, leaf).with_preserve_partitioning(true)),
            None => leaf,
        })
    }

    /// The merging operator stays above the cut: its child becomes a stage whose partitions it reads one by one.
    fn cut_merge(&mut self, plan: Arc<dyn ExecutionPlan>, inputs: &mut Vec<StageInput>) -> Result<Arc<dyn ExecutionPlan>> {
        let child = only_child(&plan)?;
        let fetch = plan.fetch();
        let unordered = plan.is::<CoalescePartitionsExec>();
        let child = match fetch {
            Some(fetch) if child.fetch().is_none_or(|held| held > fetch) => Arc::new(LocalLimitExec::new(child, fetch)),
            _ => child,
        };
        let row_limit = fetch.filter(|_| unordered).map(|fetch| fetch as u64);
        let output = Output { exchange: Exchange::Merge, keys: Vec::new(), row_limit };
        let leaf = self.cut_whole(child, output, inputs)?;
        with_children(plan, vec![leaf])
    }

    /// The left side becomes a stage of its own, which every task of the join reads whole.
    fn cut_broadcast(&mut self, plan: Arc<dyn ExecutionPlan>, inputs: &mut Vec<StageInput>) -> Result<Arc<dyn ExecutionPlan>> {
        let children: Vec<_> = plan.children().into_iter().map(Arc::clone).collect();
        let [left, right] = children.as_slice() else { return Err(internal("a join without two sides")) };
        let (new, right) = if is_constant(left) {
            (Arc::clone(left), Arc::clone(right))
        } else if left.is::<CoalescePartitionsExec>() && left.fetch().is_none() && partitions(&only_child(left)?) > 1 {
            // Each task coalesces what it reads, so the pieces need not be brought together first.
            let below = only_child(left)?;
            let leaf = self.cut_whole(Arc::clone(&below), Output::of(Exchange::Broadcast), inputs)?;
            let right = self.reduced_by_broadcast(&plan, below, right, inputs)?;
            (with_children(Arc::clone(left), vec![leaf])?, right)
        } else {
            let leaf = self.cut_whole(Arc::clone(left), Output::of(Exchange::Broadcast), inputs)?;
            let right = self.reduced_by_broadcast(&plan, Arc::clone(left), right, inputs)?;
            (leaf, right)
        };
        let right = self.rewrite(right, inputs)?;
        with_children(plan, vec![new, right])
    }

    fn cut_whole(
        &mut self,
        child: Arc<dyn ExecutionPlan>,
        output: Output,
        inputs: &mut Vec<StageInput>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let stage = self.stage(Arc::clone(&child), output)?;
        let leaf = StageInputExec::whole(number(inputs), &child)?;
        inputs.push(StageInput { stage, read: InputRead::Whole });
        Ok(Arc::new(leaf))
    }

    /// Encodes a stage's plan and adds it to the graph, or finds the stage that does the same.
    fn finish(&mut self, plan: &Arc<dyn ExecutionPlan>, inputs: Vec<StageInput>, output: Output) -> Result<StageId> {
        check_join_keys(plan)?;
        let below = inputs.iter().filter_map(|input| self.divided.get(input.stage.0 as usize));
        let source_bytes = below.fold(0_u64, |sum, input| sum.saturating_add(input.source_bytes));
        let mut divided = Divided { plan: Arc::clone(plan), inputs: inputs.clone(), bytes: Precision::Absent, source_bytes };
        let mut stage = self.encoded(plan, inputs, &output)?;
        let found = self.stages.iter().find(|known| {
            stage.repeats == windrow_core::stage::Repeats::Repeatable
                && known.template == stage.template
                && known.partition_inputs == stage.partition_inputs
                && known.inputs == stage.inputs
                && known.exchange == stage.exchange
                && known.row_limit == stage.row_limit
        });
        if let Some(found) = found {
            return Ok(found.id);
        }
        divided.source_bytes = stage.partition_bytes.iter().fold(source_bytes, |sum, bytes| sum.saturating_add(*bytes));
        stage.alternative = self.alternative(plan, &divided.inputs, &output)?;
        let id = StageId(u32::try_from(self.stages.len()).map_err(|_too_many| internal("too many stages"))?);
        stage.id = id;
        if let Some(alternative) = &mut stage.alternative {
            alternative.stage.id = id;
        }
        self.stages.push(stage);
        self.divided.push(divided);
        Ok(id)
    }

    /// A stage that is not in the graph yet.
    fn encoded(&self, plan: &Arc<dyn ExecutionPlan>, inputs: Vec<StageInput>, output: &Output) -> Result<Stage> {
        let inputs = RefCell::new(inputs);
        let scalar = |expr: &ScalarSubqueryExpr| scalar_input(&self.scalars, expr, &mut inputs.borrow_mut());
        let encoded = encode_stage(plan, &output.keys, &scalar, self.context).map_err(ours)?;
        let mut inputs = inputs.into_inner();
        let leaves = leaves(plan);
        place_inputs(&leaves, &mut inputs);
        Ok(Stage {
            id: StageId::default(),
            partitions: u32::try_from(partitions(plan)).map_err(|_too_many| internal("too many partitions"))?.max(1),
            display: stage_display(plan, &inputs),
            inputs,
            exchange: output.exchange,
            repeats: repeats(plan)?,
            whole: can_narrow(plan) == Narrowing::Whole,
            row_limit: output.row_limit,
            partition_bytes: partition_bytes(&leaves, partitions(plan)),
            template: encoded.template,
            partition_inputs: encoded.partition_inputs,
            after: None,
            alternative: None,
        })
    }
}

/// Where the segments of each input are read: below a union, not from partition 0 on.
fn place_inputs(leaves: &[Leaf], inputs: &mut [StageInput]) {
    for leaf in leaves {
        if let (Some(exec), Placement::Sliced { offset, .. }) = (leaf.plan.downcast_ref::<StageInputExec>(), leaf.placement)
            && let Some(StageInput { read: InputRead::Partitioned { offset: place, .. }, .. }) =
                inputs.get_mut(exec.input() as usize)
        {
            *place = offset;
        }
    }
}

/// Bytes of the files that each partition reads, or nothing where no scan is divided.
fn partition_bytes(leaves: &[Leaf], partitions: usize) -> Vec<u64> {
    let mut bytes = Vec::new();
    for leaf in leaves {
        let Placement::Sliced { offset, .. } = leaf.placement else { continue };
        let Some(scan) = leaf.plan.downcast_ref::<DataSourceExec>() else { continue };
        let Some(files) = scan.data_source().downcast_ref::<FileScanConfig>() else { continue };
        bytes.resize(partitions, 0_u64);
        for (group, total) in files.file_groups.iter().zip(bytes.iter_mut().skip(offset as usize)) {
            *total = group.iter().map(|file| file.effective_size()).fold(*total, u64::saturating_add);
        }
    }
    bytes
}

/// The stage input that holds the value of `expr`, added to `inputs` at its first use in a stage.
fn scalar_input(scalars: &[ScalarStage], expr: &ScalarSubqueryExpr, inputs: &mut Vec<StageInput>) -> Option<u32> {
    #[expect(deprecated, reason = "nothing else tells the subqueries of one node apart")]
    let index = expr.index();
    let scalar = scalars.iter().find(|scalar| {
        scalar.node.downcast_ref::<ScalarSubqueryExec>().is_some_and(|exec| {
            exec.results() == expr.results() && exec.subqueries().get(scalar.link).is_some_and(|link| link.index == index)
        })
    })?;
    let input = StageInput { stage: scalar.stage, read: InputRead::Scalar };
    let place = inputs.iter().position(|known| *known == input).unwrap_or_else(|| {
        inputs.push(input);
        inputs.len() - 1
    });
    u32::try_from(place).ok()
}

/// Both sides of a partitioned join must hash alike: the same bytes of another type hash differently.
fn check_join_keys(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>()
        && *join.partition_mode() == PartitionMode::Partitioned
    {
        for (left, right) in join.on() {
            let (left, right) = (left.data_type(&join.left().schema())?, right.data_type(&join.right().schema())?);
            if left != right {
                return Err(ours(Error::unsupported(format!(
                    "a join of {left} with {right} keys; cast one side to the other's type"
                ))));
            }
        }
    }
    plan.children().into_iter().try_for_each(check_join_keys)
}

/// Whether a subtree makes its rows from nothing, so that every task may make them again.
fn is_constant(plan: &Arc<dyn ExecutionPlan>) -> bool {
    use datafusion::physical_plan::{empty::EmptyExec, placeholder_row::PlaceholderRowExec};
    plan.is::<EmptyExec>() || plan.is::<PlaceholderRowExec>()
}

fn only_child(plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    match plan.children().as_slice() {
        [child] => Ok(Arc::clone(child)),
        _ => Err(internal("an exchange without exactly one child")),
    }
}

fn number(inputs: &[StageInput]) -> u32 {
    u32::try_from(inputs.len()).unwrap_or(u32::MAX)
}

fn internal(message: &str) -> DataFusionError {
    ours(Error::internal(message))
}

#[cfg(test)]
mod tests;
