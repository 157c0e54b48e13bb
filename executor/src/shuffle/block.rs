//! A batch outside memory: Arrow IPC messages with a checksum each, the same on disk and on the wire.
//!
//! A stream of blocks begins with the schema's message; a batch is its dictionaries' messages (each sent when it changes) and its
//! own. The checksum is CRC32C over header and body, verified before anything is decoded, and every length that the decoder would
//! trust is compared with the bytes at hand first.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::writer::{
    DictionaryHandling, DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions,
};
use arrow::ipc::{CompressionType, Message, MessageHeader, MetadataVersion, RecordBatch as Layout, root_as_message};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use windrow_core::failure::LostCause;

/// Alignment of buffers in a body, in bytes: the widest value that Arrow reads in place (a 128-bit decimal).
const ALIGNMENT: usize = 16;

/// The most a byte of LZ4 expands to (the format's limit), and room for a frame's fixed parts.
const LZ4_EXPANSION_MAX: u64 = 255;
const LZ4_FRAME_BYTES: u64 = 64;

/// How bodies are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all: within a host and on fast networks.
    #[default]
    None,
    /// LZ4 frames, buffer by buffer.
    Lz4,
}

/// One IPC message with its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The message's flatbuffer, without length prefix.
    pub header: Bytes,
    /// The buffers it describes; empty for a schema.
    pub body: Bytes,
    /// CRC32C over header, then body.
    pub crc: u32,
}

impl Block {
    fn new(header: impl Into<Bytes>, body: impl Into<Bytes>) -> Self {
        let (header, body) = (header.into(), body.into());
        let crc = Self::checksum(&header, &body);
        Self { header, body, crc }
    }

    /// CRC32C over `header`, then `body`.
    #[must_use]
    pub fn checksum(header: &[u8], body: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(header), body)
    }

    /// Bytes of header and body.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.len() + self.body.len()
    }

    /// Whether it holds nothing; never true of a block that an encoder made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<EncodedData> for Block {
    fn from(encoded: EncodedData) -> Self {
        Self::new(encoded.ipc_message, encoded.arrow_data)
    }
}

/// Encodes the batches of one stream.
#[derive(Debug)]
pub struct BlockEncoder {
    schema: Option<Block>,
    tracker: DictionaryTracker,
    options: IpcWriteOptions,
    context: IpcWriteContext,
}

impl BlockEncoder {
    /// An encoder for batches of `schema`.
    ///
    /// # Errors
    /// Arrow's, if the options or the schema cannot be written.
    pub fn new(schema: &Schema, compression: Compression) -> Result<Self, ArrowError> {
        let compression = match compression {
            Compression::None => None,
            Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
        };
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?
            .try_with_compression(compression)?
            .with_dictionary_handling(DictionaryHandling::Resend);
        let mut tracker = DictionaryTracker::new(false);
        let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options);
        Ok(Self { schema: Some(encoded.into()), tracker, options, context: IpcWriteContext::default() })
    }

    /// The schema's block, if no batch was encoded yet. Taking it leaves it out of the first batch's blocks: for callers that
    /// keep it once for many streams.
    pub fn take_schema(&mut self) -> Option<Block> {
        self.schema.take()
    }

    /// The blocks of `batch`, in the order in which a decoder must see them.
    ///
    /// # Errors
    /// Arrow's, if a column cannot be written.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<Block>, ArrowError> {
        let (dictionaries, batch) =
            IpcDataGenerator::default().encode(batch, &mut self.tracker, &self.options, &mut self.context)?;
        let mut blocks = Vec::with_capacity(2 + dictionaries.len());
        blocks.extend(self.schema.take());
        blocks.extend(dictionaries.into_iter().map(Block::from));
        blocks.push(batch.into());
        Ok(blocks)
    }
}

/// Decodes the blocks of one stream.
#[derive(Debug, Default)]
pub struct BlockDecoder {
    schema: Option<SchemaRef>,
    dictionaries: Dictionaries,
}

