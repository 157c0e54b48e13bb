//! The files below a folder, without those that links lead to outside of the roots. Next: `within.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::path::Path as ObjectPath;
use object_store::{ListResult, ObjectMeta, Result};

use super::local::{denied, generic, object_meta};
use super::policy::{Led, LocalRoot, lead};

/// Walks folders in the order of their names.
#[derive(Debug)]
pub(super) struct Walk {
    roots: Arc<[LocalRoot]>,
    /// The first one, until it is looked at.
    start: Option<PathBuf>,
    folders: Vec<Folder>,
    files: VecDeque<ObjectMeta>,
}

/// A folder that is still to be read.
#[derive(Debug, Clone)]
struct Folder {
    /// As it was reached, perhaps by links.
    path: PathBuf,
    /// Without links.
    real: PathBuf,
    /// The folders whose links led here: none of them is entered again.
    trail: Arc<Vec<PathBuf>>,
}

impl Walk {
    pub(super) fn new(roots: Arc<[LocalRoot]>, start: PathBuf) -> Self {
        Self { roots, start: Some(start), folders: Vec::new(), files: VecDeque::new() }
    }

    /// The folder's own files and folders.
    pub(super) fn first_level(mut self) -> Result<ListResult> {
        let Some(folder) = self.enter()? else { return Ok(ListResult { common_prefixes: Vec::new(), objects: Vec::new() }) };
        self.read(&folder)?;
        let folders: BTreeSet<ObjectPath> =
            self.folders.iter().filter_map(|folder| ObjectPath::from_absolute_path(&folder.path).ok()).collect();
        Ok(ListResult { common_prefixes: folders.into_iter().collect(), objects: self.files.into() })
    }

    /// Looks at where the walk begins; `None` if nothing is there.
    fn enter(&mut self) -> Result<Option<Folder>> {
        let Some(path) = self.start.take() else { return Ok(None) };
        match lead(&self.roots, &path) {
            Led::Inside { place, .. } => Ok(Some(Folder { path, real: place, trail: Arc::default() })),
            Led::Missing => Ok(None),
            Led::Outside => Err(denied(&path)),
        }
    }

    /// Reads one folder: files to hand out, folders to read next.
    fn read(&mut self, folder: &Folder) -> Result<()> {
        let entries = match std::fs::read_dir(&folder.real) {
            Ok(entries) => entries,
            // Removed since, or a file.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
            Err(error) => return Err(generic(error)),
        };
        let mut names =
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>().map_err(generic)?;
        names.sort_unstable();
        let mut folders = Vec::new();
        for name in names {
            let (path, inner) = (folder.path.join(&name), folder.real.join(&name));
            let Ok(itself) = inner.symlink_metadata() else { continue };
            let Some((real, trail)) = self.follow(folder, inner, itself.is_symlink()) else { continue };
            let Ok(metadata) = real.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(Folder { path, real, trail });
            } else if metadata.is_file() && !is_unfinished(&path) {
                // A name that is not text has no location.
                let Ok(location) = ObjectPath::from_absolute_path(&path) else { continue };
                self.files.push_back(object_meta(location, &metadata)?);
            }
        }
        self.folders.extend(folders.into_iter().rev());
        Ok(())
    }

    /// Where an entry of `folder` is; `None` if a link leads out, or back to where it came from.
    fn follow(&self, folder: &Folder, inner: PathBuf, is_link: bool) -> Option<(PathBuf, Arc<Vec<PathBuf>>)> {
        if !is_link {
            return Some((inner, Arc::clone(&folder.trail)));
        }
        let real = std::fs::canonicalize(&inner).ok()?;
        // The place without links is compared, so it must be asked about as such.
        let Led::Inside { place, .. } = lead(&self.roots, &real) else { return None };
        let mut trail = Vec::clone(&folder.trail);
        trail.push(folder.real.clone());
        if trail.iter().any(|before| before.starts_with(&place)) {
            return None;
        }
        Some((place, Arc::new(trail)))
    }
}

impl Iterator for Walk {
    type Item = Result<ObjectMeta>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.start.is_some() {
            match self.enter() {
                Ok(folder) => self.folders.extend(folder),
                Err(error) => return Some(Err(error)),
            }
        }
        while self.files.is_empty() {
            let folder = self.folders.pop()?;
            if let Err(error) = self.read(&folder) {
                return Some(Err(error));
            }
        }
        self.files.pop_front().map(Ok)
    }
}

/// Whether a file is an upload that has not ended: `name#1`, as object_store writes them.
fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.split_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}
