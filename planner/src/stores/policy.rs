//! What may be opened: whatever the process reaches, or what lies below listed folders and prefixes. Next: `local.rs`.

use std::io;
use std::path::{Component, Path, PathBuf};

use object_store::path::Path as ObjectPath;
use url::{Position, Url};
use windrow_core::{Error, ErrorKind, Result};

/// Schemes of stores that a prefix may have.
const SCHEMES: [&str; 10] = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "http", "https"];

/// Escapes that could hide a separator, a dot or the end of a name from whoever compares paths.
const HIDING: [&str; 4] = ["%2f", "%5c", "%2e", "%00"];

/// Which files and object stores a process opens for its users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StorePolicy {
    /// Whatever the process can reach.
    #[default]
    Everything,
    /// What lies below these folders and prefixes, and nothing else.
    Listed {
        /// Folders of this machine.
        local: Vec<LocalRoot>,
        /// Prefixes of stores.
        stores: Vec<StorePrefix>,
    },
}

/// A folder whose files may be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRoot {
    /// As configured, absolute.
    written: PathBuf,
    /// Without symbolic links.
    real: PathBuf,
}

/// The beginning of URLs that may be opened: `s3://bucket/folder`, which covers `s3://bucket/folder/x` and not `s3://bucket/folders`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePrefix {
    scheme: String,
    /// Bucket or host, with its port.
    authority: String,
    path: ObjectPath,
}

/// Where a path of this machine leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Led {
    /// To something below a root: the root and the place, both without symbolic links.
    Inside { root: PathBuf, place: PathBuf },
    /// To nothing, at a place below a root.
    Missing,
    /// Out of every root.
    Outside,
}

impl StorePolicy {
    /// What lies below the folders `allow_local` and the URLs `allow_stores`, such as `s3://bucket/folder`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a folder that is not there and for what is not a prefix of a known store.
    pub fn from_lists(allow_local: &[PathBuf], allow_stores: &[String]) -> Result<Self> {
        let local = allow_local.iter().map(|folder| LocalRoot::open(folder)).collect::<Result<_>>()?;
        let stores = allow_stores.iter().map(|prefix| StorePrefix::parse(prefix)).collect::<Result<_>>()?;
        Ok(Self::Listed { local, stores })
    }

    /// Whether something is not allowed at all.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        matches!(self, Self::Listed { .. })
    }

    /// Checks a table's place before anything of it is touched: `name` is what the user wrote, `location` the absolute path or URL
    /// that it means. Looks at folders, so it blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`], the same whether there is something at that place or not.
    pub(crate) fn admit(&self, name: &str, location: &str) -> Result<()> {
        let Self::Listed { local, stores } = self else { return Ok(()) };
        let url = if Path::new(location).is_absolute() { None } else { Url::parse(location).ok() };
        let Some(url) = url else {
            let place = std::path::absolute(before_pattern(location)).unwrap_or_default();
            let climbs = Path::new(location).components().any(|component| component == Component::ParentDir);
            return if !climbs && lead(local, &place) != Led::Outside { Ok(()) } else { Err(outside_of_roots(name)) };
        };
        let lower = location.to_ascii_lowercase();
        let hides = HIDING.iter().any(|escape| lower.contains(escape)) || lower.contains('\\');
        let climbs = lower.split(['/', '?', '#']).any(|segment| segment == "..");
        if url.scheme() == "file" {
            let leads_inside = url.to_file_path().is_ok_and(|place| lead(local, &place) != Led::Outside);
            return if leads_inside && !hides && !climbs { Ok(()) } else { Err(outside_of_roots(name)) };
        }
        if !hides && !climbs && stores.iter().any(|prefix| prefix.covers(&url)) { Ok(()) } else { Err(outside_of_prefixes(name)) }
    }
}

impl LocalRoot {
    fn open(folder: &Path) -> Result<Self> {
        let refused = |why: String| {
            Error::new(ErrorKind::InvalidConfig, format!("security.allow_local: '{}' {why}", folder.display()))
                .with_help("name folders that exist and that this process may read")
        };
        let written = std::path::absolute(folder).map_err(|source| refused("is not a path".to_owned()).with_source(source))?;
        let real = std::fs::canonicalize(&written)
            .map_err(|source| refused(format!("cannot be opened: {source}")).with_source(source))?;
        if real.is_dir() { Ok(Self { written, real }) } else { Err(refused("is not a folder".to_owned())) }
    }

