//! Tests of the reader: local and fetched inputs, bounds, sharing, and errors that must not look like the end.

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use windrow_core::stage::{Exchange, InputRead};

use super::*;
use crate::shuffle::write::PartitionWriter;
use crate::testing::{INCARNATION, attempt, eventually, store};

const HERE: ExecutorId = ExecutorId(1);
const AWAY: ExecutorId = ExecutorId(2);

fn batch(value: i64) -> RecordBatch {
    RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![value; 1000])) as _)]).unwrap()
}

/// Gives three batches a partition, whose values name the executor, the partition and the batch.
#[derive(Debug, Default)]
struct Counting {
    fetches: AtomicUsize,
    polled: Arc<AtomicUsize>,
    fails: bool,
}

impl ShuffleTransport<RecordBatch> for Counting {
    fn fetch(&self, request: FetchRequest) -> stream::BoxStream<'static, Result<(u32, RecordBatch), Failed>> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let polled = Arc::clone(&self.polled);
        let executor = i64::from(request.groups[0].executor.0);
        assert!(request.groups.iter().all(|group| group.executor == request.groups[0].executor), "one executor a stream");
        let keys: Vec<SegmentKey> = request.keys().collect();
        let failed = self.fails.then(|| lost(&keys[0], AWAY, INCARNATION, LostCause::Unreachable));
        let batches = keys.into_iter().flat_map(move |key| {
            (0..3).map(move |index| Ok((key.partition, batch(executor * 100 + i64::from(key.partition) * 10 + index))))
        });
        stream::iter(batches.chain(failed.map(Err)))
            .inspect(move |_| {
                polled.fetch_add(1, Ordering::SeqCst);
            })
            .boxed()
    }
}

fn group(executor: ExecutorId, number: u32, partitions: Vec<u32>) -> InputGroup {
    InputGroup { attempt: attempt(0, number), executor, incarnation: INCARNATION, address: None, partitions }
}

fn reader(store: &Arc<ShuffleStore>, transport: &Arc<Counting>, groups: Vec<InputGroup>, shared: bool) -> ShuffleReader {
    ShuffleReader {
        executor: HERE,
        incarnation: INCARNATION,
        inputs: vec![InputVector { read: InputRead::Whole, groups: Arc::new(groups) }],
        store: Arc::clone(store),
        transport: Arc::clone(transport) as _,
        window: 16 * 1024,
        broadcasts: shared.then(|| Arc::new(Broadcasts::new(Arc::clone(store.pool())))),
    }
}

async fn values(batches: Batches) -> Result<Vec<i64>, Failed> {
    let batches: Vec<RecordBatch> = batches.try_collect().await?;
    Ok(batches.iter().map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0)).collect())
}

async fn commit(store: &Arc<ShuffleStore>, number: u32, partition: u32, value: i64) {
    let key = (attempt(0, number), partition);
    let schema = batch(0).schema();
    let mut writer = PartitionWriter::new(store, INCARNATION, key, Exchange::Merge, &[], schema).unwrap();
    writer.push(batch(value)).await.unwrap();
    writer.finish().await.unwrap();
}

#[tokio::test]
async fn a_segment_is_read_from_every_executor_once_each_and_producers_keep_their_order() {
    let fixture = store(1 << 30, 1 << 30);
    commit(&fixture.store, 0, 0, 7).await;
    let groups =
        vec![group(HERE, 0, vec![0]), group(AWAY, 1, vec![1, 3]), group(AWAY, 2, vec![2]), group(ExecutorId(3), 3, vec![4])];
    let transport = Arc::new(Counting::default());
    let reader = reader(&fixture.store, &transport, groups, false);
    let values = values(reader.read(0, InputPart::Segment(0)).unwrap()).await.unwrap();
    assert_eq!(transport.fetches.load(Ordering::SeqCst), 2, "one stream an executor");
    let of = |producer: i64| -> Vec<i64> { values.iter().copied().filter(|value| value / 10 == producer).collect() };
    assert_eq!((of(21), of(22), of(34)), (vec![210, 211, 212], vec![220, 221, 222], vec![340, 341, 342]));
    assert_eq!(values.len(), 1 + 4 * 3);
    assert!(values.contains(&7));
}

