//! Batches that clients send, decoded behind a guard. Next: `prepared.rs`, which binds them.
//!
//! The decoder of Arrow IPC trusts some lengths: it panics on a buffer that ends behind its message, and allocates what a compressed
//! buffer claims to hold. So every length is compared with the bytes that are there before anything is decoded, and a panic that is
//! left ends the stream with an error and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::ipc::{Message, MessageHeader, RecordBatch as BatchHeader, root_as_message};
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use futures::{Stream, StreamExt};
use tonic::Status;
use windrow_core::{Error, ErrorKind, Result};

use super::REQUEST_BYTES_MAX;
use crate::wire::from_status;

/// Columns of a schema, those inside of others included.
const FIELDS_MAX: usize = 16_384;

/// Levels of columns in each other.
const DEPTH_MAX: usize = 32;

/// Rows of a message beyond those that its bytes can hold: of columns that are null throughout.
const EMPTY_ROWS_MAX: usize = 65_536;

/// Bytes of all parts of dictionaries in one stream.
const DICTIONARIES_MAX: usize = 64 << 20;

/// Batches of a client, each checked before it is decoded. After an error there are no more.
pub(super) struct Incoming {
    /// `None` after an error.
    decoding: Option<FlightRecordBatchStream>,
    schema: Option<SchemaRef>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Incoming {
    /// The batches of `messages`, in which those without a header are left out.
    pub(super) fn new(messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static) -> Self {
        let mut dictionaries = 0_usize;
        let checked = messages.filter_map(move |message| {
            let checked = match message {
                Ok(message) if message.data_header.is_empty() => None,
                Ok(message) => Some(match check(&message, &mut dictionaries) {
                    Ok(()) => Ok(message),
                    Err(error) => Err(FlightError::from_external_error(Box::new(error))),
                }),
                Err(status) => Some(Err(FlightError::from(status))),
            };
            std::future::ready(checked)
        });
        Self { decoding: Some(FlightRecordBatchStream::new_from_flight_data(checked)), schema: None }
    }

    /// The schema, once it has come.
    pub(super) fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }
}

impl Stream for Incoming {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        let this = &mut *self;
        let Some(decoding) = &mut this.decoding else { return Poll::Ready(None) };
        // After a panic nothing of it is looked at again.
        let polled = catch_unwind(AssertUnwindSafe(|| decoding.poll_next_unpin(context)));
        let next = match polled {
            Ok(polled) => ready!(polled),
            Err(_panic) => {
                this.decoding = None;
                return Poll::Ready(Some(Err(malformed("its parts do not fit together"))));
            }
        };
        if this.schema.is_none() {
            this.schema = decoding.schema().cloned();
            if let Some(Err(error)) = this.schema.as_deref().map(check_schema) {
                this.decoding = None;
                return Poll::Ready(Some(Err(error)));
            }
        }
        if !matches!(next, Some(Ok(_))) {
            this.decoding = None;
        }
        Poll::Ready(next.map(|batch| batch.map_err(unread)))
    }
}

fn unread(source: FlightError) -> Error {
    match source {
        FlightError::ExternalError(inner) => match inner.downcast::<Error>() {
            Ok(own) => *own,
            Err(other) => malformed(other),
        },
        FlightError::Tonic(status) => from_status(&status),
        other => malformed(other),
    }
}

fn malformed(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Data, format!("a batch that was sent cannot be read: {why}"))
}

fn too_large(what: &str, has: impl std::fmt::Display, most: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::ResourcesExhausted, format!("a batch that was sent has {has} {what}, at most {most} are possible"))
}

