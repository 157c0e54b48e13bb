//! The scheduler from outside: events in, actions out, and `check()` after each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytesize::ByteSize;
use proptest::prelude::*;
use windrow_core::clock::Millis;
use windrow_core::config::SchedulerConfig;
use windrow_core::failure::{CancelReason, Failed, Failure, LostCause, Resource, TransientKind};
use windrow_core::ids::{AttemptId, AttemptNumber, Epoch, ExecutorId, Generation, Incarnation, JobId, StageId, TaskId};
use windrow_core::message::Registration;
use windrow_core::stage::{Alternative, Exchange, InputRead, Repeats, Stage, StageGraph, StageInput};
use windrow_core::task::{InputGroup, Outcome, PartitionStat, TaskSpec};
use windrow_core::{ErrorKind, failure::TransientKind as Transient};

use crate::{Action, Event, JobPhase, JobState, Scheduler};

mod faults;
mod keep;
mod light;
mod time_limit;
mod unfetched;

const JOB: JobId = JobId(1);

fn stage(id: u32, partitions: u32, exchange: Exchange, inputs: &[(u32, InputRead)]) -> Stage {
    let inputs = inputs.iter().map(|&(stage, read)| StageInput { stage: StageId(stage), read }).collect();
    Stage { inputs, ..Stage::new(StageId(id), partitions, exchange) }
}

fn hash(partitions: u32) -> InputRead {
    InputRead::Partitioned { offset: 0, count: partitions }
}

/// `s0 -> s1 -> s2`: `leaf` partitions, hashed into `middle`, merged into one.
fn three_stages(leaf: u32, middle: u32) -> Vec<Stage> {
    vec![
        stage(0, leaf, Exchange::Hash { partitions: middle }, &[]),
        stage(1, middle, Exchange::Merge, &[(0, hash(middle))]),
        stage(2, 1, Exchange::Result, &[(1, InputRead::Whole)]),
    ]
}

fn one_stage(partitions: u32) -> Vec<Stage> {
    vec![stage(0, partitions, Exchange::Result, &[])]
}

/// A scheduler, what it launched, and what it said.
struct Cluster {
    scheduler: Scheduler,
    now: u64,
    running: VecDeque<(ExecutorId, Incarnation, TaskSpec)>,
    said: Vec<Action>,
}

impl Cluster {
    /// A cluster in which every partition has a slot of its own.
    fn new(config: SchedulerConfig, slots: &[u32]) -> Self {
        Self::start(SchedulerConfig { slice_bytes: ByteSize::b(0), ..config }, slots)
    }

    fn start(config: SchedulerConfig, slots: &[u32]) -> Self {
        let mut cluster =
            Self { scheduler: Scheduler::new(config, Epoch(3)), now: 0, running: VecDeque::new(), said: Vec::new() };
        for (executor, &slots) in (0_u32..).zip(slots) {
            cluster.register(executor, 1, slots);
        }
        cluster
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let actions = self.scheduler.step(Millis(self.now), event);
        if let Err(violation) = self.scheduler.check() {
            panic!("{violation}");
        }
        for action in &actions {
            match action {
                Action::Launch { executor, incarnation, spec } => {
                    self.running.push_back((*executor, *incarnation, spec.clone()));
                }
                Action::Cancel { attempt, .. } => {
                    if let Some(index) = self.running.iter().position(|(_, _, spec)| spec.attempt == *attempt) {
                        let (executor, incarnation, spec) = self.running.remove(index).unwrap();
                        self.step(ended(executor, incarnation, spec.attempt, Some(Failed::cancelled(CancelReason::Stale))));
                    }
                }
                Action::Fence { executor, incarnation } => {
                    self.running.retain(|(e, i, _)| (e, i) != (executor, incarnation));
                }
                _ => {}
            }
        }
        self.said.extend(actions.iter().cloned());
        actions
    }

    fn register(&mut self, executor: u32, incarnation: u64, slots: u32) -> Vec<Action> {
        self.register_with(executor, incarnation, slots, 0)
    }

    fn register_with(&mut self, executor: u32, incarnation: u64, slots: u32, memory_bytes: u64) -> Vec<Action> {
        let registration = Registration {
            name: format!("e{executor}"),
            slots,
            memory_bytes,
            address: String::new(),
            build: String::new(),
            pid: 0,
            clients: None,
        };
        self.step(Event::ExecutorRegistered {
            executor: ExecutorId(executor),
            incarnation: Incarnation(incarnation),
            registration,
        })
    }

    fn submit(&mut self, stages: Vec<Stage>) -> Vec<Action> {
        self.step(Event::JobSubmitted {
            job: JOB,
            graph: Arc::new(StageGraph { stages, settings: Vec::new() }),
            user: "ann".into(),
            time_limit: None,
        })
    }

    /// The oldest launch reports all its partitions and ends.
    fn finish_one(&mut self) -> bool {
        let Some((executor, incarnation, spec)) = self.running.pop_front() else { return false };
        for partition in spec.slice.iter() {
            self.step(done(executor, incarnation, spec.attempt, partition));
        }
        self.step(ended(executor, incarnation, spec.attempt, None));
        true
    }

