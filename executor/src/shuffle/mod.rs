//! The shuffle: how rows travel from a stage's partitions to the partitions that read them. `write.rs` divides and commits,
//! `checksum.rs` tells whether another run made the same rows, `store.rs` keeps, `read.rs` opens inputs, `broadcast.rs` shares those
//! that many read; `segment_file.rs` is the store's form on disk and `block.rs` the form of a batch outside memory, on disk and on the
//! wire.

pub mod block;
pub mod read;
pub mod store;
pub mod write;

pub(crate) mod broadcast;
pub(crate) mod checksum;
pub(crate) mod compact;
pub(crate) mod segment_file;
