//! Files of this machine below listed folders, after symbolic links are resolved. Next: `within.rs`.
//!
//! What object_store's own store for files does not do: it follows links to wherever they lead. Here a path is resolved, the place is
//! compared with the roots, and then opened beneath its root without following anything, so that a link which is put in between
//! does not lead out. Listings leave out what leads out. Writes are checked and then left to object_store's store.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use tokio::task::spawn_blocking;

use super::policy::{Led, LocalRoot, lead, outside_of_roots};
use super::walk::Walk;

/// Entries of a listing that are read at a time.
const LISTED_AT_A_TIME: usize = 1024;

/// The files below some folders.
#[derive(Debug, Clone)]
pub(super) struct RootedFiles {
    roots: Arc<[LocalRoot]>,
    inner: LocalFileSystem,
}

impl RootedFiles {
    pub(super) fn new(roots: &[LocalRoot]) -> Self {
        Self { roots: roots.into(), inner: LocalFileSystem::new() }
    }

    /// A file of a folder, open.
    fn open(&self, path: &Path) -> Result<(File, Metadata)> {
        let (root, place) = match lead(&self.roots, path) {
            Led::Inside { root, place } => (root, place),
            Led::Missing => return Err(missing(path, io::ErrorKind::NotFound.into())),
            Led::Outside => return Err(denied(path)),
        };
        let file = open_beneath(&root, &place).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => missing(path, source),
            _ if is_led_away(&source) => denied(path),
            _ => generic(source),
        })?;
        let metadata = file.metadata().map_err(generic)?;
        if metadata.is_file() { Ok((file, metadata)) } else { Err(missing(path, io::ErrorKind::NotFound.into())) }
    }

    /// Refuses a path that something is to be written at.
    async fn admit(&self, location: &ObjectPath) -> Result<()> {
        let (roots, path) = (Arc::clone(&self.roots), self.inner.path_to_filesystem(location)?);
        spawn_blocking(move || if lead(&roots, &path) == Led::Outside { Err(denied(&path)) } else { Ok(()) }).await?
    }

    /// Refuses a path that is to be deleted. A link there is deleted itself, so only its folder counts.
    async fn admit_folder(&self, location: &ObjectPath) -> Result<()> {
        let (roots, path) = (Arc::clone(&self.roots), self.inner.path_to_filesystem(location)?);
        let admitted = move || match path.parent().map(|folder| lead(&roots, folder)) {
            None | Some(Led::Outside) => Err(denied(&path)),
            Some(Led::Inside { .. } | Led::Missing) => Ok(()),
        };
        spawn_blocking(admitted).await?
    }

    fn folder(&self, prefix: Option<&ObjectPath>) -> Result<PathBuf> {
        match prefix.filter(|prefix| !prefix.is_root()) {
            // A name like `x#1` is that of an unfinished upload, not of a folder.
            Some(prefix) => self.inner.path_to_filesystem(prefix),
            None => Ok(PathBuf::from("/")),
        }
    }
}

impl fmt::Display for RootedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("files below listed folders")
    }
}

#[async_trait]
impl ObjectStore for RootedFiles {
    async fn put_opts(&self, location: &ObjectPath, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.admit(location).await?;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &ObjectPath, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.admit(location).await?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        let (store, location) = (self.clone(), location.clone());
        let read = move || {
            let path = store.inner.path_to_filesystem(&location)?;
            let (file, metadata) = store.open(&path)?;
            let meta = object_meta(location, &metadata)?;
            options.check_preconditions(&meta)?;
            let range = match &options.range {
                Some(range) => range.as_range(meta.size).map_err(generic)?,
                None => 0..meta.size,
            };
            Ok(GetResult { payload: GetResultPayload::File(file, path), meta, range, attributes: Attributes::default() })
        };
        spawn_blocking(read).await?
    }