    fn finish_stage(&mut self, stage: u32) {
        while self.running.iter().any(|(_, _, spec)| spec.attempt.stage == StageId(stage)) {
            self.finish_one();
        }
    }

    fn finish_all(&mut self) {
        while self.finish_one() {}
    }

    fn fail_one(&mut self, failure: Failure) -> Vec<Action> {
        let (executor, incarnation, spec) = self.running.pop_front().unwrap();
        self.step(ended(executor, incarnation, spec.attempt, Some(Failed::new(failure, "it broke"))))
    }

    fn lose(&mut self, executor: u32, incarnation: u64) {
        self.step(Event::ConnectionLost { executor: ExecutorId(executor), incarnation: Incarnation(incarnation) });
    }

    fn phase(&self) -> JobPhase {
        self.scheduler.job_progress(JOB).unwrap().phase
    }

    fn reran(&self) -> Vec<u64> {
        self.scheduler.job_progress(JOB).unwrap().stages.iter().map(|stage| stage.rerun).collect()
    }

    fn slices(&self) -> Vec<(u32, u32, u32)> {
        self.running.iter().map(|(executor, _, spec)| (executor.0, spec.slice.start, spec.slice.end)).collect()
    }
}

fn done(executor: ExecutorId, incarnation: Incarnation, attempt: AttemptId, partition: u32) -> Event {
    let stat = PartitionStat { rows: 1, segment_bytes: vec![10; 4], checksum: Some(1) };
    Event::PartitionDone { executor, incarnation, attempt, partition, stat }
}

fn ended(executor: ExecutorId, incarnation: Incarnation, attempt: AttemptId, failed: Option<Failed>) -> Event {
    let outcome = failed.map_or(Outcome::Succeeded, Outcome::Failed);
    Event::AttemptEnded { executor, incarnation, attempt, outcome }
}

fn failure_of(said: &[Action]) -> Option<&Failed> {
    said.iter().find_map(|action| match action {
        Action::JobState { state: JobState::Failed(failed), .. } => Some(failed),
        _ => None,
    })
}

#[test]
fn a_job_runs_stage_by_stage_and_says_where_its_result_is() {
    let config = SchedulerConfig { keep_outputs: false, ..SchedulerConfig::default() };
    let mut cluster = Cluster::new(config, &[2, 2]);
    cluster.submit(three_stages(8, 3));
    cluster.finish_all();
    assert_eq!(cluster.phase(), JobPhase::Succeeded);
    let progress = cluster.scheduler.job_progress(JOB).unwrap();
    assert_eq!((progress.commits(), progress.partitions_rerun()), (12, 0));
    let groups = cluster.said.iter().find_map(|action| match action {
        Action::JobState { state: JobState::Succeeded(groups), .. } => Some(groups.clone()),
        _ => None,
    });
    assert_eq!(groups.unwrap().iter().flat_map(|group| group.partitions.clone()).collect::<Vec<_>>(), [0]);
    let released: BTreeSet<_> = cluster
        .said
        .iter()
        .filter_map(|action| match action {
            Action::ReleaseStage { stage, .. } => Some(stage.stage.0),
            _ => None,
        })
        .collect();
    assert_eq!(released, BTreeSet::from([0, 1]), "outputs are released once every consumer has committed");
    cluster.step(Event::JobReleased { job: JOB });
    assert!(cluster.scheduler.job_progress(JOB).is_none());
    assert!(cluster.scheduler.executors().iter().all(|executor| executor.used == 0 && executor.held == 0));
}

#[test]
fn what_fits_starts_at_once_in_one_slice_an_executor() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[4, 4, 4]);
    cluster.submit(one_stage(12));
    assert_eq!(cluster.slices(), [(0, 0, 4), (1, 4, 8), (2, 8, 12)]);
}

#[test]
fn slices_shrink_towards_the_end_of_a_stage() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[4, 4]);
    cluster.submit(one_stage(40));
    let mut lens = Vec::new();
    while let Some((_, _, spec)) = cluster.running.front() {
        lens.push(spec.slice.len());
        cluster.finish_one();
    }
    assert_eq!(lens.iter().sum::<u32>(), 40);
    assert_eq!((lens[0], *lens.last().unwrap()), (4, 1), "{lens:?}");
}

#[test]
fn a_whole_stage_runs_with_fewer_slots_than_partitions() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[2]);
    let mut stages = one_stage(5);
    stages[0].whole = true;
    cluster.submit(stages);
    assert_eq!(cluster.slices(), [(0, 0, 5)]);
    assert_eq!(cluster.scheduler.executors()[0].used, 2);
    cluster.finish_all();
    assert_eq!(cluster.phase(), JobPhase::Succeeded);
}

