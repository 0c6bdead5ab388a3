//! How runs end on MongoDB. A success, the way of nearly every job, is one part of one update for the whole batch.

use std::collections::{BTreeMap, HashMap, HashSet};

use ::mongodb::bson::{Bson, Document, doc};

use super::{
    Ready,
    doc::{date, id, to_json},
    fault::{Fault, corrupt},
    told::ToldEnd,
    write::{Change, Sure, call_number},
};
use crate::{
    base::id::JobId,
    jobs::{
        model::{ATTEMPTS_KEPT, Attempt, Job},
        state::{Event, State, Verdict, next},
        store::{Finish, Finished},
    },
};

const SUCCEEDED: i32 = State::Succeeded as i32;

impl Ready {
    pub(super) async fn finish(&self, runs: &[Finish]) -> Result<Vec<Finished>, Fault> {
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
            for job in self.succeed(&good).await? {
                written.insert(job, Finished::Now(State::Succeeded));
            }
        }
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
        Ok(runs.iter().map(|r| written.remove(&r.id).unwrap_or(Finished::LeaseLost)).collect())
    }

    async fn succeed(&self, runs: &[&Finish]) -> Result<HashSet<JobId>, Fault> {
        let by = call_number();
        let mut by_fence: BTreeMap<u64, Vec<&Finish>> = BTreeMap::new();
        for run in runs {
            by_fence.entry(run.fence).or_default().push(run);
        }
        let changes: Vec<Change> = by_fence
            .into_iter()
            .map(|(fence, runs)| Change {
                of: runs.iter().map(|r| r.id).collect(),
                only_if: doc! { "state": super::jobs::RUNNING, "fence": fence as i64 },
                change: success(&runs, by),
            })
            .collect();
        self.apply(Sure::Durable, by, &changes).await
    }
}

/// One change for many jobs. Where their times or results differ it is a pipeline that looks each job's own up by its
/// place in the list of ids: a third dearer than operators, and a third of the price of an update for each.
fn success(runs: &[&Finish], by: i64) -> Bson {
    let result = |r: &&Finish| match &r.verdict {
        Verdict::Succeed(Some(result)) => Bson::String(result.get().to_owned()),
        _ => Bson::Null,
    };
    let ends: Vec<Bson> = runs.iter().map(|r| Bson::DateTime(date(r.attempt.finished_at))).collect();
    let results: Vec<Bson> = runs.iter().map(result).collect();
    let same = |all: &[Bson]| all.windows(2).all(|w| matches!(w, [a, b] if a == b));
    if same(&ends) && same(&results) {
        let mut set = doc! { "state": SUCCEEDED, "by": by };
        if let Some(at) = ends.into_iter().next() {
            set.insert("at", at);
        }
        if let Some(result) = results.into_iter().next().filter(|r| *r != Bson::Null) {
            set.insert("result", result);
        }
        return Bson::Document(doc! { "$set": set, "$unset": { "lease": "", "error": "" } });
    }
    let ids: Vec<Bson> = runs.iter().map(|r| Bson::from(id(r.id.0))).collect();
    let own = |all: Vec<Bson>| doc! { "$arrayElemAt": [{ "$literal": all }, "$place"] };
    let mut set = doc! { "state": SUCCEEDED, "by": by, "at": own(ends) };
    if results.iter().any(|r| *r != Bson::Null) {
        set.insert("result", own(results));
    }
    Bson::Array(vec![
        Bson::Document(doc! { "$set": { "place": { "$indexOfArray": [{ "$literal": ids }, "$_id"] } } }),
        Bson::Document(doc! { "$set": set }),
        Bson::Document(doc! { "$unset": ["place", "lease", "error"] }),
    ])
}

/// The end of a run together with its event.
fn told_end(run: &Finish) -> Result<ToldEnd, Fault> {
    let only_if = doc! { "_id": id(run.id.0), "state": super::jobs::RUNNING, "fence": run.fence as i64 };
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
