//! The files that belong to a table, because CREATE TABLE made them: when it was dropped, they go with the last who may read them.
//! Next: `../write/create.rs`, which makes such tables.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use datafusion::execution::SessionState;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::Object;
use super::definition::{Body, Definition};
use crate::write::Folder;

/// The files of an object, if it owns any.
#[derive(Debug, Default)]
pub(super) struct OwnedFiles {
    folder: OnceLock<(Folder, Handle)>,
    is_dropped: AtomicBool,
}

impl OwnedFiles {
    /// Finds the folder that `definition` owns, if it does, and how to reach it. Called within a runtime; again is as good.
    pub(super) fn find(&self, definition: &Definition, state: &SessionState) {
        let Body::Table(table) = &definition.body else { return };
        let ([location], Ok(runtime)) = (table.locations.as_slice(), Handle::try_current()) else { return };
        if table.is_made_here()
            && let Ok(folder) = Folder::open(location, state)
        {
            // Whoever was first has found the same.
            let _ = self.folder.set((folder, runtime));
        }
    }

    /// The object is in no catalog any more.
    pub(super) fn drop_with_last(&self) {
        self.is_dropped.store(true, Ordering::Relaxed);
    }
}

impl Drop for OwnedFiles {
    fn drop(&mut self) {
        if !self.is_dropped.load(Ordering::Relaxed) {
            return;
        }
        if let Some((folder, runtime)) = self.folder.take() {
            // What cannot be removed is named by nobody.
            runtime.spawn(async move { drop(folder.remove().await) });
        }
    }
}

/// The tables that a statement reads. Files of a table that is dropped meanwhile stay for as long as this does.
#[derive(Clone, Default)]
pub struct TablesRead(Arc<Mutex<Vec<Arc<Object>>>>);

impl TablesRead {
    pub(super) fn add(&self, object: &Arc<Object>) {
        if object.files.folder.get().is_some() {
            self.0.lock().push(Arc::clone(object));
        }
    }
}

impl fmt::Debug for TablesRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TablesRead").field(&self.0.lock().len()).finish()
    }
}
