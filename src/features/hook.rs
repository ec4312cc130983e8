//! Hooks: one place in the host's memory, one callback. The place holds a handle and owns a reference.

use crate::engine::{Engine, Handle, Record, invoke};
use crate::error::{Error, Fault};
use crate::sync::{AtomicU64, TotalOrder};
use std::ffi::c_void;

/// A place. All bytes zero is an empty one.
#[repr(transparent)]
pub(crate) struct Hook(AtomicU64);

impl Hook {
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Puts the callback in, unless a live one is there.
    pub(crate) fn set_once(
        &self,
        engine: &Engine,
        record: &Record,
        handle: Handle,
    ) -> Result<(), Error> {
        engine.retain(handle)?;
        let mut found = Handle(self.0.load_sc());
        loop {
            if engine.is_live(found) {
                release(engine, record, handle);
                return Err(Error::Exists);
            }
            // One that has gone counts as none, and its reference went with it.
            // ORDER[hook] partner: the load in `call`.
            match self.0.cas_sc(found.0, handle.0) {
                Ok(_) => return Ok(()),
                Err(current) => found = Handle(current),
            }
        }
    }

    /// Puts the callback in, or nothing if `handle` is 0, and gives what was there, if it is live: the
    /// caller owns its reference.
    pub(crate) fn swap(&self, engine: &Engine, handle: Handle) -> Result<Option<Handle>, Error> {
        if handle.0 != 0 {
            engine.retain(handle)?;
        }
        // ORDER[hook] partner: the load in `call`.
        let old = Handle(self.0.swap_sc(handle.0));
        Ok(engine.is_live(old).then_some(old))
    }

    /// Calls what is there.
    #[inline(always)]
    pub(crate) fn call(
        &self,
        engine: &Engine,
        record: &Record,
        arg: *mut c_void,
    ) -> Result<isize, Fault> {
        // ORDER[hook] acquire: the callback was registered before it came here; partner: the swap.
        let handle = Handle(self.0.load(crate::sync::Acquire));
        match invoke::call(engine, record, handle, arg) {
            Err(fault) if record.is_stale(fault) => self.call_again(engine, record, arg, handle),
            called => called,
        }
    }

    /// What was there is gone. If a swap came by it is not there any more, and the call is the new one's.
    #[cold]
    #[inline(never)]
    fn call_again(
        &self,
        engine: &Engine,
        record: &Record,
        arg: *mut c_void,
        mut gone: Handle,
    ) -> Result<isize, Fault> {
        loop {
            let handle = Handle(self.0.load_sc());
            if handle == gone {
                return Err(record.fault(Error::NotFound));
            }
            match invoke::call(engine, record, handle, arg) {
                Err(fault) if record.is_stale(fault) => gone = handle,
                called => return called,
            }
        }
    }
}

/// Gives a reference back; if the callback is gone, the reference is as well.
pub(crate) fn release(engine: &Engine, record: &Record, handle: Handle) {
    let _ = engine.release(record, handle);
}
