//! The C API as a machine that bytes drive: up to three threads, each with its own part of the input, call
//! any function with any handle (of the right kind, of a wrong one, gone, forged) on objects that they share.
//! What must hold: no crash; a callback is not called after its data is gone; its data is freed exactly once
//! and never while somebody is inside; in the end nothing is left, and the numbers say so.
#![no_main]

mod c;

use c::*;
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};

const THREADS: usize = 3;
const MAX_NESTED: usize = 6;
const CALLBACKS: usize = 16;
const OTHERS: usize = 4;
/// i32(ptr, i64, f64)
const TYPED: u64 = 3 << 60 | 7 << 56 | 13 << 52 | 9 << 48 | 12 << 44;
const NAMES: [&CStr; 4] = [c"", c"a", c"on_message", c"\xc3\xa4\xff"];

/// What a callback's user_data points to. Freed when the run is over; its `data` when destroy runs.
struct Subject {
    data: AtomicU64,
    inside: AtomicI32,
    destroyed: AtomicU32,
}

/// What the threads share. Numbers of objects, which may be gone.
struct World {
    callbacks: [AtomicU64; CALLBACKS],
    scopes: [AtomicU64; OTHERS],
    queues: [AtomicU64; OTHERS],
    thunks: [AtomicU64; OTHERS],
    thunk_fns: [AtomicU64; OTHERS],
    hooks: [AtomicU64; OTHERS],
    /// Everything that was ever made, for the end.
    made: Mutex<Vec<(char, u64)>>,
    subjects: Mutex<Vec<*mut Subject>>,
    holds: Mutex<Vec<cbr_pin>>,
    /// Queues make posters wait: then nobody posts without a timeout.
    blocking: AtomicU32,
}

// SAFETY: the subjects are shared by atomics, and freed when only one thread is left.
unsafe impl Sync for World {}

const NONE: AtomicU64 = AtomicU64::new(0);
static WORLD: World = World {
    callbacks: [NONE; CALLBACKS],
    scopes: [NONE; OTHERS],
    queues: [NONE; OTHERS],
    thunks: [NONE; OTHERS],
    thunk_fns: [NONE; OTHERS],
    hooks: [NONE; OTHERS],
    made: Mutex::new(Vec::new()),
    subjects: Mutex::new(Vec::new()),
    holds: Mutex::new(Vec::new()),
    blocking: AtomicU32::new(0),
};

/// A thread's part of the input, what it is inside of, and how deep.
#[derive(Default)]
struct Program {
    bytes: Vec<u8>,
    at: usize,
    pins: Vec<cbr_pin>,
    nested: usize,
}

thread_local! {
    static PROGRAM: RefCell<Program> = RefCell::default();
}

fn byte() -> Option<usize> {
    PROGRAM.with_borrow_mut(|it| {
        let byte = *it.bytes.get(it.at)?;
        it.at += 1;
        Some(byte.into())
    })
}

/// A handle: mostly of the kind that is wanted.
fn handle(of: &[AtomicU64]) -> Option<u64> {
    let byte = byte()?;
    let handle = of[byte % of.len()].load(SeqCst);
    Some(match byte / of.len() {
        0 => 0,
        // The next generation, another kind, another index.
        1 => handle.wrapping_add(1 << 32),
        2 => handle ^ 3 << 28,
        3 => handle + 1,
        _ => handle,
    })
}

unsafe extern "C" fn run(user_data: *mut c_void, arg: *mut c_void) -> isize {
    // SAFETY: subjects live as long as the run.
    let subject = unsafe { &*user_data.cast::<Subject>() };
    inside(subject);
    arg as isize
}

unsafe extern "C" fn run_typed(
    user_data: *mut c_void,
    _: *mut c_void,
    integer: i64,
    float: f64,
) -> i32 {
    // SAFETY: as above.
    inside(unsafe { &*user_data.cast::<Subject>() });
    (integer + float as i64) as i32
}

fn inside(subject: &Subject) {
    subject.inside.fetch_add(1, SeqCst);
    assert_eq!(subject.destroyed.load(SeqCst), 0, "called after destroy");
    // SAFETY: alive until destroy, which does not run while we are inside: the sanitizer would see it.
    assert_eq!(unsafe { *(subject.data.load(SeqCst) as *const u64) }, 42);
    nested(3);
    assert_eq!(subject.destroyed.load(SeqCst), 0, "destroyed during a call");
    assert!(subject.inside.fetch_sub(1, SeqCst) > 0);
}

