//! What a session's statements may do and where: checked on the parsed statement, before anything that it names is touched, and on
//! the plan that came of it. Next: `permission.rs`.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use windrow_core::{Error, ErrorKind, Result};

use crate::diagnose::ours;
use crate::files::locate;
use crate::permission::{need_of, need_of_node};
use crate::stores::Stores;
use crate::write::Warehouse;

pub use crate::permission::Allowed;

/// A session's rights, fixed when it is made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    pub(crate) stores: Arc<Stores>,
    pub(crate) allowed: Allowed,
    /// Where new shared tables go.
    pub(crate) warehouse: Warehouse,
}

impl Access {
    /// Checks a parsed statement; relative paths in it start at `directory`.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub(crate) fn check(&self, statement: &Statement, directory: &str) -> Result<(), DataFusionError> {
        let checked = self.allowed.admit(need_of(statement)).and_then(|()| self.check_places(statement, directory));
        checked.map_err(ours)
    }

    /// Checks what a statement became, with its subqueries: what it needs shows there whatever it was written as.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub(crate) fn check_plan(&self, plan: &LogicalPlan) -> Result<(), DataFusionError> {
        plan.apply_with_subqueries(|node| {
            self.allowed.admit(need_of_node(node)).map_err(ours)?;
            Ok(TreeNodeRecursion::Continue)
        })
        .map(drop)
    }

    /// Checks the places that a statement names outside of its queries, and the options of their stores.
    fn check_places(&self, statement: &Statement, directory: &str) -> Result<()> {
        let policy = self.stores.policy();
        if !policy.is_listed() {
            return Ok(());
        }
        let (places, options) = match statement {
            Statement::CreateExternalTable(create) => (create.locations.as_slice(), &create.options),
            Statement::CopyTo(copy) => (std::slice::from_ref(&copy.target), &copy.options),
            Statement::Explain(explain) => return self.check_places(&explain.statement, directory),
            Statement::Statement(_) | Statement::Reset(_) => return Ok(()),
        };
        places.iter().try_for_each(|place| policy.admit(place, &locate(place, directory)))?;
        match options.iter().find(|(key, _)| is_of_a_store(key)) {
            None => Ok(()),
            Some((key, _)) => Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "OPTIONS('{key}' ...) may not be given in a statement; an administrator sets endpoints and credentials in the environment of the servers"
                ),
            )),
        }
    }
}

/// Whether an option says which store is reached, or as whom. Those of formats have `format.` in front of them.
fn is_of_a_store(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let first = key.split('.').next().unwrap_or_default();
    let of_store = [
        "aws", "s3", "s3a", "gcp", "gcs", "gs", "google", "azure", "az", "abfs", "abfss", "adl", "http", "https", "hf", "oss",
        "cos",
    ];
    let words = [
        "endpoint",
        "credential",
        "secret",
        "token",
        "access_key",
        "account",
        "password",
        "region",
        "allow_http",
        "proxy",
        "url",
    ];
    let is_of_format = first == "format" || first == "execution" || first == "parquet";
    of_store.contains(&first) || (!is_of_format && words.iter().any(|word| key.contains(word)))
}

#[cfg(test)]
mod tests;
