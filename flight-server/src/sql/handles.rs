//! Statements between GetFlightInfo and DoGet: each waits under a random number for its reader, and is dropped, which cancels its
//! job, if none comes. A statement that is read from its beginning has such a number too, for its progress and to cancel it.
//! Next: `actions.rs`.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;
use windrow_core::{Error, ErrorKind, Result};
use windrow_executor::timer;

use crate::results::{Canceller, Statement};
use crate::routine::Routine;
use crate::status::JobProgress;

/// How long a statement waits for its reader.
const UNREAD_MAX: Duration = Duration::from_secs(60);

/// Statements that wait or are read at a time.
const HANDLES_MAX: usize = 10_000;

/// A number that nobody guesses.
pub(super) type Handle = u128;

/// The statements of one server.
#[derive(Debug, Default)]
pub(super) struct Handles {
    held: Mutex<BTreeMap<Handle, Held>>,
}

#[derive(Debug)]
struct Held {
    /// `None` once its reader has come.
    waiting: Option<(Statement, Routine)>,
    canceller: Option<Canceller>,
    progress: watch::Receiver<JobProgress>,
}

impl Handles {
    /// Keeps a statement for its reader.
    ///
    /// # Errors
    /// `ResourcesExhausted` if too many wait; the statement is dropped.
    pub(super) fn insert(self: &Arc<Self>, statement: Statement) -> Result<Handle> {
        let handle = Uuid::new_v4().as_u128();
        let expiry = Routine::spawn("flight sql", "expiry", expire(Arc::downgrade(self), handle));
        let (canceller, progress) = (statement.canceller(), statement.progress());
        self.hold(handle, Held { waiting: Some((statement, expiry)), canceller, progress })?;
        Ok(handle)
    }

    /// A statement whose reader is there.
    ///
    /// # Errors
    /// As in [`Self::insert`].
    pub(super) fn read(self: &Arc<Self>, statement: Statement) -> Result<(Handle, Reading)> {
        let handle = Uuid::new_v4().as_u128();
        let (canceller, progress) = (statement.canceller(), statement.progress());
        self.hold(handle, Held { waiting: None, canceller, progress })?;
        Ok((handle, self.reading(statement, handle)))
    }

    fn hold(&self, handle: Handle, entry: Held) -> Result<()> {
        let mut held = self.held.lock();
        if held.len() >= HANDLES_MAX {
            return Err(Error::new(ErrorKind::ResourcesExhausted, format!("{HANDLES_MAX} results wait to be read"))
                .with_help("read or close results of earlier statements"));
        }
        held.insert(handle, entry);
        Ok(())
    }

    fn reading(self: &Arc<Self>, statement: Statement, handle: Handle) -> Reading {
        Reading { statement, _entry: Entry { handles: Arc::downgrade(self), handle } }
    }

    /// The statement under `handle`, for its reader. Progress and cancelling work on until the reader is dropped.
    ///
    /// # Errors
    /// `NotFound` if it was never there, was read, or waited too long.
    pub(super) fn take(self: &Arc<Self>, handle: Handle) -> Result<Reading> {
        let waiting = self.held.lock().get_mut(&handle).and_then(|held| held.waiting.take());
        let (statement, _expiry) = waiting.ok_or_else(unknown)?;
        Ok(self.reading(statement, handle))
    }

    /// Ends the job under `handle`; whether there was one.
    pub(super) fn cancel(&self, handle: Handle) -> bool {
        let removed = {
            let mut held = self.held.lock();
            let Some(entry) = held.get_mut(&handle) else { return false };
            if let Some(canceller) = &entry.canceller {
                canceller.cancel();
            }
            entry.waiting.is_some().then(|| held.remove(&handle))
        };
        drop(removed);
        true
    }

    /// How far the job under `handle` is.
    ///
    /// # Errors
    /// `NotFound` as in [`Self::take`].
    pub(super) fn progress(&self, handle: Handle) -> Result<watch::Receiver<JobProgress>> {
        self.held.lock().get(&handle).map(|held| held.progress.clone()).ok_or_else(unknown)
    }

    fn forget(&self, handle: Handle) {
        let gone = self.held.lock().remove(&handle);
        drop(gone);
    }
}

/// The handle in its wire form.
///
/// # Errors
/// `NotFound` if `bytes` are not one.
pub(super) fn parse(bytes: &[u8]) -> Result<Handle> {
    bytes.try_into().map(Handle::from_be_bytes).map_err(|_other_length| unknown())
}

fn unknown() -> Error {
    Error::new(ErrorKind::NotFound, "no such result: it was read already, cancelled, or waited longer than 60 s for its reader")
}

async fn expire(handles: Weak<Handles>, handle: Handle) {
    timer::sleep(UNREAD_MAX).await;
    if let Some(handles) = handles.upgrade() {
        tracing::info!("a result was not read in time and is dropped");
        handles.forget(handle);
    }
}

/// A statement with its reader.
#[derive(Debug)]
pub(super) struct Reading {
    statement: Statement,
    _entry: Entry,
}

impl Reading {
    pub(super) fn schema(&self) -> arrow::datatypes::SchemaRef {
        Arc::clone(&self.statement.schema)
    }
}

impl Stream for Reading {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.statement).poll_next(context)
    }
}

/// Takes a handle out when its reader is gone.
#[derive(Debug)]
struct Entry {
    handles: Weak<Handles>,
    handle: Handle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(handles) = self.handles.upgrade() {
            handles.forget(self.handle);
        }
    }
}
