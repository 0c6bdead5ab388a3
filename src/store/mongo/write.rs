//! Changes to jobs: many compare-and-sets in one `update` command, and how to know which of them happened.
//!
//! The server answers such a command with one sum. Nearly always it says that all happened. Where it does not, or where
//! the answer was lost with the connection, the documents are asked: each change leaves the number of its call in `by`.
//! For the same reason a call may be sent twice: what happened the first time no longer matches the second.

use std::collections::HashSet;

use ::mongodb::{
    Collection,
    bson::{self, Bson, Document, doc},
};
use futures_util::TryStreamExt;

use super::{Ready, doc::ids, fault::Fault};
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
    /// The change: operators or a pipeline. Must set `by`.
    pub(super) change: Bson,
}

impl Change {
    fn statement(&self) -> Document {
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
        let statements: Vec<Document> = changes.iter().map(Change::statement).collect();
        let n = match self.update(sure, statements.clone()).await {
            Err(e) if e.is_unknown() => {
                tracing::debug!(error = %e, "an answer of MongoDB was lost, asking again");
                self.update(sure, statements).await?;
                None
            }
            done => Some(done?),
        };
        if n == Some(all.len() as u64) {
            return Ok(all);
        }
        let marked: Collection<Document> = self.durable.collection("jobs");
        let filter = doc! { "_id": { "$in": ids(all.iter().copied()) }, "by": by };
        let found: Vec<Document> = marked.find(filter).projection(doc! { "_id": 1 }).await?.try_collect().await?;
        Ok(found.iter().filter_map(job_id).collect())
    }

    /// Runs an `update` command on jobs and answers how many documents it met.
    pub(super) async fn update(&self, sure: Sure, statements: Vec<Document>) -> Result<u64, Fault> {
        let concern = match sure {
            Sure::Durable => doc! { "w": "majority", "j": true },
            Sure::Lazy => doc! { "w": 1 },
        };
        let command = doc! { "update": "jobs", "updates": statements, "ordered": false, "writeConcern": concern };
        let answer = self.durable.run_command(command).await?;
        if let Some(Bson::Array(errors)) = answer.get("writeErrors")
            && let Some(Bson::Document(first)) = errors.first()
        {
            return Err(failed(first));
        }
        if let Some(Bson::Document(e)) = answer.get("writeConcernError") {
            return Err(failed(e));
        }
        Ok(answer.get("n").and_then(number).unwrap_or(0))
    }
}

fn failed(e: &Document) -> Fault {
    let code = e.get_i32("code").unwrap_or(0);
    Fault::Write(code, e.get_str("errmsg").unwrap_or("a write failed").to_owned())
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
