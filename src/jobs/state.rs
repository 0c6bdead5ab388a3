//! The life of a job as a state machine: the one place that knows which transitions are legal.
//!
//! ```text
//!              due                claim                succeed
//!  scheduled ───────▶ queued ───────────────▶ running ─────────▶ succeeded
//!      ▲  ▲             ▲ ▲                     │ │ │ fail
//!      │  └── retry,    │ └─ release, lose ─────┘ │ └───────────▶ failed (dead letter)
//!      │      snooze ───┼─────────────────────────┘ cancel
//!      │                │ run again                └────────────▶ cancelled
//!      └────────────────┴── from failed, cancelled, scheduled;   cancel also from scheduled and queued
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::model::{Attempt, AttemptOutcome, Job, JobError};
use crate::base::{clock::Timestamp, id::JobId};

/// Where a job is in its life. The numbers are what stores keep; they never change meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Waits for a time: delayed, or between attempts.
    Scheduled = 0,
    /// May be started now.
    Queued = 1,
    /// A worker holds a lease on it.
    Running = 2,
    /// Ended well. Final.
    Succeeded = 3,
    /// Ended badly: a dead letter. Final until someone replays it.
    Failed = 4,
    /// Ended on request. Final until someone retries it.
    Cancelled = 5,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Scheduled, Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The state a store wrote as `n`.
    #[must_use]
    pub fn from_number(n: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|s| *s as i64 == n)
    }

    /// As written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing but a person's request moves the job on.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl std::str::FromStr for State {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|state| state.as_str() == s).ok_or_else(|| {
            format!("is `{s}`, but a state is one of scheduled, queued, running, succeeded, failed, cancelled")
        })
    }
}

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its time has come.
    Due,
    /// A worker takes it.
    Claim,
    /// Its run ended well.
    Succeed,
    /// Its run failed and it may try again later.
    Retry,
    /// Its handler wants to be run later.
    Snooze,
    /// Its run failed for good.
    Fail,
    /// It ends on request.
    Cancel,
    /// Its worker gives it back.
    Release,
    /// Its lease ran out.
    Lose,
    /// Its lease ran out, and not for the first time.
    LoseAgain,
    /// Someone wants it run (again) now.
    RunAgain,
    /// Someone wants it run (again) at a time.
    Postpone,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 12] = [
        Self::Due,
        Self::Claim,
        Self::Succeed,
        Self::Retry,
        Self::Snooze,
        Self::Fail,
        Self::Cancel,
        Self::Release,
        Self::Lose,
        Self::LoseAgain,
        Self::RunAgain,
        Self::Postpone,
    ];
}

/// The state after `event`, or none if a job in `state` cannot have it happen.
#[must_use]
pub const fn next(state: State, event: Event) -> Option<State> {
    use Event as E;
    use State as S;
    match (state, event) {
        (S::Scheduled, E::Due | E::RunAgain) | (S::Failed | S::Cancelled, E::RunAgain) => Some(S::Queued),
        (S::Failed | S::Cancelled, E::Postpone) => Some(S::Scheduled),
        (S::Queued, E::Claim) => Some(S::Running),
        (S::Running, E::Succeed) => Some(S::Succeeded),
        (S::Running, E::Retry | E::Snooze | E::LoseAgain) => Some(S::Scheduled),
        (S::Running, E::Fail) => Some(S::Failed),
        (S::Running, E::Release | E::Lose) => Some(S::Queued),
        (S::Scheduled | S::Queued | S::Running, E::Cancel) => Some(S::Cancelled),
        _ => None,
    }
}

/// What a run ended with, in the words of a handler and its runner.
#[derive(Clone, Debug)]
pub enum RunEnd {
    /// The handler returned a result.
    Done(Option<Box<RawValue>>),
    /// The handler failed; trying again may help.
    Error(JobError),
    /// The handler failed; trying again cannot help.
    Permanent(JobError),
    /// The handler failed, and knows that trying again makes no sense before this long.
    ErrorUntil(JobError, Duration),
    /// The handler wants to be run again after this long, and may say why.
    Snooze(Duration, Option<JobError>),
    /// The handler cancelled its job, or stopped because it was asked to.
    Cancelled,
    /// It ran longer than its time-out.
    TimedOut,
    /// It panicked, with this message.
    Panicked(String),
    /// The worker gives it back: it stops, or no slot came free.
    Released,
}

