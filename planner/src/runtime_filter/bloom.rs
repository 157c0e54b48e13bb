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

/// Bits of filter for each key: at four a word, about one key in a hundred passes that is not there.
const BITS_A_KEY: usize = 16;

/// A Bloom filter whose bits of one key are all in one word, so that a test costs one access to memory (Putze, Sanders and Singler,
/// "Cache-, Hash- and Space-Efficient Bloom Filters", 2007).
#[derive(Debug)]
struct Words(Vec<u64>);

impl Words {
    fn of(hashes: &[u64]) -> Self {
        let mut words = vec![0; (hashes.len() * BITS_A_KEY).div_ceil(64).max(1)];
        for hash in hashes {
            let (index, bits) = place(*hash, words.len());
            if let Some(word) = words.get_mut(index) {
                *word |= bits;
            }
        }
        Self(words)
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// `None` if `bytes` are no words.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks();
        (rest.is_empty() && !words.is_empty()).then(|| Self(words.iter().map(|word| u64::from_le_bytes(*word)).collect()))
    }

    fn may_hold(&self, hash: u64) -> bool {
        let (index, bits) = place(hash, self.0.len());
        self.0.get(index).is_some_and(|word| word & bits == bits)
    }
}

/// The word of a hash among `words` of them, and its four bits there. An exchange has sent all hashes of a filter to one partition by
/// their low bits, so all bits are mixed first.
fn place(hash: u64, words: usize) -> (usize, u64) {
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bits = [8, 14, 20, 26].iter().fold(0, |bits, shift| bits | 1 << ((mixed >> shift) & 63));
    // The high half as a fraction of all words.
    ((((mixed >> 32) * words as u64) >> 32) as usize, bits)
}

/// The hashes of rows by their keys, as the exchanges compute them: a row's partition follows from its hash.
pub(super) fn hashes<'a>(keys: &[ArrayRef], rows: usize, buffer: &'a mut Vec<u64>) -> Result<&'a [u64]> {
    buffer.clear();
    buffer.resize(rows, 0);
    create_hashes(keys, REPARTITION_RANDOM_STATE.random_state(), buffer).map(|hashes| &*hashes)
}

/// The filter of these hashes as the value of a row.
pub(super) fn to_bytes(hashes: &[u64]) -> Vec<u8> {
    Words::of(hashes).to_bytes()
}

/// The schema of a filter: its bytes, null if there were too many keys, and how many keys it was made of.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("filter", DataType::Binary, true), Field::new("keys", DataType::UInt64, false)]))
}

/// The filters of all partitions.
#[derive(Debug)]
pub(super) struct KeyFilter {
    parts: Vec<Words>,
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
                let words = Words::from_bytes(bytes)
                    .ok_or_else(|| internal_datafusion_err!("a runtime filter of {} bytes", bytes.len()))?;
                filter.parts.push(words);
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
        let test = |may_pass: &dyn Fn(u64) -> bool| BooleanBuffer::collect_bool(hashes.len(), |row| may_pass(hashes[row]));
        let bits = match self.parts.as_slice() {
            [] => BooleanBuffer::new_unset(hashes.len()),
            [only] => BooleanBuffer::collect_bool(hashes.len(), |row| only.may_hold(hashes[row])),
            [even, odd] if self.routed => BooleanBuffer::collect_bool(hashes.len(), |row| {
                if hashes[row].is_multiple_of(2) { even } else { odd }.may_hold(hashes[row])
            }),
            parts if self.routed => {
                let count = parts.len() as u64;
                test(&|hash| parts.get((hash % count) as usize).is_some_and(|part| part.may_hold(hash)))
            }
            parts => test(&|hash| parts.iter().any(|part| part.may_hold(hash))),
        };
        BooleanArray::new(bits, None)
    }
}
