//! Group commit for changes of jobs: ends, cancels and whatever else is durable go together, as inserts do (`gather.rs`).
//!
//! A command costs the server as much as several of the changes in it, and each waits for the journal. So callers leave
//! their changes here; up to [`WRITERS`] tasks write all that is waiting, until nothing is. An idle store waits for nothing.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ::mongodb::bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, rawdoc};
use tokio::sync::oneshot;

use super::{
    Ready,
    fault::{Fault, NO_ANSWER, bounded, corrupt},
    write::number,
};

/// Commands under way at once: while one waits for the journal, another is worked on.
const WRITERS: usize = 2;
/// Most jobs named in one command.
const JOBS: u64 = 1000;
/// Most bytes of changes in one command, unless one alone has more. The server refuses what is larger than 16 MiB.
const BYTES: usize = 8 << 20;

/// What a caller learns of its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// Every job that they name was as expected, and is changed.
    All,
    /// Not every one, of these changes or of those they were written with: ask the documents.
    NotAll,
}

type Answer = Result<Met, Fault>;

/// Statements that fit into one command.
#[derive(Default)]
pub(super) struct Part {
    pub(super) statements: Vec<RawDocumentBuf>,
    jobs: u64,
    bytes: usize,
}

/// Parts of these statements, each with how many jobs it names, in their order.
pub(super) fn parts(statements: &[(Document, usize)]) -> Result<Vec<Part>, Fault> {
    let mut parts: Vec<Part> = Vec::new();
    for (statement, jobs) in statements {
        let raw = RawDocumentBuf::try_from(statement).map_err(|e| corrupt("change", e))?;
        let bytes = raw.as_bytes().len();
        match parts.last_mut() {
            Some(part) if part.bytes + bytes <= BYTES => {
                part.statements.push(raw);
                (part.jobs, part.bytes) = (part.jobs + *jobs as u64, part.bytes + bytes);
            }
            _ => parts.push(Part { statements: vec![raw], jobs: *jobs as u64, bytes }),
        }
    }
    Ok(parts)
}

struct Asked {
    part: Part,
    caller: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Waiting {
    asked: VecDeque<Asked>,
    writers: usize,
}

/// Changes on their way into the database.
#[derive(Clone, Default)]
pub(super) struct Changes(Arc<Mutex<Waiting>>);

impl Changes {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the changes; returns when they are durable.
    pub(super) async fn write(&self, ready: &Ready, part: Part) -> Answer {
        let (caller, answer) = oneshot::channel();
        let start = {
            let mut waiting = self.lock();
            waiting.asked.push_back(Asked { part, caller });
            let start = waiting.writers < WRITERS;
            waiting.writers += usize::from(start);
            start
        };
        if start {
            // On a task of its own: a caller that goes away must not take the others' changes with it.
            tokio::spawn(self.clone().write_all(ready.clone()));
        }
        // A task that ended without an answer leaves open what it did.
        answer.await.unwrap_or_else(|_| Err(Fault::Write(NO_ANSWER, "the process is ending".to_owned())))
    }

    async fn write_all(self, ready: Ready) {
        loop {
            let batch = {
                let mut waiting = self.lock();
                // Whoever has given up has told its client so.
                waiting.asked.retain(|a| !a.caller.is_closed());
                let batch = take(&mut waiting.asked);
                if batch.is_empty() {
                    waiting.writers -= 1;
                    return;
                }
                batch
            };
            send(&ready, batch).await;
        }
    }
}

/// What goes into the next command: the first, and what fits beside it.
fn take(asked: &mut VecDeque<Asked>) -> Vec<Asked> {
    let (mut batch, mut jobs, mut bytes) = (Vec::new(), 0, 0);
    while let Some(next) = asked.front() {
        (jobs, bytes) = (jobs + next.part.jobs, bytes + next.part.bytes);
        if !batch.is_empty() && (jobs > JOBS || bytes > BYTES) {
            break;
        }
        batch.extend(asked.pop_front());
    }
    batch
}

/// What became of one command.
pub(super) struct Sent {
    /// How many jobs were as expected.
    pub(super) met: u64,
    /// The statements that failed, by their place.
    pub(super) failed: Vec<(usize, Fault)>,
}

impl Sent {
    /// What it means if it was this part and nothing else.
    pub(super) fn of(self, part: &Part) -> Answer {
        match self.failed.into_iter().next() {
            Some((_, fault)) => Err(fault),
            None if self.met == part.jobs => Ok(Met::All),
            None => Ok(Met::NotAll),
        }
    }
}

/// How sure a change must be that somebody is told of.
pub(super) fn durable() -> RawDocumentBuf {
    rawdoc! { "w": "majority", "j": true }
}

/// Returns when a document that is there already is on the disks of a majority: a change that changes nothing waits for all
/// before it. That it meets the document says that no other server has taken over without it.
pub(super) async fn settled(ready: &Ready, of: &str, same: Document) -> Result<(), Fault> {
    let statements = [RawDocumentBuf::try_from(&same).map_err(|e| corrupt("change", e))?];
    let sent = match run(ready, of, &statements, durable()).await {
        Err(e) if e.is_unknown() => run(ready, of, &statements, durable()).await?,
        sent => sent?,
    };
    match (sent.failed.into_iter().next(), sent.met) {
        (Some((_, fault)), _) => Err(fault),
        (None, 1) => Ok(()),
        (None, _) => Err(Fault::Write(NO_ANSWER, "another server took over before the write was safe".to_owned())),
    }
}

/// Runs one `update` command on a collection. An error says nothing about what it did.
pub(super) async fn run<'a>(
    ready: &Ready,
    of: &str,
    statements: impl IntoIterator<Item = &'a RawDocumentBuf>,
    concern: RawDocumentBuf,
) -> Result<Sent, Fault> {
    let mut updates = RawArrayBuf::new();
    statements.into_iter().for_each(|s| updates.push(s.clone()));
    let command = rawdoc! { "update": of, "updates": updates, "ordered": false, "writeConcern": concern };
    let answer = ready.durable.run_raw_command(command).await?;
    if let Ok(e) = answer.get_document("writeConcernError") {
        return Err(fault(e));
    }
    let mut failed = Vec::new();
    for e in answer.get_array("writeErrors").into_iter().flatten().filter_map(Bson::as_document) {
        let at = e.get("index").and_then(number).and_then(|n| usize::try_from(n).ok());
        // One whose place is not told may be any.
        failed.push((at.ok_or_else(|| fault(e))?, fault(e)));
    }
    Ok(Sent { met: answer.get("n").and_then(number).unwrap_or(0), failed })
}

fn fault(e: &Document) -> Fault {
    let code = e.get_i32("code").unwrap_or(0);
    Fault::Write(code, e.get_str("errmsg").unwrap_or("a write failed").to_owned())
}

async fn send(ready: &Ready, batch: Vec<Asked>) {
    let work = run(ready, "jobs", batch.iter().flat_map(|a| &a.part.statements), durable());
    let sent = bounded(work).await;
    let named: u64 = batch.iter().map(|a| a.part.jobs).sum();
    let mut first = 0;
    for asked in batch {
        let own = first..first + asked.part.statements.len();
        first = own.end;
        let answer = match &sent {
            Err(e) => Err(e.clone()),
            Ok(sent) => match sent.failed.iter().find(|(at, _)| own.contains(at)) {
                Some((_, e)) => Err(e.clone()),
                None => Ok(if sent.met == named { Met::All } else { Met::NotAll }),
            },
        };
        // Whoever asked may have gone away.
        drop(asked.caller.send(answer));
    }
}
