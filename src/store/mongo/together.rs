//! Several writes in one step: transactions, tried again when they meet one another.

use std::time::Duration;

use ::mongodb::ClientSession;
use async_trait::async_trait;

use super::{Ready, durable, fault::Fault};
use crate::base::backoff::Backoff;

/// Between attempts at a transaction that met another one.
const AGAIN: Backoff = Backoff { base_ms: 4, cap_ms: 250 };

/// What is to be written in one step. A trait and not a closure, because it is run again as often as needed.
#[async_trait]
pub(super) trait Together: Sync {
    /// What becomes of it.
    type Done: Send;

    /// Writes all of it; answers what became of it, and whether to keep it.
    async fn write(&self, ready: &Ready, session: &mut ClientSession) -> Result<(Self::Done, bool), Fault>;
}

impl Ready {
    /// Runs `work` in a transaction, again if it met another one; commits if it says so.
    pub(super) async fn together<T: Together>(&self, work: &T) -> Result<T::Done, Fault> {
        if !self.transactions {
            return Err(Fault::Unfit(
                "MongoDB runs without a replica set, so it cannot store several things at once, which jobs in bulk or with an \
                 Idempotency-Key and events need: start it with --replSet"
                    .to_owned(),
            ));
        }
        let mut session = self.durable.client().start_session().await?;
        let mut attempt = 0;
        loop {
            session.start_transaction().write_concern(durable()).await?;
            let done = match work.write(self, &mut session).await {
                Ok((done, true)) => commit(&mut session).await.map(|()| done),
                other => {
                    // The server ends it by itself if this does not reach it.
                    if let Err(e) = session.abort_transaction().await {
                        tracing::debug!(error = %e, "transaction not aborted");
                    }
                    other.map(|(done, _)| done)
                }
            };
            match done {
                Err(e) if e.is_transient() => {
                    tracing::debug!(error = %e, attempt, "transaction met another one");
                    tokio::time::sleep(AGAIN.delay(attempt).max(Duration::from_millis(1))).await;
                    attempt = attempt.saturating_add(1);
                }
                done => return done,
            }
        }
    }
}

/// Commits; a commit whose answer was lost is asked for again, which the server understands.
async fn commit(session: &mut ClientSession) -> Result<(), Fault> {
    for attempt in 0_u32..5 {
        match session.commit_transaction().await {
            Ok(()) => return Ok(()),
            Err(e) => {
                let e = Fault::from(e);
                if e.is_transient() || !e.is_unknown() {
                    return Err(e);
                }
                tokio::time::sleep(AGAIN.delay(attempt).max(Duration::from_millis(1))).await;
            }
        }
    }
    Ok(session.commit_transaction().await?)
}
