//! The binary `cluster`: Windrow as its users run it, in processes on loopback, with kills. The program is the one cargo built
//! beside this binary; `cargo build --workspace` puts it there.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code: a panic fails the test with its reason")]

mod answers;
mod cancel;
mod catalog;
mod command_line;
mod credentials;
mod direct;
mod faults;
mod fleet;
mod frames;
mod kills;
mod leaks;
mod memory;
mod network;
mod phases;
mod program;
mod refusals;
mod security;
mod stores;
mod time_limit;
