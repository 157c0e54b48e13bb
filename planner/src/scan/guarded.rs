//! The source of a decoded scan with two guards around each file: before it is read it is compared with what was planned
//! (`unchanged.rs`), and an error names the file and, for text, the line (`line.rs`), and keeps what the store said (`footer.rs`).

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, not_impl_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use windrow_core::{ErrorKind, Failed, Failure};

use super::footer::with_typed_footers;
use super::line::Lines;
use super::unchanged;
use crate::contain::{contained, contained_future, contained_stream};
use crate::files::root;

/// `source` with its guards. The last wrapper of a source: nothing is pushed into it any more. `lines` finds lines of text.
pub(super) fn guarded(source: &Arc<dyn FileSource>, lines: Option<Lines>) -> Arc<dyn FileSource> {
    Arc::new(Guarded { inner: Arc::clone(source), lines: lines.map(Arc::new) })
}

/// The source inside of the guards with something changed, if `source` has them and `change` does it.
pub(super) fn inside(
    source: &Arc<dyn FileSource>,
    change: impl FnOnce(&Arc<dyn FileSource>) -> Result<Option<Arc<dyn FileSource>>>,
) -> Result<Option<Arc<dyn FileSource>>> {
    let Some(held) = source.downcast_ref::<Guarded>() else { return change(source) };
    let inner = change(&held.inner)?;
    Ok(inner.map(|inner| Arc::new(Guarded { inner, lines: held.lines.clone() }) as Arc<dyn FileSource>))
}

struct Guarded {
    inner: Arc<dyn FileSource>,
    lines: Option<Arc<Lines>>,
}

impl FileSource for Guarded {
    fn create_file_opener(&self, _: Arc<dyn ObjectStore>, _: &FileScanConfig, _: usize) -> Result<Arc<dyn FileOpener>> {
        not_impl_err!("a guarded source is read by morsels")
    }

    fn create_morselizer(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        let source = with_typed_footers(&self.inner, &store);
        let inner = source.create_morselizer(Arc::clone(&store), config, partition)?;
        let root = root(config.object_store_url.as_str()).to_owned();
        Ok(Box::new(Files { inner, store, root, lines: self.lines.clone() }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { inner: self.inner.with_batch_size(batch_size), lines: self.lines.clone() })
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

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.inner.reorder_files(files)
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }
}

#[derive(Debug)]
struct Files {
    inner: Box<dyn Morselizer>,
    store: Arc<dyn ObjectStore>,
    /// What stands before a file's path: `/`, `s3://bucket/`.
    root: String,
    lines: Option<Arc<Lines>>,
}

impl Morselizer for Files {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        let (store, lines) = (Arc::clone(&self.store), self.lines.clone());
        let name = format!("{}{}", self.root, file.object_meta.location);
        let file = Arc::new(File { planned: file.clone(), name, store, lines });
        let inner = contained(|| self.inner.plan_file(file.planned.clone())).map_err(|error| file.name(error))?;
        Ok(Box::new(Planner { inner, file, is_checked: false }))
    }
}

/// One file while it is read.
#[derive(Debug)]
struct File {
    planned: PartitionedFile,
    /// As the user would write it.
    name: String,
    store: Arc<dyn ObjectStore>,
    lines: Option<Arc<Lines>>,
}

impl File {
    async fn check(&self) -> Result<()> {
        let checked = unchanged::check(&self.store, &self.name, &self.planned.object_meta).await;
        checked.map_err(|failed| DataFusionError::External(Box::new(failed)))
    }

    fn name(&self, error: DataFusionError) -> DataFusionError {
        error.context(format!("reading {}", self.name))
    }

    /// The error with the line, if it is one of a text that does not parse.
    async fn locate(&self, error: DataFusionError) -> DataFusionError {
        let (DataFusionError::ArrowError(arrow, _), Some(lines)) = (&error, &self.lines) else { return self.name(error) };
        let (ArrowError::CsvError(fault) | ArrowError::ParseError(fault) | ArrowError::JsonError(fault)) = arrow.as_ref() else {
            return self.name(error);
        };
        let Some(line) = lines.line_of_fault(&self.store, &self.planned).await else { return self.name(error) };
        let message = format!("{}, line {line}: {}", self.name, without_line(fault));
        DataFusionError::External(Box::new(Failed { failure: Failure::Fatal { kind: ErrorKind::Data }, message }))
    }
}

/// A reader's sentence without its own count of lines, which begins where its part of the file does.
fn without_line(fault: &str) -> String {
    for before in [" at line ", " for line "] {
        if let Some((head, tail)) = fault.split_once(before) {
            return format!("{head}{}", tail.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
    }
    fault.to_owned()
}

#[derive(Debug)]
struct Planner {
    inner: Box<dyn MorselPlanner>,
    file: Arc<File>,
    is_checked: bool,
}

impl MorselPlanner for Planner {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        let Self { inner, file, is_checked } = *self;
        if !is_checked {
            return Ok(Some(MorselPlan::new().with_pending_planner(async move {
                file.check().await?;
                Ok(Box::new(Self { inner, file, is_checked: true }) as Box<dyn MorselPlanner>)
            })));
        }
        let Some(mut plan) = contained(|| inner.plan()).map_err(|error| file.name(error))? else { return Ok(None) };
        let wrap = |inner, file| Box::new(Self { inner, file, is_checked: true }) as Box<dyn MorselPlanner>;
        let morsels =
            plan.take_morsels().into_iter().map(|inner| Box::new(Rows { inner, file: Arc::clone(&file) }) as Box<dyn Morsel>);
        let planners = plan.take_ready_planners().into_iter().map(|inner| wrap(inner, Arc::clone(&file)));
        let mut guarded = MorselPlan::new().with_morsels(morsels.collect()).with_planners(planners.collect());
        if let Some(pending) = plan.take_pending_planner() {
            guarded.set_pending_planner(contained_future(pending.into_future()).map(move |inner| match inner {
                Ok(inner) => Ok(wrap(inner, Arc::clone(&file))),
                Err(error) => Err(file.name(error)),
            }));
        }
        Ok(Some(guarded))
    }
}

#[derive(Debug)]
struct Rows {
    inner: Box<dyn Morsel>,
    file: Arc<File>,
}

impl Morsel for Rows {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let Self { inner, file } = *self;
        contained_stream(inner.into_stream())
            .or_else(move |error| {
                let file = Arc::clone(&file);
                async move { Err(file.locate(error).await) }
            })
            .boxed()
    }
}

impl Debug for Guarded {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}