/// What the store is told to write for a run that ended.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// → succeeded
    Succeed(Option<Box<RawValue>>),
    /// → scheduled, an attempt spent
    Retry {
        /// When to try again.
        at: Timestamp,
    },
    /// → scheduled, no attempt spent
    Snooze {
        /// When to run again.
        at: Timestamp,
    },
    /// → failed, an attempt spent
    Fail,
    /// → cancelled
    Cancel,
    /// → queued, no attempt spent
    Release,
}

impl Verdict {
    /// The event this verdict is.
    #[must_use]
    pub const fn event(&self) -> Event {
        match self {
            Self::Succeed(_) => Event::Succeed,
            Self::Retry { .. } => Event::Retry,
            Self::Snooze { .. } => Event::Snooze,
            Self::Fail => Event::Fail,
            Self::Cancel => Event::Cancel,
            Self::Release => Event::Release,
        }
    }

    /// The event it is if someone may have asked the job to stop: whatever would have run again is cancelled then.
    #[must_use]
    pub const fn event_if(&self, cancel_requested: bool) -> Event {
        match (self, cancel_requested) {
            (Self::Retry { .. } | Self::Snooze { .. } | Self::Release, true) => Event::Cancel,
            _ => self.event(),
        }
    }
}

/// Judges a run that ended: which transition it is and what its record says.
///
/// A retry waits `backoff.delay(failures so far)`, or as long as the handler said; the attempt that reaches `max_attempts` is the last.
#[must_use]
pub fn judge(job: &Job, end: RunEnd, now: Timestamp) -> (Verdict, Attempt) {
    let spent = job.failures + 1;
    let failed_for = |outcome, error: JobError, delay: Option<Duration>| {
        if spent >= job.spec.max_attempts {
            (Verdict::Fail, outcome, Some(error), None)
        } else {
            let at = now.plus(delay.unwrap_or_else(|| job.spec.backoff.delay(job.failures)));
            (Verdict::Retry { at }, outcome, Some(error), Some(at))
        }
    };
    let failed = |outcome, error| failed_for(outcome, error, None);
    let (verdict, outcome, error, retry_at) = match end {
        RunEnd::Done(result) => (Verdict::Succeed(result), AttemptOutcome::Succeeded, None, None),
        RunEnd::Error(e) => failed(AttemptOutcome::Failed, e),
        RunEnd::Permanent(e) => (Verdict::Fail, AttemptOutcome::Failed, Some(e), None),
        RunEnd::TimedOut => {
            let limit = job.spec.timeout().as_secs_f64();
            failed(AttemptOutcome::TimedOut, JobError::new("timed_out", format!("ran longer than its {limit} s")))
        }
        RunEnd::Panicked(m) => failed(AttemptOutcome::Panicked, JobError::new("panicked", m)),
        RunEnd::ErrorUntil(e, d) => failed_for(AttemptOutcome::Failed, e, Some(d)),
        RunEnd::Snooze(d, why) => {
            let at = now.plus(d);
            (Verdict::Snooze { at }, AttemptOutcome::Snoozed, why, Some(at))
        }
        RunEnd::Cancelled => (Verdict::Cancel, AttemptOutcome::Cancelled, None, None),
        RunEnd::Released => (Verdict::Release, AttemptOutcome::Released, None, None),
    };
    let attempt = Attempt {
        run: job.fence,
        worker: job.worker.unwrap_or(crate::base::id::WorkerId(uuid::Uuid::nil())),
        started_at: job.started_at.unwrap_or(now),
        finished_at: now,
        outcome,
        error,
        retry_at,
    };
    (verdict, attempt)
}

/// What becomes of a running job that lost its worker.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Where it is then: queued, scheduled (not its first crash), failed (crash limit) or cancelled (was asked for).
    pub state: State,
    /// Since when, or for when.
    pub at: Timestamp,
    /// Its crashes, this one included.
    pub crashes: u32,
    /// Why it is a dead letter, if it is one now.
    pub error: Option<JobError>,
    /// The record of the run.
    pub attempt: Attempt,
}

