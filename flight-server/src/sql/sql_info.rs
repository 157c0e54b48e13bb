//! What the server says of itself: every code of the protocol, each with a value of the type that drivers cast it to. Next:
//! `type_info.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, IntervalUnit, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{CommandGetSqlInfo, SqlInfo};
use datafusion::sql::sqlparser::keywords::{Keyword, RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_ALIAS};
use windrow_core::Result;
use windrow_planner::TEXT_BYTES_MAX;

use super::metadata::unbuilt;
use crate::session::CoordinatorSession;

/// Words that only the parser reserves among those that SQL:2003 has too: drivers quote the standard's by themselves.
const STANDARD: [&str; 38] = [
    "WITH",
    "SELECT",
    "WHERE",
    "GROUP",
    "HAVING",
    "ORDER",
    "LATERAL",
    "FETCH",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "ON",
    "JOIN",
    "INNER",
    "CROSS",
    "FULL",
    "LEFT",
    "RIGHT",
    "NATURAL",
    "USING",
    "GLOBAL",
    "OUTER",
    "SET",
    "WINDOW",
    "END",
    "FOR",
    "PARTITION",
    "ARRAY",
    "START",
    "CONNECT",
    "TABLESAMPLE",
    "FROM",
    "OPEN",
    "VALUES",
    "INTO",
    "VIEW",
    "OUTPUT",
    "MATCH",
];

/// Types in the protocol's numbering of conversions, as Arrow has them.
const CONVERTED: [(i32, DataType); 20] = [
    (0, DataType::Int64),
    (1, DataType::FixedSizeBinary(16)),
    (2, DataType::Boolean),
    (3, DataType::Utf8),
    (4, DataType::Date32),
    (5, DataType::Decimal128(38, 10)),
    (6, DataType::Float64),
    (7, DataType::Int32),
    (8, DataType::Interval(IntervalUnit::DayTime)),
    (9, DataType::Interval(IntervalUnit::YearMonth)),
    (10, DataType::LargeBinary),
    (11, DataType::LargeUtf8),
    (12, DataType::Decimal128(38, 10)),
    (13, DataType::Float32),
    (14, DataType::Int16),
    (15, DataType::Time64(TimeUnit::Nanosecond)),
    (16, DataType::Timestamp(TimeUnit::Nanosecond, None)),
    (17, DataType::Int8),
    (18, DataType::Binary),
    (19, DataType::Utf8),
];

/// The schema of every answer to GetSqlInfo.
pub(super) fn schema() -> SchemaRef {
    Arc::new(SqlInfoDataBuilder::schema().clone())
}

/// The answer to GetSqlInfo: what is asked for, or everything.
///
/// # Errors
/// `Internal` if it cannot be built.
pub(super) fn answer(query: CommandGetSqlInfo, session: &CoordinatorSession, is_read_only: bool) -> Result<RecordBatch> {
    query.into_builder(&everything(session, is_read_only)?).build().map_err(unbuilt)
}

/// Every code with its value.
fn everything(session: &CoordinatorSession, is_read_only: bool) -> Result<SqlInfoData> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerReadOnly, is_read_only);
    let plans = session.planner().substrait_versions();
    info.append(SqlInfo::FlightSqlServerSubstrait, plans.is_some());
    // Empty where no plans are taken.
    let (oldest, newest) = plans.unwrap_or_default();
    info.append(SqlInfo::FlightSqlServerSubstraitMinVersion, oldest.as_str());
    info.append(SqlInfo::FlightSqlServerSubstraitMaxVersion, newest.as_str());
    texts(&mut info);
    switches(&mut info);
    masks(&mut info);
    limits(&mut info);
    lists(&mut info, session);
    info.build().map_err(unbuilt)
}