    async fn get_ranges(&self, location: &ObjectPath, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (store, location, ranges) = (self.clone(), location.clone(), ranges.to_vec());
        let read = move || {
            let (mut file, metadata) = store.open(&store.inner.path_to_filesystem(&location)?)?;
            ranges.into_iter().map(|range| read_range(&mut file, metadata.len(), &range).map_err(generic)).collect()
        };
        spawn_blocking(read).await?
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<ObjectPath>>) -> BoxStream<'static, Result<ObjectPath>> {
        let store = self.clone();
        let admitted = locations.and_then(move |location| {
            let store = store.clone();
            async move {
                store.admit_folder(&location).await?;
                Ok(location)
            }
        });
        self.inner.delete_stream(admitted.boxed())
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        let walk = match self.folder(prefix) {
            Ok(folder) => Walk::new(Arc::clone(&self.roots), folder),
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let chunks = stream::try_unfold(Some(walk), |walk| async move {
            let Some(mut walk) = walk else { return Ok::<_, Error>(None) };
            let read = move || {
                let files = walk.by_ref().take(LISTED_AT_A_TIME).collect::<Result<Vec<_>>>()?;
                let rest = (files.len() == LISTED_AT_A_TIME).then_some(walk);
                Ok::<_, Error>((files, rest))
            };
            let (files, rest) = spawn_blocking(read).await??;
            Ok(Some((stream::iter(files.into_iter().map(Ok::<_, Error>)), rest)))
        });
        chunks.try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        let (roots, folder) = (Arc::clone(&self.roots), self.folder(prefix)?);
        spawn_blocking(move || Walk::new(roots, folder).first_level()).await?
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> Result<()> {
        self.admit(from).await?;
        self.admit(to).await?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &ObjectPath, to: &ObjectPath, options: RenameOptions) -> Result<()> {
        self.admit(from).await?;
        self.admit(to).await?;
        self.inner.rename_opts(from, to, options).await
    }
}

/// Opens a file below `root`, following no link at all: both are without them, so a link is one that was put there since.
#[cfg(target_os = "linux")]
fn open_beneath(root: &Path, place: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    use rustix::io::Errno;
    let beneath = place.strip_prefix(root).map_err(|source| io::Error::new(io::ErrorKind::PermissionDenied, source))?;
    let folder = File::open(root)?;
    // A pipe must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(&folder, beneath, flags, Mode::empty(), resolve) {
        Ok(opened) => Ok(File::from(opened)),
        // Kernels before 5.6, and containers that filter the call.
        Err(Errno::NOSYS | Errno::PERM) => open_place(place),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_beneath(_: &Path, place: &Path) -> io::Result<File> {
    open_place(place)
}

/// Opens what was found to be below a root; only a link in place of the file itself is noticed here.
fn open_place(place: &Path) -> io::Result<File> {
    if place.symlink_metadata()?.is_file() { File::open(place) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Whether an open met a link where there was none.
#[cfg(target_os = "linux")]
fn is_led_away(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::LOOP, Errno::XDEV].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(not(target_os = "linux"))]
fn is_led_away(_: &io::Error) -> bool {
    false
}

fn read_range(file: &mut File, length: u64, range: &Range<u64>) -> io::Result<Bytes> {
    let size = range.end.min(length).checked_sub(range.start).filter(|size| *size == range.end.saturating_sub(range.start));
    let Some(size) = size.and_then(|size| usize::try_from(size).ok()) else {
        let what = format!("bytes {}..{} of a file of {length}", range.start, range.end);
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
    };
    let mut bytes = vec![0; size];
    file.seek(SeekFrom::Start(range.start))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes.into())
}

/// What a file is, in the same words as object_store's own store, so that planner and executors agree whichever of both they use.
pub(super) fn object_meta(location: ObjectPath, metadata: &Metadata) -> Result<ObjectMeta> {
    let modified = metadata.modified().map_err(generic)?;
    let micros = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let size = metadata.len();
    let e_tag = Some(format!("{:x}-{micros:x}-{size:x}", inode(metadata)));
    Ok(ObjectMeta { location, last_modified: modified.into(), size, e_tag, version: None })
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}

/// The refusal of a path, as a store says it.
pub(super) fn denied(path: &Path) -> Error {
    let path = path.display().to_string();
    Error::PermissionDenied { source: Box::new(outside_of_roots(&path)), path }
}

fn missing(path: &Path, source: io::Error) -> Error {
    Error::NotFound { path: path.display().to_string(), source: Box::new(source) }
}

pub(super) fn generic(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: "files", source: Box::new(source) }
}
