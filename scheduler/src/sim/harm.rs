//! What faults do to the model world, and how it heals.

use windrow_core::ids::{AttemptId, ExecutorId, Incarnation};
use windrow_core::message::Registration;

use super::mischief::Mischief;
use super::options::Script;
use super::world::{Happening, World};
use crate::event::Event;

/// Without an answer for this long, an executor ends its incarnation by itself.
const LEASE_MS: u64 = 8_000;

/// How long a fault of a script lasts, where that does not matter.
const SCRIPTED_MS: u64 = 4_000;

/// The longest that a fault lasts.
const LASTS_MAX_MS: u64 = 20_000;

/// Times slower.
const SLOWER: u64 = 20;

/// Until when an executor is hurt, in virtual milliseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Harm {
    pub(crate) frozen: u64,
    frozen_since: u64,
    slow: u64,
    disk: u64,
    /// To the scheduler, and from it.
    pub(crate) mute: (u64, u64),
    clogged: Vec<(ExecutorId, u64)>,
}

impl World {
    /// Plans the faults that come by number.
    pub(crate) fn plan_harm(&mut self) {
        let rates = self.options.rates.clone();
        let planned = [
            (rates.kills, Mischief::Kill),
            (rates.freezes, Mischief::Freeze),
            (rates.slow, Mischief::Slow),
            (rates.full_disks, Mischief::FillDisk),
            (rates.clogs, Mischief::Clog),
            (rates.mutes, Mischief::Mute),
            (rates.drains, Mischief::Drain),
        ];
        for (count, what) in planned {
            for _ in 0..count {
                let at = self.rng.u64(..self.options.faulty_ms);
                let executor = ExecutorId(self.rng.u32(..self.options.executors));
                self.later(at, Happening::Strike { what, executor });
            }
        }
    }

    /// A planned fault strikes, unless it is left out.
    pub(crate) fn strike(&mut self, what: Mischief, executor: ExecutorId) {
        let Some(drawn) = self.strikes(1000, what, executor.0.into()) else { return };
        let until = self.now() + 1 + drawn % LASTS_MAX_MS;
        match what {
            Mischief::Kill => self.kill(executor, drawn.is_multiple_of(2), drawn % LASTS_MAX_MS),
            Mischief::Freeze => self.freeze(executor, until),
            Mischief::Slow => self.harm(executor).slow = until,
            Mischief::FillDisk => self.harm(executor).disk = until,
            Mischief::Mute => {
                let (to, from) = [(until, 0), (0, until), (until, until)][(drawn % 3) as usize];
                self.harm(executor).mute = (to, from);
            }
            Mischief::Clog => {
                let other = ExecutorId(u32::try_from(drawn % u64::from(self.options.executors)).unwrap_or(0));
                self.harm(executor).clogged.push((other, until));
                self.harm(other).clogged.push((executor, until));
            }
            Mischief::Drain => self.step(Event::DrainAsked { executor }),
            _ => {}
        }
    }

    /// The single fault of a script.
    pub(crate) fn play(&mut self, script: Script) {
        let until = self.now() + SCRIPTED_MS;
        match script {
            Script::Nothing => {}
            Script::Kill(executor, resets) => self.kill(executor, resets, SCRIPTED_MS),
            Script::Freeze(executor, ms) => self.freeze(executor, self.now() + ms),
            Script::LoseOutputs(executor) => self.models[executor.0 as usize].outputs.clear(),
            Script::Drain(executor) => self.step(Event::DrainAsked { executor }),
            Script::FillDisk(executor) => self.harm(executor).disk = until,
            Script::Mute(executor, ms) => self.harm(executor).mute = (self.now() + ms, self.now() + ms),
            Script::Slow(executor) => self.harm(executor).slow = until,
            Script::Drop | Script::Repeat | Script::Delay | Script::Fail => self.once = Some(script),
        }
    }

    /// Whether the fault of a script strikes now.
    pub(crate) fn is_once(&mut self, script: Script) -> bool {
        if self.once == Some(script) {
            self.once = None;
            return true;
        }
        false
    }

    fn harm(&mut self, executor: ExecutorId) -> &mut Harm {
        &mut self.models[executor.0 as usize].harm
    }

