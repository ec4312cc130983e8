//! Thunks of any signature, also of none: what their callers pass arrives at the callback, what it returns
//! comes back, and when it is gone the fallback does. x86_64 only: it calls by the convention itself, with all
//! registers for arguments, and then with what lies on the stack.
#![no_main]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("it calls by the convention of x86_64");

mod c;

use c::*;
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr::null;

const ERR_INVALID: cbr_status = -4;
const ERR_SIGNATURE: cbr_status = -6;
const INTEGERS: usize = 6;
const FLOATS: usize = 8;
/// More than 14 arguments and a user_data can leave for the stack.
const STACK: usize = 10;
/// Each costs a page for good, of which the process may have so many.
const SIGNATURES: usize = 2000;

/// Bytes that a value of the type has, and whether it is in a floating point register; None: no type.
fn shape(kind: u64) -> Option<(usize, bool)> {
    Some(match kind {
        2..=4 => (1, false),
        5 | 6 => (2, false),
        7 | 8 => (4, false),
        9 | 10 | 13 => (8, false),
        11 => (4, true),
        12 => (8, true),
        _ => return None,
    })
}

struct Signature {
    returns: u64,
    arguments: Vec<u64>,
}

/// As the header says what a signature is.
fn parse(signature: u64) -> Option<Signature> {
    let count = (signature >> 60) as usize;
    let returns = signature >> 56 & 15;
    let arguments: Vec<_> = (0..14).map(|at| signature >> (52 - 4 * at) & 15).collect();
    let is_good = count <= 14
        && (returns == 1 || shape(returns).is_some())
        && arguments[..count].iter().all(|kind| shape(*kind).is_some())
        && arguments[count..].iter().all(|kind| *kind == 0);
    is_good.then(|| Signature { returns, arguments: arguments[..count].to_vec() })
}

/// What a value of the type is of any 64 bits.
fn value(kind: u64, bits: u64) -> u64 {
    match (kind, shape(kind)) {
        (2, _) => bits & 1,
        (_, Some((8, _))) => bits,
        (_, Some((size, _))) => bits & ((1 << (8 * size)) - 1),
        (_, None) => 0,
    }
}

#[derive(Default, Clone, Copy)]
struct Registers {
    integers: [u64; INTEGERS],
    floats: [u64; FLOATS],
    stack: [u64; STACK],
}

/// Where the arguments are, for caller and callee alike.
fn places(kinds: &[u64]) -> Vec<(bool, usize)> {
    let (mut integers, mut floats, mut stack) = (0, 0, 0);
    let mut next = |is_float: bool| {
        let (used, all) = if is_float { (&mut floats, FLOATS) } else { (&mut integers, INTEGERS) };
        *used += 1;
        if *used <= all {
            return (is_float, *used - 1);
        }
        stack += 1;
        (false, INTEGERS + stack - 1)
    };
    kinds.iter().map(|kind| next(shape(*kind).unwrap().1)).collect()
}

impl Registers {
    fn at(&mut self, (is_float, place): (bool, usize)) -> &mut u64 {
        match (is_float, place.checked_sub(INTEGERS)) {
            (true, _) => &mut self.floats[place],
            (_, Some(place)) => &mut self.stack[place],
            _ => &mut self.integers[place],
        }
    }
}

#[rustfmt::skip]
macro_rules! universal {
    ($name:ident $to:ident $from:ident $returns:ty) => {
        type $name = unsafe extern "C-unwind" fn(
            u64, u64, u64, u64, u64, u64, f64, f64, f64, f64, f64, f64, f64, f64,
            u64, u64, u64, u64, u64, u64, u64, u64, u64, u64,
        ) -> $returns;

        unsafe fn $to(function: cbr_any_fn, it: &Registers) -> $returns {
            // SAFETY: the convention: whoever is called takes of the registers and the stack what it knows of.
            let function = unsafe { std::mem::transmute::<cbr_any_fn, $name>(function) };
            let ([a, b, c, d, e, f], s) = (it.integers, it.stack);
            let [g, h, i, j, k, l, m, n] = it.floats.map(f64::from_bits);
            // SAFETY: as above.
            unsafe {
                function(
                    a, b, c, d, e, f, g, h, i, j, k, l, m, n,
                    s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9],
                )
            }
        }

        unsafe extern "C-unwind" fn $from(
            a: u64, b: u64, c: u64, d: u64, e: u64, f: u64,
            g: f64, h: f64, i: f64, j: f64, k: f64, l: f64, m: f64, n: f64,
            o: u64, p: u64, q: u64, r: u64, s: u64, t: u64, u: u64, v: u64, w: u64, x: u64,
        ) -> $returns {
            <$returns>::from_bits(arrived(Registers {
                integers: [a, b, c, d, e, f],
                floats: [g, h, i, j, k, l, m, n].map(f64::to_bits),
                stack: [o, p, q, r, s, t, u, v, w, x],
            }))
        }
    };
}
universal!(ReturnsInteger call_for_integer returns_integer u64);
universal!(ReturnsFloat call_for_float returns_float f64);

