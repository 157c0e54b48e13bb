//! A file, folder, pattern or url as a table: its name, and the statement that makes it one. Next: the planner runs it.

use std::path::{Component, Path, PathBuf};

use windrow_core::error::nearest;
use windrow_core::{Error, ErrorKind, Result};

/// Entries of a folder that are looked at before giving up on finding a data file. 10,000: a listing of some milliseconds.
const LOOKED_AT_MAX: usize = 10_000;

/// Whether a path can be looked at from here, or is another machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// The path is on this machine: what is missing is an error now, with the nearest name.
    Here,
    /// The path is on the scheduler's machine, which will say what is missing.
    Elsewhere,
}

/// How the planner reads a kind of file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Format {
    stored_as: &'static str,
    /// The extension as met, without compression: `tsv`.
    extension: &'static str,
    compression: Option<Compression>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Compression {
    extension: &'static str,
    option: &'static str,
}

const COMPRESSIONS: [Compression; 4] = [
    Compression { extension: "gz", option: "gzip" },
    Compression { extension: "bz2", option: "bzip2" },
    Compression { extension: "xz", option: "xz" },
    Compression { extension: "zst", option: "zstd" },
];

/// `(extension, STORED AS)`.
const FORMATS: [(&str, &str); 6] =
    [("parquet", "PARQUET"), ("csv", "CSV"), ("tsv", "CSV"), ("json", "JSON"), ("jsonl", "JSON"), ("ndjson", "JSON")];

impl Format {
    /// By the name's extensions; `None` for one that is none of ours.
    fn of(name: &str) -> Option<Self> {
        let (stem, compression) = split_compression(name);
        let (_, extension) = split_extension(stem, FORMATS.map(|(extension, _)| extension))?;
        let (extension, stored_as) = FORMATS.into_iter().find(|(known, _)| *known == extension)?;
        let is_readable = compression.is_none() || stored_as != "PARQUET";
        is_readable.then_some(Self { stored_as, extension, compression })
    }

    /// What comes after LOCATION.
    fn options(&self, is_json_array: bool) -> String {
        let mut options = Vec::new();
        if self.stored_as == "CSV" {
            options.push("'format.has_header' 'true'".to_owned());
        }
        if self.extension == "tsv" {
            options.push("'format.delimiter' '\t'".to_owned());
        }
        if is_json_array {
            options.push("'format.newline_delimited' 'false'".to_owned());
        }
        if let Some(compression) = self.compression {
            options.push(format!("'format.compression' '{}'", compression.option));
        }
        if options.is_empty() { String::new() } else { format!(" OPTIONS ({})", options.join(", ")) }
    }

    /// Where the files of this format are in `folder`. Files whose extension is not the format's usual one need a pattern.
    fn location_in(&self, folder: &str) -> String {
        let folder = folder.trim_end_matches('/');
        match self.extension {
            "parquet" | "csv" | "json" => format!("{folder}/"),
            extension => {
                let compression = self.compression.map_or(String::new(), |compression| format!(".{}", compression.extension));
                format!("{folder}/**/*.{extension}{compression}")
            }
        }
    }
}

/// The name of the table for the file, folder, pattern or url at `path`: `data/2024 Sales.csv.gz` is `_2024_sales`, and
/// `orders/*.parquet` is `orders`.
#[must_use]
pub fn table_name(path: &str) -> String {
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let mut segments = path.split('/').filter(|segment| !matches!(*segment, "" | "." | "..") && !has_pattern(segment));
    let last = segments.next_back().unwrap_or("data");
    let (stem, _) = split_compression(last);
    let stem = split_extension(stem, FORMATS.map(|(extension, _)| extension)).map_or(stem, |(stem, _)| stem);
    let mut name: String =
        stem.chars().map(|c| if c.is_alphanumeric() { c.to_lowercase().next().unwrap_or(c) } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_numeric()) {
        name.insert(0, '_');
    }
    if name.is_empty() { "data".to_owned() } else { name }
}

/// The statement that makes `path` the table `table`. Relative paths begin at `directory`, the client's; urls stay as they are.
///
/// # Errors
/// `NotFound` with the nearest name, `Unsupported` for an extension that is none of ours.
pub fn create_table_text(table: &str, path: &str, directory: &Path) -> Result<String> {
    create_table(table, path, directory, Look::Here)
}