#[test]
fn partitions_with_little_input_share_a_slot() {
    // Each of the 7 producers measures 40 bytes: about 94 bytes for each of the 3 consumers.
    for (worth, slices, slots) in [(0, 3, 3), (93, 3, 3), (94, 3, 3), (188, 2, 2), (282, 1, 1), (u64::MAX, 1, 1)] {
        let config = SchedulerConfig { slice_bytes: ByteSize::b(worth), ..SchedulerConfig::default() };
        let mut cluster = Cluster::start(config, &[1, 1, 1]);
        cluster.submit(three_stages(7, 3));
        assert_eq!(
            cluster.running.iter().map(|(_, _, spec)| spec.slice.len()).collect::<Vec<_>>(),
            [1, 1, 1],
            "scans are not packed"
        );
        cluster.finish_stage(0);
        assert_eq!(cluster.running.len(), slices, "{worth} bytes");
        let used: u32 = cluster.scheduler.executors().iter().map(|executor| executor.used).sum();
        assert_eq!(used, slots, "{worth} bytes");
        cluster.finish_all();
        assert_eq!(cluster.phase(), JobPhase::Succeeded);
    }
}

#[test]
fn consumers_go_where_their_input_is() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1, 4]);
    let mut stages = three_stages(1, 1);
    stages[0].partitions = 1;
    cluster.submit(stages);
    let holder = cluster.slices()[0].0;
    cluster.finish_stage(0);
    assert_eq!(cluster.slices(), [(holder, 0, 1)], "the holder of the only input bytes is preferred");
}

#[test]
fn a_lost_executor_reruns_exactly_the_partitions_it_held() {
    for keep_outputs in [false, true] {
        let config = SchedulerConfig { keep_outputs, ..SchedulerConfig::default() };
        let mut cluster = Cluster::new(config, &[1, 1, 1]);
        cluster.submit(three_stages(9, 3));
        cluster.finish_stage(0);
        let held = cluster.scheduler.executors()[1].held;
        assert!(held > 0);
        cluster.lose(1, 1);
        cluster.finish_all();
        assert_eq!(cluster.phase(), JobPhase::Succeeded);
        assert_eq!(cluster.reran(), [held, 0, 0]);
        assert_eq!(cluster.scheduler.counters().partitions_lost, held);
    }
}

#[test]
fn a_later_loss_runs_released_stages_again_unless_outputs_are_kept() {
    for keep_outputs in [false, true] {
        let config = SchedulerConfig { keep_outputs, ..SchedulerConfig::default() };
        let mut cluster = Cluster::new(config, &[1, 1, 1]);
        cluster.submit(three_stages(9, 3));
        cluster.finish_stage(0);
        cluster.finish_stage(1);
        assert_eq!(cluster.running.len(), 1);
        let (executor, incarnation, spec) = cluster.running[0].clone();
        let groups = spec.inputs[0].groups.iter();
        let group = groups.clone().find(|group| group.executor != executor).unwrap();
        let loser = group.executor.0;
        let lost_middle =
            groups.filter(|group| group.executor.0 == loser).map(|group| group.partitions.len() as u64).sum::<u64>();
        let lost_leaf = cluster.scheduler.executors()[loser as usize].held - lost_middle;
        assert_eq!(lost_leaf > 0, keep_outputs);
        cluster.lose(loser, 1);
        cluster.running.pop_front();
        let lost = Failure::LostInput {
            attempt: group.attempt,
            partitions: group.partitions.clone(),
            executor: group.executor,
            incarnation: group.incarnation,
            cause: LostCause::Unreachable,
        };
        cluster.step(ended(executor, incarnation, spec.attempt, Some(Failed::new(lost, "gone"))));
        cluster.finish_all();
        assert_eq!(cluster.phase(), JobPhase::Succeeded);
        assert_eq!(cluster.reran(), [if keep_outputs { lost_leaf } else { 9 }, lost_middle, 0]);
    }
}

#[test]
fn an_undelivered_result_is_computed_again_and_a_delivered_one_is_not() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1, 1]);
    cluster.submit(one_stage(2));
    let attempts: BTreeMap<u32, AttemptId> =
        cluster.running.iter().map(|(_, _, spec)| (spec.slice.start, spec.attempt)).collect();
    cluster.finish_all();
    cluster.step(Event::ResultDelivered { job: JOB, partition: 0, attempt: attempts.get(&0).copied() });
    cluster.lose(0, 1);
    cluster.lose(1, 1);
    assert_eq!(cluster.phase(), JobPhase::Running);
    cluster.register(0, 2, 4);
    assert_eq!(cluster.slices(), [(0, 1, 2)]);
    cluster.finish_all();
    assert_eq!((cluster.phase(), cluster.reran()), (JobPhase::Succeeded, vec![1]));
}

#[test]
fn output_that_is_lost_each_time_ends_the_job_with_the_reason() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1, 1]);
    cluster.submit(one_stage(1));
    for time in 0..100 {
        if cluster.phase() != JobPhase::Running {
            break;
        }
        let (executor, incarnation, launched) = cluster.running[0].clone();
        cluster.finish_one();
        let (attempt, why) = (launched.attempt, format!("no way there, time {time}"));
        cluster.step(Event::OutputLost { executor, incarnation, attempt, partitions: vec![0], why });
    }
    let most = SchedulerConfig::default().generations_max;
    let failed = failure_of(&cluster.said).unwrap();
    let says = format!(
        "partition 0 of s0 was computed {most} times again and lost each time (the last time: no way there, time {most});"
    );
    assert!(failed.message.starts_with(&says), "{failed:?}");
}

