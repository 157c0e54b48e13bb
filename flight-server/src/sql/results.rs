//! The results of one server that clients fetch by ticket: whose each is, when it expires, and who reads it. Next:
//! `readers.rs`.
//!
//! A result ends when nothing was asked of it for `results.ttl`, when its session is closed, when it is cancelled, or when its last
//! reader goes before its job is done. What it was stays known for a while, so that its owner is told why it is gone; to everybody else
//! it is like one that never was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow_flight::FlightDescriptor;
use bytes::Bytes;
use parking_lot::Mutex;
use windrow_auth::{Login, Principal, Verb, authorize};
use windrow_core::clock::unix_millis;
use windrow_core::config::{Fetch, ResultsConfig};
use windrow_core::ids::{JobId, SessionId};
use windrow_core::task::InputGroup;
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::timer;

use super::readers::{Reader, Rows};
use super::tickets::Seals;
use crate::coordinator::Coordinator;
use crate::fetch::{self, Asker};
use crate::results::{Budget, Kept, Statement};
use crate::routine::Routine;
use crate::security::Access;

/// Bytes of unfinished partitions that all readers hold back together; beyond it rows leave before their partition was read to its end.
const BUFFER_MAX: u64 = 64 << 20;

/// Of the results that are kept, the part that makes room for others at a time.
const DISPLACED_PART: usize = 16;

/// Results that are gone of which it is known why.
const GONE_MAX: usize = 4096;

/// Who asks for a result: `None` where nobody is asked who they are.
pub(super) type Caller = Option<Principal>;

/// Why a result is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// Nobody asked for it any more.
    Expired,
    /// Its session was closed.
    Closed,
    /// Its client cancelled it, or left.
    Cancelled,
    /// It was read, and others needed the room.
    Displaced,
}

/// What a result is kept for.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) owner: Caller,
    pub(super) session: SessionId,
    /// The descriptor that the client asked with.
    pub(super) descriptor: FlightDescriptor,
    /// The job ends when its last reader goes before it is done.
    pub(super) cancel_on_drop: bool,
}

/// One result.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) kept: Kept,
    pub(super) wish: Wish,
    /// The sealed name of its job.
    pub(super) name: Bytes,
    pub(super) tickets: Vec<(Range<u32>, Bytes)>,
    ttl: Duration,
    pub(super) state: Mutex<OfferState>,
}

#[derive(Debug, Default)]
pub(super) struct OfferState {
    expires_at: u64,
    /// Readers, and those who wait for it.
    pub(super) readers: u32,
    /// Partitions that somebody has read to their end.
    pub(super) read: BTreeSet<u32>,
    /// The tickets that PollFlightInfo has named, in the order in which it did.
    listed: Vec<usize>,
    progress: f64,
}

impl Offer {
    /// It was asked for: from now on it has its whole time again.
    pub(super) fn touch(&self) {
        self.state.lock().expires_at = unix_millis().saturating_add(millis(self.ttl));
    }

    /// When it expires, in milliseconds since 1970, unless it is asked for again.
    pub(super) fn expires_at(&self) -> u64 {
        self.state.lock().expires_at
    }

    /// How long it has at least, and at most if nothing is asked of it.
    fn left(&self) -> Duration {
        let state = self.state.lock();
        let left = Duration::from_millis(state.expires_at.saturating_sub(unix_millis()));
        if state.readers > 0 { left.max(self.ttl) } else { left }
    }

    /// When it was asked for last, if all of it was read and nobody is there.
    fn read_at(&self) -> Option<u64> {
        let state = self.state.lock();
        let has_all = state.read.len() as u64 >= u64::from(self.kept.partitions());
        (has_all && state.readers == 0).then_some(state.expires_at)
    }

    /// The tickets whose partitions can be read. What was in an earlier answer is at the same place in a later one.
    ///
    /// # Errors
    /// The job's, if it failed.
    pub(super) fn listed(&self) -> Result<Vec<usize>> {
        let mut state = self.state.lock();
        for (index, (partitions, _)) in self.tickets.iter().enumerate() {
            if !state.listed.contains(&index) && self.kept.is_ready(partitions.clone())? {
                state.listed.push(index);
            }
        }
        Ok(state.listed.clone())
    }

    /// How far the job is: below 1 until it is done, and never less than it was.
    pub(super) fn progress(&self, is_done: bool) -> f64 {
        let progress = *self.kept.progress().borrow();
        let part = f64::from(progress.tasks_done) / f64::from(progress.tasks_total.max(1));
        let mut state = self.state.lock();
        state.progress = state.progress.max(if is_done { 1.0 } else { part.min(0.99) });
        state.progress
    }
}