/// Over how long the jobs of a worker's second death are spread.
const SPREAD: Duration = Duration::from_secs(5);

/// When a job runs again that has lost its worker more than once.
///
/// One of those that were lost together may be what kills their workers. Run together again it would take the others with it, to the
/// crash limit; so each waits for a while of its own, which is the share of [`SPREAD`] that the random end of its id says.
#[must_use]
pub fn apart(id: JobId, now: Timestamp) -> Timestamp {
    let [.., a, b] = *id.0.as_bytes();
    now.plus(SPREAD.mul_f64(f64::from(u16::from_be_bytes([a, b])) / f64::from(u16::MAX)))
}

/// Judges a run whose worker died or went silent. No attempt is spent.
#[must_use]
pub fn lose(job: &Job, now: Timestamp, crash_limit: u32) -> Loss {
    let crashes = job.crashes + 1;
    let (state, at, error) = if job.cancel_requested {
        (State::Cancelled, now, None)
    } else if crashes >= crash_limit {
        (State::Failed, now, Some(crash_limit_error(crashes)))
    } else if crashes > 1 {
        (State::Scheduled, apart(job.id, now), None)
    } else {
        (State::Queued, now, None)
    };
    let attempt = Attempt {
        run: job.fence,
        worker: job.worker.unwrap_or(crate::base::id::WorkerId(uuid::Uuid::nil())),
        started_at: job.started_at.unwrap_or(job.created_at),
        finished_at: now,
        outcome: AttemptOutcome::Lost,
        error: Some(JobError::new("lease_lost", "the worker died or went silent")),
        retry_at: (!state.is_final()).then_some(at),
    };
    Loss { state, at, crashes, error, attempt }
}

/// The error of a job that took its workers with it too often.
fn crash_limit_error(crashes: u32) -> JobError {
    JobError::new("crash_limit", format!("{crashes} workers died or went silent while they ran this job"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_these_transitions_are_legal() {
        use {Event as E, State as S};
        let legal = [
            (S::Scheduled, E::Due, S::Queued),
            (S::Scheduled, E::Cancel, S::Cancelled),
            (S::Scheduled, E::RunAgain, S::Queued),
            (S::Queued, E::Claim, S::Running),
            (S::Queued, E::Cancel, S::Cancelled),
            (S::Running, E::Succeed, S::Succeeded),
            (S::Running, E::Retry, S::Scheduled),
            (S::Running, E::Snooze, S::Scheduled),
            (S::Running, E::Fail, S::Failed),
            (S::Running, E::Cancel, S::Cancelled),
            (S::Running, E::Release, S::Queued),
            (S::Running, E::Lose, S::Queued),
            (S::Running, E::LoseAgain, S::Scheduled),
            (S::Failed, E::RunAgain, S::Queued),
            (S::Failed, E::Postpone, S::Scheduled),
            (S::Cancelled, E::RunAgain, S::Queued),
            (S::Cancelled, E::Postpone, S::Scheduled),
        ];
        for state in S::ALL {
            for event in E::ALL {
                let expected = legal.iter().find(|(s, e, _)| (*s, *e) == (state, event)).map(|(_, _, n)| *n);
                assert_eq!(next(state, event), expected, "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn jobs_are_kept_apart_by_the_end_of_their_ids() {
        let now = Timestamp::from_millis(1_000);
        let at = |end: u128| apart(JobId(uuid::Uuid::from_u128(0x0192_f0c1 << 96 | end)), now).as_millis();
        assert_eq!([at(0), at(0xffff / 2 + 1), at(0xffff)], [1_000, 3_500, 6_000]);
    }

    #[test]
    fn numbers_and_words_name_each_state() {
        for s in State::ALL {
            assert_eq!(State::from_number(s as i64), Some(s));
            assert_eq!(s.as_str().parse::<State>().unwrap(), s);
        }
        assert_eq!(State::from_number(6), None);
    }
}
