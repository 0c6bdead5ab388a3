//! One suite for each port, run over every adapter against the real thing: each case is one named test per adapter,
//! and a new adapter is one line at the end of the suite.
//!
//! There are no capability flags and no skips: what is in no suite is not promised.

mod broker;
mod cache;
mod cache_away;
mod fixture;
mod fleet;
mod items;
mod jobs;
mod records;

/// Makes one test of each case of a suite for one adapter: a fresh fixture, the case, and what must hold after any case.
macro_rules! suite {
    ($adapter:ident, $open:path, $suite:ident, $fixture:path, { $($group:ident: [$($case:ident),+ $(,)?]),+ $(,)? }) => {
        mod $adapter {
            $(mod $group {
                use $crate::conformance::{$suite::$group as cases, fixture};
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        let mut fixture = $fixture($open().await);
                        cases::$case(&mut fixture).await;
                        fixture.check().await;
                    }
                )+
            })+
        }
    };
}
pub(crate) use suite;
