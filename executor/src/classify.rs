//! Says what an error of an attempt means, once: everything after this decides by [`Failure`] and parses no text.
//!
//! DataFusion wraps errors (context, diagnostics, sharing, collections) and carries foreign ones (Arrow, Parquet, object stores,
//! the system's, ours); this walks through all of it to the error that decides. Our own failures travel inside DataFusion as
//! `External(Box<Failed>)` and come out as they were.

use std::error::Error as StdError;
use std::io;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use tokio::task::JoinError;
use windrow_core::ErrorKind;
use windrow_core::failure::{CancelReason, Failed, Failure, Resource, TransientKind};

/// The failure that `error` is, with a sentence for people.
#[must_use]
pub fn classify(error: &DataFusionError) -> Failed {
    match error {
        DataFusionError::Context(what, inner) => with_context(what, classify(inner)),
        DataFusionError::Diagnostic(_, inner) => classify(inner),
        DataFusionError::Shared(inner) => classify(inner),
        DataFusionError::Collection(members) => worst(members.iter().map(classify)),
        DataFusionError::External(inner) => foreign(inner.as_ref()),
        DataFusionError::ArrowError(inner, _) => arrow(inner),
        DataFusionError::ParquetError(inner) => parquet(inner),
        DataFusionError::ObjectStore(inner) => object_store(inner),
        DataFusionError::IoError(inner) => system(inner),
        DataFusionError::ExecutionJoin(inner) => join(inner),
        DataFusionError::ResourcesExhausted(message) => resources(message),
        DataFusionError::NotImplemented(message) => fatal(ErrorKind::Unsupported, message),
        DataFusionError::Plan(message) => fatal(ErrorKind::InvalidQuery, message),
        DataFusionError::SQL(inner, _) => fatal(ErrorKind::InvalidQuery, inner),
        DataFusionError::SchemaError(inner, _) => fatal(ErrorKind::InvalidQuery, inner),
        DataFusionError::Configuration(message) => fatal(ErrorKind::InvalidConfig, message),
        DataFusionError::Execution(message) => fatal(ErrorKind::Data, message),
        DataFusionError::Internal(message) | DataFusionError::Substrait(message) | DataFusionError::Ffi(message) => {
            Failed::internal(message)
        }
    }
}

/// The failure of a task of the runtime that did not end by itself.
pub(crate) fn join(error: &JoinError) -> Failed {
    if error.is_panic() {
        return Failed::new(Failure::Panic, format!("a thread of the query panicked: {error}"));
    }
    Failed::cancelled(CancelReason::Stale)
}

/// The failure of a panic that was caught.
pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Failed {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    Failed::new(Failure::Panic, format!("a thread of the query panicked: {}", text.unwrap_or("without a message")))
}

fn fatal(kind: ErrorKind, message: impl ToString) -> Failed {
    Failed::new(Failure::Fatal { kind }, message.to_string())
}

/// Puts the words of a wrapper in front, where they help: a file's name, an operator's.
fn with_context(what: &str, mut failed: Failed) -> Failed {
    if !what.is_empty() && !failed.message.contains(what) {
        failed.message = format!("{what}: {}", failed.message);
    }
    failed
}

/// The member that decides: what ends the job for the user first, what needs the most second.
fn worst(members: impl Iterator<Item = Failed>) -> Failed {
    let rank = |failed: &Failed| match failed.failure {
        Failure::Fatal { .. } => 0,
        Failure::LostInput { .. } => 1,
        Failure::Corrupt => 2,
        Failure::Panic => 3,
        Failure::Internal => 4,
        Failure::Resources { .. } => 5,
        Failure::Transient { .. } => 6,
        Failure::ExecutorLost { .. } | Failure::Poison => 7,
        Failure::Cancelled { .. } => 8,
    };
    members.min_by_key(rank).unwrap_or_else(|| Failed::internal("an empty collection of errors"))
}

/// An error that DataFusion, Arrow or a store carries without knowing it: looked for along its chain of causes.
fn foreign(error: &(dyn StdError + 'static)) -> Failed {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(failed) = known(error) {
            return failed;
        }
        cause = error.source();
    }
    Failed::internal(error.to_string())
}

