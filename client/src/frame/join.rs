//! Two frames side by side. Next: `sets.rs`.

use std::fmt;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, NullEquality, TableReference};
use datafusion::functions::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder, Projection};
use windrow_core::Result;

use super::expressions::{LEFT, RIGHT, check_of_rows, check_unique, left, right};
use super::{DataFrame, fail, invalid, no_column};

/// Which rows a join has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JoinKind {
    /// Each pair that matches.
    #[default]
    Inner,
    /// And the rows on the left that match nothing.
    Left,
    /// And the rows on the right that match nothing.
    Right,
    /// And the rows on either side that match nothing.
    Full,
    /// The rows on the left that match something, once each, without the columns on the right.
    Semi,
    /// The rows on the left that match nothing.
    Anti,
    /// Each pair.
    Cross,
}

impl fmt::Display for JoinKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inner => "inner",
            Self::Left => "left",
            Self::Right => "right",
            Self::Full => "full",
            Self::Semi => "semi",
            Self::Anti => "anti",
            Self::Cross => "cross",
        })
    }
}

/// How [`DataFrame::join`] joins.
#[derive(Debug, Clone)]
pub struct Join {
    /// Which rows there are.
    pub kind: JoinKind,
    /// Pairs of a column on the left and one on the right that are equal in rows that match.
    pub on: Vec<(String, String)>,
    /// What else is true of rows that match. A name that both sides have is written [`left`] or [`right`].
    pub condition: Option<Expr>,
    /// What is put after the name of a column on the right if one on the left has it.
    pub suffix: String,
    /// Whether the columns of `on` become one each. Without it, they do in inner, left and right joins.
    pub coalesce: Option<bool>,
    /// Whether nulls in `on` are equal to each other.
    pub nulls_equal: bool,
}

impl Default for Join {
    fn default() -> Self {
        Self {
            kind: JoinKind::Inner,
            on: Vec::new(),
            condition: None,
            suffix: "_right".to_owned(),
            coalesce: None,
            nulls_equal: false,
        }
    }
}

impl Join {
    /// A join on columns that have the same names on both sides.
    #[must_use]
    pub fn on<S: AsRef<str>>(kind: JoinKind, columns: &[S]) -> Self {
        let on = columns.iter().map(|name| (name.as_ref().to_owned(), name.as_ref().to_owned())).collect();
        Self { kind, on, ..Self::default() }
    }

    fn coalesces(&self) -> bool {
        self.coalesce.unwrap_or(matches!(self.kind, JoinKind::Inner | JoinKind::Left | JoinKind::Right))
    }
}

impl DataFrame {
    /// The rows of this frame, on the left, beside those of `other` that match. The columns are those on the left, then those on the
    /// right, of which those get a suffix whose names are taken; where the columns of `on` become one each, they stand on the left, but
    /// in a right join on the right.
    ///
    /// # Errors
    /// `NotFound` for a column that is none, with the nearest; `InvalidQuery` for a join without `on` and condition, for names that
    /// still are taken, and for types that do not fit.
    pub fn join(&self, other: &Self, join: Join) -> Result<Self> {
        let kind = join.kind;
        match (kind, join.on.is_empty() && join.condition.is_none()) {
            (JoinKind::Cross, false) => {
                return Err(invalid("a cross join has no columns and no condition to match by").with_help("use an inner join"));
            }
            (JoinKind::Cross, true) | (_, false) => {}
            (_, true) => {
                let error = invalid(format!("a join of the kind {kind} needs columns or a condition to match by"));
                return Err(error.with_help("for all pairs, use a cross join"));
            }
        }
        for (here, there) in &join.on {
            self.check_column(here)?;
            other.check_column(there)?;
        }
        let condition = join.condition.clone().map(|condition| self.of_sides(other, condition)).transpose()?;
        let columns = self.joined_columns(other, &join)?;
        let sides = (side(self, LEFT)?, side(other, RIGHT)?);
        let joined = joined(sides, &join, condition)?;
        let plan = Projection::try_new(columns, joined.into()).map(LogicalPlan::Projection).map_err(fail)?;
        self.then_with(other, plan, 3)
    }

