//! Finding a callback again: by [`names`] and by [`keys`].
//!
//! Both are tables by scope. A scope's entries are spread over some buckets, and the buckets over the
//! shards of a DashMap, so that threads rarely meet, and a scope that closes takes its buckets along
//! without a look at anybody else's.
//!
//! An entry owns a reference. It is never released under a lock: what goes is handed out first. An entry
//! whose callback has ended counts as none, and makes room when its bucket would have to grow.
//!
//! DashMap's locks let readers in as long as there are others: threads that find without pause would keep
//! out who binds. So who has to wait for a shard says so, and readers give way to it once a look.

pub(crate) mod keys;
pub(crate) mod names;

use crate::engine::{Engine, Handle, Record, Section};
use crate::error::Error;
use crate::platform::memory;
use crate::sync::{AtomicU32, Relaxed, spin_hint};
use dashmap::mapref::one::RefMut;
use dashmap::try_result::TryResult;
use dashmap::{DashMap, SharedValue};
use foldhash::fast::RandomState;
use smallvec::SmallVec;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::OnceLock;

const BUCKETS: u64 = 16;
const SHARDS: usize = 64;
/// Entries that are taken out at a time.
const BATCH: usize = 32;

type Bucket<K, V> = HashMap<K, V, RandomState>;
type BucketName = (Handle, u64);

/// Entries by scope and `K`.
pub(crate) struct Table<K, V> {
    map: OnceLock<Map<K, V>>,
}

struct Map<K, V> {
    hasher: RandomState,
    buckets: DashMap<BucketName, Bucket<K, V>, RandomState>,
    /// How many threads wait to change something.
    waiting: AtomicU32,
}

/// Whether an entry may take another one's place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The first one stays.
    Once,
    Replace,
}

impl<K: Eq + Hash, V> Table<K, V> {
    pub(crate) const fn new() -> Self {
        Self { map: OnceLock::new() }
    }

    /// The map, made at its first use.
    fn map(&self) -> Result<&Map<K, V>, Error> {
        if let Some(map) = self.map.get() {
            return Ok(map);
        }
        // DashMap's constructor, and the hasher's, abort where there is no memory: so look whether there is.
        const SHARD: usize = 256;
        if !memory::is_there(SHARDS * SHARD) {
            return Err(Error::NoMemory);
        }
        Ok(self.map.get_or_init(|| {
            let hasher = RandomState::default();
            let buckets = DashMap::with_hasher_and_shard_amount(hasher.clone(), SHARDS);
            Map { hasher, buckets, waiting: AtomicU32::new(0) }
        }))
    }

    /// Looks into the bucket of `key`; None if there is none.
    fn look<Q, T>(
        &self,
        _: &Section<'_>,
        scope: Handle,
        key: &Q,
        look: impl FnOnce(&Bucket<K, V>) -> Option<T>,
    ) -> Option<T>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let map = self.map.get()?;
        map.give_way();
        let bucket = map.buckets.get(&map.bucket_name(scope, key))?;
        look(&bucket)
    }

    /// Changes the bucket of `key`; None if there is none.
    fn change<Q, T>(
        &self,
        _: &Section<'_>,
        scope: Handle,
        key: &Q,
        change: impl FnOnce(&mut Bucket<K, V>) -> Option<T>,
    ) -> Option<T>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let map = self.map.get()?;
        let mut bucket = map.get_mut(&map.bucket_name(scope, key))?;
        change(&mut bucket)
    }

    /// Changes the bucket of `key`, which has room for one more entry. To make room, entries go that
    /// `is_alive` does not say yes of.
    fn insert<Q, T>(
        &self,
        _: &Section<'_>,
        scope: Handle,
        key: &Q,
        is_alive: impl Fn(&mut V) -> bool,
        insert: impl FnOnce(&mut Bucket<K, V>) -> Result<T, Error>,
    ) -> Result<T, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let map = self.map()?;
        let name = map.bucket_name(scope, key);
        let hash = map.hasher.hash_one(name);
        let shard = &map.buckets.shards()[map.buckets.determine_map(&name)];
        let mut shard = shard.try_write().unwrap_or_else(|| map.waiting(|| shard.write()));
        let found = match shard.find(hash, |(other, _)| *other == name) {
            Some(found) => found,
            None => {
                let hash_of = |(name, _): &(BucketName, _)| map.hasher.hash_one(name);
                shard.try_reserve(1, hash_of).map_err(|_| Error::NoMemory)?;
                let empty = Bucket::with_hasher(map.hasher.clone());
                shard.insert(hash, (name, SharedValue::new(empty)), hash_of)
            }
        };
        // SAFETY: found under this shard's write lock, which we hold until the end.
        let bucket = unsafe { found.as_mut() }.1.get_mut();
        if bucket.len() == bucket.capacity() {
            bucket.retain(|_, value| is_alive(value));
            // Twice as much unless plenty has gone, so that this is rare.
            let more =
                if bucket.len() * 4 >= bucket.capacity() * 3 { bucket.len().max(1) } else { 1 };
            bucket.try_reserve(more).map_err(|_| Error::NoMemory)?;
        }
        insert(bucket)
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
        let Some(map) = self.map.get() else { return };
        for bucket in (0..BUCKETS).map(|bucket| (scope, bucket)) {
            loop {
                // Never more than fit: there may be no memory.
                let mut batch = SmallVec::<[T; BATCH]>::new();
                let is_done = {
                    let _section = engine.section(record);
                    let Some(mut entries) = map.get_mut(&bucket) else { break };
                    let mut taken = entries.extract_if(|_, _| true);
                    while batch.len() < BATCH
                        && let Some((key, value)) = taken.next()
                    {
                        batch.push(take(&key, value));
                    }
                    drop(taken);
                    entries.is_empty()
                };
                release_all(engine, record, batch.into_iter().flatten());
                if is_done {
                    let _section = engine.section(record);
                    let remove = || map.buckets.remove_if(&bucket, |_, rest| rest.is_empty());
                    map.waiting(remove);
                    break;
                }
            }
        }
    }
}

impl<K, V> Map<K, V> {
    /// The bucket, locked.
    fn get_mut(&self, name: &BucketName) -> Option<RefMut<'_, BucketName, Bucket<K, V>>> {
        match self.buckets.try_get_mut(name) {
            TryResult::Present(bucket) => Some(bucket),
            TryResult::Absent => None,
            TryResult::Locked => self.waiting(|| self.buckets.get_mut(name)),
        }
    }

    /// Runs `lock`, which waits, with readers giving way.
    fn waiting<T>(&self, lock: impl FnOnce() -> T) -> T {
        // Relaxed: a wish.
        self.waiting.fetch_add(1, Relaxed);
        let locked = lock();
        self.waiting.fetch_sub(1, Relaxed);
        locked
    }

    /// Lets those who wait go first.
    fn give_way(&self) {
        // Relaxed: see `waiting`.
        if self.waiting.load(Relaxed) != 0 {
            spin_hint();
        }
    }

    fn bucket_name<Q: Hash + ?Sized>(&self, scope: Handle, key: &Q) -> BucketName {
        // The lowest bits and the seven highest choose places inside a table.
        (scope, self.hasher.hash_one(key) >> 48 & (BUCKETS - 1))
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
