//! The temporary files of one attempt's operators: in a folder of their own, under the executor's quota, gone with the attempt.
//!
//! DataFusion has this too, but its limit holds per attempt only and its error cannot be told from a passing fault. It also reads its
//! files without looking whether they are what was written, so every frame has a checksum here:
//!
//! ```text
//! frame = length u32 | crc u32 | bytes          little-endian; crc32c of the frame's number (u64) and its bytes
//! file  = frame ... frame, an empty frame
//! ```

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SpillFile, SpillWriter, TempFileFactory};
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use tempfile::{NamedTempFile, TempDir};
use tokio::io::AsyncReadExt;
use windrow_core::failure::{Failed, Failure};

use crate::spill::SpillDir;

/// Read buffer of a file, as DataFusion has it (`disk_manager.rs`).
const READ_BYTES: usize = 128 * 1024;

/// Most bytes of a frame: enough that its checksum and its write cost nothing, and little for a query that writes many files at a time.
const FRAME_BYTES: usize = 64 * 1024;

/// Bytes in front of a frame's.
const HEAD_BYTES: usize = 8;

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
            Ok::<_, DataFusionError>(Reader { file, held, buffer: BytesMut::new(), frames: 0 }.frames())
        });
        Ok(futures::TryStreamExt::try_flatten(opened).boxed())
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        let file = self.0.file.as_file().try_clone()?;
        Ok(Box::new(Writer { file, held: Arc::clone(&self.0), frame: Vec::new(), frames: 0 }))
    }
}

fn checksum(number: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), bytes)
}

/// Reads one file, frame by frame.
struct Reader {
    file: tokio::fs::File,
    /// The file stays as long as it is read.
    held: Arc<Held>,
    buffer: BytesMut,
    frames: u64,
}

impl Reader {
    fn frames(self) -> impl Stream<Item = Result<Bytes>> + Send {
        stream::try_unfold(self, |mut reader| async move {
            let frame = reader.next().await?;
            Ok(frame.map(|frame| (frame, reader)))
        })
    }

    /// The bytes of the next frame; `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some((len, crc)) = self.head() {
                if len > FRAME_BYTES {
                    return Err(self.damaged("a length is wrong"));
                }
                if self.buffer.len() >= HEAD_BYTES + len {
                    self.buffer.advance(HEAD_BYTES);
                    let bytes = self.buffer.split_to(len).freeze();
                    if checksum(self.frames, &bytes) != crc {
                        return Err(self.damaged("a checksum is wrong"));
                    }
                    self.frames += 1;
                    return Ok(Some(bytes).filter(|bytes| !bytes.is_empty()));
                }
            }
            self.buffer.reserve(READ_BYTES);
            let read = self.file.read_buf(&mut self.buffer).await;
            if read.inspect_err(|_io| self.held.spill.disk_failed(self.held.file.path()))? == 0 {
                return Err(self.damaged("its end is missing"));
            }
        }
    }

    fn head(&self) -> Option<(usize, u32)> {
        let [l0, l1, l2, l3, crc @ ..]: [u8; HEAD_BYTES] = self.buffer.get(..HEAD_BYTES)?.try_into().ok()?;
        Some((u32::from_le_bytes([l0, l1, l2, l3]) as usize, u32::from_le_bytes(crc)))
    }

    fn damaged(&self, what: &str) -> DataFusionError {
        self.held.spill.disk_failed(self.held.file.path());
        let path = self.held.file.path().display();
        let message =
            format!("the spill file '{path}' is not what was written: {what} in frame {}; is the disk sound?", self.frames);
        DataFusionError::External(Box::new(Failed::new(Failure::Corrupt, message)))
    }
}

struct Writer {
    file: std::fs::File,
    held: Arc<Held>,
    /// The frame that is being filled, behind room for its head; empty before its first byte.
    frame: Vec<u8>,
    frames: u64,
}

