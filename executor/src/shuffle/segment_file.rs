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

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use bytes::{Bytes, BytesMut};
use windrow_core::failure::{Failed, Failure, LostCause, Resource, TransientKind};

use super::block::{Block, BlockDecoder, BlockEncoder, Compression};
use crate::spill::SpillDir;

/// Bytes before a block's header: its two lengths and its checksum.
const FRAME_BYTES: usize = 4 + 8 + 4;

/// The segments of one partition, one entry a consumer partition.
pub(crate) type Segments = Vec<Vec<RecordBatch>>;

/// Bytes of a file that hold blocks of one segment.
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
        let file = File::create_new(&path).map_err(|source| write_failed(dir, 0, &source))?;
        let written = SegmentFile { path, dir: Arc::clone(dir), schema: None, extents: vec![Vec::new(); segments], bytes: 0 };
        Ok(Self { file: BufWriter::new(file), written })
    }

    /// Appends batches to segments. Blocks, and returns when the bytes were handed to the system.
    pub(crate) fn append(&mut self, segments: &[Vec<RecordBatch>]) -> Result<(), Failed> {
        for (index, batches) in segments.iter().enumerate() {
            let Some(first) = batches.first() else { continue };
            let extent = self.append_segment(&first.schema(), batches)?;
            if let Some(extents) = self.written.extents.get_mut(index) {
                extents.push(extent);
            }
        }
        self.file.flush().map_err(|source| write_failed(&self.written.dir, 0, &source))
    }

    /// The file, ready to be read.
    pub(crate) fn finish(self) -> SegmentFile {
        self.written
    }

    fn append_segment(&mut self, schema: &Schema, batches: &[RecordBatch]) -> Result<Extent, Failed> {
        let encode_failed = |reason: arrow::error::ArrowError| Failed::internal(format!("cannot encode a segment: {reason}"));
        let mut encoder = BlockEncoder::new(schema, Compression::Lz4).map_err(encode_failed)?;
        let schema = encoder.take_schema();
        if self.written.schema.is_none() {
            self.written.schema = schema;
        }
        let offset = self.written.bytes;
        for batch in batches {
            for block in encoder.encode(batch).map_err(encode_failed)? {
                self.append_block(&block)?;
            }
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
        write().map_err(|source| write_failed(&self.written.dir, len, &source))
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

    /// In how many rounds batches were appended to a segment.
    pub(crate) fn rounds(&self, segment: u32) -> usize {
        self.extents.get(segment as usize).map_or(0, Vec::len)
    }

    /// Reads, verifies and decodes one segment. Blocks.
    pub(crate) fn read(&self, segment: u32) -> Result<Vec<RecordBatch>, LostCause> {
        let extents = self.extents.get(segment as usize).ok_or(LostCause::Missing)?;
        self.read_extents(extents)
    }

    /// As [`Self::read`], what one round appended.
    pub(crate) fn read_round(&self, segment: u32, round: usize) -> Result<Vec<RecordBatch>, LostCause> {
        let extents = self.extents.get(segment as usize).and_then(|extents| extents.get(round..=round));
        self.read_extents(extents.ok_or(LostCause::Missing)?)
    }

    fn read_extents(&self, extents: &[Extent]) -> Result<Vec<RecordBatch>, LostCause> {
        if extents.is_empty() {
            return Ok(Vec::new());
        }
        let file = File::open(&self.path).map_err(|error| self.read_failed(&error))?;
        let mut batches = Vec::new();
        for extent in extents {
            let len = usize::try_from(extent.len).map_err(|_too_long| LostCause::Corrupt)?;
            let mut bytes = BytesMut::zeroed(len);
            file.read_exact_at(&mut bytes, extent.offset).map_err(|error| self.read_failed(&error))?;
            self.decode(bytes.freeze(), &mut batches)?;
        }
        Ok(batches)
    }

    fn decode(&self, mut bytes: Bytes, batches: &mut Vec<RecordBatch>) -> Result<(), LostCause> {
        let mut decoder = BlockDecoder::new();
        decoder.push(self.schema.clone().ok_or(LostCause::Corrupt)?)?;
        while !bytes.is_empty() {
            let block = split_block(&mut bytes).ok_or(LostCause::Corrupt)?;
            batches.extend(decoder.push(block)?);
        }
        Ok(())
    }

    fn read_failed(&self, error: &std::io::Error) -> LostCause {
        tracing::warn!(path = %self.path.display(), %error, "cannot read an evicted segment");
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

/// A failed write, by what the system said.
fn write_failed(dir: &SpillDir, bytes: u64, source: &std::io::Error) -> Failed {
    let message =
        format!("cannot write a segment to {}: {source}; free the disk or move executor.spill_dir", dir.path().display());
    let failure = match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Failure::Resources { what: Resource::Disk, asked: bytes, limit: dir.used() }
        }
        _ => Failure::Transient { what: TransientKind::Io, retry_after_ms: None },
    };
    Failed::new(failure, message)
}
