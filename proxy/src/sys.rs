//! Memory: what allocates it, and what gives it back. The one module with `unsafe`.
#![expect(unsafe_code, reason = "calls into the allocators")]

/// A request makes some twenty small allocations and two of 8 KiB. The C library's allocator spends a tenth of the
/// proxy's own time on them, and keeps what was freed in the middle of its heap.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives memory that nothing uses back to the system: what this thread has freed, and what the C code that we link has.
/// A wave of connections that came and went would be held until as many come again.
pub fn release_memory() {
    // SAFETY: it has no precondition; a thread collects what is its own.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no precondition; it takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
