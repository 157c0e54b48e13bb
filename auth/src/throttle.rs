//! How often passwords may be tried: few at a time, and rarely by whoever gets them wrong. Next: `certificate.rs`.
//!
//! Three bounds. Only so many passwords are hashed at a time, and the last place is kept for whoever got it right before. A name with an
//! address that failed five times waits a second, then two, up to a minute. An address that failed fifty times within minutes waits with
//! names that it never got right. Nobody who knows the password waits because of what others do from elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// Wrong passwords of a name and an address before it waits.
const FAILURES_FREE: u32 = 5;
/// Wrong passwords of an address, with whatever names, before those it never got right wait.
const ADDRESS_FAILURES_FREE: u32 = 50;
/// The first wait, which doubles.
const WAIT_MS: u64 = 1_000;
/// The longest wait.
const WAIT_MAX_MS: u64 = 60_000;
/// Without a wrong password for this long, those before are forgotten.
const FORGET_MS: u64 = 15 * 60_000;
/// When to come back if all places are taken: about as long as one hash takes.
const BUSY_MS: u64 = 50;
/// Names with addresses, and addresses, that are remembered.
const RECORDS_MAX: usize = 10_000;
/// A longer name is nobody's, and is cut before it is remembered.
const NAME_BYTES_MAX: usize = 64;

/// Decides whether a password may be tried now. Clones share what they know.
#[derive(Clone)]
pub struct Throttle {
    shared: Arc<Mutex<State>>,
    places: usize,
}

struct State {
    running: usize,
    pairs: BTreeMap<Pair, Record>,
    addresses: BTreeMap<IpAddr, Record>,
}

type Pair = (String, IpAddr);

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    failures: u32,
    failed_at: u64,
    /// Not before then.
    waits_until: u64,
    /// The password was right once.
    is_known: bool,
}

/// One password that may be tried. Whoever drops it without an answer has failed.
#[must_use]
pub struct Attempt {
    shared: Arc<Mutex<State>>,
    pair: Pair,
    now_ms: u64,
    has_succeeded: bool,
}

impl Throttle {
    /// With as many passwords at a time as the machine has cores, but two at least.
    #[must_use]
    pub fn new() -> Self {
        Self::with_places(std::thread::available_parallelism().map_or(2, std::num::NonZero::get).max(2))
    }

    fn with_places(places: usize) -> Self {
        let state = State { running: 0, pairs: BTreeMap::new(), addresses: BTreeMap::new() };
        Self { shared: Arc::new(Mutex::new(state)), places }
    }

    /// Lets `who` at `address` try a password at `now_ms`, of any clock that does not go back.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn admit(&self, who: &str, address: IpAddr, now_ms: u64) -> Result<Attempt, Duration> {
        let pair: Pair = (who.chars().take(NAME_BYTES_MAX).collect(), network(address));
        let mut state = self.shared.lock();
        let record = state.pairs.get(&pair).copied().unwrap_or_default();
        let mut waits_until = record.waits_until;
        if !record.is_known {
            waits_until = waits_until.max(state.addresses.get(&pair.1).map_or(0, |address| address.waits_until));
        }
        if waits_until > now_ms {
            return Err(Duration::from_millis(waits_until - now_ms));
        }
        let places = if record.is_known { self.places } else { self.places - 1 };
        if state.running >= places {
            return Err(Duration::from_millis(BUSY_MS));
        }
        state.running += 1;
        Ok(Attempt { shared: Arc::clone(&self.shared), pair, now_ms, has_succeeded: false })
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

impl Attempt {
    /// The password was wrong.
    pub fn failed(self) {
        drop(self);
    }

