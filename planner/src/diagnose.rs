//! DataFusion's planning errors become ours: a kind that says what to do, the position in the text, the nearest known name.

use datafusion::arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;
use windrow_core::error::{Span, nearest};
use windrow_core::{Error, ErrorKind, Failed};

use crate::budget::nests_too_deeply;
use crate::catalog::written;
use crate::session::Names;
use crate::stores::denial;

/// An error of ours where DataFusion's are expected; [`diagnose`] finds it again.
pub(crate) fn ours(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Turns a planning error into what the user is told. `names` are the tables and functions that could have been meant.
pub(crate) fn diagnose(error: DataFusionError, names: &Names) -> Error {
    if let Some(denied) = denial(&error) {
        return denied.clone();
    }
    match error {
        DataFusionError::Context(place, inner) => in_place(&place, diagnose(*inner, names)),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let span = diagnostic.span.map(span);
            let help = diagnostic.helps.first().map(|help| help.message.clone());
            let mut error = diagnose(*inner, names).with_span(span);
            if let (None, None, Some(help)) = (&error.context.help, &error.context.suggestion, help) {
                error = error.with_help(help);
            }
            error
        }
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => diagnose(first, names),
            None => Error::internal("an error without content"),
        },
        DataFusionError::Shared(shared) => match find_ours(shared.as_ref()) {
            Some(error) => error,
            None => plain(shared.as_ref()),
        },
        DataFusionError::SQL(parser, _) => parser_error(&parser),
        DataFusionError::SchemaError(schema, _) => schema_error(&schema),
        DataFusionError::Plan(message) => plan_error(message, names),
        DataFusionError::External(source) => match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(source) => match source.downcast::<Failed>() {
                Ok(failed) => failed.to_error(),
                Err(source) => foreign(source.to_string()),
            },
        },
        other => plain(&other),
    }
}

/// Which file is damaged is in the context; elsewhere the context is a rule of the optimizer, which tells the user nothing.
fn in_place(place: &str, mut error: Error) -> Error {
    if error.kind == ErrorKind::Data && place.starts_with("reading ") {
        error.message = format!("{place}: {}", error.message);
    }
    error
}

fn find_ours(error: &DataFusionError) -> Option<Error> {
    match error {
        DataFusionError::External(source) => source.downcast_ref::<Error>().cloned(),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => find_ours(inner),
        DataFusionError::Shared(inner) => find_ours(inner),
        _ => None,
    }
}

/// Kinds by variant, for errors that carry neither position nor names.
fn plain(error: &DataFusionError) -> Error {
    let kind = match error {
        DataFusionError::ArrowError(arrow, _) if arrow.to_string().contains("regex parse error") => {
            return foreign(arrow.to_string());
        }
        DataFusionError::NotImplemented(_) => ErrorKind::Unsupported,
        DataFusionError::Configuration(_) => ErrorKind::InvalidConfig,
        DataFusionError::ResourcesExhausted(_) => ErrorKind::ResourcesExhausted,
        DataFusionError::ObjectStore(store) => match store.as_ref() {
            object_store::Error::NotFound { .. } => ErrorKind::NotFound,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => ErrorKind::Denied,
            _ => ErrorKind::Unavailable,
        },
        DataFusionError::IoError(io) => match io.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Unavailable,
        },
        DataFusionError::ParquetError(_) => ErrorKind::Data,
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            ArrowError::ParseError(_) | ArrowError::CsvError(_) | ArrowError::JsonError(_) | ArrowError::IpcError(_) => {
                ErrorKind::Data
            }
            _ => ErrorKind::InvalidQuery,
        },
        DataFusionError::Plan(_)
        | DataFusionError::Execution(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::SQL(..) => ErrorKind::InvalidQuery,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, strip(&error.strip_backtrace()))
}

