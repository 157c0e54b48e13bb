//! One committed partition on disk: the blocks of all its segments in one file, and where each segment's are.
//!
//! ```text
//! block = header length u32 | body length u64 | crc u32 | header | body          (little-endian; crc as in block.rs)
//! file  = block ... block
//! ```
//!
//! The schema's block is kept in memory with the index and not written: the file is of use to this process only.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::{Bytes, BytesMut};
use windrow_core::failure::{Failed, LostCause};

use super::block::{Block, BlockDecoder, BlockEncoder, Compression};
use crate::spill::SpillDir;

/// Bytes before a block's header: its two lengths and its checksum.
const FRAME_BYTES: usize = 4 + 8 + 4;

/// The segments of one partition, one entry a consumer partition.
pub(crate) type Segments = Vec<Vec<RecordBatch>>;

/// Bytes of a file that hold the blocks of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    offset: u64,
    len: u64,
}

/// Writes segments, possibly in several rounds, and becomes a [`SegmentFile`].
#[derive(Debug)]
pub(crate) struct SegmentFileWriter {
    file: BufWriter<File>,
    written: SegmentFile,
}

/// A finished file. Dropping it removes the file and returns its bytes to the quota.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    path: PathBuf,
    dir: Arc<SpillDir>,
    schema: Option<Block>,
    extents: Vec<Vec<Extent>>,
    bytes: u64,
}

impl SegmentFileWriter {
    /// A new file for `segments` segments.
    pub(crate) fn create(dir: &Arc<SpillDir>, segments: usize) -> Result<Self, Failed> {
        let path = dir.new_file();
        let file = SpillDir::create_file(&path).map_err(|source| dir.write_failed(&path, 0, &source))?;
        let written = SegmentFile { path, dir: Arc::clone(dir), schema: None, extents: vec![Vec::new(); segments], bytes: 0 };
        Ok(Self { file: BufWriter::new(file), written })
    }

    /// Appends batches to segments. Blocks, and returns when the bytes were handed to the system.
    pub(crate) fn append(&mut self, segments: &[Vec<RecordBatch>]) -> Result<(), Failed> {
        for (index, batches) in segments.iter().enumerate() {
            for batch in batches {
                let extent = self.append_batch(batch)?;
                if let Some(extents) = self.written.extents.get_mut(index) {
                    extents.push(extent);
                }
            }
        }
        let written = &self.written;
        self.file.flush().map_err(|source| written.dir.write_failed(&written.path, written.bytes, &source))
    }

    /// The file, ready to be read.
    pub(crate) fn finish(self) -> SegmentFile {
        self.written
    }

    /// Each batch by an encoder of its own, so that it can be read alone.
    fn append_batch(&mut self, batch: &RecordBatch) -> Result<Extent, Failed> {
        let encode_failed = |reason: arrow::error::ArrowError| Failed::internal(format!("cannot encode a segment: {reason}"));
        let mut encoder = BlockEncoder::new(&batch.schema(), Compression::Lz4).map_err(encode_failed)?;
        let schema = encoder.take_schema();
        if self.written.schema.is_none() {
            self.written.schema = schema;
        }
        let offset = self.written.bytes;
        for block in encoder.encode(batch).map_err(encode_failed)? {
            self.append_block(&block)?;
        }
        Ok(Extent { offset, len: self.written.bytes - offset })
    }

    fn append_block(&mut self, block: &Block) -> Result<(), Failed> {
        let header_len =
            u32::try_from(block.header.len()).map_err(|_too_long| Failed::internal("an IPC header of more than 4 GiB"))?;
        let len = (FRAME_BYTES + block.len()) as u64;
        self.written.dir.take(len)?;
        self.written.bytes += len;
        let mut write = || {
            self.file.write_all(&header_len.to_le_bytes())?;
            self.file.write_all(&(block.body.len() as u64).to_le_bytes())?;
            self.file.write_all(&block.crc.to_le_bytes())?;
            self.file.write_all(&block.header)?;
            self.file.write_all(&block.body)
        };
        let written = &self.written;
        write().map_err(|source| written.dir.write_failed(&written.path, len, &source))
    }
}

impl SegmentFile {
    /// Where it is, for tests that damage it.
    #[cfg(test)]
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many batches were appended to a segment.
    pub(crate) fn batches(&self, segment: u32) -> usize {
        self.extents.get(segment as usize).map_or(0, Vec::len)
    }

    /// Reads, verifies and decodes one batch of a segment, counted in the order in which they were appended. Blocks.
    pub(crate) fn read(&self, segment: u32, batch: usize) -> Result<RecordBatch, LostCause> {
        let extent = self.extents.get(segment as usize).and_then(|extents| extents.get(batch)).ok_or(LostCause::Missing)?;
        let file = File::open(&self.path).map_err(|error| self.read_failed(&error))?;
        let len = usize::try_from(extent.len).map_err(|_too_long| LostCause::Corrupt)?;
        let mut bytes = BytesMut::zeroed(len);
        file.read_exact_at(&mut bytes, extent.offset).map_err(|error| self.read_failed(&error))?;
        self.decode(bytes.freeze()).inspect_err(|_damaged| self.dir.disk_failed(&self.path))
    }

    fn decode(&self, mut bytes: Bytes) -> Result<RecordBatch, LostCause> {
        let mut decoder = BlockDecoder::new();
        decoder.push(self.schema.clone().ok_or(LostCause::Corrupt)?)?;
        let mut decoded = None;
        while !bytes.is_empty() {
            let block = split_block(&mut bytes).ok_or(LostCause::Corrupt)?;
            decoded = decoder.push(block)?.or(decoded);
        }
        decoded.ok_or(LostCause::Corrupt)
    }

    fn read_failed(&self, error: &std::io::Error) -> LostCause {
        tracing::warn!(path = %self.path.display(), %error, "cannot read an evicted segment");
        if error.kind() != std::io::ErrorKind::NotFound {
            self.dir.disk_failed(&self.path);
        }
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => LostCause::Corrupt,
            _ => LostCause::Missing,
        }
    }
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        self.dir.give_back(self.bytes);
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "cannot remove a segment file");
            }
            _ => {}
        }
    }
}

/// Takes one framed block off the front of `bytes`; `None` if a length does not fit.
fn split_block(bytes: &mut Bytes) -> Option<Block> {
    let frame: [u8; FRAME_BYTES] = bytes.get(..FRAME_BYTES)?.try_into().ok()?;
    let [h0, h1, h2, h3, body @ .., c0, c1, c2, c3] = frame;
    let header_len = usize::try_from(u32::from_le_bytes([h0, h1, h2, h3])).ok()?;
    let body_len = usize::try_from(u64::from_le_bytes(body)).ok()?;
    let end = FRAME_BYTES.checked_add(header_len)?.checked_add(body_len)?;
    if end > bytes.len() {
        return None;
    }
    let mut block = bytes.split_to(end);
    let _frame = block.split_to(FRAME_BYTES);
    let header = block.split_to(header_len);
    Some(Block { header, body: block, crc: u32::from_le_bytes([c0, c1, c2, c3]) })
}
