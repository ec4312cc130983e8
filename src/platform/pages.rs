//! Zeroed memory that is never moved, and whose pages cost nothing until they are touched.

/// Reserves `count` zeroed `T`s, or `None` when memory is out.
///
/// # Safety
/// All bytes zero must be a valid `T`.
#[cfg(not(any(loom, miri)))]
pub(crate) unsafe fn alloc_zeroed<T>(count: usize) -> Option<std::ptr::NonNull<T>> {
    const HUGE_PAGE: usize = 2 << 20;
    let bytes = count.checked_mul(size_of::<T>())?;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return from_heap(count);
    }
    if bytes >= HUGE_PAGE {
        // Large tables are read in random order: fewer TLB misses. Advice only, so a refusal is fine.
        // SAFETY: the range is the mapping made above.
        unsafe { libc::madvise(address, bytes, libc::MADV_HUGEPAGE) };
    }
    leak_sanitizer::register(address, bytes);
    std::ptr::NonNull::new(address.cast())
}

/// LeakSanitizer, if the host runs under it, looks for pointers in mappings that it is told of: what these
/// pages point to is no leak.
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(any(loom, miri))))]
pub(super) mod leak_sanitizer {
    use std::ffi::c_void;

    type Tell = unsafe extern "C" fn(*const c_void, usize);

    macro_rules! tell {
        ($name:ident, $symbol:literal) => {
            pub(in crate::platform) fn $name(address: *const c_void, bytes: usize) {
                let function: *const ();
                // Weak, said in every object that asks: null where the process has no such function. (dlsym
                // would change the thread's dlerror.)
                // SAFETY: reads the linker's entry for the symbol.
                unsafe {
                    std::arch::asm!(
                        concat!(".weak ", $symbol),
                        concat!("mov {}, qword ptr [rip + ", $symbol, "@GOTPCREL]"),
                        out(reg) function,
                        options(nostack, preserves_flags, pure, readonly),
                    );
                }
                // SAFETY: null, or a function of this type, as <sanitizer/lsan_interface.h> says; Option<fn>
                // has null for None.
                let function: Option<Tell> = unsafe { std::mem::transmute(function) };
                if let Some(function) = function {
                    // SAFETY: a mapping that was just made, or that is about to go.
                    unsafe { function(address, bytes) };
                }
            }
        };
    }
    tell!(register, "__lsan_register_root_region");
    tell!(unregister, "__lsan_unregister_root_region");
}

#[cfg(not(any(all(target_arch = "x86_64", target_os = "linux"), loom, miri)))]
pub(super) mod leak_sanitizer {
    pub(in crate::platform) fn register(_address: *const std::ffi::c_void, _bytes: usize) {}
    pub(in crate::platform) fn unregister(_address: *const std::ffi::c_void, _bytes: usize) {}
}

/// The smallest page there is: mappings begin at a multiple of it, and what is from the heap does not.
#[cfg(not(any(loom, miri)))]
const PAGE: usize = 4096;

/// The heap may have memory that was freed when the kernel gives no more.
#[cfg(not(any(loom, miri)))]
fn from_heap<T>(count: usize) -> Option<std::ptr::NonNull<T>> {
    let (layout, offset) = on_heap::<T>(count)?;
    // SAFETY: not of size 0, as it has the offset.
    let block = std::ptr::NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })?;
    // SAFETY: in the block, which has room for `count` behind it.
    Some(unsafe { block.add(offset) }.cast())
}

/// What to ask the heap for, and where in it the memory begins: beside the beginning of a page. None for what
/// has to begin at one.
#[cfg(not(any(loom, miri)))]
fn on_heap<T>(count: usize) -> Option<(std::alloc::Layout, usize)> {
    if align_of::<T>() >= PAGE {
        return None;
    }
    let begin = std::alloc::Layout::from_size_align(align_of::<T>(), PAGE);
    let (layout, offset) = begin.ok()?.extend(std::alloc::Layout::array::<T>(count).ok()?).ok()?;
    Some((layout, offset))
}

/// Gives back what [`alloc_zeroed`] returned.
///
/// # Safety
/// `memory` came from `alloc_zeroed` with the same `count`, and nobody uses it any more.
#[cfg(not(any(loom, miri)))]
pub(crate) unsafe fn free<T>(memory: std::ptr::NonNull<T>, count: usize) {
    if !memory.as_ptr().addr().is_multiple_of(PAGE) {
        if let Some((layout, offset)) = on_heap::<T>(count) {
            // SAFETY: allocated by `from_heap` with this layout, this far behind its beginning.
            unsafe { std::alloc::dealloc(memory.as_ptr().cast::<u8>().sub(offset), layout) };
        }
        return;
    }
    leak_sanitizer::unregister(memory.as_ptr().cast(), count * size_of::<T>());
    // SAFETY: the caller's promise: exactly this mapping, unused.
    unsafe { libc::munmap(memory.as_ptr().cast(), count * size_of::<T>()) };
}

// Miri and loom: the heap, so that leaks and provenance are seen.

/// See the other one.
///
/// # Safety
/// As there.
#[cfg(any(loom, miri))]
pub(crate) unsafe fn alloc_zeroed<T>(count: usize) -> Option<std::ptr::NonNull<T>> {
    let layout = std::alloc::Layout::array::<T>(count).ok()?;
    // SAFETY: callers ask for one element or more of a sized type.
    std::ptr::NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }.cast())
}

/// See the other one.
///
/// # Safety
/// As there.
#[cfg(any(loom, miri))]
pub(crate) unsafe fn free<T>(memory: std::ptr::NonNull<T>, count: usize) {
    let layout = std::alloc::Layout::array::<T>(count).expect("it was allocated with this layout");
    // SAFETY: the caller's promise.
    unsafe { std::alloc::dealloc(memory.as_ptr().cast(), layout) };
}
