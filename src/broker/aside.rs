//! What a broker's server refuses to this process, so that a refusal costs only what is refused.
//!
//! One [`Aside`] belongs to each broker in a server. Its consumers and publishers note there which
//! queues they cannot have, leave these alone until it is time for another try, and go on with the
//! rest. Health, lists and the workers' reports read from it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{BrokerError, SetAside};
use crate::base::{backoff::Backoff, id::QueueName};

/// Between tries to have a queue that was refused; without jitter, because a refusal is no overload.
const AGAIN: Backoff = Backoff { base_ms: 1_000, cap_ms: 30_000 };
/// A refusal that nobody has met again for so long after the time to try is no longer told.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// What the server refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To have the queue at all: declaring it, or writing to it.
    Have,
    /// Taking from it.
    Take,
}

struct Entry {
    why: String,
    step: Step,
    failures: u32,
    retry_at: Instant,
}

/// A part of a server that this program can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Telling every worker at once.
    Saying,
    /// Hearing what is told to every worker.
    Hearing,
    /// The word that something lies in a queue.
    Bells,
}

impl Part {
    /// What the lack of it means, without why: for everybody's eyes.
    fn lack(self) -> &'static str {
        match self {
            Self::Saying => "broadcasts cannot be sent: cancels and pauses reach workers some seconds later",
            Self::Hearing => "broadcasts are not heard: cancels and pauses are noticed some seconds later",
            Self::Bells => "wake-ups are not announced: idle workers look once a second",
        }
    }
}

/// What is refused at present.
#[derive(Default)]
pub(super) struct Aside {
    queues: Mutex<HashMap<QueueName, Entry>>,
    /// How many these are, so that whoever is served need not lock.
    count: AtomicUsize,
    parts: Mutex<BTreeMap<Part, String>>,
}

impl Aside {
    fn queues(&self) -> MutexGuard<'_, HashMap<QueueName, Entry>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<Part, String>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a queue aside, or puts its next try off further.
    pub(super) fn refuse(&self, queue: &QueueName, step: Step, why: String) -> SetAside {
        self.refuse_at(Instant::now(), queue, step, why)
    }

    fn refuse_at(&self, now: Instant, queue: &QueueName, step: Step, why: String) -> SetAside {
        let mut queues = self.queues();
        let failures = queues.get(queue).map_or(0, |e| e.failures.saturating_add(1));
        let news = queues.get(queue).is_none_or(|e| e.why != why);
        let retry_in = AGAIN.ceiling(failures);
        let entry = Entry { why: why.clone(), step, failures, retry_at: now + retry_in };
        queues.insert(queue.clone(), entry);
        self.count.store(queues.len(), Ordering::Release);
        drop(queues);
        if news {
            tracing::warn!(queue = %queue, error = why, "queue is set aside, others go on; it is tried again");
        } else {
            tracing::debug!(queue = %queue, retry_in_ms = retry_in.as_millis() as u64, "queue is still refused");
        }
        SetAside { queue: queue.clone(), why }
    }

    /// Whether anything is set aside.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Notes that a queue is served.
    pub(super) fn admit(&self, queue: &QueueName) {
        if self.is_empty() {
            return;
        }
        let mut queues = self.queues();
        if queues.remove(queue).is_some() {
            tracing::info!(queue = %queue, "queue is served again");
        }
        self.count.store(queues.len(), Ordering::Release);
    }

    /// What was refused of a queue, if it is set aside.
    pub(super) fn step(&self, queue: &QueueName) -> Option<Step> {
        if self.is_empty() { None } else { self.queues().get(queue).map(|e| e.step) }
    }

    /// When a queue that is set aside is to be tried again; none if it may be tried now.
    pub(super) fn waits(&self, queue: &QueueName) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        self.queues().get(queue).map(|e| e.retry_at).filter(|at| *at > Instant::now())
    }

    /// Why a queue is set aside.
    pub(super) fn why(&self, queue: &QueueName) -> Option<SetAside> {
        if self.is_empty() {
            return None;
        }
        self.queues().get(queue).map(|e| SetAside { queue: queue.clone(), why: e.why.clone() })
    }

    /// All of them by name, without those that nobody has asked for since long.
    pub(super) fn list(&self) -> Vec<SetAside> {
        self.list_at(Instant::now())
    }

    fn list_at(&self, now: Instant) -> Vec<SetAside> {
        let mut queues = self.queues();
        queues.retain(|_, e| e.retry_at + FORGOTTEN > now);
        self.count.store(queues.len(), Ordering::Release);
        let mut all: Vec<SetAside> =
            queues.iter().map(|(queue, e)| SetAside { queue: queue.clone(), why: e.why.clone() }).collect();
        all.sort_by(|a, b| a.queue.cmp(&b.queue));
        all
    }

    /// Notes that the server refuses a part, and returns the error that says so.
    pub(super) fn refuse_part(&self, part: Part, why: String) -> BrokerError {
        if self.parts().insert(part, why.clone()).is_none_or(|before| before != why) {
            tracing::warn!(error = why, "{}", part.lack());
        }
        BrokerError::NoBroadcasts(why)
    }

    /// Notes that the server serves a part.
    pub(super) fn admit_part(&self, part: Part) {
        if self.parts().remove(&part).is_some() {
            tracing::info!(?part, "what the server refused is served again");
        }
    }

    /// A sentence for each thing that is refused; why is told elsewhere, because anybody may read these.
    pub(super) fn notes(&self) -> Vec<String> {
        let queue = |s: SetAside| format!("the queue `{}` is set aside, `app queues list` says why", s.queue);
        let parts: Vec<Part> = self.parts().keys().copied().collect();
        self.list().into_iter().map(queue).chain(parts.into_iter().map(|p| p.lack().to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_get_rarer_and_old_refusals_are_forgotten() {
        let (aside, queue) = (Aside::default(), QueueName::new("heavy").unwrap());
        assert!(aside.is_empty() && aside.waits(&queue).is_none());
        let now = Instant::now();
        let pauses = [(); 7].map(|()| {
            aside.refuse_at(now, &queue, Step::Have, "no".into());
            (aside.queues()[&queue].retry_at - now).as_secs()
        });
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert!(aside.waits(&queue).is_some());
        assert_eq!(aside.list_at(now), [SetAside { queue: queue.clone(), why: "no".into() }]);
        assert!(aside.notes()[0].contains("`heavy`"));
        assert_eq!(aside.list_at(now + Duration::from_secs(30) + FORGOTTEN), []);
        assert!(aside.is_empty());
        aside.refuse(&queue, Step::Take, "no".into());
        assert_eq!(aside.step(&queue), Some(Step::Take));
        aside.admit(&queue);
        assert!(aside.is_empty() && aside.step(&queue).is_none());
    }

    #[test]
    fn a_part_that_is_refused_is_noted_until_it_is_served() {
        let aside = Aside::default();
        assert_eq!(aside.refuse_part(Part::Saying, "no".into()), BrokerError::NoBroadcasts("no".into()));
        assert_eq!(aside.notes(), [Part::Saying.lack()]);
        aside.admit_part(Part::Saying);
        assert!(aside.notes().is_empty());
    }
}
