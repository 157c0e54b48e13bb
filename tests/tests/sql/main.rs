//! The binary `sql`: what Windrow answers, compared with single-node DataFusion over the same files. Everything in process.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code: a panic fails the test with its reason")]

mod corpus;
mod errors;
mod frames;
mod substrait;
mod tpch;
mod writes;
