//! Every type of join, with and without filters, nulls, projections and a shared build side, in pools from ample to far too small: the
//! rows of DataFusion's hash join, and nothing left of memory or disk.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{JoinSide, JoinType, NullEquality};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::collect_partitioned;
use datafusion::physical_plan::expressions::{BinaryExpr, Column};
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::joins::{HashJoinExec, HashJoinExecBuilder, PartitionMode};

use super::with_joins_that_fit;
use crate::memory::ExecutorPool;
use crate::spill::SpillDir;

const TYPES: [JoinType; 10] = [
    JoinType::Inner,
    JoinType::Left,
    JoinType::Right,
    JoinType::Full,
    JoinType::LeftSemi,
    JoinType::RightSemi,
    JoinType::LeftAnti,
    JoinType::RightAnti,
    JoinType::LeftMark,
    JoinType::RightMark,
];

/// Rows `(key, number, text)`; the key of `row` is that of `key_of`.
fn batches(rows: usize, key_of: impl Fn(usize) -> Option<i64>, prefix: &str) -> Vec<RecordBatch> {
    let schema = schema();
    let rows: Vec<usize> = (0..rows).collect();
    let batch = |rows: &[usize]| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|&row| key_of(row)).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|&row| Some((row % 97) as i64)).collect::<Int64Array>()),
            Arc::new(
                rows.iter()
                    .map(|row| Some(format!("{prefix}, and a text too long to be inlined: {row}")))
                    .collect::<StringViewArray>(),
            ),
        ];
        RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
    };
    rows.chunks(1000).map(batch).collect()
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, true),
        Field::new("number", DataType::Int64, true),
        Field::new("text", DataType::Utf8View, true),
    ]))
}

fn source(partitions: &[Vec<RecordBatch>]) -> Arc<dyn ExecutionPlan> {
    MemorySourceConfig::try_new_exec(partitions, schema(), None).unwrap()
}

fn builder(left: Arc<dyn ExecutionPlan>, right: Arc<dyn ExecutionPlan>, join: JoinType) -> HashJoinExecBuilder {
    let key: PhysicalExprRef = Arc::new(Column::new("key", 0));
    HashJoinExecBuilder::new(left, right, vec![(Arc::clone(&key), key)], join)
}

/// `left.number < right.number`
fn filter() -> JoinFilter {
    let field = |name| Field::new(name, DataType::Int64, true);
    let column = |name, index| Arc::new(Column::new(name, index)) as PhysicalExprRef;
    let less = BinaryExpr::new(column("left", 0), Operator::Lt, column("right", 1));
    let indices = vec![ColumnIndex { index: 1, side: JoinSide::Left }, ColumnIndex { index: 1, side: JoinSide::Right }];
    JoinFilter::new(Arc::new(less), indices, Arc::new(Schema::new(vec![field("left"), field("right")])))
}

struct Ran {
    rows: Vec<String>,
    spilled_bytes: usize,
}

/// Runs `plan` in a pool of `limit` bytes, and checks that it gives everything back.
async fn run(join: &HashJoinExec, limit: Option<usize>) -> Ran {
    let parent = tempfile::tempdir().unwrap();
    let spill = SpillDir::create(parent.path(), 1 << 30).unwrap();
    let pool = Arc::new(ExecutorPool::new(limit.unwrap_or(1 << 30), 60));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&pool) as Arc<dyn MemoryPool>).build_arc().unwrap();
    let plan: Arc<dyn ExecutionPlan> = Arc::new(join.builder().reset_state().build().unwrap());
    let plan = if limit.is_some() { with_joins_that_fit(plan, &spill).unwrap() } else { plan };
    let config = datafusion::prelude::SessionConfig::new().with_sort_spill_reservation_bytes(64 << 10);
    let context = Arc::new(TaskContext::default().with_session_config(config).with_runtime(runtime));
    let partitions = collect_partitioned(Arc::clone(&plan), context).await.unwrap();
    let mut rows = Vec::new();
    for batch in partitions.iter().flatten() {
        assert_eq!(batch.schema(), plan.schema());
        rows.extend(lines(batch));
    }
    rows.sort_unstable();
    let spilled_bytes = plan.metrics().unwrap().spilled_bytes().unwrap_or(0);
    drop(plan);
    assert_eq!((pool.reserved(), spill.used()), (0, 0), "{:?} left something", join.join_type());
    Ran { rows, spilled_bytes }
}

fn lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"))
        .collect()
}

async fn compare(join: &HashJoinExec, limit: usize, must_spill: bool) {
    let expected = run(join, None).await;
    let actual = run(join, Some(limit)).await;
    let what = format!("{} in {limit} bytes", datafusion::physical_plan::displayable(join).one_line());
    assert_eq!(expected.rows.len(), actual.rows.len(), "{what}");
    assert_eq!(expected.rows, actual.rows, "{what}");
    assert_eq!(actual.spilled_bytes > 0, must_spill, "{what}");
}

/// Keys with nulls, duplicates and keys that only one side has.
fn scattered(seed: i64) -> impl Fn(usize) -> Option<i64> {
    move |row| (row % 11 != 3).then(|| (row as i64).wrapping_mul(seed).rem_euclid(7001))
}

/// Half of the rows have one key.
fn skewed(row: usize) -> Option<i64> {
    Some(if row.is_multiple_of(2) { 42 } else { row as i64 })
}

