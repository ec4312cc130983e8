//! What objects of a name have done, those that are gone included: numbers for monitoring, which must not
//! go back when one of several objects ends.
//!
//! An object joins the series of its name, and leaves it with what it has done. A name once seen is kept
//! for the life of the process; there are at most [`MAX_NAMES`], and what comes later is counted under the
//! name [`OTHER`]. A scope has series of its own as long as some object of that name is in it.
//!
//! All of it under one lock. Who leaves does so in the step that ends its being counted as a member, and
//! who looks counts the members in the same step: nothing is missed or seen twice.

use super::handle::Handle;
use crate::error::Error;
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// More names than this are one.
pub(crate) const MAX_NAMES: usize = 256;
/// What that one is called; an object may be called so itself.
pub(crate) const OTHER: &str = "other";

/// Numbers that can be added up.
pub(crate) trait Sum: Copy {
    const NONE: Self;
    fn add(&mut self, other: &Self);
}

pub(crate) struct Series<T>(Mutex<Rows<T>>);

pub(crate) struct Rows<T> {
    /// By number. What those have done that have ended, unless it is in `scoped`.
    names: Vec<(&'static str, T)>,
    scoped: HashMap<(Handle, u32), Scoped<T>, FixedState>,
}

struct Scoped<T> {
    members: u32,
    ended: T,
}

impl<T: Sum> Series<T> {
    pub(crate) const fn new() -> Self {
        let scoped = HashMap::with_hasher(FixedState::with_seed(0));
        Self(Mutex::new(Rows { names: Vec::new(), scoped }))
    }

    /// To be taken in a [`super::Section`].
    pub(crate) fn lock(&self) -> MutexGuard<'_, Rows<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Sum> Rows<T> {
    /// An object of that name begins; the number of its series.
    pub(crate) fn join(&mut self, scope: Handle, name: &str) -> Result<u32, Error> {
        let number = self.number_of(name)?;
        if scope.0 != 0 {
            self.scoped.try_reserve(1).map_err(|_| Error::NoMemory)?;
            let fresh = Scoped { members: 0, ended: T::NONE };
            self.scoped.entry((scope, number)).or_insert(fresh).members += 1;
        }
        Ok(number)
    }

    /// The object has ended, and has done that.
    pub(crate) fn leave(&mut self, scope: Handle, number: u32, last: &T) {
        let mut done = *last;
        if let Some(scoped) = self.scoped.get_mut(&(scope, number)) {
            scoped.ended.add(last);
            scoped.members -= 1;
            if scoped.members > 0 {
                return;
            }
            done = scoped.ended;
            self.scoped.remove(&(scope, number));
        }
        self.names[number as usize].1.add(&done);
    }

    fn number_of(&mut self, name: &str) -> Result<u32, Error> {
        if let Some(number) = self.find(name) {
            return Ok(number);
        }
        let is_full = self.names.len() >= MAX_NAMES;
        if is_full && let Some(number) = self.find(OTHER) {
            return Ok(number);
        }
        let (name, mut kept) = (if is_full { OTHER } else { name }, String::new());
        kept.try_reserve_exact(name.len()).map_err(|_| Error::NoMemory)?;
        self.names.try_reserve(1).map_err(|_| Error::NoMemory)?;
        kept.push_str(name);
        self.names.push((kept.leak(), T::NONE));
        Ok(self.names.len() as u32 - 1)
    }

    fn find(&self, name: &str) -> Option<u32> {
        self.names.iter().position(|(known, _)| *known == name).map(|place| place as u32)
    }

    /// What was done by those that have ended: of the scope, or with 0 of the process.
    pub(crate) fn ended(&self, scope: Handle) -> T {
        let mut sum = T::NONE;
        if scope.0 == 0 {
            self.names.iter().for_each(|(_, ended)| sum.add(ended));
        }
        let of_scope = self.scoped.iter().filter(|((other, _), _)| scope.0 == 0 || *other == scope);
        of_scope.for_each(|(_, scoped)| sum.add(&scoped.ended));
        sum
    }

