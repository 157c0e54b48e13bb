//! What must always hold, as one function over the whole state. Tests and the simulator run it after every step; it recomputes what is
//! counted and indexed elsewhere, so it takes time in proportion to the whole state.
//!
//! | # | always |
//! | --- | --- |
//! | I1 | one winner a partition; where slices commit whole, a committed slice is complete |
//! | I2 | a live attempt's inputs are complete or were lost after its launch; nothing live or committed read a void generation |
//! | I3 | used slots are the sum of live leases, within the executor's slots |
//! | I4 | no attempt and no output on an incarnation that is over |
//! | I6 | an ended job owns no attempt, queue entry, timer or reservation |
//! | I7 | no lost wake-up: an unfinished job runs, waits for a slot that is not free, a timer, or an executor |
//! | I8 | failure counts and generations stay within their bounds |
//! | I9 | nothing that is wanted is gone |
//! | I10 | a finished job with a kept result holds its result and nothing else |
//! | I11 | a job is held only while enough of its result waits for readers, and none of them waits |
//! | I13 | queues stay within their bounds |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use windrow_core::ids::StageId;
use windrow_core::stage::Repeats;
use windrow_core::task::Slice;

use crate::Scheduler;
use crate::job::{Attempt, Job, reads};
use crate::recovery::DEATHS_FACTOR;
use crate::stage_state::{Partition, State};
use crate::status::JobPhase;

/// An invariant that does not hold: a bug of the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was found.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.message)
    }
}

impl std::error::Error for Violation {}

type Checked = Result<(), Violation>;

fn hold(holds: bool, invariant: &'static str, message: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { invariant, message: message() }) }
}

impl Scheduler {
    /// Recomputes what is counted and indexed and compares.
    ///
    /// # Errors
    /// The first [`Violation`] found.
    pub fn check(&self) -> Result<(), Violation> {
        self.executors.check().map_err(|message| Violation { invariant: "I3 slots", message })?;
        self.check_queues()?;
        self.check_leases()?;
        self.jobs.values().try_for_each(|job| if job.is_active() { self.check_active(job) } else { self.check_ended(job) })
    }

    fn check_queues(&self) -> Checked {
        let running = self.jobs.values().filter(|job| job.phase == JobPhase::Running).count();
        hold(running == self.admission.running() as usize, "I13 admission", || {
            format!("{running} jobs run, {} counted", self.admission.running())
        })?;
        let queued = self.jobs.values().filter(|job| job.phase == JobPhase::Queued).count();
        hold(queued == self.admission.waiting(), "I13 admission", || {
            format!("{queued} jobs wait, {} queued", self.admission.waiting())
        })?;
        hold(queued <= self.config.queue_max as usize, "I13 admission", || format!("{queued} jobs wait"))?;
        hold(self.admission.next(&self.config).is_none(), "I7 wake-up", || {
            "a job waits for admission while there is room".to_owned()
        })?;
        let is_hungry = self.next_to_serve().is_some();
        hold(!is_hungry || self.executors.free_slots() == 0, "I7 wake-up", || "a job has work while slots are free".to_owned())?;
        for (key, reserved) in &self.alone {
            let stage = self.jobs.get(&key.1).and_then(|job| job.stages.get(key.2));
            if stage.is_none_or(|stage| stage.inputs_missing > 0) {
                continue;
            }
            let may_start = self.executors.iter().any(|(id, executor)| {
                let idle = executor.leases.is_empty() && *reserved == Some(id);
                executor.is_live() && (idle || (reserved.is_none() && executor.reserved.is_none() && executor.is_welcome()))
            });
            hold(!may_start, "I7 wake-up", || format!("partition {} of {} waits for an executor that is free", key.3, key.1))?;
        }
        let reserved = self.executors.iter().filter(|(_, executor)| executor.reserved.is_some()).count();
        let waiting = self.alone.values().flatten().count();
        hold(reserved == waiting, "I6 reservations", || format!("{reserved} executors reserved for {waiting} partitions"))
    }

