//! Jobs that take longer than they may.

use std::time::Duration;

use super::*;

const LIMIT: u64 = 5_000;

fn submit(cluster: &mut Cluster, job: u64, stages: Vec<Stage>, limit: Option<u64>) -> Vec<Action> {
    let graph = Arc::new(StageGraph { stages, settings: Vec::new() });
    let time_limit = limit.map(Duration::from_millis);
    cluster.step(Event::JobSubmitted { job: JobId(job), graph, user: "ann".into(), time_limit })
}

/// Passes time as the coordinator does: a tick where the scheduler asked for one, and heartbeats.
fn pass(cluster: &mut Cluster, until: u64) {
    while cluster.now < until {
        cluster.now = until.min(cluster.now + 500);
        for executor in 0..u32::try_from(cluster.scheduler.executors().len()).unwrap() {
            let of = |(at, _, spec): &(ExecutorId, Incarnation, TaskSpec)| (at.0 == executor).then_some(spec.attempt);
            let running = cluster.running.iter().filter_map(of).collect();
            cluster.step(Event::Heartbeat { executor: ExecutorId(executor), incarnation: Incarnation(1), running });
        }
        let asked = cluster.said.iter().rev().find_map(|said| if let Action::WakeAt(at) = said { Some(at.0) } else { None });
        if asked.is_some_and(|at| at <= cluster.now) {
            cluster.step(Event::Tick);
        }
    }
}

fn phase(cluster: &Cluster, job: u64) -> JobPhase {
    cluster.scheduler.job_progress(JobId(job)).unwrap().phase
}

fn ended_late(cluster: &Cluster, job: u64) -> bool {
    let late = JobState::Cancelled(CancelReason::Deadline);
    cluster.said.iter().any(|said| matches!(said, Action::JobState { job: of, state } if of.0 == job && *state == late))
}

#[test]
fn security_m14_a_job_ends_when_its_time_is_over_and_holds_nothing_then() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1, 1, 1, 1]);
    submit(&mut cluster, 10, one_stage(4), Some(LIMIT));
    submit(&mut cluster, 11, one_stage(1), None);
    pass(&mut cluster, LIMIT - 1);
    assert_eq!(phase(&cluster, 10), JobPhase::Running);
    pass(&mut cluster, LIMIT);
    assert_eq!((phase(&cluster, 10), phase(&cluster, 11)), (JobPhase::Cancelled, JobPhase::Running));
    assert!(ended_late(&cluster, 10) && !ended_late(&cluster, 11));
    let cancelled = cluster.said.iter().filter(|said| matches!(said, Action::Cancel { why: CancelReason::Deadline, .. })).count();
    assert_eq!(cancelled, 4, "each of its attempts is ended");
    pass(&mut cluster, 100 * LIMIT);
    assert_eq!(phase(&cluster, 11), JobPhase::Running, "a job without a limit takes as long as it takes");
}

#[test]
fn time_in_the_queue_does_not_count() {
    let mut cluster = Cluster::new(SchedulerConfig { jobs_max: 1, ..SchedulerConfig::default() }, &[1]);
    submit(&mut cluster, 10, one_stage(1), Some(3 * LIMIT));
    submit(&mut cluster, 11, one_stage(1), Some(LIMIT));
    pass(&mut cluster, 2 * LIMIT);
    assert_eq!(phase(&cluster, 11), JobPhase::Queued, "it waits for longer than it may run");
    pass(&mut cluster, 3 * LIMIT);
    assert_eq!((phase(&cluster, 10), phase(&cluster, 11)), (JobPhase::Cancelled, JobPhase::Running));
    pass(&mut cluster, 4 * LIMIT - 1);
    assert_eq!(phase(&cluster, 11), JobPhase::Running);
    pass(&mut cluster, 4 * LIMIT);
    assert!(ended_late(&cluster, 11));
}

#[test]
fn a_complete_result_may_be_read_for_longer() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[2, 2]);
    submit(&mut cluster, 10, one_stage(4), Some(LIMIT));
    cluster.step(Event::ResultKept { job: JobId(10) });
    cluster.finish_all();
    pass(&mut cluster, 10 * LIMIT);
    assert_eq!(phase(&cluster, 10), JobPhase::Succeeded);
    // Part of it is lost and computed again: that has the whole time.
    let before = cluster.now;
    cluster.lose(0, 1);
    assert_eq!(phase(&cluster, 10), JobPhase::Running);
    pass(&mut cluster, before + LIMIT - 1);
    assert_eq!(phase(&cluster, 10), JobPhase::Running);
    pass(&mut cluster, before + LIMIT);
    assert!(ended_late(&cluster, 10));
}
