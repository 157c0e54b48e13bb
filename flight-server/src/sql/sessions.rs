//! Which session a request belongs to: the one that its header, its cookie or its login names, else that of its connection. Each has an
//! owner, and is nobody else's. Next: `session_options.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request};
use uuid::Uuid;
use windrow_auth::{Principal, authorize_use};
use windrow_core::clock::{Clock, Millis, SystemClock};
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::timer;

use super::results::humantime;
use crate::coordinator::Coordinator;
use crate::listener::Stay;
use crate::routine::Routine;
use crate::security::Caller;
use crate::session::CoordinatorSession;

/// The header that names a session.
pub const SESSION_HEADER: &str = "x-windrow-session";

/// The cookie that names a session, for drivers that keep cookies.
pub(super) const COOKIE: &str = "arrow_flight_session_id";

/// Between two looks for sessions that nobody uses: an eighth of the time that they may be idle, at least and at most this.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));

/// Sessions that are open; beyond it the one unused for longest is closed.
const SESSIONS_MAX: usize = 4096;

/// The sessions of one server.
#[derive(Debug)]
pub(super) struct Sessions {
    coordinator: Arc<Coordinator>,
    open: Arc<Mutex<Open>>,
    clock: Arc<dyn Clock>,
    /// Closes those that nobody uses.
    _closing: Option<Routine>,
}

#[derive(Debug, Default)]
struct Open {
    sessions: BTreeMap<u64, Entry>,
    /// The sessions of connections, by the connection's number.
    connections: BTreeMap<u64, u64>,
    /// Counts uses, to find the oldest.
    uses: u64,
    /// The last ones that were closed because nobody used them, with their owners.
    idle: VecDeque<(u64, Principal)>,
}

#[derive(Debug)]
struct Entry {
    session: Arc<CoordinatorSession>,
    owner: Principal,
    used: u64,
    /// When it was seen in use last.
    used_at: Millis,
    /// Keeps its connection open, for which nothing else would name it.
    stay: Option<Stay>,
    /// A cookie names it too, so that it outlives the connection it began on.
    has_cookie: bool,
}

impl Open {
    fn insert(&mut self, name: u64, session: Arc<CoordinatorSession>, owner: Principal, now: Millis) {
        if self.sessions.len() >= SESSIONS_MAX {
            let oldest = self.sessions.iter().min_by_key(|(_, entry)| entry.used).map(|(name, _)| *name);
            oldest.map(|name| self.remove(name));
        }
        self.uses += 1;
        self.sessions.insert(name, Entry { session, owner, used: self.uses, used_at: now, stay: None, has_cookie: false });
    }

    fn remove(&mut self, name: u64) -> bool {
        self.connections.retain(|_, of| *of != name);
        self.sessions.remove(&name).is_some()
    }

    /// The session `name`; nobody but its owner learns that it is there.
    fn get(&mut self, name: u64, caller: &Principal, now: Millis) -> Result<Option<Arc<CoordinatorSession>>> {
        self.uses += 1;
        let Some(entry) = self.sessions.get_mut(&name) else { return Ok(None) };
        authorize_use(caller, Some(&entry.owner), "session").map_err(|_not_the_owner| closed())?;
        (entry.used, entry.used_at) = (self.uses, now);
        Ok(Some(Arc::clone(&entry.session)))
    }
}

impl Open {
    /// Closes the sessions that were not used for `most`, and hands them out to be dropped without the lock.
    fn close_idle(&mut self, now: Millis, most: Duration) -> Vec<Arc<CoordinatorSession>> {
        for entry in self.sessions.values_mut().filter(|entry| is_in_use(&entry.session)) {
            entry.used_at = now;
        }
        let idle = self.sessions.iter().filter(|(_, entry)| entry.used_at.after(most) <= now);
        let idle: Vec<_> = idle.map(|(name, entry)| (*name, entry.owner.clone(), Arc::clone(&entry.session))).collect();
        idle.into_iter()
            .map(|(name, owner, session)| {
                tracing::info!(session = %session.id(), "a session that nobody used is closed");
                self.remove(name);
                self.idle.push_back((name, owner));
                if self.idle.len() > SESSIONS_MAX {
                    self.idle.pop_front();
                }
                session
            })
            .collect()
    }

    /// Whether this was a session of the caller's that nobody used.
    fn was_idle(&self, name: u64, caller: &Principal) -> bool {
        let of_caller = |owner: &Principal| authorize_use(caller, Some(owner), "session").is_ok();
        self.idle.iter().any(|(idle, owner)| *idle == name && of_caller(owner))
    }
}

/// Whether a call of a session or one of its statements is there: then others than the list hold it.
fn is_in_use(session: &Arc<CoordinatorSession>) -> bool {
    Arc::strong_count(session) > 1 || session.is_in_use()
}

