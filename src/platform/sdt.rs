//! Static probe points (USDT), as `<sys/sdt.h>` makes them: a nop in the code, and a note in the file that
//! says where it is, what it is called, and where its arguments are. gdb, bpftrace, perf and SystemTap read
//! the notes and put a breakpoint on the nop; until then that is all that there is.
//!
//! By hand rather than by a crate, because of the arguments: the crate `probe` has each in a register, which
//! costs what it takes to bring it there. Here an argument is where it is: in a register (`8@{name}`), in
//! memory (`8@{offset}({pointer})`), or in the note alone (`-4@$0`).

/// A probe point of the provider `callbridge`. `$arguments` are those of the note, `SIZE@PLACE` each, the size
/// negative if they are signed; then operands as those of `asm!`, which the places name.
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(any(loom, miri))))]
macro_rules! sdt {
    ($name:literal, $arguments:literal, $($operands:tt)*) => {
        // SAFETY: a nop; what else there is goes into sections of their own.
        unsafe {
            std::arch::asm!(
                "990: nop",
                ".pushsection .note.stapsdt,\"?\",\"note\"",
                ".balign 4",
                // Lengths of the name and of what follows, and the version.
                ".4byte 992f-991f, 994f-993f, 3",
                "991: .asciz \"stapsdt\"",
                "992: .balign 4",
                // Where the nop is; where the base was when it was linked; no semaphore.
                "993: .8byte 990b, _.stapsdt.base, 0",
                ".asciz \"callbridge\"",
                concat!(".asciz \"", $name, "\""),
                concat!(".asciz \"", $arguments, "\""),
                "994: .balign 4",
                ".popsection",
                // One in a file, shared with the probes of others.
                ".ifndef _.stapsdt.base",
                ".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat",
                ".weak _.stapsdt.base",
                ".hidden _.stapsdt.base",
                "_.stapsdt.base: .space 1",
                ".size _.stapsdt.base, 1",
                ".popsection",
                ".endif",
                $($operands)*
                options(att_syntax, nostack, preserves_flags, readonly),
            )
        }
    };
}
/// Elsewhere there are none.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(any(loom, miri)))))]
macro_rules! sdt {
    ($($all:tt)*) => {};
}

pub(crate) use sdt;
