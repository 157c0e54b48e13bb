//! The files of one partition's rows: which file a row goes into, how many are open at once and how large they grow. Next: `file.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::internal_datafusion_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::path::{Path, PathPart};
use object_store::{ObjectStore, ObjectStoreExt};
use windrow_core::{Error, ErrorKind};

use super::exec::WriteSpec;
use super::file::{OPEN_BYTES, OpenFile};
use super::format::Options;
use super::publish::WrittenFile;
use crate::diagnose::ours;

/// Bytes of a Parquet row group in memory. 128 MiB is what HDFS and Spark made usual: large enough to skip by, small enough to hold.
const ROW_GROUP_BYTES: usize = 128 << 20;
/// Files that one partition writes at once, one for each hive folder. More folders than this are written one after the other, in more
/// and smaller files.
const OPEN_FILES_MAX: usize = 16;

/// What follows the name of a file until it is published, so that no listing by ending finds it.
pub(super) const UNPUBLISHED: &str = ".writing";

/// Writes the rows of one partition. Dropped before [`Self::finish`], it removes what it wrote.
pub(super) struct PartitionFiles {
    spec: Arc<WriteSpec>,
    options: Options,
    store: Arc<dyn ObjectStore>,
    is_local: bool,
    /// What stands before the number of a file.
    name: String,
    keys: Vec<usize>,
    values: Vec<usize>,
    file_schema: SchemaRef,
    memory: MemoryReservation,
    /// By the values of the keys; a single one without keys.
    open: BTreeMap<Vec<String>, Writing>,
    started: Vec<Path>,
    written: Vec<WrittenFile>,
    is_done: bool,
    ticks: u64,
}

struct Writing {
    file: OpenFile,
    relative: String,
    /// When rows were last written to it.
    used: u64,
}

