//! What clients ask about the server and its catalog. Next: `door.rs`.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, SqlInfo,
};
use windrow_core::{Error, Result};

use crate::session::CoordinatorSession;

/// DataFusion's names of the only catalog and schema that sessions have.
const CATALOG: &str = "datafusion";
const SCHEMA: &str = "public";

/// The kinds of tables there are.
const TABLE: &str = "TABLE";

/// The answer to GetCatalogs.
pub(super) fn catalogs(query: CommandGetCatalogs) -> Result<RecordBatch> {
    let mut builder = query.into_builder();
    builder.append(CATALOG);
    builder.build().map_err(unbuilt)
}

/// The answer to GetDbSchemas.
pub(super) fn schemas(query: CommandGetDbSchemas) -> Result<RecordBatch> {
    let mut builder = query.into_builder();
    builder.append(CATALOG, SCHEMA);
    builder.build().map_err(unbuilt)
}

/// The answer to GetTableTypes.
pub(super) fn table_types(query: CommandGetTableTypes) -> Result<RecordBatch> {
    let mut builder = query.into_builder();
    builder.append(TABLE);
    builder.build().map_err(unbuilt)
}

/// The answer to GetTables. Schemas are read only where they are asked for.
pub(super) async fn tables(query: CommandGetTables, session: &CoordinatorSession) -> Result<RecordBatch> {
    let mut builder = query.into_builder();
    let empty = arrow::datatypes::Schema::empty();
    for (table, _columns) in session.names().await?.tables {
        let schema = if builder.include_schema() {
            let quoted = table.replace('"', "\"\"");
            Some(session.schema(&format!("SELECT * FROM \"{quoted}\"")).await?)
        } else {
            None
        };
        builder.append(CATALOG, SCHEMA, &table, TABLE, schema.as_deref().unwrap_or(&empty)).map_err(unbuilt)?;
    }
    builder.build().map_err(unbuilt)
}

/// The answer to GetSqlInfo.
pub(super) fn sql_info(query: CommandGetSqlInfo) -> Result<RecordBatch> {
    let info = SQL_INFO.as_ref().ok_or_else(|| Error::internal("no information about the server"))?;
    query.into_builder(info).build().map_err(unbuilt)
}

/// The schema of every answer to GetSqlInfo.
pub(super) fn sql_info_schema() -> SchemaRef {
    Arc::new(SqlInfoDataBuilder::schema().clone())
}

/// What the server says of itself. Values are of the types that drivers cast them to.
static SQL_INFO: LazyLock<Option<SqlInfoData>> = LazyLock::new(|| {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Windrow");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    info.append(SqlInfo::FlightSqlServerReadOnly, false);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, 0i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, 0i32);
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0i32);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.build().inspect_err(|error| tracing::error!(%error, "the server's information cannot be built")).ok()
});

fn unbuilt(source: FlightError) -> Error {
    Error::internal("an answer about the catalog cannot be built").with_source(source)
}