/// Closes idle sessions until the server is gone.
async fn close_idle(open: Weak<Mutex<Open>>, clock: Arc<dyn Clock>, most: Duration) {
    let pause = (most / 8).clamp(LOOK_EVERY.0, LOOK_EVERY.1);
    loop {
        timer::sleep(pause).await;
        let Some(open) = open.upgrade() else { return };
        let closed = open.lock().close_idle(clock.now(), most);
        drop(closed);
    }
}

/// Who names a request's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// The request itself, by its header or its cookie.
    Request(u64),
    /// The token that the caller logged in with.
    Login(u64),
    /// The connection it came over.
    Connection(u64),
}

impl Sessions {
    pub(super) fn new(coordinator: Arc<Coordinator>) -> Self {
        let (open, clock, most) = (Arc::default(), SystemClock::shared(), coordinator.session_config().idle_max);
        let closing = close_idle(Arc::downgrade(&open), Arc::clone(&clock), most);
        let closing = (!most.is_zero()).then(|| Routine::spawn("sessions", "idle", closing));
        Self { coordinator, open, clock, _closing: closing }
    }

    /// Opens a session and returns its name.
    pub(super) async fn open(&self, caller: &Caller, settings: &[(String, String)]) -> Result<u64> {
        let session = self.coordinator.open_session_for(&caller.principal, settings).await?;
        let name = unguessable();
        self.open.lock().insert(name, session, caller.principal.clone(), self.clock.now());
        Ok(name)
    }

    /// Closes the session of a request; whether there was one. Statements of it that run go on.
    ///
    /// # Errors
    /// As [`naming`]; `NotFound` if it is somebody else's.
    pub(super) fn close(&self, caller: &Caller, headers: &MetadataMap) -> Result<Option<Arc<CoordinatorSession>>> {
        let naming = naming(headers, caller)?;
        let mut open = self.open.lock();
        let name = match naming {
            Naming::Request(name) | Naming::Login(name) => Some(name),
            Naming::Connection(connection) => open.connections.get(&connection).copied(),
        };
        let Some(name) = name else { return Ok(None) };
        let session = open.get(name, &caller.principal, self.clock.now())?;
        open.remove(name);
        Ok(session)
    }

    /// The session of a request. The first request of a connection, or of a login that nothing is known of any more, opens one.
    ///
    /// # Errors
    /// As [`naming`]; `NotFound` if the session is closed or somebody else's.
    pub(super) async fn of<T>(&self, request: &Request<T>) -> Result<Arc<CoordinatorSession>> {
        let caller = caller_in(request.extensions())?;
        match naming(request.metadata(), caller)? {
            Naming::Request(name) => self.named(name, &caller.principal),
            Naming::Login(name) => self.of_login(name, caller).await,
            Naming::Connection(connection) => self.of_connection(connection, caller).await.map(|(_, session)| session),
        }
    }

