//! A cluster small enough for a unit test: cuts a plan at its exchanges, sends every stage through the codec, and runs every slice.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use futures::future::{BoxFuture, FutureExt, try_join_all};
use futures::{StreamExt, TryStreamExt};
use windrow_core::task::Slice;

use crate::codec::{EncodedStage, encode_stage};
use crate::narrow::{Narrowing, can_narrow};
use crate::stage_input::{InputPart, StageInputExec, StageInputSource, StageInputs};
use crate::task_plan::decode_task;

/// Rows by partition.
pub(crate) type Rows = Vec<Vec<RecordBatch>>;

/// What stages have written, by input number; every stage of a test counts its inputs on.
#[derive(Debug, Default)]
pub(crate) struct Store(Mutex<Vec<Rows>>);

impl Store {
    pub(crate) fn add(&self, rows: Rows) -> u32 {
        let mut inputs = self.0.lock().unwrap();
        inputs.push(rows);
        (inputs.len() - 1) as u32
    }
}

impl StageInputSource for Store {
    fn open(&self, input: u32, part: InputPart, schema: SchemaRef) -> Result<SendableRecordBatchStream> {
        let (InputPart::Segment(part) | InputPart::Producer(part)) = part;
        let rows = match self.0.lock().unwrap().get(input as usize).and_then(|rows| rows.get(part as usize)) {
            Some(rows) => rows.clone(),
            None => return internal_err!("input {input} has no part {part}"),
        };
        let stream = futures::stream::iter(rows.into_iter().map(Ok));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// A session with the options under which stages are cut.
pub(crate) fn session(partitions: usize) -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(partitions).with_information_schema(false);
    let options = config.options_mut();
    options.optimizer.enable_round_robin_repartition = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.execution.enable_file_stream_work_stealing = false;
    SessionContext::new_with_config(config)
}

pub(crate) async fn physical(session: &SessionContext, sql: &str) -> Arc<dyn ExecutionPlan> {
    session.sql(sql).await.unwrap().create_physical_plan().await.unwrap()
}

pub(crate) fn encode(session: &SessionContext, plan: &Arc<dyn ExecutionPlan>) -> windrow_core::Result<EncodedStage> {
    encode_stage(plan, &[], &|_| None, &session.task_ctx())
}

/// All partitions of a plan, at once.
pub(crate) async fn run(plan: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Result<Rows> {
    let partitions = 0..plan.output_partitioning().partition_count();
    let streams = partitions.map(|partition| plan.execute(partition, Arc::clone(context))).collect::<Result<Vec<_>>>()?;
    let tasks = streams.into_iter().map(|stream| tokio::spawn(stream.try_collect::<Vec<_>>()));
    let done = try_join_all(tasks).await.unwrap();
    done.into_iter().collect()
}

/// Every row as text, in order.
pub(crate) fn lines<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    lines
}

pub(crate) fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// Runs an encoded stage as the slices of `length` partitions, each decoded on its own.
pub(crate) async fn run_slices(
    encoded: &EncodedStage,
    partitions: u32,
    length: u32,
    scalars: &[(u32, ScalarValue)],
    context: &Arc<TaskContext>,
) -> Rows {
    let mut rows = Rows::new();
    for start in (0..partitions).step_by(length as usize) {
        let slice = Slice { start, end: partitions.min(start + length) };
        let inputs = match encoded.partition_inputs.is_empty() {
            true => &[],
            false => &encoded.partition_inputs[slice.start as usize..slice.end as usize],
        };
        let task = decode_task(&encoded.template, slice, partitions, inputs, scalars, context).unwrap();
        assert_eq!(task.plan.output_partitioning().partition_count(), slice.len() as usize);
        rows.extend(run(&task.plan, context).await.unwrap());
    }
    rows
}

/// Cuts and runs a plan, every stage in slices of `length`.
pub(crate) struct Cluster {
    pub(crate) store: Arc<Store>,
    pub(crate) context: Arc<TaskContext>,
    pub(crate) length: u32,
    pub(crate) narrowed: Mutex<usize>,
    scalars: Mutex<Vec<(u32, ScalarValue)>>,
    links: Mutex<HashMap<String, u32>>,
}

impl Cluster {
    pub(crate) fn new(session: &SessionContext, length: u32) -> Self {
        let store = Arc::new(Store::default());
        let state = session.state();
        let config = state.config().clone().with_extension(Arc::new(StageInputs(Arc::clone(&store) as _)));
        let session = SessionContext::new_with_config_rt(config, session.runtime_env());
        let context = session.task_ctx();
        Self { store, context, length, narrowed: Mutex::default(), scalars: Mutex::default(), links: Mutex::default() }
    }

