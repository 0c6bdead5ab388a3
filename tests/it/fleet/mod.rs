//! Separate roles over MongoDB and a broker: what one process accepted, any other answers for, runs and stops.
//!
//! Each case runs over every broker.

mod backends;
mod leases;
mod refusals;
mod share;
mod talk;

/// Makes one test of each case for each broker.
macro_rules! over_each_broker {
    ($($case:ident),+ $(,)?) => {
        mod redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(crate::support::fleet::Via::Redis).await;
                }
            )+
        }
        mod rabbitmq {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(crate::support::fleet::Via::Rabbitmq).await;
                }
            )+
        }
    };
}
pub(crate) use over_each_broker;
