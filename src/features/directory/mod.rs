//! Finding a callback again: by [`names`] and by [`keys`].
//!
//! Both are tables by scope. A scope's entries are spread over some buckets, and the buckets over shards
//! with a lock each, so that threads rarely meet, and a scope that closes takes its buckets along without
//! a look at anybody else's.
//!
//! An entry owns a reference. It is never released under a lock: what goes is handed out first. An entry
//! whose callback has ended counts as none, and makes room when its bucket would have to grow.
//!
//! Nothing here allocates but to make room for an entry, and that may be refused: std's locks are words
//! that threads sleep on, and the tables grow by `try_reserve`. So no map with locks of its own: DashMap
//! aborts without memory, when it is made and when a thread waits for the first time.

pub(crate) mod keys;
pub(crate) mod names;

use crate::engine::{Engine, Handle, Record, Section};
use crate::error::Error;
use crate::platform::random;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use smallvec::SmallVec;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const BUCKETS: u64 = 16;
const SHARDS: usize = 64;
/// Entries that are taken out at a time.
const BATCH: usize = 32;

type BucketName = (Handle, u64);

/// Entries by scope and `K`.
pub(crate) struct Table<K, V> {
    /// Seeded with the first entry, so that nobody knows beforehand which keys meet.
    hasher: OnceLock<FixedState>,
    shards: [Shard<K, V>; SHARDS],
}

/// On cache lines of its own.
#[repr(align(64))]
struct Shard<K, V>(RwLock<HashTable<Bucket<K, V>>>);

/// Some entries of a scope.
struct Bucket<K, V> {
    name: BucketName,
    entries: Entries<K, V>,
}

type Entries<K, V> = HashMap<K, V, FixedState>;

/// Whether an entry may take another one's place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The first one stays.
    Once,
    Replace,
}

impl<K: Eq + Hash, V> Table<K, V> {
    pub(crate) const fn new() -> Self {
        let shards = [const { Shard(RwLock::new(HashTable::new())) }; SHARDS];
        Self { hasher: OnceLock::new(), shards }
    }

    fn hasher(&self) -> &FixedState {
        self.hasher.get_or_init(|| {
            FixedState::with_seed(u64::from(random::u32()) << 32 | u64::from(random::u32()))
        })
    }

    /// Where the bucket is: its shard, and its hash there.
    fn place_of(&self, name: &BucketName) -> (&Shard<K, V>, u64) {
        let hash = self.hasher().hash_one(name);
        // The lowest bits and the seven highest choose places inside a table.
        (&self.shards[(hash >> 40) as usize % SHARDS], hash)
    }

    fn bucket_name<Q: Hash + ?Sized>(&self, scope: Handle, key: &Q) -> BucketName {
        // As above.
        (scope, self.hasher().hash_one(key) >> 48 & (BUCKETS - 1))
    }

