//! Which session a request belongs to: the one its header names, or the one that all others share. Next: `handles.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tonic::metadata::MetadataMap;
use uuid::Uuid;
use windrow_core::{Error, ErrorKind, Result};

use crate::coordinator::Coordinator;
use crate::session::CoordinatorSession;

/// The header that names a session.
pub const SESSION_HEADER: &str = "x-windrow-session";

/// Sessions that are open; beyond it the one unused for longest is closed.
const SESSIONS_MAX: usize = 4096;

/// The sessions of one server.
#[derive(Debug)]
pub(super) struct Sessions {
    coordinator: Arc<Coordinator>,
    shared: Arc<CoordinatorSession>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    sessions: BTreeMap<u64, (u64, Arc<CoordinatorSession>)>,
    /// Counts uses, to find the oldest.
    uses: u64,
}

impl Sessions {
    pub(super) async fn new(coordinator: Arc<Coordinator>) -> Result<Self> {
        let shared = coordinator.open_session(&[]).await?;
        Ok(Self { coordinator, shared, open: Mutex::default() })
    }

    /// Opens a session and returns its name for the header.
    pub(super) async fn open(&self, settings: &[(String, String)]) -> Result<u64> {
        let session = self.coordinator.open_session(settings).await?;
        // Whoever knows the number uses the session, so it is drawn from the system's randomness.
        let (high, low) = Uuid::new_v4().as_u64_pair();
        let name = high ^ low;
        let mut open = self.open.lock();
        if open.sessions.len() >= SESSIONS_MAX {
            let oldest = open.sessions.iter().min_by_key(|(_, (used, _))| *used).map(|(name, _)| *name);
            oldest.map(|name| open.sessions.remove(&name));
        }
        open.uses += 1;
        let used = open.uses;
        open.sessions.insert(name, (used, session));
        Ok(name)
    }

    /// Closes a session; statements of it that run go on.
    pub(super) fn close(&self, name: u64) -> bool {
        self.open.lock().sessions.remove(&name).is_some()
    }

    /// The session that `headers` name.
    ///
    /// # Errors
    /// `InvalidQuery` if the header is not a number, `NotFound` if the session is closed.
    pub(super) fn of(&self, headers: &MetadataMap) -> Result<Arc<CoordinatorSession>> {
        match name(headers)? {
            Some(name) => self.named(name),
            None => Ok(Arc::clone(&self.shared)),
        }
    }

    fn named(&self, name: u64) -> Result<Arc<CoordinatorSession>> {
        let mut open = self.open.lock();
        open.uses += 1;
        let now = open.uses;
        let (used, session) = open
            .sessions
            .get_mut(&name)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "this session is closed; connect again"))?;
        *used = now;
        Ok(Arc::clone(session))
    }
}

/// The session's name in `headers`, if there is one.
///
/// # Errors
/// `InvalidQuery` if it is not a hexadecimal number.
pub(super) fn name(headers: &MetadataMap) -> Result<Option<u64>> {
    let Some(value) = headers.get(SESSION_HEADER) else { return Ok(None) };
    let name = value.to_str().ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    name.map(Some).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidQuery,
            format!("the header {SESSION_HEADER} is not a hexadecimal number of at most 16 digits"),
        )
    })
}
