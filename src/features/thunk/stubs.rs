//! The code of thunks on x86_64 System V: a table of small stubs in the library's own text.
//!
//! A stub loads the address of its data, which lies at a fixed distance, and jumps to where that says;
//! so the same pages of the library's file, mapped once more beside other data, are more stubs. What it
//! jumps to depends on the signature. A signature with at most five integer arguments and eight floating
//! ones needs no argument moved to the stack: there the compiler's own code keeps the registers while
//! the callback is entered. The others go through [`general`].
//!
//! A stub is never a frame: it has jumped on when anything is called. So unwinders need to know of the
//! copies nothing at all, and what is registered with `__register_frame` would slow every exception of
//! the process. (A debugger that stops inside a copied stub finds the caller at the top of the stack.)

use super::call::call;
use super::pool::Pool;
use super::table::{Stub, TABLE, Table};
use crate::engine::invoke::{self, AnyFn};
use crate::engine::signature::{F32, F64, Signature};
use crate::error::Error;
use crate::platform::code_pages;
use crate::sync::Relaxed;
use std::arch::global_asm;
use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr::NonNull;

const STUB_LEN: usize = 16;
const _: () = assert!(size_of::<Stub>() == STUB_LEN && offset_of!(Stub, entry) == 0);

global_asm!(
    ".pushsection .text.callbridge_thunks,\"ax\",@progbits",
    ".p2align 12",
    ".hidden callbridge_thunk_code",
    ".globl callbridge_thunk_code",
    ".type callbridge_thunk_code,@function",
    ".size callbridge_thunk_code,{code_len}",
    "callbridge_thunk_code:",
    ".cfi_startproc",
    ".set callbridge_thunk_number,0",
    ".rept {table}",
    "endbr64",
    "lea r10, [rip + callbridge_thunk_data + {stub_len} * callbridge_thunk_number]",
    "jmp qword ptr [r10]",
    ".p2align 4, 0xcc",
    ".set callbridge_thunk_number,callbridge_thunk_number + 1",
    ".endr",
    ".cfi_endproc",
    ".popsection",
    // The first table's data.
    ".pushsection .bss.callbridge_thunks,\"aw\",@nobits",
    ".p2align 12",
    ".hidden callbridge_thunk_data",
    ".globl callbridge_thunk_data",
    ".type callbridge_thunk_data,@object",
    ".size callbridge_thunk_data,{data_len}",
    "callbridge_thunk_data:",
    ".zero {data_len}",
    ".popsection",
    table = const TABLE,
    stub_len = const STUB_LEN,
    code_len = const TABLE * STUB_LEN,
    data_len = const size_of::<Table>(),
);

