//! Stages for people: what EXPLAIN and EXPLAIN ANALYZE print.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::StringArray;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytesize::ByteSize;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use windrow_core::ids::StageId;
use windrow_core::stage::{Exchange, InputRead, Stage, StageGraph, StageInput};
use windrow_core::task::TaskMetrics;
use windrow_core::{Error, Result};

/// A stage's plan, one operator a line, with the stages that its leaves read. Lines are the operators in pre-order, which is how
/// metrics refer to them.
pub(crate) fn stage_display(plan: &Arc<dyn ExecutionPlan>, inputs: &[StageInput]) -> String {
    let mut text = displayable(plan.as_ref()).indent(false).to_string();
    for (index, input) in inputs.iter().enumerate() {
        text = text.replace(&format!("StageInputExec: input={index},"), &format!("StageInputExec: stage={},", input.stage.0));
    }
    text.trim_end().to_owned()
}

/// The stage tree: result first, then its producers.
pub(crate) fn stage_tree(graph: &StageGraph) -> String {
    let mut text = String::new();
    for stage in graph.stages.iter().rev() {
        header(&mut text, stage);
        for line in stage.display.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text.trim_end().to_owned()
}

fn header(text: &mut String, stage: &Stage) {
    let plural = if stage.partitions == 1 { "" } else { "s" };
    let _ = write!(text, "Stage {}: {} partition{plural}", stage.id.0, stage.partitions);
    if stage.whole && stage.partitions > 1 {
        text.push_str(" in one task");
    }
    let output = match stage.exchange {
        Exchange::Hash { partitions } => format!("hash exchange to {partitions}"),
        Exchange::Merge => "merge exchange".to_owned(),
        Exchange::Broadcast => "broadcast exchange".to_owned(),
        Exchange::Result => "result".to_owned(),
    };
    let _ = write!(text, " -> {output}");
    if let Some(limit) = stage.row_limit {
        let _ = write!(text, ", stops at {limit} rows");
    }
    let scalars: Vec<String> =
        stage.inputs.iter().filter(|input| input.read == InputRead::Scalar).map(|input| input.stage.0.to_string()).collect();
    if !scalars.is_empty() {
        let _ = write!(text, ", value of stage {}", scalars.join(", "));
    }
    if let Some(form) = &stage.alternative {
        let _ = write!(text, ", without stage {} if stage {} has", form.spared.0, form.measured.0);
        let _ = write!(text, " at most {}", ByteSize::b(form.bytes_max));
    }
    text.push('\n');
}

/// The stage tree with what the attempts measured: time, rows, bytes shuffled and spilled per stage, and DataFusion's metrics per
/// operator, summed over the attempts that succeeded.
pub(crate) fn analyzed_tree(graph: &StageGraph, metrics: &[(StageId, TaskMetrics)]) -> String {
    let mut text = String::new();
    for stage in graph.stages.iter().rev() {
        let tasks: Vec<&TaskMetrics> = metrics.iter().filter(|(id, _)| *id == stage.id).map(|(_, task)| task).collect();
        header(&mut text, stage);
        let sum = |value: fn(&TaskMetrics) -> u64| tasks.iter().map(|task| value(task)).fold(0_u64, u64::saturating_add);
        let slowest = tasks.iter().map(|task| task.micros).max().unwrap_or(0);
        let _ = writeln!(
            text,
            "  tasks={} rows={} shuffle={} spill={} time={:?} slowest={:?}",
            tasks.len(),
            sum(|task| task.rows),
            ByteSize::b(sum(|task| task.shuffle_bytes)),
            ByteSize::b(sum(|task| task.spill_bytes)),
            Duration::from_micros(sum(|task| task.micros)),
            Duration::from_micros(slowest),
        );
        let merged = merge(&tasks);
        for (index, line) in stage.display.lines().enumerate() {
            let operator = u32::try_from(index).ok().and_then(|index| merged.get(&index));
            let _ = match operator {
                Some(values) => writeln!(text, "  {line}, metrics=[{}]", render(values)),
                None => writeln!(text, "  {line}"),
            };
        }
    }
    text.trim_end().to_owned()
}

fn merge<'a>(tasks: &[&'a TaskMetrics]) -> BTreeMap<u32, BTreeMap<&'a str, u64>> {
    let mut merged: BTreeMap<u32, BTreeMap<&str, u64>> = BTreeMap::new();
    for (operator, name, value) in tasks.iter().flat_map(|task| &task.operators) {
        let sum = merged.entry(*operator).or_default().entry(name.as_str()).or_default();
        *sum = sum.saturating_add(*value);
    }
    merged
}

fn render(values: &BTreeMap<&str, u64>) -> String {
    let one = |(name, value): (&&str, &u64)| {
        if name.starts_with("elapsed") || name.contains("time") {
            format!("{name}={:?}", Duration::from_nanos(*value))
        } else if name.contains("bytes") || name.contains("mem") {
            format!("{name}={}", ByteSize::b(*value))
        } else {
            format!("{name}={value}")
        }
    };
    values.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Rows of `(plan_type, plan)`.
pub(crate) fn rows(plans: &[(&str, String)]) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let schema = schema();
    let types = StringArray::from_iter_values(plans.iter().map(|(name, _)| *name));
    let texts = StringArray::from_iter_values(plans.iter().map(|(_, text)| text.as_str()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(types), Arc::new(texts)])
        .map_err(|source| Error::internal("an explanation does not fit its schema").with_source(source))?;
    Ok((schema, vec![batch]))
}

/// The schema of every explanation.
pub(crate) fn schema() -> SchemaRef {
    let column = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![column("plan_type"), column("plan")]))
}
