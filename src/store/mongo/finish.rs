//! How runs end on MongoDB. A success, the way of nearly every job, is one part of one update for the whole batch.

use std::collections::{BTreeMap, HashMap, HashSet};

use ::mongodb::bson::{Bson, Document, doc};

use super::{
    Ready,
    doc::{date, id, to_json},
    fault::{Fault, corrupt},
    jobs::{QUEUED, RUNNING, fence_is},
    told::ToldEnd,
    write::{Change, Sure, call_number},
};
use crate::{
    base::{
        clock::Timestamp,
        id::{JobId, WorkerId},
    },
    jobs::{
        model::{ATTEMPTS_KEPT, Attempt, Job},
        state::{Event, State, Verdict, next},
        store::{Finish, Finished},
    },
};

const SUCCEEDED: i32 = State::Succeeded as i32;

impl Ready {
    pub(super) async fn finish(&self, runs: &[Finish]) -> Result<Vec<Finished>, Fault> {
        let held = self.held.among(runs.iter().map(|r| r.id));
        let mut written: HashMap<JobId, Finished> = HashMap::new();
        // Each job once: whoever names it twice has at most one run that is not stale.
        let mut seen = HashSet::new();
        let (mut good, mut other, mut told) = (Vec::new(), HashMap::new(), Vec::new());
        for run in runs.iter().filter(|r| seen.insert(r.id)) {
            match run.verdict {
                Verdict::Succeed(_) | Verdict::Fail if run.event.is_some() => told.push(run),
                Verdict::Succeed(_) => good.push(run),
                _ => drop(other.insert(run.id, run)),
            }
        }
        if !good.is_empty() {
            for job in self.succeed(&good, &held).await? {
                written.insert(job, Finished::Now(State::Succeeded));
            }
        }
        // These are few, and know running jobs only.
        self.write_out(told.iter().map(|r| r.id).chain(other.keys().copied())).await?;
        if !told.is_empty() {
            let ends = told.iter().map(|run| told_end(run)).collect::<Result<Vec<_>, _>>()?;
            for (run, state) in told.iter().zip(self.tell(ends).await?) {
                written.extend(state.map(|state| (run.id, Finished::Now(state))));
            }
        }
        if !other.is_empty() {
            let ids = other.keys().copied().collect();
            let ends = |job_id, job: &Job| match other.get(&job_id) {
                Some(run) => end(run, job),
                None => Ok(None),
            };
            for (job, state) in self.decide(Sure::Durable, ids, ends).await? {
                written.insert(job, Finished::Now(state));
            }
        }
        self.let_go(held);
        Ok(runs.iter().map(|r| written.remove(&r.id).unwrap_or(Finished::LeaseLost)).collect())
    }

    /// Runs whose job is still in the lease go from queued to succeeded; the others from running.
    async fn succeed(&self, runs: &[&Finish], leased: &HashMap<JobId, i64>) -> Result<HashSet<JobId>, Fault> {
        let (short, mut rest): (Vec<&Finish>, Vec<&Finish>) = runs.iter().partition(|r| leased.contains_key(&r.id));
        let mut done = self.succeed_from(QUEUED, &short, leased).await?;
        // Those whose lease somebody has written out meanwhile, and those that were claimed through another connection.
        rest.extend(short.into_iter().filter(|r| !done.contains(&r.id)));
        done.extend(self.succeed_from(RUNNING, &rest, leased).await?);
        rest.retain(|r| !done.contains(&r.id));
        if !rest.is_empty() {
            self.write_out(rest.iter().map(|r| r.id)).await?;
            done.extend(self.succeed_from(RUNNING, &rest, leased).await?);
        }
        Ok(done)
    }

