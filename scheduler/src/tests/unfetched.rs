//! Results that nobody reads: their jobs are held, and whoever waits for anything gets it.

use super::*;

/// A job of eight result partitions of 40 bytes each, on one executor with one slot, that is held above `limit` bytes.
fn held_above(limit: u64) -> Cluster {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1]);
    cluster.scheduler.limit_unfetched(limit);
    cluster.submit(one_stage(8));
    cluster.finish_all();
    cluster
}

fn done_so_far(cluster: &Cluster) -> u32 {
    let progress = cluster.scheduler.job_progress(JOB).unwrap();
    progress.stages[0].done
}

fn attempt_of(cluster: &Cluster, wanted: u32) -> AttemptId {
    let found = cluster.said.iter().rev().find_map(|action| match action {
        Action::ResultReady { partition, location: Some(group), .. } if *partition == wanted => Some(group.attempt),
        _ => None,
    });
    found.unwrap()
}

fn read(cluster: &mut Cluster, partition: u32) {
    let attempt = Some(attempt_of(cluster, partition));
    cluster.step(Event::ResultDelivered { job: JOB, partition, attempt });
}

fn await_it(cluster: &mut Cluster, partition: Option<u32>) {
    cluster.step(Event::ResultAwaited { job: JOB, partition });
}

#[test]
fn a_result_that_nobody_reads_does_not_grow_without_end() {
    let mut cluster = held_above(100);
    assert_eq!((done_so_far(&cluster), cluster.running.len()), (3, 0), "120 bytes are more than 100");
    assert_eq!(cluster.scheduler.executors()[0].used, 0, "no slot is held");
    read(&mut cluster, 0);
    assert_eq!(cluster.running.len(), 1, "a reader brings it on");
    cluster.finish_all();
    assert_eq!(done_so_far(&cluster), 4);
    for partition in 1..8 {
        read(&mut cluster, partition);
        cluster.finish_all();
    }
    assert_eq!(cluster.phase(), JobPhase::Succeeded);
}

#[test]
fn without_a_limit_nobody_is_held() {
    let mut cluster = held_above(0);
    assert_eq!((done_so_far(&cluster), cluster.phase()), (8, JobPhase::Succeeded));
    await_it(&mut cluster, None);
    assert_eq!(cluster.scheduler.counters().stale_messages.total(), 0);
}

#[test]
fn what_a_reader_waits_for_begins_whatever_it_is() {
    let mut cluster = held_above(100);
    for partition in [6, 4] {
        await_it(&mut cluster, Some(partition));
        assert_eq!(cluster.slices(), [(0, partition, partition + 1)]);
        await_it(&mut cluster, Some(partition));
        cluster.finish_all();
        assert!(cluster.running.is_empty(), "and nothing else");
    }
    await_it(&mut cluster, Some(1));
    await_it(&mut cluster, Some(99));
    assert!(cluster.running.is_empty(), "what is there, or is nowhere, is not waited for");
    assert_eq!(done_so_far(&cluster), 5);
    // One that fails is still waited for.
    await_it(&mut cluster, Some(7));
    cluster.fail_one(Failure::Corrupt);
    assert_eq!(cluster.slices(), [(0, 7, 8)]);
}

#[test]
fn who_waits_for_the_end_gets_there_step_by_step() {
    let mut cluster = held_above(100);
    for done in [6, 8] {
        await_it(&mut cluster, None);
        cluster.finish_all();
        assert_eq!(done_so_far(&cluster), done);
    }
    assert_eq!(cluster.phase(), JobPhase::Succeeded);
}

#[test]
fn a_held_job_leaves_the_cluster_to_others_and_ends_when_it_is_given_up() {
    let mut cluster = held_above(100);
    let other = JobId(JOB.0 + 1);
    let graph = Arc::new(StageGraph { stages: one_stage(2), settings: Vec::new() });
    cluster.step(Event::JobSubmitted { job: other, graph, user: "ann".into(), time_limit: None });
    cluster.finish_all();
    assert_eq!(cluster.scheduler.job_progress(other).unwrap().phase, JobPhase::Succeeded);
    cluster.step(Event::JobReleased { job: JOB });
    assert!(cluster.scheduler.job_progress(JOB).is_none());
    cluster.step(Event::ResultAwaited { job: JOB, partition: None });
    assert_eq!(cluster.scheduler.counters().stale_messages.job, 1);
}

#[test]
fn a_lost_partition_counts_no_more_and_a_kept_one_that_was_read_counts_never_again() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1, 1]);
    cluster.scheduler.limit_unfetched(100);
    cluster.submit(one_stage(8));
    cluster.step(Event::ResultKept { job: JOB });
    cluster.finish_all();
    let before = done_so_far(&cluster);
    (0..before).for_each(|partition| read(&mut cluster, partition));
    cluster.finish_all();
    while cluster.phase() != JobPhase::Succeeded {
        (0..done_so_far(&cluster)).for_each(|partition| read(&mut cluster, partition));
        cluster.finish_all();
    }
    (0..8).for_each(|partition| read(&mut cluster, partition));
    cluster.lose(1, 1);
    cluster.finish_all();
    assert_eq!(cluster.phase(), JobPhase::Succeeded, "what was read runs again, whoever reads");
}
