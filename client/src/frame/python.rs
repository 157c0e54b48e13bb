//! Rows and columns that Python functions make. Next: `planner/src/python.rs`.

use std::sync::Arc;

use datafusion::logical_expr::Expr;
use windrow_core::Result;
use windrow_planner::{PythonFunction, PythonMap, PythonStyle, call_python, call_python_aggregate, create_python_function};

use super::{DataFrame, fail, invalid};
use crate::session::Session;

impl DataFrame {
    /// The rows that a Python function makes of batches of this frame's, with the columns of its schema. It runs in processes of the
    /// executors, where `executor.python` names an interpreter.
    ///
    /// # Errors
    /// `InvalidQuery` for a function that is not one of rows, or is asked for what cannot be.
    pub fn map_batches(&self, function: PythonFunction) -> Result<Self> {
        function.check()?;
        if function.style != PythonStyle::Batches {
            let what = format!("'{}' is a function of values, and map_batches takes one of rows", function.name);
            return Err(invalid(what).with_help("call it in an expression"));
        }
        if function.schema.fields().is_empty() {
            return Err(invalid(format!("the schema of '{}' has no columns", function.name)));
        }
        self.then(PythonMap::batches(self.shared(), Arc::new(function)).map_err(fail)?, 1)
    }
}

/// A call of a Python function of columns, or of groups, in an expression.
///
/// # Errors
/// `InvalidQuery` for a function of rows, or one that is asked for what cannot be.
pub fn python_call(function: &Arc<PythonFunction>, arguments: Vec<Expr>) -> Result<Expr> {
    function.check()?;
    match function.style {
        PythonStyle::Values => Ok(call_python(Arc::clone(function), arguments)),
        PythonStyle::Groups if arguments.is_empty() => {
            Err(invalid(format!("'{}' is called without a column, whose groups it would be given", function.name)))
        }
        PythonStyle::Groups => Ok(call_python_aggregate(Arc::clone(function), arguments)),
        PythonStyle::Batches => {
            let what = format!("'{}' is a function of rows, not of values", function.name);
            Err(invalid(what).with_help("call it with map_batches"))
        }
    }
}

impl Session {
    /// Makes a Python function known to the session's SQL, by its name. It takes the place of another one of that name.
    ///
    /// # Errors
    /// `InvalidQuery` for the name of a function of SQL, `Unsupported` for a function of rows.
    pub async fn register_python(&self, function: &PythonFunction) -> Result<()> {
        self.sql(&create_python_function(function)?).await?.collect().await.map(drop)
    }
}
