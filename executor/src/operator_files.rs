//! The temporary files of one attempt's operators: in a folder of their own, under the executor's quota, gone with the attempt.
//!
//! DataFusion has this too, but its limit holds per attempt only and its error cannot be told from a passing fault.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SpillFile, SpillWriter, TempFileFactory};
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use tempfile::{NamedTempFile, TempDir};
use tokio_util::io::ReaderStream;

use crate::spill::SpillDir;

/// Read buffer of a file, as DataFusion has it (`disk_manager.rs`).
const READ_BYTES: usize = 128 * 1024;

/// Makes the files of one attempt. The folder is made with the first file and removed with the last.
#[derive(Debug)]
pub(crate) struct OperatorFiles {
    spill: Arc<SpillDir>,
    folder: Mutex<Option<Arc<TempDir>>>,
}

impl OperatorFiles {
    pub(crate) fn new(spill: Arc<SpillDir>) -> Self {
        Self { spill, folder: Mutex::default() }
    }

    fn folder(&self) -> io::Result<Arc<TempDir>> {
        let mut folder = self.folder.lock();
        if let Some(folder) = folder.as_ref() {
            return Ok(Arc::clone(folder));
        }
        let place = self.spill.path();
        let failed = |source| io::Error::other(self.spill.write_failed(place, 0, &source));
        let made = Arc::new(tempfile::Builder::new().prefix("attempt-").tempdir_in(place).map_err(failed)?);
        *folder = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl TempFileFactory for OperatorFiles {
    fn create_temp_file(&self, _description: &str) -> Result<Arc<dyn SpillFile>> {
        let folder = self.folder()?;
        let file = NamedTempFile::new_in(folder.path())?;
        Ok(Arc::new(OperatorFile(Arc::new(Held {
            file,
            spill: Arc::clone(&self.spill),
            bytes: AtomicU64::new(0),
            _folder: folder,
        }))))
    }
}

/// One file; removed when it, its writers and its readers are dropped.
struct OperatorFile(Arc<Held>);

struct Held {
    // Dropped before the folder.
    file: NamedTempFile,
    spill: Arc<SpillDir>,
    bytes: AtomicU64,
    _folder: Arc<TempDir>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.spill.give_back(self.bytes.load(Ordering::Relaxed));
    }
}

impl fmt::Debug for OperatorFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OperatorFile").field(&self.0.file.path()).finish()
    }
}

impl SpillFile for OperatorFile {
    fn path(&self) -> Option<&Path> {
        Some(self.0.file.path())
    }

    fn size(&self) -> Option<u64> {
        Some(self.0.bytes.load(Ordering::Relaxed))
    }

    fn read_stream(&self) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>> {
        let held = Arc::clone(&self.0);
        let opened = stream::once(async move {
            let file = tokio::fs::File::open(held.file.path()).await?;
            // The file stays as long as it is read.
            Ok::<_, io::Error>(ReaderStream::with_capacity(file, READ_BYTES).map(move |bytes| {
                let _held = &held;
                bytes
            }))
        });
        Ok(futures::TryStreamExt::try_flatten(opened).map(|bytes| bytes.map_err(DataFusionError::IoError)).boxed())
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        let file = self.0.file.as_file().try_clone()?;
        Ok(Box::new(Writer { file, held: Arc::clone(&self.0) }))
    }
}

struct Writer {
    file: std::fs::File,
    held: Arc<Held>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len() as u64;
        self.held.spill.take(len).map_err(io::Error::other)?;
        // Counted first: whatever happens, the file's end gives back what was taken.
        self.held.bytes.fetch_add(len, Ordering::Relaxed);
        let failed = |source| io::Error::other(self.held.spill.write_failed(self.held.file.path(), len, &source));
        self.file.write_all(bytes).map_err(failed)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl SpillWriter for Writer {
    fn finish(&mut self) -> Result<()> {
        Ok(self.file.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use windrow_core::failure::{Failure, Resource};

    use super::*;
    use crate::classify;

    #[tokio::test]
    async fn files_are_read_back_and_leave_neither_bytes_nor_folders() {
        let parent = tempfile::tempdir().unwrap();
        let spill = SpillDir::create(parent.path(), 1000).unwrap();
        let files = OperatorFiles::new(Arc::clone(&spill));
        let entries = || std::fs::read_dir(spill.path()).unwrap().count();
        let before = entries();
        let file = files.create_temp_file("a sort").unwrap();
        file.open_writer().unwrap().write_all(b"sorted rows").unwrap();
        assert_eq!((spill.used(), file.size(), entries()), (11, Some(11), before + 1));
        let stream = file.read_stream().unwrap();
        drop(file);
        drop(files);
        let bytes: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!(bytes.concat(), b"sorted rows");
        assert_eq!((spill.used(), entries()), (0, before));
    }

    #[test]
    fn the_quota_of_the_executor_is_a_shortage_of_disk() {
        let parent = tempfile::tempdir().unwrap();
        let spill = SpillDir::create(parent.path(), 1000).unwrap();
        spill.take(990).unwrap();
        let files = OperatorFiles::new(Arc::clone(&spill));
        let file = files.create_temp_file("a sort").unwrap();
        let error = file.open_writer().unwrap().write_all(b"sorted rows").unwrap_err();
        let failed = classify(&DataFusionError::IoError(error));
        assert_eq!(failed.failure, Failure::Resources { what: Resource::Disk, asked: 11, limit: 1000 });
        drop(file);
        assert_eq!(spill.used(), 990);
    }
}