/// The failure of an error of a type that decides by itself; `None` for a wrapper of somebody else's.
fn known(error: &(dyn StdError + 'static)) -> Option<Failed> {
    if let Some(failed) = error.downcast_ref::<Failed>() {
        return Some(failed.clone());
    }
    if let Some(ours) = error.downcast_ref::<windrow_core::Error>() {
        return Some(of_kind(ours));
    }
    if let Some(error) = error.downcast_ref::<DataFusionError>() {
        return Some(classify(error));
    }
    if let Some(error) = error.downcast_ref::<ArrowError>() {
        return Some(arrow(error));
    }
    if let Some(error) = error.downcast_ref::<ParquetError>() {
        return Some(parquet(error));
    }
    if let Some(error) = error.downcast_ref::<object_store::Error>() {
        return Some(object_store(error));
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return Some(system(error));
    }
    error.downcast_ref::<JoinError>().map(join)
}

/// Our own errors: those of the kinds that a retry may help become failures that are retried.
fn of_kind(error: &windrow_core::Error) -> Failed {
    match error.kind {
        ErrorKind::Internal => Failed::internal(error.to_string()),
        ErrorKind::Unavailable => {
            Failed::new(Failure::Transient { what: TransientKind::Network, retry_after_ms: None }, error.to_string())
        }
        ErrorKind::Cancelled => Failed::cancelled(CancelReason::Client),
        ErrorKind::ResourcesExhausted => resources(&error.message),
        _ => Failed::fatal(error),
    }
}

/// The pool's refusal, or a quota's. The figures of the request are in the sentence;
/// [`exhausted`] adds them where they are known.
fn resources(message: &str) -> Failed {
    Failed::new(Failure::Resources { what: Resource::Memory, asked: 0, limit: 0 }, message)
}

fn arrow(error: &ArrowError) -> Failed {
    match error {
        ArrowError::ExternalError(inner) => foreign(inner.as_ref()),
        ArrowError::IoError(_, inner) => system(inner),
        ArrowError::NotYetImplemented(_) => fatal(ErrorKind::Unsupported, error),
        ArrowError::CsvError(_)
        | ArrowError::JsonError(_)
        | ArrowError::AvroError(_)
        | ArrowError::ParquetError(_)
        | ArrowError::ParseError(_)
        | ArrowError::CastError(_)
        | ArrowError::ComputeError(_)
        | ArrowError::IpcError(_)
        | ArrowError::DivideByZero
        | ArrowError::ArithmeticOverflow(_)
        | ArrowError::OffsetOverflowError(_)
        | ArrowError::DictionaryKeyOverflowError
        | ArrowError::RunEndIndexOverflowError => fatal(ErrorKind::Data, error),
        ArrowError::InvalidArgumentError(_) => fatal(ErrorKind::InvalidQuery, error),
        ArrowError::MemoryError(_) => resources(&error.to_string()),
        ArrowError::SchemaError(_) | ArrowError::CDataInterface(_) => Failed::internal(error.to_string()),
    }
}

fn parquet(error: &ParquetError) -> Failed {
    match error {
        ParquetError::External(inner) => match foreign(inner.as_ref()) {
            // A foreign error inside Parquet that nobody knows came from decoding its bytes.
            Failed { failure: Failure::Internal, message } => fatal(ErrorKind::Data, message),
            failed => failed,
        },
        ParquetError::NYI(_) => fatal(ErrorKind::Unsupported, error),
        _ => fatal(ErrorKind::Data, error),
    }
}

fn object_store(error: &object_store::Error) -> Failed {
    use object_store::Error as Store;
    if let Some(denied) = windrow_planner::denial(error) {
        return Failed::fatal(denied);
    }
    match error {
        Store::NotFound { .. } => fatal(ErrorKind::NotFound, error),
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => fatal(ErrorKind::Denied, error),
        Store::InvalidPath { .. } => fatal(ErrorKind::InvalidQuery, error),
        Store::NotSupported { .. } | Store::NotImplemented { .. } => fatal(ErrorKind::Unsupported, error),
        Store::UnknownConfigurationKey { .. } => fatal(ErrorKind::InvalidConfig, error),
        // The object is not the one that was planned for.
        Store::Precondition { .. } | Store::NotModified { .. } | Store::AlreadyExists { .. } => fatal(ErrorKind::Data, error),
        _ => match foreign_cause(error) {
            Some(failed) => failed,
            None => Failed::new(Failure::Transient { what: TransientKind::Store, retry_after_ms: None }, error.to_string()),
        },
    }
}

/// What the causes of a store's generic error say, with the store's own sentence, which names the object.
fn foreign_cause(error: &object_store::Error) -> Option<Failed> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(failed) = known(inner) {
            return Some(Failed { message: error.to_string(), ..failed });
        }
        cause = inner.source();
    }
    None
}

fn system(error: &io::Error) -> Failed {
    if let Some(inner) = error.get_ref()
        && let Some(failed) = known(inner)
    {
        return failed;
    }
    let failure = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Failure::Resources { what: Resource::Disk, asked: 0, limit: 0 }
        }
        io::ErrorKind::OutOfMemory => Failure::Resources { what: Resource::Memory, asked: 0, limit: 0 },
        io::ErrorKind::NotFound => Failure::Fatal { kind: ErrorKind::NotFound },
        io::ErrorKind::PermissionDenied => Failure::Fatal { kind: ErrorKind::Denied },
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Failure::Fatal { kind: ErrorKind::Data },
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::TimedOut => Failure::Transient { what: TransientKind::Network, retry_after_ms: None },
        _ if matches!(error.raw_os_error(), Some(TOO_MANY_FILES | TOO_MANY_FILES_OF_SYSTEM)) => {
            Failure::Resources { what: Resource::Handles, asked: 0, limit: 0 }
        }
        _ => Failure::Transient { what: TransientKind::Io, retry_after_ms: None },
    };
    Failed::new(failure, error.to_string())
}

/// `EMFILE` and `ENFILE`, the same on every Unix; the standard library has no kind for them.
const TOO_MANY_FILES: i32 = 24;
const TOO_MANY_FILES_OF_SYSTEM: i32 = 23;

/// `failed` with the figures of the memory pool, if it is the pool's refusal.
pub(crate) fn exhausted(mut failed: Failed, pool: &crate::memory::ExecutorPool) -> Failed {
    if let Failure::Resources { what: Resource::Memory, asked, limit } = &mut failed.failure
        && *limit == 0
    {
        *asked = pool.last_refused() as u64;
        *limit = pool.limit() as u64;
    }
    failed
}

#[cfg(test)]
mod tests;