impl Writer {
    /// Writes the frame that is being filled.
    fn write_frame(&mut self) -> io::Result<()> {
        let Some(bytes) = self.frame.get(HEAD_BYTES..) else { return Ok(()) };
        let crc = checksum(self.frames, bytes).to_le_bytes();
        // A frame is shorter than 4 GiB.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        for (to, from) in self.frame.iter_mut().zip(len.into_iter().chain(crc)) {
            *to = from;
        }
        let all = self.frame.len() as u64;
        self.held.spill.take(all).map_err(io::Error::other)?;
        // Counted first: whatever happens, the file's end gives back what was taken.
        self.held.bytes.fetch_add(all, Ordering::Relaxed);
        let failed = |source| io::Error::other(self.held.spill.write_failed(self.held.file.path(), all, &source));
        self.file.write_all(&self.frame).map_err(failed)?;
        self.frames += 1;
        self.frame.clear();
        Ok(())
    }

    fn begin_frame(&mut self) {
        if self.frame.is_empty() {
            self.frame.resize(HEAD_BYTES, 0);
        }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begin_frame();
        let room = HEAD_BYTES + FRAME_BYTES - self.frame.len();
        let (now, _later) = bytes.split_at(room.min(bytes.len()));
        self.frame.extend_from_slice(now);
        if self.frame.len() == HEAD_BYTES + FRAME_BYTES {
            self.write_frame()?;
        }
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.frame.len() > HEAD_BYTES {
            self.write_frame()?;
        }
        self.file.flush()
    }
}

impl SpillWriter for Writer {
    fn finish(&mut self) -> Result<()> {
        self.flush()?;
        self.begin_frame();
        self.write_frame()?;
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
        let mut writer = file.open_writer().unwrap();
        writer.write_all(b"sorted rows").unwrap();
        writer.finish().unwrap();
        assert_eq!((spill.used(), file.size(), entries()), (27, Some(27), before + 1), "and two heads of 8 bytes");
        let stream = file.read_stream().unwrap();
        drop(writer);
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
        let mut writer = file.open_writer().unwrap();
        writer.write_all(b"sorted rows").unwrap();
        let failed = classify(&DataFusionError::IoError(writer.flush().unwrap_err()));
        assert_eq!(failed.failure, Failure::Resources { what: Resource::Disk, asked: 19, limit: 1000 });
        drop(file);
        assert_eq!(spill.used(), 990);
    }

    /// What a file holds.
    async fn read(file: &Arc<dyn SpillFile>) -> Result<Vec<u8>> {
        let bytes: Vec<Bytes> = file.read_stream()?.try_collect().await?;
        Ok(bytes.concat())
    }

    #[tokio::test]
    async fn every_flipped_bit_and_every_cut_is_found() {
        let parent = tempfile::tempdir().unwrap();
        let spill = SpillDir::create(parent.path(), 1 << 30).unwrap();
        let file = OperatorFiles::new(spill).create_temp_file("a sort").unwrap();
        let written: Vec<u8> = (0..300_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut writer = file.open_writer().unwrap();
        for piece in written.chunks(70_001) {
            writer.write_all(piece).unwrap();
        }
        writer.flush().unwrap();
        writer.write_all(b"after a flush").unwrap();
        writer.finish().unwrap();
        let expected = [written.as_slice(), b"after a flush"].concat();
        assert_eq!(read(&file).await.unwrap(), expected);

        let path = file.path().unwrap().to_owned();
        let whole = std::fs::read(&path).unwrap();
        let mut rng = windrow_core::rand::seeded(4);
        let is_corrupt = |error: DataFusionError| classify(&error).failure == Failure::Corrupt;
        // Every byte of the first head, and places drawn from everywhere.
        let places = (0..16).chain((0..2_500).map(|_| rng.usize(..whole.len())).collect::<Vec<_>>());
        for place in places {
            let mut damaged = whole.clone();
            damaged[place] ^= 1 << rng.u8(..8);
            std::fs::write(&path, &damaged).unwrap();
            assert!(is_corrupt(read(&file).await.unwrap_err()), "byte {place}");
        }
        for len in [0, 1, 7, 8, 9, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(is_corrupt(read(&file).await.unwrap_err()), "cut to {len} bytes");
        }
        let (one, other) = (HEAD_BYTES..HEAD_BYTES + FRAME_BYTES, 2 * HEAD_BYTES + FRAME_BYTES..2 * (HEAD_BYTES + FRAME_BYTES));
        let mut swapped = whole.clone();
        swapped[one.clone()].copy_from_slice(&whole[other.clone()]);
        swapped[other].copy_from_slice(&whole[one]);
        std::fs::write(&path, &swapped).unwrap();
        assert!(is_corrupt(read(&file).await.unwrap_err()), "swapped frames");
    }
}