impl PartitionFiles {
    pub(super) fn new(spec: Arc<WriteSpec>, partition: u32, schema: &SchemaRef, context: &TaskContext) -> Result<Self> {
        let url = ObjectStoreUrl::parse(&spec.store)?;
        let store = context.runtime_env().object_store(&url)?;
        // The attempt is named in full, so that two attempts never write the same file.
        let attempt: String = context.task_id().unwrap_or_default();
        let attempt: String = attempt.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let name = format!("{}-{partition:05}-{attempt}", spec.write);
        let keys = spec.keys.iter().map(|key| schema.index_of(key)).collect::<Result<Vec<_>, _>>()?;
        let values: Vec<usize> = (0..schema.fields().len()).filter(|index| !keys.contains(index)).collect();
        let file_schema = Schema::new_with_metadata(schema.project(&values)?.fields, schema.metadata().clone());
        let memory = MemoryConsumer::new(format!("WriteExec[{partition}]")).register(context.memory_pool());
        Ok(Self {
            options: spec.format.options()?,
            is_local: spec.store.starts_with("file:"),
            spec,
            store,
            name,
            keys,
            values,
            file_schema: Arc::new(file_schema),
            memory,
            open: BTreeMap::new(),
            started: Vec::new(),
            written: Vec::new(),
            is_done: false,
            ticks: 0,
        })
    }

    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.check_nulls(batch)?;
        if self.keys.is_empty() {
            return self.write_to(&[], batch).await;
        }
        for (key, rows) in self.divide(batch)? {
            self.write_to(&key, &rows).await?;
        }
        Ok(())
    }

    /// Completes all files and names them. `needs_file` asks for one even if there was no row.
    pub(super) async fn finish(mut self, needs_file: bool) -> Result<Vec<WrittenFile>> {
        if needs_file && self.written.is_empty() && self.open.is_empty() && self.keys.is_empty() {
            let nothing = RecordBatch::new_empty(Arc::clone(&self.file_schema));
            self.open_for(&[])?;
            self.put(&[], &nothing).await?;
        }
        while let Some((_, writing)) = self.open.pop_first() {
            self.complete(writing).await?;
        }
        self.is_done = true;
        Ok(std::mem::take(&mut self.written))
    }

    fn check_nulls(&self, batch: &RecordBatch) -> Result<()> {
        for &column in &self.spec.not_null {
            let (column, schema) = (column as usize, batch.schema());
            if batch.columns().get(column).is_some_and(|values| values.logical_null_count() > 0) {
                let name = schema.fields().get(column).map_or("", |field| field.name());
                let what = format!("column '{name}' of the table is NOT NULL, and a row to be written has a null there");
                return Err(ours(Error::new(ErrorKind::Data, what)));
            }
        }
        Ok(())
    }

    /// The rows by the values of the keys.
    fn divide(&self, batch: &RecordBatch) -> Result<Vec<(Vec<String>, RecordBatch)>> {
        let texts = self.keys.iter().map(|&key| self.texts(batch, key)).collect::<Result<Vec<_>>>()?;
        let texts: Vec<&StringArray> = texts.iter().map(|texts| texts.as_string()).collect();
        let mut rows: BTreeMap<Vec<&str>, Vec<u32>> = BTreeMap::new();
        for row in 0..batch.num_rows() {
            let key = texts.iter().map(|texts| texts.value(row)).collect();
            rows.entry(key).or_default().push(u32::try_from(row).map_err(|error| DataFusionError::External(Box::new(error)))?);
        }
        let values = batch.project(&self.values)?;
        let groups = rows.into_iter().map(|(key, rows)| {
            let key = key.into_iter().map(str::to_owned).collect();
            Ok((key, take_record_batch(&values, &UInt32Array::from(rows))?))
        });
        groups.collect()
    }

    fn texts(&self, batch: &RecordBatch, key: usize) -> Result<ArrayRef> {
        let column = batch.columns().get(key).ok_or_else(|| internal_datafusion_err!("a batch without column {key}"))?;
        if column.logical_null_count() > 0 {
            let what =
                format!("column '{}' has a null, which the name of a folder cannot tell", batch.schema().field(key).name());
            return Err(ours(
                Error::new(ErrorKind::Data, what).with_help("replace nulls with coalesce(), or write without PARTITIONED BY"),
            ));
        }
        Ok(cast(column, &DataType::Utf8)?)
    }

    async fn write_to(&mut self, key: &[String], rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        if !self.open.contains_key(key) {
            if self.open.len() >= OPEN_FILES_MAX {
                self.complete_oldest().await?;
            }
            self.open_for(key)?;
        }
        self.put(key, rows).await?;
        let is_full = self.open.get(key).is_some_and(|writing| writing.file.bytes() >= self.spec.file_bytes_max);
        if is_full && let Some(writing) = self.open.remove(key) {
            self.complete(writing).await?;
        }
        self.fit().await
    }

    fn open_for(&mut self, key: &[String]) -> Result<()> {
        let name = format!("{}-{}{}", self.name, self.started.len(), self.spec.format.ending()?);
        let staged = Path::parse(&self.spec.staging).map_err(object_store::Error::from)?.join(format!("{name}{UNPUBLISHED}"));
        let folders = self.spec.keys.iter().zip(key).map(|(column, value)| PathPart::from(format!("{column}={value}")));
        let relative = Path::from_iter(folders.chain([PathPart::from(name)]));
        let file = OpenFile::create(Arc::clone(&self.store), staged.clone(), &self.file_schema, &self.options)?;
        self.started.push(staged);
        self.open.insert(key.to_vec(), Writing { file, relative: relative.into(), used: self.ticks });
        Ok(())
    }

    async fn put(&mut self, key: &[String], rows: &RecordBatch) -> Result<()> {
        self.ticks += 1;
        let Some(writing) = self.open.get_mut(key) else { return Err(internal_datafusion_err!("a file that is not open")) };
        writing.used = self.ticks;
        writing.file.write(rows).await?;
        if writing.file.row_group_bytes() >= ROW_GROUP_BYTES {
            writing.file.flush().await?;
        }
        Ok(())
    }

    async fn complete(&mut self, writing: Writing) -> Result<()> {
        let Writing { file, relative, .. } = writing;
        let (rows, bytes) = file.finish(self.is_local).await?;
        self.written.push(WrittenFile { path: relative, rows, bytes });
        Ok(())
    }

    async fn complete_oldest(&mut self) -> Result<()> {
        let oldest = self.open.iter().min_by_key(|(_, writing)| writing.used).map(|(key, _)| key.clone());
        if let Some(writing) = oldest.and_then(|key| self.open.remove(&key)) {
            self.complete(writing).await?;
        }
        Ok(())
    }

    /// Accounts for what is held. Where the pool refuses, row groups end early, and then files do.
    async fn fit(&mut self) -> Result<()> {
        loop {
            let groups: usize = self.open.values().map(|writing| writing.file.row_group_bytes()).sum();
            let refused = match self.memory.try_resize(groups + OPEN_BYTES * self.open.len()) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            let largest = self.open.values_mut().max_by_key(|writing| writing.file.row_group_bytes());
            match largest {
                Some(writing) if groups > 0 => {
                    let before = writing.file.row_group_bytes();
                    writing.file.flush().await?;
                    if writing.file.row_group_bytes() < before {
                        continue;
                    }
                }
                _ => {}
            }
            if self.open.len() <= 1 {
                return Err(refused);
            }
            self.complete_oldest().await?;
        }
    }
}

impl Drop for PartitionFiles {
    fn drop(&mut self) {
        let (open, started) = (std::mem::take(&mut self.open), std::mem::take(&mut self.started));
        if self.is_done || started.is_empty() {
            return;
        }
        // What is left without a runtime goes with the folder of the whole write.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let store = Arc::clone(&self.store);
        runtime.spawn(async move {
            for writing in open.into_values() {
                writing.file.abort().await;
            }
            for path in started {
                // Most were never complete, so there is nothing.
                let _ = store.delete(&path).await;
            }
        });
    }
}
