//! Files as a client describes them, and the table that they are in a session. Next: `size.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use windrow_core::{Error, ErrorKind};

use crate::contain::contained_future;
use crate::diagnose::ours;
use crate::files::{locate, text_kind, unreadable};
use crate::stores::{Stores, denial};

/// Files, folders and patterns of one format, read as one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadFiles {
    /// How they are read.
    pub format: FileFormatOptions,
    /// Files, folders that end with `/`, patterns with `*` and `?`, and URLs of stores, all in one store. Relative paths begin at the
    /// session's folder.
    pub paths: Vec<String>,
    /// The columns that are in the files; without them, they are found out.
    pub schema: Option<SchemaRef>,
    /// Columns that folders are named after, as in `year=2026/`, from the outermost; without them, they are found out, as text.
    pub hive_partitions: Vec<(String, DataType)>,
    /// What file names in folders end with; without it, what those of the format do.
    pub extension: Option<String>,
    /// Further options, by the names that CREATE EXTERNAL TABLE has for them without `format.`: `null_regex`, `date_format`.
    pub options: Vec<(String, String)>,
}

/// The format of files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileFormatOptions {
    /// Parquet.
    #[default]
    Parquet,
    /// Text, a row a line and values between delimiters. Compressed files are known by their endings.
    Csv {
        /// Whether the first line of each file names the columns.
        has_header: bool,
        /// What divides values.
        delimiter: u8,
        /// What surrounds values that have delimiters in them.
        quote: u8,
        /// What stands before a quote that belongs to a value; without it, such quotes are doubled.
        escape: Option<u8>,
        /// What begins lines that are left out.
        comment: Option<u8>,
    },
    /// JSON values, one a line. Compressed files are known by their endings.
    Json,
    /// Arrow IPC files.
    Arrow,
}

impl FileFormatOptions {
    /// CSV with a header, commas and double quotes.
    #[must_use]
    pub fn csv() -> Self {
        Self::Csv { has_header: true, delimiter: b',', quote: b'"', escape: None, comment: None }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv { .. } => "csv",
            Self::Json => "json",
            Self::Arrow => "arrow",
        }
    }

    fn options(&self) -> Vec<(String, String)> {
        let Self::Csv { has_header, delimiter, quote, escape, comment } = self else { return Vec::new() };
        let letter = |byte: &u8| char::from(*byte).to_string();
        let mut options = vec![
            ("has_header".to_owned(), has_header.to_string()),
            ("delimiter".to_owned(), letter(delimiter)),
            ("quote".to_owned(), letter(quote)),
        ];
        options.extend(escape.iter().map(|escape| ("escape".to_owned(), letter(escape))));
        options.extend(comment.iter().map(|comment| ("comment".to_owned(), letter(comment))));
        options
    }
}

impl ReadFiles {
    /// What plans show.
    pub(super) fn name(&self) -> String {
        let first = self.paths.first().map_or("", |path| path.trim_end_matches('/'));
        let name = first.rsplit('/').next().unwrap_or(first);
        let stem = name.split(['.', '*', '?']).next().unwrap_or(name);
        if stem.is_empty() { "files".to_owned() } else { stem.to_owned() }
    }

    /// The table of the files, each of which must be where `stores` allow it; relative paths begin at `directory`.
    pub(super) async fn open(&self, state: &SessionState, directory: &str, stores: &Stores) -> Result<Arc<dyn TableProvider>> {
        let urls = self.urls(directory, stores)?;
        let format = self.format(state)?;
        let suffix = self.suffix(&urls, &format);
        self.check_found(&urls, state, &suffix).await?;
        let options = ListingOptions::new(Arc::clone(&format)).with_file_extension(&suffix);
        let options = options.with_table_partition_cols(self.hive_partitions.clone());
        let config = ListingTableConfig::new_with_multi_paths(urls.clone()).with_listing_options(options);
        let described = contained_future(async {
            let config = if self.hive_partitions.is_empty() { config.infer_partitions_from_path(state).await? } else { config };
            match self.columns() {
                Some(columns) => Ok(config.with_schema(columns)),
                None => config.infer_schema(state).await,
            }
        });
        match described.await {
            Ok(config) => Ok(Arc::new(ListingTable::try_new(config)?)),
            Err(error) => {
                for url in &urls {
                    if let Some(named) = unreadable(state, &format, url, &suffix).await {
                        return Err(named);
                    }
                }
                Err(error.context(format!("reading the schema of {}", self.paths.join(", "))))
            }
        }
    }