unsafe extern "C" fn destroy(user_data: *mut c_void) {
    // SAFETY: as above.
    let subject = unsafe { &*user_data.cast::<Subject>() };
    assert_eq!(subject.inside.load(SeqCst), 0, "destroyed during a call");
    assert_eq!(subject.destroyed.fetch_add(1, SeqCst), 0, "destroyed twice");
    // SAFETY: from `subject`, and freed here alone.
    drop(unsafe { Box::from_raw(subject.data.load(SeqCst) as *mut u64) });
    nested(1);
}

unsafe extern "C" fn on_error(user_data: *mut c_void, _: u64, _: i32, message: *const c_char) {
    // SAFETY: as above; the message is NUL-terminated.
    let (subject, message) = unsafe { (&*user_data.cast::<Subject>(), CStr::from_ptr(message)) };
    assert_eq!(subject.destroyed.load(SeqCst), 0);
    assert!(message.to_bytes().len() < 4096);
}

unsafe extern "C" fn free_payload(data: *mut c_void) {
    // SAFETY: from `post`.
    drop(unsafe { Box::from_raw(data.cast::<u64>()) });
}

unsafe extern "C" fn attach(_: *mut c_void) -> *mut c_void {
    nested(1);
    match byte() {
        Some(byte) if byte & 1 == 0 => -1_isize as *mut c_void,
        _ => null_mut(),
    }
}

unsafe extern "C" fn detach(_: *mut c_void, _: *mut c_void) {
    // The thread's own variables may be gone.
}

/// Goes on with the program inside of host code.
fn nested(steps: usize) {
    // A destroy function may run when the thread's own variables are gone.
    let deeper = PROGRAM.try_with(|it| {
        let mut it = it.borrow_mut();
        it.nested += 1;
        it.nested <= MAX_NESTED
    });
    let Ok(deeper) = deeper else { return };
    for _ in 0..if deeper { steps } else { 0 } {
        if step().is_none() {
            break;
        }
    }
    PROGRAM.with_borrow_mut(|it| it.nested -= 1);
}

fn subject() -> *mut Subject {
    let data = Box::into_raw(Box::new(42_u64)) as u64;
    let subject = Subject {
        data: AtomicU64::new(data),
        inside: AtomicI32::new(0),
        destroyed: AtomicU32::new(0),
    };
    Box::into_raw(Box::new(subject))
}

/// A callback was to be made of the subject.
fn made(status: cbr_status, subject: *mut Subject, place: usize, handle: u64) {
    if status == CBR_OK {
        WORLD.subjects.lock().unwrap().push(subject);
        WORLD.made.lock().unwrap().push(('c', handle));
        WORLD.callbacks[place % CALLBACKS].store(handle, SeqCst);
    } else {
        // SAFETY: what fails takes no ownership.
        unsafe {
            drop(Box::from_raw((*subject).data.load(SeqCst) as *mut u64));
            drop(Box::from_raw(subject));
        }
    }
}

fn register() -> Option<()> {
    let (place, subject) = (byte()?, subject());
    let mut handle = 0;
    // SAFETY: here and below, where no other reason is given: what the header asks for.
    let status = unsafe { cbr_register(Some(run), subject.cast(), Some(destroy), &mut handle) };
    made(status, subject, place, handle);
    Some(())
}

fn register_with() -> Option<()> {
    let (place, bits) = (byte()?, byte()?);
    let scope = if bits & 1 != 0 { handle(&WORLD.scopes)? } else { 0 };
    let home = if bits & 2 != 0 { handle(&WORLD.queues)? } else { 0 };
    let destroy_queue = if bits & 4 != 0 { handle(&WORLD.queues)? } else { 0 };
    let (typed, subject) = (bits & 8 != 0, subject());
    let function = if typed { run_typed as *const () } else { run as *const () };
    let options = cbr_callback_options {
        size: size_of::<cbr_callback_options>() - if bits & 0xe0 == 0xe0 { 8 } else { 0 },
        // SAFETY: called as the signature says.
        function: unsafe { std::mem::transmute::<*const (), cbr_any_fn>(function) },
        user_data: subject.cast(),
        destroy: Some(destroy),
        signature: if typed { TYPED } else { 0 },
        name: NAMES[place / CALLBACKS % NAMES.len()].as_ptr(),
        scope,
        home,
        destroy_queue,
        flags: [0, CBR_METERED, 2, CBR_METERED | 2][bits >> 4 & 3],
        on_error: if bits & 16 != 0 { Some(on_error) } else { None },
        fallback: 7,
    };
    let mut handle = 0;
    made(unsafe { cbr_register_with(&options, &mut handle) }, subject, place, handle);
    Some(())
}