    fn is_above(&self, path: &Path) -> bool {
        path.starts_with(&self.written) || path.starts_with(&self.real)
    }
}

impl StorePrefix {
    fn parse(text: &str) -> Result<Self> {
        let refused = |why: &str| {
            Error::new(ErrorKind::InvalidConfig, format!("security.allow_stores: '{text}' {why}")).with_help(
                "write prefixes such as s3://bucket/folder or https://host/folder; credentials come from the environment",
            )
        };
        let url = Url::parse(text).map_err(|source| refused("is not a URL").with_source(source))?;
        if !SCHEMES.contains(&url.scheme()) {
            return Err(refused("is not of a known store"));
        }
        if url.host_str().is_none_or(|host| host.is_empty() || host.contains('*')) {
            return Err(refused("does not name one bucket or host"));
        }
        // `abfss://container@account.host` has a container there.
        let has_credentials = url.password().is_some() || (!url.username().is_empty() && !url.scheme().starts_with("abfs"));
        if has_credentials || url.query().is_some() || url.fragment().is_some() {
            return Err(refused("has more than a scheme, a bucket or host, and a folder"));
        }
        let path = ObjectPath::from_url_path(url.path()).map_err(|source| refused("has no plain path").with_source(source))?;
        Ok(Self { scheme: url.scheme().to_owned(), authority: authority(&url).to_owned(), path })
    }

    /// Whether `url` is of this prefix's store.
    pub(super) fn is_of_store(&self, url: &Url) -> bool {
        self.scheme == url.scheme() && self.authority == authority(url)
    }

    /// Whether `url` is this prefix or below it.
    pub(super) fn covers(&self, url: &Url) -> bool {
        self.is_of_store(url) && ObjectPath::from_url_path(url.path()).is_ok_and(|path| path.prefix_matches(&self.path))
    }

    pub(super) fn path(&self) -> &ObjectPath {
        &self.path
    }
}

fn authority(url: &Url) -> &str {
    &url[Position::BeforeUsername..Position::AfterPort]
}

/// The folder of a path with a pattern, or the whole path.
fn before_pattern(location: &str) -> &str {
    let Some(pattern) = location.find(['?', '*', '[']) else { return location };
    location[..pattern].rsplit_once('/').map_or("", |(folder, _)| if folder.is_empty() { "/" } else { folder })
}

/// Where `path`, an absolute one, leads.
pub(super) fn lead(roots: &[LocalRoot], path: &Path) -> Led {
    let is_plain = path.components().all(|component| matches!(component, Component::RootDir | Component::Normal(_)));
    // Nothing that is not even written as being below a root is looked at.
    if !is_plain || !roots.iter().any(|root| root.is_above(path)) {
        return Led::Outside;
    }
    let inside = |real: &Path| roots.iter().find(|root| real.starts_with(&root.real));
    match std::fs::canonicalize(path) {
        Ok(place) => match inside(&place) {
            Some(root) => Led::Inside { root: root.real.clone(), place },
            None => Led::Outside,
        },
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            // What is there decides: a link that leads out must not tell whether something is at its other end.
            let there = path.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok());
            match there.map(|there| (there, std::fs::canonicalize(there))) {
                Some((there, Ok(real))) if inside(&real).is_some() || !roots.iter().any(|root| root.is_above(there)) => {
                    Led::Missing
                }
                _ => Led::Outside,
            }
        }
        // A link into a folder that may not be searched, or to itself.
        Err(_) => Led::Outside,
    }
}

/// The refusal of a path of this machine.
pub(super) fn outside_of_roots(name: &str) -> Error {
    Error::new(
        ErrorKind::Denied,
        format!("'{name}' is not below a folder that may be opened; an administrator can add one to security.allow_local"),
    )
}

/// The refusal of a place in a store.
pub(super) fn outside_of_prefixes(name: &str) -> Error {
    Error::new(
        ErrorKind::Denied,
        format!("'{name}' is not below a prefix that may be opened; an administrator can add one to security.allow_stores"),
    )
}
