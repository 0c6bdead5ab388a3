//! The cache on a Redis server, shared by every process that uses the same server and prefix.
//!
//! | key `<prefix>:<key>` | holds |
//! |---|---|
//! | a value | a string: 8 bytes version, then the value; expires |
//! | a count | a decimal number; expires at its window's end |
//! | a limit | a decimal number: microseconds since 1970 up to which it is used up; expires then |
//!
//! Each command and each script has one key, so that a cluster works, too. Scripts are loaded again when the server has
//! forgotten them. One connection carries all calls, pipelined ([`Link`]): nothing here blocks, so a pool would only add a check
//! at each taking.

use std::{sync::LazyLock, time::Duration};

use async_trait::async_trait;
use deadpool_redis::redis::{
    self, Cmd, FromRedisValue, RedisError, Script, ScriptInvocation, aio::MultiplexedConnection,
};

use super::{Admission, Cache, CacheError, Entry, Rate, Version};
use crate::{
    base::probe::{Probe, Unfit},
    config::show::mask_url,
    redis::{Link, Settings, is_refusal},
};

/// How long one call may take in all, with connecting and one repetition. A caller that waits longer for its cache than for
/// its store has no use of it.
const CALL_TIMEOUT: Duration = Duration::from_millis(500);
/// Oldest version that works.
const MIN_MAJOR: u32 = 7;

/// KEYS: the entry. ARGV: expected version (empty: no entry), new version, value, time to live in ms.
/// Returns 1 if written, else 0.
static UPDATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then return 0 end
         redis.call('SET', KEYS[1], ARGV[2] .. ARGV[3], 'PX', ARGV[4])
         return 1",
    )
});

/// KEYS: the count. ARGV: increment, window in ms. Returns the sum.
static INCREMENT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local sum = redis.call('INCRBY', KEYS[1], ARGV[1])
         redis.call('PEXPIRE', KEYS[1], ARGV[2], 'NX')
         return sum",
    )
});

/// KEYS: the limit. ARGV: microseconds for one, burst. Returns 0 if admitted, else the microseconds to wait.
/// The server's clock is the only one, so that processes need not agree on theirs.
static ADMIT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME')
         local now = time[1] * 1000000 + time[2]
         local used = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
         local till = used + ARGV[1]
         local wait = till - ARGV[1] * ARGV[2] - now
         if wait > 0 then return wait end
         redis.call('SET', KEYS[1], string.format('%.0f', till), 'PX', math.ceil((till - now) / 1000))
         return 0",
    )
});

pub(super) struct Redis {
    link: Link,
    /// For sentences, without its password.
    url: String,
    prefix: String,
}

enum Call<'a> {
    Cmd(&'a Cmd),
    Script(&'a ScriptInvocation<'a>),
}

impl Redis {
    pub(super) fn new(url: &str, prefix: &str) -> Result<Self, CacheError> {
        let masked = mask_url(url);
        let settings = Settings { connect: CALL_TIMEOUT, response: CALL_TIMEOUT, pushes: false };
        let link = Link::new(url, settings)
            .map_err(|e| CacheError::Url(format!("cache.url `{masked}` cannot be used: {e}")))?;
        Ok(Self { link, url: masked, prefix: prefix.to_owned() })
    }

    fn key(&self, key: &str) -> String {
        format!("{}:{key}", self.prefix)
    }

    async fn call<T: FromRedisValue + Send>(&self, call: Call<'_>) -> Result<T, CacheError> {
        let call = &call;
        let answer = self.link.call(|mut connection: MultiplexedConnection| async move {
            match call {
                Call::Cmd(cmd) => cmd.query_async(&mut connection).await,
                Call::Script(script) => script.invoke_async(&mut connection).await,
            }
        });
        match tokio::time::timeout(CALL_TIMEOUT, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(CacheError::Unavailable(e.to_string())),
            Err(_) => {
                // Whatever it waits for, a new connection is not worse.
                self.link.reset();
                Err(CacheError::Unavailable(format!("{} gave no answer within {CALL_TIMEOUT:?}", self.url)))
            }
        }
    }

