//! The schema as it is sent, one for each statement: the same in its description, in the answer to GetFlightInfo, and before its
//! rows, which are cast to it. Next: `handles.rs`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatchOptions};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::ipc::writer::IpcWriteOptions;
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use futures::stream::{BoxStream, Stream};
use futures::{StreamExt, TryStreamExt};
use tonic::Status;
use windrow_core::{Error, Result};
use windrow_planner::origin::column_of;

use crate::wire::to_status;

/// The prefix of what Flight SQL says of a column in its field's metadata.
const PREFIX: &str = "ARROW:FLIGHT:SQL:";

/// The schema for drivers: views become plain arrays unless `keep_views`, dictionaries their values, and each column says what SQL
/// calls it. What files say of themselves as a whole stays behind: it is about their columns, and pandas takes it for the result's.
pub(super) fn for_drivers(schema: &SchemaRef, keep_views: bool) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let wire = plain(field.data_type(), keep_views);
        // What cannot be cast goes as it is.
        let wire = if can_cast_types(field.data_type(), &wire) { wire } else { field.data_type().clone() };
        Arc::new(with_sql_metadata(field.as_ref().clone().with_data_type(wire)))
    });
    hydrated(&Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>())))
}

/// The columns of a table, each of which says of which.
pub(super) fn of_table(columns: &SchemaRef, table: (&str, &str, &str)) -> SchemaRef {
    Arc::new(Schema::new(columns.fields().iter().map(|field| column_of(field, table)).collect::<Vec<Field>>()))
}

/// The schema for our own clients, who know every type of Arrow's: only dictionaries become their values.
pub(super) fn hydrated(schema: &SchemaRef) -> SchemaRef {
    let encoder = FlightDataEncoderBuilder::new().with_schema(Arc::clone(schema)).build(futures::stream::empty());
    encoder.known_schema().unwrap_or_else(|| Arc::clone(schema))
}

/// The type that every driver reads.
fn plain(of: &DataType, keep_views: bool) -> DataType {
    let inner = |field: &FieldRef| {
        let wire = plain(field.data_type(), keep_views);
        Arc::new(field.as_ref().clone().with_data_type(wire))
    };
    match of {
        DataType::Utf8View if !keep_views => DataType::Utf8,
        DataType::BinaryView if !keep_views => DataType::Binary,
        DataType::Dictionary(_, values) => plain(values, keep_views),
        DataType::RunEndEncoded(_, values) => plain(values.data_type(), keep_views),
        DataType::List(field) => DataType::List(inner(field)),
        // The encoder declares large lists as lists.
        DataType::LargeList(field) => DataType::List(inner(field)),
        DataType::ListView(field) | DataType::LargeListView(field) if !keep_views => DataType::List(inner(field)),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(inner(field), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::Map(field, is_sorted) => DataType::Map(inner(field), *is_sorted),
        other => other.clone(),
    }
}

fn with_sql_metadata(field: Field) -> Field {
    let mut metadata = field.metadata().clone();
    let mut say = |key: &str, value: String| metadata.insert(format!("{PREFIX}{key}"), value);
    say("TYPE_NAME", type_name(field.data_type()).to_owned());
    if let Some((precision, scale)) = precision_and_scale(field.data_type()) {
        say("PRECISION", precision.to_string());
        say("SCALE", scale.to_string());
    }
    let is_text = matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    for (key, is_so) in
        [("IS_READ_ONLY", true), ("IS_SEARCHABLE", true), ("IS_CASE_SENSITIVE", is_text), ("IS_AUTO_INCREMENT", false)]
    {
        say(key, if is_so { "1" } else { "0" }.to_owned());
    }
    field.with_metadata(metadata)
}

/// What SQL calls a type.
pub(super) fn type_name(of: &DataType) -> &'static str {
    match of {
        DataType::Null => "NULL",
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => "DECIMAL",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "VARBINARY",
        DataType::FixedSizeBinary(_) => "BINARY",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => "ARRAY",
        DataType::Struct(_) => "STRUCT",
        DataType::Map(..) => "MAP",
        DataType::Union(..) => "UNION",
        DataType::Dictionary(_, values) => type_name(values),
        DataType::RunEndEncoded(_, values) => type_name(values.data_type()),
    }
}

/// Decimal digits of a number, and those of them after the point; of a time, those of its seconds' fraction.
fn precision_and_scale(of: &DataType) -> Option<(i32, i32)> {
    let fraction = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    Some(match of {
        DataType::Int8 | DataType::UInt8 => (3, 0),
        DataType::Int16 | DataType::UInt16 => (5, 0),
        DataType::Int32 | DataType::UInt32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::UInt64 => (20, 0),
        DataType::Float16 => (3, 0),
        DataType::Float32 => (7, 0),
        DataType::Float64 => (15, 0),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => (i32::from(*precision), i32::from(*scale)),
        DataType::Date32 | DataType::Date64 => (10, 0),
        DataType::Time32(unit) | DataType::Time64(unit) => (8 + fraction(unit), fraction(unit)),
        DataType::Timestamp(unit, _) => (19 + fraction(unit), fraction(unit)),
        _ => return None,
    })
}

/// Rows as messages: the schema at once, and each batch cast to it.
pub(crate) fn encode(
    schema: SchemaRef,
    rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
) -> BoxStream<'static, Result<FlightData, Status>> {
    let wire = Arc::clone(&schema);
    let rows = rows.map(move |batch| batch.and_then(|batch| to_wire(batch, &wire)));
    let rows = rows.map_err(|error| FlightError::from(to_status(&error)));
    FlightDataEncoderBuilder::new().with_schema(schema).build(rows).map_err(Status::from).boxed()
}

/// `batch` with the schema `wire`.
fn to_wire(batch: RecordBatch, wire: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == wire {
        return Ok(batch);
    }
    let unlike = |source| Error::internal("rows are not of the schema that was announced").with_source(source);
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let columns = batch.columns().iter().zip(wire.fields()).map(|(column, field)| {
        let is_same = column.data_type() == field.data_type() || !can_cast_types(column.data_type(), field.data_type());
        // What is of the same type up to dictionaries, and cannot be cast, is the encoder's to hydrate.
        if is_same { Ok(Arc::clone(column)) } else { cast_with_options(column, field.data_type(), &strict) }
    });
    let columns = columns.collect::<Result<Vec<ArrayRef>, _>>().map_err(unlike)?;
    let is_ready = columns.iter().zip(wire.fields()).all(|(column, field)| column.data_type() == field.data_type());
    let schema = if is_ready { Arc::clone(wire) } else { batch.schema() };
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(unlike)
}

/// A schema as a message of its own.
///
/// # Errors
/// `Internal` if it cannot be encoded.
pub(super) fn ipc(schema: &Schema) -> Result<Bytes> {
    let message: Result<IpcMessage, _> = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    let IpcMessage(bytes) = message
        .map_err(|source: arrow::error::ArrowError| Error::internal("a result's schema cannot be sent").with_source(source))?;
    Ok(bytes)
}
