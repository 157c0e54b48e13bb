//! What clients ask about the catalog: commands whose answer is one batch, and which are their own tickets. No data file is opened
//! for any of it. Next: `sql_info.rs`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{Any, Command, CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables};
use prost::Message;
use tonic::Status;
use windrow_core::{Error, Result};
use windrow_planner::TableKind;

use super::{sql_info, type_info, wire_schema};
use crate::session::CoordinatorSession;

/// The command in the bytes of a descriptor or a ticket.
pub(super) fn command(bytes: &[u8]) -> Result<Command, Status> {
    let any = Any::decode(bytes).map_err(|error| Status::invalid_argument(format!("not a command of Flight SQL: {error}")))?;
    Command::try_from(any).map_err(|error| Status::invalid_argument(format!("not a command of Flight SQL: {error}")))
}

/// The schema of a command's answer; `None` if it is not about metadata.
pub(super) fn schema(command: &Command) -> Option<SchemaRef> {
    let schema = match command {
        Command::CommandGetCatalogs(query) => query.into_builder().schema(),
        Command::CommandGetDbSchemas(query) => query.clone().into_builder().schema(),
        Command::CommandGetTables(query) => query.clone().into_builder().schema(),
        Command::CommandGetTableTypes(query) => query.into_builder().schema(),
        Command::CommandGetSqlInfo(_) => sql_info::schema(),
        Command::CommandGetXdbcTypeInfo(_) => type_info::schema(),
        Command::CommandGetPrimaryKeys(_) => primary_keys(),
        Command::CommandGetExportedKeys(_) | Command::CommandGetImportedKeys(_) | Command::CommandGetCrossReference(_) => {
            foreign_keys()
        }
        _ => return None,
    };
    // As it is before the rows.
    Some(wire_schema::hydrated(&schema))
}

/// The answer to a command about metadata; `None` if it is not one. `is_read_only` says whether the caller may only read.
///
/// # Errors
/// `Internal` if the catalog cannot be read.
pub(super) async fn answer(command: Command, session: &CoordinatorSession, is_read_only: bool) -> Result<Option<RecordBatch>> {
    let schema = schema(&command);
    Ok(Some(match command {
        Command::CommandGetCatalogs(query) => catalogs(query, session)?,
        Command::CommandGetDbSchemas(query) => schemas(query, session)?,
        Command::CommandGetTables(query) => tables(query, session).await?,
        Command::CommandGetTableTypes(query) => table_types(query)?,
        Command::CommandGetSqlInfo(query) => sql_info::answer(query, session, is_read_only)?,
        Command::CommandGetXdbcTypeInfo(query) => type_info::answer(query)?,
        // No table declares keys.
        _ => match schema {
            Some(schema) => RecordBatch::new_empty(schema),
            None => return Ok(None),
        },
    }))
}

fn catalogs(query: CommandGetCatalogs, session: &CoordinatorSession) -> Result<RecordBatch> {
    let mut builder = query.into_builder();
    session.planner().catalogs().into_iter().for_each(|(catalog, _)| builder.append(catalog));
    builder.build().map_err(unbuilt)
}

fn schemas(query: CommandGetDbSchemas, session: &CoordinatorSession) -> Result<RecordBatch> {
    let mut builder = query.into_builder();
    for (catalog, schemas) in session.planner().catalogs() {
        schemas.into_iter().for_each(|schema| builder.append(&catalog, schema));
    }
    builder.build().map_err(unbuilt)
}

fn table_types(query: CommandGetTableTypes) -> Result<RecordBatch> {
    let mut builder = query.into_builder();
    TableKind::ALL.into_iter().for_each(|kind| builder.append(kind.name()));
    builder.build().map_err(unbuilt)
}

async fn tables(query: CommandGetTables, session: &CoordinatorSession) -> Result<RecordBatch> {
    let mut builder = query.into_builder();
    let keep_views = session.planner().query_settings().wire_views;
    let none = Schema::empty();
    for table in session.planner().tables(builder.include_schema()).await? {
        let of_table = (table.catalog.as_str(), table.schema.as_str(), table.name.as_str());
        let columns =
            table.columns.map(|columns| wire_schema::for_drivers(&wire_schema::of_table(&columns, of_table), keep_views));
        let columns = columns.as_deref().unwrap_or(&none);
        builder.append(table.catalog, table.schema, table.name, table.kind.name(), columns).map_err(unbuilt)?;
    }
    builder.build().map_err(unbuilt)
}

fn primary_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

fn foreign_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

/// An answer that did not come together.
pub(super) fn unbuilt(source: FlightError) -> Error {
    Error::internal("an answer about the catalog cannot be built").with_source(source)
}
