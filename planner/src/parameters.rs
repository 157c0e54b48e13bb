//! Parameters of a statement: `?` is numbered while the text is tokens, types are inferred from the plan, and a row of values takes
//! the places. Next: `describe.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use windrow_core::error::Span;
use windrow_core::{Error, ErrorKind};

use crate::diagnose::ours;

/// Rows of values that one query is bound to. Each is a plan of its own in the query's union.
const ROWS_MAX: usize = 256;

/// Parameters of one statement. A number above it would ask for as many values, and for room for each.
pub(crate) const PARAMETERS_MAX: usize = 10_000;

/// What takes the places of a statement's parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    /// Nothing yet: the statement is only looked at.
    Open,
    /// One row of values for each time the statement is run; without any, a statement with parameters is refused.
    Rows(Option<&'a RecordBatch>),
}

/// Numbers the question marks among `tokens`: the first becomes `$1`. Positions stay those of the text.
///
/// # Errors
/// `InvalidQuery` if the text has numbered or named parameters too, or a number beyond [`PARAMETERS_MAX`].
pub(crate) fn number(tokens: &mut [TokenWithSpan]) -> Result<(), Error> {
    let (mut count, mut other) = (0_usize, None);
    for token in tokens {
        let Token::Placeholder(id) = &mut token.token else { continue };
        if id == "?" {
            count += 1;
            *id = format!("${count}");
        } else {
            if let Some(digits) = id.strip_prefix('?') {
                *id = format!("${digits}");
            }
            other.get_or_insert(token.span);
        }
        if number_of(id).is_some_and(|number| number > PARAMETERS_MAX) {
            let message = format!("the parameter {id} is too many, at most {PARAMETERS_MAX} are allowed");
            return Err(Error::new(ErrorKind::InvalidQuery, message)
                .with_help("number parameters from $1 on, or put the values into a file and join it")
                .with_span(Some(span(token.span))));
        }
    }
    match other {
        Some(at) if count > 0 => {
            Err(Error::new(ErrorKind::InvalidQuery, "a statement has either '?' or numbered and named parameters, not both")
                .with_help("write $1, $2, ... for all of them")
                .with_span(Some(span(at))))
        }
        _ => Ok(()),
    }
}

/// A place in the text as errors carry it.
pub(crate) fn span(span: datafusion::sql::sqlparser::tokenizer::Span) -> Span {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Span {
        start_line: narrow(span.start.line),
        start_column: narrow(span.start.column),
        end_line: narrow(span.end.line),
        end_column: narrow(span.end.column),
    }
}

/// The names of a text's named parameters in the order in which they come, with their `$`.
fn names_in(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    // A text that does not tokenize never gets here: it was parsed.
    for token in Tokenizer::new(&GenericDialect {}, text).tokenize().unwrap_or_default() {
        if let Token::Placeholder(id) = token
            && number_of(&id).is_none()
            && id.starts_with('$')
            && !names.contains(&id)
        {
            names.push(id);
        }
    }
    names
}

fn number_of(id: &str) -> Option<usize> {
    id.strip_prefix(['$', '?']).and_then(|digits| digits.parse().ok())
}