/// An error of a library that DataFusion carries without knowing it. Those of regular expressions repeat the expression and say what is
/// wrong in their last line.
fn foreign(message: String) -> Error {
    if !message.contains("regex parse error") && !message.contains("Compiled regex exceeds") {
        return Error::new(ErrorKind::Internal, message);
    }
    let what = message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Error::new(ErrorKind::InvalidQuery, format!("a regular expression cannot be used: {what}"))
}

/// Removes DataFusion's category in front of a message: the kind says it.
fn strip(message: &str) -> String {
    let categories = [
        "Error during planning: ",
        "Execution error: ",
        "This feature is not implemented: ",
        "Schema error: ",
        "SQL error: ",
        "Arrow error: ",
    ];
    let mut rest = message;
    while let Some(shorter) = categories.iter().find_map(|category| rest.strip_prefix(category)) {
        rest = shorter;
    }
    rest.to_owned()
}

fn span(span: datafusion::common::Span) -> Span {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Span {
        start_line: narrow(span.start.line),
        start_column: narrow(span.start.column),
        end_line: narrow(span.end.line),
        end_column: narrow(span.end.column),
    }
}

/// The parser knows the position only as the end of its sentence, ` at Line: 1, Column: 8`.
fn parser_error(error: &ParserError) -> Error {
    let (ParserError::ParserError(text) | ParserError::TokenizerError(text)) = error else {
        return nests_too_deeply();
    };
    let (message, position) = text.split_once(" at Line: ").unwrap_or((text, ""));
    let position = position.split_once(", Column: ").and_then(|(line, column)| {
        let (line, column) = (line.trim().parse().ok()?, column.trim().parse().ok()?);
        Some(Span { start_line: line, start_column: column, end_line: line, end_column: column + 1 })
    });
    Error::new(ErrorKind::InvalidQuery, message.replace("Expected: ", "expected ").replace(", found: ", ", found "))
        .with_span(position)
}

fn schema_error(error: &SchemaError) -> Error {
    let SchemaError::FieldNotFound { field, valid_fields } = error else {
        return Error::new(ErrorKind::InvalidQuery, error.to_string());
    };
    let known: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
    let listed = known.iter().take(12).copied().collect::<Vec<_>>().join(", ");
    let more = if known.len() > 12 { ", ..." } else { "" };
    Error::new(ErrorKind::InvalidQuery, format!("no column named '{}'", field.flat_name()))
        .with_suggestion(nearest(&field.name, known.iter().copied()))
        .with_help(if listed.is_empty() {
            "no column is in scope here".to_owned()
        } else {
            format!("columns in scope: {listed}{more}")
        })
}

/// Names that do not exist come as sentences; the name in quotes is looked for among the known ones.
fn plan_error(message: String, names: &Names) -> Error {
    let quoted = message.split('\'').nth(1).unwrap_or_default().to_owned();
    if message.starts_with("table '") && message.ends_with("' not found") {
        let name = written(&quoted);
        let suggestion = nearest(name, names.tables.iter().map(|(table, _)| table.as_str()));
        // Those about the cluster are always there.
        let help = match names.tables.iter().filter(|(table, _)| !table.starts_with("system.")).count() {
            0 => "no table exists yet; to read a file write FROM 'file.parquet'".to_owned(),
            1 => "SHOW TABLES lists the one there is; to read a file write FROM 'file.parquet'".to_owned(),
            count => format!("SHOW TABLES lists {count} tables; to read a file write FROM 'file.parquet'"),
        };
        return Error::new(ErrorKind::NotFound, format!("no table named '{name}'")).with_suggestion(suggestion).with_help(help);
    }
    if message.starts_with("Invalid function '") {
        let suggestion = nearest(&quoted, names.functions.iter().map(String::as_str));
        return Error::new(ErrorKind::InvalidQuery, format!("no function named '{quoted}'")).with_suggestion(suggestion);
    }
    Error::new(ErrorKind::InvalidQuery, strip(&message))
}
