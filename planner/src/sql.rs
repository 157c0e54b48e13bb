//! First arrow: text becomes a logical plan. Next: `logical.rs`.
//!
//! Parsing and name resolution are DataFusion's. In front of them are the bounds of `budget.rs` and the rights of `access.rs`; behind
//! them statements are sorted into queries, explanations and things done in the coordinator.

use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement as PlanStatement};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{Statement as SqlStatement, Value};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;
use windrow_core::{Error, ErrorKind, Result};

use crate::access::Access;
use crate::catalog::{in_temporary_schema, searching};
use crate::diagnose::ours;
use crate::parameters::{self, Values};
use crate::{budget, python, statement, write};

/// What is to be done with a statement.
#[derive(Debug)]
pub(crate) enum Meaning {
    /// Run a query.
    Query(LogicalPlan),
    /// Show how a query would run.
    Explain {
        /// The query.
        plan: LogicalPlan,
        /// Show the logical plan of each step too.
        verbose: bool,
    },
    /// Run a query and show how it ran.
    Analyze(LogicalPlan),
    /// Write the rows of a query into files: COPY, INSERT, CREATE TABLE.
    Write(LogicalPlan),
    /// Change the session: DDL, SET of DataFusion's settings, PREPARE.
    Session(LogicalPlan),
    /// SET, SHOW or RESET of one of our settings: key without `windrow.query.`, and the value to set.
    Setting(SettingStatement),
}

/// A statement about one of our own settings; keys without their prefix.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SettingStatement {
    Set { key: String, value: String },
    Show { key: String },
    Reset { key: String },
}

/// Parses exactly one statement.
pub(crate) fn parse(text: &str) -> Result<Statement, DataFusionError> {
    budget::check_text(text).map_err(ours)?;
    let mut tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().map_err(ParserError::from)?;
    parameters::number(&mut tokens).map_err(ours)?;
    let second = statement::second(&tokens);
    let mut statements = DFParserBuilder::new(tokens)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(budget::NESTING_MAX)
        .build()?
        .parse_statements()?;
    let invalid = |message: &str| Error::new(ErrorKind::InvalidQuery, message);
    match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => budget::check_statement(&statement).map_err(ours).map(|()| statement),
        (Some(_), false) => Err(ours(invalid("more than one statement; send them one at a time").with_span(second))),
        (None, _) => Err(ours(invalid("an empty statement"))),
    }
}

/// Resolves names and says what to do. Tables of files are opened here, so this reads directories and footers.
/// `values` take the places of the parameters. What the session's access does not cover is refused before anything that the statement
/// names is touched; relative paths start at `directory`.
pub(crate) async fn resolve(
    mut statement: Statement,
    state: &SessionState,
    access: &Access,
    directory: &str,
    values: Values<'_>,
) -> Result<Meaning, DataFusionError> {
    access.check(&statement, directory)?;
    if let Some(setting) = own_setting(&statement) {
        return Ok(Meaning::Setting(setting));
    }
    write::complete(&mut statement);
    // Names are looked up in the catalog's way; what is planned from here on has the session's own settings.
    let plan = searching(state, &statement).statement_to_plan(in_temporary_schema(statement)).await?;
    let plan = parameters::bind(plan, values)?;
    access.check_plan(&plan)?;
    if let LogicalPlan::Explain(explain) = &plan
        && let LogicalPlan::Dml(dml) = explain.plan.as_ref()
        && !write::is_write(&explain.plan, state, &access.warehouse)
    {
        return Err(unsupported_change(dml.name()));
    }
    Ok(match plan {
        LogicalPlan::Explain(explain) => Meaning::Explain { plan: LogicalPlan::clone(&explain.plan), verbose: explain.verbose },
        LogicalPlan::Analyze(analyze) if write::is_write(&analyze.input, state, &access.warehouse) => {
            return Err(unsupported("EXPLAIN ANALYZE of a statement that writes would write; use EXPLAIN"));
        }
        LogicalPlan::Analyze(analyze) => Meaning::Analyze(LogicalPlan::clone(&analyze.input)),
        plan if write::is_write(&plan, state, &access.warehouse) => Meaning::Write(plan),
        LogicalPlan::Dml(dml) => return Err(unsupported_change(dml.name())),
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) if write::reads_tables(&create.input) => {
            let error =
                Error::unsupported("CREATE TABLE AS a query over tables needs a folder for new tables, and there is none");
            let help =
                "an administrator sets scheduler.warehouse; or use CREATE VIEW, or COPY the rows and CREATE EXTERNAL TABLE";
            return Err(ours(error.with_help(help)));
        }
        plan if python::created(&plan).is_some() => Meaning::Session(plan),
        LogicalPlan::Ddl(DdlStatement::CreateFunction(_) | DdlStatement::DropFunction(_) | DdlStatement::CreateIndex(_)) => {
            return Err(unsupported("functions and indexes cannot be created by SQL"));
        }
        LogicalPlan::Statement(PlanStatement::Prepare(prepare)) if write::is_write(&prepare.input, state, &access.warehouse) => {
            return Err(unsupported("PREPARE of a statement that writes is not supported; drivers prepare it by themselves"));
        }
        LogicalPlan::Statement(PlanStatement::TransactionStart(_) | PlanStatement::TransactionEnd(_)) => {
            return Err(unsupported("there are no transactions: every statement sees the files as they are"));
        }
        LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) => Meaning::Session(plan),
        plan => Meaning::Query(plan),
    })
}

