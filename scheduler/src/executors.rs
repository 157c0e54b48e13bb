//! The executors: who lives, whose slots are taken by which attempt, and who holds which outputs.
//!
//! A slot is a lease with one owner, the attempt it was taken for, from the launch until the executor says that the attempt ended, or
//! until the executor is lost. A cancelled attempt keeps its lease until then, so that a slot is never promised twice. The states are
//! drawn at [`ExecutorState`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use windrow_core::clock::Millis;
use windrow_core::ids::{AttemptId, ExecutorId, Incarnation, JobId, StageId};
use windrow_core::message::Registration;

use crate::status::{ExecutorState, ExecutorStatus};

/// How long a complaint is remembered.
const COMPLAINT_LASTS: Duration = Duration::from_secs(60);

/// Slots taken by one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) attempt: AttemptId,
    /// How many; shrinks as partitions of the slice are done.
    pub(crate) slots: u32,
    /// It was launched without a slot.
    pub(crate) is_light: bool,
    /// The scheduler asked for its end and waits for the answer.
    pub(crate) cancelled: bool,
    pub(crate) launched_at: Millis,
    /// Since when heartbeats do not name it.
    pub(crate) missing_since: Option<Millis>,
}

/// One executor.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    pub(crate) incarnation: Incarnation,
    pub(crate) state: ExecutorState,
    pub(crate) slots: u32,
    pub(crate) used: u32,
    /// Its memory limit; 0 where it did not say.
    pub(crate) memory_bytes: u64,
    pub(crate) address: Option<String>,
    pub(crate) last_heard: Millis,
    pub(crate) drain_asked_at: Option<Millis>,
    pub(crate) leases: Vec<Lease>,
    /// Committed partitions it holds, of each stage.
    pub(crate) outputs: BTreeMap<(JobId, StageId), Vec<u32>>,
    pub(crate) held: u64,
    /// No slices but this partition's, which needs the whole executor.
    pub(crate) reserved: Option<(JobId, usize, u32)>,
    /// Who first could not reach it, and when.
    complaint: Option<(ExecutorId, Millis)>,
    /// Others could not reach it: until then it gets no slices while others are there.
    pub(crate) shunned_until: Option<Millis>,
}

impl Executor {
    /// Whether this incarnation is not over.
    pub(crate) fn is_connected(&self) -> bool {
        !matches!(self.state, ExecutorState::Dead | ExecutorState::Left)
    }

    pub(crate) fn is_live(&self) -> bool {
        self.state == ExecutorState::Live
    }

    /// Whether it takes slices.
    pub(crate) fn is_welcome(&self) -> bool {
        self.is_live() && self.shunned_until.is_none()
    }

    fn is_usable(&self) -> bool {
        matches!(self.state, ExecutorState::Live | ExecutorState::Suspect)
    }

    /// Attempts that were launched without a slot.
    fn light(&self) -> u32 {
        u32::try_from(self.leases.iter().filter(|lease| lease.is_light).count()).unwrap_or(u32::MAX)
    }

    fn free(&self) -> u32 {
        if self.is_welcome() && self.reserved.is_none() { self.slots.saturating_sub(self.used) } else { 0 }
    }
}

/// All executors ever seen, and indexes of the ones that take slices.
#[derive(Debug, Default)]
pub(crate) struct Executors {
    all: BTreeMap<ExecutorId, Executor>,
    /// Executors with free slots that take slices, by free slots.
    free: BTreeSet<(u32, Reverse<ExecutorId>)>,
    free_slots: u64,
    live: u32,
    live_slots: u64,
    /// Live or suspect: what a waiting job may hope for.
    usable: u32,
    /// Executors lost that ran nothing which was on another when that was lost: deaths that happen anyway.
    pub(crate) lost_anyway: u64,
}

impl Executors {
    pub(crate) fn get(&self, id: ExecutorId) -> Option<&Executor> {
        self.all.get(&id)
    }

