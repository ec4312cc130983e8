//! The code of thunks where there are no [`super::stubs`]: closures of libffi. One is made for a thunk when
//! it is opened for the first time, and is its for good.

use super::call::call;
use super::pool::Pool;
use super::table::{Stub, Table};
use crate::engine::invoke::{self, AnyFn};
use crate::engine::signature::{F32, F64, PTR, Signature, VOID};
use crate::error::Error;
use crate::platform::cancel::NotNow;
use crate::platform::pages;
use crate::sync::Relaxed;
use libffi_sys::{
    ffi_abi_FFI_DEFAULT_ABI, ffi_cif, ffi_closure, ffi_closure_alloc, ffi_prep_cif,
    ffi_prep_closure_loc, ffi_status_FFI_OK, ffi_type,
};
use std::alloc::Layout;
use std::ffi::c_void;
use std::ptr::{self, NonNull};

#[allow(unused_doc_comments, reason = "for cbindgen, which takes them for the header")]
/// cbindgen:ignore
unsafe extern "C-unwind" {
    /// libffi_sys says that nothing unwinds through it; it has unwind tables, and things do.
    #[allow(clashing_extern_declarations, reason = "for the ABI that lets unwinds pass")]
    fn ffi_call(
        cif: *mut ffi_cif,
        function: *const (),
        result: *mut c_void,
        arguments: *mut *mut c_void,
    );
}

/// user_data and 14 arguments.
const ARGUMENTS: usize = 15;

/// How a signature's functions are called, by libffi's description.
struct Description {
    /// The thunk's: without user_data.
    outer: ffi_cif,
    /// The callback's.
    inner: ffi_cif,
    types: [*mut ffi_type; ARGUMENTS],
    arguments: usize,
    result: Result,
}

#[derive(Clone, Copy)]
enum Result {
    Nothing,
    F32,
    /// Integers are as wide as a register.
    Register,
}

/// What the thunks of a signature have in common.
#[derive(Clone, Copy)]
pub(super) struct Code(NonNull<Description>);

impl Code {
    pub(super) fn new(signature: Signature) -> std::result::Result<Self, Error> {
        const REFUSED: Error = Error::Unsupported("libffi does not know how to call the signature");
        // SAFETY: the layout is not empty.
        let memory = unsafe { std::alloc::alloc_zeroed(Layout::new::<Description>()) };
        let memory = NonNull::new(memory.cast::<Description>()).ok_or(Error::NoMemory)?;
        // SAFETY: zeroed memory for it, ours alone; zero is a `Result`.
        let it = unsafe { &mut *memory.as_ptr() };
        it.types[0] = type_of(PTR);
        for argument in signature.arguments() {
            it.arguments += 1;
            it.types[it.arguments] = type_of(argument);
        }
        let result = type_of(signature.result());
        it.result = match signature.result() {
            VOID => Result::Nothing,
            F32 => Result::F32,
            _ => Result::Register,
        };
        let (count, types) = (it.arguments as u32, it.types.as_mut_ptr());
        // SAFETY: the descriptions and the types that they point to stay where they are.
        let made = unsafe {
            let abi = ffi_abi_FFI_DEFAULT_ABI;
            ffi_prep_cif(&raw mut it.outer, abi, count, result, types.add(1)) == ffi_status_FFI_OK
                && ffi_prep_cif(&raw mut it.inner, abi, count + 1, result, types)
                    == ffi_status_FFI_OK
        };
        if made { Ok(Self(memory)) } else { Err(REFUSED) }
    }
}

/// libffi's type of a number in a signature.
fn type_of(number: u64) -> *mut ffi_type {
    match number {
        VOID => &raw mut libffi_sys::ffi_type_void,
        2 | 4 => &raw mut libffi_sys::ffi_type_uint8,
        3 => &raw mut libffi_sys::ffi_type_sint8,
        5 => &raw mut libffi_sys::ffi_type_sint16,
        6 => &raw mut libffi_sys::ffi_type_uint16,
        7 => &raw mut libffi_sys::ffi_type_sint32,
        8 => &raw mut libffi_sys::ffi_type_uint32,
        9 => &raw mut libffi_sys::ffi_type_sint64,
        10 => &raw mut libffi_sys::ffi_type_uint64,
        F32 => &raw mut libffi_sys::ffi_type_float,
        F64 => &raw mut libffi_sys::ffi_type_double,
        _ => &raw mut libffi_sys::ffi_type_pointer,
    }
}

