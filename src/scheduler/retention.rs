//! Removes what is past its retention.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Deps, Options, counted, pause};
use crate::jobs::retention::{Rule, sweep};

pub(super) async fn run(deps: Arc<Deps>, options: Arc<Options>, stop: CancellationToken) {
    loop {
        let rule = Rule { finished: options.retention, failed: options.dead_retention, batch: options.batch };
        let removed = sweep(deps.store.as_ref(), &deps.clock, &rule, || stop.is_cancelled()).await;
        counted("retention", removed.map(|n| usize::try_from(n).unwrap_or(usize::MAX)));
        if !pause(&stop, options.retention_every).await {
            return;
        }
    }
}
