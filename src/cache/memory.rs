//! The cache inside the process: a bounded map in which the entry that was unused longest goes first.
//!
//! Time is the process's [`Clock`], so that tests move it; `moka`'s own clock only frees memory, never before the entry
//! is over. Every change goes through `moka`'s compute, which runs one at a time for each key: that is what makes
//! updates, counts and limits atomic.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use moka::{
    Expiry,
    future::Cache as Map,
    ops::compute::{CompResult, Op},
    policy::EvictionPolicy,
};

use super::{Admission, Cache, CacheError, Entry, Options, Rate, Version};
use crate::base::{
    clock::{Clock, Timestamp},
    probe::Probe,
};

/// What an entry costs besides its key and value: `moka`'s nodes and our own fields.
const OVERHEAD: usize = 200;

#[derive(Clone)]
struct Slot {
    held: Held,
    over: Timestamp,
    /// For `moka`, which counts from its own present.
    ttl: Duration,
}

#[derive(Clone)]
enum Held {
    Value {
        bytes: Arc<[u8]>,
        version: Version,
    },
    Count(u64),
    /// The point in time (microseconds) up to which a limit is used up.
    Limit(i64),
}

struct ByTtl;

impl Expiry<String, Slot> for ByTtl {
    fn expire_after_create(&self, _key: &String, slot: &Slot, _at: Instant) -> Option<Duration> {
        Some(slot.ttl)
    }

    fn expire_after_update(
        &self,
        _key: &String,
        slot: &Slot,
        _at: Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        Some(slot.ttl)
    }
}

pub(super) struct Memory {
    map: Map<String, Slot>,
    clock: Clock,
}

impl Memory {
    pub(super) fn new(options: Options) -> Self {
        // One capacity bounds both: it is in bytes, and no entry weighs less than its share of them.
        let least = options.max_bytes / options.max_entries.max(1);
        let map = Map::builder()
            .max_capacity(options.max_bytes)
            .weigher(move |key: &String, slot: &Slot| {
                let bytes = match &slot.held {
                    Held::Value { bytes, .. } => bytes.len(),
                    Held::Count(_) | Held::Limit(_) => 0,
                };
                let all = (key.len().saturating_add(bytes).saturating_add(OVERHEAD)) as u64;
                u32::try_from(all.max(least)).unwrap_or(u32::MAX)
            })
            // The default policy may refuse a new entry for the sake of old ones; a limit must be kept once it is asked.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(ByTtl)
            .build();
        Self { map, clock: options.clock }
    }

    fn slot(&self, held: Held, ttl: Duration) -> Slot {
        let ttl = ttl.max(Duration::from_millis(1));
        Slot { held, over: self.clock.now().plus(ttl), ttl }
    }

    /// Changes one key atomically: `change` sees what is there and is not over.
    async fn change(&self, key: &str, change: impl FnOnce(Option<Slot>) -> Op<Slot>) -> CompResult<String, Slot> {
        let now = self.clock.now();
        self.map
            .entry_by_ref(key)
            .and_compute_with(|entry| {
                let there = entry.map(moka::Entry::into_value).filter(|slot| slot.over > now);
                std::future::ready(change(there))
            })
            .await
    }
}

#[async_trait]
impl Probe for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

#[async_trait]
impl Cache for Memory {
    async fn get(&self, key: &str) -> Result<Option<Entry>, CacheError> {
        let now = self.clock.now();
        let slot = self.map.get(key).await.filter(|slot| slot.over > now);
        Ok(slot.and_then(|slot| match slot.held {
            Held::Value { bytes, version } => Some(Entry { value: bytes.to_vec(), version }),
            Held::Count(_) | Held::Limit(_) => None,
        }))
    }

    async fn set(&self, key: &str, value: &[u8], ttl: Duration) -> Result<(), CacheError> {
        let slot = self.slot(Held::Value { bytes: value.into(), version: Version::fresh() }, ttl);
        self.change(key, |_| Op::Put(slot)).await;
        Ok(())
    }

    async fn delete(&self, keys: &[&str]) -> Result<(), CacheError> {
        for key in keys {
            self.change(key, |there| if there.is_some() { Op::Remove } else { Op::Nop }).await;
        }
        Ok(())
    }

    async fn update(
        &self,
        key: &str,
        expected: Option<Version>,
        value: &[u8],
        ttl: Duration,
    ) -> Result<Option<Version>, CacheError> {
        let version = Version::fresh();
        let slot = self.slot(Held::Value { bytes: value.into(), version }, ttl);
        let mut written = false;
        self.change(key, |there| {
            let found = there.map(|slot| match slot.held {
                Held::Value { version, .. } => Some(version),
                Held::Count(_) | Held::Limit(_) => None,
            });
            written = found == expected.map(Some);
            if written { Op::Put(slot) } else { Op::Nop }
        })
        .await;
        Ok(written.then_some(version))
    }

    async fn increment(&self, key: &str, by: u32, window: Duration) -> Result<u64, CacheError> {
        let fresh = self.slot(Held::Count(u64::from(by)), window);
        let now = self.clock.now();
        let mut sum = u64::from(by);
        self.change(key, |there| match there {
            Some(Slot { held: Held::Count(n), over, .. }) => {
                sum = n.saturating_add(u64::from(by));
                Op::Put(Slot { held: Held::Count(sum), over, ttl: over.since(now) })
            }
            _ => Op::Put(fresh),
        })
        .await;
        Ok(sum)
    }

    async fn admit(&self, key: &str, rate: Rate) -> Result<Admission, CacheError> {
        let now = self.clock.now().as_millis().saturating_mul(1000);
        let every = i64::try_from(rate.every.as_micros()).unwrap_or(i64::MAX).max(1000);
        let tolerance = every.saturating_mul(i64::from(rate.burst.max(1)));
        let mut answer = Admission::Allowed;
        self.change(key, |there| {
            let used = match there {
                Some(Slot { held: Held::Limit(until), .. }) => until.max(now),
                _ => now,
            };
            let until = used.saturating_add(every);
            let wait = until.saturating_sub(tolerance).saturating_sub(now);
            if wait > 0 {
                answer = Admission::RetryAfter(micros(wait));
                return Op::Nop;
            }
            Op::Put(self.slot(Held::Limit(until), micros(until.saturating_sub(now))))
        })
        .await;
        Ok(answer)
    }
}

fn micros(n: i64) -> Duration {
    Duration::from_micros(u64::try_from(n).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn filled(max_entries: u64, max_bytes: u64, n: usize, size: usize) -> Memory {
        let clock = Clock::manual(Timestamp::from_millis(1));
        let cache = Memory::new(Options { prefix: String::new(), max_entries, max_bytes, clock });
        for i in 0..n {
            cache.set(&format!("key{i}"), &vec![0; size], Duration::from_secs(3600)).await.unwrap();
        }
        cache.map.run_pending_tasks().await;
        cache
    }

    #[tokio::test]
    async fn entries_and_bytes_are_bounded_and_the_newest_stay() {
        for (max_entries, max_bytes, n, size) in [(10, 1 << 20, 500, 1), (1_000_000, 64 << 10, 100, 10_000)] {
            let cache = filled(max_entries, max_bytes, n, size).await;
            assert!(cache.map.entry_count() <= max_entries, "{}", cache.map.entry_count());
            assert!(cache.map.weighted_size() <= max_bytes, "{}", cache.map.weighted_size());
            assert!(cache.map.entry_count() > 0 && cache.get(&format!("key{}", n - 1)).await.unwrap().is_some());
        }
    }
}
