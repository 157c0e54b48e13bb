//! Tests of the store: what is visible, when, and from where.

use std::os::unix::fs::FileExt;

use arrow::array::{Int64Array, StringViewArray};
use arrow::record_batch::RecordBatch;
use windrow_core::failure::{Failure, LostCause, Resource};
use windrow_core::stage::Exchange;

use super::*;
use crate::shuffle::write::PartitionWriter;
use crate::testing::{INCARNATION, StoreFixture, attempt, eventually, keys, store};

fn rows(from: i64, count: i64) -> RecordBatch {
    let numbers = Int64Array::from_iter_values(from..from + count);
    let words = StringViewArray::from_iter_values((from..from + count).map(|n| format!("the word for the number {n}")));
    RecordBatch::try_from_iter([("n", Arc::new(numbers) as _), ("w", Arc::new(words) as _)]).unwrap()
}

fn key(number: u32, partition: u32, segment: u32) -> SegmentKey {
    SegmentKey { attempt: attempt(0, number), partition, segment }
}

async fn write(fixture: &StoreFixture, number: u32, partition: u32, segments: u32) -> Result<(), Failed> {
    let batch = rows(0, 8192);
    let exchange = Exchange::Hash { partitions: segments };
    let output = (attempt(0, number), partition);
    let mut writer = PartitionWriter::new(&fixture.store, INCARNATION, output, exchange, &keys(&batch, "n"), batch.schema())?;
    for start in 0..4 {
        writer.push(rows(start * 8192, 8192)).await?;
    }
    writer.finish().await.map(|_| ())
}

async fn count(fixture: &StoreFixture, number: u32, partition: u32, segments: u32) -> usize {
    let mut count = 0;
    for segment in 0..segments {
        let batches = fixture.store.read(INCARNATION, &key(number, partition, segment)).await.unwrap();
        count += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
    }
    count
}

#[tokio::test]
async fn only_the_committed_output_of_the_named_attempt_and_incarnation_is_read() {
    let fixture = store(1 << 30, 1 << 30);
    let batch = rows(0, 10);
    let output = (attempt(0, 1), 3);
    let mut writer = PartitionWriter::new(&fixture.store, INCARNATION, output, Exchange::Merge, &[], batch.schema()).unwrap();
    writer.push(batch.clone()).await.unwrap();
    assert_eq!(fixture.store.read(INCARNATION, &key(1, 3, 0)).await, Err(LostCause::Missing), "not committed yet");
    writer.finish().await.unwrap();
    assert_eq!(fixture.store.read(INCARNATION, &key(1, 3, 0)).await.unwrap(), [batch]);
    assert_eq!(fixture.store.read(INCARNATION, &key(2, 3, 0)).await, Err(LostCause::Missing), "another attempt");
    assert_eq!(fixture.store.read(INCARNATION, &key(1, 4, 0)).await, Err(LostCause::Missing), "another partition");
    assert_eq!(fixture.store.read(Incarnation(6), &key(1, 3, 0)).await, Err(LostCause::Fenced));
    fixture.store.begin(Incarnation(8));
    assert_eq!(fixture.store.read(INCARNATION, &key(1, 3, 0)).await, Err(LostCause::Fenced));
    assert_eq!(fixture.store.read(Incarnation(8), &key(1, 3, 0)).await, Err(LostCause::Missing));
}

#[tokio::test]
async fn a_commit_of_an_older_incarnation_is_refused() {
    let fixture = store(1 << 30, 1 << 30);
    let batch = rows(0, 10);
    let output = (attempt(0, 1), 0);
    let mut writer = PartitionWriter::new(&fixture.store, INCARNATION, output, Exchange::Merge, &[], batch.schema()).unwrap();
    writer.push(batch).await.unwrap();
    fixture.store.begin(Incarnation(8));
    let failed = writer.finish().await.unwrap_err();
    assert_eq!(failed.failure, Failure::Cancelled { why: CancelReason::Stale });
    assert_eq!(fixture.store.pool().reserved(), 0);
}

#[tokio::test]
async fn releasing_deletes_exactly_what_is_named() {
    let fixture = store(1 << 30, 1 << 30);
    for number in 0..3 {
        write(&fixture, number, number, 1).await.unwrap();
    }
    fixture.store.release_attempt(attempt(0, 1));
    assert_eq!(fixture.store.read(INCARNATION, &key(1, 1, 0)).await, Err(LostCause::Missing));
    assert_eq!(count(&fixture, 0, 0, 1).await + count(&fixture, 2, 2, 1).await, 2 * 4 * 8192);
    fixture.store.release_stage(JobStage { job: JobId(1), stage: StageId(1) });
    fixture.store.release_job(JobId(2));
    assert_eq!(count(&fixture, 0, 0, 1).await, 4 * 8192, "another stage and another job");
    fixture.store.release_stage(JobStage { job: JobId(1), stage: StageId(0) });
    assert_eq!(fixture.store.read(INCARNATION, &key(0, 0, 0)).await, Err(LostCause::Missing));
    eventually("all memory is given back", || fixture.store.pool().reserved() == 0).await;
    assert_eq!(fixture.store.memory_bytes(), 0);
}

