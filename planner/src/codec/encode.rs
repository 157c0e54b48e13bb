//! Encoding: walks a plan bottom-up and writes each node beside its children instead of around them. Next: `decode.rs`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use datafusion::common::format::DEFAULT_CAST_OPTIONS;
use datafusion::common::{DataFusionError, not_impl_err};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::CastExpr;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::{AcrossPartitions, LexOrdering, PhysicalExpr};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::work_table::WorkTableExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion_proto::physical_plan::to_proto::serialize_physical_expr_with_converter;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalPlanNodeExt, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::physical_expr_node::ExprType;
use datafusion_proto::protobuf::physical_plan_node::PhysicalPlanType;
use datafusion_proto::protobuf::{self, PhysicalExprNode, PhysicalPlanNode};
use prost::Message;

use crate::codec::scalar_input::ScalarInputExpr;
use crate::codec::series;
use crate::codec::wire::{
    Across, Input, Lost, Node, OurExpr, OurNode, SortKey, constraints_to_wire, scalar_to_bytes, schema_to_bytes, to_bytes,
};
use crate::narrow::{Placement, leaves};
use crate::python::PythonMapExec;
use crate::runtime_filter::apply::RuntimeFilterExec;
use crate::runtime_filter::build::RuntimeFilterBuildExec;
use crate::scan::{Scan, ScanFiles};
use crate::stage_input::{LeafRead, StageInputExec};
use crate::write::WriteExec;

/// Which input of the stage holds the value of a scalar subquery.
pub(crate) type ScalarInputs<'a> = &'a dyn Fn(&ScalarSubqueryExpr) -> Option<u32>;

/// Encodes one plan.
pub(crate) struct Encoder<'a> {
    scalar_inputs: ScalarInputs<'a>,
    codec: Refusing,
    places: Vec<Placement>,
    leaf: Cell<usize>,
    nodes: RefCell<Vec<Node>>,
    scans: RefCell<Vec<ScanFiles>>,
    /// Nodes that wait for their parent, by address; several where one plan is a child twice.
    waiting: RefCell<HashMap<*const (), Vec<u32>>>,
}

/// What surrounds a node.
#[derive(Clone, Default)]
struct Scope {
    subquery: bool,
    /// The schema of each recursive query around it, by name.
    recursive: Vec<(String, SchemaRef)>,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(plan: &Arc<dyn ExecutionPlan>, scalar_inputs: ScalarInputs<'a>) -> Self {
        Self {
            scalar_inputs,
            codec: Refusing::default(),
            places: leaves(plan).into_iter().map(|leaf| leaf.placement).collect(),
            leaf: Cell::new(0),
            nodes: RefCell::default(),
            scans: RefCell::default(),
            waiting: RefCell::default(),
        }
    }

    /// Encodes the plan whose leaves this encoder knows. Children first, so that encoding a node never goes deeper than the node.
    pub(crate) fn plan(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
        self.subtree(plan, &Scope::default())
    }

    /// The encoded nodes, and the scans whose files belong to the stage's partitions.
    pub(crate) fn finish(self) -> (Vec<Node>, Vec<ScanFiles>) {
        (self.nodes.into_inner(), self.scans.into_inner())
    }