trait FromBits {
    fn from_bits(bits: u64) -> Self;
}
impl FromBits for u64 {
    fn from_bits(bits: u64) -> Self {
        bits
    }
}

/// What the thread's call expects of the callback: its types and values, user_data first, and what to return.
#[derive(Default)]
struct Expected {
    kinds: Vec<u64>,
    values: Vec<u64>,
    returns: u64,
    calls: usize,
}

thread_local! {
    static EXPECTED: RefCell<Expected> = RefCell::default();
}

fn arrived(mut registers: Registers) -> u64 {
    EXPECTED.with_borrow_mut(|expected| {
        let places = places(&expected.kinds);
        for (at, place) in places.into_iter().enumerate() {
            let got = value(expected.kinds[at], *registers.at(place));
            assert_eq!(got, expected.values[at], "argument {at} of {:?}", expected.kinds);
        }
        expected.calls += 1;
        expected.returns
    })
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }
    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }
}

fn register(signature: u64, returns: u64, user_data: u64, fallback: u64) -> (cbr_status, u64) {
    let is_float = shape(returns).is_some_and(|(_, is_float)| is_float);
    let function = if is_float { returns_float as *const () } else { returns_integer as *const () };
    let options = cbr_callback_options {
        size: size_of::<cbr_callback_options>(),
        // SAFETY: called as what the signature says, by whoever calls.
        function: unsafe { std::mem::transmute::<*const (), cbr_any_fn>(function) },
        user_data: user_data as *mut c_void,
        destroy: None,
        signature,
        name: null(),
        scope: 0,
        home: 0,
        destroy_queue: 0,
        flags: 0,
        on_error: None,
        fallback,
    };
    let mut handle = 0;
    // SAFETY: as the header says.
    (unsafe { cbr_register_with(&options, &mut handle) }, handle)
}

/// Calls as the signature says, and gives back what came.
fn call(function: cbr_any_fn, signature: &Signature, values: &[u64]) -> u64 {
    let mut registers = Registers::default();
    for (at, place) in places(&signature.arguments).into_iter().enumerate() {
        *registers.at(place) = values[at];
    }
    let is_float = shape(signature.returns).is_some_and(|(_, is_float)| is_float);
    // SAFETY: the thunk takes what its signature says.
    let came = unsafe {
        match is_float {
            true => call_for_float(function, &registers).to_bits(),
            false => call_for_integer(function, &registers),
        }
    };
    value(signature.returns, came)
}

/// Signatures that have been opened; a new one beyond what there may be is not tried.
fn may_be_opened(signature: u64) -> bool {
    thread_local! {
        static SEEN: RefCell<std::collections::HashSet<u64>> = RefCell::default();
    }
    SEEN.with_borrow_mut(|seen| {
        seen.contains(&signature) || (seen.len() < SIGNATURES && seen.insert(signature))
    })
}

// The C functions as safe ones: the places are there, and handles may be any numbers.

fn open(handle: u64, signature: u64, flags: u32) -> (cbr_status, cbr_any_fn, u64) {
    let (mut function, mut thunk) = (None, 0);
    // SAFETY: as above.
    let status = unsafe { cbr_thunk_open(handle, signature, flags, &mut function, &mut thunk) };
    (status, function, thunk)
}

fn unregister(handle: u64) -> cbr_status {
    // SAFETY: as above.
    unsafe { cbr_unregister(handle) }
}

fn is_live(handle: u64) -> bool {
    // SAFETY: as above.
    unsafe { cbr_is_live(handle) }
}

fn retarget(thunk: u64, handle: u64) -> cbr_status {
    // SAFETY: as above.
    unsafe { cbr_thunk_retarget(thunk, handle) }
}

fn close(thunk: u64) -> cbr_status {
    // SAFETY: as above.
    unsafe { cbr_thunk_close(thunk) }
}

