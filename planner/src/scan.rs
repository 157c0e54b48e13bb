//! File scans beside the plan: which files each partition reads, and the options that DataFusion's encoding loses.

use std::ops::Range;
use std::sync::Arc;

use datafusion::common::internal_err;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_expr::{Partitioning, RangePartitioning};
use datafusion::physical_plan::ExecutionPlan;

/// A scan of files or of memory with only these of its partitions; `None` if `plan` is neither.
pub(crate) fn narrow_source(plan: &Arc<dyn ExecutionPlan>, slice: Range<usize>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(exec) = plan.downcast_ref::<DataSourceExec>() else { return Ok(None) };
    if let Some(scan) = exec.data_source().downcast_ref::<FileScanConfig>() {
        let mut scan = scan.clone();
        scan.file_groups = part(&scan.file_groups, &slice)?.to_vec();
        scan.output_partitioning = scan.output_partitioning.map(|whole| narrow_partitioning(whole, &slice)).transpose()?;
        return Ok(Some(Arc::new(exec.clone().with_data_source(Arc::new(scan)))));
    }
    if let Some(memory) = exec.data_source().downcast_ref::<MemorySourceConfig>() {
        let partitions = part(memory.partitions(), &slice)?;
        let narrowed = MemorySourceConfig::try_new(partitions, memory.original_schema(), memory.projection().clone())?
            .with_limit(exec.fetch())
            .with_show_sizes(memory.show_sizes());
        // Orders are in terms of the projected columns here but would be projected again: a projected scan drops its claim.
        let narrowed = match memory.projection() {
            None => narrowed.try_with_sort_information(memory.sort_information().to_vec())?,
            Some(_) => narrowed,
        };
        return Ok(Some(Arc::new(exec.clone().with_data_source(Arc::new(narrowed)))));
    }
    Ok(None)
}

fn part<'a, T>(all: &'a [T], slice: &Range<usize>) -> Result<&'a [T]> {
    match all.get(slice.clone()) {
        Some(part) => Ok(part),
        None => internal_err!("a scan of {} partitions narrowed to {slice:?}", all.len()),
    }
}

fn narrow_partitioning(whole: Partitioning, slice: &Range<usize>) -> Result<Partitioning> {
    let count = slice.len();
    Ok(match whole {
        Partitioning::Hash(keys, _) => Partitioning::Hash(keys, count),
        Partitioning::RoundRobinBatch(_) | Partitioning::UnknownPartitioning(_) => Partitioning::UnknownPartitioning(count),
        Partitioning::Range(range) => {
            let splits = part(range.split_points(), &(slice.start..slice.end.saturating_sub(1)))?;
            Partitioning::Range(RangePartitioning::try_new(range.ordering().clone(), splits.to_vec())?)
        }
    })
}
