//! The catalog on disk: one redb database in the state folder, one transaction for each change. Next: `mod.rs`.
//!
//! ```text
//! DIR/lock              held by the scheduler that uses the folder
//! DIR/catalog.redb      table `about`:    "format" -> the version of all below
//!                       table `objects`:  (kind, schema, name) -> a definition, as `definition.rs` encodes it
//! ```

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use windrow_core::{Error, ErrorKind, Result};

use super::definition::Definition;

/// The layout of the database.
const FORMAT: u64 = 1;

const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const OBJECTS: TableDefinition<'_, Key<'_>, &[u8]> = TableDefinition::new("objects");

type Key<'a> = (&'a str, &'a str, &'a str);

/// Bytes of the database that stay in memory. It is read once, and then only written.
const CACHE_BYTES: usize = 4 << 20;

/// One change of a transaction.
#[derive(Debug)]
pub(super) enum Change<'a> {
    /// Writes an object.
    Put(&'a Definition),
    /// Removes it.
    Remove(&'a Definition),
}

/// An open database.
pub(super) struct Store {
    database: Database,
    path: PathBuf,
    /// Released when the process ends, however it does.
    _lock: File,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database in `folder`, which is made if it is not there, and reads all of it.
    ///
    /// # Errors
    /// `InvalidConfig` if another scheduler uses the folder, or the file is not ours or of another version; `Denied` if it cannot be
    /// read or written; `Data` if it is damaged.
    pub(super) fn open(folder: &Path) -> Result<(Self, Vec<Definition>)> {
        make_folder(folder).map_err(|source| unusable(folder, source))?;
        let lock = lock(folder)?;
        let path = folder.join("catalog.redb");
        contained(&path, || {
            if !path.try_exists().map_err(|source| unusable(&path, source))? {
                make(folder, &path)?;
            }
            let database = Builder::new()
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open(true)
                .open(&path)
                .map_err(|source| unopened(&path, source))?;
            let definitions = read(&database, &path)?;
            Ok((Self { database, path: path.clone(), _lock: lock }, definitions))
        })
    }

    /// Performs `changes` as one transaction; it is on disk when this returns.
    ///
    /// # Errors
    /// `ResourcesExhausted` if the disk is full or cannot be written.
    pub(super) fn write(&self, changes: &[Change<'_>]) -> Result<()> {
        let encoded = changes.iter().map(|change| match change {
            Change::Put(definition) => Ok((key(definition), Some(definition.encode()?))),
            Change::Remove(definition) => Ok((key(definition), None)),
        });
        let encoded = encoded.collect::<Result<Vec<_>>>()?;
        contained(&self.path, || self.commit(&encoded).map_err(|source| unwritten(&self.path, source)))
    }

    fn commit(&self, changes: &[(Key<'_>, Option<Vec<u8>>)]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for (key, value) in changes {
                match value {
                    Some(value) => drop(objects.insert(key, value.as_slice())?),
                    None => drop(objects.remove(key)?),
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn key(definition: &Definition) -> Key<'_> {
    (definition.kind().word(), &definition.schema, &definition.name)
}

/// A new folder is the owner's alone; one that is there keeps its permissions.
fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Opens a file for writing that nobody else may read.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = private(&path).map_err(|source| unusable(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(in_use(folder)),
        Err(TryLockError::Error(source)) => Err(unusable(&path, source)),
    }
}

/// Makes an empty database beside its place and moves it there: a process that ends in between leaves none or a whole one.
fn make(folder: &Path, path: &Path) -> Result<()> {
    let unfinished = folder.join("catalog.redb.new");
    let fail = |source: io::Error| unusable(&unfinished, source);
    match std::fs::remove_file(&unfinished) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(fail(source)),
        _ => {}
    }
    drop(private(&unfinished).map_err(fail)?);
    let database = Builder::new().create(&unfinished).map_err(|source| unopened(&unfinished, source))?;
    initialize(&database).map_err(|source| unwritten(&unfinished, source))?;
    drop(database);
    std::fs::rename(&unfinished, path).map_err(fail)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)
}

fn initialize(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(ABOUT)?.insert("format", FORMAT)?;
    transaction.open_table(OBJECTS)?;
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database, path: &Path) -> Result<Vec<Definition>> {
    let rows = rows(database).map_err(|source| match source {
        redb::Error::TableDoesNotExist(_) | redb::Error::TableTypeMismatch { .. } => {
            Error::new(ErrorKind::InvalidConfig, format!("{} is a database of another program", path.display()))
                .with_help("choose another folder with --state-dir, or move the file away")
                .with_source(source)
        }
        source => damaged(path, &source.to_string()).with_source(source),
    })?;
    let (format, values) = rows;
    if format != FORMAT {
        let message = format!("{} is in format {format}, and this version reads {FORMAT}", path.display());
        return Err(Error::new(ErrorKind::InvalidConfig, message)
            .with_help("start the version of windrow that wrote it, or choose another folder with --state-dir"));
    }
    values.iter().map(|value| Definition::decode(value).map_err(|error| at(path, error))).collect()
}

/// The format, and the values of all objects if it is ours.
fn rows(database: &Database) -> Result<(u64, Vec<Vec<u8>>), redb::Error> {
    let transaction = database.begin_read()?;
    let about = transaction.open_table(ABOUT)?;
    let format = about.get("format")?.map_or(0, |value| value.value());
    if format != FORMAT {
        return Ok((format, Vec::new()));
    }
    let objects = transaction.open_table(OBJECTS)?;
    let mut values = Vec::new();
    for row in objects.iter()? {
        let (_key, value) = row?;
        values.push(value.value().to_vec());
    }
    Ok((format, values))
}

/// redb says that it may panic over a file that something else has changed.
fn contained<T>(path: &Path, access: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(access)).unwrap_or_else(|_payload| Err(damaged(path, "it cannot be read")))
}

fn in_use(folder: &Path) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("another scheduler uses {}", folder.display()))
        .with_help("end it first, or choose another folder with --state-dir")
}

fn unusable(path: &Path, source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourcesExhausted,
        _ => ErrorKind::InvalidConfig,
    };
    Error::new(kind, format!("{} cannot be used for the catalog: {source}", path.display()))
        .with_help("choose a folder with --state-dir that this user may write to")
        .with_source(source)
}

fn damaged(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Data, format!("the catalog {} is damaged: {what}", path.display()))
        .with_help("bring it back from a backup, or move it away to start with an empty catalog; the tables' files are untouched")
}

fn at(path: &Path, mut error: Error) -> Error {
    error.message = format!("{}: {}", path.display(), error.message);
    error
}

fn unopened(path: &Path, source: DatabaseError) -> Error {
    match source {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            in_use(path.parent().unwrap_or(path)).with_source(source)
        }
        DatabaseError::UpgradeRequired(version) => {
            let message = format!("{} is a database of an older kind ({version})", path.display());
            Error::new(ErrorKind::InvalidConfig, message)
                .with_help("start the version of windrow that wrote it, or choose another folder with --state-dir")
                .with_source(source)
        }
        DatabaseError::Storage(StorageError::Io(source))
            if !matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            unusable(path, source)
        }
        source => damaged(path, &source.to_string()).with_source(source),
    }
}

fn unwritten(path: &Path, source: redb::Error) -> Error {
    Error::new(ErrorKind::ResourcesExhausted, format!("the catalog {} cannot be written: {source}", path.display()))
        .with_help("see to its disk, start the scheduler again, and repeat the statement")
        .with_source(source)
}

#[cfg(test)]
mod tests;