/// The results of one server.
pub(super) struct Results {
    coordinator: Arc<Coordinator>,
    config: ResultsConfig,
    seals: Seals,
    /// Whether clients reach this server encrypted.
    encrypts: bool,
    budget: Arc<Budget>,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    offers: BTreeMap<JobId, Held>,
    gone: BTreeMap<JobId, (Caller, Gone)>,
}

/// A result, and what waits for its expiry.
#[derive(Debug)]
struct Held {
    offer: Arc<Offer>,
    _expiry: Routine,
}

impl Shelf {
    /// Takes a result away, and remembers why.
    fn remove(&mut self, job: JobId, why: Gone) -> Option<Held> {
        let held = self.offers.remove(&job)?;
        self.gone.insert(job, (held.offer.wish.owner.clone(), why));
        if self.gone.len() > GONE_MAX {
            self.gone.pop_first();
        }
        Some(held)
    }

    /// Takes away, of those that were read, up to `most` that nobody has asked for longest: some at a time, so that finding them costs
    /// each statement little.
    fn displace(&mut self, most: usize) -> Vec<Held> {
        let read = self.offers.iter().filter_map(|(job, held)| Some((held.offer.read_at()?, *job)));
        let mut read: Vec<(u64, JobId)> = read.collect();
        read.sort_unstable();
        read.iter().take(most).filter_map(|(_, job)| self.remove(*job, Gone::Displaced)).collect()
    }
}

impl Held {
    /// Lets go of what it holds, after it was taken away.
    fn end(self, why: Gone) {
        tracing::info!(job = %self.offer.kept.job, ?why, "a result is released");
        self.offer.kept.release();
    }
}

impl fmt::Debug for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Results").field("config", &self.config).field("shelf", &self.shelf).finish_non_exhaustive()
    }
}

impl Results {
    /// No results yet, behind a listener with `access`, whose key seals the tickets.
    pub(super) fn new(coordinator: Arc<Coordinator>, access: &Access) -> Arc<Self> {
        let config = coordinator.results_config().clone();
        let (seals, encrypts, budget) = (Seals::new(access.key()), access.encrypts(), Budget::new(BUFFER_MAX));
        Arc::new(Self { coordinator, config, seals, encrypts, budget, shelf: Mutex::default() })
    }

    /// Keeps a statement's result.
    ///
    /// # Errors
    /// `ResourcesExhausted` if there are too many, `Unavailable` if the coordinator has ended; the statement is dropped.
    pub(super) async fn keep(self: &Arc<Self>, statement: Statement, wish: Wish) -> Result<Arc<Offer>> {
        let kept = Kept::new(statement, &self.coordinator).await?;
        let job = kept.job;
        let groups = groups(kept.partitions(), self.config.endpoints_max);
        let tickets = groups.map(|partitions| Ok((partitions.clone(), self.seals.ticket(job, &partitions)?.into())));
        let tickets = tickets.collect::<Result<Vec<_>>>()?;
        let (name, ttl, state) = (self.seals.name(job)?.into(), self.config.ttl, Mutex::default());
        let offer = Arc::new(Offer { kept, wish, name, tickets, ttl, state });
        offer.touch();
        let displaced = self.place(&offer)?;
        displaced.into_iter().for_each(|displaced| displaced.end(Gone::Displaced));
        Ok(offer)
    }

    /// Puts a result among the others, and takes away those that had to make room for it. Both under one lock: of two statements at the
    /// same time, one would find the place taken that was there before.
    ///
    /// # Errors
    /// As in [`Self::keep`].
    fn place(self: &Arc<Self>, offer: &Arc<Offer>) -> Result<Vec<Held>> {
        let job = offer.kept.job;
        let most = self.config.kept_max as usize;
        let mut shelf = self.shelf.lock();
        let displaced = if shelf.offers.len() < most { Vec::new() } else { shelf.displace((most / DISPLACED_PART).max(1)) };
        if shelf.offers.len() >= most {
            let what = format!("{most} results are kept, which is results.kept_max");
            return Err(Error::new(ErrorKind::ResourcesExhausted, what)
                .with_help("close sessions or cancel results of earlier statements"));
        }
        let expiry = Routine::spawn(&job.to_string(), "expiry", expire(Arc::downgrade(self), Arc::clone(offer)));
        shelf.offers.insert(job, Held { offer: Arc::clone(offer), _expiry: expiry });
        Ok(displaced)
    }

