//! Makes the process's clock follow that of the database server.
//!
//! A lease is written by one host and judged by another. If each went by its own clock, a scheduler half a minute ahead
//! would take every job from its live worker, again and again. So all processes of a fleet go by the one clock they share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    base::{
        clock::{Clock, Timestamp},
        store::StoreError,
    },
    jobs::store::FleetStore,
};

/// Between two questions for the time.
const EVERY: Duration = Duration::from_secs(10);
/// Between looks whether the clock leapt, and between questions until the first answer.
const TICK: Duration = Duration::from_secs(1);
/// An answer that took longer says too little about the present moment.
const PATIENCE: Duration = Duration::from_secs(2);
/// A host that is wrong by this much deserves a line in the log.
const WORTH_TELLING_MS: u64 = 1000;

/// Knows whether the clock can be trusted.
#[derive(Clone)]
pub(super) struct Timekeeper(watch::Receiver<bool>);

impl Timekeeper {
    /// Asks for the time once and goes on asking until `stop`.
    pub(super) async fn start(clock: Clock, fleet: Arc<dyn FleetStore>, stop: CancellationToken) -> Self {
        let known = ask(&clock, fleet.as_ref()).await;
        let (tx, rx) = watch::channel(known);
        tokio::spawn(keep(clock, fleet, tx, stop));
        Self(rx)
    }

    /// For a store that has no clock but this host's.
    pub(super) fn alone() -> Self {
        Self(watch::channel(true).1)
    }

    /// Returns when the database has told the time: before that, leases must neither be written nor judged.
    pub(super) async fn known(&mut self) {
        if self.0.wait_for(|known| *known).await.is_err() {
            // The process is stopping.
            std::future::pending::<()>().await;
        }
    }
}

async fn keep(clock: Clock, fleet: Arc<dyn FleetStore>, known: watch::Sender<bool>, stop: CancellationToken) {
    let mut asked_at = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        let is_known = *known.borrow();
        if is_known && asked_at.elapsed() < EVERY && !clock.leapt() {
            continue;
        }
        if ask(&clock, fleet.as_ref()).await {
            asked_at = Instant::now();
            if !is_known {
                known.send_replace(true);
            }
        }
    }
}

/// Whether the clock is right now.
async fn ask(clock: &Clock, fleet: &dyn FleetStore) -> bool {
    let started = Instant::now();
    let answer: Result<Option<Timestamp>, StoreError> = match tokio::time::timeout(PATIENCE, fleet.clock()).await {
        Ok(answer) => answer,
        Err(_) => return false,
    };
    match answer {
        Ok(Some(time)) => {
            let ms = clock.follow(time, started.elapsed());
            if ms.unsigned_abs() >= WORTH_TELLING_MS {
                tracing::warn!(
                    corrected_by_ms = ms,
                    "the clock of this host differs from the database's, going by that one"
                );
            }
            true
        }
        Ok(None) => true,
        Err(e) => {
            tracing::debug!(error = %e, "the database did not tell the time");
            false
        }
    }
}