/// Two stages: of the second one partition has read the first, whose output is then lost where it read.
fn read_and_lost(repeats: Repeats, is_delivered: bool) -> Cluster {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1, 1]);
    let mut stages = vec![stage(0, 2, Exchange::Hash { partitions: 4 }, &[]), stage(1, 4, Exchange::Result, &[(0, hash(4))])];
    stages[0].repeats = repeats;
    cluster.submit(stages);
    cluster.finish_stage(0);
    let (_, _, first) = cluster.running[0].clone();
    cluster.finish_one();
    if is_delivered {
        let (partition, attempt) = (first.slice.start, Some(first.attempt));
        cluster.step(Event::ResultDelivered { job: JOB, partition, attempt });
    }
    let InputGroup { executor, incarnation, attempt, partitions, .. } = first.inputs[0].groups[0].clone();
    cluster.step(Event::OutputLost { executor, incarnation, attempt, partitions, why: "it is gone".to_owned() });
    cluster
}

#[test]
fn a_varying_stage_is_rolled_back_as_a_whole_or_the_job_says_why_not() {
    for is_delivered in [false, true] {
        let mut cluster = read_and_lost(Repeats::Varying, is_delivered);
        cluster.finish_all();
        if is_delivered {
            assert!(failure_of(&cluster.said).unwrap().message.contains("had been sent already"));
        } else {
            assert_eq!((cluster.phase(), cluster.reran()), (JobPhase::Succeeded, vec![2, 1]));
        }
    }
}

#[test]
fn a_stage_that_does_not_repeat_itself_is_found_out_and_run_again_as_a_whole() {
    for is_delivered in [false, true] {
        let mut cluster = read_and_lost(Repeats::Repeatable, is_delivered);
        while let Some((executor, incarnation, spec)) = cluster.running.pop_front() {
            let checksum = Some(if spec.attempt.stage == StageId(0) { 2 } else { 1 });
            for partition in spec.slice.iter() {
                let stat = PartitionStat { rows: 1, segment_bytes: vec![10; 4], checksum };
                let attempt = spec.attempt;
                cluster.step(Event::PartitionDone { executor, incarnation, attempt, partition, stat });
            }
            cluster.step(ended(executor, incarnation, spec.attempt, None));
        }
        assert_eq!(cluster.scheduler.counters().stages_distrusted, 1);
        if is_delivered {
            assert!(failure_of(&cluster.said).unwrap().message.contains("had been sent already"));
        } else {
            assert_eq!(cluster.phase(), JobPhase::Succeeded);
            let reran = cluster.reran();
            assert!(reran[0] == 3 && reran[1] >= 1, "the lost one twice, its sibling, and who had read them: {reran:?}");
        }
    }
}

#[test]
fn a_row_limit_ends_a_stage_early() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[2]);
    let mut stages = three_stages(50, 1);
    stages[0].row_limit = Some(3);
    cluster.submit(stages);
    cluster.finish_stage(0);
    let inputs = &cluster.running[0].2.inputs[0].groups;
    let partitions: Vec<u32> = inputs.iter().flat_map(|group| group.partitions.clone()).collect();
    assert_eq!(partitions, [0, 1, 2], "the others count as committed and empty");
    cluster.finish_all();
    assert_eq!((cluster.phase(), cluster.scheduler.counters().partitions_committed), (JobPhase::Succeeded, 5));
}

#[test]
fn failures_are_retried_as_their_kind_says() {
    // Fatal: at once, with the user's error.
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1, 1]);
    cluster.submit(one_stage(4));
    cluster.fail_one(Failure::Fatal { kind: ErrorKind::Data });
    assert_eq!(failure_of(&cluster.said).unwrap().message, "it broke");
    assert_eq!(cluster.scheduler.executors().iter().map(|executor| executor.used).sum::<u32>(), 0);

    // Panic: once more, elsewhere; then the job fails.
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1, 1]);
    cluster.submit(one_stage(1));
    let first = cluster.slices()[0].0;
    cluster.fail_one(Failure::Panic);
    assert_ne!(cluster.slices()[0].0, first);
    cluster.fail_one(Failure::Panic);
    assert_eq!(cluster.phase(), JobPhase::Failed);

    // Transient: after a backoff.
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1]);
    cluster.submit(one_stage(1));
    cluster.fail_one(Failure::Transient { what: TransientKind::Io, retry_after_ms: Some(250) });
    assert!(cluster.running.is_empty() && cluster.said.contains(&Action::WakeAt(Millis(250))));
    cluster.now = 250;
    cluster.step(Event::Tick);
    cluster.finish_all();
    assert_eq!(cluster.phase(), JobPhase::Succeeded);
}

#[test]
fn a_shortage_halves_the_slice_then_runs_alone_then_fails_with_the_figures() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[4]);
    cluster.submit(one_stage(4));
    let short = Failure::Resources { what: Resource::Memory, asked: 9, limit: 8 };
    assert_eq!(cluster.slices(), [(0, 0, 4)]);
    cluster.fail_one(short.clone());
    assert_eq!(cluster.slices(), [(0, 0, 2), (0, 2, 4)]);
    cluster.fail_one(short.clone());
    assert_eq!(cluster.slices(), [(0, 2, 4), (0, 0, 1), (0, 1, 2)]);
    cluster.finish_one();
    cluster.fail_one(short.clone());
    assert_eq!(cluster.slices(), [(0, 1, 2)], "it waits for the executor to be idle");
    cluster.finish_one();
    assert_eq!((cluster.slices(), cluster.scheduler.executors()[0].used), (vec![(0, 0, 1)], 4));
    cluster.fail_one(short);
    assert_eq!(cluster.phase(), JobPhase::Failed);
}