    /// The result that a ticket is for, and which partitions of it.
    ///
    /// # Errors
    /// `NotFound`, the same for every ticket that is not the caller's.
    pub(super) fn by_ticket(&self, ticket: &[u8], caller: &Caller) -> Result<(Arc<Offer>, Range<u32>)> {
        let (job, partitions) = self.seals.open_ticket(ticket).ok_or_else(unknown)?;
        Ok((self.get(job, caller)?, partitions))
    }

    /// The result of a job's sealed name.
    ///
    /// # Errors
    /// As in [`Self::by_ticket`].
    pub(super) fn by_name(&self, name: &[u8], caller: &Caller) -> Result<Arc<Offer>> {
        self.get(self.seals.open_name(name).ok_or_else(unknown)?, caller)
    }

    fn get(&self, job: JobId, caller: &Caller) -> Result<Arc<Offer>> {
        let shelf = self.shelf.lock();
        if let Some(held) = shelf.offers.get(&job).filter(|held| may(caller, &held.offer.wish.owner, false)) {
            return Ok(Arc::clone(&held.offer));
        }
        match shelf.gone.get(&job).filter(|(owner, _)| may(caller, owner, false)) {
            Some((_, gone)) => Err(self.gone(job, *gone)),
            None => Err(unknown()),
        }
    }

    fn gone(&self, job: JobId, gone: Gone) -> Error {
        let (number, ttl) = (job.0, humantime(self.config.ttl));
        let error = |what: String| Error::new(ErrorKind::NotFound, what);
        match gone {
            Gone::Expired => error(format!("the result of job {number} expired after {ttl}"))
                .with_help("run the query again; results.ttl is how long a result is kept after the last call about it"),
            Gone::Closed => error(format!("the result of job {number} was released when its session was closed")),
            Gone::Displaced => error(format!("the result of job {number} was read and made room for others"))
                .with_help("run the query again; results.kept_max is how many results are kept"),
            Gone::Cancelled => Error::new(ErrorKind::Cancelled, format!("job {number} was cancelled, and its result released")),
        }
    }

    /// The caller's results, oldest first.
    pub(super) fn of(&self, caller: &Caller) -> Vec<Arc<Offer>> {
        let shelf = self.shelf.lock();
        let mine = shelf.offers.values().filter(|held| may(caller, &held.offer.wish.owner, false));
        mine.map(|held| Arc::clone(&held.offer)).collect()
    }

    /// Cancels a job that runs and releases its result. Once more does nothing.
    ///
    /// # Errors
    /// `NotFound` if the name is nobody's or somebody else's.
    pub(super) fn cancel(&self, name: &[u8], caller: &Caller) -> Result<()> {
        let job = self.seals.open_name(name).ok_or_else(unknown)?;
        let owner = {
            let shelf = self.shelf.lock();
            let live = shelf.offers.get(&job).map(|held| held.offer.wish.owner.clone());
            live.or_else(|| shelf.gone.get(&job).map(|(owner, _)| owner.clone()))
        };
        if !owner.is_some_and(|owner| may(caller, &owner, true)) {
            return Err(unknown());
        }
        self.release(job, Gone::Cancelled);
        Ok(())
    }

    /// Releases the results of a session, but for those that are to outlive it.
    pub(super) fn close_session(&self, session: SessionId) {
        let of_session: Vec<JobId> = {
            let shelf = self.shelf.lock();
            let mine = |offer: &Offer| offer.wish.session == session && offer.wish.cancel_on_drop;
            shelf.offers.iter().filter(|(_, held)| mine(&held.offer)).map(|(job, _)| *job).collect()
        };
        of_session.into_iter().for_each(|job| self.release(job, Gone::Closed));
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.shelf.lock().offers.len()
    }

    /// Lets go of a result.
    pub(super) fn release(&self, job: JobId, why: Gone) {
        let held = self.shelf.lock().remove(job, why);
        if let Some(held) = held {
            held.end(why);
        }
    }

    /// The rows of some partitions. Whoever drops them early counts as a reader who went.
    pub(super) fn read(self: &Arc<Self>, offer: Arc<Offer>, partitions: Range<u32>) -> Rows {
        let reading = offer.kept.read(partitions.clone(), &self.budget);
        Rows::new(reading, Reader::new(self, offer, partitions))
    }

