//! The formats that are written, with DataFusion's options for them, as they travel to executors. Next: `exec.rs`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use bytes::Bytes;
use datafusion::common::config::{CsvOptions, JsonOptions, TableParquetOptions};
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::error::{DataFusionError, Result};
use datafusion_proto::protobuf;
use prost::Message;
use serde::{Deserialize, Serialize};
use windrow_core::{Error, ErrorKind};

use crate::codec::wire::decode_message;
use crate::diagnose::ours;

/// A format and its options, each as the message that DataFusion has for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Format {
    Parquet(Bytes),
    Csv(Bytes),
    Json(Bytes),
}

/// As [`Format`], decoded.
#[derive(Debug)]
pub(crate) enum Options {
    Parquet(Box<TableParquetOptions>),
    Csv(Box<CsvOptions>),
    Json(JsonOptions),
}

impl Format {
    /// The format of DataFusion's `format`. `has_header` is for CSV whose options leave it open.
    ///
    /// # Errors
    /// `Unsupported` for another format, and for options that cannot be sent to an executor.
    pub(crate) fn of(format: &Arc<dyn FileFormat>, has_header: bool) -> Result<Self> {
        let found = if let Some(parquet) = format.downcast_ref::<ParquetFormat>() {
            let options = Some(parquet.options().try_into()?);
            Self::Parquet(protobuf::ParquetFormat { options }.encode_to_vec().into())
        } else if let Some(csv) = format.downcast_ref::<CsvFormat>() {
            let mut options = csv.options().clone();
            options.has_header = options.has_header.or(Some(has_header));
            let options = Some((&options).try_into()?);
            Self::Csv(protobuf::CsvFormat { options }.encode_to_vec().into())
        } else if let Some(json) = format.downcast_ref::<JsonFormat>() {
            if !json.options().newline_delimited {
                return Err(unsupported("writing a JSON array is not supported; write JSON lines"));
            }
            let options = Some(json.options().try_into()?);
            Self::Json(protobuf::NdJsonFormat { options }.encode_to_vec().into())
        } else {
            return Err(unsupported(&format!("writing {} files is not supported", format.get_ext())));
        };
        found.check(format)?;
        Ok(found)
    }

    /// Nothing that decides what is written may be lost on the way.
    fn check(&self, format: &Arc<dyn FileFormat>) -> Result<()> {
        let is_kept = match (self.options()?, format.downcast_ref::<ParquetFormat>(), format.downcast_ref::<CsvFormat>()) {
            (Options::Parquet(decoded), Some(parquet), _) => {
                let (mut decoded, mut given) = (*decoded, parquet.options().clone());
                decoded.key_value_metadata.clear();
                given.key_value_metadata.clear();
                format!("{:?}", decoded.global.compression) == format!("{:?}", given.global.compression)
                    && decoded.column_specific_options.len() == given.column_specific_options.len()
            }
            (Options::Csv(decoded), _, Some(csv)) => {
                let mut given = csv.options().clone();
                given.has_header = decoded.has_header;
                format!("{decoded:?}") == format!("{given:?}")
            }
            _ => true,
        };
        if is_kept { Ok(()) } else { Err(unsupported("an option of this format cannot be sent to executors")) }
    }

    /// The options.
    ///
    /// # Errors
    /// `Internal` if they do not decode.
    pub(crate) fn options(&self) -> Result<Options> {
        Ok(match self {
            Self::Parquet(bytes) => {
                let message: protobuf::ParquetFormat = decode_message(bytes)?;
                Options::Parquet(Box::new((&message.options.unwrap_or_default()).try_into()?))
            }
            Self::Csv(bytes) => {
                let message: protobuf::CsvFormat = decode_message(bytes)?;
                Options::Csv(Box::new((&message.options.unwrap_or_default()).try_into()?))
            }
            Self::Json(bytes) => {
                let message: protobuf::NdJsonFormat = decode_message(bytes)?;
                Options::Json((&message.options.unwrap_or_default()).try_into()?)
            }
        })
    }

    /// What file names end with: `.parquet`, `.csv.gz`.
    ///
    /// # Errors
    /// As [`Self::options`].
    pub(crate) fn ending(&self) -> Result<String> {
        Ok(match self.options()? {
            Options::Parquet(_) => ".parquet".to_owned(),
            Options::Csv(options) => format!(".csv{}", compressed_ending(options.compression)),
            Options::Json(options) => format!(".json{}", compressed_ending(options.compression)),
        })
    }

    /// The name of the format, as people write it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Parquet(_) => "Parquet",
            Self::Csv(_) => "CSV",
            Self::Json(_) => "JSON",
        }
    }

    /// Refuses columns that the format has no form for.
    ///
    /// # Errors
    /// `Unsupported`, naming the column.
    pub(crate) fn check_columns(&self, schema: &Schema) -> Result<()> {
        let refused = schema.fields().iter().find(|field| match self {
            Self::Parquet(_) => has(field.data_type(), &|of| {
                matches!(of, DataType::Union(..) | DataType::Interval(_) | DataType::RunEndEncoded(..))
            }),
            Self::Csv(_) => field.data_type().is_nested(),
            Self::Json(_) => has(field.data_type(), &|of| matches!(of, DataType::Union(..) | DataType::Interval(_))),
        });
        let Some(field) = refused else { return Ok(()) };
        let what =
            format!("column '{}' has the type {}, which {} files cannot hold", field.name(), field.data_type(), self.name());
        Err(ours(Error::unsupported(what).with_help("cast it to a string, or write another format")))
    }
}

/// Whether a type or one inside of it is one that `matches`.
fn has(of: &DataType, matches: &dyn Fn(&DataType) -> bool) -> bool {
    let inner = |fields: &[&arrow::datatypes::FieldRef]| fields.iter().any(|field| has(field.data_type(), matches));
    matches(of)
        || match of {
            DataType::List(field)
            | DataType::LargeList(field)
            | DataType::ListView(field)
            | DataType::LargeListView(field)
            | DataType::FixedSizeList(field, _)
            | DataType::Map(field, _) => inner(&[field]),
            DataType::Struct(fields) => fields.iter().any(|field| has(field.data_type(), matches)),
            DataType::Dictionary(_, value) => has(value, matches),
            _ => false,
        }
}

fn compressed_ending(compression: CompressionTypeVariant) -> &'static str {
    match compression {
        CompressionTypeVariant::GZIP => ".gz",
        CompressionTypeVariant::BZIP2 => ".bz2",
        CompressionTypeVariant::XZ => ".xz",
        CompressionTypeVariant::ZSTD => ".zst",
        CompressionTypeVariant::UNCOMPRESSED => "",
    }
}

/// The compression of a whole text file.
pub(crate) fn whole_file(compression: CompressionTypeVariant) -> FileCompressionType {
    FileCompressionType::from(compression)
}

fn unsupported(what: &str) -> DataFusionError {
    ours(Error::new(ErrorKind::Unsupported, what))
}
