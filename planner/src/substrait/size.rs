//! How much a plan may hold: the figures of `../budget.rs`, counted while it is read. Next: `../plan_size.rs`, for the logical plan.

use std::collections::HashSet;

use datafusion::error::DataFusionError;
use datafusion_substrait::substrait::proto::Rel;
use datafusion_substrait::substrait::proto::rel::RelType;
use datafusion_substrait::substrait::proto::rel_common::EmitKind;
use parking_lot::Mutex;
use windrow_core::Result;

use crate::budget;
use crate::diagnose::ours;

/// Columns of all relations of a plan: each has a name and a type in the schema of its relation.
const COLUMNS_MAX: usize = 100_000;

/// Comparisons of names over all relations. DataFusion looks for the name of one more column of the same name from the first on, which for
/// n of them is n * n / 2, and a million can be named in a megabyte. Seven relations of 1,500 columns are within it.
const COMPARISONS_MAX: usize = 1 << 24;

/// What was counted of a plan so far.
#[derive(Debug, Default)]
pub(super) struct Size {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    nodes: usize,
    relations: usize,
    joins: usize,
    sets: usize,
    columns: usize,
    comparisons: usize,
}

impl Size {
    /// Counts a relation before its inputs are read; its number.
    ///
    /// # Errors
    /// `InvalidQuery` for one too many.
    pub(super) fn relation(&self, relation: &Rel) -> Result<usize, DataFusionError> {
        let (joins, sets) = match &relation.rel_type {
            Some(RelType::Join(_) | RelType::Cross(_)) => (1, 0),
            // Each becomes an operator over those before it.
            Some(RelType::Set(set)) => (0, set.inputs.len()),
            _ => (0, 0),
        };
        self.expressions(1)?;
        let mut counts = self.counts.lock();
        (counts.relations, counts.joins, counts.sets) = (counts.relations + 1, counts.joins + joins, counts.sets + sets);
        counts.comparisons = counts.comparisons.saturating_add(comparisons(relation));
        within("comparisons of columns", counts.comparisons, COMPARISONS_MAX)?;
        within("joined tables", counts.joins, budget::JOINS_MAX)?;
        within("inputs of unions", counts.sets, budget::CHAIN_MAX)?;
        Ok(counts.relations)
    }

    /// Counts expressions.
    ///
    /// # Errors
    /// As [`Self::relation`].
    pub(super) fn expressions(&self, count: usize) -> Result<(), DataFusionError> {
        let mut counts = self.counts.lock();
        counts.nodes = counts.nodes.saturating_add(count);
        within("expressions, tables and queries", counts.nodes, budget::NODES_MAX)
    }

    /// Counts the columns of a relation.
    ///
    /// # Errors
    /// As [`Self::relation`].
    pub(super) fn columns(&self, count: usize) -> Result<(), DataFusionError> {
        let mut counts = self.counts.lock();
        counts.columns = counts.columns.saturating_add(count);
        within("columns of relations", counts.columns, COLUMNS_MAX)
    }
}

/// The names that may have to be compared for the columns that a relation makes.
fn comparisons(relation: &Rel) -> usize {
    let made = match &relation.rel_type {
        Some(RelType::Project(project)) => project.expressions.len(),
        Some(RelType::Aggregate(aggregate)) => {
            let in_groupings: usize = aggregate.groupings.iter().map(|one| one.expression_references.len()).sum();
            aggregate.measures.len() + aggregate.grouping_expressions.len() + in_groupings
        }
        _ => 0,
    };
    let common = match &relation.rel_type {
        Some(RelType::Read(relation)) => relation.common.as_ref(),
        Some(RelType::Filter(relation)) => relation.common.as_ref(),
        Some(RelType::Fetch(relation)) => relation.common.as_ref(),
        Some(RelType::Aggregate(relation)) => relation.common.as_ref(),
        Some(RelType::Sort(relation)) => relation.common.as_ref(),
        Some(RelType::Join(relation)) => relation.common.as_ref(),
        Some(RelType::Project(relation)) => relation.common.as_ref(),
        Some(RelType::Set(relation)) => relation.common.as_ref(),
        Some(RelType::Cross(relation)) => relation.common.as_ref(),
        Some(RelType::Exchange(relation)) => relation.common.as_ref(),
        _ => None,
    };
    let repeated = match common.and_then(|common| common.emit_kind.as_ref()) {
        Some(EmitKind::Emit(emit)) => emit.output_mapping.len() - emit.output_mapping.iter().collect::<HashSet<_>>().len(),
        _ => 0,
    };
    made.saturating_mul(made).saturating_add(repeated.saturating_mul(repeated))
}

/// Refuses more than is allowed.
pub(super) fn within(what: &str, count: usize, most: usize) -> Result<(), DataFusionError> {
    budget::within(what, count, most).map_err(ours)
}