// Where stubs jump to: with the data in r10, and everything else as the caller has left it.
global_asm!(
    ".pushsection .text.callbridge_thunk_entries,\"ax\",@progbits",
    ".macro callbridge_thunk_entry name, function",
    ".p2align 4",
    ".hidden \\name",
    ".globl \\name",
    ".type \\name,@function",
    "\\name:",
    ".cfi_startproc",
    "endbr64",
    // The sixth integer argument, which there is none of.
    "mov r9, r10",
    "jmp \\function",
    ".cfi_endproc",
    ".size \\name, . - \\name",
    ".endm",
    "callbridge_thunk_entry callbridge_thunk_integers, {integers}",
    "callbridge_thunk_entry callbridge_thunk_integers_f64, {integers_f64}",
    "callbridge_thunk_entry callbridge_thunk_mixed, {mixed}",
    "callbridge_thunk_entry callbridge_thunk_mixed_f64, {mixed_f64}",
    ".purgem callbridge_thunk_entry",
    // Keeps the registers in memory, as a `Registers` and a `Returned`.
    ".p2align 4",
    ".hidden callbridge_thunk_general",
    ".globl callbridge_thunk_general",
    ".type callbridge_thunk_general,@function",
    "callbridge_thunk_general:",
    ".cfi_startproc",
    "endbr64",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "sub rsp, {frame}",
    "mov [rsp], rdi",
    "mov [rsp + 8], rsi",
    "mov [rsp + 16], rdx",
    "mov [rsp + 24], rcx",
    "mov [rsp + 32], r8",
    "mov [rsp + 40], r9",
    "movsd [rsp + 48], xmm0",
    "movsd [rsp + 56], xmm1",
    "movsd [rsp + 64], xmm2",
    "movsd [rsp + 72], xmm3",
    "movsd [rsp + 80], xmm4",
    "movsd [rsp + 88], xmm5",
    "movsd [rsp + 96], xmm6",
    "movsd [rsp + 104], xmm7",
    "mov rdi, r10",
    "mov rsi, rsp",
    "lea rdx, [rbp + 16]",
    "lea rcx, [rsp + {registers}]",
    "call {general}",
    "mov rax, [rsp + {registers}]",
    "movsd xmm0, [rsp + {registers} + 8]",
    "leave",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    ".size callbridge_thunk_general, . - callbridge_thunk_general",
    // (registers, function, user_data, stack arguments, how many, returned): calls the function with
    // user_data before what the registers hold.
    ".p2align 4",
    ".hidden callbridge_thunk_invoke",
    ".globl callbridge_thunk_invoke",
    ".type callbridge_thunk_invoke,@function",
    "callbridge_thunk_invoke:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "push rbx",
    ".cfi_offset rbx, -24",
    "sub rsp, 8",
    "mov rbx, r9",
    "mov r11, rsi",
    "mov rax, rdx",
    // An even number of places keeps the stack aligned.
    "lea r10, [r8 + 1]",
    "and r10, -2",
    "shl r10, 3",
    "sub rsp, r10",
    "2:",
    "test r8, r8",
    "jz 3f",
    "mov r10, [rcx + 8 * r8 - 8]",
    "mov [rsp + 8 * r8 - 8], r10",
    "dec r8",
    "jmp 2b",
    "3:",
    "movsd xmm0, [rdi + 48]",
    "movsd xmm1, [rdi + 56]",
    "movsd xmm2, [rdi + 64]",
    "movsd xmm3, [rdi + 72]",
    "movsd xmm4, [rdi + 80]",
    "movsd xmm5, [rdi + 88]",
    "movsd xmm6, [rdi + 96]",
    "movsd xmm7, [rdi + 104]",
    "mov r9, [rdi + 32]",
    "mov r8, [rdi + 24]",
    "mov rcx, [rdi + 16]",
    "mov rdx, [rdi + 8]",
    "mov rsi, [rdi]",
    "mov rdi, rax",
    "call r11",
    "mov [rbx], rax",
    "movsd [rbx + 8], xmm0",
    "lea rsp, [rbp - 8]",
    "pop rbx",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    ".size callbridge_thunk_invoke, . - callbridge_thunk_invoke",
    ".popsection",
    integers = sym integers,
    integers_f64 = sym integers_f64,
    mixed = sym mixed,
    mixed_f64 = sym mixed_f64,
    general = sym general,
    registers = const size_of::<Registers>(),
    frame = const size_of::<Registers>() + size_of::<Returned>(),
);

#[allow(unused_doc_comments, reason = "for cbindgen, which takes them for the header")]
/// cbindgen:ignore
unsafe extern "C" {
    static callbridge_thunk_code: u8;
    static callbridge_thunk_data: Table;
    fn callbridge_thunk_integers();
    fn callbridge_thunk_integers_f64();
    fn callbridge_thunk_mixed();
    fn callbridge_thunk_mixed_f64();
    fn callbridge_thunk_general();
}
#[allow(unused_doc_comments, reason = "for cbindgen, which takes them for the header")]
/// cbindgen:ignore
unsafe extern "C-unwind" {
    fn callbridge_thunk_invoke(
        registers: &Registers,
        function: *mut (),
        user_data: *mut (),
        stack: *const u64,
        places: usize,
        returned: &mut Returned,
    );
}

// --- what runs in a call -------------------------------------------------------------------