fn enter(hold: bool) -> Option<()> {
    let (callback, signature) = (handle(&WORLD.callbacks)?, byte()?);
    let signature = [0, CBR_SIG_DEFAULT, TYPED, u64::MAX][signature % 4];
    let mut pin = cbr_pin { function: None, user_data: null_mut(), reserved: [0; 2] };
    let function = if hold { cbr_hold } else { cbr_enter };
    if unsafe { function(callback, signature, &mut pin) } != CBR_OK {
        return Some(());
    }
    // SAFETY: protected by the pin.
    let subject = unsafe { &*pin.user_data.cast::<Subject>() };
    subject.inside.fetch_add(1, SeqCst);
    assert_eq!(subject.destroyed.load(SeqCst), 0, "entered after destroy");
    if hold {
        WORLD.holds.lock().unwrap().push(pin);
    } else {
        PROGRAM.with_borrow_mut(|it| it.pins.push(pin));
    }
    Some(())
}

fn leave(mut pin: cbr_pin) {
    // SAFETY: as above.
    let subject = unsafe { &*pin.user_data.cast::<Subject>() };
    assert_eq!(subject.destroyed.load(SeqCst), 0, "destroyed under a pin");
    subject.inside.fetch_sub(1, SeqCst);
    let copy = pin;
    let status = unsafe { cbr_leave(&mut pin) };
    assert!(matches!(status, CBR_OK | CBR_ERR_CALLBACK | CBR_ERR_PANIC), "leave: {status}");
    let mut copy = copy;
    assert_eq!(unsafe { cbr_leave(&mut copy) }, CBR_ERR_STALE, "left twice");
}

fn post() -> Option<()> {
    let (queue, callback, bits) = (handle(&WORLD.queues)?, handle(&WORLD.callbacks)?, byte()?);
    let data = [bits as u8; 64];
    if bits & 1 == 0 && WORLD.blocking.load(SeqCst) == 0 {
        unsafe { cbr_post(queue, callback, data.as_ptr().cast(), bits % 64) };
        return Some(());
    }
    let (free, owner) = (bits & 2 != 0, if bits & 4 != 0 { handle(&WORLD.scopes)? } else { 0 });
    let payload = Box::into_raw(Box::new(42_u64));
    let options = cbr_post_options {
        size: size_of::<cbr_post_options>(),
        queue,
        handle: callback,
        data: payload.cast(),
        len: 8,
        free_data: if free { Some(free_payload) } else { None },
        owner,
        // 0 would be the default: for ever.
        timeout_ns: 1,
    };
    let status = unsafe { cbr_post_with(&options) };
    if !free || status != CBR_OK {
        // SAFETY: copied, or still ours.
        drop(unsafe { Box::from_raw(payload) });
    }
    Some(())
}

fn open_queue() -> Option<()> {
    let (place, bits) = (byte()?, byte()?);
    let policy = (bits % 4) as u32;
    let options = cbr_queue_options {
        size: size_of::<cbr_queue_options>(),
        name: NAMES[bits / 4 % NAMES.len()].as_ptr(),
        scope: if bits & 64 != 0 { handle(&WORLD.scopes)? } else { 0 },
        capacity: [0, 1, 2, 7][bits / 16 % 4],
        policy: if policy == 2 && WORLD.blocking.load(SeqCst) == 0 { 0 } else { policy },
        flags: (bits >> 6 & 3) as u32,
    };
    let mut queue = 0;
    if unsafe { cbr_queue_open(&options, &mut queue) } == CBR_OK {
        WORLD.made.lock().unwrap().push(('q', queue));
        let old = WORLD.queues[place % OTHERS].swap(queue, SeqCst);
        // There are not enough descriptors for all that can be made.
        unsafe { cbr_queue_close(old, 1) };
    }
    Some(())
}