    /// What the executor at `address` gives `login` for a ticket, whose reader is there from now on. Nothing may leave before this
    /// returns.
    ///
    /// # Errors
    /// As in [`Self::by_ticket`]; the same if any of it is not at that executor, or nobody may read there.
    pub(super) async fn give(
        self: &Arc<Self>,
        ticket: &[u8],
        login: &Login,
        address: &str,
    ) -> Result<(SchemaRef, Vec<InputGroup>, Reader)> {
        let (offer, partitions) = self.by_ticket(ticket, &Some(login.principal.clone()))?;
        offer.touch();
        offer.kept.is_ready(0..0)?;
        let places = (self.config.fetch != Fetch::Relay).then(|| offer.kept.places(partitions.clone())).flatten();
        let is_there = |group: &InputGroup| group.address.as_deref() == Some(address);
        let places = places.filter(|places| places.iter().all(is_there)).ok_or_else(unknown)?;
        let reader = Reader::new(self, Arc::clone(&offer), partitions);
        offer.kept.leave_from(&places).await?;
        tracing::info!(job = %offer.kept.job, executor = address, "a client reads from an executor");
        Ok((Arc::clone(&offer.kept.schema), places, reader))
    }

    /// Where else than here a ticket can be redeemed by whoever asks: at the executor that holds all of its rows.
    pub(super) fn location(&self, offer: &Offer, partitions: Range<u32>, asker: Option<&Asker>) -> Option<String> {
        let asker = asker.filter(|asker| fetch::is_worth_it(self.config.fetch, offer.kept.bytes(), asker))?;
        let places = offer.kept.places(partitions)?;
        let first = places.first()?;
        let is_one = places.iter().all(|place| place.executor == first.executor && place.address == first.address);
        if is_one { self.seen(first, asker) } else { None }
    }

    fn seen(&self, place: &InputGroup, asker: &Asker) -> Option<String> {
        let executor = self.coordinator.sight_of(place.executor, place.incarnation)?;
        fetch::seen(self.config.fetch, asker, self.encrypts, &executor)
    }

    /// Whether a result of which a part is there will be read from executors, so that it pays to wait for the rest.
    pub(super) fn will_be_direct(&self, offer: &Offer, asker: Option<&Asker>) -> bool {
        let expected = offer.kept.expected_bytes();
        let asker = asker.filter(|asker| fetch::is_worth_it(self.config.fetch, expected, asker));
        asker.is_some_and(|asker| offer.kept.some_place().is_some_and(|place| self.seen(&place, asker).is_some()))
    }
}

/// Whether a caller may use what somebody owns, or stop it.
fn may(caller: &Caller, owner: &Caller, is_stop: bool) -> bool {
    match (caller, owner) {
        (None, None) => true,
        (Some(caller), Some(owner)) if is_stop => authorize(caller, Verb::Stop { owner }).is_ok(),
        (Some(caller), Some(owner)) => authorize(caller, Verb::Use { owner }).is_ok(),
        _ => false,
    }
}

/// The error for whatever is not the caller's, there or not.
pub(super) fn unknown() -> Error {
    Error::new(ErrorKind::NotFound, "no such result").with_help("run the query again")
}

/// Neighbouring partitions, as even as can be, in at most `most` groups.
fn groups(partitions: u32, most: u32) -> impl Iterator<Item = Range<u32>> {
    let (partitions, count) = (u64::from(partitions), u64::from(partitions.min(most.max(1))));
    let border = move |index: u64| u32::try_from(index * partitions / count.max(1)).unwrap_or(u32::MAX);
    (0..count).map(move |index| border(index)..border(index + 1))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration as in settings: `10m`.
pub(super) fn humantime(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match () {
        () if duration.subsec_nanos() > 0 => format!("{}ms", duration.as_millis()),
        () if seconds > 0 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        () if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        () => format!("{seconds}s"),
    }
}

/// Releases a result when nothing was asked of it for its time.
async fn expire(results: Weak<Results>, offer: Arc<Offer>) {
    loop {
        let left = offer.left();
        if left.is_zero() {
            break;
        }
        timer::sleep(left).await;
    }
    let job = offer.kept.job;
    drop(offer);
    if let Some(results) = results.upgrade() {
        results.release(job, Gone::Expired);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_ticket_when_there_are_many() {
        for (partitions, most, count) in [(1, 64, 1), (64, 64, 64), (128, 64, 64), (257, 64, 64), (3, 0, 1), (65_536, 64, 64)] {
            let groups: Vec<_> = groups(partitions, most).collect();
            assert_eq!(groups.len(), count, "{partitions} partitions");
            assert_eq!(groups.iter().cloned().flatten().collect::<Vec<_>>(), (0..partitions).collect::<Vec<_>>());
            let sizes: Vec<usize> = groups.iter().map(ExactSizeIterator::len).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
    }

    #[test]
    fn times_are_written_as_in_settings() {
        let written = [600, 3600, 90, 0].map(|seconds| humantime(Duration::from_secs(seconds)));
        assert_eq!(written, ["10m", "1h", "90s", "0s"]);
        assert_eq!(humantime(Duration::from_millis(1500)), "1500ms");
    }
}
