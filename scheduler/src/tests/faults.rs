//! Stragglers, deadly partitions, complaints and budgets.

use super::*;

/// Four executors of one slot and a stage of four partitions, of which three are done after 100 ms.
fn one_left(partition_bytes: Vec<u64>) -> Cluster {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1, 1, 1, 1]);
    let mut stages = one_stage(4);
    stages[0].partition_bytes = partition_bytes;
    cluster.submit(stages);
    cluster.now = 100;
    for _ in 0..3 {
        cluster.finish_one();
    }
    assert_eq!(cluster.slices().len(), 1);
    cluster
}

impl Cluster {
    fn tick_at(&mut self, now: u64) {
        for executor in 0..u32::try_from(self.scheduler.executors().len()).unwrap() {
            let running: Vec<AttemptId> =
                self.running.iter().filter(|(at, ..)| at.0 == executor).map(|(.., spec)| spec.attempt).collect();
            self.now = now;
            let incarnation = self.scheduler.executors()[executor as usize].incarnation;
            self.step(Event::Heartbeat { executor: ExecutorId(executor), incarnation, running });
        }
        self.step(Event::Tick);
    }

    fn cancelled(&self) -> Vec<CancelReason> {
        self.said.iter().filter_map(|action| if let Action::Cancel { why, .. } = action { Some(*why) } else { None }).collect()
    }

    fn used(&self) -> u32 {
        self.scheduler.executors().iter().map(|executor| executor.used).sum()
    }
}

#[test]
fn a_straggler_gets_one_copy_elsewhere_and_the_first_of_the_two_counts() {
    for copy_wins in [false, true] {
        let mut cluster = one_left(Vec::new());
        cluster.tick_at(1_900);
        assert_eq!(cluster.slices().len(), 1, "not before `speculate_after`");
        cluster.tick_at(2_000);
        let slices = cluster.slices();
        assert_eq!(slices.len(), 2, "{slices:?}");
        assert_eq!(slices[0].1..slices[0].2, slices[1].1..slices[1].2);
        assert_ne!(slices[0].0, slices[1].0, "on another executor");
        cluster.tick_at(2_900);
        assert_eq!(cluster.slices().len(), 2, "one copy is enough");
        if copy_wins {
            cluster.running.swap(0, 1);
        }
        cluster.finish_one();
        assert_eq!((cluster.phase(), cluster.cancelled(), cluster.used()), (JobPhase::Succeeded, vec![CancelReason::Loser], 0));
        let counters = cluster.scheduler.counters();
        assert_eq!((counters.copies, counters.partitions_committed, counters.partitions_rerun), (1, 4, 0));
    }
}

#[test]
fn a_copy_takes_over_when_the_original_ends_and_the_other_way_round() {
    for original_fails in [true, false] {
        for dies in [true, false] {
            let mut cluster = one_left(Vec::new());
            cluster.tick_at(2_000);
            if !original_fails {
                cluster.running.swap(0, 1);
            }
            let (executor, incarnation, spec) = cluster.running[0].clone();
            if dies {
                cluster.lose(executor.0, incarnation.0);
            } else {
                cluster.running.pop_front();
                let failed = Failed::new(Failure::Panic, "it broke");
                cluster.step(ended(executor, incarnation, spec.attempt, Some(failed)));
            }
            // The executor of the copy held another partition, which runs again.
            let again = usize::from(dies && !original_fails);
            assert_eq!(cluster.slices().len(), 1 + again, "the other goes on, and nothing new starts");
            cluster.finish_all();
            assert_eq!((cluster.phase(), cluster.used()), (JobPhase::Succeeded, 0));
        }
    }
}

#[test]
fn a_partition_that_is_merely_bigger_gets_no_copy() {
    let mut cluster = one_left(vec![1_000, 1_000, 1_000, 100_000]);
    for second in 1..14 {
        cluster.tick_at(second * 1_000);
        assert_eq!(cluster.slices().len(), 1, "after {second} s");
    }
    // A hundred times the input in more than a hundred and fifty times the time.
    cluster.tick_at(15_000);
    assert_eq!(cluster.slices().len(), 2);
    let off = SchedulerConfig { speculate_after: std::time::Duration::ZERO, ..SchedulerConfig::default() };
    let mut cluster = Cluster::new(off, &[1, 1, 1, 1]);
    cluster.submit(one_stage(4));
    (0..3).for_each(|_| assert!(cluster.finish_one()));
    cluster.tick_at(9_000);
    assert_eq!(cluster.slices().len(), 1, "0s turns it off");
}

#[test]
fn a_slice_is_copied_where_it_is_open_and_both_may_win_a_part() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[4, 4]);
    let mut stages = vec![stage(0, 8, Exchange::Merge, &[]), stage(1, 1, Exchange::Result, &[(0, InputRead::Whole)])];
    stages[0].partition_bytes = vec![1_000; 8];
    cluster.submit(stages);
    assert_eq!(cluster.slices().len(), 2);
    cluster.now = 100;
    cluster.finish_one();
    let (executor, incarnation, spec) = cluster.running[0].clone();
    let (first, last) = (spec.slice.start, spec.slice.end - 1);
    cluster.step(done(executor, incarnation, spec.attempt, first));
    cluster.step(done(executor, incarnation, spec.attempt, last));
    cluster.tick_at(2_500);
    let (other, _, copy) = cluster.running[1].clone();
    assert_eq!((copy.slice.start, copy.slice.end), (first + 1, last));
    cluster.step(done(other, Incarnation(1), copy.attempt, first + 1));
    cluster.step(done(executor, incarnation, spec.attempt, first + 2));
    // Both have committed something that stays; whatever is left over ends.
    assert!(cluster.cancelled().iter().all(|why| *why == CancelReason::Enough), "{:?}", cluster.cancelled());
    cluster.finish_all();
    assert_eq!((cluster.phase(), cluster.scheduler.counters().partitions_committed), (JobPhase::Succeeded, 9));
}

