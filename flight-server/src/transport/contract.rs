//! What every transport must do, as functions that each implementation is passed to, and the tests that pass them.

use std::sync::Arc;
use std::time::Duration;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use windrow_core::failure::{Failed, Failure, LostCause};
use windrow_core::ids::{ExecutorId, Incarnation};
use windrow_core::task::{InputGroup, SegmentKey};
use windrow_core::transport::{FetchRequest, ShuffleTransport};
use windrow_executor::timer;

use super::{InProcessTransport, NetworkTransport};
use crate::routine::Routine;
use crate::security::{Access, Dialer};
use crate::serve::{Server, listen};
use crate::shuffle::serve;
use crate::testing::{EXECUTOR, INCARNATION, PATIENCE, Producer, Table, eventually};

/// A producer, and a transport that reaches it.
struct World {
    producer: Producer,
    groups: Vec<InputGroup>,
    transport: Arc<dyn ShuffleTransport<RecordBatch>>,
    /// Groups that nobody answers for.
    nowhere: Vec<InputGroup>,
    server: Option<Server>,
}

impl World {
    async fn in_process(producer: Producer) -> Self {
        let transport = InProcessTransport::new();
        transport.join(EXECUTOR, Arc::clone(producer.executor.store()));
        let groups = producer.groups.clone();
        let nowhere = groups.iter().cloned().map(|group| InputGroup { executor: ExecutorId(99), ..group }).collect();
        Self { producer, groups, transport, nowhere, server: None }
    }

    /// With the smallest window there is, so that every segment of some size meets its bound.
    async fn network(producer: Producer) -> Self {
        let listener = listen("127.0.0.1:0".parse().unwrap(), &Access::open()).await.unwrap();
        let server = serve(listener, "test", Arc::clone(producer.executor.store()), &Access::open()).unwrap();
        let groups = producer.groups_at(&server.address().to_string());
        // Bound and closed again: nobody listens there.
        let closed = listen("127.0.0.1:0".parse().unwrap(), &Access::open()).await.unwrap().local_addr().unwrap();
        let nowhere = producer.groups_at(&closed.to_string());
        Self { producer, groups, transport: Arc::new(NetworkTransport::new(0, Dialer::open())), nowhere, server: Some(server) }
    }

    async fn fetch(&self, groups: Vec<InputGroup>, segment: u32) -> Result<Vec<(u32, RecordBatch)>, Failed> {
        let stream = self.transport.fetch(FetchRequest { groups, segment });
        timer::deadline(PATIENCE, stream.try_collect()).await.expect("a fetch ends")
    }