    /// The columns in the files: those that folders are named after are not.
    fn columns(&self) -> Option<SchemaRef> {
        let schema = self.schema.as_ref()?;
        let of_folders = |name: &str| self.hive_partitions.iter().any(|(column, _)| column == name);
        let fields: Vec<_> = schema.fields().iter().filter(|field| !of_folders(field.name())).cloned().collect();
        Some(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
    }

    fn urls(&self, directory: &str, stores: &Stores) -> Result<Vec<ListingTableUrl>> {
        let mut urls: Vec<ListingTableUrl> = Vec::new();
        for path in &self.paths {
            let location = locate(path, directory);
            stores.policy().admit(path, &location).map_err(ours)?;
            let url = ListingTableUrl::parse(&location)
                .map_err(|source| ours(Error::new(ErrorKind::InvalidQuery, format!("'{path}' is not a path: {source}"))))?;
            if urls.first().is_some_and(|first| first.object_store() != url.object_store()) {
                let what = format!("'{path}' is in another store than the files before it");
                let help = "read each store by itself, and put the frames together with a union";
                return Err(ours(Error::unsupported(what).with_help(help)));
            }
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        if urls.is_empty() {
            return Err(ours(Error::new(ErrorKind::InvalidQuery, "no files are named")));
        }
        Ok(urls)
    }

    fn format(&self, state: &SessionState) -> Result<Arc<dyn FileFormat>> {
        let name = self.format.name();
        let factory = state.get_file_format_factory(name);
        let factory = factory.ok_or_else(|| ours(Error::unsupported(format!("{name} files cannot be read"))))?;
        let mut options = self.format.options();
        let is_text = matches!(self.format, FileFormatOptions::Csv { .. } | FileFormatOptions::Json);
        if let Some((_, Some(compression))) = self.paths.first().filter(|_path| is_text).and_then(|path| text_kind(path)) {
            options.push(("compression".to_owned(), compression.to_owned()));
        }
        options.extend(self.options.iter().cloned());
        let options: HashMap<String, String> =
            options.into_iter().map(|(key, value)| (format!("format.{}", key.trim_start_matches("format.")), value)).collect();
        factory.create(state, &options)
    }

    /// What the names of files in a folder end with. A file or a pattern says itself which files it means.
    fn suffix(&self, urls: &[ListingTableUrl], format: &Arc<dyn FileFormat>) -> String {
        match &self.extension {
            Some(extension) => format!(".{}", extension.trim_start_matches('.')),
            None if urls.iter().all(|url| url.is_collection() && url.get_glob().is_none()) => {
                format!(".{}", format.get_ext().trim_start_matches('.'))
            }
            None => String::new(),
        }
    }

    async fn check_found(&self, urls: &[ListingTableUrl], state: &SessionState, suffix: &str) -> Result<()> {
        for (path, url) in self.paths.iter().zip(urls) {
            let store = state.runtime_env().object_store(url)?;
            let first = url.list_all_files(state, store.as_ref(), suffix).await?.next().await;
            match first {
                Some(Ok(_file)) => return Ok(()),
                Some(Err(error)) if !is_missing(&error) => {
                    return Err(match denial(&error) {
                        Some(denied) => ours(denied.clone()),
                        None => ours(Error::new(ErrorKind::Unavailable, format!("'{path}' cannot be listed: {error}"))),
                    });
                }
                Some(Err(_)) | None => {}
            }
        }
        let error = Error::new(ErrorKind::NotFound, format!("no file matches '{}'", self.paths.join("', '")));
        Err(ours(error.with_help("relative paths begin at the session's folder; the name of a folder ends with /")))
    }
}

fn is_missing(error: &DataFusionError) -> bool {
    matches!(error, DataFusionError::ObjectStore(store) if matches!(store.as_ref(), object_store::Error::NotFound { .. }))
}
