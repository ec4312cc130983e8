//! The promises, kept beside the machine: who is inside what, and which destroy has run. The
//! protocol cannot see this.

use crate::values::{HANDLES, Handle, Val};

/// What a thread tells the observer, at the moment of the step before it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Event {
    /// A call has been let in, or a hold granted.
    Begins(Handle),
    /// The callback finds this user data.
    Reads(Handle, Val),
    Ends(Handle),
    DestroyBegins(Handle, Val),
    DestroyReturns(Handle),
    /// A wait has said that destroy is over.
    Awaited(Handle),
    Fault(&'static str),
}

/// Per handle: how many are inside, whether destroy has begun, whether it has returned.
#[derive(Clone, Default, Hash)]
pub(crate) struct Lives {
    inside: [u8; HANDLES],
    begun: [bool; HANDLES],
    over: [bool; HANDLES],
}

impl Lives {
    /// The promise that `event` breaks.
    pub(crate) fn apply(&mut self, event: Event) -> Option<&'static str> {
        use Event::*;
        let (Begins(h)
        | Reads(h, _)
        | Ends(h)
        | DestroyBegins(h, _)
        | DestroyReturns(h)
        | Awaited(h)) = event
        else {
            let Fault(what) = event else { unreachable!("every other event has a handle") };
            return Some(what);
        };
        let at = usize::from(h.id());
        let (inside, begun, over) = (self.inside[at], self.begun[at], self.over[at]);
        match event {
            Begins(_) => self.inside[at] += 1,
            Ends(_) => self.inside[at] -= 1,
            DestroyBegins(..) => self.begun[at] = true,
            DestroyReturns(_) => self.over[at] = true,
            _ => {}
        }
        match event {
            Begins(_) if begun => Some("a call was let in after destroy"),
            Reads(_, found) if found != h.id() => Some("a call found another occupant's user data"),
            Reads(..) if begun => Some("a call saw freed data"),
            DestroyBegins(_, found) if found != h.id() => {
                Some("another occupant's data was destroyed")
            }
            DestroyBegins(..) if begun => Some("destroy ran twice"),
            DestroyBegins(..) if inside != 0 => {
                Some("destroy ran while a call was inside or a hold out")
            }
            Awaited(_) if !over => Some("a wait was over before destroy was"),
            _ => None,
        }
    }

    pub(crate) fn ended(&self, h: Handle) -> bool {
        let at = usize::from(h.id());
        self.over[at] && self.inside[at] == 0
    }
}
