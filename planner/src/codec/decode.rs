//! Decoding: builds a template's nodes in order, each from children that are built already. Next: `task_plan.rs`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::compute::{CastOptions, SortOptions};
use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::common::format::DEFAULT_CAST_OPTIONS;
use datafusion::common::{ScalarValue, internal_datafusion_err, internal_err};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::{CastExpr, Literal};
use datafusion::physical_expr::{AcrossPartitions, LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::work_table::WorkTableExec;
use datafusion_proto::physical_plan::from_proto::parse_physical_expr_with_converter;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalPlanNodeExt, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::physical_expr_node::ExprType;
use datafusion_proto::protobuf::physical_plan_node::PhysicalPlanType;
use datafusion_proto::protobuf::{PhysicalExprNode, PhysicalPlanNode};

use crate::codec::encode::Refusing;
use crate::codec::scalar_input::ScalarInputExpr;
use crate::codec::series;
use crate::codec::wire::{
    Across, Input, Lost, Node, OurExpr, OurNode, SortKey, Template, constraints_from_wire, decode_message, from_bytes,
    scalar_from_bytes, schema_from_bytes,
};
use crate::equivalence::Equivalence;
use crate::python::{PythonFunction, PythonMapExec};
use crate::runtime_filter::apply::RuntimeFilterExec;
use crate::runtime_filter::build::RuntimeFilterBuildExec;
use crate::scan::{Files, Scan};
use crate::stage_input::{LeafRead, StageInputExec};
use crate::write::WriteExec;

/// What a task adds to a template.
#[derive(Debug, Default)]
pub(crate) struct Additions<'a> {
    /// Values of scalar inputs, by input index; an input without one keeps its place holder.
    pub(crate) scalars: &'a [(u32, ScalarValue)],
    /// Files of the slice's partitions.
    pub(crate) files: Files,
    /// Fail on files that changed since planning.
    pub(crate) check_files: bool,
}

/// Decodes one template.
pub(crate) struct Decoder<'a> {
    nodes: &'a [Node],
    additions: Additions<'a>,
    built: RefCell<Vec<Option<Arc<dyn ExecutionPlan>>>>,
    /// Expressions that several nodes share, by the id they were encoded with: dynamic filters.
    shared: RefCell<HashMap<u64, Arc<dyn PhysicalExpr>>>,
}

/// A plan and the keys of its stage's hash exchange.
pub(crate) type Decoded = (Arc<dyn ExecutionPlan>, Vec<Arc<dyn PhysicalExpr>>);

/// Decodes a template and its hash keys.
pub(crate) fn decode(template: &Template, additions: Additions<'_>, context: &TaskContext) -> Result<Decoded> {
    let built = RefCell::new(vec![None; template.nodes.len()]);
    let decoder = Decoder { nodes: &template.nodes, additions, built, shared: RefCell::default() };
    let codec = Refusing::default();
    let context = PhysicalPlanDecodeContext::new(context, &codec);
    for (index, node) in template.nodes.iter().enumerate() {
        if !node.scoped {
            let plan = decoder.node(index, &context)?;
            if let Some(slot) = decoder.built.borrow_mut().get_mut(index) {
                *slot = Some(plan);
            }
        }
    }
    let Some(plan) = decoder.built.borrow_mut().last_mut().and_then(Option::take) else {
        return internal_err!("a template without nodes");
    };
    let schema = plan.schema();
    let keys = template.hash_keys.iter().map(|key| decoder.expr(key, &schema, &context)).collect::<Result<_>>()?;
    Ok((plan, keys))
}