#[tokio::test]
async fn a_producer_that_no_group_holds_is_empty() {
    let fixture = store(1 << 30, 1 << 30);
    let transport = Arc::new(Counting::default());
    for shared in [false, true] {
        let reader = reader(&fixture.store, &transport, vec![group(AWAY, 1, vec![1, 3])], shared);
        assert_eq!(values(reader.read(0, InputPart::Producer(2)).unwrap()).await.unwrap(), Vec::<i64>::new());
        assert_eq!(values(reader.read(0, InputPart::Producer(3)).unwrap()).await.unwrap(), [230, 231, 232]);
    }
    let reader = reader(&fixture.store, &transport, Vec::new(), false);
    assert!(reader.read(1, InputPart::Segment(0)).is_err(), "there is no second input");
}

#[tokio::test]
async fn a_lost_local_output_names_attempt_partition_and_cause() {
    let fixture = store(1 << 30, 1 << 30);
    let transport = Arc::new(Counting::default());
    let reader = reader(&fixture.store, &transport, vec![group(HERE, 5, vec![2])], false);
    let failed = values(reader.read(0, InputPart::Segment(0)).unwrap()).await.unwrap_err();
    let expected = Failure::LostInput {
        attempt: attempt(0, 5),
        partitions: vec![2],
        executor: HERE,
        incarnation: INCARNATION,
        cause: LostCause::Missing,
    };
    assert_eq!(failed.failure, expected);
}

#[tokio::test]
async fn an_error_of_the_transport_comes_after_its_rows_and_ends_the_stream() {
    let fixture = store(1 << 30, 1 << 30);
    let transport = Arc::new(Counting { fails: true, ..Counting::default() });
    let reader = reader(&fixture.store, &transport, vec![group(AWAY, 1, vec![1])], false);
    let items: Vec<_> = reader.read(0, InputPart::Segment(0)).unwrap().collect().await;
    assert_eq!(items.len(), 4);
    assert!(items[..3].iter().all(Result::is_ok));
    assert!(matches!(items[3].as_ref().unwrap_err().failure, Failure::LostInput { cause: LostCause::Unreachable, .. }));
}

#[tokio::test]
async fn no_more_than_the_window_is_read_ahead() {
    let fixture = store(1 << 30, 1 << 30);
    let transport = Arc::new(Counting::default());
    // A batch has some 8 KB and the window 16: two wait, one is held by the task.
    let partitions: Vec<u32> = (0..20).collect();
    let reader = reader(&fixture.store, &transport, vec![group(AWAY, 1, partitions)], false);
    let mut batches = reader.read(0, InputPart::Segment(0)).unwrap();
    batches.next().await.unwrap().unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let ahead = transport.polled.load(Ordering::SeqCst);
    assert!((2..=5).contains(&ahead), "{ahead} batches were read, one was taken");
    assert_eq!(values(batches).await.unwrap().len(), 59);
}

#[tokio::test]
async fn what_several_attempts_read_whole_is_fetched_once_and_given_back_with_its_job() {
    let fixture = store(1 << 30, 1 << 30);
    let transport = Arc::new(Counting::default());
    let reader = reader(&fixture.store, &transport, vec![group(AWAY, 1, vec![1, 3])], true);
    let reads = (0..4).map(|index| values(reader.read(0, InputPart::Producer(1 + 2 * (index % 2))).unwrap()));
    let all = futures::future::try_join_all(reads).await.unwrap();
    assert_eq!(all[..2], [vec![210, 211, 212], vec![230, 231, 232]]);
    assert_eq!(all[..2], all[2..]);
    assert_eq!(transport.fetches.load(Ordering::SeqCst), 1);
    assert!(datafusion::execution::memory_pool::MemoryPool::reserved(fixture.store.pool().as_ref()) > 0);
    let broadcasts = reader.broadcasts.as_ref().unwrap();
    broadcasts.forget(Some(windrow_core::ids::JobId(99)));
    values(reader.read(0, InputPart::Producer(1)).unwrap()).await.unwrap();
    assert_eq!(transport.fetches.load(Ordering::SeqCst), 1, "another job's end changes nothing");
    broadcasts.forget(Some(attempt(0, 1).job));
    let pool = fixture.store.pool().as_ref();
    eventually("memory is given back", || datafusion::execution::memory_pool::MemoryPool::reserved(pool) == 0).await;
}

#[tokio::test]
async fn what_is_large_beside_the_pool_is_not_shared() {
    let fixture = store(100_000, 1 << 30);
    let transport = Arc::new(Counting::default());
    let reader = reader(&fixture.store, &transport, vec![group(AWAY, 1, vec![1, 3])], true);
    for _ in 0..2 {
        assert_eq!(values(reader.read(0, InputPart::Producer(3)).unwrap()).await.unwrap(), [230, 231, 232]);
    }
    assert_eq!(transport.fetches.load(Ordering::SeqCst), 3, "one to find out, two to read");
}