fn open_thunk() -> Option<()> {
    let (place, callback) = (byte()?, handle(&WORLD.callbacks)?);
    let typed = place & 64 != 0;
    let (mut function, mut thunk): (cbr_any_fn, u64) = (None, 0);
    let signature = if typed { TYPED } else { CBR_SIG_DEFAULT };
    if unsafe {
        cbr_thunk_open(callback, signature, (place >> 7) as u32, &mut function, &mut thunk)
    } == CBR_OK
    {
        WORLD.made.lock().unwrap().push(('t', thunk));
        let address = function.map_or(0, |it| it as usize as u64);
        WORLD.thunk_fns[place % OTHERS].store(address << 1 | u64::from(typed), SeqCst);
        WORLD.thunks[place % OTHERS].store(thunk, SeqCst);
    }
    Some(())
}

fn call_thunk() -> Option<()> {
    let word = WORLD.thunk_fns[byte()? % OTHERS].load(SeqCst);
    let address = (word >> 1) as usize as *const ();
    if address.is_null() {
        return Some(());
    }
    // SAFETY: thunks of these signatures, open or closed: callable for ever.
    unsafe {
        if word & 1 == 0 {
            let function: unsafe extern "C-unwind" fn(*mut c_void) -> isize =
                std::mem::transmute(address);
            let result = function(5 as *mut c_void);
            assert!(matches!(result, 5 | 7 | 0), "{result}");
        } else {
            let function: unsafe extern "C-unwind" fn(*mut c_void, i64, f64) -> i32 =
                std::mem::transmute(address);
            let result = function(null_mut(), 40, 2.5);
            assert!(matches!(result, 42 | 7 | 0), "{result}");
        }
    }
    Some(())
}

unsafe extern "C" fn ignore(_: *mut c_void, data: *const c_char, len: usize) {
    // SAFETY: the library's text.
    let text = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
    assert!(std::str::from_utf8(text).is_ok());
}

unsafe extern "C" fn ignore_bytes(_: *mut c_void, data: *const c_char, len: usize) {
    // SAFETY: the library's bytes.
    assert!(!unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }.is_empty());
}

unsafe extern "C" fn line(_: *mut c_void, level: u32, _: *const c_char, words: *const c_char) {
    assert!(matches!(level, 1..=5));
    // SAFETY: NUL-terminated.
    assert!(!unsafe { CStr::from_ptr(words) }.is_empty());
    nested(1);
}