    /// Success for runs whose job is in this form, of which those of `leased` are or were in that lease of this process.
    async fn succeed_from(
        &self,
        form: i32,
        runs: &[&Finish],
        leased: &HashMap<JobId, i64>,
    ) -> Result<HashSet<JobId>, Fault> {
        let by = call_number();
        let mut alike: BTreeMap<(u64, WorkerId, Option<i64>), Vec<&Finish>> = BTreeMap::new();
        for run in runs {
            let lease = leased.get(&run.id).copied().filter(|_| form == RUNNING);
            alike.entry((run.fence, run.attempt.worker, lease)).or_default().push(run);
        }
        let mut changes = Vec::new();
        for ((fence, worker, lease), runs) in alike {
            // What is queued is in the lease only until it runs under another fence. No run has the fence 0.
            let Some(before) = fence.checked_sub(u64::from(form == QUEUED)) else { continue };
            let mut only_if = doc! { "state": form, "fence": fence_is(before as i64) };
            only_if.extend(lease.map(|lease| ("claim".to_owned(), Bson::Int64(lease))));
            let set = doc! { "state": SUCCEEDED, "by": by, "fence": fence as i64, "worker": id(worker.0) };
            // A run that was never written out has noted no progress: what there is, is from an earlier one.
            let unset: &[&str] = if form == QUEUED { &["error", "progress"] } else { &["error", "lease"] };
            for (runs, change) in successes(&runs, &set, unset) {
                let of = runs.iter().map(|r| r.id).collect();
                changes.push(Change { of, only_if: only_if.clone(), change });
            }
        }
        self.apply(Sure::Durable, by, &changes).await
    }
}

/// A statement costs the server as much as so many jobs cost it more in a pipeline than in operators.
const STATEMENT_WORTH: usize = 4;
/// Most bytes of results in one pipeline.
const RESULTS: usize = 4 << 20;

fn result(run: &Finish) -> Option<&str> {
    match &run.verdict {
        Verdict::Succeed(Some(result)) => Some(result.get()),
        _ => None,
    }
}

/// Few changes for many jobs: one for all that started and ended at the same times with the same result, or a pipeline
/// where nearly each is different.
fn successes<'a>(runs: &[&'a Finish], set: &Document, unset: &[&str]) -> Vec<(Vec<&'a Finish>, Bson)> {
    let mut alike: BTreeMap<(Timestamp, Timestamp, Option<&str>), Vec<&Finish>> = BTreeMap::new();
    for run in runs {
        alike.entry((run.attempt.started_at, run.attempt.finished_at, result(run))).or_default().push(run);
    }
    if alike.len() == 1 || alike.len() * STATEMENT_WORTH <= runs.len() {
        let with_end = |((started, at, result), runs): (_, Vec<&'a Finish>)| {
            let change = same_end(set.clone(), unset, started, at, result);
            (runs, change)
        };
        return alike.into_iter().map(with_end).collect();
    }
    let (mut parts, mut bytes): (Vec<Vec<&Finish>>, usize) = (Vec::new(), 0);
    for run in runs {
        let size = result(run).map_or(0, str::len);
        bytes += size;
        match parts.last_mut() {
            Some(part) if bytes <= RESULTS => part.push(run),
            _ => {
                bytes = size;
                parts.push(vec![run]);
            }
        }
    }
    let with_ends = |runs: Vec<&'a Finish>| {
        let change = own_ends(set.clone(), unset, &runs);
        (runs, change)
    };
    parts.into_iter().map(with_ends).collect()
}

/// Operators for runs that were all alike.
fn same_end(mut set: Document, unset: &[&str], started: Timestamp, at: Timestamp, result: Option<&str>) -> Bson {
    set.extend(doc! { "started": date(started), "at": date(at) });
    set.extend(result.map(|r| ("result".to_owned(), Bson::from(r))));
    let unset: Document = unset.iter().map(|field| ((*field).to_owned(), Bson::from(""))).collect();
    Bson::Document(doc! { "$set": set, "$unset": unset })
}

