//! Group commit for single submissions: what arrives while a write is under way goes together in the next one.
//!
//! An insert alone costs the server several times what it costs among others, and each waits for the journal. So callers
//! leave their job here; whoever finds no writer at work becomes one and writes all that is waiting, until none is. An
//! idle store waits for nothing, and lets a lone job be claimed before the journal has it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ::mongodb::{bson::doc, error::ErrorKind};
use tokio::sync::oneshot;

use super::{
    Ready, changes,
    doc::JobDoc,
    fault::{Fault, bounded},
};
use crate::jobs::store::{Durable, StoreError};

/// Writes under way at once: while one waits for the journal, another is filled.
const WRITERS: usize = 2;
/// Most jobs in one write.
const BATCH: usize = 1000;

/// Durable, or the rest of the way.
type Answer = Result<Durable, StoreError>;

#[derive(Default)]
struct Waiting {
    jobs: Vec<(JobDoc, oneshot::Sender<Answer>)>,
    writers: usize,
    /// The last write was of several jobs: while it is busy, what counts is how many commands the server gets.
    busy: bool,
}

/// Jobs on their way into the database.
#[derive(Default)]
pub(super) struct Inserts(std::sync::Arc<Mutex<Waiting>>);

impl Inserts {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores one job; returns when it can be claimed, or a moment later when it is durable. Bounded in all: what waited behind
    /// a write that was not answered does not wait for its own as long again.
    pub(super) async fn insert(&self, ready: &Ready, job: JobDoc) -> Answer {
        let (tx, rx) = oneshot::channel();
        let start = {
            let mut waiting = self.lock();
            waiting.jobs.push((job, tx));
            let start = waiting.writers < WRITERS;
            waiting.writers += usize::from(start);
            start
        };
        if start {
            // On a task of its own: a caller that goes away must not take the others' write with it.
            tokio::spawn(Self(std::sync::Arc::clone(&self.0)).write_all(ready.clone()));
        }
        match tokio::time::timeout(super::CALL_TIMEOUT, rx).await {
            Ok(answer) => answer.map_err(|_closed| StoreError::Unavailable("the process is ending".into()))?,
            Err(_) => Err(StoreError::Unavailable(format!("MongoDB did not answer within {:?}", super::CALL_TIMEOUT))),
        }
    }

    async fn write_all(self, ready: Ready) {
        loop {
            let (batch, alone) = {
                let mut waiting = self.lock();
                // Whoever has given up has told its client so.
                waiting.jobs.retain(|(_, caller)| !caller.is_closed());
                if waiting.jobs.is_empty() {
                    waiting.writers -= 1;
                    return;
                }
                let n = waiting.jobs.len().min(BATCH);
                let rest = waiting.jobs.split_off(n);
                let batch = std::mem::replace(&mut waiting.jobs, rest);
                let alone = batch.len() == 1 && !waiting.busy;
                waiting.busy = batch.len() > 1;
                (batch, alone)
            };
            let batch = match <[_; 1]>::try_from(batch) {
                Ok([(job, caller)]) if alone => {
                    write_early(&ready, &job, caller).await;
                    continue;
                }
                Ok(one) => Vec::from(one),
                Err(batch) => batch,
            };
            let (jobs, callers): (Vec<JobDoc>, Vec<_>) = batch.into_iter().unzip();
            let answers = write(&ready, &jobs).await;
            for (caller, answer) in callers.into_iter().zip(answers) {
                // Whoever asked may have gone away.
                drop(caller.send(answer));
            }
        }
    }
}

/// A job that came alone can be claimed before the journal has it: first its caller hears that it is there, then the rest.
async fn write_early(ready: &Ready, job: &JobDoc, caller: oneshot::Sender<Answer>) {
    let insert = async { Ok(ready.lazy.collection::<JobDoc>("jobs").insert_one(job).await?) };
    if let Err(e) = bounded(insert).await {
        // Whoever asked may have gone away, here and below.
        drop(caller.send(Err(e.into())));
        return;
    }
    let same = doc! { "q": { "_id": job.id }, "u": { "$set": { "created": job.created } } };
    let (settled, rest) = oneshot::channel();
    let rest = async { rest.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the process is ending".into()))) };
    drop(caller.send(Ok(Durable::when(rest))));
    drop(settled.send(bounded(changes::settled(ready, "jobs", same)).await.map_err(StoreError::from)));
}

async fn write(ready: &Ready, jobs: &[JobDoc]) -> Vec<Answer> {
    let written = bounded(async { Ok(ready.jobs().insert_many(jobs).ordered(false).await?) }).await;
    let all = |answer: &dyn Fn() -> Answer| jobs.iter().map(|_| answer()).collect();
    let Err(fault) = written else { return all(&|| Ok(Durable::already())) };
    // Unordered: those that are not named did get in, unless the whole write is in doubt.
    if let Fault::Mongo(e) = &fault
        && let ErrorKind::InsertMany(m) = e.kind.as_ref()
        && m.write_concern_error.is_none()
        && let Some(errors) = &m.write_errors
    {
        let mut answers: Vec<Answer> = all(&|| Ok(Durable::already()));
        for e in errors {
            if let Some(a) = answers.get_mut(e.index) {
                *a = Err(StoreError::from(Fault::Write(e.code, e.message.clone())));
            }
        }
        return answers;
    }
    let error = StoreError::from(fault);
    all(&|| Err(error.clone()))
}