    /// The condition with each of its columns said to be on the left or the right.
    fn of_sides(&self, other: &Self, condition: Expr) -> Result<Expr> {
        check_of_rows(&condition, "a join's condition")?;
        let mut wrong = None;
        let sided = condition.transform_up(|part| {
            let Expr::Column(column) = part else { return Ok(Transformed::no(part)) };
            let side = column.relation.as_ref().map(|relation| relation.table().to_owned());
            let (is_left, is_right) = match side.as_deref() {
                None => (self.has(&column.name), other.has(&column.name)),
                Some(LEFT) => (self.has(&column.name), false),
                Some(RIGHT) => (false, other.has(&column.name)),
                Some(_) => (false, false),
            };
            match (is_left, is_right) {
                (true, false) => return Ok(Transformed::yes(left(column.name))),
                (false, true) => return Ok(Transformed::yes(right(column.name))),
                (true, true) => {
                    let error = invalid(format!("both sides have a column '{}'", column.name));
                    wrong.get_or_insert(error.with_help("say which one is meant with left(..) or right(..)"));
                }
                (false, false) => {
                    let known = match side.as_deref() {
                        Some(LEFT) => self.columns(),
                        Some(RIGHT) => other.columns(),
                        _ => [self.columns(), other.columns()].concat(),
                    };
                    wrong.get_or_insert(no_column(&column.name, &known));
                }
            }
            Ok(Transformed::no(Expr::Column(column)))
        });
        let sided = sided.data().map_err(fail)?;
        wrong.map_or(Ok(sided), Err)
    }

    /// The columns of the join, of its two sides.
    fn joined_columns(&self, other: &Self, join: &Join) -> Result<Vec<Expr>> {
        let on_left = |name: &String| join.on.iter().find(|(here, _)| here == name);
        let on_right = |name: &String| join.on.iter().any(|(_, there)| there == name);
        let coalesces = join.coalesces();
        let (keeps_left, keeps_right) =
            (!(coalesces && join.kind == JoinKind::Right), !coalesces || join.kind == JoinKind::Right);
        let mut columns = Vec::new();
        for name in self.columns() {
            match on_left(&name) {
                Some(_) if !keeps_left => {}
                Some((here, there)) if coalesces && join.kind == JoinKind::Full => {
                    columns.push(coalesce(vec![left(here), right(there)]).alias(name));
                }
                _ => columns.push(left(&name).alias(name)),
            }
        }
        if matches!(join.kind, JoinKind::Semi | JoinKind::Anti) {
            return Ok(columns);
        }
        let taken: Vec<String> = columns.iter().map(super::expressions::name_of).collect();
        for name in other.columns().into_iter().filter(|name| keeps_right || !on_right(name)) {
            let output = if taken.contains(&name) { format!("{name}{}", join.suffix) } else { name.clone() };
            columns.push(right(name).alias(output));
        }
        check_unique(&columns).map_err(|error| error.with_help("choose another suffix, or rename columns before the join"))?;
        Ok(columns)
    }
}

fn side(frame: &DataFrame, name: &str) -> Result<LogicalPlan> {
    LogicalPlanBuilder::new_from_arc(frame.shared())
        .alias(TableReference::bare(name))
        .and_then(LogicalPlanBuilder::build)
        .map_err(fail)
}

fn joined((here, there): (LogicalPlan, LogicalPlan), join: &Join, condition: Option<Expr>) -> Result<LogicalPlan> {
    let builder = LogicalPlanBuilder::from(here);
    let kind = match join.kind {
        JoinKind::Cross => return builder.cross_join(there).and_then(LogicalPlanBuilder::build).map_err(fail),
        JoinKind::Inner => JoinType::Inner,
        JoinKind::Left => JoinType::Left,
        JoinKind::Right => JoinType::Right,
        JoinKind::Full => JoinType::Full,
        JoinKind::Semi => JoinType::LeftSemi,
        JoinKind::Anti => JoinType::LeftAnti,
    };
    let of = |side: &str, name: &String| Column::new(Some(TableReference::bare(side)), name);
    let keys: (Vec<Column>, Vec<Column>) = join.on.iter().map(|(here, there)| (of(LEFT, here), of(RIGHT, there))).unzip();
    let nulls = if join.nulls_equal { NullEquality::NullEqualsNull } else { NullEquality::NullEqualsNothing };
    let plan = builder.join_detailed(there, kind, keys, condition, nulls);
    plan.and_then(LogicalPlanBuilder::build).map_err(fail)
}
