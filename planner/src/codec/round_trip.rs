//! The gate at submit: a stage decodes to an equal plan or the query fails here, with the operator's name.
//!
//! Equal is: for each operator its verbose line, schema, partitioning and order. Allowed to differ, because only speed depends on it:
//! the order in which a Parquet scan visits row groups (`sort_order_for_reorder`, `reverse_row_groups`), which no accessor tells.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use datafusion::execution::TaskContext;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan, ExecutionPlanProperties};
use windrow_core::{Error, Result};

use crate::codec::EncodedStage;
use crate::codec::decode::{Additions, decode};
use crate::codec::wire::{Node, Template, from_bytes};
use crate::scan::files_of;

/// Decodes what was encoded and compares.
pub(super) fn check(plan: &Arc<dyn ExecutionPlan>, encoded: &EncodedStage, context: &TaskContext) -> Result<()> {
    let lost = |what: String| Error::internal(format!("encoding the plan lost something: {what}"));
    let template: Template = from_bytes(&encoded.template).map_err(|error| lost(error.to_string()))?;
    nesting(&template.nodes)?;
    let files = files_of(&encoded.partition_inputs, 0).map_err(|error| lost(error.to_string()))?;
    let additions = Additions { files, ..Additions::default() };
    let (decoded, _) = decode(&template, additions, context).map_err(|error| lost(error.to_string()).with_source(error))?;
    match difference(plan, &decoded) {
        Some(what) => Err(lost(what)),
        None => Ok(()),
    }
}

/// Operators are flat, but an expression nests as deep as the user wrote it.
fn nesting(nodes: &[Node]) -> Result<()> {
    use datafusion_proto::protobuf::PhysicalPlanNode;
    use prost::Message;
    for node in nodes {
        if let Err(error) = PhysicalPlanNode::decode(node.proto.as_ref()) {
            return Err(Error::unsupported("an expression that is nested more than about 45 levels deep")
                .with_help("compute a part of it in a subquery or with fewer nested calls")
                .with_source(error));
        }
    }
    Ok(())
}

fn difference(plan: &Arc<dyn ExecutionPlan>, decoded: &Arc<dyn ExecutionPlan>) -> Option<String> {
    let (is, was) = (traits(decoded), traits(plan));
    let differs = is.iter().zip(&was).find(|(is, was)| is != was);
    if let Some(((what, is), (_, was))) = differs {
        return Some(format!("{} has the {what} {is} instead of {was}", plan.name()));
    }
    let (before, after) = (plan.children(), decoded.children());
    if before.len() != after.len() {
        return Some(format!("{} has {} children instead of {}", plan.name(), after.len(), before.len()));
    }
    before.into_iter().zip(after).find_map(|(before, after)| difference(before, after))
}

fn traits(plan: &Arc<dyn ExecutionPlan>) -> [(&'static str, String); 4] {
    let ordering = plan.output_ordering().map(ToString::to_string).unwrap_or_default();
    [
        ("line", without_speed(Line(plan.as_ref()).to_string())),
        ("schema", format!("{:?}", plan.schema())),
        ("partitioning", plan.output_partitioning().to_string()),
        ("order", ordering),
    ]
}

fn without_speed(mut line: String) -> String {
    for (start, end) in [(", sort_order_for_reorder=[", "]"), (", reverse_row_groups=", "true")] {
        let found = line.find(start).and_then(|at| Some((at, at + line.get(at..)?.find(end)? + end.len())));
        if let Some((from, to)) = found {
            line.replace_range(from..to, "");
        }
    }
    line
}

/// The verbose line of one operator.
struct Line<'a>(&'a dyn ExecutionPlan);

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt_as(DisplayFormatType::Verbose, f)
    }
}
