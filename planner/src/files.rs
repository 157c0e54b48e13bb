//! A file is a table: `FROM 'data/*.parquet'`, `'x.csv.gz'`, `'events.jsonl'`, hive-partitioned folders.
//!
//! Listing, schema inference and reading are DataFusion's; here a name becomes a location, a format and clear errors.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::CreateExternalTable;
use futures::{StreamExt, TryStreamExt};
use windrow_core::{Error, ErrorKind};

use crate::contain::contained_future;
use crate::diagnose::ours;
use crate::stores::{Stores, denial};

/// Files looked at to find the format of a folder. A folder may begin with markers and logs, but not with a thousand of them.
const FORMAT_PROBE_MAX: usize = 1_000;

/// Makes tables of paths for one statement.
#[derive(Debug)]
pub(crate) struct FileTables {
    state: SessionState,
    directory: String,
    stores: Arc<Stores>,
}

impl FileTables {
    /// Reads with the settings of `state`; relative paths start at `directory`, or at the working directory where it is empty.
    pub(crate) fn new(state: SessionState, directory: String, stores: Arc<Stores>) -> Self {
        Self { state, directory, stores }
    }

    /// The table of the file, folder or pattern `name`.
    pub(crate) async fn open(&self, name: &str) -> Result<Arc<dyn TableProvider>> {
        let location = locate(name, &self.directory);
        self.stores.policy().admit(name, &location).map_err(ours)?;
        let url = ListingTableUrl::parse(&location)
            .map_err(|source| ours(Error::new(ErrorKind::InvalidQuery, format!("'{name}' is not a path: {source}"))))?;
        let (format, suffix) = self.format(name, &url).await?;
        let options = ListingOptions::new(Arc::clone(&format)).with_file_extension(&suffix);
        let config = ListingTableConfig::new(url.clone()).with_listing_options(options);
        let inferred =
            contained_future(async { config.infer_partitions_from_path(&self.state).await?.infer_schema(&self.state).await });
        match inferred.await {
            Ok(config) => Ok(Arc::new(ListingTable::try_new(config)?)),
            Err(error) => {
                let named = unreadable(&self.state, &format, &url, &suffix).await;
                Err(named.unwrap_or_else(|| error.context(format!("reading the schema of '{name}'"))))
            }
        }
    }

    /// The format by the name's own ending, else by the first file found that has a known one.
    async fn format(&self, name: &str, url: &ListingTableUrl) -> Result<(Arc<dyn FileFormat>, String)> {
        let store = self.state.runtime_env().object_store(url)?;
        let mut files = url.list_all_files(&self.state, store.as_ref(), "").await?.take(FORMAT_PROBE_MAX);
        let mut first = None;
        while let Some(file) = files.try_next().await.map_err(|source| not_found(name, &source))? {
            let path = file.location.to_string();
            if let Some(found) = format_of(&path) {
                return Ok(found);
            }
            first.get_or_insert(path);
        }
        Err(match first {
            Some(path) => ours(
                Error::new(ErrorKind::InvalidQuery, format!("'{path}' has no known ending, so its format is unknown"))
                    .with_help("known are .parquet, .csv, .tsv, .json, .jsonl and .ndjson, the text ones also with .gz, .bz2, .xz, .zst; else use CREATE EXTERNAL TABLE"),
            ),
            None => ours(no_files(name)),
        })
    }
}

/// The file that keeps an external table from being created, if it is one.
pub(crate) async fn unreadable_table(table: &CreateExternalTable, state: &SessionState) -> Option<DataFusionError> {
    let format = state.get_file_format_factory(&table.file_type)?.create(state, &table.options).ok()?;
    for location in &table.locations {
        let url = ListingTableUrl::parse(location).ok()?;
        if let Some(named) = unreadable(state, &format, &url, "").await {
            return Some(named);
        }
    }
    None
}

/// The first file below `url` whose schema cannot be read, as the error that names it; `None` if each of them can be read alone.
pub(crate) async fn unreadable(
    state: &SessionState,
    format: &Arc<dyn FileFormat>,
    url: &ListingTableUrl,
    suffix: &str,
) -> Option<DataFusionError> {
    let store = state.runtime_env().object_store(url).ok()?;
    let mut files = url.list_all_files(state, store.as_ref(), suffix).await.ok()?;
    while let Some(file) = files.try_next().await.ok()? {
        let inferred = contained_future(format.infer_schema(state, &store, std::slice::from_ref(&file)));
        let Err(error) = inferred.await else { continue };
        let denied = matches!(&error, DataFusionError::ObjectStore(store) if matches!(
            store.as_ref(),
            object_store::Error::NotFound { .. }
                | object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. }
        ));
        // Otherwise the store has it, so it is the file: a Parquet file that is too short for its footer fails as a wrong range.
        let kind = if denied { ErrorKind::Denied } else { ErrorKind::Data };
        let path = format!("{}{}", root(url.object_store().as_str()), file.location);
        let what = match error {
            DataFusionError::External(source) => source.to_string(),
            error => error.strip_backtrace(),
        };
        return Some(ours(Error::new(kind, format!("reading {path}: {what}"))));
    }
    None
}