#[test]
fn partitions_that_need_an_executor_for_themselves_get_it_one_after_the_other() {
    for [first, second] in [[0, 1], [1, 0]] {
        let mut cluster = Cluster::new(SchedulerConfig::default(), &[2]);
        cluster.submit(one_stage(2));
        let short = Failure::Resources { what: Resource::Memory, asked: 9, limit: 8 };
        cluster.fail_one(short.clone());
        assert_eq!(cluster.slices(), [(0, 0, 1), (0, 1, 2)]);
        cluster.running.swap(0, first);
        cluster.fail_one(short.clone());
        cluster.fail_one(short.clone());
        assert_eq!(cluster.slices().len(), 1, "the one or the other, alone");
        cluster.finish_one();
        assert_eq!(cluster.slices().len(), 1, "partition {second} after partition {first}");
        cluster.finish_one();
        assert_eq!(cluster.phase(), JobPhase::Succeeded);
    }
}

#[test]
fn silence_is_suspected_then_deadly_and_a_gap_of_our_own_is_forgiven() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1]);
    cluster.submit(one_stage(2));
    cluster.now = 3_000;
    cluster.step(Event::Tick);
    assert_eq!(cluster.scheduler.executors()[0].state, crate::ExecutorState::Suspect);
    cluster.finish_one();
    assert!(cluster.running.is_empty(), "a suspect gets no new slices");
    cluster.now = 10_000;
    cluster.step(Event::Tick);
    assert_eq!(cluster.scheduler.executors()[0].state, crate::ExecutorState::Dead);
    cluster.register(0, 2, 1);
    cluster.now = 100_000;
    cluster.step(Event::Tick);
    assert_ne!(cluster.scheduler.executors()[0].state, crate::ExecutorState::Dead);
}

#[test]
fn without_executors_a_job_fails_clearly() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[]);
    cluster.now = 30_000;
    cluster.submit(one_stage(1));
    assert!(cluster.said.contains(&Action::WakeAt(Millis(90_000))));
    cluster.now = 90_000;
    cluster.step(Event::Tick);
    assert!(failure_of(&cluster.said).unwrap().message.starts_with("no executor has been connected for 60 s"));
}

#[test]
fn a_draining_executor_leaves_when_nobody_needs_it() {
    for keep_outputs in [false, true] {
        let config = SchedulerConfig { keep_outputs, ..SchedulerConfig::default() };
        let mut cluster = Cluster::new(config, &[1, 1]);
        cluster.submit(three_stages(4, 2));
        cluster.step(Event::DrainAsked { executor: ExecutorId(0) });
        cluster.finish_stage(0);
        assert!(!cluster.said.contains(&Action::Drained { executor: ExecutorId(0) }), "its outputs are still needed");
        cluster.finish_all();
        assert_eq!((cluster.phase(), cluster.scheduler.counters().partitions_rerun), (JobPhase::Succeeded, 0));
        if keep_outputs {
            assert!(!cluster.said.contains(&Action::Drained { executor: ExecutorId(0) }), "the job's result may still be lost");
            cluster.step(Event::JobReleased { job: JOB });
        }
        assert!(cluster.said.contains(&Action::Drained { executor: ExecutorId(0) }));
    }
}

#[test]
fn jobs_share_slots_and_wait_for_admission() {
    let config = SchedulerConfig { jobs_max: 2, queue_max: 1, ..SchedulerConfig::default() };
    let mut cluster = Cluster::new(config, &[1, 1, 1, 1]);
    for job in 1..=4 {
        let graph = Arc::new(StageGraph { stages: one_stage(100), settings: Vec::new() });
        cluster.step(Event::JobSubmitted { job: JobId(job), graph, user: "ann".into(), time_limit: None });
    }
    let phases: Vec<_> = cluster.scheduler.jobs().map(|(_, phase)| phase).collect();
    assert_eq!(phases, [JobPhase::Running, JobPhase::Running, JobPhase::Queued, JobPhase::Failed]);
    for _ in 0..8 {
        cluster.finish_one();
    }
    let slots = |job| cluster.scheduler.job_progress(JobId(job)).unwrap().slots;
    assert_eq!((slots(1), slots(2)), (2, 2));
}

