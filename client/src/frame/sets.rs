//! Two frames under each other: their union, what both have, what only one has. Next: `nested.rs`.

use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::binary::comparison_coercion;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection, cast, lit};
use windrow_core::Result;

use super::{DataFrame, ScalarValue, col, fail, invalid, plain};

impl DataFrame {
    /// The rows of both frames. By position, columns have this frame's names, and there are as many of each; by name, a column that one
    /// frame lacks is null in its rows. Types become one that holds both.
    ///
    /// # Errors
    /// `InvalidQuery` for another number of columns, and for types without one that holds both.
    pub fn union(&self, other: &Self, by_name: bool) -> Result<Self> {
        let (here, there) = if by_name { self.by_name(other)? } else { self.by_position(other)? };
        let plan = LogicalPlanBuilder::from(here).union(there).and_then(LogicalPlanBuilder::build).map_err(fail)?;
        self.then_with(other, plain(plan)?, 3)
    }

    /// The rows that `other` has too, once each. Columns are compared by position, and nulls are equal to each other.
    ///
    /// # Errors
    /// As [`Self::union`].
    pub fn intersect(&self, other: &Self) -> Result<Self> {
        let (here, there) = self.by_position(other)?;
        let plan = LogicalPlanBuilder::intersect(here, there, false).map_err(fail)?;
        self.then_with(other, plain(plan)?, 5)
    }

    /// The rows that `other` has not, once each. Columns are compared by position, and nulls are equal to each other.
    ///
    /// # Errors
    /// As [`Self::union`].
    pub fn except(&self, other: &Self) -> Result<Self> {
        let (here, there) = self.by_position(other)?;
        let plan = LogicalPlanBuilder::except(here, there, false).map_err(fail)?;
        self.then_with(other, plain(plan)?, 5)
    }

    /// Both frames with columns of the same names and types.
    fn by_position(&self, other: &Self) -> Result<(LogicalPlan, LogicalPlan)> {
        let (here, there) = (self.schema(), other.schema());
        if here.fields().len() != there.fields().len() {
            let what = format!("one frame has {} columns, the other {}", here.fields().len(), there.fields().len());
            return Err(invalid(what).with_help("select as many of each, or put them together by name"));
        }
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for (field, other_field) in here.fields().iter().zip(there.fields()) {
            let common = common(field, other_field)?;
            left.push(as_type(field, &common).alias(field.name()));
            right.push(as_type(other_field, &common).alias(field.name()));
        }
        Ok((projection(self, left)?, projection(other, right)?))
    }

    /// Both frames with all columns of either.
    fn by_name(&self, other: &Self) -> Result<(LogicalPlan, LogicalPlan)> {
        let (here, there) = (self.schema(), other.schema());
        let only_there = there.fields().iter().filter(|field| here.field_with_name(field.name()).is_err());
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for field in here.fields().iter().chain(only_there) {
            let (own, others) = (here.field_with_name(field.name()).ok(), there.field_with_name(field.name()).ok());
            let common = match (own, others) {
                (Some(own), Some(others)) => common(own, others)?,
                _ => field.data_type().clone(),
            };
            let null = || -> Result<Expr> { Ok(lit(ScalarValue::try_from(&common).map_err(fail)?)) };
            let of = |field: Option<&Field>| field.map_or_else(null, |field| Ok(as_type(field, &common)));
            left.push(of(own)?.alias(field.name()));
            right.push(of(others)?.alias(field.name()));
        }
        Ok((projection(self, left)?, projection(other, right)?))
    }
}

fn projection(frame: &DataFrame, columns: Vec<Expr>) -> Result<LogicalPlan> {
    Projection::try_new(columns, frame.shared()).map(LogicalPlan::Projection).map_err(fail)
}

fn as_type(field: &Field, wants: &DataType) -> Expr {
    if field.data_type() == wants { col(field.name()) } else { cast(col(field.name()), wants.clone()) }
}

/// The type that holds the values of both columns.
fn common(here: &Field, there: &Field) -> Result<DataType> {
    comparison_coercion(here.data_type(), there.data_type()).ok_or_else(|| {
        let (name, here, there) = (here.name(), here.data_type(), there.data_type());
        invalid(format!("'{name}' is {here} in one frame and {there} in the other")).with_help("cast one of them first")
    })
}