#[test]
fn who_ends_executors_is_found_alone_and_who_was_merely_there_is_not() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[2, 2, 2]);
    let poisonous = |spec: &TaskSpec| spec.attempt.job == JOB && spec.slice.contains(0);
    cluster.submit(one_stage(2));
    let other = JobId(2);
    let graph = Arc::new(StageGraph { stages: one_stage(6), settings: Vec::new() });
    cluster.step(Event::JobSubmitted { job: other, graph, user: "ann".into(), time_limit: None });
    let mut incarnations = [1_u64; 3];
    let mut deaths = 0;
    for _ in 0..40 {
        let Some(index) = cluster.running.iter().position(|(.., spec)| poisonous(spec)) else {
            if !cluster.finish_one() {
                break;
            }
            continue;
        };
        let (executor, ..) = cluster.running[index];
        deaths += 1;
        if deaths == 3 {
            let there = cluster.running.iter().filter(|(at, ..)| *at == executor).count();
            assert_eq!((there, cluster.scheduler.executors()[executor.0 as usize].used), (1, 2), "the third time alone");
        }
        let incarnation = &mut incarnations[executor.0 as usize];
        cluster.lose(executor.0, *incarnation);
        *incarnation += 1;
        cluster.register(executor.0, *incarnation, 2);
    }
    assert_eq!(deaths, 3);
    let failed = failure_of(&cluster.said).unwrap();
    assert_eq!(failed.failure, Failure::Poison);
    assert!(failed.message.contains("partition 0 of s0") && failed.message.contains("lost its connection"), "{failed}");
    assert_eq!(cluster.scheduler.job_progress(other).unwrap().phase, JobPhase::Succeeded);
    assert_eq!(cluster.used(), 0);
}

#[test]
fn who_is_struck_where_executors_die_anyway_is_not_blamed_for_it_so_soon() {
    for (others, most) in [(0, 3), (1, 4), (2, 5), (20, 9)] {
        let mut cluster = Cluster::new(SchedulerConfig::default(), &[1, 1]);
        cluster.submit(one_stage(1));
        let mut incarnations = [1_u64; 2];
        let mut again = |cluster: &mut Cluster, executor: u32| {
            let incarnation = &mut incarnations[executor as usize];
            cluster.lose(executor, *incarnation);
            *incarnation += 1;
            cluster.register(executor, *incarnation, 1);
        };
        let mut deaths = 0;
        while let Some((executor, ..)) = cluster.running.pop_front() {
            deaths += 1;
            again(&mut cluster, executor.0);
            for _ in 0..if deaths == 1 { others } else { 0 } {
                let idle = 1 - cluster.running[0].0.0;
                again(&mut cluster, idle);
            }
        }
        assert_eq!(deaths, most, "with {others} deaths elsewhere");
        assert_eq!(failure_of(&cluster.said).unwrap().failure, Failure::Poison);
    }
}

#[test]
fn trouble_in_passing_has_a_budget() {
    let config = SchedulerConfig { attempts_max: 1_000, ..SchedulerConfig::default() };
    let mut cluster = Cluster::new(config, &[1]);
    cluster.submit(one_stage(1));
    for failure in 1..=21 {
        assert_eq!(cluster.phase(), JobPhase::Running, "after {failure} failures");
        cluster.fail_one(Failure::Transient { what: TransientKind::Store, retry_after_ms: Some(1) });
        cluster.now += 1;
        cluster.step(Event::Tick);
    }
    let failed = failure_of(&cluster.said).unwrap();
    assert!(failed.message.contains("scheduler.retry_percent"), "{failed}");
}

#[test]
fn one_complaint_sends_another_reader_and_a_second_is_believed() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1, 1, 1]);
    cluster.submit(vec![stage(0, 3, Exchange::Merge, &[]), stage(1, 1, Exchange::Result, &[(0, InputRead::Whole)])]);
    cluster.finish_stage(0);
    let accused = |spec: &TaskSpec, reader: ExecutorId| {
        let far = |group: &&windrow_core::task::InputGroup| group.executor != reader;
        spec.inputs[0].groups.iter().rfind(far).cloned().unwrap()
    };
    let (first, _, spec) = cluster.running[0].clone();
    let group = accused(&spec, first);
    let lost = |group: &windrow_core::task::InputGroup| Failure::LostInput {
        attempt: group.attempt,
        partitions: group.partitions.clone(),
        executor: group.executor,
        incarnation: group.incarnation,
        cause: LostCause::Unreachable,
    };
    cluster.fail_one(lost(&group));
    let (second, _, spec) = cluster.running[0].clone();
    assert_eq!((cluster.slices().len(), spec.attempt.stage, cluster.reran()), (1, StageId(1), vec![0, 0]));
    assert_ne!(second, first, "another executor tries");
    let group = if second == group.executor { accused(&spec, second) } else { group };
    cluster.fail_one(lost(&group));
    if cluster.reran() == [0, 0] {
        // It was a first complaint about somebody else.
        cluster.fail_one(lost(&group));
    }
    assert_eq!(cluster.reran(), [1, 0]);
    assert_ne!(cluster.running[0].0, group.executor, "elsewhere than where it could not be reached");
    cluster.finish_all();
    assert_eq!((cluster.phase(), cluster.scheduler.counters().executors_lost), (JobPhase::Succeeded, 0));
}
