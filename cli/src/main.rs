//! The program `windrow`. Everything it does is in the library `windrow_cli`; see `lib.rs`.

use std::process::ExitCode;

/// Many small allocations on many threads: measured to matter for hash joins and string columns.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    windrow_cli::run()
}
