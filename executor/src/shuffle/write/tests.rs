//! Tests of the writer: where rows go, how large batches are, what they hold.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StringArray, StringViewArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::execution::memory_pool::MemoryPool;
use windrow_core::task::SegmentKey;

use super::*;
use crate::testing::{INCARNATION, StoreFixture, attempt, keys, store};

fn numbers(from: i64, count: i64) -> RecordBatch {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + count));
    let words = (from..from + count).map(|n| format!("{n} is a number with a long name, longer than any view inlines"));
    let words: Vec<String> = words.collect();
    let views: ArrayRef = Arc::new(StringViewArray::from_iter_values(&words));
    let strings: ArrayRef = Arc::new(StringArray::from_iter_values(&words));
    let field = Arc::new(Field::new("item", DataType::Utf8View, true));
    let lengths = std::iter::repeat_n(1, words.len());
    let list = ListArray::new(field, OffsetBuffer::from_lengths(lengths), Arc::clone(&views), None);
    let nested = StructArray::from(vec![(Arc::new(Field::new("l", list.data_type().clone(), true)), Arc::new(list) as ArrayRef)]);
    RecordBatch::try_from_iter([("n", n), ("v", views), ("s", strings), ("nested", Arc::new(nested) as ArrayRef)]).unwrap()
}

async fn write(fixture: &StoreFixture, batches: &[RecordBatch], exchange: Exchange) -> (PartitionStat, Vec<Vec<RecordBatch>>) {
    let output = (attempt(0, 0), 0);
    let schema = batches[0].schema();
    let keys = keys(&batches[0], "n");
    let mut writer = PartitionWriter::new(&fixture.store, INCARNATION, output, exchange, &keys, schema).unwrap();
    for batch in batches {
        writer.push(batch.clone()).await.unwrap();
    }
    let stat = writer.finish().await.unwrap();
    let mut segments = Vec::new();
    for segment in 0..exchange.segments() {
        let key = SegmentKey { attempt: output.0, partition: 0, segment };
        segments.push(fixture.store.read(INCARNATION, &key).await.unwrap());
    }
    (stat, segments)
}

/// The bytes of `batch` if nothing were shared: each column written anew.
fn bytes_shown(batch: &RecordBatch) -> usize {
    fn shown(array: &dyn Array) -> usize {
        match array.data_type() {
            DataType::Utf8View => array.len() * 16 + array.as_string_view().total_buffer_bytes_used(),
            DataType::Struct(_) => array.as_struct().columns().iter().map(|column| shown(column)).sum(),
            DataType::List(_) => 4 * (array.len() + 1) + shown(array.as_list::<i32>().values()),
            _ => array.to_data().get_slice_memory_size().unwrap(),
        }
    }
    batch.columns().iter().map(|column| shown(column)).sum()
}

#[tokio::test]
async fn rows_go_where_datafusion_sends_them_in_full_batches() {
    let fixture = store(1 << 30, 1 << 30);
    let batches: Vec<_> = (0..20).map(|index| numbers(index * 8192, 8192)).collect();
    for count in [1, 3, 7] {
        let (stat, segments) = write(&fixture, &batches, Exchange::Hash { partitions: count }).await;
        assert_eq!(stat.rows, 20 * 8192);
        let mut expected = vec![Vec::new(); count as usize];
        let keys = keys(&batches[0], "n");
        let mut partitioner = BatchPartitioner::new_hash_partitioner(keys, count as usize, Time::new()).unwrap();
        for batch in &batches {
            let mut take = |index: usize, part: RecordBatch| {
                expected[index].extend(part.column(0).as_primitive::<Int64Type>().values().iter().copied());
                Ok(())
            };
            partitioner.partition(batch.clone(), &mut take).unwrap();
        }
        for (segment, expected) in segments.iter().zip(expected) {
            let values = segment.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec());
            assert_eq!(values.collect::<Vec<_>>(), expected);
            let (_last, full) = segment.split_last().unwrap();
            let least = if count as usize > UNCOPIED_CONSUMERS_MAX { BATCH_ROWS } else { BATCH_ROWS / 8 };
            assert!(full.iter().all(|batch| batch.num_rows() >= least));
        }
    }
}

#[tokio::test]
async fn a_partition_holds_little_more_than_it_shows() {
    for count in [1, 8, 64] {
        let fixture = store(1 << 30, 1 << 30);
        // Taken from one array each: every row keeps the buffers of 8192.
        let batches: Vec<_> = (0..40).map(|index| numbers(index * 8192, 8192)).collect();
        let (stat, segments) = write(&fixture, &batches, Exchange::Hash { partitions: count }).await;
        let shown: usize = segments.iter().flatten().map(bytes_shown).sum();
        let held = fixture.store.pool().reserved();
        assert_eq!(held as u64, stat.bytes());
        assert!(held as f64 <= 1.3 * shown as f64, "{count} partitions hold {held} bytes and show {shown}");
        for batch in segments.iter().flatten() {
            let (held, shown) = (get_record_batch_memory_size(batch), bytes_shown(batch));
            assert!(held as f64 <= 1.3 * shown as f64 + 2.0 * 10_240.0, "a batch holds {held} bytes and shows {shown}");
        }
    }
}

#[tokio::test]
async fn many_consumers_of_few_rows_cost_little() {
    let fixture = store(1 << 30, 1 << 30);
    let (stat, segments) = write(&fixture, &[numbers(0, 300)], Exchange::Hash { partitions: 257 }).await;
    assert_eq!((stat.rows, stat.segment_bytes.len()), (300, 257));
    assert_eq!(segments.iter().flatten().map(RecordBatch::num_rows).sum::<usize>(), 300);
    // 300 rows of some 250 bytes; padding of small buffers to 64 bytes dominates.
    assert!(stat.bytes() < 600_000, "{} bytes", stat.bytes());
}

#[tokio::test]
async fn skewed_rows_do_not_pin_the_batches_they_came_in() {
    let fixture = store(1 << 30, 1 << 30);
    let batch = numbers(0, 8192);
    let mut partitioner = BatchPartitioner::new_hash_partitioner(keys(&batch, "n"), 16, Time::new()).unwrap();
    let mut parts = Vec::new();
    partitioner
        .partition(batch, |_, part| {
            parts.push(part);
            Ok(())
        })
        .unwrap();
    let one_part = parts[0].slice(0, 1);
    let output = (attempt(0, 0), 0);
    let exchange = Exchange::Hash { partitions: 16 };
    let mut writer =
        PartitionWriter::new(&fixture.store, INCARNATION, output, exchange, &keys(&one_part, "n"), one_part.schema()).unwrap();
    for index in 0..100 {
        writer.push(numbers(index * 4096, 4096)).await.unwrap();
        assert!(writer.pinned_bytes <= PINNED_BYTES_MAX.max(2 * writer.copied_bytes));
    }
    assert_eq!(writer.finish().await.unwrap().rows, 100 * 4096);
}

#[tokio::test]
async fn merged_batches_are_kept_as_they_came() {
    let fixture = store(1 << 30, 1 << 30);
    let batches = [numbers(0, 100), numbers(100, 50)];
    let (_, segments) = write(&fixture, &batches, Exchange::Merge).await;
    assert_eq!(segments, [batches.to_vec()]);
    assert!(Arc::ptr_eq(segments[0][0].column(0), batches[0].column(0)), "not copied");
}