#[tokio::test]
async fn cold_segments_are_evicted_read_back_equal_and_their_files_removed() {
    let fixture = store(1 << 30, 1 << 30);
    write(&fixture, 0, 0, 5).await.unwrap();
    let mut before = Vec::new();
    for segment in 0..5 {
        before.push(fixture.store.read(INCARNATION, &key(0, 0, segment)).await.unwrap());
    }
    let bytes = fixture.store.pool().reserved();
    // A second store whose pool holds the same output above its eviction threshold.
    let tight = store(bytes * 5 / 4, 1 << 30);
    write(&tight, 0, 0, 5).await.unwrap();
    assert_eq!(tight.store.disk_bytes(), 0);
    tight.store.evict();
    assert!(tight.store.disk_bytes() > 0);
    assert_eq!(tight.store.pool().reserved(), bytes, "clean, and still in memory");
    assert!(tight.store.reclaim(1, false) > 0);
    assert_eq!((tight.store.pool().reserved(), tight.store.memory_bytes()), (0, 0));
    for (segment, expected) in (0..5).zip(before) {
        assert_eq!(tight.store.read(INCARNATION, &key(0, 0, segment)).await.unwrap(), expected);
    }
    let path = tight.store.file_of((attempt(0, 0), 0)).unwrap().path().to_owned();
    assert!(path.exists());
    tight.store.release_job(JobId(1));
    eventually("the file is removed", || !path.exists() && tight.store.disk_bytes() == 0).await;
}

#[tokio::test]
async fn a_flipped_byte_on_disk_is_a_corrupt_output_and_a_removed_file_a_missing_one() {
    let fixture = store(1 << 10, 1 << 30);
    write(&fixture, 0, 0, 3).await.unwrap();
    let path = fixture.store.file_of((attempt(0, 0), 0)).expect("written under pressure").path().to_owned();
    assert_eq!(count(&fixture, 0, 0, 3).await, 4 * 8192);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    let mut causes = Vec::new();
    for segment in 0..3 {
        causes.extend(fixture.store.read(INCARNATION, &key(0, 0, segment)).await.err());
    }
    assert_eq!(causes, [LostCause::Corrupt], "exactly the segment that holds the byte");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(fixture.store.read(INCARNATION, &key(0, 0, 0)).await, Err(LostCause::Missing));
}

#[tokio::test]
async fn ten_thousand_flipped_bits_on_disk_are_found() {
    let fixture = store(1 << 10, 1 << 30);
    write(&fixture, 0, 0, 3).await.unwrap();
    let path = fixture.store.file_of((attempt(0, 0), 0)).expect("written under pressure").path().to_owned();
    let whole = std::fs::read(&path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mut rng = windrow_core::rand::seeded(4);
    for flip in 0..10_000 {
        let place = rng.usize(..whole.len());
        file.write_all_at(&[whole[place] ^ (1 << rng.u8(..8))], place as u64).unwrap();
        let mut causes = Vec::new();
        for segment in 0..3 {
            causes.extend(fixture.store.read(INCARNATION, &key(0, 0, segment)).await.err());
        }
        assert_eq!(causes, [LostCause::Corrupt], "flip {flip} of byte {place}");
        file.write_all_at(&whole[place..place + 1], place as u64).unwrap();
    }
    assert_eq!(count(&fixture, 0, 0, 3).await, 4 * 8192);
}

#[tokio::test]
async fn a_pool_of_a_half_a_tenth_and_a_hundredth_of_the_output_loses_no_row() {
    let whole = store(1 << 30, 1 << 30);
    write(&whole, 0, 0, 7).await.unwrap();
    let bytes = whole.store.pool().reserved();
    for part in [2, 10, 100] {
        let fixture = store(bytes / part, 1 << 30);
        for number in 0..3 {
            write(&fixture, number, number, 7).await.unwrap();
            fixture.store.evict();
        }
        assert!(fixture.store.pool().reserved() <= bytes / part);
        for number in 0..3 {
            assert_eq!(count(&fixture, number, number, 7).await, 4 * 8192);
        }
    }
}

#[tokio::test]
async fn a_full_quota_is_a_shortage_of_disk_and_leaves_no_file() {
    let fixture = store(1 << 10, 10_000);
    let failed = write(&fixture, 0, 0, 3).await.unwrap_err();
    assert!(matches!(failed.failure, Failure::Resources { what: Resource::Disk, limit: 10_000, .. }), "{failed:?}");
    assert!(failed.message.contains(&fixture.parent.path().display().to_string()), "{failed}");
    assert_eq!(fixture.store.disk_bytes(), 0);
    let files = std::fs::read_dir(fixture.store.spill().path()).unwrap().count();
    assert_eq!(files, 1, "the owner's file alone");
}