impl Decoder<'_> {
    fn node(&self, index: usize, context: &PhysicalPlanDecodeContext<'_>) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(node) = self.nodes.get(index) else { return internal_err!("a template without node {index}") };
        let proto: PhysicalPlanNode = decode_message(&node.proto)?;
        let plan = self.proto_to_execution_plan(&proto, context)?;
        self.restore(plan, &node.lost, context)
    }

    /// The child of this index. Taken, because one plan instance runs once.
    fn child(&self, index: u32, context: &PhysicalPlanDecodeContext<'_>) -> Result<Arc<dyn ExecutionPlan>> {
        let index = index as usize;
        let built = self.built.borrow_mut().get_mut(index).and_then(Option::take);
        match built {
            Some(plan) => Ok(plan),
            None => self.node(index, context),
        }
    }

    fn our_node(
        &self,
        node: OurNode,
        children: &[PhysicalPlanNode],
        context: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match node {
            OurNode::Child(index) => self.child(index, context),
            OurNode::Input(input) => self.input(*input, context),
            OurNode::WorkTable { name, schema, projection } => work_table(name, &schema, projection),
            OurNode::FilterBuild { keys, keys_max } => {
                let [input] = children else { return internal_err!("a filter of {} inputs", children.len()) };
                let input = self.proto_to_execution_plan(input, context)?;
                let keys = self.exprs(&keys, &input.schema(), context)?;
                Ok(Arc::new(RuntimeFilterBuildExec::new(input, keys, keys_max)))
            }
            OurNode::Filter { keys, how } => {
                let [filter, input] = children else { return internal_err!("a filter with {} inputs", children.len()) };
                let filter = self.proto_to_execution_plan(filter, context)?;
                let input = self.proto_to_execution_plan(input, context)?;
                let keys = self.exprs(&keys, &input.schema(), context)?;
                Ok(Arc::new(RuntimeFilterExec::new(filter, input, keys, how)))
            }
            OurNode::Write { spec, first } => {
                let [input] = children else { return internal_err!("a write of {} inputs", children.len()) };
                let input = self.proto_to_execution_plan(input, context)?;
                Ok(Arc::new(WriteExec::new(input, Arc::new(*spec), first)))
            }
            OurNode::Python { function, arguments, output } => {
                let [input] = children else { return internal_err!("a Python function over {} inputs", children.len()) };
                let input = self.proto_to_execution_plan(input, context)?;
                let arguments = self.exprs(&arguments, &input.schema(), context)?;
                let function = Arc::new(PythonFunction::from_bytes(&function)?);
                Ok(Arc::new(PythonMapExec::try_new(input, function, arguments, output, None)?))
            }
            OurNode::Recursive { name, schema, is_distinct } => {
                let [base, step] = children else { return internal_err!("a recursive query of {} terms", children.len()) };
                let base = self.proto_to_execution_plan(base, context)?;
                let step = self.proto_to_execution_plan(step, context)?;
                let schema = schema_from_bytes(&schema)?;
                Ok(Arc::new(RecursiveQueryExec::try_new(name, schema, base, step, is_distinct)?))
            }
        }
    }

    /// Puts back what DataFusion's encoding lost.
    fn restore(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        lost: &Lost,
        context: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match lost {
            Lost::Nothing => Ok(plan),
            Lost::Scan(scan) => Scan::put_together(scan, &plan, &self.additions.files, self.additions.check_files),
            Lost::Series { projected_away, orderings } => {
                let schema = plan.schema();
                let orderings = orderings.iter().map(|ordering| self.ordering(ordering, &schema, context));
                let orderings = orderings.collect::<Result<Vec<_>>>()?;
                series::put_together(&plan, *projected_away, orderings.into_iter().flatten().collect())
            }
            Lost::NoPartitions if plan.is::<EmptyExec>() => Ok(Arc::new(EmptyExec::new(plan.schema()).with_partitions(0))),
            Lost::NoPartitions => Ok(Arc::new(PlaceholderRowExec::new(plan.schema()).with_partitions(0))),
            Lost::Limit(skip, fetch) => {
                let Some(limit) = plan.downcast_ref::<GlobalLimitExec>() else { return internal_err!("a limit that is none") };
                let mut exact = GlobalLimitExec::new(Arc::clone(limit.input()), size(*skip)?, fetch.map(size).transpose()?);
                exact.set_required_ordering(limit.required_ordering().clone());
                Ok(Arc::new(exact))
            }
            Lost::Fetch(fetch) => {
                let fetch = size(*fetch)?;
                if let Some(limit) = plan.downcast_ref::<LocalLimitExec>() {
                    let mut exact = LocalLimitExec::new(Arc::clone(limit.input()), fetch);
                    exact.set_required_ordering(limit.required_ordering().clone());
                    return Ok(Arc::new(exact));
                }
                plan.with_fetch(Some(fetch)).ok_or_else(|| internal_datafusion_err!("{} takes no limit", plan.name()))
            }
        }
    }

    fn input(&self, input: Input, context: &PhysicalPlanDecodeContext<'_>) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = schema_from_bytes(&input.schema)?;
        let exprs = |exprs: &[Bytes]| self.exprs(exprs, &schema, context);
        let mut equivalence = Equivalence { constraints: constraints_from_wire(input.constraints), ..Equivalence::default() };
        for ordering in &input.orderings {
            equivalence.orderings.extend(self.ordering(ordering, &schema, context)?);
        }
        for class in &input.classes {
            equivalence.classes.push(exprs(class)?);
        }
        for (expr, across) in &input.constants {
            let across = match across {
                Across::Heterogeneous => AcrossPartitions::Heterogeneous,
                Across::Uniform(value) => {
                    AcrossPartitions::Uniform(value.as_ref().map(|value| scalar_from_bytes(value)).transpose()?)
                }
            };
            equivalence.constants.push((self.expr(expr, &schema, context)?, across));
        }
        let read = match &input.keys {
            Some(keys) => LeafRead::Partitioned { keys: exprs(keys)? },
            None => LeafRead::Whole,
        };
        let mut leaf = StageInputExec::try_new(input.input, read, schema, input.total, equivalence)?;
        if let Some((rows, bytes)) = input.size {
            leaf = leaf.with_size(rows.into(), bytes.into());
        }
        let (start, end) = input.range;
        Ok(Arc::new(if (start, end) == (0, input.total) { leaf } else { leaf.narrowed(start..end)? }))
    }

    fn ordering(
        &self,
        keys: &[SortKey],
        schema: &Schema,
        context: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Option<LexOrdering>> {
        let keys = keys.iter().map(|key| {
            let options = SortOptions { descending: key.descending, nulls_first: key.nulls_first };
            Ok(PhysicalSortExpr::new(self.expr(&key.expr, schema, context)?, options))
        });
        Ok(LexOrdering::new(keys.collect::<Result<Vec<_>>>()?))
    }

    fn expr(&self, bytes: &[u8], schema: &Schema, context: &PhysicalPlanDecodeContext<'_>) -> Result<Arc<dyn PhysicalExpr>> {
        self.proto_to_physical_expr(&decode_message(bytes)?, schema, context)
    }

    fn exprs(
        &self,
        exprs: &[Bytes],
        schema: &Schema,
        context: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        exprs.iter().map(|expr| self.expr(expr, schema, context)).collect()
    }

    fn our_expr(&self, ours: OurExpr, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let (OurExpr::Scalar { field, .. } | OurExpr::Cast { field, .. }) = &ours;
        let schema = schema_from_bytes(field)?;
        let [field] = schema.fields().iter().as_slice() else { return internal_err!("an expression of several fields") };
        match (ours, children.pop()) {
            (OurExpr::Cast { safe, .. }, Some(child)) => {
                let options = CastOptions { safe, ..DEFAULT_CAST_OPTIONS };
                Ok(Arc::new(CastExpr::new_with_target_field(child, Arc::clone(field), Some(options))))
            }
            (OurExpr::Cast { .. }, None) => internal_err!("a cast of nothing"),
            (OurExpr::Scalar { input, .. }, _) => match self.additions.scalars.iter().find(|(index, _)| *index == input) {
                Some((_, value)) => Ok(Arc::new(Literal::new(value.cast_to(field.data_type())?))),
                None => Ok(Arc::new(ScalarInputExpr { input, field: Arc::clone(field) })),
            },
        }
    }
}