/// Any word, seldom a signature; or one of the types that its digits choose.
fn signature_of(bytes: &mut Bytes) -> u64 {
    let word = bytes.word();
    if bytes.byte().is_multiple_of(4) {
        return word;
    }
    let count = (word >> 60).min(14);
    let types = (0..count).map(|at| {
        let digit = word >> (52 - 4 * at) & 15;
        (digit % 12 + 2) << (52 - 4 * at)
    });
    count << 60 | ((word >> 56 & 15) % 13 + 1) << 56 | types.sum::<u64>()
}

fn is_no_signature(signature: u64) {
    // 0 means the default one to those who register.
    if signature != 0 {
        assert_eq!(register(signature, 1, 0, 0).0, ERR_INVALID, "{signature:#x}");
    }
    let (status, handle) = register(0, 9, 0, 0);
    assert_eq!(status, CBR_OK);
    assert_eq!(open(handle, signature, 0).0, ERR_INVALID, "{signature:#x}");
    assert_eq!(unregister(handle), CBR_OK);
}

fn run(mut bytes: Bytes) {
    let signature = signature_of(&mut bytes);
    let Some(parsed) = parse(signature) else { return is_no_signature(signature) };
    // user_data, what is returned, and the fallback: as an integer it is a bool unless it is 0.
    let new = |bytes: &mut Bytes| (bytes.word(), bytes.word(), bytes.word());
    let came_back = |fallback: u64| match parsed.returns {
        2 => u64::from(fallback != 0),
        kind => value(kind, fallback),
    };
    let mut kinds = vec![13];
    kinds.extend(&parsed.arguments);
    let (mut user_data, mut returns, mut fallback) = new(&mut bytes);
    let (status, mut handle) = register(signature, parsed.returns, user_data, fallback);
    assert_eq!(status, CBR_OK, "{signature:#x}");

    let other = signature.rotate_left(7) | 1;
    if other != signature {
        let wrong = if parse(other).is_some() { ERR_SIGNATURE } else { ERR_INVALID };
        assert_eq!(open(handle, other, 0).0, wrong, "{other:#x}");
    }
    assert_eq!(open(handle, signature, 4).0, ERR_INVALID, "no such flag");
    if !may_be_opened(signature) {
        assert_eq!(unregister(handle), CBR_OK);
        return;
    }
    let (status, function, thunk) = open(handle, signature, u32::from(bytes.byte() % 8 / 6));
    assert_eq!(status, CBR_OK, "{signature:#x}");

    let mut is_open = true;
    for _ in 0..bytes.byte() % 8 {
        let passed: Vec<_> =
            parsed.arguments.iter().map(|kind| value(*kind, bytes.word())).collect();
        let mut values = vec![user_data];
        values.extend(&passed);
        let returned = value(parsed.returns, returns);
        EXPECTED.set(Expected { kinds: kinds.clone(), values, returns: returned, calls: 0 });
        let came = call(function, &parsed, &passed);
        let runs = is_open && is_live(handle);
        assert_eq!(EXPECTED.with_borrow(|expected| expected.calls), usize::from(runs));
        let wanted = if runs { returned } else { came_back(fallback) };
        assert_eq!(came, wanted, "{signature:#x}, runs: {runs}");
        match bytes.byte() % 6 {
            0 => {
                unregister(handle);
            }
            1 if is_open => {
                assert_eq!(close(thunk), CBR_OK);
                is_open = false;
            }
            2 => {
                let (its_data, its_returns, its_fallback) = new(&mut bytes);
                let (status, next) = register(signature, parsed.returns, its_data, its_fallback);
                assert_eq!(status, CBR_OK);
                assert_eq!(retarget(thunk, next), if is_open { CBR_OK } else { CBR_ERR_STALE });
                if is_open {
                    unregister(handle);
                    (handle, user_data) = (next, its_data);
                    (returns, fallback) = (its_returns, its_fallback);
                } else {
                    assert_eq!(unregister(next), CBR_OK);
                }
            }
            _ => {}
        }
    }
    unregister(handle);
    assert_eq!(close(thunk), if is_open { CBR_OK } else { CBR_ERR_STALE });
    let mut stats = cbr_stats { size: size_of::<cbr_stats>(), ..Default::default() };
    // SAFETY: as above.
    assert_eq!(unsafe { cbr_stats_get(0, &mut stats) }, CBR_OK);
    assert_eq!((stats.live, stats.thunks), (0, 0), "all are gone");
}

fuzz_target!(|bytes: &[u8]| run(Bytes(bytes)));
