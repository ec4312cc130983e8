//! Keys: one callback a key, event and scope. A key is a number that the host has anyway: a connection's
//! pointer or file descriptor.

use super::{Mode, Table, alive, put_reference, release_all};
use crate::engine::{Engine, Handle, Question, Record, Section, Versions, invoke};
use crate::error::{Error, Fault};
use smallvec::SmallVec;
use std::ffi::c_void;

/// A key's callbacks, by event. Few, and nearly always read and write.
type Events = SmallVec<[(u32, Handle); 2]>;

/// All keys of the process.
pub(crate) struct Keys {
    table: Table<usize, Events>,
    versions: Versions,
}

impl Keys {
    pub(crate) const fn new() -> Self {
        Self { table: Table::new(), versions: Versions::new() }
    }

    /// Attaches the callback to a key and event of an open scope.
    pub(crate) fn attach(
        &self,
        engine: &Engine,
        record: &Record,
        question: Question,
        handle: Handle,
        mode: Mode,
    ) -> Result<(), Error> {
        let Question { scope, key, event } = question;
        // Forgets those whose callback has ended; are there others?
        let is_alive = |events: &mut Events| {
            events.retain(|(_, other)| engine.is_live(*other));
            !events.is_empty()
        };
        let insert = |section: &Section<'_>| {
            self.table.insert(section, scope, &key, is_alive, |bucket| {
                let events = bucket.entry(key).or_default();
                let old = match events.iter_mut().find(|(other, _)| *other == event) {
                    Some((_, old)) if mode == Mode::Once && engine.is_live(*old) => {
                        return Err(Error::Exists);
                    }
                    Some((_, old)) => std::mem::replace(old, handle),
                    None => {
                        if events.len() == events.capacity() {
                            is_alive(events);
                        }
                        events.try_reserve(1).map_err(|_| Error::NoMemory)?;
                        events.push((event, handle));
                        Handle(0)
                    }
                };
                self.versions.count(question);
                Ok(old)
            })
        };
        put_reference(engine, record, handle, || engine.while_open(record, scope, insert))
    }

    /// The callback of that key and event, weak.
    pub(crate) fn find(
        &self,
        engine: &Engine,
        record: &Record,
        question: Question,
    ) -> Result<Handle, Error> {
        if !engine.is_open(question.scope)? {
            return Err(Error::NotFound);
        }
        alive(engine, || self.look_up(engine, record, question))
    }

    /// What the table has, alive or not.
    fn look_up(&self, engine: &Engine, record: &Record, question: Question) -> Option<Handle> {
        let Question { scope, key, event } = question;
        let version = self.versions.current(question);
        if let Some(handle) = record.memo.recall(question, version) {
            return Some(handle);
        }
        let section = engine.section(record);
        let found = self.table.look(&section, scope, &key, |bucket| {
            let events = bucket.get(&key)?;
            events.iter().find(|(other, _)| *other == event).map(|(_, handle)| *handle)
        })?;
        record.memo.remember(question, version, found);
        Some(found)
    }

    /// Calls the callback of that key and event.
    #[inline(always)]
    pub(crate) fn call(
        &self,
        engine: &Engine,
        record: &Record,
        question: Question,
        arg: *mut c_void,
    ) -> Result<isize, Fault> {
        let Some(handle) = record.memo.recall(question, self.versions.current(question)) else {
            return self.call_found(engine, record, question, arg, Handle(0));
        };
        match invoke::call(engine, record, handle, arg) {
            Err(fault) if record.is_stale(fault) => {
                self.call_found(engine, record, question, arg, handle)
            }
            called => called,
        }
    }

    /// Looks the callback up and calls it, until one is called or none is found but the one that was found
    /// `gone`: a call that met a replacement is the new one's.
    #[cold]
    #[inline(never)]
    fn call_found(
        &self,
        engine: &Engine,
        record: &Record,
        question: Question,
        arg: *mut c_void,
        mut gone: Handle,
    ) -> Result<isize, Fault> {
        while let Some(handle) = self.look_up(engine, record, question)
            && handle != gone
        {
            match invoke::call(engine, record, handle, arg) {
                Err(fault) if record.is_stale(fault) => gone = handle,
                called => return called,
            }
        }
        let scope = engine.check_scope(question.scope);
        Err(record.fault(scope.err().unwrap_or(Error::NotFound)))
    }

    /// Detaches the callback of one event.
    pub(crate) fn detach(
        &self,
        engine: &Engine,
        record: &Record,
        question: Question,
    ) -> Result<(), Error> {
        let Question { scope, key, event } = question;
        engine.check_scope(scope)?;
        let removed = {
            let section = engine.section(record);
            self.table.change(&section, scope, &key, |bucket| {
                let events = bucket.get_mut(&key)?;
                let place = events.iter().position(|(other, _)| *other == event)?;
                let (_, handle) = events.swap_remove(place);
                if events.is_empty() {
                    bucket.remove(&key);
                }
                self.versions.count(question);
                Some(handle)
            })
        };
        let handle = removed.ok_or(Error::NotFound)?;
        // One that has ended counts as none.
        engine.release(record, handle).map_err(|_| Error::NotFound)
    }

    /// Detaches the callbacks of all events of a key: how many there were.
    pub(crate) fn detach_all(
        &self,
        engine: &Engine,
        record: &Record,
        scope: Handle,
        key: usize,
    ) -> Result<usize, Error> {
        engine.check_scope(scope)?;
        let removed = {
            let section = engine.section(record);
            self.table.change(&section, scope, &key, |bucket| {
                let events = bucket.remove(&key)?;
                self.count_all(scope, key, &events);
                Some(events)
            })
        };
        Ok(release_all(engine, record, handles_of(removed.unwrap_or_default())))
    }

    /// Detaches everything of a scope that is closing.
    pub(crate) fn detach_scope(&self, engine: &Engine, record: &Record, scope: Handle) {
        self.table.take_scope(engine, record, scope, |key, events| {
            self.count_all(scope, *key, &events);
            handles_of(events)
        });
    }

    fn count_all(&self, scope: Handle, key: usize, events: &Events) {
        for (event, _) in events {
            self.versions.count(Question { scope, key, event: *event });
        }
    }
}

fn handles_of(events: Events) -> impl Iterator<Item = Handle> {
    events.into_iter().map(|(_, handle)| handle)
}
