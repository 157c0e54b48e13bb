//! Functions that a session knows by name: `CREATE TEMPORARY FUNCTION fee RETURNS DOUBLE LANGUAGE PYTHON AS '...'`, as the Python
//! package writes it. The text in quotes is all of the function, in hexadecimal digits. Called by `../session/statement.rs`.

use std::fmt::Write;

use datafusion::error::Result;
use datafusion::logical_expr::{CreateFunction, DdlStatement, Expr, LogicalPlan};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{CreateFunction as Parsed, Ident};
use windrow_core::{Error, ErrorKind};

use super::PythonFunction;
use crate::diagnose::ours;

const LANGUAGE: &str = "python";

/// The statement that makes `function` known to a session, by its name.
///
/// # Errors
/// `InvalidQuery` for a function that cannot be.
pub fn create_python_function(function: &PythonFunction) -> windrow_core::Result<String> {
    function.check()?;
    let bytes = function.to_bytes().map_err(|error| Error::internal(error.to_string()))?;
    let name = function.name.replace('"', "\"\"");
    let mut text = format!("CREATE OR REPLACE TEMPORARY FUNCTION \"{name}\"() RETURNS TEXT LANGUAGE {LANGUAGE} AS '");
    text.reserve(bytes.len() * 2 + 1);
    for byte in bytes {
        // Writing to a string does not fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text.push('\'');
    Ok(text)
}

/// Whether a statement makes a function that only its session sees.
pub(crate) fn is_own_function(create: &Parsed) -> bool {
    create.temporary && create.language.as_ref().is_some_and(is_python)
}

fn is_python(language: &Ident) -> bool {
    language.value.eq_ignore_ascii_case(LANGUAGE)
}

/// The function that a planned statement makes, if it is one of ours.
pub(crate) fn created(plan: &LogicalPlan) -> Option<Result<PythonFunction>> {
    let LogicalPlan::Ddl(DdlStatement::CreateFunction(create)) = plan else { return None };
    let language = create.params.language.as_ref()?;
    (create.temporary && is_python(language)).then(|| read(create))
}

fn read(create: &CreateFunction) -> Result<PythonFunction> {
    let invalid = || {
        let error = Error::new(ErrorKind::InvalidQuery, format!("the text of the function '{}' is none of ours", create.name));
        ours(error.with_help("functions are made in Python: @windrow.udf, then client.register_udf"))
    };
    let Some(Expr::Literal(ScalarValue::Utf8(Some(text)), _)) = &create.params.function_body else { return Err(invalid()) };
    let digits = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes = digits.collect::<Option<Vec<u8>>>().ok_or_else(invalid)?;
    let function = PythonFunction::from_bytes(&bytes)?;
    if function.name == create.name { Ok(function) } else { Err(invalid()) }
}
