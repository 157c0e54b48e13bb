//! Copies columns that hold much more than they show. Taking rows of a string view keeps every buffer of the array it was taken
//! from, so that one segment could hold a stage's whole input; a dictionary keeps all its values in the same way.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericByteViewArray, make_array};
use arrow::compute::cast;
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, Schema, StringViewType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

/// Buffers up to this size are left alone: DataFusion's threshold when it spills (`spill/mod.rs`).
const SMALL_BYTES: usize = 10 * 1024;

/// Compacts the columns of batches of one schema.
#[derive(Debug, Clone)]
pub(crate) struct Compactor {
    /// The columns that may hold more than they show.
    columns: Vec<usize>,
}

impl Compactor {
    /// A compactor for batches of `schema`.
    pub(crate) fn new(schema: &Schema) -> Self {
        let columns = schema.fields().iter().enumerate();
        Self { columns: columns.filter(|(_, field)| shares(field.data_type())).map(|(index, _)| index).collect() }
    }

    /// `batch` with its wasteful columns copied; the same batch if there are none.
    ///
    /// # Errors
    /// Arrow's, if a column cannot be rebuilt.
    pub(crate) fn compact(&self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut changed: Option<Vec<ArrayRef>> = None;
        for &index in &self.columns {
            if let Some(column) = compact(batch.column(index))? {
                let columns = changed.get_or_insert_with(|| batch.columns().to_vec());
                if let Some(slot) = columns.get_mut(index) {
                    *slot = column;
                }
            }
        }
        match changed {
            Some(columns) => RecordBatch::try_new(batch.schema(), columns),
            None => Ok(batch),
        }
    }
}

/// Whether arrays of this type can hold more than they show and still look small.
fn shares(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(..) => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => shares(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| shares(field.data_type())),
        DataType::RunEndEncoded(_, values) => shares(values.data_type()),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| shares(field.data_type())),
        _ => false,
    }
}

/// A smaller copy of `array`, or `None` if it is fine as it is.
fn compact(array: &ArrayRef) -> Result<Option<ArrayRef>, ArrowError> {
    match array.data_type() {
        DataType::Utf8View => Ok(compact_views::<StringViewType>(array.as_string_view())),
        DataType::BinaryView => Ok(compact_views::<BinaryViewType>(array.as_binary_view())),
        DataType::Dictionary(_, values) => compact_dictionary(array, values),
        data_type if shares(data_type) => compact_children(array),
        _ => Ok(None),
    }
}

fn compact_views<T: ByteViewType>(array: &GenericByteViewArray<T>) -> Option<ArrayRef> {
    let mut seen = BTreeSet::new();
    // The same buffer can be there many times after batches were put together.
    let held: usize =
        array.data_buffers().iter().filter(|buffer| seen.insert(buffer.data_ptr())).map(|buffer| buffer.capacity()).sum();
    if held <= SMALL_BYTES || held / 2 <= array.total_buffer_bytes_used() {
        return None;
    }
    Some(Arc::new(array.gc()))
}

fn compact_dictionary(array: &ArrayRef, value_type: &DataType) -> Result<Option<ArrayRef>, ArrowError> {
    let Some(dictionary) = array.as_any_dictionary_opt() else { return Ok(None) };
    let values = dictionary.values();
    let held = values.get_array_memory_size();
    let per_value = held / values.len().max(1);
    // Each row shows at most one value.
    if held > SMALL_BYTES && held / 2 > per_value.saturating_mul(array.len()) {
        let plain = cast(array, value_type)?;
        return cast(&plain, array.data_type()).map(Some);
    }
    Ok(compact(values)?.map(|values| dictionary.with_values(values)))
}

fn compact_children(array: &ArrayRef) -> Result<Option<ArrayRef>, ArrowError> {
    let data = array.to_data();
    let mut changed = false;
    let mut children = Vec::with_capacity(data.child_data().len());
    for child in data.child_data() {
        let child = make_array(child.clone());
        let compacted = compact(&child)?;
        changed |= compacted.is_some();
        children.push(compacted.unwrap_or(child).to_data());
    }
    if !changed {
        return Ok(None);
    }
    Ok(Some(make_array(data.into_builder().child_data(children).build()?)))
}
