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
use crate::sync::{Acquire, Relaxed, fence};
#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(feature = "libffi"))))]
use closures as code;
use pool::Pool;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(feature = "libffi")))]
use stubs as code;
use table::{Place, SUPPLY};

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
        match target.look(record, signature) {
            Ok(()) => Ok(target),
            Err(error) => {
                target.release(record);
                Err(error)
            }
        }
    }

    fn look(&mut self, record: &Record, signature: Signature) -> Result<(), Error> {
        let slot = ENGINE.slot_of(self.callback);
        // Relaxed: published with LIVE; that they are not another callback's is seen below.
        let (have, has_cold) = (slot.signature.load(Relaxed), ENGINE.cold_of(slot).is_some());
        if has_cold {
            // Kept from ending: a text lives as long as its callback, and one more owner keeps it.
            let parts = |slot: &_| {
                let name = ENGINE.cold_of(slot).and_then(|cold| Some(cold.name_text()?.share()));
                (ENGINE.fallback(self.callback), name)
            };
            let (fallback, name) = ENGINE.look_at(record, self.callback, parts)?;
            (self.fallback, self.name) = (signature.returned(fallback), name);
        }
        // Acquire: keeps the loads above before the look whether it still lives; partner: who reuses the
        // slot, and has ended the callback before.
        fence(Acquire);
        slot.live(self.callback)?;
        // At any check level: a thunk is opened once, and called by whoever knows nothing of it.
        if have != signature.0 {
            return Err(Error::Signature { have, want: signature.0 });
        }
        Ok(())
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
    let pool = Pool::find(signature);
    if pool.is_none() && !signature.is_valid() {
        return Err(Error::Invalid("signature is no signature"));
    }
    let target = Target::take(record, callback, signature)?;
    // A pool is for good: so it is made for what will be a thunk.
    let opened = pool
        .map_or_else(|| Pool::make(record, signature), Ok)
        .and_then(|pool| pool.open(record, permanent, &target));
    match opened {
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

/// Has the thunk carry another callback of its signature. An error says whose it is.
pub(crate) fn retarget(
    record: &Record,
    thunk: Handle,
    callback: Handle,
) -> Result<(), (Handle, Error)> {
    let of_thunk = |error| (thunk, error);
    let (place, pool) = find(thunk).map_err(of_thunk)?;
    if !place.is_open(thunk) {
        return Err(of_thunk(Error::Stale));
    }
    let target =
        Target::take(record, callback, pool.signature).map_err(|error| (callback, error))?;
    match pool.retarget(record, place, thunk, &target) {
        Ok(old) => {
            old.release(record);
            Ok(())
        }
        Err(error) => {
            target.release(record);
            Err(of_thunk(error))
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

/// How many thunks are open, and how many calls of thunks no callback got.
pub(crate) fn numbers() -> (u64, u64) {
    (Pool::open_in_all(), call::stale())
}

/// Shows every thunk that is open and was meant to be closed some day, with its signature and the name of
/// its callback, "" if there is none.
pub(crate) fn for_each_open(record: &Record, mut show: impl FnMut(Handle, Signature, &str)) {
    for place in (0..SUPPLY.end()).filter_map(Place::of_index) {
        let Some(pool) = place.pool() else { continue };
        if !place.is_closed() && !place.is_permanent() {
            let name = pool.share_name(record, place);
            show(place.thunk(), pool.signature, name.map_or("", Text::as_str));
            release_name(name);
        }
    }
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
