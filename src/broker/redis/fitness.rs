//! Whether a server lets this program in and is set to keep what it is given.

use deadpool_redis::redis::{RedisError, aio::MultiplexedConnection, cmd};

use super::Inner;
use crate::{
    base::probe::Unfit,
    broker::{BrokerError, aside::Part, bounded},
    redis::{is_no_right, is_refusal},
};

/// The oldest version that has what the scripts and takes need.
const OLDEST: u32 = 7;

pub(super) async fn inspect(inner: &Inner) -> Result<Vec<String>, Unfit> {
    let unfit = |e: RedisError| {
        if is_refusal(&e) {
            Unfit::Refused(format!(
                "Redis refuses this program: {e}; check user, password and database in `broker.url`"
            ))
        } else {
            Unfit::Unavailable(format!("Redis does not answer: {e}"))
        }
    };
    let mut connection = inner.link.open().await.map_err(unfit)?;
    let mut warnings = match cmd("INFO").query_async::<String>(&mut connection).await {
        Ok(info) => judge(&info)?,
        Err(e) if is_no_right(&e) => vec![format!(
            "Redis does not say how it is set up ({e}), so nobody knows whether it keeps wake-ups; give the user in \
             `broker.url` the right to `INFO`"
        )],
        Err(e) => return Err(unfit(e)),
    };
    // To a channel that nobody hears.
    let said = cmd("PUBLISH").arg(format!("{}?", inner.bells())).arg("").query_async::<()>(&mut connection).await;
    match said {
        Err(e) if is_no_right(&e) => warnings.push(format!(
            "Redis refuses channels to this program ({e}): idle workers look for jobs only once a second, and cancels \
             and pauses reach them some seconds later; give the user in `broker.url` the channels `&app:*`"
        )),
        Err(e) => return Err(unfit(e)),
        Ok(()) => {}
    }
    Ok(warnings)
}

/// Whether something could be said to all workers. Nothing is said to them: the right to a channel is
/// the same for saying and hearing, and whether anything may be published shows at a channel that
/// nobody hears.
pub(super) async fn can_say(inner: &Inner, heard: &Result<(), BrokerError>) -> Result<(), BrokerError> {
    let mut publish = cmd("PUBLISH");
    publish.arg(format!("{}?", inner.bells())).arg("");
    let publish = &publish;
    let said = bounded(async {
        let call = |mut c: MultiplexedConnection| async move { publish.query_async::<()>(&mut c).await };
        Ok(inner.link.call(call).await)
    });
    match said.await? {
        // Other channels may be allowed than this one.
        Err(e) if is_no_right(&e) && heard.is_ok() && !e.to_string().contains("'publish'") => Ok(()),
        Err(e) => Err(inner.part_failed(Part::Saying, &e)),
        Ok(()) => Ok(()),
    }
}

/// Judges a server by what it tells about itself.
fn judge(info: &str) -> Result<Vec<String>, Unfit> {
    let field = |name: &str| info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let version = field("redis_version").unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < OLDEST) {
        return Err(Unfit::Refused(format!(
            "this Redis is version {version}, but {OLDEST}.0 is the oldest that works"
        )));
    }
    let mut warnings = Vec::new();
    if field("aof_enabled") == Some("0") {
        warnings.push(
            "Redis has `appendonly no`: a restart forgets every wake-up, and waiting jobs are delayed until the \
             scheduler has published them again; set `appendonly yes`"
                .to_owned(),
        );
    }
    if let Some(policy) = field("maxmemory_policy").filter(|p| *p != "noeviction") {
        warnings.push(format!(
            "Redis has `maxmemory-policy {policy}`, which may throw away wake-ups when memory runs out; set \
             `maxmemory-policy noeviction`"
        ));
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused_and_forgetful_settings_named() {
        let good = "# Server\r\nredis_version:7.0.15\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!(judge(good), Ok(Vec::new()));
        assert!(matches!(judge("redis_version:6.2.1\r\n"), Err(Unfit::Refused(why)) if why.contains("6.2.1")));
        let bad = judge("redis_version:8.2.0\r\naof_enabled:0\r\nmaxmemory_policy:allkeys-lru\r\n").unwrap();
        assert!(bad[0].contains("appendonly yes") && bad[1].contains("allkeys-lru"), "{bad:?}");
    }
}
