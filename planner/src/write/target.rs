//! The folder or file that a name means as a target, and whether it may be written. Next: `statement.rs`.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use url::{Position, Url};
use windrow_core::{Error, ErrorKind};

use crate::diagnose::ours;
use crate::files::{locate, root};

/// The folder below a target that holds files which are not published. Its name begins with an underscore, as for Spark and Hive.
pub(super) const STAGING: &str = "_windrow";

/// A place in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The store: `file:///`, `s3://bucket`.
    pub(crate) store: String,
    /// A folder or a file in it.
    pub(crate) path: Path,
    /// Whether the name said that it is a folder.
    pub(crate) is_folder: bool,
}

impl Target {
    /// What `name` means; relative paths start at `directory`.
    ///
    /// # Errors
    /// `InvalidQuery` for a pattern or a name that is no path, `Unsupported` for a store that cannot be written.
    pub(crate) fn parse(name: &str, directory: &str) -> Result<Self> {
        if name.is_empty() || name.contains(['*', '?', '[']) {
            let what = format!("'{name}' is not the name of a folder or a file to write to");
            return Err(ours(Error::new(ErrorKind::InvalidQuery, what)));
        }
        let located = locate(name, directory);
        let no_path = |why: String| ours(Error::new(ErrorKind::InvalidQuery, format!("'{name}' is not a path: {why}")));
        let url = if located.contains("://") {
            Url::parse(&located).map_err(|why| no_path(why.to_string()))?
        } else {
            let absolute = std::path::absolute(&located).map_err(|why| no_path(why.to_string()))?;
            let url = Url::from_file_path(absolute).map_err(|()| no_path("it is not absolute".to_owned()))?;
            // Parsed again, because `..` is resolved only then.
            Url::parse(url.as_str()).map_err(|why| no_path(why.to_string()))?
        };
        if matches!(url.scheme(), "http" | "https") {
            return Err(ours(Error::unsupported(format!("'{name}' cannot be written: HTTP servers are read only"))));
        }
        let path = Path::from_url_path(url.path()).map_err(|why| no_path(why.to_string()))?;
        let store = match url.scheme() {
            "file" => "file:///".to_owned(),
            _ => url[..Position::BeforePath].to_owned(),
        };
        Ok(Self { store, path, is_folder: name.ends_with('/') })
    }

    /// Its store, opened.
    pub(crate) fn open(&self, state: &SessionState) -> Result<Arc<dyn ObjectStore>> {
        state.runtime_env().object_store(ObjectStoreUrl::parse(&self.store)?)
    }

    /// Whether it is on this machine's disks.
    pub(super) fn is_local(&self) -> bool {
        self.store.starts_with("file:")
    }

    /// As people write it.
    pub(crate) fn name(&self) -> String {
        let root = root(&self.store);
        let slash = if root.ends_with('/') { "" } else { "/" };
        format!("{root}{slash}{}", self.path)
    }
}

/// Whether something is at `path` itself.
pub(super) async fn is_file(store: &dyn ObjectStore, path: &Path) -> object_store::Result<bool> {
    match store.head(path).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// The files below a folder that readers may see, at most `max`.
pub(super) async fn files_below(store: &dyn ObjectStore, folder: &Path, max: usize) -> object_store::Result<Vec<Path>> {
    let mut listed = store.list(Some(folder));
    let mut found = Vec::new();
    while let Some(file) = listed.try_next().await? {
        let is_staged =
            file.location.prefix_match(folder).and_then(|mut parts| parts.next()).is_some_and(|part| part.as_ref() == STAGING);
        if !is_staged {
            found.push(file.location);
            if found.len() >= max {
                break;
            }
        }
    }
    Ok(found)
}

/// A folder that is removed with all in it when the table is gone whose files are there.
#[derive(Debug)]
pub(crate) struct Folder {
    store: Arc<dyn ObjectStore>,
    target: Target,
}

impl Folder {
    /// The folder of this name, which is absolute.
    pub(crate) fn open(name: &str, state: &SessionState) -> Result<Self> {
        let target = Target::parse(name, "")?;
        Ok(Self { store: target.open(state)?, target })
    }

    pub(crate) async fn remove(&self) -> object_store::Result<()> {
        remove_folder(self.store.as_ref(), self.target.is_local(), &self.target.path).await
    }
}

/// Removes a folder and all in it.
pub(super) async fn remove_folder(store: &dyn ObjectStore, is_local: bool, folder: &Path) -> object_store::Result<()> {
    if is_local {
        // Removed by others meanwhile is as good.
        let _ = tokio::fs::remove_dir_all(local_path(folder)).await;
        return Ok(());
    }
    let files: Vec<_> = store.list(Some(folder)).map_ok(|file| file.location).try_collect().await?;
    let deleted = store.delete_stream(futures::stream::iter(files.into_iter().map(Ok)).boxed());
    deleted.try_for_each(|_path| futures::future::ready(Ok(()))).await
}

/// Where a path of the local store is on this machine.
pub(super) fn local_path(path: &Path) -> PathBuf {
    // The store spells characters that it keeps for itself in percent; the disk has them as they are spelled.
    PathBuf::from(format!("/{path}"))
}