/// One call of the API, as the next bytes say. None: the program is over.
fn step() -> Option<()> {
    let world = &WORLD;
    let (mut number, mut size, mut result) = (0_u64, 0_usize, 0_isize);
    let arg = 5 as *mut c_void;
    let operation = byte()?;
    unsafe {
        match operation % 48 {
            0 | 1 => register()?,
            2 | 3 => register_with()?,
            4 => drop(cbr_unregister(handle(&world.callbacks)?)),
            5 => drop(cbr_unregister_wait(handle(&world.callbacks)?, 0)),
            6 => drop(cbr_retain(handle(&world.callbacks)?)),
            7 => drop(cbr_release(handle(&world.callbacks)?)),
            8 => {
                let (callback, mut count) = (handle(&world.callbacks)?, 0);
                cbr_refcount(callback, &mut count);
                cbr_is_live(callback);
            }
            9..=12 => {
                let status = cbr_call(handle(&world.callbacks)?, arg, &mut result);
                assert!(status != CBR_OK || result == 5);
            }
            13 => drop(cbr_call_ptr(handle(&world.callbacks)? as usize as *mut c_void, arg)),
            14 => enter(false)?,
            15 => enter(true)?,
            16 | 17 => {
                let which = byte()?;
                let pin = PROGRAM.with_borrow_mut(|it| match it.pins.len() {
                    0 => None,
                    len => Some(it.pins.swap_remove(which % len)),
                });
                pin.into_iter().for_each(leave);
            }
            18 => {
                let pin = world.holds.lock().unwrap().pop();
                pin.into_iter().for_each(leave);
            }
            19 => drop(cbr_fail([CBR_ERR_CALLBACK, CBR_ERR_PANIC, 1][byte()? % 3], c"no".as_ptr())),
            20 => {
                let place = byte()?;
                if cbr_scope_open(NAMES[place / OTHERS % NAMES.len()].as_ptr(), &mut number)
                    == CBR_OK
                {
                    world.made.lock().unwrap().push(('s', number));
                    world.scopes[place % OTHERS].store(number, SeqCst);
                }
            }
            21 => drop(cbr_scope_close(handle(&world.scopes)?, 0, &mut size)),
            22 => drop(cbr_scope_drain(handle(&world.scopes)?, 0)),
            23 => {
                let scope = handle(&world.scopes)?;
                cbr_scope_set_thread_hooks(scope, Some(attach), Some(detach), null_mut(), None);
            }
            24 | 25 => open_queue()?,
            26 => drop(cbr_queue_close(handle(&world.queues)?, (byte()? % 3) as u32)),
            27..=29 => post()?,
            30 | 31 => drop(cbr_queue_dispatch(handle(&world.queues)?, byte()? % 4, 0, &mut size)),
            32 => {
                let (queue, callback) = (handle(&world.queues)?, handle(&world.callbacks)?);
                cbr_call_on(
                    queue,
                    callback,
                    arg,
                    if byte()? & 1 == 0 { 0 } else { 50_000 },
                    &mut result,
                );
            }
            33 => {
                let queues = [handle(&world.queues)?, handle(&world.queues)?];
                cbr_queue_select(queues.as_ptr(), 2, 0, &mut size);
            }
            34 => drop(cbr_queue_adopt(handle(&world.queues)?)),
            35 => drop(cbr_queue_len(handle(&world.queues)?, &mut size)),
            36 => {
                let (scope, name) = (handle(&world.scopes)?, byte()?);
                cbr_name_bind(
                    scope,
                    NAMES[name % 4].as_ptr(),
                    handle(&world.callbacks)?,
                    (name / 4 % 3) as u32,
                );
            }
            37 => drop(cbr_name_find(
                handle(&world.scopes)?,
                NAMES[byte()? % 4].as_ptr(),
                &mut number,
            )),
            38 => drop(cbr_name_unbind(handle(&world.scopes)?, NAMES[byte()? % 4].as_ptr())),
            39 => {
                let (scope, key) = (handle(&world.scopes)?, byte()?);
                cbr_key_attach(
                    scope,
                    key % 4,
                    (key / 4 % 2) as u32,
                    handle(&world.callbacks)?,
                    (key / 8 % 3) as u32,
                );
            }
            40 => {
                let (scope, key) = (handle(&world.scopes)?, byte()?);
                cbr_key_call(scope, key % 4, (key / 4 % 2) as u32, arg, &mut result);
            }
            41 => {
                let (scope, key) = (handle(&world.scopes)?, byte()?);
                match key / 8 % 3 {
                    0 => cbr_key_detach(scope, key % 4, (key / 4 % 2) as u32),
                    1 => cbr_key_detach_all(scope, key % 4, &mut size),
                    _ => cbr_key_find(scope, key % 4, (key / 4 % 2) as u32, &mut number),
                };
            }
            42 => {
                let (hook, callback) = (byte()?, handle(&world.callbacks)?);
                let hook = world.hooks[hook % OTHERS].as_ptr();
                cbr_hook_swap(hook, callback, &mut number);
            }
            43 => {
                let hook = byte()?;
                let place = world.hooks[hook % OTHERS].as_ptr();
                match hook & 64 {
                    0 => cbr_hook_call(place, arg, &mut result),
                    _ => cbr_hook_set_once(place, handle(&world.callbacks)?),
                };
            }
            44 => open_thunk()?,
            45 => call_thunk()?,
            46 => {
                let (which, callback) = (handle(&world.thunks)?, handle(&world.callbacks)?);
                match byte()? & 1 {
                    0 => cbr_thunk_close(which),
                    _ => cbr_thunk_retarget(which, callback),
                };
            }
            _ => {
                let which = byte()?;
                let mut stats = cbr_stats { size: size_of::<cbr_stats>(), ..cbr_stats::default() };
                match which % 9 {
                    0 => cbr_set_check((which / 5 % 4) as u32),
                    1 => cbr_stats_get(handle(&world.scopes)?, &mut stats),
                    2 => cbr_report(handle(&world.scopes)?, Some(ignore), null_mut()),
                    3 => {
                        let mut info: cbr_callback_info = std::mem::zeroed();
                        info.size = size_of::<cbr_callback_info>();
                        cbr_callback_info_get(handle(&world.callbacks)?, &mut info)
                    }
                    4 => cbr_metrics(handle(&world.scopes)?, Some(ignore), null_mut()),
                    5 => cbr_profile(handle(&world.scopes)?, Some(ignore_bytes), null_mut()),
                    6 => {
                        let contexts = [
                            null(),
                            c"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".as_ptr(),
                            c"00-00000000000000000000000000000000-00f067aa0ba902b7-01".as_ptr(),
                        ];
                        cbr_trace_set(contexts[byte()? % 3])
                    }
                    7 => {
                        let (owner, level) = (handle(&world.scopes)?, byte()?);
                        let sink: cbr_log_fn = if level & 64 == 0 { Some(line) } else { None };
                        cbr_log_to(sink, null_mut(), None, owner, (level % 7) as u32)
                    }
                    _ => {
                        let mut words = [0_u8; 32];
                        let needed = cbr_last_error(words.as_mut_ptr().cast(), words.len());
                        assert!(CStr::from_bytes_until_nul(&words).is_ok());
                        assert!(needed < 8192);
                        cbr_current();
                        cbr_depth() as i32
                    }
                };
            }
        }
    }
    Some(())
}