/// The parameters of a plan by their text (`$1`, `$name`), with the type that the plan wants; `None` where it wants none in
/// particular.
pub(crate) fn wanted(plan: &LogicalPlan) -> Result<BTreeMap<String, Option<DataType>>, DataFusionError> {
    let mut found: BTreeMap<String, Option<DataType>> = BTreeMap::new();
    // PREPARE takes its values from EXECUTE.
    if matches!(plan, LogicalPlan::Statement(Statement::Prepare(_))) {
        return Ok(found);
    }
    plan.apply_with_subqueries(|node| {
        for (id, wants) in of_node(node)? {
            found.entry(id).and_modify(|known| *known = known.take().or(wants.clone())).or_insert(wants);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The parameters in the expressions of one operator.
pub(crate) fn of_node(node: &LogicalPlan) -> Result<Vec<(String, Option<DataType>)>, DataFusionError> {
    let mut found = Vec::new();
    let counts_rows = matches!(node, LogicalPlan::Limit(_));
    node.apply_expressions(|expr| {
        let is_count = counts_rows && matches!(expr, Expr::Placeholder(_));
        expr.apply(|expr| {
            if let Expr::Placeholder(Placeholder { id, field }) = expr {
                let wants = field.as_ref().map(|field| field.data_type().clone()).filter(|wants| !wants.is_null());
                found.push((id.clone(), if is_count { Some(DataType::Int64) } else { wants }));
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// The values of each parameter, as many as there are rows of them, as the type that the plan wants.
pub(crate) fn columns(
    wanted: &BTreeMap<String, Option<DataType>>,
    rows: &RecordBatch,
) -> Result<BTreeMap<String, ArrayRef>, DataFusionError> {
    check_count(wanted, rows)?;
    let column = |(id, wants): (&String, &Option<DataType>)| Ok((id.clone(), fitted(id, column_of(id, rows)?, wants.as_ref())?));
    wanted.iter().map(column).collect()
}

fn fitted(id: &str, values: &ArrayRef, wants: Option<&DataType>) -> Result<ArrayRef, DataFusionError> {
    fit(values, wants).map_err(|source| {
        let wants = wants.map(ToString::to_string).unwrap_or_default();
        let help = format!("bind a value of the type {wants}, or write CAST around the parameter");
        refuse(format!("the value of the parameter {id} is no {wants}: {source}"), help)
    })
}

/// The parameters of `plan`, the plan of `text`, as a schema: by number, or in the order of the text if they have names. `Null` is
/// the type of those that take anything.
pub(crate) fn schema(text: &str, plan: &LogicalPlan) -> Result<SchemaRef, DataFusionError> {
    let wanted = wanted(plan)?;
    let highest = wanted.keys().filter_map(|id| number_of(id)).max().unwrap_or(0);
    let numbered = (1..=highest).map(|number| format!("${number}"));
    let named = names_in(text).into_iter().filter(|name| wanted.contains_key(name));
    let field = |id: String| {
        let wants = wanted.get(&id).cloned().flatten().unwrap_or(DataType::Null);
        Field::new(id, wants, true)
    };
    Ok(Arc::new(Schema::new(numbered.chain(named).map(field).collect::<Vec<_>>())))
}

/// The plan with `values` in the places of its parameters. Several rows make one query after the other, as one plan.
pub(crate) fn bind(plan: LogicalPlan, values: Values<'_>) -> Result<LogicalPlan, DataFusionError> {
    let Values::Rows(rows) = values else { return Ok(plan) };
    let wanted = wanted(&plan)?;
    let Some(rows) = rows.filter(|rows| rows.num_columns() > 0) else {
        return match wanted.keys().next() {
            None => Ok(plan),
            Some(first) => Err(refuse(
                format!("the parameter {first} has no value"),
                "prepare the statement and bind a value to each of its parameters",
            )),
        };
    };
    check_count(&wanted, rows)?;
    match rows.num_rows() {
        1 => bind_row(plan, &wanted, rows, 0),
        0 => Err(refuse("no row of values was bound", "bind one row with a value for each parameter")),
        count if count > ROWS_MAX => Err(refuse(
            format!("{count} rows of values were bound to a query, at most {ROWS_MAX} are possible"),
            "write the rows into a table and join it",
        )),
        count => bind_rows(&plan, &wanted, rows, count),
    }
}

fn check_count(wanted: &BTreeMap<String, Option<DataType>>, rows: &RecordBatch) -> Result<(), DataFusionError> {
    let is_named = wanted.keys().any(|id| number_of(id).is_none());
    let highest = wanted.keys().filter_map(|id| number_of(id)).max().unwrap_or(0);
    let bound = rows.num_columns();
    if is_named || highest == bound {
        return Ok(());
    }
    Err(refuse(format!("the statement has {highest} parameters, and {bound} values were bound"), "bind one value to each"))
}

/// One plan of many rows: a union, which keeps the order of its inputs but not the order of rows inside of them.
fn bind_rows(
    plan: &LogicalPlan,
    wanted: &BTreeMap<String, Option<DataType>>,
    rows: &RecordBatch,
    count: usize,
) -> Result<LogicalPlan, DataFusionError> {
    let is_ordered = plan.exists(|node| Ok(matches!(node, LogicalPlan::Sort(_))))?;
    if is_ordered || !is_query(plan) {
        let what = if is_ordered { "a query with ORDER BY" } else { "this statement" };
        return Err(ours(Error::unsupported(format!("several rows of values for {what}")).with_help("run it once for each row")));
    }
    let mut all: Option<LogicalPlanBuilder> = None;
    for row in 0..count {
        let one = bind_row(plan.clone(), wanted, rows, row)?;
        all = Some(match all {
            None => LogicalPlanBuilder::from(one),
            Some(before) => before.union(one)?,
        });
    }
    all.ok_or_else(|| refuse("no row of values was bound", "bind one row with a value for each parameter"))?.build()
}

fn is_query(plan: &LogicalPlan) -> bool {
    !matches!(
        plan,
        LogicalPlan::Ddl(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
    )
}

fn bind_row(
    plan: LogicalPlan,
    wanted: &BTreeMap<String, Option<DataType>>,
    rows: &RecordBatch,
    row: usize,
) -> Result<LogicalPlan, DataFusionError> {
    let mut values = Vec::new();
    for (id, wants) in wanted {
        let fitted = fitted(id, &column_of(id, rows)?.slice(row, 1), wants.as_ref())?;
        values.push((id.trim_start_matches('$').to_owned(), ScalarValue::try_from_array(&fitted, 0)?));
    }
    plan.replace_params_with_values(&values.into())
}

/// The values of the parameter `id`: by position if it is a number, else by the column's name.
fn column_of<'a>(id: &str, rows: &'a RecordBatch) -> Result<&'a ArrayRef, DataFusionError> {
    let missing = || {
        let name = id.trim_start_matches('$');
        refuse(format!("the parameter {id} has no value"), format!("name the column of its values '{name}'"))
    };
    match number_of(id) {
        Some(number) => number.checked_sub(1).and_then(|index| rows.columns().get(index)).ok_or_else(missing),
        None => rows.column_by_name(id.trim_start_matches('$')).or_else(|| rows.column_by_name(id)).ok_or_else(missing),
    }
}

/// `value` as the type that the plan wants, if nothing of it is lost; a value that does not fit keeps its own type, and the
/// comparison or the column it is for decides. Text that does not parse is an error.
fn fit(value: &ArrayRef, wants: Option<&DataType>) -> Result<ArrayRef, arrow::error::ArrowError> {
    let Some(wants) = wants.filter(|wants| *wants != value.data_type()) else { return Ok(Arc::clone(value)) };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let is_text = matches!(value.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let fitted = match cast_with_options(value, wants, &strict) {
        Ok(fitted) => fitted,
        Err(error) if is_text => return Err(error),
        Err(_out_of_range) => return Ok(Arc::clone(value)),
    };
    if is_text {
        return Ok(fitted);
    }
    let back = cast_with_options(&fitted, value.data_type(), &CastOptions::default());
    Ok(if back.is_ok_and(|back| back.to_data() == value.to_data()) { fitted } else { Arc::clone(value) })
}

/// `schema` for a statement with parameters: whether a column can be null would change with the values, and drivers compare.
pub(crate) fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<FieldRef> =
        schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn refuse(message: impl Into<String>, help: impl Into<String>) -> DataFusionError {
    ours(Error::new(ErrorKind::InvalidQuery, message).with_help(help))
}

#[cfg(test)]
mod tests;
