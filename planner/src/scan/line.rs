//! The line of a text file that does not parse. Arrow's CSV reader counts from where its part of the file begins, its JSON reader not
//! at all: so once something is wrong, the file is read again, row by row, up to the fault.

use std::sync::Arc;

use arrow::{csv, json};
use bytes::Bytes;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;

use datafusion::common::DataFusionError;
use datafusion::common::config::CsvOptions;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::error::Result;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};

/// Bytes read again at most: a fault further behind is reported without its line.
const READ_MAX: u64 = 4 << 30;

/// How the rows of a text file are read, one by one.
#[derive(Debug)]
pub(super) struct Lines {
    /// The columns of the file.
    pub(super) schema: SchemaRef,
    /// Those that are read.
    pub(super) columns: Vec<usize>,
    /// Of CSV; `None` for JSON lines.
    pub(super) csv: Option<CsvOptions>,
    pub(super) compression: FileCompressionType,
}

impl Lines {
    /// The first line, counted from 1, of the first row of `file` that does not parse; `None` if all of them do, or if it is too far
    /// behind.
    pub(super) async fn line_of_fault(&self, store: &Arc<dyn ObjectStore>, file: &PartitionedFile) -> Option<u64> {
        self.find(store, file).await.unwrap_or_default()
    }

    async fn find(&self, store: &Arc<dyn ObjectStore>, file: &PartitionedFile) -> Result<Option<u64>> {
        let first = file.range.as_ref().map_or(0, |range| u64::try_from(range.start).unwrap_or_default());
        let bytes = store.get(&file.object_meta.location).await?.into_stream().map_err(DataFusionError::from);
        let mut chunks = self.compression.convert_stream(bytes.boxed())?;
        let mut rows = Rows { decoder: self.decoder(first == 0)?, line: 1, at: None };
        // A part begins behind the first end of a line at or after the byte before it.
        let (mut before, mut read) = (first.saturating_sub(1), 0);
        let mut is_skipping = first > 0;
        while let Some(chunk) = chunks.try_next().await? {
            read += chunk.len() as u64;
            if read > READ_MAX {
                return Ok(None);
            }
            let mut chunk: Bytes = chunk;
            if is_skipping {
                let passed = usize::try_from(before).unwrap_or(usize::MAX).min(chunk.len());
                rows.line += ends(&chunk[..passed]);
                before -= passed as u64;
                chunk = chunk.split_off(passed);
                let Some(end) = chunk.iter().position(|&byte| byte == b'\n') else { continue };
                rows.line += 1;
                chunk = chunk.split_off(end + 1);
                is_skipping = false;
            }
            if rows.feed(&chunk).is_err() {
                return Ok(Some(rows.at.unwrap_or(rows.line)));
            }
        }
        Ok(rows.end().is_err().then(|| rows.at.unwrap_or(rows.line)))
    }

    fn decoder(&self, is_start: bool) -> Result<Decoder> {
        let Some(options) = &self.csv else {
            let schema = Arc::new(self.schema.project(&self.columns)?);
            return Ok(Decoder::Json(json::ReaderBuilder::new(schema).with_batch_size(1).build_decoder()?));
        };
        let mut builder = csv::ReaderBuilder::new(Arc::clone(&self.schema))
            .with_batch_size(1)
            .with_projection(self.columns.clone())
            .with_header(is_start && options.has_header.unwrap_or_default())
            .with_delimiter(options.delimiter)
            .with_quote(options.quote)
            .with_truncated_rows(options.truncated_rows.unwrap_or_default());
        if let Some(terminator) = options.terminator {
            builder = builder.with_terminator(terminator);
        }
        if let Some(escape) = options.escape {
            builder = builder.with_escape(escape);
        }
        if let Some(comment) = options.comment {
            builder = builder.with_comment(comment);
        }
        Ok(Decoder::Csv(Box::new(builder.build_decoder())))
    }
}

fn ends(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

enum Decoder {
    Csv(Box<csv::reader::Decoder>),
    Json(json::reader::Decoder),
}

impl Decoder {
    fn decode(&mut self, bytes: &[u8]) -> Result<usize, ArrowError> {
        match self {
            Self::Csv(decoder) => decoder.decode(bytes),
            Self::Json(decoder) => decoder.decode(bytes),
        }
    }

    fn flush(&mut self) -> Result<bool, ArrowError> {
        Ok(match self {
            Self::Csv(decoder) => decoder.flush()?.is_some(),
            Self::Json(decoder) => decoder.flush()?.is_some(),
        })
    }
}

/// Where a decoder of single rows is.
struct Rows {
    decoder: Decoder,
    /// The line of the next byte.
    line: u64,
    /// The line in which the row began that is being read.
    at: Option<u64>,
}

impl Rows {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ArrowError> {
        while !bytes.is_empty() {
            if self.at.is_none() {
                // Empty lines are no rows; what is left of the last row's end is not one either.
                let blank = bytes.iter().position(|byte| !matches!(byte, b'\n' | b'\r')).unwrap_or(bytes.len());
                self.at = (blank < bytes.len()).then(|| self.line + ends(&bytes[..blank]));
            }
            let used = self.decoder.decode(bytes)?;
            self.line += ends(&bytes[..used]);
            bytes = &bytes[used..];
            // It stops before the end of what it is given once it holds a row.
            if !bytes.is_empty() {
                let was_row = self.decoder.flush()?;
                self.at = None;
                if !was_row && used == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ArrowError> {
        while self.decoder.decode(&[])? > 0 {}
        self.decoder.flush()?;
        Ok(())
    }
}
