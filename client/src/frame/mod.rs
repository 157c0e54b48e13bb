//! Lazy dataframes: a plan that is made step by step and runs when its rows are asked for.
//!
//! ```text
//! source.rs    where frames come from            expressions.rs  what columns are computed of
//! columns.rs   which columns there are           rows.rs         which rows there are, and in which order
//! group.rs     groups and what is made of them   join.rs         two frames side by side
//! sets.rs      two frames under each other       nested.rs       rows into columns and back
//! statistics.rs  describe and sample             actions.rs      what runs
//! kept.rs      rows that are kept in a table             python.rs  rows that Python functions make
//! ```
//!
//! A frame is a logical plan and its session. Its columns have one name each, exactly as it is written: no step makes two of one name, and
//! none changes upper into lower case. Next: `source.rs`.

mod actions;
mod columns;
mod expressions;
mod group;
mod join;
mod kept;
mod nested;
mod python;
mod rows;
mod sets;
mod source;
mod statistics;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::Column;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Projection;
use windrow_core::error::nearest;
use windrow_core::{Error, ErrorKind, Result};
use windrow_planner::{STEPS_DEPTH_MAX, plan_error};

use crate::session::Session;
use kept::Kept;

pub use actions::{Explain, FileFormat, Write, WriteMode};
pub use expressions::{col, left, over, right};
pub use group::Pivot;
pub use join::{Join, JoinKind};
pub use nested::Unpivot;
pub use python::python_call;
pub use rows::Keep;
pub use statistics::{Sample, SampleSize};
pub use windrow_planner::{FileFormatOptions, PythonFormat, PythonFunction, PythonStyle, ReadFiles};

/// A table that is not there yet: where its rows come from, and what is done with them. Nothing runs before one of
/// [`query`](Self::query), [`collect`](Self::collect), [`count`](Self::count), [`is_empty`](Self::is_empty), [`write`](Self::write),
/// [`persist`](Self::persist) and [`explain`](Self::explain). Cheap to clone; a step gives another frame and leaves this one as it is.
///
/// ```
/// use windrow::frame::{col, functions::sum, lit};
/// # #[tokio::main]
/// # async fn main() -> windrow::Result<()> {
/// let session = windrow::connect(None).await?;
/// let trips = session.frame("SELECT * FROM (VALUES ('north', 3.5), ('south', 1.0), ('north', 0.5)) AS t(zone, fare)").await?;
/// let by_zone = trips.filter(col("fare").gt(lit(0.75)))?.aggregate(vec![col("zone")], vec![sum(col("fare")).alias("fare")])?;
/// assert_eq!(by_zone.columns(), ["zone", "fare"]);
/// assert_eq!(by_zone.count().await?, 2);
/// # drop((trips, by_zone));
/// # session.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DataFrame {
    session: Session,
    plan: Arc<LogicalPlan>,
    /// The most steps over each other in the plan, or more.
    depth: usize,
    /// Tables that go with the last frame that reads them.
    kept: Kept,
}

impl fmt::Debug for DataFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataFrame").field("columns", &self.columns()).finish_non_exhaustive()
    }
}

impl DataFrame {
    /// The frame of a plan whose columns have plain names.
    fn new(session: Session, plan: LogicalPlan) -> Self {
        Self { session, plan: Arc::new(plan), depth: 2, kept: Kept::default() }
    }

    /// The columns of its rows.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(self.plan.schema().inner())
    }

    /// The names of its columns.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        self.plan.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// The plan, in which tables are stubs that the session's coordinator looks up.
    #[must_use]
    pub fn logical_plan(&self) -> &LogicalPlan {
        &self.plan
    }

    /// The session that it runs in.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The frame of a plan that has `steps` steps more on top of this one's.
    ///
    /// # Errors
    /// `InvalidQuery` for a plan of too many steps.
    fn then(&self, plan: LogicalPlan, steps: usize) -> Result<Self> {
        let depth = self.depth + steps;
        if depth >= STEPS_DEPTH_MAX {
            let what = format!("the frame is made of more than {STEPS_DEPTH_MAX} steps over each other");
            return Err(Error::new(ErrorKind::InvalidQuery, what)
                .with_help("put columns into one with_columns instead of a step for each, or persist() the frame on the way"));
        }
        Ok(Self { session: self.session.clone(), plan: Arc::new(plan), depth, kept: self.kept.clone() })
    }

    /// As [`Self::then`], for a plan over another frame's too.
    fn then_with(&self, other: &Self, plan: LogicalPlan, steps: usize) -> Result<Self> {
        let deeper = Self { depth: self.depth.max(other.depth), kept: self.kept.with(&other.kept), ..self.clone() };
        deeper.then(plan, steps)
    }

    fn has(&self, column: &str) -> bool {
        self.plan.schema().has_column_with_unqualified_name(column)
    }

    /// Refuses a name that is none of its columns.
    fn check_column(&self, column: &str) -> Result<()> {
        if self.has(column) { Ok(()) } else { Err(no_column(column, &self.columns())) }
    }

    /// Its columns as expressions.
    fn all(&self) -> Vec<Expr> {
        self.columns().iter().map(col).collect()
    }

    /// A name that no column has.
    fn fresh(&self, base: &str) -> String {
        let mut name = base.to_owned();
        while self.has(&name) {
            name.push('_');
        }
        name
    }
}

/// What the user is told of an error that DataFusion finds.
fn fail(error: DataFusionError) -> Error {
    plan_error(error)
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidQuery, what)
}

fn no_column(name: &str, known: &[String]) -> Error {
    let listed = known.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if known.len() > 12 { ", ..." } else { "" };
    Error::new(ErrorKind::NotFound, format!("no column named '{name}'"))
        .with_suggestion(nearest(name, known.iter().map(String::as_str)))
        .with_help(if known.is_empty() { "the frame has no columns".to_owned() } else { format!("its columns: {listed}{more}") })
}

/// The same rows, each column by its plain name.
///
/// # Errors
/// `InvalidQuery` for two columns of one name.
fn plain(plan: LogicalPlan) -> Result<LogicalPlan> {
    if plan.schema().iter().all(|(qualifier, _)| qualifier.is_none()) {
        return Ok(plan);
    }
    let columns =
        plan.schema().iter().map(|(qualifier, field)| Expr::Column(Column::from((qualifier, field))).alias(field.name()));
    let columns: Vec<Expr> = columns.collect();
    expressions::check_unique(&columns)?;
    Projection::try_new(columns, Arc::new(plan)).map(LogicalPlan::Projection).map_err(fail)
}

/// Functions for expressions: those of numbers, text, times and lists, aggregates and window functions. [`col`] and
/// [`lit`](datafusion::logical_expr::lit) are beside this module.
pub mod functions {
    pub use datafusion::functions::expr_fn::*;
    pub use datafusion::functions_aggregate::expr_fn::*;
    pub use datafusion::functions_nested::expr_fn as nested;
    pub use datafusion::functions_window::expr_fn as window;
}

pub use datafusion::common::ScalarValue;
pub use datafusion::logical_expr::{
    self, Case, Expr, ExprFunctionExt, LogicalPlan, Operator, SortExpr, WindowFrame, WindowFrameBound, WindowFrameUnits, case,
    cast, lit, try_cast, when,
};
