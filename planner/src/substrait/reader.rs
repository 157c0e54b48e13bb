//! What of a Substrait plan DataFusion's consumer reads, and what is read here or refused. Next: `names.rs`.
//!
//! Tables are found by their names, as a text's are. Files are not: a plan has no way around the names that are looked up, and so none
//! around what they may open. What moves rows between processes changes none of them and is left out, because stages are cut elsewhere.

use std::sync::Arc;

use arrow::datatypes::Field;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, DFSchema, TableReference, plan_datafusion_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::builder::project;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion_substrait::extensions::Extensions;
use datafusion_substrait::logical_plan::consumer::{
    DefaultSubstraitLambdaConsumer, SubstraitConsumer, from_read_rel, from_singular_or_list, from_substrait_named_struct,
    from_substrait_rel, from_substrait_rex, from_substrait_type,
};
use datafusion_substrait::substrait::proto::expression::{MaskExpression, SingularOrList};
use datafusion_substrait::substrait::proto::read_rel::ReadType;
use datafusion_substrait::substrait::proto::rel::RelType;
use datafusion_substrait::substrait::proto::{DynamicParameter, ExchangeRel, Expression, ReadRel, Rel, Type};
use parking_lot::Mutex;
use windrow_core::{Error, ErrorKind};

use super::names::shortened;
use super::size::{Size, within};
use crate::budget;
use crate::diagnose::ours;
use crate::parameters::PARAMETERS_MAX;

/// Reads one plan.
pub(super) struct Reader<'a> {
    extensions: &'a Extensions,
    state: &'a SessionState,
    size: Size,
    /// Of the queries around the subquery that is being read.
    outer: Mutex<Vec<Arc<DFSchema>>>,
    lambdas: DefaultSubstraitLambdaConsumer,
}

impl<'a> Reader<'a> {
    /// For a plan that declares `extensions`, with the tables and functions of `state`.
    pub(super) fn new(extensions: &'a Extensions, state: &'a SessionState) -> Self {
        Self { extensions, state, size: Size::default(), outer: Mutex::default(), lambdas: DefaultSubstraitLambdaConsumer::new() }
    }

    /// The columns of a named table that a plan reads, after its filter, in the plan's order.
    async fn table(&self, names: &[String], read: &ReadRel) -> Result<LogicalPlan> {
        let reference = reference(names)?;
        let declared = read.base_schema.as_ref().ok_or_else(|| malformed("a table is read without its columns"))?;
        let declared = from_substrait_named_struct(self, declared)?.replace_qualifier(reference.clone());
        let table = self.resolve_table_ref(&reference).await?;
        let table = table.ok_or_else(|| plan_datafusion_err!("table '{reference}' not found"))?;
        let scan = LogicalPlanBuilder::scan(reference.clone(), provider_as_source(table), None)?.build()?;
        check_columns(&scan, &declared, &reference)?;
        self.narrowed(scan, &declared, read).await
    }

    /// `rows`, which have the columns `declared`, after the filter and the mask of `read`.
    async fn narrowed(&self, rows: LogicalPlan, declared: &DFSchema, read: &ReadRel) -> Result<LogicalPlan> {
        let rows = match &read.filter {
            Some(filter) => {
                let filter = self.consume_expression(filter, declared).await?;
                LogicalPlanBuilder::from(rows).filter(filter)?.build()?
            }
            None => rows,
        };
        let kept = kept(read.projection.as_ref(), declared.fields().len())?;
        let is_all = kept.iter().copied().eq(0..declared.fields().len());
        let names = |schema: &DFSchema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        if is_all && names(rows.schema()) == names(declared) {
            return Ok(rows);
        }
        let columns: Vec<Expr> =
            kept.into_iter().map(|index| Expr::Column(Column::from(declared.qualified_field(index)))).collect();
        project(rows, columns)
    }
}

