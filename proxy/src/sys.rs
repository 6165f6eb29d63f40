//! What only the C library can do. The one module with `unsafe`.
#![expect(unsafe_code, reason = "calls into the C library")]

/// Gives memory that nothing uses back to the system. glibc keeps what was freed in the middle of its heap, so that a
/// wave of connections that came and went would be held for ever; other C libraries need no telling.
pub fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no precondition; it takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