macro_rules! entry {
    ($(#[$doc:meta])* $name:ident, $result:ty, $of_bits:expr $(, $float:ident: $f64:ty)*) => {
        $(#[$doc])*
        unsafe extern "C-unwind" fn $name(
            a: u64,
            b: u64,
            c: u64,
            d: u64,
            e: u64,
            stub: &'static Stub,
            $($float: $f64,)*
        ) -> $result {
            type Function =
                unsafe extern "C-unwind" fn(*mut (), u64, u64, u64, u64, u64, $($f64),*) -> $result;
            let called = call(stub, |function, user_data| {
                // SAFETY: the callback's function, whose signature is the thunk's: its arguments are
                // among these, in these registers.
                unsafe {
                    let function = std::mem::transmute::<*mut (), Function>(function);
                    function(user_data, a, b, c, d, e, $($float),*)
                }
            });
            called.unwrap_or_else(|()| $of_bits(stub.fallback()))
        }
    };
}
entry!(
    /// At most five integer arguments, and what returns an integer, or nothing. Registers that the
    /// signature has no argument for hold anything, here and in what follows.
    integers, u64, std::convert::identity
);
entry!(
    /// The same, of what returns a floating number: f32 is the lower half of the same register.
    integers_f64, f64, f64::from_bits
);
entry!(
    /// Up to eight floating arguments among them.
    mixed, u64, std::convert::identity,
    f: f64, g: f64, h: f64, i: f64, j: f64, k: f64, l: f64, m: f64
);
entry!(
    mixed_f64, f64, f64::from_bits,
    f: f64, g: f64, h: f64, i: f64, j: f64, k: f64, l: f64, m: f64
);

/// The argument registers.
#[repr(C)]
struct Registers {
    integers: [u64; 6],
    floats: [u64; 8],
}

/// The registers of results.
#[repr(C)]
struct Returned {
    integer: u64,
    float: u64,
}

/// At most 14 arguments, of which five integers and user_data, or eight floats, are in registers.
const PLACES: usize = 9;

/// Any signature. `stack`: the caller's arguments that are there.
unsafe extern "C-unwind" fn general(
    stub: &'static Stub,
    registers: &Registers,
    stack: *const u64,
    returned: &mut Returned,
) {
    let Code { integers, on_stack, .. } = stub.pool().code;
    // Six integers or more leave no room for a ninth float, so the sixth is the first on the stack.
    let moved = usize::from(integers > 5);
    let mut places = [0; PLACES];
    places[0] = registers.integers[5];
    // SAFETY: the caller has put so many there, and there is room.
    unsafe { std::ptr::copy_nonoverlapping(stack, places.as_mut_ptr().add(moved), on_stack) };
    let called = call(stub, |function, user_data| {
        let mut returned = Returned { integer: 0, float: 0 };
        let places = (places.as_ptr(), on_stack + moved);
        // SAFETY: the callback's function, whose signature is the thunk's.
        unsafe {
            callbridge_thunk_invoke(
                registers,
                function,
                user_data,
                places.0,
                places.1,
                &mut returned,
            );
        }
        returned
    });
    *returned = called.unwrap_or_else(|()| {
        let fallback = stub.fallback();
        Returned { integer: fallback, float: fallback }
    });
}

// --- what the tables need to know ----------------------------------------------------------

/// What the stubs of a signature have in common.
#[derive(Clone, Copy)]
pub(super) struct Code {
    entry: unsafe extern "C" fn(),
    integers: usize,
    on_stack: usize,
}

impl Code {
    pub(super) fn new(signature: Signature) -> Result<Self, Error> {
        let floats = signature.arguments().filter(|argument| is_float(*argument)).count();
        let integers = signature.arguments().count() - floats;
        let on_stack = integers.saturating_sub(6) + floats.saturating_sub(8);
        let entry = match (integers > 5 || floats > 8, floats, is_float(signature.result())) {
            (true, _, _) => callbridge_thunk_general,
            (_, 0, false) => callbridge_thunk_integers,
            (_, 0, true) => callbridge_thunk_integers_f64,
            (_, _, false) => callbridge_thunk_mixed,
            (_, _, true) => callbridge_thunk_mixed_f64,
        };
        Ok(Self { entry, integers, on_stack })
    }
}

/// Is it a type that floating registers hold?
fn is_float(number: u64) -> bool {
    matches!(number, F32 | F64)
}

/// How far above its code a stub's data lies.
fn distance() -> usize {
    (&raw const callbridge_thunk_data).addr() - (&raw const callbridge_thunk_code).addr()
}

/// The first table, which needs nothing from anybody.
pub(super) fn first_table() -> Option<NonNull<Table>> {
    NonNull::new((&raw const callbridge_thunk_data).cast_mut())
}

/// Another table.
pub(super) fn more() -> Result<NonNull<Table>, Error> {
    let code =
        NonNull::new((&raw const callbridge_thunk_code).cast_mut()).ok_or(Error::NoMemory)?;
    let layout = code_pages::Layout {
        code,
        code_len: TABLE * STUB_LEN,
        distance: distance(),
        data_len: size_of::<Table>(),
    };
    Ok(code_pages::copy(layout)?.cast())
}

/// Makes the stub one of this signature. It is the caller's alone.
pub(super) fn prepare(stub: &'static Stub, pool: &'static Pool) -> Result<(), Error> {
    // Relaxed: nobody has its address yet; who is given it is given it after this.
    stub.entry.store((pool.code.entry as *mut c_void).cast(), Relaxed);
    Ok(())
}

/// Where it is called.
pub(super) fn address(stub: &'static Stub) -> AnyFn {
    let code = std::ptr::from_ref(stub).wrapping_byte_sub(distance());
    invoke::function_at(code.cast())
}