    /// The name of the session of a request's connection, for a cookie; `None` if the request names its session itself.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub(super) async fn name_for_cookie<T>(&self, request: &Request<T>) -> Result<Option<u64>> {
        let caller = caller_in(request.extensions())?;
        match naming(request.metadata(), caller)? {
            Naming::Connection(connection) => {
                let (name, _session) = self.of_connection(connection, caller).await?;
                if let Some(entry) = self.open.lock().sessions.get_mut(&name) {
                    entry.has_cookie = true;
                    entry.stay = None;
                }
                Ok(Some(name))
            }
            Naming::Request(_) | Naming::Login(_) => Ok(None),
        }
    }

    /// The session that a request names.
    fn named(&self, name: u64, caller: &Principal) -> Result<Arc<CoordinatorSession>> {
        let mut open = self.open.lock();
        if let Some(session) = open.get(name, caller, self.clock.now())? {
            return Ok(session);
        }
        if !open.was_idle(name, caller) {
            return Err(closed());
        }
        let most = humantime(self.coordinator.session_config().idle_max);
        Err(Error::new(ErrorKind::NotFound, format!("this session was not used for {most} and is closed; connect again"))
            .with_help("session.idle_max of the scheduler says how long sessions stay"))
    }

    /// A login outlives the server that gave it out: its session begins anew then.
    async fn of_login(&self, name: u64, caller: &Caller) -> Result<Arc<CoordinatorSession>> {
        if let Some(own) = self.open.lock().get(name, &caller.principal, self.clock.now())? {
            return Ok(own);
        }
        let session = self.coordinator.open_session_for(&caller.principal, &[]).await?;
        let mut open = self.open.lock();
        // Another request of the login may have been faster.
        if let Some(own) = open.get(name, &caller.principal, self.clock.now())? {
            return Ok(own);
        }
        open.insert(name, Arc::clone(&session), caller.principal.clone(), self.clock.now());
        Ok(session)
    }

    async fn of_connection(&self, connection: u64, caller: &Caller) -> Result<(u64, Arc<CoordinatorSession>)> {
        if let Some(own) = self.known_of_connection(connection, caller)? {
            return Ok(own);
        }
        let session = self.coordinator.open_session_for(&caller.principal, &[]).await?;
        if let Some(own) = self.known_of_connection(connection, caller)? {
            return Ok(own);
        }
        let name = unguessable();
        {
            let mut open = self.open.lock();
            open.insert(name, Arc::clone(&session), caller.principal.clone(), self.clock.now());
            open.connections.insert(connection, name);
            if let Some(entry) = open.sessions.get_mut(&name) {
                entry.stay = Some(caller.peer.stay());
            }
        }
        let open = Arc::downgrade(&self.open);
        caller.peer.on_close(move || {
            if let Some(open) = open.upgrade() {
                let mut open = open.lock();
                let is_kept = open.sessions.get(&name).is_some_and(|entry| entry.has_cookie);
                if open.connections.remove(&connection).is_some() && !is_kept {
                    open.remove(name);
                }
            }
        });
        Ok((name, session))
    }

    /// The connection's session, if it has one of this caller: a proxy may carry calls of several over one connection.
    fn known_of_connection(&self, connection: u64, caller: &Caller) -> Result<Option<(u64, Arc<CoordinatorSession>)>> {
        let mut open = self.open.lock();
        let Some(name) = open.connections.get(&connection).copied() else { return Ok(None) };
        let is_own = open.sessions.get(&name).is_some_and(|entry| entry.owner.name() == caller.principal.name());
        if !is_own {
            open.remove(name);
            return Ok(None);
        }
        Ok(open.get(name, &caller.principal, self.clock.now())?.map(|session| (name, session)))
    }
}

/// Drawn from the system's randomness: it names a session in a cookie.
fn unguessable() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    (high ^ low).max(1)
}

fn closed() -> Error {
    Error::new(ErrorKind::NotFound, "this session is closed; connect again")
}

fn caller_in(extensions: &Extensions) -> Result<&Caller> {
    extensions.get::<Caller>().ok_or_else(|| Error::internal("a call that nobody has authenticated"))
}

/// Who names the session of a request.
///
/// # Errors
/// `InvalidQuery` if the header or the cookie is not a hexadecimal number.
pub(super) fn naming(headers: &MetadataMap, caller: &Caller) -> Result<Naming> {
    let header = headers.get(SESSION_HEADER).map(|value| value.to_str().unwrap_or_default());
    let cookie = headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok()).find_map(cookie_in);
    let Some((what, text)) = header.map(|text| (SESSION_HEADER, text)).or(cookie.map(|text| (COOKIE, text))) else {
        let login = caller.login.as_ref().map(|login| login.session).filter(|session| *session != 0);
        return Ok(login.map_or(Naming::Connection(caller.peer.connection), Naming::Login));
    };
    u64::from_str_radix(text, 16)
        .map(Naming::Request)
        .map_err(|_why| Error::new(ErrorKind::InvalidQuery, format!("{what} is not a hexadecimal number of at most 16 digits")))
}

/// Our cookie in a header of several.
fn cookie_in(header: &str) -> Option<&str> {
    header.split(';').filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use windrow_auth::{Login, Role};

    use super::*;
    use crate::listener::Peer;

    #[test]
    fn header_then_cookie_then_login_then_connection_name_a_session() {
        let principal = Principal::client("ann", Role::Reader);
        let mut caller = Caller { principal: principal.clone(), login: None, peer: Peer::nobody() };
        let mut headers = MetadataMap::new();
        assert_eq!(naming(&headers, &caller).unwrap(), Naming::Connection(caller.peer.connection));
        caller.login = Some(Login { principal, session: 7, issued_at: 0, expires_at: 0 });
        assert_eq!(naming(&headers, &caller).unwrap(), Naming::Login(7));
        headers.insert("cookie", "a=b; arrow_flight_session_id=1f; c=d".parse().unwrap());
        assert_eq!(naming(&headers, &caller).unwrap(), Naming::Request(0x1f));
        headers.insert(SESSION_HEADER, "2".parse().unwrap());
        assert_eq!(naming(&headers, &caller).unwrap(), Naming::Request(2));
        headers.insert(SESSION_HEADER, "no number".parse().unwrap());
        assert_eq!(naming(&headers, &caller).unwrap_err().kind, ErrorKind::InvalidQuery);
    }
}
