//! The cache port: small values that may be gone at any time, counters, rate limits, and one atomic state update.
//!
//! Nothing here is the only copy of anything. A cache that is away costs speed and precision of limits, never an
//! answer: its errors are [`CacheError::Unavailable`], come in bounded time, and callers treat them as a miss.
//!
//! Contract, proved for each adapter by `tests/it/conformance/cache.rs`:
//! - What is written is seen by every process that uses the same server and prefix as soon as the call has answered.
//! - A value is gone after its time to live, at the latest; it may be gone before, if memory is short.
//! - [`Cache::set`] replaces value and time to live. [`Cache::delete`] removes whatever stands under a key.
//! - [`Cache::update`] writes only if the entry still has the expected [`Version`]; of several callers that expect the
//!   same version one succeeds. A version never comes again, not even after a deletion.
//! - [`Cache::increment`] loses no increment; the count ends with its window, which begins at its first increment.
//! - [`Cache::admit`] never admits more than its [`Rate`], however many processes ask.
//! - A key is used for one thing: a value, a count or a limit.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::base::{clock::Clock, error::Kind, probe::Probe};

mod memory;
mod redis;
mod through;

pub use through::{Mark, Through};

/// Why a cache did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// The cache cannot be reached or refuses to work; to a caller, a miss.
    #[error("the cache is not available: {0}")]
    Unavailable(String),
    /// The cache's URL cannot be used.
    #[error("{0}")]
    Url(String),
}

impl CacheError {
    /// The closed kind of this error.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Unavailable(_) => Kind::Unavailable,
            Self::Url(_) => Kind::Invalid,
        }
    }
}

/// Tells one writing of an entry from every other. Drawn at random, so that no adapter has to remember those that
/// are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(u64);

impl Version {
    fn fresh() -> Self {
        Self(fastrand::u64(..))
    }
}

/// A value and the version that [`Cache::update`] expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What was written.
    pub value: Vec<u8>,
    /// Which writing it was.
    pub version: Version,
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So often at once, after a pause; at least 1.
    pub burst: u32,
    /// After that, once in this time; at least 1 ms.
    pub every: Duration,
}

/// What a rate limit answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may happen, and is counted.
    Allowed,
    /// It may not, and is not counted; asking again makes sense after this time.
    RetryAfter(Duration),
}

/// Short-lived state, seen by every process that uses the same server.
#[async_trait]
pub trait Cache: Probe {
    /// The value under `key`, if there is one.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`], in bounded time; so for every operation.
    async fn get(&self, key: &str) -> Result<Option<Entry>, CacheError>;

    /// Writes a value, whatever stood there.
    ///
    /// # Errors
    /// As [`Cache::get`]; after one, the value may or may not be there.
    async fn set(&self, key: &str, value: &[u8], ttl: Duration) -> Result<(), CacheError>;

    /// Removes what stands under these keys. Keys that hold nothing do no harm.
    ///
    /// # Errors
    /// As [`Cache::get`]; after one, some may be gone.
    async fn delete(&self, keys: &[&str]) -> Result<(), CacheError>;

    /// Writes a value if the entry has the version `expected` (`None`: if there is no entry), and answers the new version;
    /// `None` if it was refused. A circuit breaker that all workers share is one entry that is changed this way.
    ///
    /// # Errors
    /// As [`Cache::get`]; after one, the value may or may not be there. A write whose answer was lost may be told as
    /// refused.
    async fn update(
        &self,
        key: &str,
        expected: Option<Version>,
        value: &[u8],
        ttl: Duration,
    ) -> Result<Option<Version>, CacheError>;

    /// Adds to a count and answers the sum. The first increment opens a window; at its end the count is gone.
    ///
    /// # Errors
    /// As [`Cache::get`]; after one, the increment may or may not be counted.
    async fn increment(&self, key: &str, by: u32, window: Duration) -> Result<u64, CacheError>;

    /// Asks a rate limit (GCRA: a bucket of `burst` that drips once in `every`, kept as a single point in time).
    ///
    /// # Errors
    /// As [`Cache::get`].
    async fn admit(&self, key: &str, rate: Rate) -> Result<Admission, CacheError>;
}

/// What a cache is opened with besides its URL.
#[derive(Clone)]
pub struct Options {
    /// Begins every key on a shared server.
    pub prefix: String,
    /// Most entries of the in-process cache.
    pub max_entries: u64,
    /// Most bytes of the in-process cache, keys and book-keeping included.
    pub max_bytes: u64,
    /// Time of the in-process cache; a server has its own.
    pub clock: Clock,
}

/// Opens the cache that `url` names. A server is connected to at the first use.
///
/// # Errors
/// A sentence, if the URL cannot be used.
pub fn connect(url: &str, options: Options) -> Result<Arc<dyn Cache>, CacheError> {
    match url.split_once("://") {
        Some(("memory", "")) => Ok(Arc::new(memory::Memory::new(options))),
        Some(("memory", rest)) => {
            Err(CacheError::Url(format!("cache.url is `memory://{rest}`, but nothing may follow `memory://`")))
        }
        Some(("redis", _)) => Ok(Arc::new(redis::Redis::new(url, &options.prefix)?)),
        _ => {
            let url = crate::config::show::mask_url(url);
            Err(CacheError::Url(format!("cache.url is `{url}`, but its scheme must be one of: memory, redis")))
        }
    }
}

/// Whether several processes that use this URL share one cache. Only then may it hold what others write.
#[must_use]
pub fn is_shared(url: &str) -> bool {
    !url.starts_with("memory:")
}