    /// Looks into the bucket of `key`; None if there is none.
    fn look<Q, T>(
        &self,
        _: &Section<'_>,
        scope: Handle,
        key: &Q,
        look: impl FnOnce(&Entries<K, V>) -> Option<T>,
    ) -> Option<T>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.hasher.get()?;
        let name = self.bucket_name(scope, key);
        let (shard, hash) = self.place_of(&name);
        let buckets = shard.read();
        look(&buckets.find(hash, |bucket| bucket.name == name)?.entries)
    }

    /// Changes the bucket of `key`; None if there is none.
    fn change<Q, T>(
        &self,
        _: &Section<'_>,
        scope: Handle,
        key: &Q,
        change: impl FnOnce(&mut Entries<K, V>) -> Option<T>,
    ) -> Option<T>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.hasher.get()?;
        let name = self.bucket_name(scope, key);
        let (shard, hash) = self.place_of(&name);
        let mut buckets = shard.write();
        change(&mut buckets.find_mut(hash, |bucket| bucket.name == name)?.entries)
    }

    /// Changes the bucket of `key`, which has room for one more entry. To make room, entries go that
    /// `is_alive` does not say yes of.
    fn insert<Q, T>(
        &self,
        _: &Section<'_>,
        scope: Handle,
        key: &Q,
        is_alive: impl Fn(&mut V) -> bool,
        insert: impl FnOnce(&mut Entries<K, V>) -> Result<T, Error>,
    ) -> Result<T, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let name = self.bucket_name(scope, key);
        let (shard, hash) = self.place_of(&name);
        let mut buckets = shard.write();
        let hash_of = |bucket: &Bucket<K, V>| self.hasher().hash_one(bucket.name);
        // Before the look, which keeps the table borrowed. It has room nearly always.
        buckets.try_reserve(1, hash_of).map_err(|_| Error::NoMemory)?;
        let bucket =
            buckets.entry(hash, |bucket| bucket.name == name, hash_of).or_insert_with(|| Bucket {
                name,
                entries: Entries::with_hasher(self.hasher().clone()),
            });
        let entries = &mut bucket.into_mut().entries;
        if entries.len() == entries.capacity() {
            entries.retain(|_, value| is_alive(value));
            // Twice as much unless plenty has gone, so that this is rare.
            let plenty = entries.len() * 4 < entries.capacity() * 3;
            let more = if plenty { 1 } else { entries.len().max(1) };
            entries.try_reserve(more).map_err(|_| Error::NoMemory)?;
        }
        insert(entries)
    }

    /// Takes entries of a scope out until there are none, some at a time: `take` has what an entry owned,
    /// under the lock; that is released without.
    fn take_scope<T: Iterator<Item = Handle>>(
        &self,
        engine: &Engine,
        record: &Record,
        scope: Handle,
        take: impl Fn(&K, V) -> T,
    ) {
        if self.hasher.get().is_none() {
            return;
        }
        for name in (0..BUCKETS).map(|bucket| (scope, bucket)) {
            let (shard, hash) = self.place_of(&name);
            let is_wanted = |bucket: &Bucket<K, V>| bucket.name == name;
            loop {
                // Never more than fit: there may be no memory.
                let mut batch = SmallVec::<[T; BATCH]>::new();
                let is_done = {
                    let _section = engine.section(record);
                    let mut buckets = shard.write();
                    let Some(bucket) = buckets.find_mut(hash, is_wanted) else { break };
                    let mut taken = bucket.entries.extract_if(|_, _| true);
                    while batch.len() < BATCH
                        && let Some((key, value)) = taken.next()
                    {
                        batch.push(take(&key, value));
                    }
                    drop(taken);
                    bucket.entries.is_empty()
                };
                release_all(engine, record, batch.into_iter().flatten());
                if is_done {
                    let _section = engine.section(record);
                    let mut buckets = shard.write();
                    if let Ok(bucket) = buckets.find_entry(hash, is_wanted)
                        && bucket.get().entries.is_empty()
                    {
                        drop(bucket.remove());
                    }
                    break;
                }
            }
        }
    }
}

impl<K, V> Shard<K, V> {
    // Nothing panics under the locks but by a mistake of ours, which must not become everybody's.
    fn read(&self) -> RwLockReadGuard<'_, HashTable<Bucket<K, V>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashTable<Bucket<K, V>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Releases references that entries owned: all of them, once. How many callbacks had not ended. Destroy
/// functions may run.
fn release_all(engine: &Engine, record: &Record, handles: impl Iterator<Item = Handle>) -> usize {
    let mut rest = Rest { engine, handles };
    let mut alive = 0;
    for handle in rest.handles.by_ref() {
        alive += usize::from(engine.release(record, handle).is_ok());
    }
    alive
}

/// What is left if an unwind out of a destroy function passes through.
struct Rest<'a, T: Iterator<Item = Handle>> {
    engine: &'a Engine,
    handles: T,
}

impl<T: Iterator<Item = Handle>> Drop for Rest<'_, T> {
    fn drop(&mut self) {
        for handle in &mut self.handles {
            self.engine.release_later(handle);
        }
    }
}

/// What `look_up` finds, if it is alive. One that has ended may have been replaced just then: so look
/// until it is found twice.
fn alive(engine: &Engine, look_up: impl Fn() -> Option<Handle>) -> Result<Handle, Error> {
    let mut gone = Handle(0);
    while let Some(handle) = look_up()
        && handle != gone
    {
        if engine.is_live(handle) {
            return Ok(handle);
        }
        gone = handle;
    }
    Err(Error::NotFound)
}

/// Has `put` make an entry of `handle`, with a reference of its own, and releases that of the entry whose
/// place it took. If it is refused, its own.
fn put_reference(
    engine: &Engine,
    record: &Record,
    handle: Handle,
    put: impl FnOnce() -> Result<Handle, Error>,
) -> Result<(), Error> {
    engine.retain(handle)?;
    let (result, unused) = match put() {
        Ok(replaced) => (Ok(()), replaced),
        Err(error) => (Err(error), handle),
    };
    // If that callback has ended, its reference has as well.
    let _ = engine.release(record, unused);
    result
}
