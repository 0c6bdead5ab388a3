//! Read-through caching of what a store holds, never stale once a write has answered.
//!
//! The danger is the reader that loads the old record, is overtaken by a writer, and then caches what it loaded. So a record
//! is cached only by whoever can prove, by the entry's version, that nothing happened since before it looked:
//!
//! - A reader that misses writes *filling* where nothing was, then loads, and replaces just that writing by what it loaded.
//!   Whatever touched the entry in between (a writer, eviction, time) makes the replacement fail, and nothing is cached.
//! - A writer writes *writing* before it writes to the store: from then on nobody serves or fills the entry. After the store
//!   has answered it replaces just that writing by the new record.
//! - A writer that finds another one's *writing* makes it *contested*, which nobody replaces: it runs out by itself.
//! - A writer that dies, fails or is given up leaves its mark, and readers go to the store until it runs out.
//!
//! If the cache is away while a writer writes, the write goes on, and this process owes the mark: it neither reads nor fills
//! the entry until the mark has been made, which is tried again and again. Other processes may meanwhile read the old
//! record from a cache that only the writer cannot reach, or, if the writer dies before it has paid, up to its time to live.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Cache, CacheError, Entry, Version};
use crate::telemetry::metrics::{CACHE_LOOKUPS, CACHE_WRITE_FAILURES};

/// How long a reader may take to load what it then caches.
const FILL_HOLD: Duration = Duration::from_secs(10);
/// How long a writer's mark stands: longer than any store takes to answer or give up.
const WRITE_HOLD: Duration = Duration::from_secs(60);
/// How often marks that are owed are tried again.
const PAY_EVERY: Duration = Duration::from_millis(250);
/// Most marks that a process owes; beyond, entries may be stale for their time to live, and the log says so.
const OWED_MAX: usize = 100_000;
/// How often a mark is tried against others that touch the same entry.
const MARK_TRIES: u32 = 3;

const RECORD: u8 = b'R';
const FILLING: &[u8] = b"F";
const WRITING: &[u8] = b"W";
const CONTESTED: &[u8] = b"C";

/// Caches the records of one sort. Cheap to clone; clones share what they owe.
#[derive(Clone)]
pub struct Through(Arc<Inner>);

struct Inner {
    cache: Arc<dyn Cache>,
    name: &'static str,
    shape: u8,
    ttl: Duration,
    owed: Mutex<HashSet<String>>,
}

/// A write to the store that is under way. Dropping it leaves the mark, which is always safe.
#[must_use]
pub struct Mark {
    through: Through,
    key: String,
    standing: Standing,
}

enum Standing {
    /// The mark is this writer's own.
    Own(Version),
    /// Other writers are under way, too.
    Contested,
    /// The cache is away.
    Missing,
    /// Nothing is left to do.
    Settled,
}

impl Through {
    /// Caches records under `name`, which begins their keys and labels their metrics. `shape` is raised whenever the record's
    /// type changes: programs of different versions then do not read each other's.
    #[must_use]
    pub fn new(cache: Arc<dyn Cache>, name: &'static str, shape: u8, ttl: Duration) -> Self {
        Self(Arc::new(Inner { cache, name, shape, ttl, owed: Mutex::default() }))
    }

    /// The record with this id, from the cache, else from `load`, which is called at most once. What does not exist is not
    /// cached.
    ///
    /// # Errors
    /// Those of `load`; the cache's own are a miss.
    pub async fn read<T, E, F>(&self, id: &str, load: impl FnOnce() -> F) -> Result<Option<T>, E>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<Option<T>, E>>,
    {
        let key = self.key(id);
        let seen = if self.owed().contains(&key) {
            Err(CacheError::Unavailable("a mark is owed".to_owned()))
        } else {
            self.0.cache.get(&key).await
        };
        let expected = match seen {
            Ok(None) => None,
            Ok(Some(entry)) if entry.value.first() == Some(&RECORD) => match self.decode(&entry) {
                Some(record) => {
                    self.count("hit");
                    return Ok(Some(record));
                }
                // Another shape: to be replaced.
                None => Some(entry.version),
            },
            Ok(Some(_mark)) => {
                self.count("miss");
                return load().await;
            }
            Err(_) => {
                self.count("error");
                return load().await;
            }
        };
        self.count("miss");
        let ticket = self.0.cache.update(&key, expected, FILLING, FILL_HOLD).await.unwrap_or_default();
        let loaded = load().await?;
        // A mark that is owed since then does not stand in the way of the ticket.
        let ticket = ticket.filter(|_| !self.owed().contains(&key));
        if let (Some(ticket), Some(record)) = (ticket, &loaded)
            && let Some(value) = self.encode(record)
            && let Err(e) = self.0.cache.update(&key, Some(ticket), &value, self.0.ttl).await
        {
            tracing::debug!(cache = self.0.name, error = %e, "record not cached");
        }
        Ok(loaded)
    }

