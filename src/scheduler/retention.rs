//! Removes what is past its retention.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Deps, Options, counted, pause};
use crate::{
    base::store::StoreError,
    jobs::retention::{Rule, sweep},
};

pub(super) async fn run(deps: Arc<Deps>, options: Arc<Options>, stop: CancellationToken) {
    loop {
        let rule = Rule { finished: options.retention, failed: options.dead_retention, batch: options.batch };
        let removed = sweep(deps.store.as_ref(), &deps.clock, &rule, || stop.is_cancelled()).await;
        counted("retention", removed.map(|n| usize::try_from(n).unwrap_or(usize::MAX)));
        while counted("records", expired(&deps, &options).await) >= options.batch && !stop.is_cancelled() {}
        if !pause(&stop, options.retention_every).await {
            return;
        }
    }
}

async fn expired(deps: &Deps, options: &Options) -> Result<usize, StoreError> {
    let removed = deps.records.expire(deps.clock.now(), options.batch).await?;
    Ok(usize::try_from(removed).unwrap_or(usize::MAX))
}
