//! SET, RESET and SHOW: the session's own settings and DataFusion's. Next: `statement.rs`.

use std::sync::{Arc, PoisonError};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use windrow_core::config::QueryConfig;
use windrow_core::error::nearest;
use windrow_core::{Error, ErrorKind, Result};

use super::{Inner, Planned};
use crate::catalog::CATALOG;
use crate::diagnose::ours;
use crate::physical;
use crate::sql::SettingStatement;

impl Inner {
    pub(super) fn setting(&self, statement: SettingStatement) -> Result<Planned> {
        let mut query = self.query.write().unwrap_or_else(PoisonError::into_inner);
        match statement {
            SettingStatement::Set { key, value } => query.set(&key, &value)?,
            SettingStatement::Reset { key } => {
                let default = QueryConfig::default().get(&key).unwrap_or_default();
                query.set(&key, &default)?;
            }
            SettingStatement::Show { key } => {
                let Some(value) = query.get(&key) else {
                    return Err(QueryConfig::default()
                        .set(&key, "")
                        .err()
                        .unwrap_or_else(|| Error::internal("a key without value")));
                };
                return setting_rows(&key, value);
            }
        }
        Ok(Planned::Rows { schema: Arc::new(Schema::empty()), batches: vec![] })
    }

    /// Settings that name something which must be there.
    pub(super) fn check_names(&self, key: &str, value: &str) -> Result<()> {
        match key.to_lowercase().as_str() {
            "datafusion.catalog.default_schema" => self.check_schema(value),
            "datafusion.catalog.default_catalog" => check_catalog(value),
            _ => Ok(()),
        }
    }
}

pub(super) fn names_catalog(setting: &str) -> bool {
    setting.eq_ignore_ascii_case("datafusion.catalog.default_catalog")
}

pub(super) fn check_catalog(catalog: &str) -> Result<()> {
    if catalog == CATALOG {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, format!("no catalog named '{catalog}'")).with_help(format!("there is one, '{CATALOG}'")))
}

/// Refuses what may not be set, and names that do not exist, with the nearest one.
pub(super) fn check_setting(name: &str, state: &SessionState) -> Result<(), DataFusionError> {
    let fail = |error: Error| Err(ours(error));
    let name = name.to_lowercase();
    if let Some((key, reason)) = physical::LOCKED.iter().find(|(key, _)| *key == name) {
        return fail(Error::new(ErrorKind::InvalidConfig, format!("{key} cannot be set: {reason}")));
    }
    let own = QueryConfig::KEYS.iter().map(|key| format!("windrow.query.{key}"));
    let known: Vec<String> = state.config_options().entries().into_iter().map(|entry| entry.key).chain(own).collect();
    let is_time_zone = ["timezone", "time.zone"].contains(&name.as_str());
    if is_time_zone || known.contains(&name) || !(name.starts_with("datafusion.") || name.starts_with("windrow.")) {
        return Ok(());
    }
    fail(
        Error::new(ErrorKind::InvalidConfig, format!("no setting named '{name}'"))
            .with_suggestion(nearest(&name, known.iter().map(String::as_str))),
    )
}

pub(crate) fn setting_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, false), Field::new("value", DataType::Utf8, false)]))
}

fn setting_rows(key: &str, value: String) -> Result<Planned> {
    use arrow::array::StringArray;
    let schema = setting_schema();
    let name = StringArray::from(vec![format!("windrow.query.{key}")]);
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(name), Arc::new(StringArray::from(vec![value]))])
        .map_err(|source| Error::internal("a setting does not fit its schema").with_source(source))?;
    Ok(Planned::Rows { schema, batches: vec![batch] })
}