#[expect(clippy::disallowed_types, reason = "the type that Arrow's reader takes; never iterated")]
type Dictionaries = std::collections::HashMap<i64, ArrayRef>;

impl BlockDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The stream's schema, once its block was seen.
    #[must_use]
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }

    /// Verifies and decodes one block; a batch comes back when the block completes one. Uncompressed buffers are not copied: the
    /// batch keeps the block's body alive.
    ///
    /// # Errors
    /// [`LostCause::Corrupt`] if the checksum does not match, a length does not fit, or the message is not one of a stream.
    pub fn push(&mut self, block: Block) -> Result<Option<RecordBatch>, LostCause> {
        if Block::checksum(&block.header, &block.body) != block.crc {
            return Err(LostCause::Corrupt);
        }
        self.decode(&block).map_err(|reason| {
            tracing::warn!(%reason, "a block with a valid checksum does not decode");
            LostCause::Corrupt
        })
    }

    fn decode(&mut self, block: &Block) -> Result<Option<RecordBatch>, ArrowError> {
        let message = root_as_message(&block.header).map_err(|reason| invalid(&reason.to_string()))?;
        match message.header_type() {
            MessageHeader::Schema => {
                let schema = message.header_as_schema().ok_or_else(|| invalid("no schema"))?;
                self.schema = Some(Arc::new(fb_to_schema(schema)));
                Ok(None)
            }
            MessageHeader::DictionaryBatch => self.dictionary(&message, &block.body).map(|()| None),
            MessageHeader::RecordBatch => self.batch(&message, &block.body).map(Some),
            other => Err(invalid(&format!("unexpected message {other:?}"))),
        }
    }

    fn dictionary(&mut self, message: &Message<'_>, body: &Bytes) -> Result<(), ArrowError> {
        let schema = self.schema.as_ref().ok_or_else(|| invalid("a dictionary before its schema"))?;
        let dictionary = message.header_as_dictionary_batch().ok_or_else(|| invalid("no dictionary"))?;
        check_lengths(dictionary.data().ok_or_else(|| invalid("an empty dictionary"))?, body)?;
        let buffer = Buffer::from(body.clone());
        read_dictionary(&buffer, dictionary, schema, &mut self.dictionaries, &message.version())
    }

    fn batch(&self, message: &Message<'_>, body: &Bytes) -> Result<RecordBatch, ArrowError> {
        let schema = self.schema.as_ref().ok_or_else(|| invalid("a batch before its schema"))?;
        let batch = message.header_as_record_batch().ok_or_else(|| invalid("no batch"))?;
        check_lengths(batch, body)?;
        let buffer = Buffer::from(body.clone());
        read_record_batch(&buffer, batch, Arc::clone(schema), &self.dictionaries, None, &message.version())
    }
}

fn invalid(what: &str) -> ArrowError {
    ArrowError::IpcError(what.to_owned())
}

/// Compares the extents that `layout` claims, and the sizes that compressed buffers claim for themselves, with `body`: the
/// decoder allocates by these numbers before it looks at the data.
fn check_lengths(layout: Layout<'_>, body: &[u8]) -> Result<(), ArrowError> {
    let compressed = layout.compression().is_some();
    if layout.length() < 0 {
        return Err(invalid("a negative row count"));
    }
    for buffer in layout.buffers().into_iter().flatten() {
        let extent = usize::try_from(buffer.offset())
            .ok()
            .zip(usize::try_from(buffer.length()).ok())
            .and_then(|(offset, length)| body.get(offset..offset.checked_add(length)?))
            .ok_or_else(|| invalid("a buffer reaches beyond its body"))?;
        if compressed && !extent.is_empty() {
            check_expansion(extent)?;
        }
    }
    Ok(())
}