#[tokio::test]
async fn all_join_types_give_the_same_rows_in_any_pool() {
    let (left, right) = (batches(12_000, scattered(31), "left"), batches(9_000, scattered(17), "right"));
    for join in TYPES {
        for (with_filter, nulls) in [
            (false, NullEquality::NullEqualsNothing),
            (true, NullEquality::NullEqualsNothing),
            (false, NullEquality::NullEqualsNull),
        ] {
            if nulls == NullEquality::NullEqualsNull
                && matches!(join, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full)
            {
                // A thousand nulls on each side make a million rows; the other types cover the equality of nulls.
                continue;
            }
            let plan = builder(source(std::slice::from_ref(&left)), source(std::slice::from_ref(&right)), join)
                .with_partition_mode(PartitionMode::Partitioned)
                .with_filter(with_filter.then(filter))
                .with_null_equality(nulls)
                .build()
                .unwrap();
            compare(&plan, 64 << 20, false).await;
            compare(&plan, 1 << 20, true).await;
        }
    }
}

#[tokio::test]
async fn one_key_with_half_of_the_rows_is_joined_block_by_block() {
    // 20,000 rows of a key on the side that is larger than the pool, and few on the other: a million rows would come of more.
    let large = batches(40_000, skewed, "large");
    let small = batches(40_000, |row| Some(if row % 4000 == 0 { 42 } else { row as i64 + 20_000 }), "small");
    for join in TYPES {
        for (left, right) in [(&large, &small), (&small, &large)] {
            let plan = builder(source(std::slice::from_ref(left)), source(std::slice::from_ref(right)), join)
                .with_partition_mode(PartitionMode::Partitioned)
                .with_projection(match join {
                    JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => Some(vec![4, 0, 5]),
                    _ => None,
                })
                .build()
                .unwrap();
            compare(&plan, 1 << 20, true).await;
        }
    }
}

#[tokio::test]
async fn both_sides_of_one_key_are_joined_block_by_block() {
    let (left, right) = (batches(13_000, |_| Some(1), "left"), batches(13_000, |_| Some(1), "right"));
    for join in [
        JoinType::LeftSemi,
        JoinType::RightSemi,
        JoinType::LeftAnti,
        JoinType::RightAnti,
        JoinType::LeftMark,
        JoinType::RightMark,
    ] {
        let plan = builder(source(std::slice::from_ref(&left)), source(std::slice::from_ref(&right)), join)
            .with_partition_mode(PartitionMode::Partitioned)
            .build()
            .unwrap();
        compare(&plan, 1 << 19, true).await;
    }
    // No row of the left side is less than all of the right one: a full join with both kinds of unmatched rows.
    let none = batches(30_000, |row| Some(if row < 15_000 { 1 } else { 2 }), "left");
    let other = batches(400, |row| Some(if row < 10 { 1 } else { 3 }), "right");
    let many: Vec<RecordBatch> = std::iter::repeat_n(other, 60).flatten().collect();
    let plan = builder(source(&[none]), source(&[many]), JoinType::Full)
        .with_partition_mode(PartitionMode::Partitioned)
        .with_filter(Some(filter()))
        .with_projection(Some(vec![3, 1]))
        .build()
        .unwrap();
    compare(&plan, 1 << 20, true).await;
}

#[tokio::test]
async fn a_shared_build_side_is_divided_once_for_all_partitions() {
    let (left, right) = (batches(12_000, scattered(31), "left"), batches(9_000, scattered(17), "right"));
    let halves: Vec<Vec<RecordBatch>> = right.chunks(5).map(<[RecordBatch]>::to_vec).collect();
    for join in TYPES {
        let collected = Arc::new(CoalescePartitionsExec::new(source(std::slice::from_ref(&left))));
        let plan = builder(collected, source(&halves), join).with_partition_mode(PartitionMode::CollectLeft).build().unwrap();
        compare(&plan, 64 << 20, false).await;
        compare(&plan, 1 << 20, true).await;
    }
}

#[tokio::test]
async fn empty_sides_and_nulls_of_not_in_are_right() {
    let rows = batches(12_000, scattered(31), "rows");
    let without_nulls = batches(12_000, |row| Some(row as i64 % 5000), "rows");
    for join in TYPES {
        for (left, right) in [(&rows, &vec![]), (&vec![], &rows)] {
            let plan = builder(source(std::slice::from_ref(left)), source(std::slice::from_ref(right)), join)
                .with_partition_mode(PartitionMode::Partitioned)
                .build()
                .unwrap();
            compare(&plan, 1 << 20, !left.is_empty()).await;
        }
    }
    for right in [&rows, &without_nulls, &vec![]] {
        for partitions in [vec![right.clone()], right.chunks(4).map(<[RecordBatch]>::to_vec).collect()] {
            let partitions = if partitions.is_empty() { vec![vec![]] } else { partitions };
            let plan = builder(source(std::slice::from_ref(&rows)), source(&partitions), JoinType::LeftAnti)
                .with_partition_mode(PartitionMode::CollectLeft)
                .with_null_aware(true)
                .build()
                .unwrap();
            compare(&plan, 1 << 20, true).await;
        }
    }
}

#[tokio::test]
async fn an_order_that_was_promised_is_kept_and_a_limit_ends_the_rows() {
    let left = batches(30_000, |row| Some(row as i64), "left");
    let right = batches(9_000, |row| Some(row as i64), "right");
    let order = [datafusion::physical_expr::PhysicalSortExpr::new_default(Arc::new(Column::new("key", 0)))];
    let source_of_right = MemorySourceConfig::try_new(&[right], schema(), None)
        .and_then(|source| source.try_with_sort_information(vec![order.into()]))
        .unwrap();
    let right = datafusion::datasource::source::DataSourceExec::from_data_source(source_of_right);
    let plan = builder(source(&[left]), right, JoinType::Inner)
        .with_partition_mode(PartitionMode::Partitioned)
        .with_fetch(Some(500))
        .build()
        .unwrap();
    assert!(plan.properties().output_ordering().is_some());
    // Room for the merge of a sort, not for the build side.
    compare(&plan, 3 << 20, true).await;
}
