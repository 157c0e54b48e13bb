//! Keys as a set of Bloom filters: one for each partition of the side that they come from.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use arrow::record_batch::RecordBatch;
use datafusion::common::hash_utils::create_hashes;
use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;
use datafusion::physical_plan::repartition::REPARTITION_RANDOM_STATE;
use parquet::bloom_filter::Sbbf;

/// Bytes of filter for each key. 10 bits: about one key in a hundred passes that is not there.
const fn filter_bytes(keys: usize) -> usize {
    keys.saturating_mul(5) / 4
}

/// The hashes of rows by their keys, as the exchanges compute them: a row's partition follows from its hash.
pub(super) fn hashes<'a>(keys: &[ArrayRef], rows: usize, buffer: &'a mut Vec<u64>) -> Result<&'a [u64]> {
    buffer.clear();
    buffer.resize(rows, 0);
    create_hashes(keys, REPARTITION_RANDOM_STATE.random_state(), buffer).map(|hashes| &*hashes)
}

/// The filter of these hashes as the value of a row.
pub(super) fn to_bytes(hashes: &[u64]) -> Result<Vec<u8>> {
    let mut filter = Sbbf::new_with_num_of_bytes(filter_bytes(hashes.len()));
    hashes.iter().for_each(|hash| filter.insert(hash));
    let mut bytes = Vec::with_capacity(filter.num_blocks() * 32);
    filter.write_bitset(&mut bytes)?;
    Ok(bytes)
}

/// The schema of a filter: its bytes, null if there were too many keys, and how many keys it was made of.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("filter", DataType::Binary, true), Field::new("keys", DataType::UInt64, false)]))
}

/// The filters of all partitions.
#[derive(Debug)]
pub(super) struct KeyFilter {
    parts: Vec<Sbbf>,
    /// Of all parts, duplicates included.
    keys: u64,
    /// A key of partition `hash % parts` can only be in that part; otherwise, in any of them.
    routed: bool,
}

impl KeyFilter {
    /// From the rows of the build stage, one a partition; `None` if one of them is null: too many keys to tell.
    pub(super) fn from_rows(rows: &[RecordBatch], routed: bool) -> Result<Option<Self>> {
        let mut filter = Self { parts: Vec::new(), keys: 0, routed };
        for rows in rows {
            let (bytes, keys) = (rows.column(0).as_binary::<i32>(), rows.column(1).as_primitive::<UInt64Type>());
            for (bytes, keys) in bytes.iter().zip(keys.values()) {
                let Some(bytes) = bytes else { return Ok(None) };
                if bytes.is_empty() || bytes.len() % 32 != 0 {
                    return Err(internal_datafusion_err!("a runtime filter of {} bytes", bytes.len()));
                }
                filter.parts.push(Sbbf::new(bytes));
                filter.keys = filter.keys.saturating_add(*keys);
            }
        }
        Ok(Some(filter))
    }

    /// How many keys it was made of; those that came more than once may count as often.
    pub(super) fn keys(&self) -> u64 {
        self.keys
    }

    /// Which of the rows with these hashes may have a partner.
    pub(super) fn matches(&self, hashes: &[u64]) -> BooleanArray {
        let bits = match self.parts.as_slice() {
            [] => BooleanBuffer::new_unset(hashes.len()),
            [only] => BooleanBuffer::from_iter(hashes.iter().map(|hash| only.check(hash))),
            parts if self.routed => {
                let count = parts.len() as u64;
                BooleanBuffer::from_iter(
                    hashes.iter().map(|hash| parts.get((hash % count) as usize).is_some_and(|part| part.check(hash))),
                )
            }
            parts => BooleanBuffer::from_iter(hashes.iter().map(|hash| parts.iter().any(|part| part.check(hash)))),
        };
        BooleanArray::new(bits, None)
    }
}
