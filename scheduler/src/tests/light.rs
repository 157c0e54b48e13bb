//! Queries of one task beside large ones.

use super::*;

fn submit(cluster: &mut Cluster, job: u64, stages: Vec<Stage>) -> Vec<Action> {
    submit_for(cluster, job, stages, "ann")
}

fn submit_for(cluster: &mut Cluster, job: u64, stages: Vec<Stage>, user: &str) -> Vec<Action> {
    let graph = Arc::new(StageGraph { stages, settings: Vec::new() });
    cluster.step(Event::JobSubmitted { job: JobId(job), graph, user: user.into(), time_limit: None })
}

/// The jobs that a step launched.
fn launched(actions: &[Action]) -> Vec<u64> {
    let launches = actions.iter().filter_map(|action| match action {
        Action::Launch { spec, .. } => Some(spec.attempt.job.0),
        _ => None,
    });
    launches.collect()
}

#[test]
fn a_query_of_one_task_does_not_wait_for_a_slot() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1, 1]);
    cluster.submit(one_stage(8));
    assert_eq!(cluster.running.len(), 2, "every slot is taken");
    for job in [10, 11] {
        assert_eq!(launched(&submit(&mut cluster, job, one_stage(1))), [job], "one beside each slot");
    }
    assert_eq!(launched(&submit(&mut cluster, 12, one_stage(1))), [0_u64; 0], "and no more");
    let used: u32 = cluster.scheduler.executors().iter().map(|executor| executor.used).sum();
    assert_eq!(used, 2, "they take no slots");
    // One ends: the next has its place, before anything of the large one.
    let index = cluster.running.iter().position(|(_, _, spec)| spec.attempt.job == JobId(10)).unwrap();
    let (executor, incarnation, spec) = cluster.running.remove(index).unwrap();
    cluster.step(done(executor, incarnation, spec.attempt, 0));
    let next = cluster.step(ended(executor, incarnation, spec.attempt, None));
    assert_eq!(launched(&next), [12]);
    cluster.finish_all();
    assert!(
        [JOB.0, 10, 11, 12]
            .iter()
            .all(|job| { cluster.scheduler.job_progress(JobId(*job)).unwrap().phase == JobPhase::Succeeded })
    );
}

#[test]
fn what_is_large_waits_for_its_turn() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1]);
    cluster.submit(one_stage(8));
    let mut large = one_stage(1);
    large[0].partition_bytes = vec![1 << 30];
    assert!(launched(&submit(&mut cluster, 10, large)).is_empty(), "much input");
    assert!(launched(&submit(&mut cluster, 11, one_stage(2))).is_empty(), "two tasks");
    assert!(launched(&submit(&mut cluster, 12, three_stages(1, 1))).is_empty(), "stages");
    cluster.finish_all();
    assert!((10..13).all(|job| cluster.scheduler.job_progress(JobId(job)).unwrap().phase == JobPhase::Succeeded));
}

#[test]
fn a_light_task_that_is_lost_or_fails_runs_again() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1, 1]);
    cluster.submit(one_stage(8));
    submit(&mut cluster, 10, one_stage(1));
    let index = cluster.running.iter().position(|(_, _, spec)| spec.attempt.job == JobId(10)).unwrap();
    let (executor, incarnation, spec) = cluster.running.remove(index).unwrap();
    let again = cluster.step(ended(executor, incarnation, spec.attempt, Some(Failed::new(Failure::Corrupt, "it broke"))));
    assert_eq!(launched(&again), [10]);
    let index = cluster.running.iter().position(|(_, _, spec)| spec.attempt.job == JobId(10)).unwrap();
    let at = cluster.running.get(index).unwrap().0;
    assert_ne!(at, executor, "elsewhere");
    cluster.running.retain(|(executor, _, _)| *executor != at);
    cluster.lose(at.0, 1);
    cluster.finish_all();
    assert_eq!(cluster.scheduler.job_progress(JobId(10)).unwrap().phase, JobPhase::Succeeded);
    assert!(cluster.scheduler.executors().iter().all(|executor| executor.used == 0));
}

#[test]
fn security_m14_light_tasks_count_as_slots_of_their_user() {
    let config = SchedulerConfig { user_slots_percent: 50, ..SchedulerConfig::default() };
    let mut cluster = Cluster::new(config, &[1, 1, 1, 1]);
    cluster.submit(one_stage(8));
    assert_eq!(cluster.running.len(), 2, "half of the slots");
    assert_eq!(launched(&submit_for(&mut cluster, 2, one_stage(8), "bob")), [2, 2], "the other half");
    assert!(launched(&submit(&mut cluster, 10, one_stage(1))).is_empty(), "she holds her half: none beside it");
    assert_eq!(launched(&submit_for(&mut cluster, 20, one_stage(1), "eve")), [20], "who holds nothing does not wait");
    assert_eq!(launched(&submit_for(&mut cluster, 21, one_stage(1), "eve")), [21]);
    assert!(launched(&submit_for(&mut cluster, 22, one_stage(1), "eve")).is_empty(), "these two are her half");
    cluster.finish_all();
    assert!([10, 20, 21, 22].iter().all(|job| cluster.scheduler.job_progress(JobId(*job)).unwrap().phase == JobPhase::Succeeded));
}