#[test]
fn security_m14_one_user_takes_neither_all_places_nor_the_next_one() {
    let config = SchedulerConfig { jobs_max: 3, queue_max: 6, user_jobs_max: 2, user_queue_max: 4, ..SchedulerConfig::default() };
    let mut cluster = Cluster::new(config, &[4]);
    let submit = |cluster: &mut Cluster, job: u64, user: &str| {
        let graph = Arc::new(StageGraph { stages: one_stage(1), settings: Vec::new() });
        cluster.step(Event::JobSubmitted { job: JobId(job), graph, user: user.into(), time_limit: None });
    };
    (1..=7).for_each(|job| submit(&mut cluster, job, "ann"));
    let phase = |cluster: &Cluster, job: u64| cluster.scheduler.jobs().find(|(id, _)| *id == JobId(job)).unwrap().1;
    use JobPhase::{Failed, Queued, Running, Succeeded};
    let of_ann: Vec<_> = (1..=7).map(|job| phase(&cluster, job)).collect();
    assert_eq!(of_ann, [Running, Running, Queued, Queued, Queued, Queued, Failed], "two run, four wait, one is refused");
    let said = format!("{:?}", cluster.said);
    assert!(said.contains("scheduler.user_queue_max") && said.contains("ResourcesExhausted"), "{said}");
    // Somebody else has a place at once, though hers wait.
    submit(&mut cluster, 8, "bob");
    assert_eq!(phase(&cluster, 8), Running);
    submit(&mut cluster, 9, "bob");
    submit(&mut cluster, 10, "cid");
    assert_eq!((phase(&cluster, 9), phase(&cluster, 10)), (Queued, Queued));
    submit(&mut cluster, 11, "dan");
    assert_eq!(phase(&cluster, 11), Failed, "six wait, as many as scheduler.queue_max");
    // Whoever runs nothing is next, though four of hers came before.
    cluster.finish_one();
    assert_eq!(phase(&cluster, 10), Running);
    cluster.finish_all();
    assert!((1..=10).filter(|job| *job != 7).all(|job| phase(&cluster, job) == Succeeded));
}

#[test]
fn security_m14_one_user_leaves_slots_for_others_where_that_is_wanted() {
    let config = SchedulerConfig { user_slots_percent: 75, ..SchedulerConfig::default() };
    let mut cluster = Cluster::new(config, &[2, 2]);
    let submit = |cluster: &mut Cluster, job: u64, user: &str, partitions: u32| {
        let graph = Arc::new(StageGraph { stages: one_stage(partitions), settings: Vec::new() });
        cluster.step(Event::JobSubmitted { job: JobId(job), graph, user: user.into(), time_limit: None });
    };
    let slots = |cluster: &Cluster, job: u64| cluster.scheduler.job_progress(JobId(job)).map_or(0, |progress| progress.slots);
    submit(&mut cluster, 1, "ann", 100);
    submit(&mut cluster, 2, "ann", 100);
    assert_eq!(slots(&cluster, 1) + slots(&cluster, 2), 3, "three of four slots, however many jobs");
    submit(&mut cluster, 3, "bob", 1);
    assert_eq!(slots(&cluster, 3), 1, "he need not wait for the end of anything");
    cluster.finish_all();
    assert!((1..=3).all(|job| cluster.scheduler.job_progress(JobId(job)).unwrap().phase == JobPhase::Succeeded));
}

#[test]
fn a_lost_launch_is_noticed_by_heartbeats() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[1]);
    cluster.submit(one_stage(1));
    cluster.running.clear();
    for second in 1..=8 {
        cluster.now = second * 1_000;
        let running = cluster.running.iter().map(|(_, _, spec)| spec.attempt).collect();
        cluster.step(Event::Heartbeat { executor: ExecutorId(0), incarnation: Incarnation(1), running });
    }
    assert_eq!(cluster.slices(), [(0, 0, 1)], "launched again");
}

/// One move of the random driver. Numbers pick among what there is.
#[derive(Debug, Clone)]
enum Move {
    Finish(usize),
    Fail(usize, u8),
    Repeat(usize),
    Stale(u32, u64, u32, u32),
    Lose(u32),
    Join(u32),
    Lost(usize),
    Wait(u16),
    Deliver(u32),
    Drain(u32),
    Keep,
    Await(Option<u32>),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        8 => any::<usize>().prop_map(Move::Finish),
        2 => (any::<usize>(), any::<u8>()).prop_map(|(index, kind)| Move::Fail(index, kind)),
        2 => any::<usize>().prop_map(Move::Repeat),
        2 => (0..5_u32, 0..4_u64, 0..5_u32, 0..9_u32).prop_map(|(e, i, s, p)| Move::Stale(e, i, s, p)),
        1 => (0..4_u32).prop_map(Move::Lose),
        2 => (0..4_u32).prop_map(Move::Join),
        1 => any::<usize>().prop_map(Move::Lost),
        1 => any::<u16>().prop_map(Move::Wait),
        1 => (0..3_u32).prop_map(Move::Deliver),
        1 => (0..4_u32).prop_map(Move::Drain),
        1 => Just(Move::Keep),
        1 => prop::option::of(0..4_u32).prop_map(Move::Await),
    ]
}

fn drawn_graph(kinds: &[u8; 4]) -> Vec<Stage> {
    let mut stages = three_stages(7, 3);
    stages.insert(1, stage(1, 4, Exchange::Broadcast, &[]));
    stages[2] = stage(2, 5, Exchange::Merge, &[(0, InputRead::Partitioned { offset: 2, count: 3 }), (1, InputRead::Whole)]);
    stages[3] = stage(3, 3, Exchange::Result, &[(2, InputRead::Whole), (1, InputRead::Scalar)]);
    for (stage, kind) in stages.iter_mut().zip(kinds) {
        stage.repeats = [Repeats::Repeatable, Repeats::AsSlice, Repeats::Varying][*kind as usize % 3];
        stage.whole = kind & 8 > 0;
        stage.row_limit = (kind & 16 > 0).then_some(2);
    }
    stages
}

