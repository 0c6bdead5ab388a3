//! Which queues are paused, as claims see it.
//!
//! Nearly always none is, and asking before every claim costs the server as much as a job or two. So that nothing is
//! paused is remembered for a moment, and whoever pauses a queue is answered only when that moment is over for
//! everybody: from then on nothing starts. A pause is never remembered, so that nothing waits for one that is over.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::mongodb::bson::{Document, doc};
use futures_util::TryStreamExt;
use tokio::time::Instant;

use super::{Ready, fault::Fault};
use crate::base::id::QueueName;

/// How long it is remembered that nothing was paused.
const REMEMBERED: Duration = Duration::from_millis(200);
/// As long, and as a worker keeps what it has claimed before it begins (150 ms).
const ANSWERED: Duration = Duration::from_millis(400);

/// When it was last asked and nothing was paused.
#[derive(Clone, Default)]
pub(super) struct Pauses(Arc<Mutex<Option<Instant>>>);

impl Pauses {
    fn none_since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, none_at: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = none_at;
    }
}

impl Ready {
    /// The queues that are paused.
    pub(super) async fn paused(&self) -> Result<Vec<String>, Fault> {
        let queues = self.durable.collection::<Document>("queues");
        let paused: Vec<Document> = queues.find(doc! { "paused": true }).await?.try_collect().await?;
        Ok(paused.iter().filter_map(|d| d.get_str("_id").ok().map(str::to_owned)).collect())
    }

    /// The same for a claim that begins now.
    pub(super) async fn paused_for_claims(&self) -> Result<Vec<String>, Fault> {
        if self.pauses.none_since().is_some_and(|at| at.elapsed() < REMEMBERED) {
            return Ok(Vec::new());
        }
        self.ask_for_pauses().await
    }

    /// Asks again before what is remembered grows too old for the claim that is under way. If it fails, that claim asks itself.
    pub(super) async fn look_for_pauses(&self) {
        if self.pauses.none_since().is_some_and(|at| at.elapsed() < REMEMBERED / 2) {
            return;
        }
        if let Err(e) = self.ask_for_pauses().await {
            tracing::debug!(error = %e, "paused queues not read ahead of a claim's end");
        }
    }

    /// From before it is asked: a pause that was written since may not be in the answer.
    async fn ask_for_pauses(&self) -> Result<Vec<String>, Fault> {
        let asked = Instant::now();
        let paused = self.paused().await?;
        self.pauses.remember(paused.is_empty().then_some(asked));
        Ok(paused)
    }

    pub(super) async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<(), Fault> {
        let queues = self.durable.collection::<Document>("queues");
        let set = doc! { "$set": { "paused": paused } };
        queues.update_one(doc! { "_id": queue.as_str() }, set).upsert(true).await?;
        if paused {
            self.pauses.remember(None);
            tokio::time::sleep(ANSWERED).await;
        }
        Ok(())
    }
}