/// What stands before the paths of a store where people write them: `/`, `s3://bucket/`.
pub(crate) fn root(store: &str) -> &str {
    store.strip_prefix("file://").unwrap_or(store)
}

fn no_files(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no file matches '{name}'")).with_help(
        "relative paths start at the folder in which the program was started; SET windrow.query.directory changes that",
    )
}

fn not_found(name: &str, source: &DataFusionError) -> DataFusionError {
    if let Some(denied) = denial(source) {
        return ours(denied.clone());
    }
    match source {
        DataFusionError::ObjectStore(store) if matches!(store.as_ref(), object_store::Error::NotFound { .. }) => {
            ours(no_files(name))
        }
        other => ours(Error::new(ErrorKind::Unavailable, format!("'{name}' cannot be listed: {other}"))),
    }
}

/// Whether a table's name means a file: it has a folder, a pattern, a scheme, or a known ending.
pub(crate) fn looks_like_path(name: &str) -> bool {
    name.contains(['/', '*', '?']) || name.contains("://") || format_of(name).is_some()
}

/// An absolute path or a URL for `name`.
pub(crate) fn locate(name: &str, directory: &str) -> String {
    if directory.is_empty() || name.contains("://") || Path::new(name).is_absolute() {
        return name.to_owned();
    }
    // Not `Path::join(..).canonicalize()`: the name may hold a pattern.
    let name = name.strip_prefix("./").unwrap_or(name);
    format!("{}/{name}", directory.trim_end_matches('/'))
}

/// The format of a file by its ending, and the name of its compression: `x.csv.gz` is `csv`, `gzip`.
pub(crate) fn text_kind(path: &str) -> Option<(String, Option<&'static str>)> {
    format_of(path)?;
    let file = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let (stem, last) = file.rsplit_once('.')?;
    let compression = match last {
        "gz" | "gzip" => "gzip",
        "bz2" | "bzip2" => "bzip2",
        "xz" => "xz",
        "zst" | "zstd" => "zstd",
        kind => return Some((kind.to_owned(), None)),
    };
    Some((stem.rsplit_once('.')?.1.to_owned(), Some(compression)))
}

/// The format of a file by its ending, and the ending that the table's other files must have.
fn format_of(path: &str) -> Option<(Arc<dyn FileFormat>, String)> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let (stem, last) = file.rsplit_once('.')?;
    let compression = FileCompressionType::from_str(last).ok().filter(FileCompressionType::is_compressed);
    let (kind, compression, suffix) = match compression {
        Some(compression) => {
            let kind = stem.rsplit_once('.').map(|(_, kind)| kind)?;
            (kind, compression, format!(".{kind}.{last}"))
        }
        None => (last, FileCompressionType::UNCOMPRESSED, format!(".{last}")),
    };
    let csv = || CsvFormat::default().with_has_header(true).with_file_compression_type(compression);
    let format: Arc<dyn FileFormat> = match kind.to_ascii_lowercase().as_str() {
        "parquet" | "parq" if !compression.is_compressed() => Arc::new(ParquetFormat::default()),
        "csv" => Arc::new(csv()),
        "tsv" => Arc::new(csv().with_delimiter(b'\t')),
        "json" | "jsonl" | "ndjson" => Arc::new(JsonFormat::default().with_file_compression_type(compression)),
        _ => return None,
    };
    Some((format, suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_decide_the_format() {
        let suffix = |path: &str| format_of(path).map(|(format, suffix)| (format.get_ext(), suffix));
        assert_eq!(suffix("a/b.parquet"), Some(("parquet".into(), ".parquet".into())));
        assert_eq!(suffix("b.csv.gz").map(|found| found.1), Some(".csv.gz".into()));
        assert_eq!(suffix("b.tsv"), Some(("csv".into(), ".tsv".into())));
        assert_eq!(suffix("a.b/c.jsonl.zst").map(|found| found.1), Some(".jsonl.zst".into()));
        assert_eq!(suffix("b.txt"), None);
        assert_eq!(suffix("b.gz"), None);
    }

    #[test]
    fn tables_are_told_from_paths() {
        assert!(looks_like_path("data/*.parquet") && looks_like_path("x.csv.gz") && looks_like_path("s3://b/k"));
        assert!(!looks_like_path("lineitem") && !looks_like_path("weird.name"));
        assert_eq!(locate("./x.csv", "/home/u/"), "/home/u/x.csv");
        assert_eq!(locate("/x.csv", "/home/u"), "/x.csv");
        assert_eq!(locate("s3://b/x.csv", "/home/u"), "s3://b/x.csv");
    }
}