fn strange(job: u64, stage: u32, number: u32) -> AttemptId {
    AttemptId {
        job: JobId(job),
        stage: StageId(stage),
        generation: Generation(number % 2),
        task: TaskId(number),
        attempt: AttemptNumber { epoch: Epoch(2 + u64::from(number % 2)), number },
    }
}

/// Makes a move; returns an event that may be repeated.
fn make(cluster: &mut Cluster, history: &[Event], next: &Move) -> Option<Event> {
    let pick = |len: usize, index: usize| if len == 0 { None } else { Some(index % len) };
    let event = match next {
        Move::Finish(index) => {
            let index = pick(cluster.running.len(), *index)?;
            let launch = cluster.running.remove(index)?;
            cluster.running.push_front(launch);
            let (executor, incarnation, spec) = cluster.running[0].clone();
            cluster.finish_one();
            return Some(done(executor, incarnation, spec.attempt, spec.slice.start));
        }
        Move::Fail(index, kind) => {
            let index = pick(cluster.running.len(), *index)?;
            let (executor, incarnation, spec) = cluster.running.remove(index)?;
            let failure = match kind % 3 {
                0 => Failure::Resources { what: Resource::Memory, asked: 1, limit: 1 },
                1 => Failure::Transient { what: Transient::Store, retry_after_ms: None },
                _ => Failure::Corrupt,
            };
            let first = spec.slice.start;
            if kind & 4 > 0 && spec.slice.len() > 1 {
                cluster.step(done(executor, incarnation, spec.attempt, first));
            }
            ended(executor, incarnation, spec.attempt, Some(Failed::new(failure, "drawn")))
        }
        Move::Repeat(index) => history[pick(history.len(), *index)?].clone(),
        Move::Stale(executor, incarnation, stage, number) => {
            let attempt = strange(u64::from(*executor), *stage, *number);
            done(ExecutorId(*executor), Incarnation(*incarnation), attempt, *number)
        }
        Move::Lose(executor) => {
            let incarnation = current(cluster, *executor)?;
            Event::ConnectionLost { executor: ExecutorId(*executor), incarnation }
        }
        Move::Join(executor) => {
            let incarnation = current(cluster, *executor).map_or(1, |incarnation| incarnation.0 + 1);
            cluster.register(*executor, incarnation, 1 + executor % 3);
            return None;
        }
        Move::Lost(index) => {
            let index = pick(cluster.running.len(), *index)?;
            let group = cluster.running[index].2.inputs.iter().find_map(|input| input.groups.first())?.clone();
            Event::OutputLost {
                executor: group.executor,
                incarnation: group.incarnation,
                attempt: group.attempt,
                partitions: group.partitions,
                why: String::new(),
            }
        }
        Move::Wait(millis) => {
            cluster.now += u64::from(*millis) / 16;
            Event::Tick
        }
        Move::Deliver(partition) => {
            let attempt = cluster.said.iter().rev().find_map(|action| match action {
                Action::ResultReady { partition: ready, location, .. } if ready == partition => {
                    Some(location.as_ref().map(|group| group.attempt))
                }
                _ => None,
            })?;
            Event::ResultDelivered { job: JOB, partition: *partition, attempt }
        }
        Move::Drain(executor) => Event::DrainAsked { executor: ExecutorId(*executor) },
        Move::Keep => Event::ResultKept { job: JOB },
        Move::Await(partition) => Event::ResultAwaited { job: JOB, partition: *partition },
    };
    cluster.step(event.clone());
    Some(event)
}

fn current(cluster: &Cluster, executor: u32) -> Option<Incarnation> {
    cluster.scheduler.executors().into_iter().find(|status| status.executor.0 == executor).map(|status| status.incarnation)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever happens, in whatever order: invariants hold after each step, an event applied twice changes nothing, and a job ends
    /// once its executors live.
    #[test]
    fn any_order_of_events_is_answered(
        kinds in any::<[u8; 4]>(),
        keep_outputs in any::<bool>(),
        unfetched_max in 0..100_u64,
        drawn in prop::collection::vec(moves(), 0..120),
    ) {
        let config = SchedulerConfig {
            attempts_max: 1_000, deaths_max: 1_000, generations_max: 1_000, retry_percent: 1_000_000, keep_outputs,
            ..SchedulerConfig::default()
        };
        let mut cluster = Cluster::new(config, &[2, 1, 3]);
        cluster.scheduler.limit_unfetched(unfetched_max);
        cluster.submit(drawn_graph(&kinds));
        let mut history = Vec::new();
        for next in &drawn {
            if let Some(event) = make(&mut cluster, &history, next) {
                let launches = cluster.scheduler.counters().launches;
                cluster.step(event.clone());
                if !matches!(event, Event::Tick) {
                    prop_assert_eq!(cluster.scheduler.counters().launches, launches, "{:?} counted twice", event);
                }
                history.push(event);
            }
        }
        let incarnation = current(&cluster, 0).map_or(1, |incarnation| incarnation.0 + 1);
        cluster.register(0, incarnation, 3);
        for _ in 0..200 {
            cluster.finish_all();
            cluster.now += 1_000;
            let status = cluster.scheduler.executors();
            for executor in status {
                let event = Event::Heartbeat { executor: executor.executor, incarnation: executor.incarnation, running: Vec::new() };
                cluster.step(event);
            }
            cluster.step(Event::Tick);
            cluster.step(Event::ResultAwaited { job: JOB, partition: None });
        }
        if keep_outputs && !history.contains(&Event::ResultKept { job: JOB }) {
            let counters = cluster.scheduler.counters();
            prop_assert!(counters.partitions_rerun <= counters.partitions_lost, "{:?}", counters);
        }
        let is_excused = failure_of(&cluster.said).is_some_and(|failed| failed.message.contains("had been sent already"));
        prop_assert!(cluster.phase() == JobPhase::Succeeded || is_excused, "{:?}", cluster.scheduler.job_progress(JOB));
    }
}

