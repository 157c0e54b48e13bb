//! The allocator of the program and of the Python package, and how long it keeps freed pages. Next: `main.rs`.

use std::ffi::c_long;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Serves the many small allocations of many threads that a query makes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3's `mimalloc.h`, in milliseconds; the crate does not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// How long freed pages stay with the process. A query frees and takes back gigabytes within seconds, and every page given back to
/// the system costs a fault when it returns: a memory shuffle measured 1.8 times the time. The arenas that large pieces come from keep
/// theirs ten times as long: ten minutes without use is idle.
const KEEP_PAGES_MS: c_long = 60_000;

/// The same for a guest: from one query to the next, while its host needs the memory as well.
const KEEP_PAGES_GUEST_MS: c_long = 500;

/// The same while an executor is short of memory. At 256 MB, pages that nobody used were a third of what was resident.
const KEEP_PAGES_SHORT_MS: c_long = 10;

/// Whether the process is somebody else's, such as an interpreter.
static IS_GUEST: AtomicBool = AtomicBool::new(true);

/// Keeps freed pages as suits a process that does nothing else, and gives them back where an executor of it is short of memory.
pub fn serve_program() {
    IS_GUEST.store(false, Ordering::Relaxed);
    serve();
}

/// Keeps freed pages as suits a process that belongs to somebody else, and gives them back where an executor in it is short of memory.
pub fn serve_guest() {
    IS_GUEST.store(true, Ordering::Relaxed);
    serve();
}

fn serve() {
    keep_pages(usual());
    windrow::give_back_freed_memory_with(give_back);
}

fn usual() -> c_long {
    if IS_GUEST.load(Ordering::Relaxed) { KEEP_PAGES_GUEST_MS } else { KEEP_PAGES_MS }
}

/// When memory is short, gives the pages of freed memory back to the system at once and soon from then on; else keeps them. From the
/// first time on a program has no more huge pages, which the system keeps, or makes again, around the pieces that were given back.
#[expect(unsafe_code, reason = "neither the allocator nor the system has a safe interface to this")]
fn give_back(is_short: bool) {
    static SMALL_PAGES: Once = Once::new();
    keep_pages(if is_short { KEEP_PAGES_SHORT_MS } else { usual() });
    if !is_short {
        return;
    }
    if !IS_GUEST.load(Ordering::Relaxed) {
        SMALL_PAGES.call_once(|| {
            // SAFETY: changes how the system backs memory that is touched from now on, and no memory. Where it is refused, all stays as it is.
            #[cfg(target_os = "linux")]
            let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
        });
    }
    // SAFETY: may be called by any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Tells the allocator how long to keep freed pages, unless `MIMALLOC_PURGE_DELAY` says so.
#[expect(unsafe_code, reason = "the allocator has no safe interface to its options")]
fn keep_pages(milliseconds: c_long) {
    // SAFETY: sets one number in a table of the allocator, whose readers take either value; an unknown index is ignored.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, milliseconds) }
}
