//! Tests of the filter and of the operators: nothing that has a partner is dropped, most of what has none is.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int64Array, StringViewArray, UInt64Array};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::metrics::Time;
use datafusion::physical_plan::repartition::BatchPartitioner;
use datafusion::physical_plan::{ExecutionPlan, collect_partitioned};
use datafusion::prelude::ParquetReadOptions;

use super::apply::{FilterUse, RuntimeFilterExec};
use super::bloom::{self, KeyFilter};
use super::build::{KEYS_MAX, RuntimeFilterBuildExec};
use crate::testing::{lines, physical, run, session, sorted};

fn numbers(values: impl IntoIterator<Item = Option<i64>>) -> RecordBatch {
    let n: ArrayRef = Arc::new(Int64Array::from_iter(values));
    let text = n.as_primitive::<Int64Type>().iter().map(|n| n.map(|n| format!("a text that no view inlines, {n}")));
    let text: ArrayRef = Arc::new(StringViewArray::from_iter(text));
    RecordBatch::try_from_iter_with_nullable([("n", n, true), ("text", text, true)]).unwrap()
}

fn some(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    numbers(values.into_iter().map(Some))
}

fn keys() -> Vec<Arc<dyn PhysicalExpr>> {
    vec![Arc::new(Column::new("n", 0)), Arc::new(Column::new("text", 1))]
}

fn memory(partitions: &[Vec<RecordBatch>]) -> Arc<dyn ExecutionPlan> {
    let schema = partitions[0][0].schema();
    MemorySourceConfig::try_new_exec(partitions, schema, None).unwrap()
}