    /// Runs `plan` as a stage after all stages below it.
    pub(crate) fn stage<'a>(&'a self, plan: &'a Arc<dyn ExecutionPlan>, keys: Vec<Arc<dyn PhysicalExpr>>) -> BoxFuture<'a, Rows> {
        async move {
            let plan = self.cut(plan).await;
            let partitions = plan.output_partitioning().partition_count() as u32;
            let scalar = |subquery: &ScalarSubqueryExpr| {
                let links = self.links.lock().unwrap();
                links.get(&link(subquery.results(), index_of(subquery))).copied()
            };
            let encoded = encode_stage(&plan, &keys, &scalar, &self.context).unwrap();
            let length = if can_narrow(&plan) == Narrowing::Whole { partitions } else { self.length };
            *self.narrowed.lock().unwrap() += usize::from(length < partitions);
            let scalars = self.scalars.lock().unwrap().clone();
            run_slices(&encoded, partitions, length.min(partitions), &scalars, &self.context).await
        }
        .boxed()
    }

    /// Replaces what lies below each exchange by a leaf.
    fn cut<'a>(&'a self, plan: &'a Arc<dyn ExecutionPlan>) -> BoxFuture<'a, Arc<dyn ExecutionPlan>> {
        async move {
            if plan.is::<RecursiveQueryExec>() {
                return Arc::clone(plan); // each iteration needs the rows of the last one: it stays in one task
            }
            if let Some(subqueries) = plan.downcast_ref::<ScalarSubqueryExec>() {
                for subquery in subqueries.subqueries() {
                    let rows = self.stage(&subquery.plan, Vec::new()).await;
                    let row = rows.iter().flatten().find(|batch| batch.num_rows() > 0);
                    let value = match row {
                        Some(batch) => ScalarValue::try_from_array(batch.column(0), 0).unwrap(),
                        None => ScalarValue::try_from(subquery.plan.schema().field(0).data_type()).unwrap(),
                    };
                    let input = self.store.add(rows);
                    self.scalars.lock().unwrap().push((input, value));
                    self.links.lock().unwrap().insert(link(subqueries.results(), subquery.index.as_usize()), input);
                }
                return self.cut(subqueries.input()).await;
            }
            if let Some(exchange) = plan.downcast_ref::<RepartitionExec>()
                && let Partitioning::Hash(keys, count) = exchange.partitioning()
            {
                let rows = self.stage(exchange.input(), keys.clone()).await;
                let leaf = StageInputExec::whole(self.store.add(rows), exchange.input()).unwrap();
                let exchange = Arc::clone(plan).replace_children(vec![Arc::new(leaf)], recompute()).unwrap();
                let segments = run(&exchange, &self.context).await.unwrap();
                let input = exchange.children()[0];
                let leaf = StageInputExec::partitioned(self.store.add(segments), input, keys.clone(), *count as u32);
                return Arc::new(leaf.unwrap()) as Arc<dyn ExecutionPlan>;
            }
            let merges = plan.is::<CoalescePartitionsExec>() || plan.is::<SortPreservingMergeExec>();
            let mut children = Vec::new();
            for child in plan.children() {
                children.push(if merges {
                    let rows = self.stage(child, Vec::new()).await;
                    Arc::new(StageInputExec::whole(self.store.add(rows), child).unwrap()) as Arc<dyn ExecutionPlan>
                } else {
                    self.cut(child).await
                });
            }
            if children.is_empty() { Arc::clone(plan) } else { Arc::clone(plan).replace_children(children, recompute()).unwrap() }
        }
        .boxed()
    }
}

fn recompute() -> ReplaceChildrenOptions {
    ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute)
}

#[expect(deprecated, reason = "nothing else tells which subquery an expression means")]
fn index_of(subquery: &ScalarSubqueryExpr) -> usize {
    subquery.index().as_usize()
}

/// Results are compared by address; a filled copy of the container shows it.
fn link(results: &datafusion::logical_expr::physical_planning_context::ScalarSubqueryResults, index: usize) -> String {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    format!("{}:{index}", BuildHasherDefault::<DefaultHasher>::default().hash_one(results))
}

/// Writes `sql`'s rows as `files` Parquet files and registers them as `name`.
pub(crate) async fn table(session: &SessionContext, dir: &Path, name: &str, files: usize, sql: &str) {
    let rows = session.sql(sql).await.unwrap().collect().await.unwrap();
    batches(session, dir, name, files, &rows).await;
}

/// Writes batches as `files` Parquet files and registers them as `name`.
pub(crate) async fn batches(session: &SessionContext, dir: &Path, name: &str, files: usize, rows: &[RecordBatch]) {
    let folder = dir.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let whole = arrow::compute::concat_batches(&rows[0].schema(), rows).unwrap();
    for file in 0..files {
        let start = whole.num_rows() * file / files;
        let end = whole.num_rows() * (file + 1) / files;
        let sink = std::fs::File::create(folder.join(format!("{file}.parquet"))).unwrap();
        let mut writer = datafusion::parquet::arrow::ArrowWriter::try_new(sink, whole.schema(), None).unwrap();
        writer.write(&whole.slice(start, end - start)).unwrap();
        writer.close().unwrap();
    }
    session.register_parquet(name, folder.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
}

/// The rows of a query as DataFusion alone gives them.
pub(crate) async fn expected(session: &SessionContext, sql: &str) -> Vec<String> {
    let mut stream = session.sql(sql).await.unwrap().execute_stream().await.unwrap();
    let mut rows = Vec::new();
    while let Some(batch) = stream.next().await {
        rows.push(batch.unwrap());
    }
    lines(&rows)
}
