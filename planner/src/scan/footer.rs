//! Footers of Parquet files whose errors keep their type. DataFusion's reader makes a sentence of what a store says (55.2,
//! `ParquetFileReader::get_metadata`), so that a store which is down for a moment would look like a file that is damaged for ever.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::DataFusionError;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::{FileSource, ParquetFileReaderFactory, ParquetSource};
use datafusion::error::Result;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::{ObjectMeta, ObjectStore};

/// `source` with such footers, if it reads Parquet with a reader of its own.
pub(super) fn with_typed_footers(source: &Arc<dyn FileSource>, store: &Arc<dyn ObjectStore>) -> Arc<dyn FileSource> {
    let parquet = source.downcast_ref::<ParquetSource>();
    let Some((parquet, inner)) = parquet.and_then(|parquet| Some((parquet, parquet.parquet_file_reader_factory()?))) else {
        return Arc::clone(source);
    };
    let readers = Readers { inner: Arc::clone(inner), store: Arc::clone(store) };
    Arc::new(parquet.clone().with_parquet_file_reader_factory(Arc::new(readers)))
}

#[derive(Debug)]
struct Readers {
    inner: Arc<dyn ParquetFileReaderFactory>,
    store: Arc<dyn ObjectStore>,
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let object = file.object_meta.clone();
        let inner = self.inner.create_reader(partition, file, hint, metrics)?;
        Ok(Box::new(Reader { inner, store: Arc::clone(&self.store), object, hint }))
    }
}

struct Reader {
    inner: Box<dyn AsyncFileReader + Send>,
    store: Arc<dyn ObjectStore>,
    object: ObjectMeta,
    hint: Option<usize>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("object", &self.object.location).finish_non_exhaustive()
    }
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.inner.get_byte_ranges(ranges)
    }

    /// Asks once more where the first answer was an error, and keeps what the store says then.
    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let first = match self.inner.get_metadata(options).await {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error,
            };
            let footer = DFParquetMetadata::new(&self.store, &self.object)
                .with_metadata_size_hint(self.hint)
                .with_page_index_policy(options.map(ArrowReaderOptions::column_index_policy));
            match footer.fetch_metadata().await {
                Ok(metadata) => Ok(metadata),
                Err(DataFusionError::ParquetError(_)) => Err(first),
                Err(typed) => Err(ParquetError::External(Box::new(typed))),
            }
        }
        .boxed()
    }
}