    /// Every lease belongs to a live attempt or waits for the end of a cancelled one.
    fn check_leases(&self) -> Checked {
        let mut slots = BTreeMap::new();
        for (id, executor) in self.executors.iter() {
            for lease in &executor.leases {
                *slots.entry(lease.attempt.job).or_insert(0_u32) += lease.slots;
                let job = self.jobs.get(&lease.attempt.job).filter(|job| job.is_active());
                let live = job.and_then(|job| job.attempts.get(&lease.attempt.attempt.number));
                let is_live = live.is_some_and(|live| live.id == lease.attempt && live.executor == id);
                hold(is_live != lease.cancelled, "I3 leases", || {
                    format!("{id} leases slots to {}: live {is_live}, cancelled {}", lease.attempt, lease.cancelled)
                })?;
            }
        }
        for job in self.jobs.values() {
            let leased = slots.get(&job.id).copied().unwrap_or(0);
            hold(leased == job.slots, "I3 leases", || format!("{} holds {leased} slots, {} counted", job.id, job.slots))?;
        }
        Ok(())
    }

    fn check_ended(&self, job: &Job) -> Checked {
        let is_bare = job.attempts.is_empty() && job.stages.is_empty() && job.hungry_as.is_none();
        let is_waited_for =
            self.timers.has_delayed(job.id) || job.ends_at.is_some() || self.alone.keys().any(|key| key.1 == job.id);
        let outputs = self.executors.iter().any(|(_, executor)| executor.outputs.keys().any(|key| key.0 == job.id));
        hold(is_bare && !is_waited_for && !outputs, "I6 ended", || format!("{} ended and owns something", job.id))
    }

    fn check_active(&self, job: &Job) -> Checked {
        let copies = job.attempts.values().filter(|attempt| attempt.twin.is_some()).count();
        hold(copies == 2 * job.copies as usize, "I1 copies", || {
            format!("{} has {copies} twins, {} pairs counted", job.id, job.copies)
        })?;
        for attempt in job.attempts.values() {
            self.check_attempt(job, attempt)?;
        }
        let open: Vec<Vec<bool>> =
            job.stages.iter().map(|stage| stage.partitions.iter().map(|entry| entry.state.is_open()).collect()).collect();
        for stage in 0..job.stages.len() {
            check_counts(job, stage, &open)?;
            self.check_partitions(job, stage)?;
            check_slices(job, stage)?;
        }
        let (ends_at, is_limited) = (job.ends_at, job.phase == JobPhase::Running && job.time_limit.is_some());
        let is_armed = ends_at.is_some() == is_limited && ends_at.is_none_or(|at| self.timers.is_limited(at, job.id));
        hold(is_armed, "I7 time limit", || format!("{} ends at {ends_at:?}, limited {is_limited}", job.id))?;
        check_kept(job)?;
        check_unfetched(job)?;
        self.check_awake(job)
    }

    fn check_attempt(&self, job: &Job, attempt: &Attempt) -> Checked {
        let executor = self.executors.current(attempt.executor, attempt.incarnation);
        hold(executor.is_some(), "I4 fencing", || format!("{} runs on an incarnation that is over", attempt.id))?;
        let number = attempt.id.attempt.number;
        let twin = attempt.twin.map(|twin| job.attempts.get(&twin));
        let is_pair =
            |other: &Attempt| other.twin == Some(number) && other.stage == attempt.stage && other.executor != attempt.executor;
        hold(twin.is_none_or(|twin| twin.is_some_and(is_pair)), "I1 copies", || format!("{} has no twin", attempt.id))?;
        let (losses, voids) = job.input_versions(attempt.stage, attempt.slice);
        let has_open = attempt.remaining > 0;
        hold(!has_open || voids == attempt.voids, "I2 inputs", || format!("{} read a void generation", attempt.id))?;
        let inputs = job.graph.stages[attempt.stage].inputs.iter();
        let mut read = inputs.filter(|input| attempt.slice.iter().any(|partition| reads(input, partition)));
        let is_complete = read.all(|input| job.stages[input.stage.0 as usize].is_complete());
        hold(!has_open || is_complete || losses > attempt.losses, "I2 inputs", || format!("{} has incomplete inputs", attempt.id))
    }

