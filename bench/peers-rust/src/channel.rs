//! A bounded crossbeam channel and an eventfd, which is written only when the consumer sleeps.

use crate::CallFn;
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use std::ffi::c_void;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, fence};
use std::time::{Duration, Instant};

const ACCEPTED: i32 = 0;
const FULL: i32 = 1;
const FAILED: i32 = -1;

/// Looks at an empty channel before the consumer sleeps, and the time between them.
const LOOKS: u32 = 4;
const BETWEEN: Duration = Duration::from_micros(1);

type Payload = [u64; 3];

struct Event {
    call: CallFn,
    user_data: *mut c_void,
    payload: Payload,
}

// SAFETY: the benchmark's callbacks run on the consumer's thread, whichever it is.
unsafe impl Send for Event {}

pub struct Channel {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
    wake: File,
    asleep: AtomicBool,
    shut: AtomicBool,
}

impl Channel {
    fn wake_if_asleep(&self) -> bool {
        if self.asleep.load(Relaxed) && self.asleep.swap(false, AcqRel) {
            return (&self.wake).write_all(&1u64.to_ne_bytes()).is_ok();
        }
        true
    }

    /// Waits for the eventfd unless something came in the meantime.
    fn sleep(&self) -> bool {
        self.asleep.store(true, Relaxed);
        fence(SeqCst);
        let awake = !self.receiver.is_empty() || self.shut.load(SeqCst);
        // Who took the flag has written, or will.
        if awake && self.asleep.swap(false, AcqRel) {
            return true;
        }
        (&self.wake).read_exact(&mut [0; 8]).is_ok()
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn peer_channel_open(capacity: usize) -> *mut Channel {
    // SAFETY: no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return std::ptr::null_mut();
    }
    let (sender, receiver) = bounded(capacity);
    Box::into_raw(Box::new(Channel {
        sender,
        receiver,
        // SAFETY: just opened, and owned by nobody else.
        wake: unsafe { File::from_raw_fd(fd) },
        asleep: AtomicBool::new(false),
        shut: AtomicBool::new(false),
    }))
}

/// # Safety
/// `channel` is open, `payload` is valid for a read, and `call` takes `user_data` and a payload.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_channel_post(
    channel: *const Channel,
    call: CallFn,
    user_data: *mut c_void,
    payload: *const Payload,
) -> i32 {
    // SAFETY: the caller's promise.
    let (channel, payload) = unsafe { (&*channel, payload.read()) };
    let event = Event {
        call,
        user_data,
        payload,
    };
    match channel.sender.try_send(event) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => return FULL,
        Err(TrySendError::Disconnected(_)) => return FAILED,
    }
    fence(SeqCst);
    if channel.wake_if_asleep() {
        ACCEPTED
    } else {
        FAILED
    }
}

/// Calls for each event, until the channel is shut and empty.
///
/// # Safety
/// `channel` is open until this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_channel_consume(channel: *const Channel) {
    // SAFETY: the caller's promise.
    let channel = unsafe { &*channel };
    let mut looks = 0;
    loop {
        // Before the look: what was posted before the end is seen by it.
        let shut = channel.shut.load(SeqCst);
        match channel.receiver.try_recv() {
            Ok(mut event) => {
                // SAFETY: the poster's promise.
                unsafe { (event.call)(event.user_data, (&raw mut event.payload).cast()) };
                looks = 0;
            }
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) if shut => return,
            Err(TryRecvError::Empty) if looks < LOOKS => {
                let until = Instant::now() + BETWEEN;
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
                looks += 1;
            }
            Err(TryRecvError::Empty) => {
                if !channel.sleep() {
                    return;
                }
                looks = 0;
            }
        }
    }
}

/// # Safety
/// `channel` is open, and nobody posts any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_channel_shut(channel: *const Channel) {
    // SAFETY: the caller's promise.
    let channel = unsafe { &*channel };
    channel.shut.store(true, SeqCst);
    fence(SeqCst);
    channel.wake_if_asleep();
}

/// # Safety
/// From `peer_channel_open`, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_channel_free(channel: *mut Channel) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(channel) });
}
