//! Statements that are read as they come: each has a random number, to cancel it while its reader is there and to ask how far it is, or
//! how it ended. Next: `tickets.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use arrow::record_batch::RecordBatch;
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;
use windrow_core::{Error, ErrorKind, Result};

use crate::results::{Canceller, Statement};
use crate::status::JobProgress;

/// Statements that are read at a time.
const HANDLES_MAX: usize = 10_000;
/// Statements whose reader has gone and of which we still tell how they ended: who asks may be later than the end.
const ENDED_MAX: usize = 1_000;

/// A number that nobody guesses.
pub(super) type Handle = u128;

/// The statements of one server.
#[derive(Debug, Default)]
pub(super) struct Handles {
    held: Mutex<BTreeMap<Handle, Held>>,
    /// The last to end at the back.
    ended: Mutex<VecDeque<(Handle, watch::Receiver<JobProgress>)>>,
}

#[derive(Debug)]
struct Held {
    canceller: Option<Canceller>,
    progress: watch::Receiver<JobProgress>,
}

impl Handles {
    /// A statement whose reader is there.
    ///
    /// # Errors
    /// `ResourcesExhausted` if too many are read; the statement is dropped.
    pub(super) fn read(self: &Arc<Self>, statement: Statement) -> Result<(Handle, Reading)> {
        let handle = Uuid::new_v4().as_u128();
        let (canceller, progress) = (statement.canceller(), statement.progress());
        let mut held = self.held.lock();
        if held.len() >= HANDLES_MAX {
            return Err(Error::new(ErrorKind::ResourcesExhausted, format!("{HANDLES_MAX} results are being read"))
                .with_help("read or close results of earlier statements"));
        }
        held.insert(handle, Held { canceller, progress });
        Ok((handle, Reading { statement, _entry: Entry { handles: Arc::downgrade(self), handle } }))
    }

    /// Ends the job under `handle`; whether there was one.
    pub(super) fn cancel(&self, handle: Handle) -> bool {
        let held = self.held.lock();
        let Some(entry) = held.get(&handle) else { return false };
        entry.canceller.iter().for_each(Canceller::cancel);
        true
    }

    /// How far the job under `handle` is, or how it ended.
    ///
    /// # Errors
    /// `NotFound` if there was none, or too many have ended since.
    pub(super) fn progress(&self, handle: Handle) -> Result<watch::Receiver<JobProgress>> {
        let held = self.held.lock().get(&handle).map(|held| held.progress.clone());
        held.or_else(|| self.ended.lock().iter().rev().find(|(ended, _)| *ended == handle).map(|(_, progress)| progress.clone()))
            .ok_or_else(unknown)
    }

    fn forget(&self, handle: Handle) {
        let mut held = self.held.lock();
        let gone = held.remove(&handle);
        if let Some(gone) = &gone {
            let mut ended = self.ended.lock();
            if ended.len() >= ENDED_MAX {
                ended.pop_front();
            }
            ended.push_back((handle, gone.progress.clone()));
        }
        drop(held);
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
    Error::new(ErrorKind::NotFound, "no such statement: it ended long ago, or never was")
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
