//! The control stream between coordinator and executors: one bidirectional gRPC stream per executor, `windrow.Control/Connect`,
//! reports one way and commands the other. The glue is written by hand in the form tonic generates, so that building needs no
//! protoc. Next: `transport/mod.rs`.

pub(crate) mod client;
pub(crate) mod codec;
pub(crate) mod service;

/// The path of the only call.
pub(crate) const CONNECT_PATH: &str = "/windrow.Control/Connect";

/// Bytes of the largest command: a template with the files of a very large table.
pub(crate) const COMMAND_BYTES_MAX: usize = 256 << 20;

/// Bytes of the largest report: the segment sizes of one partition, or the metrics of one attempt.
pub(crate) const REPORT_BYTES_MAX: usize = 16 << 20;
