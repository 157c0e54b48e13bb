//! What an object of the catalog is, as plain data that can be stored. Next: `build.rs`, which makes tables of it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};
use windrow_core::{Error, ErrorKind, Result};

/// The version of the encoding, the first byte of every stored definition.
const VERSION: u8 = 1;

/// What kind of object a name stands for. The kinds have one name space: a view cannot have the name of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A schema, which holds the others.
    Schema,
    /// A table.
    Table,
    /// A view.
    View,
}

impl Kind {
    /// The word for it in statements, in keys of the store, and in messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Table => "table",
            Self::View => "view",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One object of the shared catalog: all that is needed to make it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The schema that it is in, or is.
    pub schema: String,
    /// Its name in the schema; empty for the schema itself.
    pub name: String,
    /// Who made it; empty where nobody is asked for a name.
    pub owner: String,
    /// When, in milliseconds since 1970. For people.
    pub created_at: u64,
    /// The rest, by kind.
    pub body: Body,
}

/// What an object is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A schema has nothing but its name.
    Schema,
    /// Files that are read as a table.
    Table(TableDefinition),
    /// A query with a name.
    View(ViewDefinition),
}

/// An external table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDefinition {
    /// The statement that made it; empty for the table of a CREATE TABLE, whose files are its own.
    pub sql: String,
    /// Its folders and files, absolute; they count, not the statement's.
    pub locations: Vec<String>,
    /// The files' format, as in `STORED AS`.
    pub format: String,
    /// The format's options.
    pub options: BTreeMap<String, String>,
    /// Columns whose values are in the names of folders.
    pub partition_columns: Vec<String>,
    /// Its columns when it was made, for those who ask without reading it.
    pub columns: Columns,
}

impl TableDefinition {
    /// Whether its files were made with it, by CREATE TABLE or by rows that a client sent.
    pub(super) fn is_made_here(&self) -> bool {
        self.sql.is_empty()
    }
}

/// A view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewDefinition {
    /// The statement that made it.
    pub sql: String,
    /// The schema in which its unqualified names are looked up: the current one of whoever made it.
    pub search: String,
    /// The folder at which its relative paths begin.
    pub directory: String,
    /// Its columns when it was made.
    pub columns: Columns,
}

/// Columns as Arrow's own encoding of a schema, which loses nothing of it.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Columns(Vec<u8>);

impl Columns {
    /// Those of `schema`.
    ///
    /// # Errors
    /// `Internal` if Arrow cannot encode a type.
    pub fn of(schema: &Schema) -> Result<Self> {
        let unfit = |source| Error::internal("the columns of a table cannot be stored").with_source(source);
        let mut writer = StreamWriter::try_new(Vec::new(), schema).map_err(unfit)?;
        writer.finish().map_err(unfit)?;
        writer.into_inner().map(Self).map_err(unfit)
    }

    /// The schema.
    ///
    /// # Errors
    /// `Data` if the bytes are not one.
    pub fn schema(&self) -> Result<SchemaRef> {
        let reader = StreamReader::try_new(Cursor::new(&self.0), None).map_err(|source| {
            Error::new(ErrorKind::Data, "the columns of an object of the catalog are damaged").with_source(source)
        })?;
        Ok(reader.schema())
    }
}

impl fmt::Debug for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.schema() {
            Ok(schema) => f.debug_list().entries(schema.fields().iter().map(|field| field.name())).finish(),
            Err(error) => write!(f, "{error}"),
        }
    }
}

impl Definition {
    /// A schema.
    #[must_use]
    pub fn of_schema(schema: &str, owner: &str, created_at: u64) -> Self {
        Self { schema: schema.to_owned(), name: String::new(), owner: owner.to_owned(), created_at, body: Body::Schema }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.body {
            Body::Schema => Kind::Schema,
            Body::Table(_) => Kind::Table,
            Body::View(_) => Kind::View,
        }
    }

    /// Its columns; a schema has none.
    ///
    /// # Errors
    /// `Data` if they are damaged.
    pub fn columns(&self) -> Result<SchemaRef> {
        match &self.body {
            Body::Schema => Ok(SchemaRef::new(Schema::empty())),
            Body::Table(table) => table.columns.schema(),
            Body::View(view) => view.columns.schema(),
        }
    }

    /// The statement that made it, if it has one.
    #[must_use]
    pub fn sql(&self) -> Option<&str> {
        match &self.body {
            Body::Schema => None,
            Body::Table(table) => Some(table.sql.as_str()).filter(|sql| !sql.is_empty()),
            Body::View(view) => Some(&view.sql),
        }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        postcard::to_extend(self, vec![VERSION])
            .map_err(|source| Error::internal("a definition cannot be encoded").with_source(source))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::new(ErrorKind::Data, "a definition in the catalog is damaged");
        let (version, bytes) = bytes.split_first().ok_or_else(damaged)?;
        if *version != VERSION {
            let message = format!("an object of the catalog was written in format {version}, this version reads {VERSION}");
            return Err(Error::new(ErrorKind::InvalidConfig, message).with_help("start the version that wrote it"));
        }
        postcard::from_bytes(bytes).map_err(|source| damaged().with_source(source))
    }
}