impl PhysicalProtoConverterExtension for Decoder<'_> {
    fn proto_to_execution_plan(
        &self,
        proto: &PhysicalPlanNode,
        context: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match &proto.physical_plan_type {
            Some(PhysicalPlanType::Extension(node)) => self.our_node(from_bytes(&node.node)?, &node.inputs, context),
            _ => proto.try_into_physical_plan_with_context(context, self),
        }
    }

    /// Expressions with an id are the same expression wherever the id occurs, seen through other children: as DataFusion's
    /// `DeduplicatingProtoConverter` does, but over all nodes of the template.
    fn proto_to_physical_expr(
        &self,
        proto: &PhysicalExprNode,
        schema: &Schema,
        context: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        if let Some(ExprType::Extension(node)) = &proto.expr_type {
            let children = node.inputs.iter().map(|child| self.proto_to_physical_expr(child, schema, context));
            return self.our_expr(from_bytes(&node.expr)?, children.collect::<Result<_>>()?);
        }
        let parsed = parse_physical_expr_with_converter(proto, schema, context, self)?;
        let Some(id) = proto.expr_id else { return Ok(parsed) };
        let known = self.shared.borrow().get(&id).cloned();
        match known {
            Some(known) => known.with_new_children(parsed.children().into_iter().cloned().collect()),
            None => {
                self.shared.borrow_mut().insert(id, Arc::clone(&parsed));
                Ok(parsed)
            }
        }
    }

    fn execution_plan_to_proto(&self, _: &Arc<dyn ExecutionPlan>, _: &dyn PhysicalExtensionCodec) -> Result<PhysicalPlanNode> {
        internal_err!("a decoder does not encode")
    }

    fn physical_expr_to_proto(&self, _: &Arc<dyn PhysicalExpr>, _: &dyn PhysicalExtensionCodec) -> Result<PhysicalExprNode> {
        internal_err!("a decoder does not encode")
    }
}

fn size(count: u64) -> Result<usize> {
    usize::try_from(count).map_err(|error| internal_datafusion_err!("a count of {count}: {error}"))
}

/// A work table takes the whole schema and projects it. Only the shown columns are known; the others, which it drops, may be anything.
fn work_table(name: String, schema: &[u8], projection: Option<Vec<u32>>) -> Result<Arc<dyn ExecutionPlan>> {
    let shown = schema_from_bytes(schema)?;
    let Some(projection) = projection else { return Ok(Arc::new(WorkTableExec::new(name, shown, None)?)) };
    let projection: Vec<usize> = projection.into_iter().map(|column| column as usize).collect();
    let width = projection.iter().max().map_or(0, |last| last + 1);
    let unknown = Arc::new(arrow::datatypes::Field::new("", arrow::datatypes::DataType::Null, true));
    let mut fields: Vec<_> = (0..width).map(|_| Arc::clone(&unknown)).collect();
    for (column, field) in projection.iter().zip(shown.fields()) {
        if let Some(slot) = fields.get_mut(*column) {
            *slot = Arc::clone(field);
        }
    }
    let whole = Schema::new_with_metadata(fields, shown.metadata().clone());
    Ok(Arc::new(WorkTableExec::new(name, Arc::new(whole), Some(projection))?))
}
