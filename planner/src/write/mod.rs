//! Writing: COPY, INSERT and CREATE TABLE become stages whose last operator writes files and whose rows name them. Next: `statement.rs`.
//!
//! ```text
//! statement.rs   what a statement writes, and where                      -> Draft
//! target.rs      the folder or file that a name means
//! format.rs      Parquet, CSV, JSON lines and their options
//! exec.rs        the operator: a partition's rows go into files, its result is one row per file
//! partition.rs   which file a row goes into; how many are open, how large they grow
//! file.rs        one file that is being written
//! append.rs      what may be added to a folder
//! create.rs      CREATE TABLE: a folder of the warehouse, and a table over it
//! ingest.rs      rows that a client sends
//! bound.rs       INSERT of values that a client binds
//! publish.rs     the files of the attempts that won become visible, once
//! ```
//!
//! Files are written below `_windrow/` in the target, under names that no two attempts share, and are moved to their place by the
//! coordinator when the job has committed. An attempt that fails, is cancelled or comes second therefore changes nothing that a reader
//! sees.

mod append;
mod bound;
mod create;
mod exec;
mod file;
mod format;
mod ingest;
mod partition;
mod publish;
mod statement;
mod target;

pub use bound::BoundInsert;
pub(crate) use bound::bound_insert;
pub use create::{NewTable, Warehouse};
pub(crate) use create::{is_settled, reads_tables};
pub use exec::writes_files;
pub(crate) use exec::{WriteExec, WriteSpec};
pub(crate) use ingest::ingest;
pub use ingest::{Ingest, IngestMode, IngestTarget};
pub use publish::{Publication, WrittenFile, count_rows, count_schema};
pub(crate) use statement::{Draft, complete, draft, is_write};
pub(crate) use target::Folder;

#[cfg(test)]
mod tests;