    async fn lost(&self, groups: Vec<InputGroup>) -> (LostCause, Vec<u32>) {
        let failed = self.fetch(groups, 0).await.unwrap_err();
        match failed.failure {
            Failure::LostInput { cause, partitions, executor, .. } => {
                assert!([EXECUTOR, ExecutorId(99)].contains(&executor));
                (cause, partitions)
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Each segment arrives as it is in the store: every partition of every group, in the order of the request. How many were empty.
async fn segments_arrive_in_order(world: &World) -> usize {
    assert!(world.groups.len() > 1, "several groups");
    let (mut rows, mut empty) = (0, 0);
    for segment in 0..world.producer.segments {
        let fetched = world.fetch(world.groups.clone(), segment).await.unwrap();
        let mut expected = Vec::new();
        for group in &world.groups {
            for &partition in &group.partitions {
                let key = SegmentKey { attempt: group.attempt, partition, segment };
                let batches = world.producer.executor.store().read(INCARNATION, &key).await.unwrap();
                empty += usize::from(batches.is_empty());
                expected.extend(batches.into_iter().map(|batch| (partition, batch)));
            }
        }
        assert_eq!(fetched, expected);
        rows += fetched.iter().map(|(_, batch)| batch.num_rows()).sum::<usize>();
    }
    assert!(rows > 0);
    empty
}

async fn a_missing_attempt_is_named(world: &World) {
    let mut groups = world.groups.clone();
    groups[1].attempt.attempt.number += 1000;
    let first = groups[1].partitions[0];
    assert_eq!(world.lost(groups).await, (LostCause::Missing, vec![first]));
    let mut groups = world.groups.clone();
    groups[0].partitions.push(4711);
    assert_eq!(world.lost(groups).await, (LostCause::Missing, vec![4711]));
}

async fn another_incarnation_is_fenced(world: &World) {
    let mut groups = world.groups.clone();
    groups[0].incarnation = Incarnation(INCARNATION.0 + 1);
    let partitions = groups[0].partitions.clone();
    assert_eq!(world.lost(groups).await, (LostCause::Fenced, partitions));
}

async fn nobody_there_is_unreachable(world: &World) {
    let partitions = world.nowhere[0].partitions.clone();
    assert_eq!(world.lost(world.nowhere.clone()).await, (LostCause::Unreachable, partitions));
}

/// A reader that leaves frees the other end.
async fn dropping_a_fetch_frees_both_ends(world: &World) {
    let store = world.producer.executor.store();
    let before = Arc::strong_count(store);
    for _ in 0..20 {
        let mut stream = world.transport.fetch(FetchRequest { groups: world.groups.clone(), segment: 0 });
        if let Some(first) = timer::deadline(PATIENCE, stream.next()).await.unwrap() {
            assert!(first.is_ok());
        }
    }
    eventually("streams are dropped", || Arc::strong_count(store) <= before).await;
}

async fn nothing_asked_is_nothing_answered(world: &World) {
    assert!(world.fetch(vec![], 0).await.unwrap().is_empty());
}

async fn passes(world: World, some_are_empty: bool) {
    let empty = segments_arrive_in_order(&world).await;
    assert_eq!(empty > 0, some_are_empty, "{empty} empty segments");
    a_missing_attempt_is_named(&world).await;
    another_incarnation_is_fenced(&world).await;
    nobody_there_is_unreachable(&world).await;
    dropping_a_fetch_frees_both_ends(&world).await;
    nothing_asked_is_nothing_answered(&world).await;
    if let Some(server) = world.server {
        server.shutdown().await;
    }
    world.producer.executor.shutdown().await;
}

/// Segments of megabytes with whole rows in them.
async fn large() -> Producer {
    let table = Table::new(4, 20_000, 100);
    let sql = format!("SELECT a.id, a.name, b.one FROM {0} a JOIN {0} b ON a.id = b.id", table.name());
    Producer::run(&sql, 4).await
}

/// One row a partition, in one of four segments.
async fn sparse() -> Producer {
    let table = Table::new(4, 100, 1);
    Producer::run(&format!("SELECT one, count(*) FROM {} GROUP BY one", table.name()), 4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_process_passes_the_contract() {
    passes(World::in_process(large().await).await, false).await;
    passes(World::in_process(sparse().await).await, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_passes_the_contract() {
    passes(World::network(large().await).await, false).await;
    passes(World::network(sparse().await).await, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_process_shares_the_producers_batches() {
    let world = World::in_process(large().await).await;
    let fetched = world.fetch(world.groups.clone(), 0).await.unwrap();
    let group = &world.groups[0];
    let key = SegmentKey { attempt: group.attempt, partition: group.partitions[0], segment: 0 };
    let held = world.producer.executor.store().read(INCARNATION, &key).await.unwrap();
    assert!(Arc::ptr_eq(fetched[0].1.column(0), held[0].column(0)), "nothing was copied");
}

/// Carries one connection to `target` until it is dropped, which cuts it.
async fn proxy(target: std::net::SocketAddr) -> (String, Routine) {
    let listener = listen("127.0.0.1:0".parse().unwrap(), &Access::open()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let routine = Routine::spawn("test", "proxy", async move {
        let (mut client, _) = listener.accept().await.unwrap();
        drop(listener);
        let mut server = tokio::net::TcpStream::connect(target).await.unwrap();
        // Ends with an error when it is cut.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    (address, routine)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_in_the_middle_loses_the_rest() {
    let world = World::network(large().await).await;
    let (address, proxy) = proxy(world.server.as_ref().unwrap().address()).await;
    let groups = world.producer.groups_at(&address);
    let mut stream = world.transport.fetch(FetchRequest { groups, segment: 0 });
    assert!(stream.next().await.unwrap().is_ok());
    drop(proxy);
    let rest: Result<Vec<_>, Failed> = timer::deadline(Duration::from_secs(30), stream.try_collect()).await.unwrap();
    let failed = rest.unwrap_err();
    assert!(matches!(failed.failure, Failure::LostInput { cause: LostCause::Unreachable, executor: EXECUTOR, .. }), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_table_crosses_the_network_once() {
    let table = Table::new(4, 5_000, 20);
    let sql = format!("SELECT a.id FROM {0} a JOIN {0} b ON a.id = b.id", table.name());
    let world = World::network(Producer::run(&sql, 4).await).await;
    let mut ids = Vec::new();
    for segment in 0..world.producer.segments {
        let batches: Vec<_> = world.fetch(world.groups.clone(), segment).await.unwrap().into_iter().map(|(_, b)| b).collect();
        let all = concat_batches(&batches[0].schema(), &batches).unwrap();
        let column = arrow::compute::cast(all.column(0), &arrow::datatypes::DataType::Int64).unwrap();
        let column = column.as_any().downcast_ref::<arrow::array::Int64Array>().unwrap().clone();
        ids.extend(column.values().iter().copied());
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..i64::try_from(table.rows).unwrap()).collect::<Vec<_>>());
}
