//! `scheduled_cleanup_task`: removes finished jobs past their retention, now instead of at the scheduler's next pass.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Deps;
use crate::jobs::{
    authority::KindRight,
    context::JobContext,
    kind::{JobKind, KindOptions, Outcome},
    model::JobError,
    retention::{Rule, sweep},
};

pub(super) struct Cleanup(Deps);

impl Cleanup {
    pub(super) fn new(deps: Deps) -> Self {
        Self(deps)
    }
}

/// Ages other than those of the configuration.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CleanupPayload {
    /// Removes succeeded and cancelled jobs that ended this many seconds ago; `jobs.retention` if not given.
    finished_older_than: Option<u32>,
    /// Removes dead letters that ended this many seconds ago; `jobs.dead_retention` if not given.
    failed_older_than: Option<u32>,
}

impl JobKind for Cleanup {
    const NAME: &'static str = "scheduled_cleanup_task";
    type Payload = CleanupPayload;

    fn options(&self) -> KindOptions {
        KindOptions {
            description: "Removes finished jobs and dead letters that are older than their retention.",
            queue: Some("scheduled"),
            example: r#"{"finished_older_than":604800}"#,
            // It removes what others submitted, and with an age of 0 all of it.
            right: KindRight::Queues,
            ..KindOptions::default()
        }
    }

    async fn run(&self, ctx: JobContext, payload: CleanupPayload) -> Outcome {
        let or = |given: Option<u32>, else_: Duration| given.map_or(else_, |s| Duration::from_secs(u64::from(s)));
        let Deps { store, clock, retention } = &self.0;
        let rule = Rule {
            finished: or(payload.finished_older_than, retention.finished),
            failed: or(payload.failed_older_than, retention.failed),
            batch: retention.batch,
        };
        match sweep(store.as_ref(), clock, &rule, || ctx.is_cancelled()).await {
            Ok(_) if ctx.is_cancelled() => Outcome::Cancel,
            Ok(removed) => Outcome::done(&serde_json::json!({ "removed": removed })),
            Err(e) => Outcome::Retry(JobError::new("store", e.to_string())),
        }
    }
}
