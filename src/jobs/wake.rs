//! Telling the broker of jobs that are stored.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::service::Jobs;
use crate::{
    broker::{BrokerError, CALL_TIMEOUT, WakeUp},
    telemetry::metrics as names,
};

/// How long a caller waits for the broker. What takes longer goes on without it.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a broker that did not answer at all is left alone: callers must not queue up behind it.
const SILENCE: Duration = Duration::from_secs(1);

impl Jobs {
    /// Publishes wake-ups of jobs that are stored. A failure is logged and counted, not returned: the jobs stand, and
    /// `scheduler::lost` publishes them later. A broker that does not answer holds nobody up for long.
    pub async fn wake(&self, wake_ups: &[WakeUp]) {
        if wake_ups.is_empty() {
            return;
        }
        let left_alone = self.broker_silent.load(Ordering::Relaxed).saturating_sub(self.clock.now().as_millis());
        // More than that is left only if the clock was corrected since.
        if (1..=SILENCE.as_millis() as i64).contains(&left_alone) {
            metrics::counter!(names::BROKER_PUBLISH_FAILURES).increment(1);
            tracing::debug!(jobs = wake_ups.len(), "wake-ups not published, the broker did not answer just now");
            return;
        }
        let (broker, silent, clock) = (Arc::clone(&self.broker), Arc::clone(&self.broker_silent), self.clock.clone());
        let wake_ups = wake_ups.to_vec();
        let mut publish = Box::pin(async move {
            let failed = match tokio::time::timeout(CALL_TIMEOUT, broker.publish(&wake_ups)).await {
                Ok(Ok(())) => return,
                // The broker has warned of the queues; wake-ups of others were published.
                Ok(Err(e @ BrokerError::Refused(_))) => {
                    metrics::counter!(names::BROKER_PUBLISH_FAILURES).increment(1);
                    tracing::debug!(error = %e, "wake-ups of refused queues not published, the scheduler will repeat them");
                    return;
                }
                Ok(Err(e)) => e.to_string(),
                Err(_) => {
                    silent.store(clock.now().plus(SILENCE).as_millis(), Ordering::Relaxed);
                    format!("no answer within {} s", CALL_TIMEOUT.as_secs())
                }
            };
            metrics::counter!(names::BROKER_PUBLISH_FAILURES).increment(1);
            tracing::warn!(
                jobs = wake_ups.len(),
                error = failed,
                "wake-ups not published, the scheduler will repeat them"
            );
        });
        if tokio::time::timeout(PATIENCE, &mut publish).await.is_err() {
            tokio::spawn(publish);
        }
    }
}