/// What a closure runs: a `ffi_prep_closure_loc` function.
unsafe extern "C-unwind" fn run(
    _cif: *mut ffi_cif,
    result: *mut c_void,
    arguments: *mut *mut c_void,
    stub: *mut c_void,
) {
    // SAFETY: from `prepare`.
    let stub: &'static Stub = unsafe { &*stub.cast::<Stub>() };
    // SAFETY: made by `Code::new`, never freed.
    let description = unsafe { stub.pool().code.0.as_ref() };
    let called = call(stub, |function, mut user_data| {
        let mut places = [ptr::null_mut::<c_void>(); ARGUMENTS];
        places[0] = (&raw mut user_data).cast();
        let mut returned = 0u64;
        // SAFETY: libffi gives as many arguments as the signature has; the callback's function, whose
        // signature is the thunk's. libffi only reads the description.
        unsafe {
            ptr::copy_nonoverlapping(arguments, &raw mut places[1], description.arguments);
            let inner = (&raw const description.inner).cast_mut();
            ffi_call(inner, function, (&raw mut returned).cast(), places.as_mut_ptr());
        }
        returned
    });
    let returned = called.unwrap_or_else(|()| stub.fallback());
    // SAFETY: room for what the signature returns, an integer as wide as a register.
    unsafe {
        match description.result {
            Result::Nothing => {}
            Result::F32 => result.cast::<u32>().write(returned as u32),
            Result::Register => result.cast::<u64>().write(returned),
        }
    }
}

/// There is no table before the first one is made.
pub(super) fn first_table() -> Option<NonNull<Table>> {
    None
}

/// Another table.
pub(super) fn more() -> std::result::Result<NonNull<Table>, Error> {
    // SAFETY: zeroed memory is a table.
    unsafe { pages::alloc_zeroed::<Table>(1) }.ok_or(Error::NoMemory)
}

/// Makes the stub one of this signature. It is the caller's alone.
pub(super) fn prepare(stub: &'static Stub, pool: &'static Pool) -> std::result::Result<(), Error> {
    type Arguments = *mut *mut c_void;
    type Run = unsafe extern "C-unwind" fn(*mut ffi_cif, *mut c_void, Arguments, *mut c_void);
    type Taken = unsafe extern "C" fn(*mut ffi_cif, *mut c_void, Arguments, *mut c_void);
    let mut code = ptr::null_mut();
    // libffi opens files and maps them.
    let _not_now = NotNow::begin();
    // SAFETY: an allocation of libffi's own; the description and the stub live for good. The function
    // is called as the type says, but that unwinds pass.
    unsafe {
        let closure =
            ffi_closure_alloc(size_of::<ffi_closure>(), &raw mut code).cast::<ffi_closure>();
        if closure.is_null() {
            return Err(Error::NoMemory);
        }
        let run = std::mem::transmute::<Run, Option<Taken>>(run);
        let outer = &raw mut (*pool.code.0.as_ptr()).outer;
        let stub = ptr::from_ref(stub).cast_mut().cast();
        if ffi_prep_closure_loc(closure, outer, run, stub, code) != ffi_status_FFI_OK {
            libffi_sys::ffi_closure_free(closure.cast());
            return Err(Error::Unsupported("libffi makes no closure of the signature"));
        }
    }
    // Relaxed: nobody has its address yet; who is given it is given it after this.
    stub.entry.store(code.cast(), Relaxed);
    Ok(())
}

/// Where it is called.
pub(super) fn address(stub: &'static Stub) -> AnyFn {
    // Relaxed: as above.
    invoke::function_at(stub.entry.load(Relaxed).cast_const())
}
