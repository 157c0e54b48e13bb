//! A file that changed between planning and reading is an error, never a mix of rows. Wraps the source of a decoded scan so that each
//! file is looked up once before it is read: one `stat` for a local file, one HEAD request for a remote one.

use std::fmt::{self, Debug, Formatter};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileOpenFuture, FileOpener, FileScanConfig, FileSource, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use windrow_core::{ErrorKind, Failed, Failure};

/// The same source, which fails on a file that is not the planned one.
pub(super) fn checked(source: &Arc<dyn FileSource>, store: Arc<dyn ObjectStore>) -> Arc<dyn FileSource> {
    match source.downcast_ref::<ParquetSource>().and_then(|parquet| Some((parquet, parquet.parquet_file_reader_factory()?))) {
        Some((parquet, factory)) => {
            let factory = Arc::new(Readers { inner: Arc::clone(factory), store });
            Arc::new(parquet.clone().with_parquet_file_reader_factory(factory))
        }
        None => Arc::new(Source { inner: Arc::clone(source) }),
    }
}

async fn check(store: &Arc<dyn ObjectStore>, planned: &ObjectMeta) -> Result<(), Failed> {
    let fail = |kind, what: String| {
        let message = format!("{} {what} since the query was planned; run it again", planned.location);
        Failed { failure: Failure::Fatal { kind }, message }
    };
    let found = match store.head(&planned.location).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Err(fail(ErrorKind::NotFound, "was removed".to_string())),
        // Whatever else is wrong, reading the file will say it better.
        Err(_) => return Ok(()),
    };
    if found.size != planned.size {
        return Err(fail(ErrorKind::Data, format!("changed from {} to {} bytes", planned.size, found.size)));
    }
    let same = match (&found.e_tag, &planned.e_tag) {
        (Some(found), Some(planned)) => found == planned,
        _ => found.last_modified == planned.last_modified,
    };
    if same { Ok(()) } else { Err(fail(ErrorKind::Data, "was written".to_string())) }
}

/// Parquet files, at the reader.
#[derive(Debug)]
struct Readers {
    inner: Arc<dyn ParquetFileReaderFactory>,
    store: Arc<dyn ObjectStore>,
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let planned = file.object_meta.clone();
        let inner = self.inner.create_reader(partition_index, file, metadata_size_hint, metrics)?;
        Ok(Box::new(Reader { inner, store: Arc::clone(&self.store), planned: Some(planned) }))
    }
}

struct Reader {
    inner: Box<dyn AsyncFileReader + Send>,
    store: Arc<dyn ObjectStore>,
    /// `None` once it was compared.
    planned: Option<ObjectMeta>,
}

impl Reader {
    async fn check(&mut self) -> Result<(), ParquetError> {
        if let Some(planned) = &self.planned {
            check(&self.store, planned).await.map_err(|failed| ParquetError::External(Box::new(failed)))?;
            self.planned = None;
        }
        Ok(())
    }
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            self.check().await?;
            self.inner.get_bytes(range).await
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move {
            self.check().await?;
            self.inner.get_byte_ranges(ranges).await
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            self.check().await?;
            self.inner.get_metadata(options).await
        }
        .boxed()
    }
}

/// Every other format, at the opener. The last wrapper of a source: nothing is pushed into it any more.
struct Source {
    inner: Arc<dyn FileSource>,
}

impl FileSource for Source {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let inner = self.inner.create_file_opener(Arc::clone(&store), config, partition)?;
        Ok(Arc::new(Opener { inner, store }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { inner: self.inner.with_batch_size(batch_size) })
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt_extra(t, f)
    }

    fn supports_repartitioning(&self) -> bool {
        false
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }
}

struct Opener {
    inner: Arc<dyn FileOpener>,
    store: Arc<dyn ObjectStore>,
}

impl FileOpener for Opener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let planned = file.object_meta.clone();
        let store = Arc::clone(&self.store);
        let opening = self.inner.open(file)?;
        Ok(Box::pin(async move {
            check(&store, &planned).await.map_err(|failed| DataFusionError::External(Box::new(failed)))?;
            // What is wrong with a row is told by the reader, in which file only here.
            let place = format!("reading {}", planned.location);
            let rows = opening.await.map_err(|error| error.context(&place))?;
            Ok(rows.map_err(move |error| error.context(&place)).boxed())
        }))
    }
}

impl Debug for Opener {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}