    /// Marks the record as being written. To be awaited before the store is written to.
    pub async fn begin(&self, id: &str) -> Mark {
        let key = self.key(id);
        let standing = match self.mark(&key).await {
            Ok(Some(version)) => Standing::Own(version),
            Ok(None) => Standing::Contested,
            Err(_) => Standing::Missing,
        };
        Mark { through: self.clone(), key, standing }
    }

    async fn mark(&self, key: &str) -> Result<Option<Version>, CacheError> {
        let cache = &self.0.cache;
        for _ in 0..MARK_TRIES {
            let seen = cache.get(key).await?;
            if seen.as_ref().is_some_and(|e| e.value == WRITING || e.value == CONTESTED) {
                break;
            }
            let expected = seen.map(|e| e.version);
            if let Some(version) = cache.update(key, expected, WRITING, WRITE_HOLD).await? {
                return Ok(Some(version));
            }
        }
        cache.set(key, CONTESTED, WRITE_HOLD).await.map(|()| None)
    }

    fn key(&self, id: &str) -> String {
        format!("{}:{id}", self.0.name)
    }

    fn encode(&self, record: &impl Serialize) -> Option<Vec<u8>> {
        let mut value = vec![RECORD, self.0.shape];
        serde_json::to_writer(&mut value, record).ok()?;
        Some(value)
    }

    fn decode<T: DeserializeOwned>(&self, entry: &Entry) -> Option<T> {
        let (head, json) = entry.value.split_first_chunk::<2>()?;
        if *head != [RECORD, self.0.shape] {
            return None;
        }
        serde_json::from_slice(json).ok()
    }

    fn count(&self, result: &'static str) {
        metrics::counter!(CACHE_LOOKUPS, "cache" => self.0.name, "result" => result).increment(1);
    }

    fn owed(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a mark that could not be made, and sees to it that it is paid.
    fn owe(&self, key: String) {
        metrics::counter!(CACHE_WRITE_FAILURES, "cache" => self.0.name).increment(1);
        let mut owed = self.owed();
        if owed.len() >= OWED_MAX {
            tracing::warn!(cache = self.0.name, key, "too many marks are owed, this record may be read stale");
            return;
        }
        let first = owed.is_empty();
        owed.insert(key);
        drop(owed);
        if !first {
            return;
        }
        tracing::warn!(cache = self.0.name, "the cache is away, records written meanwhile are marked when it is back");
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(self.clone().pay())),
            Err(e) => tracing::warn!(cache = self.0.name, error = %e, "marks cannot be paid"),
        }
    }

    async fn pay(self) {
        loop {
            tokio::time::sleep(PAY_EVERY).await;
            let keys: Vec<String> = self.owed().iter().cloned().collect();
            for key in keys {
                if self.0.cache.set(&key, CONTESTED, WRITE_HOLD).await.is_err() {
                    break;
                }
                let mut owed = self.owed();
                owed.remove(&key);
                if owed.is_empty() {
                    tracing::info!(cache = self.0.name, "the cache is back, every record is marked");
                    return;
                }
            }
        }
    }
}

impl Mark {
    /// Ends the write: `record` is what the store now holds, none if that is not known or nothing is there. To be awaited before
    /// anybody is told of the write.
    pub async fn end<T: Serialize>(mut self, record: Option<&T>) {
        let Inner { cache, ttl, .. } = &*self.through.0;
        if let (Standing::Own(version), Some(value)) = (&self.standing, record.and_then(|r| self.through.encode(r)))
            && let Ok(Some(_)) = cache.update(&self.key, Some(*version), &value, *ttl).await
        {
            self.standing = Standing::Settled;
            return;
        }
        // The mark is not ours alone, may have run out, or stands for a record that is gone: marked once more, it cannot be that
        // somebody cached what was there before.
        self.standing = match cache.set(&self.key, CONTESTED, WRITE_HOLD).await {
            Ok(()) => Standing::Settled,
            Err(_) => Standing::Missing,
        };
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if matches!(self.standing, Standing::Missing) {
            self.through.owe(std::mem::take(&mut self.key));
        }
    }
}