/// The rows of `probe`, one partition, that pass a filter of `build`.
async fn filtered(
    build: &[Vec<RecordBatch>],
    probe: Vec<RecordBatch>,
    routed: bool,
    context: &Arc<TaskContext>,
) -> Vec<Option<i64>> {
    let build: Arc<dyn ExecutionPlan> = Arc::new(RuntimeFilterBuildExec::new(memory(build), keys(), KEYS_MAX));
    let plan: Arc<dyn ExecutionPlan> = Arc::new(RuntimeFilterExec::new(
        build,
        memory(&[probe]),
        keys(),
        FilterUse { routed, domain: None, in_scan_only: false },
    ));
    let batches = collect_partitioned(plan, Arc::clone(context)).await.unwrap().remove(0);
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn what_has_a_partner_passes_and_little_else() {
    let context = Arc::new(TaskContext::default());
    let build = vec![vec![some(0..500)], vec![some(500..1000), numbers([None, Some(1000)])], vec![some([])]];
    let mixed = |n: i64| n * 7_919 % 10_000;
    let batch = |index: i64| numbers((index * 1_000..(index + 1) * 1_000).map(|n| Some(mixed(n))).chain([None]));
    let probe: Vec<_> = (0..10).map(batch).collect();
    let passed = filtered(&build, probe, false, &context).await;
    assert!((0..=1000).all(|n| passed.contains(&Some(n))) && passed.contains(&None));
    assert!(passed.len() < 1_011 + 500, "{} rows of 10,010 pass, and 1,011 have a partner", passed.len());
}

#[tokio::test]
async fn a_routed_filter_looks_where_the_exchange_sends_a_key() {
    let context = Arc::new(TaskContext::default());
    for count in [1, 2, 7, 128] {
        let mut router = BatchPartitioner::new_hash_partitioner(keys(), count, Time::new()).unwrap();
        let mut parts = vec![vec![some([])]; count];
        let batch = numbers((0..5_000).map(Some).chain([None]));
        router
            .partition(batch, |part, rows| {
                parts[part].push(rows);
                Ok(())
            })
            .unwrap();
        let probe = vec![numbers((0..50_000).step_by(2).map(Some).chain([None]))];
        let passed = filtered(&parts, probe, true, &context).await;
        assert!((0..5_000).step_by(2).all(|n| passed.contains(&Some(n))) && passed.contains(&None), "{count} parts");
        assert!(passed.len() < 2_501 + 1_500, "{count} parts: {} rows pass", passed.len());
    }
}

#[tokio::test]
async fn an_empty_side_drops_everything() {
    let context = Arc::new(TaskContext::default());
    for routed in [false, true] {
        let passed = filtered(&[vec![some([])], vec![some([])]], vec![some(0..1_000)], routed, &context).await;
        assert!(passed.is_empty(), "{} rows pass", passed.len());
    }
}

#[tokio::test]
async fn without_memory_for_the_keys_everything_passes() {
    let environment = RuntimeEnvBuilder::new().with_memory_limit(1_000, 1.0).build_arc().unwrap();
    let context = Arc::new(TaskContext::default().with_runtime(environment));
    let passed = filtered(&[vec![some(0..10)], vec![some(0..500)]], vec![some(5_000..6_000)], false, &context).await;
    assert_eq!(passed.len(), 1_000);
}

#[tokio::test]
async fn a_useless_filter_rests_and_tries_again() {
    let context = Arc::new(TaskContext::default());
    // Twenty batches with partners, then a hundred without: those after the next try are dropped.
    let probe: Vec<_> = (0..20).map(|_| some(0..100)).chain((0..100).map(|_| some(1_000..1_100))).collect();
    let passed = filtered(&[vec![some(0..100)]], probe, false, &context).await;
    assert!(passed.len() >= 2_000 && passed.len() < 2_000 + 20 * 100, "{} rows pass", passed.len());
}

#[test]
fn a_filter_that_is_none_is_an_error() {
    let filter: ArrayRef = Arc::new(BinaryArray::from_iter_values([[1_u8; 31]]));
    let keys: ArrayRef = Arc::new(UInt64Array::from_iter_values([1]));
    let row = RecordBatch::try_new(bloom::schema(), vec![filter, keys]).unwrap();
    KeyFilter::from_rows(&[row], false).unwrap_err();
}

#[test]
fn a_filter_holds_sixteen_bits_a_key() {
    let hashes: Vec<u64> = (0..100_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    assert_eq!(bloom::to_bytes(&hashes).len(), 200_000);
}

/// A Parquet file of the numbers below 10,000 and twice each, in ten row groups.
async fn parquet(directory: &std::path::Path) -> Arc<dyn ExecutionPlan> {
    let session = session(1);
    let numbers = "SELECT value AS n, value * 2 AS twice FROM range(0, 10000)";
    let path = directory.join("numbers.parquet").display().to_string();
    let copy = format!("COPY ({numbers}) TO '{path}' OPTIONS ('format.max_row_group_size' '1000')");
    session.sql(&copy).await.unwrap().collect().await.unwrap();
    session.register_parquet("numbers", &path, ParquetReadOptions::default()).await.unwrap();
    physical(&session, "SELECT twice, n FROM numbers WHERE twice > 100").await
}

#[tokio::test]
async fn a_selective_filter_is_tested_by_the_parquet_reader() {
    let directory = tempfile::tempdir().unwrap();
    let context = Arc::new(TaskContext::default());
    for (keys, domain, in_scan) in [(10, Some(10_000), true), (10, Some(1_000), false), (10, None, false)] {
        let scan = parquet(directory.path()).await;
        let build: Arc<dyn ExecutionPlan> = Arc::new(RuntimeFilterBuildExec::new(
            memory(&[vec![some((0..keys).map(|n| n * 700))]]),
            vec![keys_of("n", 0)],
            KEYS_MAX,
        ));
        let how = FilterUse { routed: false, domain, in_scan_only: true };
        let plan: Arc<dyn ExecutionPlan> = Arc::new(RuntimeFilterExec::new(build, scan, vec![keys_of("n", 1)], how));
        let rows = run(&plan, &context).await.unwrap();
        let passed = sorted(lines(rows.iter().flatten()));
        assert!((1..keys).all(|n| passed.contains(&format!("{}|{}", n * 1_400, n * 700))), "{passed:?}");
        assert!(!passed.contains(&"0|0".to_owned()), "the scan's own predicate still holds");
        assert_eq!(passed.len() < 500, in_scan, "{} rows pass with {domain:?} values", passed.len());
    }
}

fn keys_of(name: &str, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(name, index))
}

#[tokio::test]
async fn the_domain_of_an_integer_column_is_its_range() {
    let directory = tempfile::tempdir().unwrap();
    let scan = parquet(directory.path()).await;
    let domain = super::push::domain(&scan, 1).unwrap();
    assert!(domain.is_some_and(|domain| (9_000..=10_000).contains(&domain)), "{domain:?}");
    assert_eq!(super::push::domain(&memory(&[vec![some(0..10)]]), 1).unwrap(), None, "a text has no range");
}
