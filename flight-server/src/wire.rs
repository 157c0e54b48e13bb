//! Errors on the wire: a [`windrow_core::Error`] crosses gRPC typed, as postcard bytes in the status's details beside a sentence
//! for clients that are not ours, and comes back as the same error.

use serde::{Deserialize, Serialize};
use tonic::{Code, Status};
use windrow_core::error::Context;
use windrow_core::message::{decode, encode};
use windrow_core::time_limit::Exceeded;
use windrow_core::{Error, ErrorKind, Failed, Failure};

/// Details of other makers are not ours: they do not begin with this.
const MAGIC: &[u8; 4] = b"WRE1";

/// As [`MAGIC`], for a failure of the shuffle.
const FAILED_MAGIC: &[u8; 4] = b"WRF1";

/// Lost partitions that one status names, because they travel in headers; the reader meets the others when it comes back.
const PARTITIONS_MAX: usize = 1024;

/// Bytes of an error's message that cross: both texts travel in headers, and peers drop a stream whose headers exceed 16 KiB.
const MESSAGE_MAX: usize = 4096;

/// Bytes of the sentence for others: up to three times as many once percent-encoded.
const SENTENCE_MAX: usize = 1024;

#[derive(Debug, Serialize, Deserialize)]
struct WireError {
    kind: ErrorKind,
    message: String,
    context: Context,
}

/// The status that carries `error`.
#[must_use]
pub fn to_status(error: &Error) -> Status {
    let code = match error.kind {
        _ if Exceeded::is_cause_of(error) => Code::DeadlineExceeded,
        ErrorKind::InvalidQuery | ErrorKind::InvalidConfig => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::ResourcesExhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Data => Code::FailedPrecondition,
        ErrorKind::Internal => Code::Internal,
    };
    let wire =
        WireError { kind: error.kind, message: cut(error.message.clone(), MESSAGE_MAX), context: (*error.context).clone() };
    match encode(&wire) {
        Ok(bytes) => {
            let details = [MAGIC.as_slice(), &bytes].concat();
            Status::with_details(code, sentence(error), details.into())
        }
        Err(_unencodable) => Status::new(code, sentence(error)),
    }
}

/// The error that `status` carries: the one it was made from, or the nearest kind where it is not ours.
#[must_use]
pub fn from_status(status: &Status) -> Error {
    if let Some(bytes) = status.details().strip_prefix(MAGIC.as_slice())
        && let Ok(wire) = decode::<WireError>(bytes)
    {
        let mut error = Error::new(wire.kind, wire.message);
        *error.context = wire.context;
        return error;
    }
    let kind = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidQuery,
        Code::NotFound => ErrorKind::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::ResourceExhausted => ErrorKind::ResourcesExhausted,
        Code::Cancelled => ErrorKind::Cancelled,
        Code::FailedPrecondition | Code::DataLoss => ErrorKind::Data,
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let message = if status.message().is_empty() { status.code().description() } else { status.message() };
    Error::new(kind, message).with_source(status.clone())
}

/// The status that carries a failure of the shuffle.
#[must_use]
pub(crate) fn failed_to_status(failed: &Failed) -> Status {
    let message = cut(failed.message.clone(), SENTENCE_MAX);
    let mut short = Failed { failure: failed.failure.clone(), message: message.clone() };
    if let Failure::LostInput { partitions, .. } = &mut short.failure {
        partitions.truncate(PARTITIONS_MAX);
    }
    match encode(&short) {
        Ok(bytes) => Status::with_details(Code::DataLoss, message, [FAILED_MAGIC.as_slice(), &bytes].concat().into()),
        Err(_unencodable) => Status::data_loss(message),
    }
}

/// The failure that `status` carries, if it carries one.
#[must_use]
pub(crate) fn status_to_failed(status: &Status) -> Option<Failed> {
    decode(status.details().strip_prefix(FAILED_MAGIC.as_slice())?).ok()
}

/// Message, position, suggestion and help as one text, for clients that show nothing else.
fn sentence(error: &Error) -> String {
    let mut text = error.message.clone();
    if let Some(span) = error.context.span {
        text.push_str(&format!(" (line {}, column {})", span.start_line, span.start_column));
    }
    if let Some(suggestion) = &error.context.suggestion {
        text.push_str(&format!("; did you mean '{suggestion}'?"));
    }
    if let Some(help) = &error.context.help {
        text.push_str(&format!("; {help}"));
    }
    cut(text, SENTENCE_MAX)
}

/// The longest beginning of `text` of at most `max` bytes.
fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use windrow_core::error::Span;

    use super::*;

    #[test]
    fn an_error_comes_back_as_itself() {
        let span = Span { start_line: 2, start_column: 3, end_line: 2, end_column: 8 };
        let error = Error::new(ErrorKind::NotFound, "no table named 'lineitm'")
            .with_span(Some(span))
            .with_suggestion(Some("lineitem".into()))
            .with_help("list tables with SHOW TABLES");
        let status = to_status(&error);
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().contains("did you mean 'lineitem'?"), "{}", status.message());
        let back = from_status(&status);
        assert_eq!((back.kind, &back.message, &back.context), (error.kind, &error.message, &error.context));
    }

    #[test]
    fn a_statement_that_took_too_long_has_a_code_of_its_own() {
        let limit = windrow_core::time_limit::TimeLimit::of(std::time::Duration::from_secs(90), std::time::Duration::ZERO);
        let status = to_status(&limit.unwrap().exceeded());
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let says = "ran for 1m 30s, which is windrow.query.time_limit";
        assert!(status.message().contains(says) && status.message().contains("SET windrow"), "{}", status.message());
        assert_eq!(from_status(&status).kind, ErrorKind::ResourcesExhausted);
    }

    #[test]
    fn a_status_of_others_becomes_the_nearest_kind() {
        assert_eq!(from_status(&Status::unavailable("gone")).kind, ErrorKind::Unavailable);
        let garbage = Status::with_details(Code::Internal, "odd", bytes::Bytes::from_static(b"WRE1\xff\xff\xff"));
        assert_eq!(from_status(&garbage).message, "odd");
    }

    #[test]
    fn a_long_message_is_cut_to_what_headers_carry() {
        let status = to_status(&Error::new(ErrorKind::Data, "ä".repeat(5000)));
        assert_eq!(status.message().len(), SENTENCE_MAX);
        assert_eq!(from_status(&status).message.len(), MESSAGE_MAX);
    }
}
