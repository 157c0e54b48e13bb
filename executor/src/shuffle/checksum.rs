//! A checksum of a partition's rows, whatever their order: it tells whether another run made the same rows. Next: `store.rs`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};

/// The same in every process: executors compare their sums.
const STATE: RandomState = RandomState::with_seed(0x57_49_4E_44);

/// The wrapping sum of a hash of each row, so that neither the order of rows nor their division into batches counts. Columns with
/// floating-point numbers are left out, because a sum of those depends on the order in which they arrived.
#[derive(Debug)]
pub(crate) struct RowChecksum {
    columns: Vec<usize>,
    hashes: Vec<u64>,
    sum: Option<u64>,
}

impl RowChecksum {
    /// For the rows of a plan; no sum, if another run may divide the same values among other rows: partial aggregates give up groups when
    /// memory is short. Nor if the rows name files, which are others in each run.
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>) -> Self {
        let schema = plan.schema();
        if has_partial_aggregate(plan) || windrow_planner::writes_files(plan) {
            Self { columns: vec![], hashes: vec![], sum: None }
        } else {
            Self::new(&schema)
        }
    }

    fn new(schema: &Schema) -> Self {
        let fields = schema.fields().iter().enumerate();
        let columns = fields.filter(|(_, field)| !has_floats(field.data_type())).map(|(index, _)| index).collect();
        Self { columns, hashes: Vec::new(), sum: Some(0) }
    }

    /// Adds the rows of a batch. Rows of a type that has no hash leave no sum.
    pub(crate) fn add(&mut self, batch: &RecordBatch) {
        let Some(sum) = self.sum else { return };
        self.hashes.clear();
        self.hashes.resize(batch.num_rows(), 0);
        let columns = self.columns.iter().map(|&index| batch.column(index));
        let hashes = create_hashes(columns, &STATE, &mut self.hashes);
        self.sum = hashes.ok().map(|hashes| hashes.iter().fold(sum, |sum, hash| sum.wrapping_add(scrambled(*hash))));
    }

    pub(crate) fn sum(&self) -> Option<u64> {
        self.sum
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014). A row's hash is a
/// linear combination of its columns' hashes: summed as they are, values that change places between rows would not show.
fn scrambled(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

fn has_floats(of: &DataType) -> bool {
    match of {
        DataType::Struct(fields) => fields.iter().any(|field| has_floats(field.data_type())),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _)
        | DataType::RunEndEncoded(_, field) => has_floats(field.data_type()),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| has_floats(field.data_type())),
        DataType::Dictionary(_, values) => has_floats(values),
        plain => plain.is_floating(),
    }
}

fn has_partial_aggregate(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let is_partial = plan.downcast_ref::<AggregateExec>().is_some_and(|aggregate| *aggregate.mode() == AggregateMode::Partial);
    is_partial || plan.children().into_iter().any(has_partial_aggregate)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};

    use super::*;

    fn batch(rows: &[(i64, f64, Option<&str>)]) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
        let floats: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.1)));
        let words: ArrayRef = Arc::new(rows.iter().map(|row| row.2).collect::<StringArray>());
        RecordBatch::try_from_iter([("n", numbers), ("f", floats), ("s", words)]).unwrap()
    }

    fn sum(batches: &[RecordBatch]) -> Option<u64> {
        let mut checksum = RowChecksum::new(&batches[0].schema());
        batches.iter().for_each(|batch| checksum.add(batch));
        checksum.sum()
    }

    #[test]
    fn only_what_the_rows_are_counts() {
        let (a, b, c) = ((1, 0.1, Some("x")), (2, 0.2, None), (2, 0.2, Some("")));
        let whole = sum(&[batch(&[a, b, c])]);
        assert!(whole.is_some());
        assert_eq!(sum(&[batch(&[c]), batch(&[]), batch(&[b, a])]), whole);
        assert_eq!(sum(&[batch(&[(1, 0.3, Some("x")), b, c])]), whole, "the last digits of sums depend on their order");
        let others = [vec![a, b], vec![a, b, b], vec![a, c, c], vec![a, b, c, c], vec![(2, 0.1, Some("x")), (1, 0.2, None), c]];
        for other in others {
            assert_ne!(sum(&[batch(&other)]), whole, "{other:?}");
        }
    }
}
