//! Task completions per second of the pure scheduler on one core: 10,000 executors, 100,000 tasks.
//!
//! `cargo bench --workspace --bench scheduler` prints a table and one line of JSON. A completion is what an executor
//! reports of a task of one partition: `PartitionDone` and `AttemptEnded`, with the launch that they make room for.

use std::collections::VecDeque;
use std::sync::Arc;

use windrow_core::clock::{Millis, Stopwatch};
use windrow_core::config::SchedulerConfig;
use windrow_core::ids::{AttemptId, Epoch, ExecutorId, Incarnation, JobId, StageId};
use windrow_core::message::Registration;
use windrow_core::stage::{Exchange, InputRead, Stage, StageGraph, StageInput};
use windrow_core::task::{Outcome, PartitionStat};
use windrow_scheduler::{Action, Event, Scheduler};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXECUTORS: u32 = 10_000;
const TASKS: u32 = 100_000;

fn stage(id: u32, partitions: u32, exchange: Exchange, inputs: Vec<StageInput>) -> Stage {
    Stage { inputs, ..Stage::new(StageId(id), partitions, exchange) }
}

/// One stage of `TASKS` partitions, and one that reads all of it in `readers` partitions.
fn graph(readers: u32) -> Arc<StageGraph> {
    let leaf = stage(0, TASKS, Exchange::Hash { partitions: readers }, Vec::new());
    let read = InputRead::Partitioned { offset: 0, count: readers };
    let result = stage(1, readers, Exchange::Result, vec![StageInput { stage: StageId(0), read }]);
    Arc::new(StageGraph { stages: vec![leaf, result], settings: Vec::new() })
}

struct Measured {
    name: &'static str,
    tasks: u64,
    steps: u64,
    seconds: f64,
}

/// Runs one job to its end, every task reported as soon as it was launched, in order.
fn measure(name: &'static str, slots: u32, readers: u32) -> Measured {
    let mut scheduler = Scheduler::new(SchedulerConfig::default(), Epoch(1));
    for executor in 0..EXECUTORS {
        let registration = Registration {
            name: format!("e{executor}"),
            slots,
            memory_bytes: 0,
            address: format!("10.0.0.1:{executor}"),
            build: String::new(),
            pid: 0,
            clients: None,
        };
        let (executor, incarnation) = (ExecutorId(executor), Incarnation(1));
        scheduler.step(Millis(0), Event::ExecutorRegistered { executor, incarnation, registration });
    }
    let watch = Stopwatch::start();
    let (mut tasks, mut steps) = (0_u64, 1_u64);
    let mut running: VecDeque<(ExecutorId, AttemptId, u32, u32)> = VecDeque::new();
    let mut actions = scheduler
        .step(Millis(1), Event::JobSubmitted { job: JobId(1), graph: graph(readers), user: "bench".into(), time_limit: None });
    loop {
        for action in actions.drain(..) {
            if let Action::Launch { executor, spec, .. } = action {
                running.push_back((executor, spec.attempt, spec.slice.start, spec.slice.end));
            }
        }
        let Some((executor, attempt, start, end)) = running.pop_front() else { break };
        let incarnation = Incarnation(1);
        for partition in start..end {
            let stat = PartitionStat { rows: 1, segment_bytes: vec![8], checksum: None };
            steps += 1;
            tasks += 1;
            actions.extend(scheduler.step(Millis(2), Event::PartitionDone { executor, incarnation, attempt, partition, stat }));
        }
        steps += 1;
        let ended = Event::AttemptEnded { executor, incarnation, attempt, outcome: Outcome::Succeeded };
        actions.extend(scheduler.step(Millis(2), ended));
    }
    let seconds = watch.elapsed().as_secs_f64();
    assert_eq!(scheduler.counters().jobs_succeeded, 1, "the job did not end");
    assert_eq!(tasks, u64::from(TASKS + readers), "every partition ran once");
    Measured { name, tasks, steps, seconds }
}

fn main() {
    let runs = [
        measure("10,000 executors x 1 slot", 1, 200),
        measure("10,000 executors x 4 slots", 4, 200),
        measure("1,000 readers of 100,000 partitions", 1, 1_000),
    ];
    println!("{:<40} {:>9} {:>9} {:>9} {:>14} {:>9}", "world", "tasks", "steps", "seconds", "completions/s", "ns/step");
    for run in &runs {
        let (rate, per_step) = (run.tasks as f64 / run.seconds, run.seconds * 1e9 / run.steps as f64);
        println!("{:<40} {:>9} {:>9} {:>9.3} {:>14.0} {:>9.0}", run.name, run.tasks, run.steps, run.seconds, rate, per_step);
    }
    let json: Vec<String> = runs
        .iter()
        .map(|run| {
            let (rate, name) = (run.tasks as f64 / run.seconds, run.name);
            format!(
                r#"{{"world":"{name}","tasks":{},"seconds":{:.6},"completions_per_second":{rate:.0}}}"#,
                run.tasks, run.seconds
            )
        })
        .collect();
    println!(r#"{{"bench":"scheduler","worlds":[{}]}}"#, json.join(","));
}
