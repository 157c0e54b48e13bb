//! The types there are, as drivers list them. Next: `commands.rs`.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{CommandGetXdbcTypeInfo, Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};
use windrow_core::{Error, Result};

use super::metadata::unbuilt;

/// The schema of every answer to GetXdbcTypeInfo.
pub(super) fn schema() -> SchemaRef {
    XdbcTypeInfoDataBuilder::new().schema()
}

/// The answer to GetXdbcTypeInfo: one type, or all.
///
/// # Errors
/// `Internal` if it cannot be built.
pub(super) fn answer(query: CommandGetXdbcTypeInfo) -> Result<RecordBatch> {
    let types = TYPES.as_ref().ok_or_else(|| Error::internal("the list of types cannot be built"))?;
    query.into_builder(types).build().map_err(unbuilt)
}

static TYPES: LazyLock<Option<Arc<XdbcTypeInfoData>>> = LazyLock::new(|| {
    let mut types = XdbcTypeInfoDataBuilder::new();
    all().into_iter().for_each(|info| types.append(info));
    types.build().inspect_err(|error| tracing::error!(%error, "the list of types cannot be built")).ok().map(Arc::new)
});

fn all() -> Vec<XdbcTypeInfo> {
    let integers = [
        ("TINYINT", XdbcDataType::XdbcTinyint, 3),
        ("SMALLINT", XdbcDataType::XdbcSmallint, 5),
        ("INTEGER", XdbcDataType::XdbcInteger, 10),
        ("BIGINT", XdbcDataType::XdbcBigint, 19),
    ];
    let signed = integers.map(|(name, of, digits)| number(name.to_owned(), of, digits, false));
    let unsigned = integers.map(|(name, of, digits)| {
        let digits = if digits == 19 { 20 } else { digits };
        number(format!("{name} UNSIGNED"), of, digits, true)
    });
    let mut types: Vec<XdbcTypeInfo> = signed.into_iter().chain(unsigned).collect();
    types.push(number("REAL".to_owned(), XdbcDataType::XdbcReal, 7, false));
    types.push(number("DOUBLE".to_owned(), XdbcDataType::XdbcDouble, 15, false));
    types.push(XdbcTypeInfo {
        create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
        minimum_scale: Some(0),
        maximum_scale: Some(76),
        ..number("DECIMAL".to_owned(), XdbcDataType::XdbcDecimal, 76, false)
    });
    types.push(XdbcTypeInfo { searchable: Searchable::Full, ..plain("BOOLEAN", XdbcDataType::XdbcBit, Some(1)) });
    types.push(XdbcTypeInfo { case_sensitive: true, ..quoted("VARCHAR", XdbcDataType::XdbcVarchar, i32::MAX, "'") });
    types.push(quoted("VARBINARY", XdbcDataType::XdbcVarbinary, i32::MAX, "X'"));
    types.push(quoted("BINARY", XdbcDataType::XdbcBinary, i32::MAX, "X'"));
    types.push(moment("DATE", XdbcDataType::XdbcDate, 10, "DATE '", Some(XdbcDatetimeSubcode::XdbcSubcodeYear)));
    types.push(moment("TIME", XdbcDataType::XdbcTime, 18, "TIME '", Some(XdbcDatetimeSubcode::XdbcSubcodeTime)));
    let subcode = Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp);
    types.push(moment("TIMESTAMP", XdbcDataType::XdbcTimestamp, 29, "TIMESTAMP '", subcode));
    types.push(moment("TIMESTAMP WITH TIME ZONE", XdbcDataType::XdbcTimestamp, 35, "TIMESTAMP '", subcode));
    types.push(moment("INTERVAL", XdbcDataType::XdbcInterval, i32::MAX, "INTERVAL '", None));
    types
}

fn plain(name: &str, of: XdbcDataType, column_size: Option<i32>) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type: of,
        column_size,
        literal_prefix: None,
        literal_suffix: None,
        create_params: None,
        nullable: Nullable::NullabilityNullable,
        case_sensitive: false,
        searchable: Searchable::Full,
        unsigned_attribute: None,
        fixed_prec_scale: false,
        auto_increment: None,
        local_type_name: Some(name.to_owned()),
        minimum_scale: None,
        maximum_scale: None,
        sql_data_type: of,
        datetime_subcode: None,
        num_prec_radix: None,
        interval_precision: None,
    }
}

fn number(name: String, of: XdbcDataType, digits: i32, is_unsigned: bool) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(is_unsigned),
        auto_increment: Some(false),
        num_prec_radix: Some(10),
        ..plain(&name, of, Some(digits))
    }
}

fn quoted(name: &str, of: XdbcDataType, size: i32, prefix: &str) -> XdbcTypeInfo {
    let quote = Some("'".to_owned());
    XdbcTypeInfo { literal_prefix: Some(prefix.to_owned()), literal_suffix: quote, ..plain(name, of, Some(size)) }
}

fn moment(name: &str, of: XdbcDataType, size: i32, prefix: &str, subcode: Option<XdbcDatetimeSubcode>) -> XdbcTypeInfo {
    // ODBC numbers dates and times together.
    let sql_data_type = if subcode.is_some() { XdbcDataType::XdbcDatetime } else { of };
    XdbcTypeInfo { sql_data_type, datetime_subcode: subcode, ..quoted(name, of, size, prefix) }
}