/// A join of `build` and `probe` over `count` partitions, with the form that spares the probe's exchange: each build partition measures
/// 40 bytes.
fn join_of_two(count: u32, bytes_max: u64) -> Vec<Stage> {
    let hashed = Exchange::Hash { partitions: count };
    let mut probe = stage(2, count, hashed, &[]);
    probe.after = Some(StageId(0));
    let mut join = stage(3, count, Exchange::Merge, &[(0, hash(count)), (2, hash(count))]);
    let form = stage(3, count, Exchange::Merge, &[(1, InputRead::Whole)]);
    let form = Alternative { measured: StageId(0), bytes_max, spared: StageId(2), stage: form };
    join.alternative = Some(Box::new(form));
    vec![
        stage(0, 2, hashed, &[]),
        stage(1, count, Exchange::Broadcast, &[(0, hash(count))]),
        probe,
        join,
        stage(4, 1, Exchange::Result, &[(3, InputRead::Whole)]),
    ]
}

/// The stages that ran, in the order of their first launch.
fn stages_run(cluster: &Cluster) -> Vec<u32> {
    let mut stages = Vec::new();
    for action in &cluster.said {
        if let Action::Launch { spec, .. } = action
            && !stages.contains(&spec.attempt.stage.0)
        {
            stages.push(spec.attempt.stage.0);
        }
    }
    stages
}

#[test]
fn a_small_build_side_spares_the_exchange_of_the_other() {
    for keep_outputs in [true, false] {
        let config = SchedulerConfig { keep_outputs, ..SchedulerConfig::default() };
        for (bytes_max, ran) in [(80, [0, 1, 3, 4]), (79, [0, 2, 3, 4])] {
            let mut cluster = Cluster::new(config.clone(), &[4, 4]);
            cluster.submit(join_of_two(4, bytes_max));
            assert!(cluster.running.iter().all(|(_, _, spec)| spec.attempt.stage == StageId(0)), "the probe side waits");
            cluster.finish_all();
            assert_eq!(cluster.phase(), JobPhase::Succeeded);
            assert_eq!(stages_run(&cluster), ran, "at most {bytes_max} bytes");
            let replaced = cluster.said.iter().filter(|action| matches!(action, Action::StageReplaced { .. })).count();
            assert_eq!(replaced, usize::from(bytes_max == 80));
        }
    }
}

#[test]
fn a_side_that_is_large_for_the_smallest_executor_is_not_broadcast() {
    for (memory, ran) in [(64 * 80, [0, 1, 3, 4]), (64 * 80 - 1, [0, 2, 3, 4])] {
        let mut cluster = Cluster::new(SchedulerConfig::default(), &[]);
        cluster.register_with(0, 1, 4, u64::MAX);
        cluster.register_with(1, 1, 4, memory);
        cluster.submit(join_of_two(4, u64::MAX));
        cluster.finish_all();
        assert_eq!(stages_run(&cluster), ran, "{memory} bytes");
    }
}

#[test]
fn a_form_that_was_taken_is_kept_when_its_inputs_are_lost() {
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[2, 2]);
    cluster.submit(join_of_two(4, 80));
    cluster.finish_stage(0);
    cluster.finish_stage(1);
    cluster.lose(0, 1);
    cluster.finish_all();
    assert_eq!(cluster.phase(), JobPhase::Succeeded);
    assert!(!stages_run(&cluster).contains(&2), "the probe side's own stage has nothing to do any more");
    assert!(cluster.reran().iter().sum::<u64>() > 0, "something was lost");
}

#[test]
fn a_stage_with_another_reader_is_not_spared() {
    let mut stages = join_of_two(4, 80);
    stages[4] = stage(4, 4, Exchange::Result, &[(3, InputRead::Whole), (2, hash(4))]);
    let mut cluster = Cluster::new(SchedulerConfig::default(), &[4]);
    cluster.submit(stages);
    cluster.finish_all();
    assert_eq!(stages_run(&cluster), [0, 2, 3, 4]);
}
