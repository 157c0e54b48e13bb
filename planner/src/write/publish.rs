//! Publishing: the files of the attempts that won are moved to their place, once. Called by the coordinator.
//!
//! ```text
//! TARGET/_windrow/P-W/NAME.writing      while the job runs: P is the coordinator's process, W the write
//! TARGET/NAME                           published, one rename (or copy within the store) after the other
//! ```
//!
//! A file is complete before it is moved, so no reader ever sees half of one. If moving one fails, those that were moved are removed
//! again. If the coordinator's process dies in the middle, what it had moved stays visible, and nothing of it comes twice: names are
//! never used again.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, LazyLock};

use arrow::array::{StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use windrow_core::{Error, ErrorKind, Result, clock, rand};

use super::partition::UNPUBLISHED;
use super::target::{STAGING, Target, files_below, is_file, local_path, remove_folder};

/// Files that are moved at once.
const MOVES_AT_ONCE: usize = 8;
/// Folders of writes that another process began are removed when nothing was written to them for this long: a day, which is longer than
/// any write that is still alive.
const STALE_SECONDS: i64 = 24 * 60 * 60;

/// What tells the folders of this process's writes from those of others.
static PROCESS: LazyLock<String> = LazyLock::new(|| format!("{:016x}", rand::unique()));
/// The staging folders of writes that are not over.
static LIVE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A file that an attempt has completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// Where it belongs, from the target on.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// How files become visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a folder that had no file.
    NewFolder,
    /// In a folder, beside what is there.
    Append,
    /// In a folder; what was there before goes afterwards.
    ReplaceFolder,
    /// As one file that was not there.
    NewFile,
    /// As one file, in the place of another.
    ReplaceFile,
}

/// Where the files of a write go once its job has committed. Whoever runs the job calls [`Self::begin`] before it, and
/// [`Self::publish`] or [`Self::discard`] after it, however it ended.
#[derive(Debug)]
pub struct Publication {
    store: Arc<dyn ObjectStore>,
    target: Target,
    /// The folder that `_windrow` is in: the target itself, or the folder of a single file.
    folder: Path,
    write: String,
    place: Place,
}

