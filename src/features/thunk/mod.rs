//! Thunks: plain function pointers that carry their callback.
//!
//! A thunk is code at a fixed address and data that says which callback it calls and what it returns
//! when that cannot run. Opening, retargeting and closing change data only. The data is there for as
//! long as the process lives, so that calling a thunk whose callback is gone, or that was closed, does
//! what is said of it and nothing else; a closed one waits in the [`pool`] of its signature until it
//! serves again.

mod call;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(feature = "libffi"))))]
mod closures;
mod pool;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(feature = "libffi")))]
mod stubs;
mod table;

use crate::engine::invoke::AnyFn;
use crate::engine::signature::Signature;
use crate::engine::{ENGINE, Handle, Kind, Record, Text};
use crate::error::Error;
use crate::sync::Relaxed;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(feature = "libffi"))))]
use closures as code;
use pool::Pool;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(feature = "libffi")))]
use stubs as code;
use table::Place;

/// What a thunk has of its callback, beside a reference.
struct Target {
    callback: Handle,
    /// What is returned when the callback cannot run, as the signature returns it.
    fallback: u64,
    name: Option<Text>,
}

impl Target {
    /// Takes a reference, and what else there is to take.
    fn take(record: &Record, callback: Handle, signature: Signature) -> Result<Self, Error> {
        ENGINE.retain(callback)?;
        let mut target = Self { callback, fallback: 0, name: None };
        let slot = ENGINE.slot_of(callback);
        // Relaxed: published with LIVE. Another callback's if ours was unregistered just now: then a
        // thunk is opened for one that is gone, or the look below tells.
        let have = slot.signature.load(Relaxed);
        if have != signature.0 && !ENGINE.check.is_handles_only() {
            let gone = slot.live(callback).err();
            target.release(record);
            return Err(gone.unwrap_or(Error::Signature { have, want: signature.0 }));
        }
        let Some(cold) = ENGINE.cold_of(slot) else { return Ok(target) };
        // (Known as the callback's, or 0 if that is gone.)
        target.fallback = signature.returned(ENGINE.fallback(callback));
        if cold.name_text().is_none() {
            return Ok(target);
        }
        // A text lives as long as its callback; one more owner keeps it.
        let name = |slot: &_| ENGINE.cold_of(slot).and_then(|cold| Some(cold.name_text()?.share()));
        match ENGINE.look_at(record, callback, name) {
            Ok(name) => {
                target.name = name;
                Ok(target)
            }
            Err(error) => {
                target.release(record);
                Err(error)
            }
        }
    }

    /// Gives back what was taken. The reference's release may run host code.
    fn release(self, record: &Record) {
        if let Some(name) = self.name {
            name.release();
        }
        // Of a callback that is gone, the reference is gone as well.
        let _ = ENGINE.release(record, self.callback);
    }
}

/// Opens a thunk of this signature. `permanent`: its address never serves another one.
pub(crate) fn open(
    record: &Record,
    callback: Handle,
    signature: Signature,
    permanent: bool,
) -> Result<(AnyFn, Handle), Error> {
    // First, because it is only made for what is a signature.
    let pool = Pool::of(record, signature)?;
    let target = Target::take(record, callback, signature)?;
    match pool.open(record, permanent, &target) {
        Ok((place, old)) => {
            release_name(old);
            Ok((code::address(place.stub()), place.thunk()))
        }
        Err(error) => {
            target.release(record);
            Err(error)
        }
    }
}

/// Has the thunk carry another callback of its signature.
pub(crate) fn retarget(record: &Record, thunk: Handle, callback: Handle) -> Result<(), Error> {
    let (place, pool) = find(thunk)?;
    let target = Target::take(record, callback, pool.signature)?;
    match pool.retarget(record, place, thunk, &target) {
        Ok(old) => {
            old.release(record);
            Ok(())
        }
        Err(error) => {
            target.release(record);
            Err(error)
        }
    }
}

/// Closes the thunk: from now on it returns its fallback.
pub(crate) fn close(record: &Record, thunk: Handle) -> Result<(), Error> {
    let (place, pool) = find(thunk)?;
    let callback = pool.close(record, place, thunk)?;
    let _ = ENGINE.release(record, callback);
    Ok(())
}

fn release_name(name: Option<Text>) {
    if let Some(name) = name {
        name.release();
    }
}

/// Where a thunk is, or was; who changes it looks again whether it is open, under the pool's lock.
fn find(thunk: Handle) -> Result<(Place, &'static Pool), Error> {
    if !thunk.has_kind(Kind::Thunk) {
        return Err(ENGINE.misnamed(thunk, Kind::Thunk));
    }
    let place = Place::of_index(thunk.index()).ok_or(Error::Stale)?;
    let pool = place.pool().ok_or(Error::Stale)?;
    Ok((place, pool))
}

fn is_open(thunk: Handle) -> bool {
    find(thunk).is_ok_and(|(place, _)| place.is_open(thunk))
}