fn unsupported_change(name: &str) -> DataFusionError {
    let name = name.to_uppercase();
    let error = Error::unsupported(format!("{name} is not supported: tables are files, which are only added and replaced"));
    let help =
        "write the rows that stay with COPY (SELECT ...) TO 'folder/', or replace a table by CREATE OR REPLACE TABLE ... AS";
    ours(error.with_help(help))
}

fn unsupported(message: &str) -> DataFusionError {
    ours(Error::unsupported(message))
}

/// SET, SHOW and RESET of `windrow.query.*`.
fn own_setting(statement: &Statement) -> Option<SettingStatement> {
    let strip = |name: &str| name.to_lowercase().strip_prefix("windrow.query.").map(str::to_owned);
    match statement {
        Statement::Statement(sql) => match sql.as_ref() {
            SqlStatement::Set(set) => {
                use datafusion::sql::sqlparser::ast::{Expr, Set};
                let Set::SingleAssignment { variable, values, .. } = set else { return None };
                let key = strip(&object_name(&variable.0))?;
                let value = match values.as_slice() {
                    [Expr::Value(value)] => match &value.value {
                        Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => text.clone(),
                        other => other.to_string(),
                    },
                    values => values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                };
                Some(SettingStatement::Set { key, value })
            }
            SqlStatement::ShowVariable { variable } => {
                let name = variable.iter().map(|part| part.value.clone()).collect::<Vec<_>>().join(".");
                Some(SettingStatement::Show { key: strip(&name)? })
            }
            _ => None,
        },
        Statement::Reset(datafusion::sql::parser::ResetStatement::Variable(name)) => {
            Some(SettingStatement::Reset { key: strip(&object_name(&name.0))? })
        }
        _ => None,
    }
}

fn object_name(parts: &[datafusion::sql::sqlparser::ast::ObjectNamePart]) -> String {
    parts.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.clone()).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(text: &str) -> Option<SettingStatement> {
        own_setting(&parse(text).unwrap())
    }

    #[test]
    fn our_settings_are_told_from_datafusions() {
        let set = |key: &str, value: &str| Some(SettingStatement::Set { key: key.into(), value: value.into() });
        assert_eq!(setting("SET windrow.query.partitions = 7"), set("partitions", "7"));
        assert_eq!(setting("SET windrow.query.small_input = '0B'"), set("small_input", "0B"));
        assert_eq!(setting("SHOW windrow.query.partitions"), Some(SettingStatement::Show { key: "partitions".into() }));
        assert_eq!(setting("RESET windrow.query.partitions"), Some(SettingStatement::Reset { key: "partitions".into() }));
        assert_eq!(setting("SET datafusion.execution.batch_size = 7"), None);
    }

    #[test]
    fn exactly_one_statement_is_taken() {
        assert!(parse("select 1;").is_ok());
        assert!(parse("select 1; select 2").is_err());
        assert!(parse(" -- nothing\n").is_err());
    }
}