    /// The password was right: what this name got wrong from this address is forgotten.
    pub fn succeeded(mut self) {
        self.has_succeeded = true;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.running = state.running.saturating_sub(1);
        if self.has_succeeded {
            let known = Record { is_known: true, failed_at: self.now_ms, ..Record::default() };
            remember(&mut state.pairs, &self.pair, known);
        } else {
            fail(&mut state.pairs, &self.pair, FAILURES_FREE, self.now_ms);
            fail(&mut state.addresses, &self.pair.1, ADDRESS_FAILURES_FREE, self.now_ms);
        }
    }
}

/// Counts a wrong password and says how long to wait.
fn fail<K: Ord + Clone>(records: &mut BTreeMap<K, Record>, key: &K, free: u32, now_ms: u64) {
    let mut record = records.get(key).copied().unwrap_or_default();
    if now_ms.saturating_sub(record.failed_at) > FORGET_MS {
        record.failures = 0;
    }
    record.failures = record.failures.saturating_add(1);
    record.failed_at = record.failed_at.max(now_ms);
    if let Some(doublings) = record.failures.checked_sub(free) {
        let wait = WAIT_MS.saturating_mul(1 << doublings.min(16)).min(WAIT_MAX_MS);
        record.waits_until = record.waits_until.max(now_ms.saturating_add(wait));
    }
    remember(records, key, record);
}

/// Keeps a record, and if there are too many lets go of the one that says least: nobody waits, and the oldest.
fn remember<K: Ord + Clone>(records: &mut BTreeMap<K, Record>, key: &K, record: Record) {
    if records.len() >= RECORDS_MAX && !records.contains_key(key) {
        let worth = |record: &Record| (record.waits_until, record.is_known, record.failed_at);
        let least = records.iter().min_by_key(|(_, record)| worth(record)).map(|(key, _)| key.clone());
        if let Some(least) = least {
            records.remove(&least);
        }
    }
    records.insert(key.clone(), record);
}

/// What counts as one address: with IPv6, whoever has one has 2^64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("places", &self.places)
            .field("running", &self.shared.lock().running)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("pair", &self.pair).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn fail_times(throttle: &Throttle, who: &str, address: IpAddr, times: u32, now: u64) {
        for _ in 0..times {
            throttle.admit(who, address, now).unwrap().failed();
        }
    }