pub(crate) fn create_table(table: &str, path: &str, directory: &Path, look: Look) -> Result<String> {
    let (format, location, is_json_array) = if path.contains("://") {
        (Format::of(path).ok_or_else(|| no_format(path))?, path.to_owned(), false)
    } else {
        let absolute = absolute(path, directory);
        let text = utf8(&absolute)?;
        if has_pattern(text) || look == Look::Elsewhere {
            (Format::of(text).ok_or_else(|| no_format(path))?, text.to_owned(), false)
        } else if absolute.is_dir() {
            let format = format_in(&absolute)?.ok_or_else(|| no_data_file(path))?;
            (format.clone(), format.location_in(text), false)
        } else if absolute.exists() {
            let format = Format::of(text).ok_or_else(|| no_format(path))?;
            let is_json_array = format.extension == "json" && format.compression.is_none() && begins_as_array(&absolute)?;
            (format, text.to_owned(), is_json_array)
        } else {
            return Err(missing(path, &absolute));
        }
    };
    let Format { stored_as, .. } = format;
    let (table, location, options) = (quote(table, '"'), quote(&location, '\''), format.options(is_json_array));
    // Of the session alone: another client's table of that name is another table.
    Ok(format!("CREATE OR REPLACE EXTERNAL TABLE temp.{table} STORED AS {stored_as} LOCATION {location}{options}"))
}

/// `text` between quotes, its own quotes doubled.
pub(crate) fn quote(text: &str, quote: char) -> String {
    let doubled = [quote, quote].iter().collect::<String>();
    format!("{quote}{}{quote}", text.replace(quote, &doubled))
}

fn has_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// `orders.csv.gz` is `orders.csv` and gzip.
fn split_compression(name: &str) -> (&str, Option<Compression>) {
    match split_extension(name, COMPRESSIONS.map(|compression| compression.extension)) {
        Some((stem, extension)) => (stem, COMPRESSIONS.into_iter().find(|compression| compression.extension == extension)),
        None => (name, None),
    }
}

/// The name before the last dot, and the one of `known` after it, in any case.
fn split_extension<'a, const N: usize>(name: &'a str, known: [&'static str; N]) -> Option<(&'a str, &'static str)> {
    let (stem, extension) = name.rsplit_once('.')?;
    known.into_iter().find(|candidate| candidate.eq_ignore_ascii_case(extension)).map(|extension| (stem, extension))
}

/// The path from the root, without `.` and `..`. A `..` is taken off after links are followed, as the system does.
fn absolute(path: &str, directory: &Path) -> PathBuf {
    let mut absolute = PathBuf::new();
    for component in directory.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                absolute = absolute.canonicalize().unwrap_or(absolute);
                absolute.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => absolute.push(component),
        }
    }
    absolute
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            format!("the path '{}' is not UTF-8, so that no statement can name it", path.display()),
        )
    })
}

/// The format of the first data file in `folder`, level by level in the order of names; hidden names and those that begin with `_`
/// are passed over.
fn format_in(folder: &Path) -> Result<Option<Format>> {
    let mut level = vec![folder.to_owned()];
    let mut looked_at = 0_usize;
    while !level.is_empty() {
        let mut folders = Vec::new();
        for folder in level {
            for entry in entries(&folder)? {
                looked_at += 1;
                if looked_at > LOOKED_AT_MAX {
                    return Ok(None);
                }
                let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if name.starts_with(['.', '_']) {
                    continue;
                }
                if entry.is_dir() {
                    folders.push(entry);
                } else if let Some(format) = Format::of(&name) {
                    return Ok(Some(format));
                }
            }
        }
        level = folders;
    }
    Ok(None)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |source: std::io::Error| {
        Error::new(ErrorKind::Denied, format!("cannot list the folder '{}': {source}", folder.display())).with_source(source)
    };
    let listing = std::fs::read_dir(folder).map_err(unreadable)?;
    let mut paths: Vec<PathBuf> =
        listing.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>().map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

/// Whether the first character that is not blank is `[`: one JSON array instead of a value a line.
fn begins_as_array(file: &Path) -> Result<bool> {
    use std::io::Read;
    let unreadable = |source: std::io::Error| {
        Error::new(ErrorKind::Denied, format!("cannot read '{}': {source}", file.display())).with_source(source)
    };
    let mut start = Vec::new();
    std::fs::File::open(file).map_err(unreadable)?.take(4096).read_to_end(&mut start).map_err(unreadable)?;
    Ok(start.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'['))
}

fn missing(path: &str, absolute: &Path) -> Error {
    let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let neighbours: Vec<String> = absolute
        .parent()
        .and_then(|folder| std::fs::read_dir(folder).ok())
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).take(LOOKED_AT_MAX).collect()
        })
        .unwrap_or_default();
    Error::new(ErrorKind::NotFound, format!("no file or folder '{path}'"))
        .with_suggestion(nearest(&name, neighbours.iter().map(String::as_str)))
        .with_help(format!("relative paths begin at {}", absolute.parent().unwrap_or(absolute).display()))
}

fn no_format(path: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the extension of '{path}' does not say how to read it"))
        .with_help("use .parquet, or .csv, .tsv, .json, .jsonl, .ndjson with or without .gz, .bz2, .xz, .zst")
}

fn no_data_file(path: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("the folder '{path}' holds no data file"))
        .with_help("data files end in .parquet, or in .csv, .tsv, .json, .jsonl, .ndjson with or without .gz, .bz2, .xz, .zst")
}

#[cfg(test)]
mod tests;
