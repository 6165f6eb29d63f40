//! Memory: what allocates it, and what gives it back. The one module with `unsafe`.
#![expect(unsafe_code, reason = "calls into the allocators, and to the kernel about memory that is mapped")]

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

/// A request makes some fifteen small allocations. The C library's allocator spends a tenth of the
/// proxy's own time on them, and keeps what was freed in the middle of its heap.
#[global_allocator]
static ALLOCATOR: Mimalloc = Mimalloc;

/// mimalloc, asked for an alignment only where it would not give it anyway: asked so, it makes most blocks larger than they
/// have to be, which takes longer.
struct Mimalloc;

/// What any block has that is as large (C11 section 7.22.3: `max_align_t`; `MI_MAX_ALIGN_SIZE`).
const ALIGNED: usize = 16;

fn is_aligned_anyway(size: usize, align: usize) -> bool {
    align <= ALIGNED && align <= size
}

// SAFETY: mimalloc's functions hold to C's rules for `malloc`, `calloc`, `realloc` and `free`, which are what is asked for here,
// and each takes what any other has given.
unsafe impl GlobalAlloc for Mimalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: sizes and alignments are as `Layout` has them.
        unsafe {
            if is_aligned_anyway(size, align) { mi_malloc(size) } else { mi_malloc_aligned(size, align) }
                .cast()
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: sizes and alignments are as `Layout` has them.
        unsafe {
            if is_aligned_anyway(size, align) { mi_zalloc(size) } else { mi_zalloc_aligned(size, align) }
                .cast()
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: it was given out above, whoever calls says.
        unsafe { mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (block, align) = (block.cast(), layout.align());
        // SAFETY: it was given out above, whoever calls says.
        unsafe {
            if is_aligned_anyway(size, align) {
                mi_realloc(block, size)
            } else {
                mi_realloc_aligned(block, size, align)
            }
            .cast()
        }
    }
}

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

/// Lets go of the program's own code, as far as it was in use so far. What starts a process (reads a command line, a
/// configuration, keys) is several times what serves, and counts as its memory for as long as it is mapped. What is needed again
/// is mapped again, out of the page cache, in some microseconds.
///
/// Does nothing where it cannot be told that no byte of it differs from the file it came from.
#[cfg(target_os = "linux")]
pub fn forget_code() {
    let Some(Code { start, length, resident, .. }) = own_code().filter(|code| code.is_clean) else { return };
    // SAFETY: the range is one mapping of a file, private, executable, not writable, and without a page that was written
    // to; so whatever is dropped of it is read again from the file as it was, by this thread or another.
    let forgotten = unsafe {
        rustix::mm::madvise(start as *mut core::ffi::c_void, length, rustix::mm::Advice::LinuxDontNeed)
    };
    match forgotten {
        Ok(()) => tracing::debug!(kib = resident, "the code that started the process is let go of"),
        Err(error) => tracing::debug!(%error, "the code that started the process stays mapped"),
    }
}

/// On systems that are developed on and not served from.
#[cfg(not(target_os = "linux"))]
pub fn forget_code() {}

/// A mapping of code.
#[cfg(target_os = "linux")]
struct Code {
    start: usize,
    /// In bytes.
    length: usize,
    /// What of it is mapped, in KiB.
    resident: u64,
    is_clean: bool,
}

/// The mapping that this function stands in, as `/proc/self/smaps` has it.
#[cfg(target_os = "linux")]
fn own_code() -> Option<Code> {
    let here = own_code as *const () as usize;
    let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
    let mut lines = maps.lines();
    let (start, end) = lines.by_ref().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        ((start..end).contains(&here) && rest.starts_with("r-xp ")).then_some((start, end))
    })?;
    let mut figure = |name: &str| {
        let line = lines.by_ref().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let resident = figure("Rss:")?;
    // A page that was written to is nobody's but this process's.
    let is_clean = figure("Anonymous:")? == 0;
    Some(Code { start, length: end - start, resident, is_clean })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_keep_what_is_in_them() {
        let layouts = (1..2000).flat_map(|size| [1, 2, 4, 8, 16, 32, 64, 4096].map(|align| (size, align)));
        for (size, align) in layouts {
            let layout = |size| Layout::from_size_align(size, align).unwrap();
            let check =
                |block: *mut u8| assert!(block.addr().is_multiple_of(align), "{size} bytes at {align}");
            // SAFETY: no size is 0, and each block is given back as it was last asked for.
            unsafe {
                let zeroed = ALLOCATOR.alloc_zeroed(layout(size));
                check(zeroed);
                assert!(std::slice::from_raw_parts(zeroed, size).iter().all(|byte| *byte == 0));
                let block = ALLOCATOR.alloc(layout(size));
                check(block);
                block.write_bytes(7, size);
                let grown = ALLOCATOR.realloc(block, layout(size), size * 2);
                check(grown);
                let shrunk = ALLOCATOR.realloc(grown, layout(size * 2), size.div_ceil(2));
                check(shrunk);
                let kept = std::slice::from_raw_parts(shrunk, size.div_ceil(2));
                assert!(kept.iter().all(|byte| *byte == 7), "{size} bytes at {align}");
                ALLOCATOR.dealloc(zeroed, layout(size));
                ALLOCATOR.dealloc(shrunk, layout(size.div_ceil(2)));
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn code_that_was_let_go_is_there_when_it_is_needed() {
        let before = own_code().unwrap();
        assert!(before.is_clean);
        forget_code();
        let after = own_code().unwrap();
        assert!(after.resident < before.resident, "{} KiB, and {} before", after.resident, before.resident);
    }
}
