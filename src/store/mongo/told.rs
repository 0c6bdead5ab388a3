//! Ends of jobs that somebody listens to: the change and its event in one transaction.
//!
//! This is dearer than the way of other ends, and only taken while a rule listens to them.

use ::mongodb::{
    ClientSession,
    bson::{Document, doc},
};
use async_trait::async_trait;

use super::{Ready, doc::JobDoc, fault::Fault, records::event_docs, together::Together};
use crate::{events::Event, jobs::state::State};

/// One end and its event.
pub(super) struct ToldEnd {
    only_if: Document,
    change: Document,
    state: State,
    event: Vec<JobDoc>,
}

impl ToldEnd {
    pub(super) fn new<'a>(
        only_if: Document,
        change: Document,
        state: State,
        event: impl IntoIterator<Item = &'a Event>,
    ) -> Result<Self, Fault> {
        Ok(Self { only_if, change, state, event: event_docs(event)? })
    }
}

#[async_trait]
impl Together for Vec<ToldEnd> {
    type Done = Vec<Option<State>>;

    async fn write(&self, ready: &Ready, session: &mut ClientSession) -> Result<(Self::Done, bool), Fault> {
        let mut states = Vec::with_capacity(self.len());
        for end in self {
            let changed =
                ready.jobs().update_one(end.only_if.clone(), end.change.clone()).session(&mut *session).await?;
            if changed.matched_count == 1 {
                ready.jobs().insert_many(&end.event).session(&mut *session).await?;
                states.push(Some(end.state));
                continue;
            }
            // The answer of an earlier try may have been lost: then its event, whose id is this run's alone, is there.
            let ids: Vec<_> = end.event.iter().map(|e| e.id).collect();
            let there = ready.jobs().find_one(doc! { "_id": { "$in": ids } }).session(&mut *session).await?;
            states.push(there.map(|_| end.state));
        }
        Ok((states, true))
    }
}

impl Ready {
    /// Writes ends and their events; answers the new state of each, none where the job was no longer that run's.
    pub(super) async fn tell(&self, ends: Vec<ToldEnd>) -> Result<Vec<Option<State>>, Fault> {
        self.together(&ends).await
    }
}