fn texts(info: &mut SqlInfoDataBuilder) {
    for (code, value) in [
        (SqlInfo::FlightSqlServerName, "Windrow"),
        (SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION")),
        (SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION),
        (SqlInfo::SqlIdentifierQuoteChar, "\""),
        (SqlInfo::SqlSearchStringEscape, "\\"),
        (SqlInfo::SqlExtraNameCharacters, "@#$"),
        (SqlInfo::SqlSchemaTerm, "schema"),
        (SqlInfo::SqlProcedureTerm, "procedure"),
        (SqlInfo::SqlCatalogTerm, "catalog"),
    ] {
        info.append(code, value);
    }
}

fn switches(info: &mut SqlInfoDataBuilder) {
    let yes = [
        SqlInfo::FlightSqlServerSql,
        SqlInfo::FlightSqlServerCancel,
        SqlInfo::FlightSqlServerBulkIngestion,
        SqlInfo::SqlDdlSchema,
        SqlInfo::SqlDdlTable,
        SqlInfo::SqlAllTablesAreSelectable,
        SqlInfo::SqlSupportsColumnAliasing,
        SqlInfo::SqlNullPlusNullIsNull,
        SqlInfo::SqlSupportsTableCorrelationNames,
        SqlInfo::SqlSupportsExpressionsInOrderBy,
        SqlInfo::SqlSupportsOrderByUnrelated,
        SqlInfo::SqlSupportsLikeEscapeClause,
        SqlInfo::SqlSupportsNonNullableColumns,
        SqlInfo::SqlCatalogAtStart,
        SqlInfo::SqlCorrelatedSubqueriesSupported,
        SqlInfo::SqlMaxRowSizeIncludesBlobs,
        SqlInfo::SqlBatchUpdatesSupported,
    ];
    let no = [
        SqlInfo::FlightSqlServerIngestTransactionsSupported,
        SqlInfo::SqlDdlCatalog,
        SqlInfo::SqlSupportsDifferentTableCorrelationNames,
        SqlInfo::SqlSupportsIntegrityEnhancementFacility,
        SqlInfo::SqlSelectForUpdateSupported,
        SqlInfo::SqlStoredProceduresSupported,
        SqlInfo::SqlTransactionsSupported,
        SqlInfo::SqlDataDefinitionCausesTransactionCommit,
        SqlInfo::SqlDataDefinitionsInTransactionsIgnored,
        SqlInfo::SqlSavepointsSupported,
        SqlInfo::SqlNamedParametersSupported,
        SqlInfo::SqlLocatorsUpdateCopy,
        SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported,
    ];
    yes.into_iter().for_each(|code| info.append(code, true));
    no.into_iter().for_each(|code| info.append(code, false));
}

/// Ordinals and masks of bits.
fn masks(info: &mut SqlInfoDataBuilder) {
    for (code, value) in [
        (SqlInfo::FlightSqlServerTransaction, 0),
        (SqlInfo::FlightSqlServerStatementTimeout, 0),
        (SqlInfo::FlightSqlServerTransactionTimeout, 0),
        // GROUP BY what is not selected, and beyond what is.
        (SqlInfo::SqlSupportedGroupBy, 3),
        // Minimum and core grammar.
        (SqlInfo::SqlSupportedGrammar, 3),
        // Entry level.
        (SqlInfo::SqlAnsi92SupportedLevel, 1),
        // Drivers test the bits of full and limited outer joins, though the protocol has ordinals.
        (SqlInfo::SqlOuterJoinsSupportLevel, 6),
        (SqlInfo::SqlSchemasSupportedActions, 0),
        (SqlInfo::SqlCatalogsSupportedActions, 0),
        (SqlInfo::SqlSupportedPositionedCommands, 0),
        // In comparisons, in EXISTS, in IN; not in quantified comparisons.
        (SqlInfo::SqlSupportedSubqueries, 7),
        // UNION and UNION ALL.
        (SqlInfo::SqlSupportedUnions, 3),
        // None.
        (SqlInfo::SqlSupportedTransactionsIsolationLevels, 1),
        // Forward only, read only.
        (SqlInfo::SqlSupportedResultSetTypes, 2),
        (SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified, 0),
        (SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, 2),
        (SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0),
        (SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0),
    ] {
        info.append(code, value);
    }
}

/// Numbers of 64 bits; a limit of 0 is none.
fn limits(info: &mut SqlInfoDataBuilder) {
    let unlimited = [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ];
    unlimited.into_iter().for_each(|code| info.append(code, 0_i64));
    info.append(SqlInfo::SqlMaxStatementLength, TEXT_BYTES_MAX as i64);
    // Unquoted names become lower case, quoted ones stay; nulls are larger than everything; there are no transactions. The protocol
    // says 32 bits for these four, and drivers read 64.
    info.append(SqlInfo::SqlIdentifierCase, 3_i64);
    info.append(SqlInfo::SqlQuotedIdentifierCase, 0_i64);
    info.append(SqlInfo::SqlNullOrdering, 0_i64);
    info.append(SqlInfo::SqlDefaultTransactionIsolation, 0_i64);
}

fn lists(info: &mut SqlInfoDataBuilder, session: &CoordinatorSession) {
    let functions = session.planner().functions();
    let under = |headings: &[&str]| -> Vec<String> {
        let own = functions.iter().filter(|(heading, _)| headings.contains(heading));
        own.map(|(_, name)| name.to_uppercase()).collect()
    };
    info.append(SqlInfo::SqlKeywords, keywords());
    info.append(SqlInfo::SqlNumericFunctions, under(&["Math Functions"]));
    let text = ["String Functions", "Binary String Functions", "Regular Expression Functions"];
    info.append(SqlInfo::SqlStringFunctions, under(&text));
    info.append(SqlInfo::SqlSystemFunctions, under(&["Other Functions", "Conditional Functions", "Hashing Functions"]));
    info.append(SqlInfo::SqlDatetimeFunctions, under(&["Time and Date Functions"]));
    let casts = |from: &DataType| -> Vec<i32> {
        CONVERTED.iter().filter(|(_, to)| can_cast_types(from, to)).map(|(code, _)| *code).collect()
    };
    let conversions: BTreeMap<i32, Vec<i32>> = CONVERTED.iter().map(|(code, from)| (*code, casts(from))).collect();
    info.append(SqlInfo::SqlSupportsConvert, conversions);
}

/// Words that cannot be names without quotes, beyond those of SQL:2003.
fn keywords() -> Vec<String> {
    let reserved = RESERVED_FOR_TABLE_ALIAS.iter().chain(RESERVED_FOR_COLUMN_ALIAS);
    let mut words: Vec<String> = reserved.map(|word: &Keyword| format!("{word:?}")).collect();
    words.retain(|word| !STANDARD.contains(&word.as_str()));
    words.sort_unstable();
    words.dedup();
    words
}
