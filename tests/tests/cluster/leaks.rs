//! Many queries in a row leave nothing behind: no growing memory, no open files, no files on disk.

use windrow_tests::rows::Answer;
use windrow_tests::{engine, wait};

use crate::answers::{self, data};
use crate::program::{self, LIMIT};

const QUERIES: usize = 200;

/// Resident bytes and open files of each executor.
fn measure(pids: &[u32]) -> Vec<(u64, usize)> {
    pids.iter().map(|pid| (program::resident(*pid), program::open_files(*pid))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_queries_leave_nothing_behind() {
    let data = data().await;
    let cluster = answers::processes(2).await;
    let session = cluster.session().await.unwrap();
    answers::prepare(&session, &data.folder, 4).await;
    let pids = cluster.pids().into_iter().flatten().collect::<Vec<_>>();
    assert_eq!(pids.len(), 2);
    let numbers = [1_usize, 3, 6, 12, 14];
    let mut before = Vec::new();
    for round in 0..QUERIES {
        let number = numbers[round % numbers.len()];
        let (schema, batches) = engine::run(&session, data.sql(number)).await.unwrap();
        assert_eq!(data.difference(number, &Answer::new(&schema, &batches)), None, "q{number:02} in round {round}");
        // The first quarter fills caches and the allocator's pages.
        if round + 1 == QUERIES / 4 {
            before = measure(&pids);
        }
    }
    wait::until("empty stores", LIMIT, async || {
        let executors = cluster.status().executors;
        executors.iter().all(|executor| executor.slots_used == 0 && executor.store_bytes + executor.disk_bytes == 0).then_some(())
    })
    .await;
    for ((resident_before, files_before), (resident, files)) in before.into_iter().zip(measure(&pids)) {
        println!("resident {} -> {} MB, open files {files_before} -> {files}", resident_before >> 20, resident >> 20);
        let allowed = resident_before + resident_before / 5 + (24 << 20);
        assert!(resident <= allowed, "memory grew from {resident_before} to {resident} bytes");
        assert!(files <= files_before + 4, "open files grew from {files_before} to {files}");
    }
    let jobs = cluster.status().jobs;
    assert!(jobs.iter().all(|job| job.progress.state.is_over()), "{} jobs are still alive", jobs.len());
    drop(session);
    cluster.shutdown().await;
}
