//! Lists into rows, structs into columns, columns into rows. Next: `statistics.rs`.

use arrow::datatypes::DataType;
use datafusion::common::{Column, UnnestOptions};
use datafusion::functions::expr_fn::get_field;
use datafusion::functions_nested::expr_fn::make_array;
use datafusion::logical_expr::binary::type_union_resolution;
use datafusion::logical_expr::{Expr, LogicalPlan, Unnest, cast, lit};
use windrow_core::Result;

use super::expressions::check_unique;
use super::{DataFrame, col, fail, invalid, plain};

/// How [`DataFrame::unpivot`] turns columns into rows.
#[derive(Debug, Clone)]
pub struct Unpivot {
    /// Columns that stay.
    pub index: Vec<String>,
    /// Columns that become rows; empty for all others.
    pub on: Vec<String>,
    /// The name of the column with their names.
    pub variable: String,
    /// The name of the column with their values.
    pub value: String,
}

impl Default for Unpivot {
    fn default() -> Self {
        Self { index: Vec::new(), on: Vec::new(), variable: "variable".to_owned(), value: "value".to_owned() }
    }
}

impl DataFrame {
    /// A row for each value of the lists in these columns, which are as long as each other or end with nulls; an empty list and a null are
    /// one row with null. A column of structs becomes one for each of their fields.
    ///
    /// # Errors
    /// `NotFound` for a column that is none, with the nearest; `InvalidQuery` for one that is neither of lists nor of structs, and for a
    /// field whose name is taken.
    pub fn unnest(&self, columns: &[String]) -> Result<Self> {
        columns.iter().try_for_each(|column| self.check_column(column))?;
        let schema = self.schema();
        let (mut lists, mut outputs) = (Vec::new(), Vec::new());
        for field in schema.fields() {
            match field.data_type() {
                _ if !columns.contains(field.name()) => outputs.push(col(field.name())),
                DataType::Struct(inner) => {
                    outputs
                        .extend(inner.iter().map(|inner| get_field(col(field.name()), inner.name().clone()).alias(inner.name())));
                }
                DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
                    lists.push(Column::from_name(field.name()));
                    outputs.push(col(field.name()));
                }
                other => {
                    let what = format!("the column '{}' is {other}, and holds neither lists nor structs", field.name());
                    return Err(invalid(what));
                }
            }
        }
        check_unique(&outputs).map_err(|error| error.with_help("rename the other column first"))?;
        let rows = if lists.is_empty() { self.clone() } else { self.exploded(lists)? };
        rows.then(rows.projected(outputs)?, 1)
    }

    /// A row for each value of the lists in these columns.
    pub(super) fn exploded(&self, lists: Vec<Column>) -> Result<Self> {
        let unnest = Unnest::try_new(self.shared(), lists, UnnestOptions::default()).map(LogicalPlan::Unnest).map_err(fail)?;
        self.then(plain(unnest)?, 2)
    }

    /// A row for each of some columns of each row: the columns that stay, the name of the column, and its value.
    ///
    /// # Errors
    /// `NotFound` for a column that is none, with the nearest; `InvalidQuery` for types without one that holds all, and names that are
    /// taken.
    pub fn unpivot(&self, unpivot: Unpivot) -> Result<Self> {
        let Unpivot { index, on, variable, value } = unpivot;
        index.iter().chain(&on).try_for_each(|column| self.check_column(column))?;
        let on = if on.is_empty() { self.columns().into_iter().filter(|name| !index.contains(name)).collect() } else { on };
        if on.is_empty() {
            return Err(invalid("no column is left that could become rows"));
        }
        let schema = self.schema();
        let types = on.iter().filter_map(|name| Some(schema.field_with_name(name).ok()?.data_type().clone())).collect::<Vec<_>>();
        let common = type_union_resolution(&types).ok_or_else(|| {
            invalid(format!("no type holds the values of {}", on.join(", ")))
                .with_help("cast them to one type first, such as Utf8")
        })?;
        let names = make_array(on.iter().map(|name| lit(name.as_str())).collect()).alias(&variable);
        let values = make_array(on.iter().map(|name| cast(col(name), common.clone())).collect()).alias(&value);
        let columns: Vec<Expr> = index.iter().map(col).chain([names, values]).collect();
        let listed = self.then(self.projected(columns)?, 1)?;
        listed.exploded(vec![Column::from_name(variable), Column::from_name(value)])
    }
}
