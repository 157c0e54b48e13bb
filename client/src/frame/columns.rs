//! Which columns a frame has. Next: `rows.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::functions::expr_fn::coalesce;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, SortExpr, cast, lit};
use windrow_core::Result;

use super::expressions::{check_unique, has_aggregate, name_of, outside_of_aggregates};
use super::{DataFrame, col, fail, invalid};

impl DataFrame {
    /// Rows of these columns, each computed of this frame's. Where all of them are aggregates, there is one row; beside columns that
    /// are not, an aggregate is over all rows and the same in each.
    ///
    /// # Errors
    /// `NotFound` for a column that is none, with the nearest; `InvalidQuery` for two of one name and for types that do not fit.
    pub fn select(&self, columns: Vec<Expr>) -> Result<Self> {
        let one_row = columns.iter().any(has_aggregate) && columns.iter().all(|column| outside_of_aggregates(column).is_none());
        if one_row {
            return self.aggregate(Vec::new(), columns);
        }
        self.then(self.projected(columns)?, 2)
    }

    /// These columns beside the others; one that has the name of another takes its place. All are computed of this frame's.
    ///
    /// # Errors
    /// As [`Self::select`].
    pub fn with_columns(&self, columns: Vec<Expr>) -> Result<Self> {
        check_unique(&columns)?;
        let mut given: BTreeMap<String, Expr> = columns.iter().map(|column| (name_of(column), column.clone())).collect();
        let mut all: Vec<Expr> =
            self.columns().into_iter().map(|name| given.remove(&name).unwrap_or_else(|| col(name))).collect();
        all.extend(columns.iter().filter_map(|column| given.remove(&name_of(column))));
        self.then(self.projected(all)?, 2)
    }

    /// Without these columns.
    ///
    /// # Errors
    /// `NotFound` for a column that is none, with the nearest.
    pub fn drop_columns<S: AsRef<str>>(&self, columns: &[S]) -> Result<Self> {
        columns.iter().try_for_each(|column| self.check_column(column.as_ref()))?;
        let kept = self.columns().into_iter().filter(|name| !columns.iter().any(|column| column.as_ref() == name));
        self.then(self.projected(kept.map(col).collect())?, 1)
    }

    /// With other names for some columns, as pairs of the old and the new one.
    ///
    /// # Errors
    /// `NotFound` for a column that is none, with the nearest; `InvalidQuery` if two would have one name.
    pub fn rename<S: AsRef<str>>(&self, names: &[(S, S)]) -> Result<Self> {
        names.iter().try_for_each(|(old, _)| self.check_column(old.as_ref()))?;
        let renamed = |name: String| match names.iter().find(|(old, _)| old.as_ref() == name) {
            Some((_, new)) => col(name).alias(new.as_ref()),
            None => col(name),
        };
        self.then(self.projected(self.columns().into_iter().map(renamed).collect())?, 1)
    }

    /// With other types for some columns. A value that the type cannot hold is an error when the rows are computed;
    /// [`try_cast`](super::try_cast) makes it null.
    ///
    /// # Errors
    /// `NotFound` for a column that is none, with the nearest; `InvalidQuery` for types between which nothing is cast.
    pub fn cast<S: AsRef<str>>(&self, types: &[(S, DataType)]) -> Result<Self> {
        types.iter().try_for_each(|(name, _)| self.check_column(name.as_ref()))?;
        let columns = types.iter().map(|(name, data_type)| cast(col(name.as_ref()), data_type.clone()).alias(name.as_ref()));
        self.with_columns(columns.collect())
    }

    /// With `value` where these columns are null; without columns, where any is whose type `value` is a value of: a number for those of
    /// numbers, a text for those of text.
    ///
    /// # Errors
    /// `NotFound` for a column that is none, with the nearest; `InvalidQuery` for a value that does not fit.
    pub fn fill_null(&self, value: Expr, columns: Option<&[String]>) -> Result<Self> {
        self.check([&value])?;
        let wants = value.get_type(self.plan.schema().as_ref()).map_err(fail)?;
        let schema = self.schema();
        let chosen: Vec<String> = match columns {
            Some(columns) => {
                columns.iter().try_for_each(|column| self.check_column(column))?;
                columns.to_vec()
            }
            None => {
                let fitting = schema.fields().iter().filter(|field| kind(field.data_type()) == kind(&wants));
                fitting.map(|field| field.name().clone()).collect()
            }
        };
        let filled = chosen.iter().filter_map(|name| {
            let field = schema.field_with_name(name).ok()?;
            let value = cast(value.clone(), field.data_type().clone());
            Some(coalesce(vec![col(name), value]).alias(name))
        });
        let filled: Vec<Expr> = filled.collect();
        if filled.is_empty() { Ok(self.clone()) } else { self.with_columns(filled) }
    }

    /// With a first column that numbers the rows from `offset` on, in the order of the last sort.
    ///
    /// # Errors
    /// `InvalidQuery` if a column has the name.
    pub fn with_row_index(&self, name: &str, offset: i64) -> Result<Self> {
        if self.has(name) {
            return Err(invalid(format!("there is a column '{name}' already")).with_help("choose another name for the index"));
        }
        let order = self.order();
        let number = row_number().order_by(order.clone()).build().map_err(fail)?;
        let index = (cast(number, DataType::Int64) + lit(offset.saturating_sub(1))).alias(name);
        let numbered = self.then(self.projected([vec![index], self.all()].concat())?, 2)?;
        if order.is_empty() { Ok(numbered) } else { numbered.sort(vec![col(name).sort(true, false)]) }
    }

    /// What the rows were sorted by last, if the columns for it are still there.
    pub(super) fn order(&self) -> Vec<SortExpr> {
        match self.plan.as_ref() {
            LogicalPlan::Sort(sort) => sort.expr.clone(),
            LogicalPlan::Limit(limit) => match limit.input.as_ref() {
                LogicalPlan::Sort(sort) => sort.expr.clone(),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// The plan, shared.
    pub(super) fn shared(&self) -> Arc<LogicalPlan> {
        Arc::clone(&self.plan)
    }
}

/// Types of which values stand for each other where nulls are filled.
#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    Number,
    Text,
    Exactly(&'a DataType),
}

fn kind(data_type: &DataType) -> Kind<'_> {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        DataType::Dictionary(_, value) => kind(value),
        of if of.is_numeric() => Kind::Number,
        of => Kind::Exactly(of),
    }
}