    /// The sentence for an error at the start, and whether time can mend it.
    fn unfit(&self, e: &RedisError) -> Unfit {
        let url = &self.url;
        if is_refusal(e) {
            Unfit::Refused(format!(
                "Redis at `{url}` refuses the user or password in cache.url ({})",
                e.detail().unwrap_or("no reason given")
            ))
        } else {
            Unfit::Unavailable(format!("Redis at `{url}` does not answer: {e}"))
        }
    }
}

#[async_trait]
impl Probe for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn check(&self) -> Result<(), String> {
        self.call::<()>(Call::Cmd(&redis::cmd("PING"))).await.map_err(|e| e.to_string())
    }

    /// Memory policy and persistence are no matter here: a cache may forget.
    async fn inspect(&self) -> Result<Vec<String>, Unfit> {
        let mut connection = self.link.open().await.map_err(|e| self.unfit(&e))?;
        redis::cmd("PING").query_async::<()>(&mut connection).await.map_err(|e| self.unfit(&e))?;
        // Whoever may not ask for the version is let in: the first script tells.
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.unwrap_or_default();
        let version = info.lines().find_map(|l| l.strip_prefix("redis_version:")).unwrap_or_default();
        match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
            Some(major) if major < MIN_MAJOR => Err(Unfit::Refused(format!(
                "Redis at `{}` is version {version}, but cache.url needs {MIN_MAJOR}.0 or newer",
                self.url
            ))),
            _ => Ok(Vec::new()),
        }
    }
}

#[async_trait]
impl Cache for Redis {
    async fn get(&self, key: &str) -> Result<Option<Entry>, CacheError> {
        let stored: Option<Vec<u8>> = self.call(Call::Cmd(redis::cmd("GET").arg(self.key(key)))).await?;
        Ok(stored.and_then(|bytes| {
            let (version, value) = bytes.split_first_chunk::<8>()?;
            Some(Entry { value: value.to_vec(), version: Version(u64::from_le_bytes(*version)) })
        }))
    }

    async fn set(&self, key: &str, value: &[u8], ttl: Duration) -> Result<(), CacheError> {
        let stored = [&Version::fresh().0.to_le_bytes()[..], value].concat();
        self.call(Call::Cmd(redis::cmd("SET").arg(self.key(key)).arg(stored).arg("PX").arg(millis(ttl)))).await
    }

    async fn delete(&self, keys: &[&str]) -> Result<(), CacheError> {
        for key in keys {
            self.call::<()>(Call::Cmd(redis::cmd("UNLINK").arg(self.key(key)))).await?;
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
        let expected = expected.map(|v| v.0.to_le_bytes().to_vec()).unwrap_or_default();
        let mut script = UPDATE.prepare_invoke();
        script.key(self.key(key)).arg(expected).arg(&version.0.to_le_bytes()[..]).arg(value).arg(millis(ttl));
        let written: bool = self.call(Call::Script(&script)).await?;
        Ok(written.then_some(version))
    }

    async fn increment(&self, key: &str, by: u32, window: Duration) -> Result<u64, CacheError> {
        let mut script = INCREMENT.prepare_invoke();
        script.key(self.key(key)).arg(by).arg(millis(window));
        self.call(Call::Script(&script)).await
    }

    async fn admit(&self, key: &str, rate: Rate) -> Result<Admission, CacheError> {
        let every = u64::try_from(rate.every.as_micros()).unwrap_or(u64::MAX).max(1000);
        let mut script = ADMIT.prepare_invoke();
        script.key(self.key(key)).arg(every).arg(rate.burst.max(1));
        Ok(match self.call::<u64>(Call::Script(&script)).await? {
            0 => Admission::Allowed,
            wait => Admission::RetryAfter(Duration::from_micros(wait)),
        })
    }
}

fn millis(d: Duration) -> u64 {
    // Redis adds its own present, which must not overflow; a century is for ever to a cache.
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX).clamp(1, 100 * 365 * 86_400_000)
}