    fn freeze(&mut self, executor: ExecutorId, until: u64) {
        let now = self.now();
        let harm = self.harm(executor);
        if harm.frozen <= now {
            harm.frozen_since = now;
        }
        harm.frozen = harm.frozen.max(until);
        self.at(until, Happening::Thaw(executor));
    }

    /// An executor that stood still for longer than its lease knows that it is not trusted any more.
    pub(crate) fn thaw(&mut self, executor: ExecutorId) {
        let now = self.now();
        let model = &mut self.models[executor.0 as usize];
        if model.harm.frozen > now {
            return;
        }
        let (since, is_alive) = (model.harm.frozen_since, model.is_alive);
        for happening in std::mem::take(&mut model.held) {
            self.at(now, happening);
        }
        if is_alive && now.saturating_sub(since) >= LEASE_MS {
            self.stop(executor);
            self.register(executor);
        }
    }

    /// Until when an executor stands still, if it does.
    pub(crate) fn frozen_until(&self, executor: ExecutorId) -> Option<u64> {
        Some(self.models[executor.0 as usize].harm.frozen).filter(|until| *until > self.now())
    }

    pub(crate) fn is_disk_full(&self, executor: ExecutorId) -> bool {
        self.models[executor.0 as usize].harm.disk > self.now()
    }

    /// How long work takes.
    pub(crate) fn slowed(&self, executor: ExecutorId, work: u64) -> u64 {
        if self.models[executor.0 as usize].harm.slow > self.now() { work * SLOWER } else { work }
    }

    pub(crate) fn is_clogged(&self, one: ExecutorId, other: ExecutorId) -> bool {
        let now = self.now();
        self.models[one.0 as usize].harm.clogged.iter().any(|&(far, until)| far == other && until > now)
    }

    /// Everything is well again, and everybody is there.
    pub(crate) fn heal(&mut self) {
        self.is_healed = true;
        let now = self.now();
        for index in 0..self.options.executors {
            let harm = self.harm(ExecutorId(index));
            let frozen = harm.frozen;
            *harm = Harm { frozen: frozen.min(now), frozen_since: harm.frozen_since, ..Harm::default() };
            if frozen > now {
                self.later(0, Happening::Thaw(ExecutorId(index)));
            }
            self.later(1, Happening::Rejoin(ExecutorId(index)));
        }
    }

    /// A new incarnation of a living executor makes itself known.
    pub(crate) fn register(&mut self, executor: ExecutorId) {
        let model = &mut self.models[executor.0 as usize];
        model.incarnation = Incarnation(model.incarnation.0 + 1);
        let (incarnation, slots) = (model.incarnation, model.slots);
        let registration = Registration {
            name: executor.to_string(),
            slots,
            memory_bytes: 0,
            address: format!("{executor}:1"),
            build: String::new(),
            pid: 0,
            clients: None,
        };
        self.report(executor, Event::ExecutorRegistered { executor, incarnation, registration });
        self.later(1_000, Happening::Heartbeat { executor, incarnation });
    }

    /// An executor is killed, and comes back after `away` milliseconds.
    pub(crate) fn kill(&mut self, executor: ExecutorId, resets: bool, away: u64) {
        if !self.models[executor.0 as usize].is_alive {
            return;
        }
        let incarnation = self.models[executor.0 as usize].incarnation;
        self.stop(executor);
        self.models[executor.0 as usize].is_alive = false;
        if resets {
            let wait = self.rng.u64(..50);
            self.later(wait, Happening::ToScheduler(Event::ConnectionLost { executor, incarnation }));
        }
        self.later(away.max(1), Happening::Rejoin(executor));
    }

    /// Everything an executor has is gone.
    pub(crate) fn stop(&mut self, executor: ExecutorId) {
        let model = &mut self.models[executor.0 as usize];
        model.running.clear();
        model.outputs.clear();
    }

    pub(crate) fn lose_output(&mut self, executor: ExecutorId, attempt: AttemptId, partition: u32) {
        let outputs = &mut self.models[executor.0 as usize].outputs;
        if let Some(made) = outputs.get_mut(&attempt).filter(|_| !self.is_healed) {
            made.remove(&partition);
            if made.is_empty() {
                outputs.remove(&attempt);
            }
        }
    }
}
