//! Shows the queues in `/metrics`: depth by state, age of the oldest, paused or not.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Deps, pause};
use crate::{base::id::QueueName, telemetry::metrics as names};

const EVERY: Duration = Duration::from_secs(5);

pub(super) async fn run(deps: Arc<Deps>, stop: CancellationToken) {
    let mut shown: HashSet<QueueName> = HashSet::new();
    loop {
        match deps.jobs.queues().await {
            Ok(queues) => {
                let mut gone = std::mem::take(&mut shown);
                for q in queues {
                    let (name, c) = (q.state.name, q.state.counts);
                    let age = q.state.oldest.map_or(0.0, |at| deps.clock.now().since(at).as_secs_f64());
                    set(&name, [c.scheduled, c.queued, c.running, c.failed], age, q.state.paused);
                    gone.remove(&name);
                    shown.insert(name);
                }
                for name in gone {
                    set(&name, [0; 4], 0.0, false);
                }
            }
            Err(e) => tracing::warn!(error = %e, "queue gauges not updated"),
        }
        if !pause(&stop, EVERY).await {
            return;
        }
    }
}

fn set(queue: &QueueName, counts: [u64; 4], age: f64, paused: bool) {
    for (state, n) in ["scheduled", "queued", "running", "failed"].into_iter().zip(counts) {
        metrics::gauge!(names::QUEUE_JOBS, "queue" => queue.to_string(), "state" => state).set(n as f64);
    }
    metrics::gauge!(names::QUEUE_OLDEST_AGE, "queue" => queue.to_string()).set(age);
    metrics::gauge!(names::QUEUE_PAUSED, "queue" => queue.to_string()).set(f64::from(u8::from(paused)));
}
