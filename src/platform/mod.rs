//! The operating system, one door a file. Nothing here knows what a callback is.

pub(crate) mod cache;
pub(crate) mod cancel;
pub(crate) mod clock;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(any(loom, miri, feature = "libffi"))))]
pub(crate) mod code_pages;
pub(crate) mod environment;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod logging;
#[cfg(not(loom))]
pub(crate) mod maps;
pub(crate) mod membarrier;
#[cfg(not(loom))]
pub(crate) mod module;
pub(crate) mod output;
pub(crate) mod pages;
#[cfg(not(any(loom, miri)))]
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod reserve;
pub(crate) mod sdt;
pub(crate) mod stack;
#[cfg(not(loom))]
pub(crate) mod symbols;
#[cfg(not(any(loom, miri)))]
pub(crate) mod thread;
pub(crate) mod tls;
#[cfg(not(any(loom, miri)))]
pub(crate) mod unix_socket;
pub(crate) mod wake;
pub(crate) mod words;

/// The thread's number as debuggers and `/proc` show it.
pub(crate) fn thread_id() -> u32 {
    #[cfg(any(loom, miri))]
    return 0;
    // SAFETY: gettid has no preconditions.
    #[cfg(not(any(loom, miri)))]
    return unsafe { libc::syscall(libc::SYS_gettid) } as u32;
}
