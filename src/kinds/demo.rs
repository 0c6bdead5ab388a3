//! Kinds to try the system with: real CPU work that reports progress and stops when told to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::jobs::{
    context::JobContext,
    kind::{JobKind, KindOptions, Outcome},
    model::Progress,
};

/// Hashes in one iteration of `process_heavy_task`: about a tenth of a second on one core of 2026. An unoptimised build
/// hashes some twenty times slower and does as many times fewer.
const HEAVY_ROUNDS: u32 = if cfg!(debug_assertions) { 95_000 } else { 1_900_000 };
/// Hashes for one input of `batch_process_task`.
const BATCH_ROUNDS: u32 = 100_000;
/// Hashes between two looks at whether to stop: well under a millisecond.
const ROUNDS_BETWEEN_LOOKS: u32 = 4096;

/// A SHA-256 chain over `data` and `index`; none if told to stop.
fn chain(ctx: &JobContext, data: &[u8], index: u64, rounds: u32) -> Option<String> {
    let mut digest = Sha256::new().chain_update(data).chain_update(index.to_be_bytes()).finalize();
    for round in 0..rounds {
        if round % ROUNDS_BETWEEN_LOOKS == 0 && ctx.is_cancelled() {
            return None;
        }
        digest = Sha256::digest(digest);
    }
    Some(digest.iter().map(|b| format!("{b:02x}")).collect())
}

/// What was made of one input.
#[derive(Clone, Debug, Serialize)]
struct Processed {
    index: u64,
    digest: String,
}

#[derive(Serialize)]
struct Processing {
    processed_items: Vec<Processed>,
    total_processed: usize,
}

impl Processing {
    fn of(processed_items: Vec<Processed>) -> Self {
        Self { total_processed: processed_items.len(), processed_items }
    }
}

/// `noop`: does nothing, as fast as can be.
pub(super) struct Noop;

/// Anything; it is not looked at.
#[derive(Deserialize, JsonSchema)]
pub(super) struct NoopPayload {}

impl JobKind for Noop {
    const NAME: &'static str = "noop";
    type Payload = NoopPayload;

    fn options(&self) -> KindOptions {
        KindOptions {
            description: "Does nothing. To measure with, and to try pauses, delays and priorities.",
            example: "{}",
            ..KindOptions::default()
        }
    }

    async fn run(&self, _ctx: JobContext, _payload: NoopPayload) -> Outcome {
        Outcome::Done(None)
    }
}

/// `process_heavy_task`: a chained hash for each iteration.
pub(super) struct Heavy;

/// What to work on, and how often.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HeavyPayload {
    /// Text to process.
    #[schemars(length(max = 10_000))]
    data: String,
    /// How many times, a tenth of a second each.
    #[schemars(range(min = 1, max = 10_000))]
    iterations: u64,
}

impl JobKind for Heavy {
    const NAME: &'static str = "process_heavy_task";
    type Payload = HeavyPayload;

    fn options(&self) -> KindOptions {
        KindOptions {
            description: "Processes a text again and again: CPU-bound, with progress, cancellable.",
            queue: Some("heavy"),
            example: r#"{"data":"hello","iterations":10}"#,
            ..KindOptions::default()
        }
    }

    async fn run(&self, ctx: JobContext, payload: HeavyPayload) -> Outcome {
        ctx.blocking(move |ctx| {
            let mut items = Vec::new();
            ctx.progress(0, payload.iterations);
            for index in 0..payload.iterations {
                let Some(digest) = chain(ctx, payload.data.as_bytes(), index, HEAVY_ROUNDS) else {
                    return Outcome::Cancel;
                };
                items.push(Processed { index, digest });
                ctx.progress(index + 1, payload.iterations);
            }
            Outcome::done(&Processing::of(items))
        })
        .await
    }
}

/// `batch_process_task`: a list of inputs, each with a result of its own.
pub(super) struct Batch;

/// What to work on.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchPayload {
    /// Inputs of any shape; each is processed on its own.
    #[schemars(length(min = 1, max = 1000))]
    items: Vec<Value>,
}

impl JobKind for Batch {
    const NAME: &'static str = "batch_process_task";
    type Payload = BatchPayload;

    fn options(&self) -> KindOptions {
        KindOptions {
            description: "Processes a list of inputs one by one; its progress shows the results so far.",
            queue: Some("heavy"),
            example: r#"{"items":["a",{"b":2},3]}"#,
            ..KindOptions::default()
        }
    }

    async fn run(&self, ctx: JobContext, payload: BatchPayload) -> Outcome {
        ctx.blocking(move |ctx| {
            let total = payload.items.len() as u64;
            let mut results = Vec::new();
            for (index, item) in (0..).zip(&payload.items) {
                let Some(digest) = chain(ctx, item.to_string().as_bytes(), index, BATCH_ROUNDS) else {
                    return Outcome::Cancel;
                };
                results.push(Processed { index, digest });
                let partial = serde_json::to_value(&results).ok();
                ctx.note(Progress { current: index + 1, total, message: None, partial });
            }
            Outcome::done(&Processing::of(results))
        })
        .await
    }
}
