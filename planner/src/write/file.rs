//! One file that is being written: rows in, bytes to its store. Next: `partition.rs`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::file_options::csv_writer::CsvWriterOptions;
use datafusion::datasource::file_format::csv::CsvSerializer;
use datafusion::datasource::file_format::json::JsonSerializer;
use datafusion::datasource::file_format::write::BatchSerializer;
use datafusion::error::{DataFusionError, Result};
use datafusion::parquet::arrow::AsyncArrowWriter;
use datafusion::parquet::arrow::arrow_writer::ArrowWriterOptions;
use datafusion::parquet::file::properties::WriterPropertiesBuilder;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::format::{Options, whole_file};

/// Bytes of one part of an upload. 5 MiB is the least that S3 takes.
const PART_BYTES: usize = 5 << 20;
/// Parts of one file that are on their way at once.
const PARTS_AT_ONCE: usize = 2;
/// What an open file may hold besides the rows of a Parquet row group: the part that is filled, and those on their way.
pub(super) const OPEN_BYTES: usize = PART_BYTES * (PARTS_AT_ONCE + 1);

/// A file that takes rows. Nothing is at its path before [`Self::finish`], except on stores that show unfinished uploads (none of those
/// known here does).
pub(super) struct OpenFile {
    path: Path,
    store: Arc<dyn ObjectStore>,
    encoder: Encoder,
    rows: u64,
}

enum Encoder {
    Parquet(Box<AsyncArrowWriter<BufWriter>>),
    Text { serializer: Box<dyn BatchSerializer>, sink: Sink, bytes: u64, is_begun: bool },
}

enum Sink {
    Plain(Box<BufWriter>),
    Compressed(Box<dyn AsyncWrite + Send + Unpin>),
}

impl Sink {
    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(writer) => writer.write_all(bytes).await,
            Self::Compressed(writer) => writer.write_all(bytes).await,
        }
    }

    async fn shutdown(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(writer) => writer.shutdown().await,
            Self::Compressed(writer) => writer.shutdown().await,
        }
    }
}

impl OpenFile {
    pub(super) fn create(store: Arc<dyn ObjectStore>, path: Path, schema: &SchemaRef, options: &Options) -> Result<Self> {
        let text = |serializer: Box<dyn BatchSerializer>, compression, level| {
            let compression = whole_file(compression);
            let sink = match compression.is_compressed() {
                true => Sink::Compressed(compression.convert_async_writer_with_level(upload_of(&store, &path), level)?),
                false => Sink::Plain(Box::new(upload_of(&store, &path))),
            };
            Ok::<_, DataFusionError>(Encoder::Text { serializer, sink, bytes: 0, is_begun: false })
        };
        let encoder = match options {
            Options::Parquet(options) => {
                let mut options = options.as_ref().clone();
                let skip = options.global.skip_arrow_metadata;
                if !skip {
                    options.arrow_schema(schema);
                }
                let properties = WriterPropertiesBuilder::try_from(&options)?.build();
                // The schema is among the properties already.
                let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
                let writer = AsyncArrowWriter::try_new_with_options(upload_of(&store, &path), Arc::clone(schema), options)?;
                Encoder::Parquet(Box::new(writer))
            }
            Options::Csv(options) => {
                let writer = CsvWriterOptions::try_from(options.as_ref())?.writer_options;
                let header = writer.header();
                let serializer = CsvSerializer::new().with_builder(writer).with_header(header);
                text(Box::new(serializer), options.compression, options.compression_level)?
            }
            Options::Json(options) => text(Box::new(JsonSerializer::new()), options.compression, options.compression_level)?,
        };
        Ok(Self { path, store, encoder, rows: 0 })
    }

    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        match &mut self.encoder {
            Encoder::Parquet(writer) => writer.write(batch).await?,
            Encoder::Text { serializer, sink, bytes, is_begun } => {
                let is_first = !std::mem::replace(is_begun, true);
                let text = serializer.serialize(batch.clone(), is_first)?;
                *bytes += text.len() as u64;
                sink.write(&text).await?;
            }
        }
        Ok(())
    }

    /// About how large the file would be if it ended here; text before it is compressed.
    pub(super) fn bytes(&self) -> u64 {
        match &self.encoder {
            Encoder::Parquet(writer) => (writer.bytes_written() + writer.in_progress_size()) as u64,
            Encoder::Text { bytes, .. } => *bytes,
        }
    }

    /// Bytes of the row group that is being filled; none for text.
    pub(super) fn row_group_bytes(&self) -> usize {
        match &self.encoder {
            Encoder::Parquet(writer) => writer.memory_size(),
            Encoder::Text { .. } => 0,
        }
    }

    /// Ends the row group.
    pub(super) async fn flush(&mut self) -> Result<()> {
        if let Encoder::Parquet(writer) = &mut self.encoder {
            writer.flush().await?;
        }
        Ok(())
    }

    /// Completes the file: rows and bytes of it. A local file is on its disk then.
    pub(super) async fn finish(self, is_local: bool) -> Result<(u64, u64)> {
        let Self { path, store, encoder, rows } = self;
        match encoder {
            Encoder::Parquet(writer) => {
                writer.close().await?;
            }
            Encoder::Text { mut sink, .. } => sink.shutdown().await?,
        }
        if is_local {
            sync(&path).await?;
        }
        let bytes = store.head(&path).await?.size;
        Ok((rows, bytes))
    }

    /// Gives the upload up, so that its store forgets the parts.
    pub(super) async fn abort(self) {
        let upload = match self.encoder {
            Encoder::Parquet(writer) => Some(writer.into_inner()),
            Encoder::Text { sink: Sink::Plain(upload), .. } => Some(*upload),
            // The compressor does not give its upload back: parts of it stay until the bucket's own rule for unfinished uploads ends them.
            Encoder::Text { sink: Sink::Compressed(_), .. } => None,
        };
        if let Some(mut upload) = upload {
            // Whoever aborts has an error already.
            let _ = upload.abort().await;
        }
    }
}

fn upload_of(store: &Arc<dyn ObjectStore>, path: &Path) -> BufWriter {
    BufWriter::with_capacity(Arc::clone(store), path.clone(), PART_BYTES).with_max_concurrency(PARTS_AT_ONCE)
}

/// Asks the disk to keep a file: a store of local files does not.
pub(super) async fn sync(path: &Path) -> Result<()> {
    let path = super::target::local_path(path);
    tokio::fs::File::open(path).await?.sync_all().await?;
    Ok(())
}
