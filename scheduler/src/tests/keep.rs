//! Results that are kept: what is lost of them runs again, what they were made from is released, and they end when they are released.

use super::*;

/// A kept job of `three_stages(4, 2)` with a result of two partitions, all done; where each partition of the result is.
fn kept(repeats: Repeats) -> (Cluster, BTreeMap<u32, InputGroup>) {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[2, 2]);
    let mut stages = vec![stage(0, 4, Exchange::Hash { partitions: 2 }, &[]), stage(1, 2, Exchange::Result, &[(0, hash(2))])];
    stages[1].repeats = repeats;
    cluster.submit(stages);
    cluster.step(Event::ResultKept { job: JOB });
    cluster.finish_all();
    assert_eq!(cluster.phase(), JobPhase::Succeeded);
    let places = places(&cluster);
    (cluster, places)
}

/// Where each result partition was last said to be.
fn places(cluster: &Cluster) -> BTreeMap<u32, InputGroup> {
    let ready = cluster.said.iter().filter_map(|action| match action {
        Action::ResultReady { partition, location: Some(group), .. } => Some((*partition, group.clone())),
        _ => None,
    });
    ready.collect()
}

fn deliver(cluster: &mut Cluster, group: &InputGroup, partition: u32) {
    cluster.step(Event::ResultDelivered { job: JOB, partition, attempt: Some(group.attempt) });
}

fn held(cluster: &Cluster) -> u64 {
    cluster.scheduler.executors().iter().map(|executor| executor.held).sum()
}

#[test]
fn a_kept_result_is_all_that_its_job_holds() {
    let (mut cluster, places) = kept(Repeats::Repeatable);
    assert_eq!(held(&cluster), 2, "the leaves are released, the result is not");
    for (partition, group) in &places {
        deliver(&mut cluster, group, *partition);
        deliver(&mut cluster, group, *partition);
    }
    assert_eq!((cluster.phase(), held(&cluster)), (JobPhase::Succeeded, 2), "reading takes nothing away");
    cluster.step(Event::JobReleased { job: JOB });
    assert_eq!(held(&cluster), 0);
    assert!(cluster.scheduler.executors().iter().all(|executor| executor.used == 0));
}

#[test]
fn a_kept_result_that_is_lost_runs_again_though_it_was_read() {
    let (mut cluster, places) = kept(Repeats::Repeatable);
    for (partition, group) in &places {
        deliver(&mut cluster, group, *partition);
    }
    let loser = places[&0].executor.0;
    let lost = places.values().filter(|group| group.executor.0 == loser).count() as u64;
    cluster.lose(loser, 1);
    assert_eq!(cluster.phase(), JobPhase::Running);
    cluster.finish_all();
    assert_eq!(cluster.phase(), JobPhase::Succeeded);
    assert_eq!(cluster.reran(), [4, lost], "with the leaves it was made from");
    assert_eq!(held(&cluster), 2);
    assert_ne!(self::places(&cluster)[&0].executor.0, loser);
}

#[test]
fn a_kept_result_that_may_come_out_otherwise_runs_again_only_if_nobody_has_read_it() {
    for repeats in [Repeats::AsSlice, Repeats::Varying] {
        for read in [0, 1, 2] {
            let (mut cluster, places) = kept(repeats);
            for partition in 0..read {
                deliver(&mut cluster, &places[&partition], partition);
            }
            for (partition, InputGroup { executor, incarnation, attempt, .. }) in &places {
                let (executor, incarnation, attempt) = (*executor, *incarnation, *attempt);
                cluster.step(Event::OutputLost {
                    executor,
                    incarnation,
                    attempt,
                    partitions: vec![*partition],
                    why: String::new(),
                });
                if cluster.phase() != JobPhase::Running {
                    break;
                }
            }
            cluster.finish_all();
            let failed = failure_of(&cluster.said);
            if read == 0 {
                assert_eq!((cluster.phase(), failed), (JobPhase::Succeeded, None), "{repeats:?}");
            } else {
                assert!(failed.unwrap().message.contains("had been sent already"), "{repeats:?}: {failed:?}");
                assert_eq!(held(&cluster), 0);
            }
        }
    }
}

#[test]
fn a_result_is_kept_from_its_beginning_or_from_its_end_but_not_once_it_has_left() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[2, 2]);
    cluster.submit(three_stages(4, 2));
    cluster.finish_all();
    assert_eq!(held(&cluster), 7);
    cluster.step(Event::ResultKept { job: JOB });
    assert_eq!(held(&cluster), 1);
    assert_eq!(cluster.scheduler.counters().stale_messages.total(), 0);
    cluster.step(Event::ResultKept { job: JOB });
    assert_eq!(cluster.scheduler.counters().stale_messages.job, 1, "twice is once");

    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1]);
    cluster.submit(one_stage(2));
    cluster.finish_all();
    let group = places(&cluster)[&0].clone();
    deliver(&mut cluster, &group, 0);
    cluster.step(Event::ResultKept { job: JOB });
    assert_eq!(cluster.scheduler.counters().stale_messages.job, 1);
    cluster.lose(0, 1);
    cluster.register(0, 2, 4);
    assert_eq!(cluster.slices(), [(0, 1, 2)], "what has left does not run again");
}