    /// Every series of the scope, or with 0 of the process; `members` adds what those have done that are
    /// there.
    pub(crate) fn sums(
        &self,
        scope: Handle,
        members: impl FnOnce(&mut Sums<T>),
    ) -> Result<Sums<T>, Error> {
        let mut sums = Vec::new();
        sums.try_reserve_exact(self.names.len()).map_err(|_| Error::NoMemory)?;
        sums.extend(self.names.iter().map(|(name, ended)| match scope.0 {
            0 => (*name, Some(*ended)),
            _ => (*name, None),
        }));
        let mut sums = Sums(sums);
        for ((other, number), scoped) in &self.scoped {
            if scope.0 == 0 || *other == scope {
                sums.add(*number, &scoped.ended);
            }
        }
        members(&mut sums);
        Ok(sums)
    }
}

/// What the objects of each name have done.
pub(crate) struct Sums<T>(Vec<(&'static str, Option<T>)>);

impl<T: Sum> Sums<T> {
    pub(crate) fn add(&mut self, number: u32, more: &T) {
        if let Some((_, sum)) = self.0.get_mut(number as usize) {
            sum.get_or_insert(T::NONE).add(more);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        self.0.iter().filter_map(|(name, sum)| Some((*name, sum.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Sum for u64 {
        const NONE: Self = 0;
        fn add(&mut self, other: &Self) {
            *self += other;
        }
    }

    const PROCESS: Handle = Handle(0);
    const SCOPE: Handle = Handle(7);

    fn sums(rows: &Rows<u64>, scope: Handle) -> Vec<(&'static str, u64)> {
        let sums = rows.sums(scope, |_| ()).unwrap();
        sums.iter().map(|(name, sum)| (name, *sum)).collect()
    }

    #[test]
    #[cfg_attr(miri, ignore = "names stay for ever, which Miri takes for leaks")]
    fn what_has_ended_stays_in_the_sum_of_its_name() {
        let series = Series::<u64>::new();
        let mut rows = series.lock();
        let (one, same) = (rows.join(PROCESS, "a"), rows.join(PROCESS, "a"));
        assert_eq!((one, same), (Ok(0), Ok(0)));
        let other = rows.join(PROCESS, "b").unwrap();
        rows.leave(PROCESS, 0, &5);
        rows.leave(PROCESS, 0, &6);
        rows.leave(PROCESS, other, &1);
        assert_eq!(sums(&rows, PROCESS), [("a", 11), ("b", 1)]);
        assert_eq!(rows.ended(PROCESS), 12);
        let with_members = rows.sums(PROCESS, |sums| sums.add(0, &100)).unwrap();
        assert_eq!(with_members.iter().map(|(_, sum)| *sum).collect::<Vec<_>>(), [111, 1]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "names stay for ever, which Miri takes for leaks")]
    fn a_scopes_series_lasts_as_long_as_one_of_its_objects() {
        let series = Series::<u64>::new();
        let mut rows = series.lock();
        rows.join(PROCESS, "a").unwrap();
        rows.join(SCOPE, "a").unwrap();
        rows.join(SCOPE, "a").unwrap();
        assert_eq!(sums(&rows, SCOPE), [("a", 0)]);
        rows.leave(SCOPE, 0, &5);
        assert_eq!((sums(&rows, SCOPE), sums(&rows, PROCESS)), (vec![("a", 5)], vec![("a", 5)]));
        assert_eq!((rows.ended(SCOPE), rows.ended(PROCESS)), (5, 5));
        rows.leave(SCOPE, 0, &6);
        assert_eq!((sums(&rows, SCOPE), sums(&rows, PROCESS)), (vec![], vec![("a", 11)]));
        assert_eq!((rows.ended(SCOPE), rows.ended(PROCESS)), (0, 11));
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes a minute, and shares nothing")]
    fn names_beyond_the_limit_are_one() {
        let series = Series::<u64>::new();
        let mut rows = series.lock();
        for number in 0..MAX_NAMES + 3 {
            let joined = rows.join(PROCESS, &number.to_string()).unwrap();
            assert_eq!(joined as usize, number.min(MAX_NAMES));
            rows.leave(PROCESS, joined, &1);
        }
        assert_eq!(rows.join(PROCESS, OTHER), Ok(MAX_NAMES as u32));
        assert_eq!(rows.join(PROCESS, "5"), Ok(5));
        assert_eq!(sums(&rows, PROCESS).last(), Some(&(OTHER, 3)));
        assert_eq!(sums(&rows, PROCESS).len(), MAX_NAMES + 1);
    }
}