    /// The executor if `incarnation` is its present one and is not over.
    pub(crate) fn current(&self, id: ExecutorId, incarnation: Incarnation) -> Option<&Executor> {
        self.all.get(&id).filter(|executor| executor.incarnation == incarnation && executor.is_connected())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ExecutorId, &Executor)> + '_ {
        self.all.iter().map(|(&id, executor)| (id, executor))
    }

    /// Executors that take slices.
    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    /// Executors that take slices or may take them again.
    pub(crate) fn usable(&self) -> u32 {
        self.usable
    }

    /// Slots of the executors that take slices, free or not.
    pub(crate) fn live_slots(&self) -> u64 {
        self.live_slots
    }

    pub(crate) fn free_slots(&self) -> u64 {
        self.free_slots
    }

    /// How many executors have free slots.
    pub(crate) fn free_executors(&self) -> usize {
        self.free.len()
    }

    /// Free slots of one executor; zero if it takes no slices.
    pub(crate) fn free_of(&self, id: ExecutorId) -> u32 {
        self.all.get(&id).map_or(0, Executor::free)
    }

    /// The executor with most free slots, the lowest number on a tie; `avoid` only if there is no other.
    pub(crate) fn most_free(&self, avoid: Option<ExecutorId>) -> Option<ExecutorId> {
        let mut candidates = self.free.iter().rev().map(|&(_, Reverse(id))| id);
        let first = candidates.next()?;
        if Some(first) == avoid { candidates.next().or(Some(first)) } else { Some(first) }
    }

    /// The attempts that run without a slot.
    pub(crate) fn light(&self) -> impl Iterator<Item = AttemptId> + '_ {
        self.all.values().flat_map(|executor| &executor.leases).filter(|lease| lease.is_light).map(|lease| lease.attempt)
    }

    /// The executor that takes slices and runs fewest attempts without a slot, of those that run fewer than they have slots; `avoid` only if
    /// there is no other.
    pub(crate) fn for_light(&self, avoid: Option<ExecutorId>) -> Option<ExecutorId> {
        let may = |executor: &Executor| executor.is_welcome() && executor.reserved.is_none() && executor.light() < executor.slots;
        let free = self.all.iter().filter(|(_, executor)| may(executor));
        free.min_by_key(|(id, executor)| (Some(**id) == avoid, executor.light(), **id)).map(|(&id, _)| id)
    }

    /// Changes an executor and keeps the indexes right.
    pub(crate) fn update<T>(&mut self, id: ExecutorId, change: impl FnOnce(&mut Executor) -> T) -> Option<T> {
        let executor = self.all.get_mut(&id)?;
        let (free, live, usable, slots) = (executor.free(), executor.is_live(), executor.is_usable(), executor.slots);
        let answer = change(executor);
        let (free_now, live_now, slots_now) = (executor.free(), executor.is_live(), executor.slots);
        self.usable = self.usable - u32::from(usable) + u32::from(executor.is_usable());
        if free != free_now {
            if free > 0 {
                self.free.remove(&(free, Reverse(id)));
            }
            if free_now > 0 {
                self.free.insert((free_now, Reverse(id)));
            }
            self.free_slots = self.free_slots - u64::from(free) + u64::from(free_now);
        }
        if (live, slots) != (live_now, slots_now) {
            self.live = self.live - u32::from(live) + u32::from(live_now);
            self.live_slots -= if live { u64::from(slots) } else { 0 };
            self.live_slots += if live_now { u64::from(slots_now) } else { 0 };
        }
        Some(answer)
    }

    /// Enters a new incarnation; the one before must be over.
    pub(crate) fn register(&mut self, id: ExecutorId, incarnation: Incarnation, registration: &Registration, now: Millis) {
        let address = Some(registration.address.clone()).filter(|address| !address.is_empty());
        let fresh = || Executor {
            incarnation,
            state: ExecutorState::Dead,
            slots: 0,
            used: 0,
            memory_bytes: registration.memory_bytes,
            address: None,
            last_heard: now,
            drain_asked_at: None,
            leases: Vec::new(),
            outputs: BTreeMap::new(),
            held: 0,
            reserved: None,
            complaint: None,
            shunned_until: None,
        };
        self.all.entry(id).or_insert_with(fresh);
        self.update(id, |executor| {
            *executor = Executor { state: ExecutorState::Live, slots: registration.slots.max(1), address, ..fresh() };
        });
    }

    /// Whether this is the first complaint that a living executor cannot be reached, so that another should try before it is believed.
    /// The same complainer is believed only for an attempt that began after its first complaint.
    pub(crate) fn is_first_complaint(
        &mut self,
        about: (ExecutorId, Incarnation),
        by: ExecutorId,
        began: Millis,
        now: Millis,
    ) -> bool {
        let can_try = self.all.iter().any(|(&id, executor)| id != by && executor.is_live());
        let (id, incarnation) = about;
        if !can_try || self.current(id, incarnation).is_none() {
            return false;
        }
        let judge = |executor: &mut Executor| match executor.complaint {
            Some((first, at)) if now <= at.after(COMPLAINT_LASTS) => first == by && began < at,
            _ => {
                executor.complaint = Some((by, now));
                true
            }
        };
        self.all.get_mut(&id).is_some_and(judge)
    }

    /// Gives no more slices to an executor that others cannot reach, unless nobody else is left to take them. It ends with the look at
    /// its silence after that time.
    pub(crate) fn shun(&mut self, id: ExecutorId, now: Millis) {
        if self.all.iter().any(|(&other, executor)| other != id && executor.is_welcome()) {
            self.update(id, |executor| executor.shunned_until = Some(now.after(COMPLAINT_LASTS)));
        }
    }

    /// Takes slots for an attempt.
    pub(crate) fn take(&mut self, id: ExecutorId, attempt: AttemptId, slots: u32, now: Millis) {
        self.update(id, |executor| {
            executor.used = executor.used.saturating_add(slots);
            let is_light = slots == 0;
            executor.leases.push(Lease { attempt, slots, is_light, cancelled: false, launched_at: now, missing_since: None });
        });
    }

    /// Lets an attempt keep at most `slots` of its slots; says how many it gave back.
    pub(crate) fn shrink(&mut self, id: ExecutorId, attempt: AttemptId, slots: u32) -> u32 {
        let shrink = |executor: &mut Executor| {
            let lease = executor.leases.iter_mut().find(|lease| lease.attempt == attempt)?;
            let back = lease.slots.saturating_sub(slots);
            lease.slots -= back;
            executor.used -= back;
            Some(back)
        };
        self.update(id, shrink).flatten().unwrap_or(0)
    }

    /// Ends the lease of an attempt.
    pub(crate) fn give_back(&mut self, id: ExecutorId, attempt: AttemptId) -> Option<Lease> {
        let end = |executor: &mut Executor| {
            let index = executor.leases.iter().position(|lease| lease.attempt == attempt)?;
            let lease = executor.leases.swap_remove(index);
            executor.used -= lease.slots;
            Some(lease)
        };
        self.update(id, end).flatten()
    }

    /// Marks the lease of an attempt as waiting for its end.
    pub(crate) fn mark_cancelled(&mut self, id: ExecutorId, attempt: AttemptId) {
        self.update(id, |executor| {
            if let Some(lease) = executor.leases.iter_mut().find(|lease| lease.attempt == attempt) {
                lease.cancelled = true;
            }
        });
    }

    /// Notes that an executor holds a committed partition.
    pub(crate) fn hold(&mut self, id: ExecutorId, job: JobId, stage: StageId, partition: u32) {
        if let Some(executor) = self.all.get_mut(&id) {
            executor.outputs.entry((job, stage)).or_default().push(partition);
            executor.held += 1;
        }
    }

    /// The committed partitions of a stage that an executor holds.
    pub(crate) fn held(&self, id: ExecutorId, job: JobId, stage: StageId) -> Vec<u32> {
        self.all.get(&id).and_then(|executor| executor.outputs.get(&(job, stage))).cloned().unwrap_or_default()
    }

    /// Notes that an executor does not hold a committed partition any more.
    pub(crate) fn drop_output(&mut self, id: ExecutorId, job: JobId, stage: StageId, partition: u32) {
        let Some(executor) = self.all.get_mut(&id) else { return };
        let Some(held) = executor.outputs.get_mut(&(job, stage)) else { return };
        if let Some(index) = held.iter().position(|&other| other == partition) {
            held.swap_remove(index);
            executor.held -= 1;
        }
        if held.is_empty() {
            executor.outputs.remove(&(job, stage));
        }
    }

    /// Notes that an executor holds nothing of a stage any more.
    pub(crate) fn drop_stage(&mut self, id: ExecutorId, job: JobId, stage: StageId) {
        if let Some(executor) = self.all.get_mut(&id)
            && let Some(held) = executor.outputs.remove(&(job, stage))
        {
            executor.held -= held.len() as u64;
        }
    }

    /// For people.
    pub(crate) fn status(&self) -> Vec<ExecutorStatus> {
        self.iter()
            .map(|(id, executor)| ExecutorStatus {
                executor: id,
                incarnation: executor.incarnation,
                state: executor.state,
                slots: executor.slots,
                used: executor.used,
                held: executor.held,
            })
            .collect()
    }

    /// Recomputes the indexes and compares: slots in use are the sum of the leases, and what is free is what is indexed as free.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut free = BTreeSet::new();
        let (mut live, mut usable, mut live_slots) = (0_u32, 0_u32, 0_u64);
        for (id, executor) in self.iter() {
            let leased: u64 = executor.leases.iter().map(|lease| u64::from(lease.slots)).sum();
            if leased != u64::from(executor.used) || executor.used > executor.slots {
                return Err(format!("{id}: {leased} slots leased, {} used of {}", executor.used, executor.slots));
            }
            if !executor.is_connected() && (executor.used > 0 || executor.held > 0 || !executor.leases.is_empty()) {
                return Err(format!("{id} is gone and owns slots or outputs"));
            }
            if executor.free() > 0 {
                free.insert((executor.free(), Reverse(id)));
            }
            if executor.is_live() {
                live += 1;
                live_slots += u64::from(executor.slots);
            }
            usable += u32::from(executor.is_usable());
            let held: usize = executor.outputs.values().map(Vec::len).sum();
            if held as u64 != executor.held {
                return Err(format!("{id}: {held} outputs listed, {} counted", executor.held));
            }
        }
        let free_slots: u64 = free.iter().map(|&(slots, _)| u64::from(slots)).sum();
        if free != self.free
            || (live, usable, live_slots, free_slots) != (self.live, self.usable, self.live_slots, self.free_slots)
        {
            return Err("the index of free executors does not match the executors".to_owned());
        }
        Ok(())
    }
}