    #[test]
    fn the_fifth_wrong_password_makes_wait_and_each_more_twice_as_long() {
        let throttle = Throttle::with_places(4);
        fail_times(&throttle, "alice", HOME, 5, 0);
        let mut now = 0;
        for wait in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            assert_eq!(throttle.admit("alice", HOME, now).unwrap_err(), seconds(wait));
            assert_eq!(throttle.admit("alice", HOME, now + wait * 1_000 - 1).unwrap_err(), Duration::from_millis(1));
            now += wait * 1_000;
            throttle.admit("alice", HOME, now).unwrap().failed();
        }
    }

    #[test]
    fn others_do_not_wait() {
        let throttle = Throttle::with_places(4);
        fail_times(&throttle, "alice", HOME, 5, 0);
        throttle.admit("alice", HOME, 0).unwrap_err();
        throttle.admit("bob", HOME, 0).unwrap().succeeded();
        throttle.admit("alice", ELSEWHERE, 0).unwrap().succeeded();
    }

    #[test]
    fn a_right_password_or_time_clears_what_went_wrong() {
        let throttle = Throttle::with_places(4);
        for _ in 0..10 {
            fail_times(&throttle, "alice", HOME, 4, 0);
            throttle.admit("alice", HOME, 0).unwrap().succeeded();
        }
        fail_times(&throttle, "bob", HOME, 4, 0);
        fail_times(&throttle, "bob", HOME, 4, FORGET_MS + 1);
        throttle.admit("bob", HOME, FORGET_MS + 1).unwrap().succeeded();
    }

    #[test]
    fn an_attempt_without_an_answer_has_failed() {
        let throttle = Throttle::with_places(4);
        for _ in 0..5 {
            drop(throttle.admit("alice", HOME, 0).unwrap());
        }
        assert_eq!(throttle.admit("alice", HOME, 0).unwrap_err(), seconds(1));
    }

    #[test]
    fn only_so_many_are_tried_at_a_time_and_one_place_is_kept_for_known_names() {
        let throttle = Throttle::with_places(3);
        throttle.admit("alice", HOME, 0).unwrap().succeeded();
        let held: Vec<_> = (0..2).map(|number| throttle.admit(&format!("u{number}"), ELSEWHERE, 0).unwrap()).collect();
        assert_eq!(throttle.admit("u9", ELSEWHERE, 0).unwrap_err(), Duration::from_millis(BUSY_MS));
        let alice = throttle.admit("alice", HOME, 0).unwrap();
        assert_eq!(throttle.admit("alice", HOME, 0).unwrap_err(), Duration::from_millis(BUSY_MS));
        alice.succeeded();
        drop(held);
        throttle.admit("u9", ELSEWHERE, 0).unwrap().succeeded();
        assert_eq!(throttle.shared.lock().running, 0);
    }

    #[test]
    fn an_address_that_tries_many_names_waits_but_not_with_names_it_got_right() {
        let throttle = Throttle::with_places(4);
        throttle.admit("alice", HOME, 0).unwrap().succeeded();
        for number in 0..50 {
            throttle.admit(&format!("u{number}"), HOME, 0).unwrap().failed();
        }
        assert_eq!(throttle.admit("u50", HOME, 0).unwrap_err(), seconds(1));
        throttle.admit("alice", HOME, 0).unwrap().succeeded();
        throttle.admit("u50", ELSEWHERE, 0).unwrap().succeeded();
    }

    /// What a flood of wrong passwords does: few are hashed, and a client who knows its password comes in.
    #[test]
    fn a_flood_of_wrong_passwords_is_mostly_refused_and_holds_nobody_up() {
        let throttle = Throttle::with_places(4);
        let (mut tried, mut held_up) = (0, 0);
        throttle.admit("alice", HOME, 0).unwrap().succeeded();
        for now in 0..60_000 {
            if let Ok(attempt) = throttle.admit(&format!("guess{}", now % 500), HOME, now) {
                tried += 1;
                attempt.failed();
            }
            if now % 1_000 == 0 {
                match throttle.admit("alice", HOME, now) {
                    Ok(attempt) => attempt.succeeded(),
                    Err(_) => held_up += 1,
                }
            }
        }
        assert!(tried <= 60 && held_up == 0, "{tried} tried, {held_up} held up");
    }

    #[test]
    fn memory_is_bounded_and_who_waits_is_not_forgotten() {
        let throttle = Throttle::with_places(4);
        fail_times(&throttle, "alice", HOME, 5, 0);
        for number in 0..u32::try_from(RECORDS_MAX).unwrap() + 500 {
            let address = IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number));
            throttle.admit(&"x".repeat(1_000), address, 1).unwrap().failed();
        }
        let state = throttle.shared.lock();
        assert!(state.pairs.len() <= RECORDS_MAX && state.addresses.len() <= RECORDS_MAX);
        assert!(state.pairs.keys().all(|(name, _)| name.len() <= NAME_BYTES_MAX));
        drop(state);
        throttle.admit("alice", HOME, 2).unwrap_err();
    }

    #[test]
    fn one_network_of_ipv6_counts_as_one_address() {
        let throttle = Throttle::with_places(4);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        fail_times(&throttle, "alice", address("2001:db8:1:2::1"), 3, 0);
        fail_times(&throttle, "alice", address("2001:db8:1:2:ffff::2"), 2, 0);
        throttle.admit("alice", address("2001:db8:1:2:3::4"), 0).unwrap_err();
        throttle.admit("alice", address("2001:db8:1:3::1"), 0).unwrap().succeeded();
        fail_times(&throttle, "bob", HOME, 5, 0);
        throttle.admit("bob", address("::ffff:192.0.2.1"), 0).unwrap_err();
    }
}