fn check_expansion(extent: &[u8]) -> Result<(), ArrowError> {
    let (prefix, data) = extent.split_first_chunk::<8>().ok_or_else(|| invalid("a compressed buffer without its size"))?;
    let claimed = i64::from_le_bytes(*prefix);
    let possible = (data.len() as u64).saturating_mul(LZ4_EXPANSION_MAX).saturating_add(LZ4_FRAME_BYTES);
    match u64::try_from(claimed) {
        Ok(size) if size > possible => Err(invalid("a compressed buffer claims more than it can hold")),
        Err(_) if claimed != -1 => Err(invalid("a negative size")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int64Array, StringViewArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn batch(words: &[&str]) -> RecordBatch {
        let dictionary: DictionaryArray<Int32Type> = words.iter().copied().collect();
        let views = StringViewArray::from_iter_values(words.iter().map(|word| format!("{word}, longer than a view inlines")));
        let numbers = Int64Array::from_iter_values(0..words.len() as i64);
        let columns: [(&str, ArrayRef); 3] = [("d", Arc::new(dictionary)), ("v", Arc::new(views)), ("n", Arc::new(numbers))];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn decode(blocks: Vec<Block>) -> Result<Vec<RecordBatch>, LostCause> {
        let mut decoder = BlockDecoder::new();
        blocks.into_iter().filter_map(|block| decoder.push(block).transpose()).collect()
    }

    #[test]
    fn a_stream_with_changing_dictionaries_comes_back_as_it_was() {
        let batches = [batch(&["a", "b", "a"]), batch(&["c", "d", "c"]), batch(&[])];
        for compression in [Compression::None, Compression::Lz4] {
            let mut encoder = BlockEncoder::new(&batches[0].schema(), compression).unwrap();
            let blocks = batches.iter().flat_map(|batch| encoder.encode(batch).unwrap()).collect();
            assert_eq!(decode(blocks).unwrap(), batches);
        }
    }

    #[test]
    fn every_flipped_byte_is_found_before_decoding() {
        let batch = batch(&["a", "b"]);
        let mut encoder = BlockEncoder::new(&batch.schema(), Compression::Lz4).unwrap();
        let blocks = encoder.encode(&batch).unwrap();
        for (index, block) in blocks.iter().enumerate() {
            for at in [0, block.len() / 2, block.len() - 1] {
                let mut bytes = [block.header.as_ref(), block.body.as_ref()].concat();
                bytes[at] ^= 0x10;
                let mut damaged = blocks.clone();
                let body = Bytes::from(bytes.split_off(block.header.len()));
                damaged[index] = Block { header: bytes.into(), body, crc: block.crc };
                assert_eq!(decode(damaged).unwrap_err(), LostCause::Corrupt);
            }
        }
    }

    #[test]
    fn a_valid_checksum_over_a_short_body_is_refused_without_a_panic() {
        let batch = batch(&["a", "b"]);
        for compression in [Compression::None, Compression::Lz4] {
            let mut encoder = BlockEncoder::new(&batch.schema(), compression).unwrap();
            let blocks = encoder.encode(&batch).unwrap();
            let last = blocks.len() - 1;
            for keep in [0, 1, 9, blocks[last].body.len() - ALIGNMENT] {
                let mut forged = blocks.clone();
                forged[last] = Block::new(forged[last].header.clone(), forged[last].body.slice(..keep));
                assert_eq!(decode(forged).unwrap_err(), LostCause::Corrupt);
            }
        }
    }

    #[test]
    fn a_compressed_buffer_cannot_claim_more_than_it_can_hold() {
        let mut extent = (1_u64 << 40).to_le_bytes().to_vec();
        extent.extend([0; 100]);
        assert!(check_expansion(&extent).is_err());
        assert!(check_expansion(&extent[..7]).is_err());
        let mut fits = 1000_i64.to_le_bytes().to_vec();
        fits.extend([0; 100]);
        assert!(check_expansion(&fits).is_ok());
    }
}