    /// What could not be encoded, in our words, if the last error was that.
    pub(crate) fn refused(&self) -> Option<String> {
        self.codec.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn expr(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Bytes> {
        Ok(self.physical_expr_to_proto(expr, &self.codec)?.encode_to_vec().into())
    }

    fn exprs(&self, exprs: &[Arc<dyn PhysicalExpr>]) -> Result<Vec<Bytes>> {
        exprs.iter().map(|expr| self.expr(expr)).collect()
    }

    fn subtree(&self, plan: &Arc<dyn ExecutionPlan>, scope: &Scope) -> Result<()> {
        let mut inner = scope.clone();
        inner.subquery |= plan.is::<ScalarSubqueryExec>();
        if let Some(query) = plan.downcast_ref::<RecursiveQueryExec>() {
            inner.recursive.push((query.name().to_string(), plan.schema()));
        }
        for child in plan.children() {
            self.subtree(child, &inner)?;
        }
        self.node(plan, scope)
    }

    fn node(&self, plan: &Arc<dyn ExecutionPlan>, scope: &Scope) -> Result<()> {
        let place = match plan.children().is_empty() {
            true => self.places.get(self.leaf.replace(self.leaf.get() + 1)).copied(),
            false => None,
        };
        let (proto, lost) = match self.our_node(plan, scope)? {
            Some(node) => (self.extension(&node, &plan.children())?, Lost::Nothing),
            None => self.their_node(plan, place.unwrap_or(Placement::Whole))?,
        };
        let mut nodes = self.nodes.borrow_mut();
        let index = u32::try_from(nodes.len()).map_err(|error| DataFusionError::External(Box::new(error)))?;
        nodes.push(Node { proto: proto.encode_to_vec().into(), lost, scoped: scope.subquery });
        self.waiting.borrow_mut().entry(Arc::as_ptr(plan).cast()).or_default().push(index);
        Ok(())
    }

    fn extension(&self, node: &OurNode, children: &[&Arc<dyn ExecutionPlan>]) -> Result<PhysicalPlanNode> {
        let inputs = children.iter().map(|child| self.execution_plan_to_proto(child, &self.codec)).collect::<Result<_>>()?;
        let extension = protobuf::PhysicalExtensionNode { node: to_bytes(node)?, inputs };
        Ok(PhysicalPlanNode { physical_plan_type: Some(PhysicalPlanType::Extension(extension)) })
    }

    fn our_node(&self, plan: &Arc<dyn ExecutionPlan>, scope: &Scope) -> Result<Option<OurNode>> {
        if let Some(input) = plan.downcast_ref::<StageInputExec>() {
            return Ok(Some(OurNode::Input(Box::new(self.input(input)?))));
        }
        if let Some(query) = plan.downcast_ref::<RecursiveQueryExec>() {
            let (name, is_distinct) = (query.name().to_string(), query.is_distinct());
            return Ok(Some(OurNode::Recursive { name, schema: schema_to_bytes(&plan.schema())?, is_distinct }));
        }
        if let Some(build) = plan.downcast_ref::<RuntimeFilterBuildExec>() {
            return Ok(Some(OurNode::FilterBuild { keys: self.exprs(build.keys())?, keys_max: build.keys_max() }));
        }
        if let Some(filter) = plan.downcast_ref::<RuntimeFilterExec>() {
            return Ok(Some(OurNode::Filter { keys: self.exprs(filter.keys())?, how: filter.how() }));
        }
        if let Some(write) = plan.downcast_ref::<WriteExec>() {
            return Ok(Some(OurNode::Write { spec: Box::new(write.spec().as_ref().clone()), first: write.first() }));
        }
        if let Some(map) = plan.downcast_ref::<PythonMapExec>() {
            let function = map.function().to_bytes()?.into();
            let (arguments, output) = (self.exprs(map.arguments())?, map.output().to_owned());
            return Ok(Some(OurNode::Python { function, arguments, output }));
        }
        if let Some(table) = plan.downcast_ref::<WorkTableExec>() {
            return Ok(Some(self.codec.named(work_table(table, scope))?));
        }
        Ok(None)
    }

    fn their_node(&self, plan: &Arc<dyn ExecutionPlan>, place: Placement) -> Result<(PhysicalPlanNode, Lost)> {
        let source = plan.downcast_ref::<DataSourceExec>();
        if let Some(config) = source.and_then(|source| source.data_source().downcast_ref::<FileScanConfig>()) {
            let number = u32::try_from(self.leaf.get()).unwrap_or(u32::MAX);
            let (scan, files, bare) = self.codec.named(Scan::take_apart(config, number, place))?;
            self.scans.borrow_mut().extend(files);
            let bare: Arc<dyn ExecutionPlan> = Arc::new(DataSourceExec::new(Arc::new(bare)));
            return Ok((self.encode_with_datafusion(&bare)?, Lost::Scan(Box::new(scan))));
        }
        if let Some(series) = plan.downcast_ref::<LazyMemoryExec>() {
            let (bare, orderings) = series::take_apart(series)?;
            let orderings = orderings.iter().map(|ordering| self.ordering(ordering)).collect::<Result<_>>()?;
            let lost = Lost::Series { projected_away: bare.is_some(), orderings };
            return Ok((self.encode_with_datafusion(bare.as_ref().unwrap_or(plan))?, lost));
        }
        Ok((self.encode_with_datafusion(plan)?, lost(plan)))
    }

    fn ordering(&self, ordering: &LexOrdering) -> Result<Vec<SortKey>> {
        let keys = ordering.iter().map(|key| {
            let (descending, nulls_first) = (key.options.descending, key.options.nulls_first);
            Ok(SortKey { expr: self.expr(&key.expr)?, descending, nulls_first })
        });
        keys.collect()
    }

    fn encode_with_datafusion(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<PhysicalPlanNode> {
        PhysicalPlanNode::try_from_physical_plan_with_converter(Arc::clone(plan), &self.codec, self)
    }

    fn input(&self, input: &StageInputExec) -> Result<Input> {
        let parts = input.equivalence();
        let orderings = parts.orderings.iter().map(|ordering| self.ordering(ordering));
        let constants = parts.constants.iter().map(|(expr, across)| {
            let across = match across {
                AcrossPartitions::Heterogeneous => Across::Heterogeneous,
                AcrossPartitions::Uniform(value) => Across::Uniform(value.as_ref().map(scalar_to_bytes).transpose()?),
            };
            Ok((self.expr(expr)?, across))
        });
        let keys = match input.read() {
            LeafRead::Partitioned { keys } => Some(self.exprs(keys)?),
            LeafRead::Whole => None,
        };
        let size = input.statistics().map(|known| (known.num_rows.into(), known.total_byte_size.into()));
        Ok(Input {
            input: input.input(),
            schema: schema_to_bytes(&input.schema())?,
            total: input.total(),
            range: (input.range().start, input.range().end),
            keys,
            orderings: orderings.collect::<Result<_>>()?,
            classes: parts.classes.iter().map(|class| self.exprs(class)).collect::<Result<_>>()?,
            constants: constants.collect::<Result<_>>()?,
            constraints: constraints_to_wire(&parts.constraints),
            size,
        })
    }

    /// Our encoding of the expressions that DataFusion's own would lose or change.
    fn our_expr(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Option<PhysicalExprNode>> {
        if let Some(cast) = expr.downcast_ref::<CastExpr>().filter(|cast| cast.has_explicit_nullability()) {
            if cast.cast_options().format_options != DEFAULT_CAST_OPTIONS.format_options {
                return self.codec.refuse(format!("the format of {expr}"));
            }
            let field = schema_to_bytes(&Schema::new(vec![Arc::clone(cast.target_field())]))?;
            return Ok(Some(self.extension_expr(&OurExpr::Cast { field, safe: cast.cast_options().safe }, expr)?));
        }
        let input = match expr.downcast_ref::<ScalarInputExpr>() {
            Some(scalar) => Some(scalar.input),
            None => expr.downcast_ref::<ScalarSubqueryExpr>().and_then(|subquery| (self.scalar_inputs)(subquery)),
        };
        let Some(input) = input else { return Ok(None) };
        let field = schema_to_bytes(&Schema::new(vec![expr.return_field(&Schema::empty())?]))?;
        Ok(Some(self.extension_expr(&OurExpr::Scalar { input, field }, expr)?))
    }

    fn extension_expr(&self, ours: &OurExpr, expr: &Arc<dyn PhysicalExpr>) -> Result<PhysicalExprNode> {
        let children = expr.children().into_iter();
        let inputs = children.map(|child| self.physical_expr_to_proto(child, &self.codec)).collect::<Result<_>>()?;
        let extension = protobuf::PhysicalExtensionExprNode { expr: to_bytes(ours)?, inputs };
        Ok(PhysicalExprNode { expr_id: None, expr_type: Some(ExprType::Extension(extension)) })
    }
}

impl PhysicalProtoConverterExtension for Encoder<'_> {
    fn execution_plan_to_proto(&self, plan: &Arc<dyn ExecutionPlan>, _: &dyn PhysicalExtensionCodec) -> Result<PhysicalPlanNode> {
        let take = || self.waiting.borrow_mut().get_mut(&Arc::as_ptr(plan).cast()).and_then(Vec::pop);
        let index = match take() {
            Some(index) => Some(index),
            None => {
                // A plan that its parent does not count among its children.
                self.subtree(plan, &Scope { subquery: true, ..Scope::default() })?;
                take()
            }
        };
        let Some(index) = index else { return not_impl_err!("a plan that moves while it is encoded") };
        self.extension(&OurNode::Child(index), &[])
    }

    /// Every expression comes through here, children of expressions too. `serialize_physical_expr_with_converter` stamps the ids by
    /// which shared dynamic filters are found again.
    fn physical_expr_to_proto(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
        codec: &dyn PhysicalExtensionCodec,
    ) -> Result<PhysicalExprNode> {
        match self.our_expr(expr)? {
            Some(node) => Ok(node),
            None => serialize_physical_expr_with_converter(expr, codec, self),
        }
    }

    fn proto_to_execution_plan(&self, _: &PhysicalPlanNode, _: &PhysicalPlanDecodeContext<'_>) -> Result<Arc<dyn ExecutionPlan>> {
        not_impl_err!("an encoder does not decode")
    }

    fn proto_to_physical_expr(
        &self,
        _: &PhysicalExprNode,
        _: &Schema,
        _: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        not_impl_err!("an encoder does not decode")
    }
}

/// The columns of a recursive query that its work table shows, found by name: the node does not tell.
fn work_table(table: &WorkTableExec, scope: &Scope) -> Result<OurNode> {
    let name = table.name();
    let Some((_, whole)) = scope.recursive.iter().rev().find(|(query, _)| query == name) else {
        return not_impl_err!("the work table {name} outside of its recursive query");
    };
    let shown = WorkTableExec::schema(table);
    let projection = if shown.fields().len() == whole.fields().len() {
        None
    } else {
        let columns = shown.fields().iter().map(|field| {
            let named: Vec<_> = whole.fields().iter().enumerate().filter(|(_, other)| other.name() == field.name()).collect();
            match named.as_slice() {
                [(index, _)] => u32::try_from(*index).map_err(|error| DataFusionError::External(Box::new(error))),
                _ => not_impl_err!("two columns {} in the recursive query {name}", field.name()),
            }
        });
        Some(columns.collect::<Result<Vec<_>>>()?)
    };
    Ok(OurNode::WorkTable { name: name.to_string(), schema: schema_to_bytes(&shown)?, projection })
}

/// Counts that DataFusion writes in 32 bits, and a zero that it reads as one.
fn lost(plan: &Arc<dyn ExecutionPlan>) -> Lost {
    let wide = |count: usize| u32::try_from(count).is_err();
    if let Some(limit) = plan.downcast_ref::<GlobalLimitExec>() {
        let fetch = GlobalLimitExec::fetch(limit);
        if wide(limit.skip()) || fetch.is_some_and(wide) {
            return Lost::Limit(limit.skip() as u64, fetch.map(|fetch| fetch as u64));
        }
    }
    let fetch = match plan.downcast_ref::<LocalLimitExec>() {
        Some(limit) => Some(LocalLimitExec::fetch(limit)),
        None => plan.fetch(),
    };
    if let Some(fetch) = fetch.filter(|fetch| wide(*fetch)) {
        return Lost::Fetch(fetch as u64);
    }
    if (plan.is::<EmptyExec>() || plan.is::<PlaceholderRowExec>()) && plan.output_partitioning().partition_count() == 0 {
        return Lost::NoPartitions;
    }
    Lost::Nothing
}

/// The codec of last resort: what reaches it has no encoding. It remembers what that was, in the user's words.
#[derive(Debug, Default)]
pub(crate) struct Refusing(Mutex<Option<String>>);

impl Refusing {
    /// Remembers what a `NotImplemented` of ours names.
    fn named<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(DataFusionError::NotImplemented(what)) => self.refuse(what),
            other => other,
        }
    }

    fn refuse<T>(&self, what: String) -> Result<T> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.clone());
        not_impl_err!("{what}")
    }
}

impl PhysicalExtensionCodec for Refusing {
    fn try_decode(
        &self,
        _: &[u8],
        _: &[Arc<dyn ExecutionPlan>],
        _: &TaskContext,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.refuse("an operator of another build".to_string())
    }

    fn try_encode(&self, node: Arc<dyn ExecutionPlan>, _: &mut Vec<u8>, _: &dyn PhysicalProtoConverterExtension) -> Result<()> {
        self.refuse(format!("the operator {}", node.name()))
    }

    fn try_encode_expr(
        &self,
        node: &Arc<dyn PhysicalExpr>,
        _: &mut Vec<u8>,
        _: &datafusion::physical_expr_common::physical_expr::proto_encode::PhysicalExprEncodeCtx<'_>,
    ) -> Result<()> {
        self.refuse(format!("the expression {node}"))
    }
}