fn thread(bytes: Vec<u8>) {
    PROGRAM.set(Program { bytes, ..Program::default() });
    while step().is_some() {}
    // Pins that are left here, or, every other time, by the thread's end.
    let pins = PROGRAM.with_borrow_mut(|it| std::mem::take(&mut it.pins));
    let forget = pins.len() % 2 == 1;
    for pin in pins {
        if forget {
            // SAFETY: protected still.
            unsafe { &*pin.user_data.cast::<Subject>() }.inside.fetch_sub(1, SeqCst);
        } else {
            leave(pin);
        }
    }
}

/// Ends all that there is, as a host would that ends.
fn end() {
    let world = &WORLD;
    PROGRAM.set(Program::default());
    let holds = std::mem::take(&mut *world.holds.lock().unwrap());
    holds.into_iter().for_each(leave);
    let made = std::mem::take(&mut *world.made.lock().unwrap());
    let all = |kind| made.iter().filter(move |it| it.0 == kind).map(|it| it.1);
    unsafe {
        for hook in &world.hooks {
            let mut old = 0;
            cbr_hook_swap(hook.as_ptr(), 0, &mut old);
            cbr_release(old);
        }
        all('t').for_each(|thunk| _ = cbr_thunk_close(thunk));
        all('c').for_each(|callback| _ = cbr_unregister(callback));
        for queue in all('q') {
            cbr_queue_adopt(queue);
            while cbr_queue_dispatch(queue, 0, 0, null_mut()) == CBR_OK {}
            cbr_queue_close(queue, 1);
        }
        for scope in all('s') {
            let status = cbr_scope_close(scope, -1, null_mut());
            assert!(matches!(status, CBR_OK | CBR_ERR_STALE), "close: {status}");
        }
        cbr_set_check(1);
        cbr_log_to(None, null_mut(), None, 0, 0);
        cbr_trace_set(null());
        let mut stats = cbr_stats { size: size_of::<cbr_stats>(), ..cbr_stats::default() };
        assert_eq!(cbr_stats_get(0, &mut stats), CBR_OK);
        assert_eq!(stats.registered, stats.destroyed, "{stats:?}");
        assert_eq!([stats.live, stats.destroy_pending, stats.in_flight], [0; 3], "{stats:?}");
        assert_eq!([stats.queues, stats.queued, stats.thunks], [0; 3], "{stats:?}");
        assert_eq!(cbr_report(0, None, null_mut()), -1);
        assert_eq!(cbr_post(0, 0, null(), 0), CBR_ERR_STALE);
    }
    for subject in std::mem::take(&mut *world.subjects.lock().unwrap()) {
        // SAFETY: from `subject`; nobody else is there.
        let subject = unsafe { Box::from_raw(subject) };
        assert_eq!(subject.destroyed.load(SeqCst), 1, "destroy has not run");
    }
    for place in
        world.callbacks.iter().chain(&world.scopes).chain(&world.queues).chain(&world.thunks)
    {
        place.store(0, SeqCst);
    }
    // Closed thunks stay callable, but their results are another run's.
    world.thunk_fns.iter().for_each(|place| place.store(0, SeqCst));
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let threads = usize::from(first % THREADS as u8) + 1;
    WORLD.blocking.store((first / 8 & 1).into(), SeqCst);
    // Joined one by one: a scope would not wait for what the library does at a thread's end.
    let parts = bytes.chunks(bytes.len() / threads + 1).map(<[u8]>::to_vec);
    let running: Vec<_> = parts.map(|part| std::thread::spawn(|| thread(part))).collect();
    running.into_iter().for_each(|it| it.join().unwrap());
    end();
});