/// The places of the columns that a mask keeps of `count`.
fn kept(mask: Option<&MaskExpression>, count: usize) -> Result<Vec<usize>> {
    let Some(select) = mask.and_then(|mask| mask.select.as_ref()) else { return Ok((0..count).collect()) };
    let item = |index: i32| usize::try_from(index).ok().filter(|index| *index < count);
    let place = |index: i32| item(index).ok_or_else(|| malformed(&format!("column {index} of {count} is read")));
    select
        .struct_items
        .iter()
        .map(|item| match item.child {
            None => place(item.field),
            Some(_) => Err(ours(Error::unsupported("the plan reads parts of a nested column, which is not supported"))),
        })
        .collect()
}

fn malformed(what: &str) -> DataFusionError {
    ours(Error::new(ErrorKind::InvalidQuery, format!("the Substrait plan cannot be used: {what}")))
}

fn reference(names: &[String]) -> Result<TableReference> {
    names.iter().try_for_each(|name| within("bytes in one name", name.len(), budget::NAME_BYTES_MAX))?;
    match names {
        [table] => Ok(TableReference::bare(table.as_str())),
        [schema, table] => Ok(TableReference::partial(schema.as_str(), table.as_str())),
        [catalog, schema, table] => Ok(TableReference::full(catalog.as_str(), schema.as_str(), table.as_str())),
        _ => Err(malformed("the name of a table has one to three parts: catalog, schema, table")),
    }
}

/// Refuses a plan that was made for other columns: it would compute with them what it does not say.
fn check_columns(scan: &LogicalPlan, declared: &DFSchema, table: &TableReference) -> Result<()> {
    for field in declared.fields() {
        let name = field.name();
        let there = scan.schema().field_with_unqualified_name(name)?;
        let refuse = |what: String| {
            let error = Error::new(ErrorKind::InvalidQuery, format!("the plan was made for another '{table}': {what}"));
            ours(error.with_help("make it again for the table as it is"))
        };
        if !DFSchema::datatype_is_logically_equal(there.data_type(), field.data_type()) {
            return Err(refuse(format!("its column '{name}' is {}, not {}", there.data_type(), field.data_type())));
        }
        if there.is_nullable() && !field.is_nullable() {
            return Err(refuse(format!("its column '{name}' may be null")));
        }
    }
    Ok(())
}

/// Refuses relations that there is no query for, without their content, which may be large.
fn check_kind(relation: &Rel) -> Result<()> {
    let what = match &relation.rel_type {
        None => return Err(malformed("a relation is empty")),
        Some(
            RelType::Read(_)
            | RelType::Filter(_)
            | RelType::Fetch(_)
            | RelType::Aggregate(_)
            | RelType::Sort(_)
            | RelType::Join(_)
            | RelType::Project(_)
            | RelType::Set(_)
            | RelType::Cross(_)
            | RelType::Exchange(_),
        ) => return Ok(()),
        Some(RelType::Write(_) | RelType::Ddl(_) | RelType::Update(_)) => {
            let error = Error::unsupported("plans only query: this one writes, or changes tables");
            return Err(ours(error.with_help("send SQL for it: INSERT, CREATE TABLE ... AS, COPY")));
        }
        Some(RelType::ExtensionSingle(_) | RelType::ExtensionMulti(_) | RelType::ExtensionLeaf(_)) => "an extension",
        Some(RelType::Reference(_)) => "a reference to another tree",
        Some(RelType::Window(_)) => "a window relation",
        Some(RelType::Expand(_)) => "an expansion",
        Some(RelType::HashJoin(_) | RelType::MergeJoin(_) | RelType::NestedLoopJoin(_)) => "a physical join",
    };
    Err(ours(
        Error::unsupported(format!("the plan has {what}, which is not supported"))
            .with_help("make a plan of logical relations, or send SQL"),
    ))
}

