//! The rules of narrowing, one plan at a time; that rows stay the same is tested with the codec, where plans run.

use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::SessionContext;
use tempfile::TempDir;

use crate::narrow::{Narrowing, Placement, can_narrow, leaves, narrow, refusal};
use crate::stage_input::StageInputExec;
use crate::testing::{encode, physical, session, table};

/// `t(k, v)` in seven files, `u(k, w)` in three.
async fn tables() -> (SessionContext, TempDir) {
    let session = session(7);
    session.sql("SET datafusion.optimizer.repartition_file_scans = false").await.unwrap();
    let dir = TempDir::new().unwrap();
    table(&session, dir.path(), "t", 7, "SELECT value AS k, value AS v FROM generate_series(1, 700)").await;
    table(&session, dir.path(), "u", 3, "SELECT value AS k, value AS w FROM generate_series(1, 30)").await;
    (session, dir)
}

fn places(plan: &Arc<dyn ExecutionPlan>) -> Vec<Placement> {
    leaves(plan).into_iter().map(|leaf| leaf.placement).collect()
}

#[tokio::test]
async fn leaves_below_a_union_lie_one_after_the_other() {
    let (session, _dir) = tables().await;
    let plan = physical(&session, "SELECT k, v FROM t UNION ALL SELECT k, w FROM u UNION ALL SELECT 1, 2").await;
    let sliced = |offset, count| Placement::Sliced { offset, count };
    assert_eq!(places(&plan), [sliced(0, 7), sliced(7, 3), sliced(10, 1)]);
    assert_eq!(can_narrow(&plan), Narrowing::PerPartition);
    for (start, end) in [(0, 1), (6, 8), (8, 10), (10, 11), (0, 11)] {
        let narrowed = narrow(&plan, start..end).unwrap();
        assert_eq!(narrowed.schema(), plan.schema(), "{start}..{end}");
        assert_eq!(narrowed.output_partitioning().partition_count(), (end - start) as usize);
    }
    assert!(narrow(&plan, 5..12).is_err());
    assert!(narrow(&plan, 5..5).is_err());
}

#[tokio::test]
async fn the_collected_side_of_a_join_is_whole() {
    let (session, _dir) = tables().await;
    let plan = physical(&session, "SELECT * FROM (SELECT max(w) FROM u) CROSS JOIN t").await;
    assert_eq!(can_narrow(&plan), Narrowing::PerPartition);
    assert_eq!(places(&plan), [Placement::Whole, Placement::Sliced { offset: 0, count: 7 }]);
}

#[tokio::test]
async fn joins_that_emit_collected_rows_run_whole_but_keep_their_places() {
    let (session, _dir) = tables().await;
    for (join, narrows) in [
        ("t.k FROM u JOIN t", true),
        ("t.k FROM u RIGHT JOIN t", true),
        ("t.k FROM u LEFT JOIN t", false),
        ("t.k FROM u FULL JOIN t", false),
        ("u.k FROM u LEFT SEMI JOIN t", false),
        ("u.k FROM u LEFT ANTI JOIN t", false),
        ("t.k FROM u RIGHT SEMI JOIN t", true),
        ("t.k FROM u RIGHT ANTI JOIN t", true),
    ] {
        let plan = physical(&session, &format!("SELECT {join} ON u.w < t.v")).await;
        let swapped = plan.children().len() == 2 && places(&plan).first() != Some(&Placement::Whole);
        assert!(!swapped, "{join}: the small side is collected");
        assert_eq!(refusal(&plan).is_none(), narrows, "{join}: {:?}", refusal(&plan));
        assert_eq!(places(&plan).last(), Some(&Placement::Sliced { offset: 0, count: 7 }), "{join}");
        assert_eq!(narrow(&plan, 2..5).is_ok(), narrows, "{join}");
        assert!(narrow(&plan, 0..7).is_ok(), "{join}: all partitions of a whole stage");
    }
}

#[tokio::test]
async fn an_exchange_inside_a_stage_is_refused_by_name() {
    let (session, _dir) = tables().await;
    let plan = physical(&session, "SELECT k, count(*) FROM t GROUP BY k").await;
    assert_eq!(can_narrow(&plan), Narrowing::Whole);
    assert!(refusal(&plan).unwrap().contains("RepartitionExec"));
    assert!(narrow(&plan, 1..2).unwrap_err().message.contains("RepartitionExec"));
    assert_eq!(places(&plan), [Placement::Whole]);
}

fn column(name: &str, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(name, index))
}

#[tokio::test]
async fn stage_inputs_narrow_and_travel_with_what_they_claim() {
    let (session, _dir) = tables().await;
    let scan = physical(&session, "SELECT k, v FROM t WHERE v = 7").await;
    let order = PhysicalSortExpr::new(column("k", 0), SortOptions { descending: true, nulls_first: true });
    let sort = SortExec::new(LexOrdering::new([order]).unwrap(), scan).with_preserve_partitioning(true);
    let producer: Arc<dyn ExecutionPlan> = Arc::new(sort);
    let whole: Arc<dyn ExecutionPlan> = Arc::new(StageInputExec::whole(0, &producer).unwrap());
    assert_eq!(whole.output_ordering(), producer.output_ordering());
    assert_eq!(whole.equivalence_properties().constants(), producer.equivalence_properties().constants());
    assert!(!whole.equivalence_properties().constants().is_empty());
    let keyed: Arc<dyn ExecutionPlan> = Arc::new(StageInputExec::partitioned(1, &producer, vec![column("k", 0)], 5).unwrap());
    assert!(keyed.output_ordering().is_none());
    assert_eq!(keyed.output_partitioning().to_string(), "Hash([k@0], 5)");
    // The gate compares schema, partitioning and order of what was decoded.
    for plan in [&whole, &keyed, &narrow(&keyed, 1..4).unwrap()] {
        encode(&session, plan).unwrap();
    }
    let union = UnionExec::try_new(vec![whole, keyed]).unwrap();
    assert_eq!(places(&union)[1], Placement::Sliced { offset: 7, count: 5 });
    let narrowed = narrow(&narrow(&union, 8..12).unwrap(), 1..3).unwrap();
    let shown = datafusion::physical_plan::displayable(narrowed.as_ref()).indent(false).to_string();
    assert!(shown.contains("partitions=2..4 of 5, read=hash[k@0]"), "{shown}");
}