impl Publication {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, target: Target, place: Place) -> Self {
        let folder = match place {
            Place::NewFile | Place::ReplaceFile => parent(&target.path),
            Place::NewFolder | Place::Append | Place::ReplaceFolder => target.path.clone(),
        };
        Self { store, target, folder, write: format!("{:016x}", rand::unique()), place }
    }

    /// The number of the write, which no other has.
    pub(crate) fn write(&self) -> &str {
        &self.write
    }

    /// The folder that attempts write to.
    pub(crate) fn staging(&self) -> Path {
        self.folder.clone().join(STAGING).join(format!("{}-{}", *PROCESS, self.write))
    }

    /// Marks the write as alive, and removes what writes to the same place left behind that are not.
    pub async fn begin(&self) {
        LIVE.lock().insert(self.staging().to_string());
        // A store that cannot be listed is found out by the write itself.
        let _ = self.remove_stale().await;
    }

    /// Moves `files` to their places and returns how many rows they have.
    ///
    /// # Errors
    /// `InvalidQuery` if something has appeared at the target meanwhile; `Denied`, `ResourcesExhausted` or `Unavailable` if a file cannot
    /// be moved. Then none of them is visible.
    pub async fn publish(&self, mut files: Vec<WrittenFile>) -> Result<u64> {
        let published = self.move_all(&mut files).await;
        self.end().await;
        published
    }

    /// Removes what attempts wrote. May be called again: an attempt that is being cancelled may still complete a file.
    pub async fn discard(&self) {
        self.end().await;
    }

    /// Removes a folder that was new with this write, with all in it: nothing was made of it.
    pub async fn withdraw(&self) {
        if self.place == Place::NewFolder {
            // What cannot be removed is named by nobody.
            let _ = self.remove(&self.folder).await;
        }
    }

    async fn end(&self) {
        let staging = self.staging();
        let removed = self.remove(&staging).await;
        LIVE.lock().remove(staging.as_ref());
        if let Err(error) = removed
            && !matches!(error, object_store::Error::NotFound { .. })
        {
            // The next write to the same place removes it.
            let _ = error;
        }
    }

    async fn move_all(&self, files: &mut Vec<WrittenFile>) -> Result<u64> {
        let rows = files.iter().map(|file| file.rows).fold(0, u64::saturating_add);
        // A file without rows tells the columns of a result that has none; otherwise nobody needs it.
        if rows > 0 || self.place == Place::Append {
            files.retain(|file| file.rows > 0);
        }
        let moves = self.moves(files)?;
        let replaced = self.check(&moves).await?;
        let moved = Mutex::new(Vec::new());
        let result = futures::stream::iter(moves)
            .map(|(from, to)| {
                let moved = &moved;
                async move {
                    let result = self.move_one(&from, &to).await;
                    if result.is_ok() {
                        moved.lock().push(to);
                    }
                    result
                }
            })
            .buffer_unordered(MOVES_AT_ONCE)
            .try_collect::<()>()
            .await;
        let moved = moved.into_inner();
        if let Err(error) = result {
            for path in &moved {
                // What cannot be removed either is named by nobody; the error tells the rest.
                let _ = self.store.delete(path).await;
            }
            return Err(self.failed(&error));
        }
        self.sync(&moved).await?;
        for path in replaced.iter().filter(|path| !moved.contains(path)) {
            match self.store.delete(path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(rows)
    }

    /// From where to where each file goes.
    fn moves(&self, files: &[WrittenFile]) -> Result<Vec<(Path, Path)>> {
        let staging = self.staging();
        let bad = |file: &WrittenFile| Error::internal(format!("a written file has the path '{}'", file.path));
        let moves = files.iter().map(|file| {
            let relative = Path::parse(&file.path).map_err(|_why| bad(file))?;
            let name = relative.filename().ok_or_else(|| bad(file))?;
            let from = staging.clone().join(format!("{name}{UNPUBLISHED}"));
            let to = match self.place {
                Place::NewFile | Place::ReplaceFile => self.target.path.clone(),
                _ => Path::from_iter(self.target.path.parts().chain(relative.parts())),
            };
            Ok((from, to))
        });
        let moves = moves.collect::<Result<Vec<_>>>()?;
        let is_single = matches!(self.place, Place::NewFile | Place::ReplaceFile);
        if is_single && moves.len() != 1 {
            return Err(Error::internal(format!("{} files for one", moves.len())));
        }
        Ok(moves)
    }

    /// Looks again whether the target may be written, and lists what the new files replace.
    async fn check(&self, moves: &[(Path, Path)]) -> Result<Vec<Path>> {
        match self.place {
            Place::ReplaceFolder => {
                files_below(self.store.as_ref(), &self.folder, usize::MAX).await.map_err(|error| self.failed(&error))
            }
            Place::NewFolder if !moves.is_empty() => {
                let found = files_below(self.store.as_ref(), &self.folder, 1).await.map_err(|error| self.failed(&error))?;
                if found.is_empty() { Ok(Vec::new()) } else { Err(taken(&self.target)) }
            }
            Place::NewFile => match is_file(self.store.as_ref(), &self.target.path).await {
                Ok(false) => Ok(Vec::new()),
                Ok(true) => Err(taken(&self.target)),
                Err(error) => Err(self.failed(&error)),
            },
            _ => Ok(Vec::new()),
        }
    }

    async fn move_one(&self, from: &Path, to: &Path) -> object_store::Result<()> {
        if self.place == Place::NewFile {
            match self.store.rename_if_not_exists(from, to).await {
                Err(object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. }) => {}
                done => return done,
            }
        }
        self.store.rename(from, to).await
    }

    /// The names are on disk when this returns; other stores keep what they acknowledge.
    async fn sync(&self, moved: &[Path]) -> Result<()> {
        if !self.target.is_local() {
            return Ok(());
        }
        let folders: BTreeSet<_> = moved.iter().map(|path| local_path(&parent(path))).collect();
        let synced =
            tokio::task::spawn_blocking(move || folders.iter().try_for_each(|folder| std::fs::File::open(folder)?.sync_all()));
        let synced = synced.await.map_err(|source| Error::internal("a folder could not be synced").with_source(source))?;
        synced.map_err(|source| {
            Error::new(of_system(&source), format!("'{}' cannot be synced to its disk: {source}", self.target.name()))
                .with_source(source)
        })
    }

    /// Removes a folder and all in it.
    async fn remove(&self, folder: &Path) -> object_store::Result<()> {
        remove_folder(self.store.as_ref(), self.target.is_local(), folder).await?;
        if self.target.is_local() {
            // Another write may hold it.
            let _ = tokio::fs::remove_dir(local_path(&self.folder.clone().join(STAGING))).await;
        }
        Ok(())
    }

    async fn remove_stale(&self) -> object_store::Result<()> {
        let all = self.store.list_with_delimiter(Some(&self.folder.clone().join(STAGING))).await?;
        for folder in all.common_prefixes {
            if LIVE.lock().contains(folder.as_ref()) {
                continue;
            }
            let is_ours = folder.filename().is_some_and(|name| name.starts_with(PROCESS.as_str()));
            if is_ours || self.is_old(&folder).await? {
                self.remove(&folder).await?;
            }
        }
        Ok(())
    }

    async fn is_old(&self, folder: &Path) -> object_store::Result<bool> {
        let files: Vec<_> = self.store.list(Some(folder)).try_collect().await?;
        let newest = files.iter().map(|file| file.last_modified.timestamp()).max();
        let now = i64::try_from(clock::unix_nanos() / 1_000_000_000).unwrap_or(0);
        Ok(newest.is_some_and(|newest| now.saturating_sub(newest) > STALE_SECONDS))
    }

    fn failed(&self, error: &object_store::Error) -> Error {
        store_error(&format!("writing to '{}'", self.target.name()), error)
    }
}