#[async_trait]
impl SubstraitConsumer for Reader<'_> {
    async fn resolve_table_ref(&self, table: &TableReference) -> Result<Option<Arc<dyn TableProvider>>> {
        self.state.schema_for_ref(table.clone())?.table(table.table()).await
    }

    fn get_extensions(&self) -> &Extensions {
        self.extensions
    }

    fn get_function_registry(&self) -> &impl FunctionRegistry {
        self.state
    }

    async fn consume_rel(&self, relation: &Rel) -> Result<LogicalPlan> {
        check_kind(relation)?;
        let number = self.size.relation(relation)?;
        let plan = from_substrait_rel(self, relation).await?;
        self.size.columns(plan.schema().fields().len())?;
        shortened(plan, number)
    }

    async fn consume_read(&self, read: &ReadRel) -> Result<LogicalPlan> {
        match &read.read_type {
            Some(ReadType::NamedTable(table)) => self.table(&table.names, read).await,
            Some(ReadType::VirtualTable(rows)) => {
                #[expect(deprecated, reason = "older plans have their rows there")]
                let old: usize = rows.values.iter().map(|row| 1 + row.fields.len()).sum();
                self.size.expressions(old + rows.expressions.iter().map(|row| 1 + row.fields.len()).sum::<usize>())?;
                let rows = from_read_rel(self, read).await?;
                let declared = DFSchema::clone(rows.schema());
                self.narrowed(rows, &declared, read).await
            }
            Some(_) => {
                let error =
                    Error::unsupported("the plan reads files or a source of its own, and plans read tables by their names");
                Err(ours(
                    error.with_help("name a file as a table is named, where files may be read, or create an external table"),
                ))
            }
            None => Err(malformed("a read says not what")),
        }
    }

    async fn consume_exchange(&self, exchange: &ExchangeRel) -> Result<LogicalPlan> {
        let input = exchange.input.as_ref().ok_or_else(|| malformed("an exchange without an input"))?;
        self.consume_rel(input).await
    }

    async fn consume_expression(&self, expression: &Expression, input: &DFSchema) -> Result<Expr> {
        self.size.expressions(1)?;
        from_substrait_rex(self, expression, input).await
    }

    async fn consume_singular_or_list(&self, list: &SingularOrList, input: &DFSchema) -> Result<Expr> {
        within("values in one list", list.options.len(), budget::LIST_MAX)?;
        from_singular_or_list(self, list, input).await
    }

    async fn consume_dynamic_parameter(&self, parameter: &DynamicParameter, _input: &DFSchema) -> Result<Expr> {
        within("parameters", (parameter.parameter_reference as usize).saturating_add(1), PARAMETERS_MAX)?;
        let id = format!("${}", parameter.parameter_reference + 1);
        let wants = parameter.r#type.as_ref().map(|wants| from_substrait_type(self, wants, &[], &mut 0)).transpose()?;
        let field = wants.map(|wants| Arc::new(Field::new(&id, wants, true)));
        Ok(Expr::Placeholder(Placeholder::new_with_field(id, field)))
    }

    fn push_outer_schema(&self, schema: Arc<DFSchema>) {
        self.outer.lock().push(schema);
    }

    fn pop_outer_schema(&self) {
        self.outer.lock().pop();
    }

    fn get_outer_schema(&self, steps_out: usize) -> Option<Arc<DFSchema>> {
        let outer = self.outer.lock();
        outer.len().checked_sub(steps_out).and_then(|index| outer.get(index)).map(Arc::clone)
    }

    fn push_lambda_parameters(&self, parameters: &[Type], input: &DFSchema) -> Result<Vec<String>> {
        self.lambdas.push_lambda_parameters(self, parameters, input)
    }

    fn pop_lambda_parameters(&self) {
        self.lambdas.pop_lambda_parameters();
    }

    fn lambda_variable(&self, steps_out: usize, field: usize) -> Result<Expr> {
        self.lambdas.lambda_variable(steps_out, field)
    }
}
