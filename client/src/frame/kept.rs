//! Tables that frames keep their rows in: each goes with the last frame that reads it. Next: `../session.rs`.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::files::quote;
use crate::session::Session;

/// The tables that a frame reads and nobody else drops. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Vec<Arc<KeptTable>>);

impl Kept {
    pub(super) fn one(table: Arc<KeptTable>) -> Self {
        Self(vec![table])
    }

    /// These and those of `other`.
    pub(super) fn with(&self, other: &Self) -> Self {
        let new = other.0.iter().filter(|table| !self.0.iter().any(|known| Arc::ptr_eq(known, table)));
        Self(self.0.iter().chain(new).map(Arc::clone).collect())
    }
}

/// A temporary table of the session, dropped with this.
pub(super) struct KeptTable {
    session: Session,
    name: String,
    runtime: Handle,
}

impl KeptTable {
    /// Owns the table of this name. Must be called on a tokio runtime.
    pub(super) fn new(session: Session, name: String) -> Arc<Self> {
        Arc::new(Self { session, name, runtime: Handle::current() })
    }

    /// Its name in a statement.
    pub(super) fn quoted(name: &str) -> String {
        format!("temp.{}", quote(name, '"'))
    }
}

impl fmt::Debug for KeptTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptTable").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for KeptTable {
    /// Without waiting. Where the runtime or the session is gone, so is the table.
    fn drop(&mut self) {
        let (session, text) = (self.session.clone(), format!("DROP TABLE IF EXISTS {}", Self::quoted(&self.name)));
        let name = std::mem::take(&mut self.name);
        self.runtime.spawn(async move {
            let dropped = match session.sql(&text).await {
                Ok(query) => query.collect().await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = dropped {
                tracing::debug!(name, %error, "the table of a frame was not dropped, it goes with its session");
            }
        });
    }
}