/// A pipeline that looks each job's own end up by its place in the list of ids: a third dearer than operators, and a third
/// of the price of an update for each.
fn own_ends(mut set: Document, unset: &[&str], runs: &[&Finish]) -> Bson {
    let each = |of: &dyn Fn(&Finish) -> Bson| runs.iter().map(|r| of(r)).collect::<Vec<Bson>>();
    let own = |all: Vec<Bson>| doc! { "$arrayElemAt": [{ "$literal": all }, "$place"] };
    let ids = each(&|r| Bson::from(id(r.id.0)));
    set.insert("started", own(each(&|r| date(r.attempt.started_at).into())));
    set.insert("at", own(each(&|r| date(r.attempt.finished_at).into())));
    if runs.iter().any(|r| result(r).is_some()) {
        set.insert("result", own(each(&|r| result(r).map_or(Bson::Null, Bson::from))));
    }
    Bson::Array(vec![
        Bson::Document(doc! { "$set": { "place": { "$indexOfArray": [{ "$literal": ids }, "$_id"] } } }),
        Bson::Document(doc! { "$set": set }),
        Bson::Document(doc! { "$unset": unset.iter().copied().chain(["place"]).collect::<Vec<_>>() }),
    ])
}

/// The end of a run together with its event.
fn told_end(run: &Finish) -> Result<ToldEnd, Fault> {
    let only_if = doc! { "_id": id(run.id.0), "state": RUNNING, "fence": run.fence as i64 };
    let at = date(run.attempt.finished_at);
    let (state, change) = match &run.verdict {
        Verdict::Succeed(result) => {
            let mut set = doc! { "state": SUCCEEDED, "at": at };
            if let Some(result) = result {
                set.insert("result", result.get());
            }
            (State::Succeeded, doc! { "$set": set, "$unset": { "lease": "", "error": "" } })
        }
        _ => {
            let mut set = doc! { "state": State::Failed as i32, "at": at };
            if let Some(e) = &run.attempt.error {
                set.insert("error", to_json("error", e)?);
            }
            let push = recorded(&run.attempt)?;
            (State::Failed, doc! { "$set": set, "$inc": { "failures": 1 }, "$unset": { "lease": "" }, "$push": push })
        }
    };
    ToldEnd::new(only_if, change, state, run.event.iter())
}

/// What a run that did not succeed makes of its job; none if it is not its run any more.
fn end(run: &Finish, job: &Job) -> Result<Option<(Document, State)>, Fault> {
    if job.state != State::Running || job.fence != run.fence {
        return Ok(None);
    }
    let event = run.verdict.event_if(job.cancel_requested);
    let Some(state) = next(State::Running, event) else {
        return Err(corrupt("verdict", format!("{event:?} does not end a run")));
    };
    let spent = u32::from(matches!(event, Event::Retry | Event::Fail));
    let at = match &run.verdict {
        Verdict::Retry { at } | Verdict::Snooze { at } if state == State::Scheduled => *at,
        _ => run.attempt.finished_at,
    };
    let mut set = doc! { "state": state as i32, "at": date(at), "failures": count(job.failures + spent)? };
    // A snooze or release says nothing about why the job failed before; what put it off stands in the history only.
    if let Some(e) = run.attempt.error.as_ref().filter(|_| !matches!(run.verdict, Verdict::Snooze { .. })) {
        set.insert("error", to_json("error", e)?);
    }
    Ok(Some((doc! { "$set": set, "$unset": { "lease": "" }, "$push": recorded(&run.attempt)? }, state)))
}

/// Appends a run to the history, of which the oldest are dropped.
pub(super) fn recorded(attempt: &Attempt) -> Result<Document, Fault> {
    let last = -(ATTEMPTS_KEPT as i32);
    Ok(doc! { "attempts": { "$each": [to_json("attempt", attempt)?], "$slice": last } })
}

/// A count as it is stored.
pub(super) fn count(n: u32) -> Result<i32, Fault> {
    n.try_into().map_err(|e| corrupt("count", e))
}
