//! Frames: logical plans that clients make step by step, without asking anybody. What such a plan reads is a *stub* in it, a table whose
//! columns are known and whose rows are only described: the name of a table, the text of a query, files, or a few rows of the client.
//!
//! ```text
//! stub.rs      the stubs, as plans read them        files.rs   files as a client describes them
//! resolve.rs   what stubs become in a session       size.rs    how much a plan may hold
//! unparse.rs   a plan as SQL                        wire.rs    plans as bytes
//! ```
//!
//! A statement names frames as it names tables (`catalog/scope.rs`), so that all that a text may do is done over frames by the same code:
//! queries, EXPLAIN, COPY, CREATE TABLE. Next: `stub.rs`.

mod files;
mod resolve;
mod size;
mod stub;
#[cfg(test)]
mod tests;
mod unparse;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use windrow_core::Error;

use crate::diagnose::{diagnose, ours};
use crate::session::Names;

pub use files::{FileFormatOptions, ReadFiles};
pub(crate) use resolve::resolve;
pub use size::STEPS_DEPTH_MAX;
pub use stub::{Stub, StubTable};
pub use unparse::unparse;
pub(crate) use wire::frames_from_bytes;
pub use wire::frames_to_bytes;

/// Plans, by the names under which one statement sees them as tables. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Frames(Arc<BTreeMap<String, LogicalPlan>>);

impl Frames {
    /// One plan.
    #[must_use]
    pub fn one(name: &str, plan: LogicalPlan) -> Self {
        Self(Arc::new(BTreeMap::from([(name.to_owned(), plan)])))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The plan that a text names: a name without quotes comes here in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&LogicalPlan> {
        self.0.get(name).or_else(|| self.iter().find(|(known, _)| known.to_lowercase() == name).map(|(_, plan)| plan))
    }

    /// Every plan with its name, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &LogicalPlan)> {
        self.0.iter().map(|(name, plan)| (name.as_str(), plan))
    }
}

impl FromIterator<(String, LogicalPlan)> for Frames {
    fn from_iter<I: IntoIterator<Item = (String, LogicalPlan)>>(plans: I) -> Self {
        Self(Arc::new(plans.into_iter().collect()))
    }
}

/// What the user is told of an error that DataFusion finds while a client makes a plan.
#[must_use]
pub fn plan_error(error: DataFusionError) -> Error {
    diagnose(error, &Names::default())
}

/// Refuses statements over frames that would keep their names for later, when nobody knows them any more.
///
/// # Errors
/// `Unsupported`.
pub(crate) fn check_statement(statement: &Statement) -> Result<(), DataFusionError> {
    let runs_now = match statement {
        Statement::CopyTo(copy) => matches!(copy.source, CopyToSource::Query(_)),
        Statement::Explain(explain) => return check_statement(&explain.statement),
        Statement::Statement(sql) => match sql.as_ref() {
            SqlStatement::Query(_) | SqlStatement::Insert(_) | SqlStatement::Explain { .. } => true,
            SqlStatement::CreateTable(create) => create.query.is_some(),
            _ => false,
        },
        Statement::CreateExternalTable(_) | Statement::Reset(_) => false,
    };
    if runs_now {
        return Ok(());
    }
    let error = Error::unsupported("only queries, EXPLAIN, COPY, INSERT and CREATE TABLE ... AS can name frames")
        .with_help("write the frame into a table first, and name that");
    Err(ours(error))
}