    fn check_partitions(&self, job: &Job, stage: usize) -> Checked {
        let id = StageId(u32::try_from(stage).unwrap_or(u32::MAX));
        let config = &self.config;
        let mut held: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
        for (partition, entry) in (0_u32..).zip(&job.stages[stage].partitions) {
            let place = || format!("partition {partition} of {id} of {}: {entry:?}", job.id);
            let bounds = entry.failures < config.attempts_max.max(1)
                && entry.deaths.len() <= (config.deaths_max.max(1) as usize).saturating_mul(DEATHS_FACTOR)
                && entry.generation <= config.generations_max;
            hold(bounds, "I8 bounds", place)?;
            match entry.state {
                State::Running(number) => {
                    let attempt = job.attempts.get(&number);
                    let runs =
                        attempt.is_some_and(|live| live.stage == stage && live.slice.contains(partition) && live.remaining > 0);
                    hold(runs, "I7 wake-up", || format!("no attempt runs {}", place()))?;
                }
                State::Committed(number) => {
                    let output = job.stages[stage].outputs.get(&number);
                    let Some(output) = output else { return hold(false, "I1 winner", place) };
                    let is_held = self.executors.current(output.executor, output.incarnation).is_some();
                    hold(is_held, "I4 fencing", || format!("held by an incarnation that is over: {}", place()))?;
                    hold(output.attempt.generation.0 == entry.generation && entry.committed, "I1 winner", place)?;
                    held.entry(output.executor).or_default().insert(partition);
                }
                State::Delayed => hold(self.timers.has_delayed(job.id), "I7 wake-up", place)?,
                State::Alone => hold(self.waits_alone(job, stage, partition), "I7 wake-up", place)?,
                State::Gone => hold(!job.is_partition_wanted(stage, partition), "I9 wanted", place)?,
                State::Queued | State::Skipped => {}
            }
        }
        for (executor, partitions) in held {
            let listed = self.executors.get(executor).and_then(|executor| executor.outputs.get(&(job.id, id)));
            let listed: BTreeSet<u32> = listed.into_iter().flatten().copied().collect();
            hold(listed == partitions, "I4 outputs", || format!("{executor} holds {partitions:?} of {id}, listed {listed:?}"))?;
        }
        Ok(())
    }

    fn waits_alone(&self, job: &Job, stage: usize, partition: u32) -> bool {
        let first = if job.graph.stages[stage].whole { 0 } else { partition };
        self.alone.contains_key(&(job.seq, job.id, stage, first))
    }

    /// An unfinished job has something that will bring it on.
    fn check_awake(&self, job: &Job) -> Checked {
        if job.phase != JobPhase::Running {
            return Ok(());
        }
        hold(job.ready.is_empty() || self.hungry.contains(job), "I7 wake-up", || format!("{} is not served", job.id))?;
        let runs = job.attempts.values().any(|attempt| attempt.remaining > 0);
        let waits = self.hungry.contains(job) || self.timers.has_delayed(job.id) || self.alone.keys().any(|key| key.1 == job.id);
        // Its readers bring it on, or somebody who gives it up.
        let is_held = job.is_held() && !job.stages[job.result()].queued.is_empty();
        hold(runs || waits || is_held, "I7 wake-up", || format!("nothing will bring {} on", job.id))
    }
}

/// A finished job with a kept result holds its result, all of it, and nothing that the result was made from.
fn check_kept(job: &Job) -> Checked {
    if !job.is_kept || job.phase != JobPhase::Succeeded {
        return Ok(());
    }
    let result = job.result();
    hold(job.stages[result].is_complete(), "I10 kept", || format!("the kept result of {} is not all there", job.id))?;
    let held = job.stages[..result].iter().position(|stage| !stage.outputs.is_empty() || stage.open > 0);
    hold(held.is_none(), "I10 kept", || format!("{} keeps its result and holds stage {held:?} too", job.id))
}

