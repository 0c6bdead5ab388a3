//! Changes to jobs: many compare-and-sets in one `update` command, and how to know which of them happened.
//!
//! The server answers such a command with one sum. Nearly always it says that all happened. Where it does not, or where
//! the answer was lost with the connection, the documents are asked: each change leaves the number of its call in `by`.
//! For the same reason a call may be sent twice: what happened the first time no longer matches the second.

use std::collections::HashSet;

use ::mongodb::{
    Collection,
    bson::{self, Bson, Document, doc, rawdoc},
};
use futures_util::{TryStreamExt, future::try_join_all};

use super::{
    Ready,
    changes::{self, Met, Part},
    doc::ids,
    fault::Fault,
};
use crate::base::id::JobId;

/// How sure a change must be before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sure {
    /// A majority has it on disk.
    Durable,
    /// The primary has it.
    Lazy,
}

/// Names one call; what it changed bears it.
pub(super) fn call_number() -> i64 {
    fastrand::i64(..)
}

/// One or more documents to change if they are as expected.
pub(super) struct Change {
    /// Which jobs may change.
    pub(super) of: Vec<JobId>,
    /// What must hold of each, besides its id.
    pub(super) only_if: Document,
    /// The change: operators or a pipeline. Must set `by` if it goes through [`Ready::apply`].
    pub(super) change: Bson,
}

impl Change {
    pub(super) fn statement(&self) -> Document {
        let mut q = match self.of.as_slice() {
            [one] => doc! { "_id": super::doc::id(one.0) },
            many => doc! { "_id": { "$in": ids(many.iter().copied()) } },
        };
        q.extend(self.only_if.clone());
        doc! { "q": q, "u": self.change.clone(), "multi": self.of.len() > 1 }
    }
}

impl Ready {
    /// Applies changes whose jobs are all different, and answers which jobs were changed.
    pub(super) async fn apply(&self, sure: Sure, by: i64, changes: &[Change]) -> Result<HashSet<JobId>, Fault> {
        let all: HashSet<JobId> = changes.iter().flat_map(|c| c.of.iter().copied()).collect();
        if all.is_empty() {
            return Ok(all);
        }
        let statements: Vec<_> = changes.iter().map(|c| (c.statement(), c.of.len())).collect();
        let met = match self.change(sure, &statements).await {
            Err(e) if e.is_unknown() => {
                tracing::debug!(error = %e, "an answer of MongoDB was lost, asking again");
                self.change(sure, &statements).await?;
                Met::NotAll
            }
            met => met?,
        };
        if met == Met::All {
            return Ok(all);
        }
        let marked: Collection<Document> = self.durable.collection("jobs");
        let filter = doc! { "_id": { "$in": ids(all.iter().copied()) }, "by": by };
        let found: Vec<Document> = marked.find(filter).projection(doc! { "_id": 1 }).await?.try_collect().await?;
        Ok(found.iter().filter_map(job_id).collect())
    }

    /// Runs statements of an `update` command, each with how many jobs it names.
    pub(super) async fn change(&self, sure: Sure, statements: &[(Document, usize)]) -> Result<Met, Fault> {
        let parts = changes::parts(statements)?;
        let write = |part: Part| async move {
            match sure {
                Sure::Durable => self.changes.write(self, part).await,
                Sure::Lazy => changes::run(self, "jobs", &part.statements, rawdoc! { "w": 1 }).await?.of(&part),
            }
        };
        let met = try_join_all(parts.into_iter().map(write)).await?;
        Ok(if met.contains(&Met::NotAll) { Met::NotAll } else { Met::All })
    }
}

/// A count as commands answer it, whatever type the server chose.
pub(super) fn number(n: &Bson) -> Option<u64> {
    match n {
        Bson::Int32(n) => u64::try_from(*n).ok(),
        Bson::Int64(n) => u64::try_from(*n).ok(),
        Bson::Double(n) if *n >= 0.0 => Some(*n as u64),
        _ => None,
    }
}

/// The id of a job's document, if it is one.
pub(super) fn job_id(d: &Document) -> Option<JobId> {
    match d.get("_id") {
        Some(Bson::Binary(b)) => bson::Binary::to_uuid(b).ok().map(|u| JobId(super::doc::uuid(u))),
        _ => None,
    }
}
