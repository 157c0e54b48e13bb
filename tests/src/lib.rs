//! What the suites share: files to query, the oracle to compare with, and the comparison. The suites are the binaries in
//! `tests/tests`; the SQL corpus is in `tests/sql`.
//!
//! Not part of the engine: everything here may panic, because a panic is how a test says what is wrong.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code: a panic fails the test with its reason")]

pub mod engine;
pub mod fixtures;
pub mod frames;
pub mod oracle;
pub mod proxy;
pub mod python;
pub mod rows;
pub mod store;
pub mod tpch;
pub mod tpch_frames;
pub mod wait;
