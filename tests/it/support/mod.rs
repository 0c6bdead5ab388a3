//! What the tests share: adapters opened afresh, jobs to put into them, a whole app in a directory of its own, and
//! waiting for a condition.

pub(crate) mod adapters;
pub(crate) mod app;
pub(crate) mod exim;
pub(crate) mod fleet;
pub(crate) mod jobs;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod server;
pub(crate) mod servers;

use std::time::Duration;

/// After this long a condition that has not come true never will. Only a failing test ever waits for it.
const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(3);

/// Waits until `look` finds something and answers it.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, look).await
}

/// The same with a deadline of its own, for what rightly takes longer.
pub(crate) async fn eventually_within<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        // A look that hangs is no reason to wait for ever.
        if let Ok(Some(found)) = tokio::time::timeout_at(deadline, look()).await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until `condition` holds.
pub(crate) async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually(what, async || condition().await.then_some(())).await;
}

/// Awaits what must come by itself, with the deadline of [`eventually`].
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain: {what}"),
    }
}