/// Something is where a new file or folder should be.
pub(super) fn taken(target: &Target) -> Error {
    Error::new(ErrorKind::InvalidQuery, format!("'{}' exists already", target.name()))
        .with_help("write to another place, or add OPTIONS (overwrite true) to replace it, (append true) to add to a folder")
}

/// A store's error in the words of whoever wrote.
pub(super) fn store_error(what: &str, error: &object_store::Error) -> Error {
    use object_store::Error as Store;
    let kind = match error {
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => ErrorKind::Denied,
        Store::NotFound { .. } => ErrorKind::NotFound,
        Store::AlreadyExists { .. } | Store::InvalidPath { .. } => ErrorKind::InvalidQuery,
        Store::NotSupported { .. } | Store::NotImplemented { .. } => ErrorKind::Unsupported,
        other => system_cause(other).map_or(ErrorKind::Unavailable, of_system),
    };
    Error::new(kind, format!("{what}: {error}"))
}

fn system_cause(error: &object_store::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref::<io::Error>() {
            return Some(found);
        }
        cause = inner.source();
    }
    None
}

fn of_system(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourcesExhausted,
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => ErrorKind::NotFound,
        _ => ErrorKind::Unavailable,
    }
}

fn parent(path: &Path) -> Path {
    let parts: Vec<_> = path.parts().collect();
    let folders = parts.len().saturating_sub(1);
    Path::from_iter(parts.into_iter().take(folders))
}

/// The rows of a write's job: one for each file.
pub(super) fn files_schema() -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::UInt64, false);
    Arc::new(Schema::new(vec![Field::new("path", DataType::Utf8, false), number("rows"), number("bytes")]))
}

pub(super) fn files_to_batch(files: &[WrittenFile]) -> datafusion::error::Result<RecordBatch> {
    let paths = StringArray::from_iter_values(files.iter().map(|file| file.path.as_str()));
    let rows = UInt64Array::from_iter_values(files.iter().map(|file| file.rows));
    let bytes = UInt64Array::from_iter_values(files.iter().map(|file| file.bytes));
    Ok(RecordBatch::try_new(files_schema(), vec![Arc::new(paths), Arc::new(rows), Arc::new(bytes)])?)
}

impl WrittenFile {
    /// The files that the rows of a write's job name.
    ///
    /// # Errors
    /// `Internal` if they are other rows.
    pub fn of_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        super::exec::files_of_batch(batch).ok_or_else(|| Error::internal("the result of a write names no files"))
    }
}

/// The schema of the answer to a statement that writes: one column `count`, as DataFusion has it.
#[must_use]
pub fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]))
}

/// That answer.
///
/// # Errors
/// None for one number.
pub fn count_rows(rows: u64) -> Result<RecordBatch> {
    RecordBatch::try_new(count_schema(), vec![Arc::new(UInt64Array::from_iter_values([rows]))])
        .map_err(|source| Error::internal("a count does not fit its schema").with_source(source))
}
