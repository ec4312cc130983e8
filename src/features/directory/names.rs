//! Names: one callback a name and scope.

use super::{Mode, Table, alive, put_reference};
use crate::engine::{Engine, Handle, Record};
use crate::error::Error;

/// All names of the process.
pub(crate) struct Names(Table<Box<str>, Handle>);

impl Names {
    pub(crate) const fn new() -> Self {
        Self(Table::new())
    }

    /// Gives the callback a name in an open scope.
    pub(crate) fn bind(
        &self,
        engine: &Engine,
        record: &Record,
        (scope, name): (Handle, &str),
        handle: Handle,
        mode: Mode,
    ) -> Result<(), Error> {
        let own_name = copy(name)?;
        let is_alive = |other: &mut Handle| engine.is_live(*other);
        put_reference(engine, record, handle, || {
            engine.while_open(record, scope, |section| {
                self.0.insert(section, scope, name, is_alive, |bucket| match bucket.get_mut(name) {
                    Some(old) if mode == Mode::Once && engine.is_live(*old) => Err(Error::Exists),
                    Some(old) => Ok(std::mem::replace(old, handle)),
                    None => {
                        bucket.insert(own_name, handle);
                        Ok(Handle(0))
                    }
                })
            })
        })
    }

    /// The callback of that name, weak.
    pub(crate) fn find(
        &self,
        engine: &Engine,
        record: &Record,
        (scope, name): (Handle, &str),
    ) -> Result<Handle, Error> {
        if !engine.is_open(scope)? {
            return Err(Error::NotFound);
        }
        alive(engine, || {
            let section = engine.section(record);
            self.0.look(&section, scope, name, |bucket| bucket.get(name).copied())
        })
    }

    /// Takes the name away.
    pub(crate) fn unbind(
        &self,
        engine: &Engine,
        record: &Record,
        (scope, name): (Handle, &str),
    ) -> Result<(), Error> {
        engine.check_scope(scope)?;
        let removed = {
            let section = engine.section(record);
            self.0.change(&section, scope, name, |bucket| bucket.remove(name))
        };
        let handle = removed.ok_or(Error::NotFound)?;
        // One that has ended counts as none.
        engine.release(record, handle).map_err(|_| Error::NotFound)
    }

    /// Takes all names of a scope that is closing away.
    pub(crate) fn unbind_all(&self, engine: &Engine, record: &Record, scope: Handle) {
        self.0.take_scope(engine, record, scope, |_, handle| std::iter::once(handle));
    }
}

/// A copy of the text, or no memory for it.
fn copy(text: &str) -> Result<Box<str>, Error> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| Error::NoMemory)?;
    copy.push_str(text);
    Ok(copy.into_boxed_str())
}