/// Checks the lengths in a message against what it has. `dictionaries` sums up the parts of dictionaries in its stream.
fn check(data: &FlightData, dictionaries: &mut usize) -> Result<()> {
    let message = root_as_message(&data.data_header).map_err(malformed)?;
    let bytes = data.data_body.len();
    match message.header_type() {
        MessageHeader::RecordBatch => {
            let batch = message.header_as_record_batch().ok_or_else(|| malformed("it has no batch"))?;
            check_batch(&batch, &message, bytes)
        }
        MessageHeader::DictionaryBatch => {
            let dictionary = message.header_as_dictionary_batch();
            let batch = dictionary.and_then(|dictionary| dictionary.data()).ok_or_else(|| malformed("it has no dictionary"))?;
            *dictionaries = dictionaries.saturating_add(bytes);
            if *dictionaries > DICTIONARIES_MAX {
                return Err(too_large("bytes of dictionaries", *dictionaries, DICTIONARIES_MAX)
                    .with_help("send plain columns, which are encoded again where that helps"));
            }
            check_batch(&batch, &message, bytes)
        }
        _ => Ok(()),
    }
}

fn check_batch(batch: &BatchHeader<'_>, message: &Message<'_>, bytes: usize) -> Result<()> {
    if batch.compression().is_some() {
        return Err(Error::new(ErrorKind::Unsupported, "a batch that was sent is compressed")
            .with_help("send batches without compression; the connection's encryption does not need it"));
    }
    // A bit is the least that a row takes, unless it is null.
    let rows_max = bytes.min(REQUEST_BYTES_MAX).saturating_mul(8).saturating_add(EMPTY_ROWS_MAX);
    let fits = |rows: i64| usize::try_from(rows).is_ok_and(|rows| rows <= rows_max);
    if !fits(batch.length()) {
        return Err(too_large("rows", batch.length(), rows_max));
    }
    for node in batch.nodes().into_iter().flatten() {
        if !fits(node.length()) || node.null_count() < 0 || node.null_count() > node.length() {
            return Err(too_large("values in one column", node.length(), rows_max));
        }
    }
    let mut sum = 0_usize;
    for buffer in batch.buffers().into_iter().flatten() {
        let part = usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let end = part.and_then(|(offset, length)| offset.checked_add(length));
        let Some(((_, length), _)) = part.zip(end.filter(|end| *end <= bytes)) else {
            return Err(malformed(format!(
                "one of its buffers has {} bytes at {}, and the message has {bytes}",
                buffer.length(),
                buffer.offset()
            )));
        };
        // Buffers that are not aligned are copied: several at one place would be more than was sent.
        sum = sum.saturating_add(length);
    }
    if sum > bytes {
        return Err(malformed(format!("its buffers have {sum} bytes, and the message has {bytes}")));
    }
    let variadic: i128 = batch.variadicBufferCounts().into_iter().flatten().map(i128::from).sum();
    let is_countable = batch.variadicBufferCounts().into_iter().flatten().all(|count| count >= 0);
    let buffers = batch.buffers().map_or(0, |buffers| buffers.len());
    if !is_countable || variadic > buffers as i128 {
        return Err(malformed(format!("it has {buffers} buffers and says {variadic}, version {:?}", message.version())));
    }
    Ok(())
}

fn check_schema(schema: &Schema) -> Result<()> {
    let mut count = 0;
    schema.fields().iter().try_for_each(|field| check_field(field, 1, &mut count))
}

fn check_field(field: &Field, depth: usize, count: &mut usize) -> Result<()> {
    use arrow::datatypes::DataType as T;
    *count += 1;
    if *count > FIELDS_MAX {
        return Err(too_large("or more columns", *count, FIELDS_MAX));
    }
    if depth > DEPTH_MAX {
        return Err(too_large("or more levels of columns in each other", depth, DEPTH_MAX));
    }
    match field.data_type() {
        T::List(inner)
        | T::LargeList(inner)
        | T::ListView(inner)
        | T::LargeListView(inner)
        | T::FixedSizeList(inner, _)
        | T::Map(inner, _) => check_field(inner, depth + 1, count),
        T::RunEndEncoded(ends, values) => {
            check_field(ends, depth + 1, count)?;
            check_field(values, depth + 1, count)
        }
        T::Struct(fields) => fields.iter().try_for_each(|field| check_field(field, depth + 1, count)),
        T::Union(fields, _) => fields.iter().try_for_each(|(_, field)| check_field(field, depth + 1, count)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
