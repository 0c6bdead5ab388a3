//! The model: jobs in a map, and the rules of their life as design.md tells them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use app::{
    base::{
        clock::Timestamp,
        id::{JobId, QueueName, WorkerId},
    },
    jobs::{
        model::{ATTEMPTS_KEPT, Attempt, AttemptOutcome, Job, JobError},
        state::{State, Verdict, apart},
        store::{Again, Cancelled, Finish, Finished, JobEdit, Moved, QueueCounts, RanAgain, Waiting},
    },
};

/// What a claim should answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Won(Timestamp),
    Paused,
    Gone,
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) jobs: BTreeMap<JobId, Job>,
    paused: BTreeSet<QueueName>,
}

fn remember(job: &mut Job, run: Attempt) {
    job.attempts.push(run);
    while job.attempts.len() > ATTEMPTS_KEPT {
        job.attempts.remove(0);
    }
}

fn waiting(job: &Job, now: Timestamp) -> Waiting {
    Waiting { id: job.id, queue: job.queue.clone(), priority: job.priority, since: now }
}

impl Model {
    pub(super) fn insert(&mut self, job: Job) {
        self.jobs.insert(job.id, job);
    }

    pub(super) fn pause(&mut self, queue: QueueName, paused: bool) {
        if paused {
            self.paused.insert(queue);
        } else {
            self.paused.remove(&queue);
        }
    }

    pub(super) fn claim(&mut self, id: JobId, worker: WorkerId, now: Timestamp, lease: Duration) -> Answer {
        let Some(job) = self.jobs.get_mut(&id).filter(|j| j.state == State::Queued) else { return Answer::Gone };
        if self.paused.contains(&job.queue) {
            return Answer::Paused;
        }
        let since = job.at;
        job.state = State::Running;
        job.at = now.plus(lease);
        job.fence += 1;
        job.worker = Some(worker);
        job.started_at = Some(now);
        job.progress = None;
        Answer::Won(since)
    }

    /// The running job that this fence holds.
    pub(super) fn held(&mut self, id: JobId, fence: u64) -> Option<&mut Job> {
        self.jobs.get_mut(&id).filter(|j| j.state == State::Running && j.fence == fence)
    }

    pub(super) fn finish(&mut self, run: Finish) -> Finished {
        let Some(job) = self.held(run.id, run.fence) else { return Finished::LeaseLost };
        let now = run.attempt.finished_at;
        // Whoever asked for an end gets one: nothing runs again after that.
        let stop = job.cancel_requested;
        (job.state, job.at) = match &run.verdict {
            Verdict::Succeed(result) => {
                job.result.clone_from(result);
                (State::Succeeded, now)
            }
            Verdict::Fail => (State::Failed, now),
            Verdict::Cancel => (State::Cancelled, now),
            Verdict::Retry { .. } | Verdict::Snooze { .. } | Verdict::Release if stop => (State::Cancelled, now),
            Verdict::Retry { at } | Verdict::Snooze { at } => (State::Scheduled, *at),
            Verdict::Release => (State::Queued, now),
        };
        let spends = matches!(run.verdict, Verdict::Retry { .. } | Verdict::Fail);
        if spends && job.state != State::Cancelled {
            job.failures += 1;
        }
        if job.state == State::Succeeded {
            job.error = None;
        } else if let Some(e) = &run.attempt.error {
            job.error = Some(e.clone());
        }
        remember(job, run.attempt);
        Finished::Now(job.state)
    }

    pub(super) fn cancel(&mut self, id: JobId, now: Timestamp) -> Cancelled {
        let Some(job) = self.jobs.get_mut(&id) else { return Cancelled::NotFound };
        match job.state {
            State::Running => {
                job.cancel_requested = true;
                Cancelled::Requested
            }
            State::Scheduled | State::Queued => {
                end_waiting(job, now);
                Cancelled::Now
            }
            done => Cancelled::AlreadyFinal(done),
        }
    }

    pub(super) fn purge(&mut self, queue: &QueueName, now: Timestamp) -> u64 {
        let mut n = 0;
        for job in self.jobs.values_mut().filter(|j| j.state == State::Queued && j.queue == *queue) {
            end_waiting(job, now);
            n += 1;
        }
        n
    }

    /// Takes what the store moved, if it was right to: the earliest that were due. Which of several with the same time
    /// come first is the store's choice.
    pub(super) fn due(&mut self, moved: &[Waiting], now: Timestamp, limit: usize) {
        let mut times: Vec<Timestamp> =
            self.jobs.values().filter(|j| j.state == State::Scheduled && j.at <= now).map(|j| j.at).collect();
        times.sort();
        times.truncate(limit);
        let mut moved_times = Vec::new();
        for w in moved {
            let job = self.jobs.get_mut(&w.id).expect("the model knows it");
            assert_eq!(job.state, State::Scheduled);
            moved_times.push(job.at);
            job.state = State::Queued;
            job.at = now;
            assert_eq!(*w, waiting(job, now));
        }
        assert_eq!(moved_times, times, "earliest first, and all of them up to {limit}");
    }

