//! The program `windrow`. Everything it does is in the library `windrow_cli`; see `lib.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    windrow_cli::allocator::serve_program();
    windrow_cli::run()
}
