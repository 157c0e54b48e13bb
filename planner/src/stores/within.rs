//! A remote store of which only some folders may be opened. Next: `redirects.rs`.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::policy::outside_of_prefixes;

/// A store whose every call is checked: its path must be in one of the folders.
#[derive(Debug)]
pub(super) struct Within {
    inner: Arc<dyn ObjectStore>,
    /// Scheme and bucket or host: what stands before the paths.
    name: Arc<str>,
    folders: Arc<[Path]>,
}

impl Within {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, name: &str, folders: impl Iterator<Item = Path>) -> Self {
        Self { inner, name: name.into(), folders: folders.collect() }
    }

    fn admit(&self, location: &Path) -> Result<()> {
        admit(&self.name, &self.folders, location)
    }
}

fn admit(name: &str, folders: &[Path], location: &Path) -> Result<()> {
    if folders.iter().any(|folder| location.prefix_matches(folder)) {
        return Ok(());
    }
    let path = format!("{name}/{location}");
    Err(Error::PermissionDenied { source: Box::new(outside_of_prefixes(&path)), path })
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listed folders of {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Within {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.admit(location)?;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.admit(location)?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.admit(location)?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.admit(location)?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (name, folders) = (Arc::clone(&self.name), Arc::clone(&self.folders));
        let admitted = locations.and_then(move |location| {
            let admitted = admit(&name, &folders, &location).map(|()| location);
            async move { admitted }
        });
        self.inner.delete_stream(admitted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.admit(&prefix.cloned().unwrap_or_default()) {
            Ok(()) => self.inner.list(prefix),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.admit(&prefix.cloned().unwrap_or_default()) {
            Ok(()) => self.inner.list_with_offset(prefix, offset),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.admit(&prefix.cloned().unwrap_or_default())?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.admit(from)?;
        self.admit(to)?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.admit(from)?;
        self.admit(to)?;
        self.inner.rename_opts(from, to, options).await
    }
}