/// What waits for readers is counted right, and what they wait for is not there.
fn check_unfetched(job: &Job) -> Checked {
    let Some(result) = job.stages.get(job.result()) else { return Ok(()) };
    let waits = result.partitions.iter().filter(|entry| matches!(entry.state, State::Committed(_)) && !entry.delivered);
    let bytes = waits.fold(0_u64, |sum, entry| sum.saturating_add(entry.bytes));
    hold(bytes == job.unfetched.bytes, "I11 unfetched", || {
        format!("{bytes} bytes of {} wait for readers, {} counted", job.id, job.unfetched.bytes)
    })?;
    let is_there = |partition: &u32| result.partitions.get(*partition as usize).is_none_or(|entry| entry.state.is_available());
    let there = job.unfetched.awaited.iter().find(|partition| is_there(partition));
    hold(there.is_none(), "I11 unfetched", || format!("partition {there:?} of {} is awaited and there", job.id))?;
    let may_begin = job.next_run(job.result()).is_some() && result.inputs_missing == 0;
    hold(may_begin == result.ready, "I11 unfetched", || format!("{} may begin {may_begin}, is ready {}", job.id, result.ready))
}

/// What is counted over partitions is right.
fn check_counts(job: &Job, stage: usize, open: &[Vec<bool>]) -> Checked {
    let entry = &job.stages[stage];
    let count = |which: fn(&Partition) -> bool| u32::try_from(entry.partitions.iter().filter(|p| which(p)).count()).unwrap_or(0);
    let counts = (
        count(|p| p.state.is_open()),
        count(|p| p.state.is_available()),
        count(|p| p.state == State::Gone),
        count(|p| matches!(p.state, State::Running(_))),
        count(|p| p.state == State::Queued),
    );
    let counted = (entry.open, entry.available, entry.gone, entry.running, entry.queued.len());
    hold(counts == counted, "I9 counts", || format!("stage {stage} of {}: {counted:?}, but {counts:?}", job.id))?;
    let queued = (0_u32..).zip(&entry.partitions).all(|(p, state)| (state.state == State::Queued) == entry.queued.contains(p));
    hold(queued, "I7 queue", || format!("stage {stage} of {}: the queue is wrong", job.id))?;
    let edges = job.graph.stages.iter().zip(open).flat_map(|(plan, open)| plan.inputs.iter().map(move |input| (input, open)));
    let mine = edges.filter(|(input, _)| input.stage.0 as usize == stage);
    let readers: usize = mine.map(|(_, open)| open.iter().filter(|open| **open).count()).sum();
    hold(readers as u64 == entry.readers_open, "I9 readers", || {
        format!("stage {stage} of {} has {readers} readers, {} counted", job.id, entry.readers_open)
    })?;
    let missing = job.graph.stages[stage].waits_for().filter(|input| !job.stages[input.0 as usize].is_complete()).count();
    hold(missing == entry.inputs_missing as usize, "I2 ready", || {
        format!("stage {stage} of {} lacks {missing} inputs, {} counted", job.id, entry.inputs_missing)
    })
}

/// What commits together is there together, and a `Varying` stage has one generation.
fn check_slices(job: &Job, stage: usize) -> Checked {
    let (plan, entry) = (&job.graph.stages[stage], &job.stages[stage]);
    for (number, output) in &entry.outputs {
        let mine = output.slice.iter().filter(|&p| entry.partitions[p as usize].state == State::Committed(*number)).count();
        hold(mine == output.committed as usize && mine > 0, "I1 winner", || format!("{} is miscounted", output.attempt))?;
        let is_whole = mine == output.slice.len() as usize;
        hold(!entry.by_slice || is_whole, "I1 slice", || format!("{} committed a part of its slice", output.attempt))?;
    }
    for (number, output) in &entry.outputs {
        let is_stale = |p: u32| {
            let (partition, (_, voids)) =
                (&entry.partitions[p as usize], job.input_versions(stage, Slice { start: p, end: p + 1 }));
            partition.state == State::Committed(*number) && partition.voids != voids
        };
        hold(!output.slice.iter().any(is_stale), "I2 varying", || format!("{} read a void generation", output.attempt))?;
    }
    if plan.repeats != Repeats::Varying {
        return Ok(());
    }
    let current = entry.partitions.iter().filter(|p| matches!(p.state, State::Committed(_) | State::Running(_)));
    let generations: BTreeSet<u32> = current.map(|p| p.generation).collect();
    hold(generations.len() <= 1, "I2 varying", || format!("stage {stage} of {} mixes generations {generations:?}", job.id))
}
