//! The one public error. A kind exists only where the user does something different.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A result with Windrow's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the user does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// Correct the query: syntax, unknown names, types that do not fit.
    InvalidQuery,
    /// Correct a setting or a flag.
    InvalidConfig,
    /// Check the name or the path.
    NotFound,
    /// Ask for the right to it.
    Denied,
    /// Write it another way: Windrow cannot do this yet.
    Unsupported,
    /// Raise a limit that the message names, or ask for less.
    ResourcesExhausted,
    /// Check the cluster or the network and try again.
    Unavailable,
    /// Nothing: somebody cancelled.
    Cancelled,
    /// Repair or replace the input that the message names.
    Data,
    /// Report it: a bug of ours.
    Internal,
}

/// A position in the query's text, for the caret under it. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First line.
    pub start_line: u32,
    /// First column.
    pub start_column: u32,
    /// Last line.
    pub end_line: u32,
    /// One past the last column.
    pub end_column: u32,
}

/// What is known about an error besides its sentence.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Context {
    /// Where in the query's text.
    pub span: Option<Span>,
    /// The nearest known name, for "did you mean".
    pub suggestion: Option<String>,
    /// What to do next, as a sentence.
    pub help: Option<String>,
}

/// An error that says what happened, what it means for the user, and what to do.
#[derive(Debug, Clone)]
pub struct Error {
    /// What the user does about it.
    pub kind: ErrorKind,
    /// Lowercase, no full stop: the value met, the value allowed, the next step.
    pub message: String,
    /// Position, suggestion and help, where known.
    pub context: Box<Context>,
    /// The cause, where there is one.
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with its sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), context: Box::default(), source: None }
    }

    /// A bug of ours, with its place.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Something Windrow cannot do yet.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The same error at a position of the query's text.
    #[must_use]
    pub fn with_span(mut self, span: Option<Span>) -> Self {
        self.context.span = span;
        self
    }

    /// The same error with the nearest known name.
    #[must_use]
    pub fn with_suggestion(mut self, suggestion: Option<String>) -> Self {
        self.context.suggestion = suggestion;
        self
    }

    /// The same error with the next step.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.context.help = Some(help.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// The nearest of `known` to `name`, if any is near enough to be what was meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count().max(3) / 3))
        .min_by_key(|(distance, candidate)| (*distance, candidate.to_string()))
        .map(|(_, candidate)| candidate.to_string())
}
