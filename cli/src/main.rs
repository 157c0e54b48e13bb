//! The program `windrow`. Everything it does is in the library `windrow_cli`; see `lib.rs`. Here is only what belongs to a
//! process: its allocator.

use std::process::ExitCode;

/// Serves the many small allocations of many threads that a query makes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3's `mimalloc.h`, in milliseconds; the crate does not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// How long freed pages stay with the process. A query frees and takes back gigabytes within seconds, and every page given back to
/// the system costs a fault when it returns: a memory shuffle measured 1.8 times the time. The arenas that large pieces come from keep
/// theirs ten times as long: ten minutes without use is idle. Where memory is short, all goes back at once (`give_back`).
const KEEP_PAGES_MS: std::ffi::c_long = 60_000;

fn main() -> ExitCode {
    keep_pages();
    windrow::give_back_freed_memory_with(give_back);
    windrow_cli::run()
}

/// Gives the pages of freed memory back to the system at once: an executor is short of memory. From the first time on the process has
/// no more huge pages, which the system keeps, or makes again, around the pieces that were given back.
#[expect(unsafe_code, reason = "neither the allocator nor the system has a safe interface to this")]
fn give_back() {
    static SMALL_PAGES: std::sync::Once = std::sync::Once::new();
    SMALL_PAGES.call_once(|| {
        // SAFETY: changes how the system backs memory that is touched from now on, and no memory. Where it is refused, all stays as it is.
        #[cfg(target_os = "linux")]
        let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    });
    // SAFETY: may be called by any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Tells the allocator how long to keep freed pages, unless `MIMALLOC_PURGE_DELAY` says so.
#[expect(unsafe_code, reason = "the allocator has no safe interface to its options")]
fn keep_pages() {
    // SAFETY: sets one number in a table of the allocator, before any other thread runs; an unknown index is ignored.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEEP_PAGES_MS) }
}
