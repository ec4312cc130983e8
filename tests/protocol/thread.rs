//! What the protocol's steps are made of: a thread, its record, its ways to the machine.

use std::rc::Rc;

use crate::ghost::Event;
use crate::machine::{Kind, Loc, Op};
use crate::mutations::Mutation;
use crate::program::{Pack, Port, Running};
use crate::values::{Handle, Val};

/// What a destroy function does.
pub(crate) type Destroy = Box<dyn Fn(Thread) -> Running>;

/// What all threads of a scenario have in common.
pub(crate) struct Rules {
    /// Without membarrier: leave by exchange.
    pub(crate) fallback: bool,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) records: u8,
    /// The heavy barrier fails when it is asked for: a system call filter came after the start.
    pub(crate) refused: bool,
    pub(crate) destroy: Option<(Handle, Destroy)>,
    /// What the scope owns, if there is one.
    pub(crate) member: Option<Handle>,
}

#[derive(Clone)]
pub(crate) struct Thread {
    pub(crate) port: Port,
    pub(crate) rules: Rc<Rules>,
    /// The record that the thread has, by number.
    pub(crate) record: u8,
}

pub(crate) fn word_of(h: Handle) -> Loc {
    Loc(Kind::Word, h.slot)
}
pub(crate) fn mark_of(h: Handle) -> Loc {
    Loc(Kind::Mark, h.slot)
}
pub(crate) fn holds_of(h: Handle) -> Loc {
    Loc(Kind::Holds, h.slot)
}
pub(crate) fn user_data_of(h: Handle) -> Loc {
    Loc(Kind::UserData, h.slot)
}
pub(crate) fn bias_of(record: u8) -> Loc {
    Loc(Kind::Bias, record)
}
pub(crate) fn cells(record: u8) -> [Loc; 2] {
    [Loc(Kind::Cell, record), Loc(Kind::CellAbove, record)]
}

impl Thread {
    pub(crate) async fn load(&self, at: Loc) -> Val {
        self.port.step(Op::Load(at)).await
    }
    /// A load of which only the answer counts.
    pub(crate) async fn test(&self, at: Loc, question: impl Fn(Val) -> bool) -> bool {
        self.port.scope("", async { question(self.load(at).await) }).await
    }
    pub(crate) async fn store(&self, at: Loc, value: Val) {
        self.port.step(Op::Store(at, value)).await;
    }
    pub(crate) async fn swap(&self, at: Loc, value: Val) -> Val {
        self.port.step(Op::Swap(at, value)).await
    }
    /// An exchange, or a store where a mutation or the variant says so.
    pub(crate) async fn swap_or_store(&self, plain: bool, at: Loc, value: Val) {
        self.port.step(if plain { Op::Store(at, value) } else { Op::Swap(at, value) }).await;
    }
    /// The value that was there instead, if it fails.
    pub(crate) async fn cas(&self, at: Loc, expect: Val, new: Val) -> Result<(), Val> {
        let found = self.port.step(Op::Cas { at, expect, new }).await;
        if found == expect { Ok(()) } else { Err(found) }
    }
    pub(crate) async fn until(&self, at: Loc, value: Val) {
        self.port.step(Op::Await { at, value, other: false, idle: false }).await;
    }
    pub(crate) async fn until_not(&self, at: Loc, value: Val) -> Val {
        self.port.step(Op::Await { at, value, other: true, idle: false }).await
    }
    pub(crate) fn tell(&self, event: Event) {
        self.port.tell(event);
    }
    pub(crate) fn expect(&self, promise: bool, otherwise: &'static str) {
        if !promise {
            self.tell(Event::Fault(otherwise));
        }
    }
    pub(crate) fn is(&self, mutation: Mutation) -> bool {
        self.rules.mutation == Some(mutation)
    }
    /// A step of the protocol, as traces call it.
    pub(crate) async fn step<T: Pack>(
        &self,
        name: &str,
        h: Handle,
        body: impl Future<Output = T>,
    ) -> T {
        self.port.scope(&format!("{name} {h}"), body).await
    }
}
