//! What COPY may add to a folder: rows that are read together with those that are there. Next: `publish.rs`.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::DFSchema;
use datafusion::datasource::file_format::FileFormat;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use windrow_core::{Error, ErrorKind};

use super::publish::store_error;
use super::target::{Target, files_below};
use crate::diagnose::ours;

/// Files of a folder among which one with rows is looked for.
const LOOKED_AT: usize = 100;

/// Refuses rows that could not be read together with one of the files at `target`: of another format, in folders of other columns, or with
/// columns of the same name and another type. A folder without files takes any.
pub(super) async fn fits(
    rows: &DFSchema,
    keys: &[String],
    format: &Arc<dyn FileFormat>,
    store: &Arc<dyn ObjectStore>,
    target: &Target,
    state: &SessionState,
) -> Result<()> {
    let failed = |error: object_store::Error| ours(store_error(&format!("looking at '{}'", target.name()), &error));
    let found = files_below(store.as_ref(), &target.path, LOOKED_AT).await.map_err(failed)?;
    // Marks that other writers leave, such as `_SUCCESS`, are no rows.
    let is_mark = |file: &&Path| file.filename().is_none_or(|name| name.starts_with(['_', '.']));
    let Some(file) = found.iter().find(|file| !is_mark(file)) else { return Ok(()) };
    let differs = |what: String, help: String| {
        let error = Error::new(ErrorKind::InvalidQuery, format!("these rows cannot be added to '{}': {what}", target.name()));
        Err(ours(error.with_help(help)))
    };
    let folders = folders_of(file, &target.path);
    if folders != keys {
        let said = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let what = format!("its folders are named after {}, these would be named after {}", said(&folders), said(keys));
        return differs(what, "partition them as the rows that are there".to_owned());
    }
    let ending = format.get_ext();
    if !file.filename().is_some_and(|name| name.split('.').any(|part| part == ending)) {
        return differs(
            format!("'{}' is there, which is no {ending}", file),
            "write them in the format of the files that are there".to_owned(),
        );
    }
    if ending == "json" {
        // Which types its values are of is only guessed from a part of them.
        return Ok(());
    }
    let there = format.infer_schema(state, store, &[store.head(file).await.map_err(failed)?]).await?;
    let kept: Vec<usize> = (0..rows.fields().len()).filter(|&index| !keys.contains(rows.field(index).name())).collect();
    match unlike(&rows.as_arrow().project(&kept)?, &there, ending == "csv") {
        Some(what) => differs(what, "rename or cast the columns".to_owned()),
        None => Ok(()),
    }
}

/// The columns that the folders between `folder` and a file are named after, from the outermost.
fn folders_of(file: &Path, folder: &Path) -> Vec<String> {
    let parts: Vec<_> = file.prefix_match(folder).into_iter().flatten().collect();
    let folders = parts.iter().take(parts.len().saturating_sub(1));
    folders.filter_map(|part| part.as_ref().split_once('=').map(|(name, _)| name.to_owned())).collect()
}

/// What keeps rows of these columns from being read with those that are there. Text has no types, and its columns are told by place.
fn unlike(rows: &Schema, there: &Schema, is_text: bool) -> Option<String> {
    if is_text {
        let names = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let (ours, theirs) = (names(rows), names(there));
        return (ours != theirs).then(|| format!("its columns are {}, these are {}", theirs.join(", "), ours.join(", ")));
    }
    rows.fields().iter().find_map(|field| {
        let there = there.field_with_name(field.name()).ok()?;
        // Readers take texts of either layout, but no numbers of another precision.
        let is_alike = match field.data_type() {
            of if of.is_decimal() || of.is_temporal() => of == there.data_type(),
            of => DFSchema::datatype_is_logically_equal(there.data_type(), of),
        };
        (!is_alike).then(|| format!("its column '{}' is {}, and this one {}", field.name(), there.data_type(), field.data_type()))
    })
}
