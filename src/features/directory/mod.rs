//! Finding a callback again: by [`names`] and by [`keys`].
//!
//! Both are tables by scope. A scope's entries are spread over some buckets, and the buckets over the
//! shards of a DashMap, so that threads rarely meet, and a scope that closes takes its buckets along
//! without a look at anybody else's.
//!
//! An entry owns a reference. It is never released under a lock: what goes is handed out first. An entry
//! whose callback has ended counts as none, and makes room when its bucket would have to grow.

pub(crate) mod keys;
pub(crate) mod names;

use crate::engine::{Engine, Handle, Record, Section};
use crate::error::Error;
use dashmap::{DashMap, SharedValue};
use foldhash::fast::RandomState;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::LazyLock;

const BUCKETS: u64 = 16;
const SHARDS: usize = 64;

type Bucket<K, V> = HashMap<K, V, RandomState>;
type BucketName = (Handle, u64);

/// Entries by scope and `K`.
pub(crate) struct Table<K, V> {
    map: LazyLock<Map<K, V>>,
}

struct Map<K, V> {
    hasher: RandomState,
    buckets: DashMap<BucketName, Bucket<K, V>, RandomState>,
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
        Self {
            map: LazyLock::new(|| {
                let hasher = RandomState::default();
                let buckets = DashMap::with_hasher_and_shard_amount(hasher.clone(), SHARDS);
                Map { hasher, buckets }
            }),
        }
    }

    fn bucket_name<Q: Hash + ?Sized>(&self, scope: Handle, key: &Q) -> BucketName {
        // The lowest bits and the seven highest choose places inside a table.
        (scope, self.map.hasher.hash_one(key) >> 48 & (BUCKETS - 1))
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
        let bucket = self.map.buckets.get(&self.bucket_name(scope, key))?;
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
        let mut bucket = self.map.buckets.get_mut(&self.bucket_name(scope, key))?;
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
        let name = self.bucket_name(scope, key);
        let map = &*self.map;
        let hash = map.hasher.hash_one(name);
        let mut shard = map.buckets.shards()[map.buckets.determine_map(&name)].write();
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

    /// Takes everything of a scope out, a bucket at a time.
    fn take_scope(
        &self,
        engine: &Engine,
        record: &Record,
        scope: Handle,
        mut taken: impl FnMut(Bucket<K, V>),
    ) {
        for bucket in 0..BUCKETS {
            let removed = {
                let _section = engine.section(record);
                self.map.buckets.remove(&(scope, bucket))
            };
            if let Some((_, bucket)) = removed {
                taken(bucket);
            }
        }
    }
}

/// Gives an entry's reference back; if the callback is gone, the reference is as well.
fn release(engine: &Engine, record: &Record, handle: Handle) {
    let _ = engine.release(record, handle);
}
