//! Group commit for single submissions: what arrives while a write is under way goes together in the next one.
//!
//! An insert alone costs the server several times what it costs among others, and each waits for the journal. So callers
//! leave their job here; whoever finds no writer at work becomes one and writes all that is waiting, until none is. An
//! idle store waits for nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ::mongodb::error::ErrorKind;
use tokio::sync::oneshot;

use super::{Ready, doc::JobDoc, fault::Fault};
use crate::base::store::StoreError;

/// Writes under way at once: while one waits for the journal, another is filled.
const WRITERS: usize = 2;
/// Most jobs in one write.
const BATCH: usize = 1000;

type Answer = Result<(), StoreError>;

#[derive(Default)]
struct Waiting {
    jobs: Vec<(JobDoc, oneshot::Sender<Answer>)>,
    writers: usize,
}

/// Jobs on their way into the database.
#[derive(Default)]
pub(super) struct Inserts(std::sync::Arc<Mutex<Waiting>>);

impl Inserts {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores one job; returns when it is durable. Bounded in all: what waited behind a write that was not answered does not
    /// wait for its own as long again.
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
            let batch = {
                let mut waiting = self.lock();
                // Whoever has given up has told its client so.
                waiting.jobs.retain(|(_, caller)| !caller.is_closed());
                if waiting.jobs.is_empty() {
                    waiting.writers -= 1;
                    return;
                }
                let n = waiting.jobs.len().min(BATCH);
                let rest = waiting.jobs.split_off(n);
                std::mem::replace(&mut waiting.jobs, rest)
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

async fn write(ready: &Ready, jobs: &[JobDoc]) -> Vec<Answer> {
    let write = async { Ok(ready.jobs().insert_many(jobs).ordered(false).await?) };
    let result = match tokio::time::timeout(super::CALL_TIMEOUT, write).await {
        Ok(result) => result.map(drop),
        Err(_) => Err(Fault::Write(50, format!("no answer within {:?}", super::CALL_TIMEOUT))),
    };
    let Err(fault) = result else { return vec![Ok(()); jobs.len()] };
    // Unordered: those that are not named did get in, unless the whole write is in doubt.
    if let Fault::Mongo(e) = &fault
        && let ErrorKind::InsertMany(m) = e.kind.as_ref()
        && m.write_concern_error.is_none()
        && let Some(errors) = &m.write_errors
    {
        let mut answers = vec![Ok(()); jobs.len()];
        for e in errors {
            if let Some(a) = answers.get_mut(e.index) {
                *a = Err(StoreError::from(Fault::Write(e.code, e.message.clone())));
            }
        }
        return answers;
    }
    vec![Err(StoreError::from(fault)); jobs.len()]
}