    /// The running jobs that `which` is true of.
    pub(super) fn running(&self, which: impl Fn(&Job) -> bool) -> Vec<JobId> {
        self.jobs.values().filter(|j| j.state == State::Running && which(j)).map(|j| j.id).collect()
    }

    /// Takes what the store took from its workers, if they are among `lost` and as many as there should be.
    pub(super) fn lose(&mut self, moved: &[Moved], lost: &[JobId], now: Timestamp, crash_limit: u32, limit: usize) {
        assert_eq!(moved.len(), lost.len().min(limit), "{moved:?} of {lost:?}");
        for m in moved {
            assert!(lost.contains(&m.job.id), "{m:?} was not lost");
            let job = self.jobs.get_mut(&m.job.id).expect("the model knows it");
            assert_eq!(job.state, State::Running, "taken twice");
            job.crashes += 1;
            job.at = now;
            job.state = if job.cancel_requested {
                State::Cancelled
            } else if job.crashes >= crash_limit {
                let message = format!("{} workers died or went silent while they ran this job", job.crashes);
                job.error = Some(JobError::new("crash_limit", message));
                State::Failed
            } else if job.crashes > 1 {
                job.at = apart(job.id, now);
                State::Scheduled
            } else {
                State::Queued
            };
            let run = Attempt {
                run: job.fence,
                worker: job.worker.expect("it ran"),
                started_at: job.started_at.expect("it ran"),
                finished_at: now,
                outcome: AttemptOutcome::Lost,
                error: Some(JobError::new("lease_lost", "the worker died or went silent")),
                retry_at: (!job.state.is_final()).then_some(job.at),
            };
            remember(job, run);
            assert_eq!(*m, Moved { job: waiting(job, job.at), state: job.state });
        }
    }

    pub(super) fn run_again(&mut self, again: &Again, edit: &JobEdit, now: Timestamp) -> RanAgain {
        let Some(job) = self.jobs.get_mut(&again.id) else { return RanAgain::NotFound };
        let later = again.at.filter(|at| *at > now);
        let allowed = match job.state {
            State::Failed | State::Cancelled => true,
            // What waits for a time can be run now, but not be put off.
            State::Scheduled => later.is_none(),
            State::Queued | State::Running | State::Succeeded => false,
        };
        if !allowed {
            return RanAgain::Refused(job.state);
        }
        job.state = if later.is_some() { State::Scheduled } else { State::Queued };
        job.at = later.unwrap_or(now);
        (job.failures, job.crashes, job.cancel_requested) = (0, 0, false);
        (job.progress, job.result) = (None, None);
        if let Some(queue) = &edit.queue {
            job.queue = queue.clone();
        }
        job.priority = edit.priority.unwrap_or(job.priority);
        job.spec.max_attempts = edit.max_attempts.unwrap_or(job.spec.max_attempts);
        if let Some(payload) = &edit.payload {
            job.spec.payload = payload.clone();
        }
        if later.is_some() { RanAgain::Scheduled } else { RanAgain::Queued(waiting(job, now)) }
    }

    pub(super) fn retain(&mut self, finished: Timestamp, failed: Timestamp) -> u64 {
        let before = self.jobs.len();
        self.jobs.retain(|_, j| match j.state {
            State::Succeeded | State::Cancelled => j.at >= finished,
            State::Failed => j.at >= failed,
            State::Scheduled | State::Queued | State::Running => true,
        });
        (before - self.jobs.len()) as u64
    }

    /// Counts, age of the oldest, and pause of every queue.
    pub(super) fn queues(&self) -> BTreeMap<QueueName, (QueueCounts, Option<Timestamp>, bool)> {
        let mut queues: BTreeMap<QueueName, (QueueCounts, Option<Timestamp>, bool)> = BTreeMap::new();
        for queue in &self.paused {
            queues.entry(queue.clone()).or_default().2 = true;
        }
        for job in self.jobs.values() {
            let (counts, oldest, _) = queues.entry(job.queue.clone()).or_default();
            match job.state {
                State::Scheduled => counts.scheduled += 1,
                State::Queued => {
                    counts.queued += 1;
                    *oldest = Some(oldest.map_or(job.at, |o| o.min(job.at)));
                }
                State::Running => counts.running += 1,
                State::Failed => counts.failed += 1,
                State::Succeeded | State::Cancelled => {}
            }
        }
        queues
    }
}

/// A job that waited is cancelled; the mark that a cancel was asked for stays on it.
fn end_waiting(job: &mut Job, now: Timestamp) {
    job.state = State::Cancelled;
    job.at = now;
    job.cancel_requested = true;
}
