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
/// A refusal that nobody has met again for so long after the time to try is no longer told, and news
/// when it is met again.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// What the server refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To have the queue at all: declaring it, or writing to it.
    Have,
    /// Taking from it.
    Take,
    /// To take in more than it has now: it is full. Nobody waits before the next try.
    Fill,
}

struct Entry {
    /// What the step said that was told last.
    why: String,
    step: Step,
    /// What was warned of, the last at the end. Publishers and consumers may meet the same fault and
    /// say different things of it in turns, and that is no news.
    told: Vec<Step>,
    failures: u32,
    retry_at: Instant,
}

impl Entry {
    fn is_old(&self, now: Instant) -> bool {
        self.retry_at + FORGOTTEN <= now
    }

    /// Notes one more refusal; answers whether it is news.
    fn add(&mut self, now: Instant, step: Step, why: String) -> bool {
        if step == Step::Fill && self.step != Step::Fill {
            // What is refused is more than that.
            return false;
        }
        let news = !self.told.contains(&step);
        if news {
            self.told.push(step);
        }
        if self.told.last() == Some(&step) {
            self.why = why;
        }
        self.step = step;
        self.retry_at = now;
        if step != Step::Fill {
            self.retry_at += AGAIN.ceiling(self.failures);
            self.failures = self.failures.saturating_add(1);
        }
        news
    }

    fn set_aside(&self, queue: &QueueName) -> SetAside {
        SetAside { queue: queue.clone(), why: self.why.clone() }
    }

    /// What it means, without why: for everybody's eyes.
    fn note(&self, queue: &QueueName) -> String {
        let what = if self.step == Step::Fill { "takes no wake-ups for now" } else { "is set aside" };
        format!("the queue `{queue}` {what}, `app queues list` says why")
    }
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
        let (refused, news) = self.refuse_at(Instant::now(), queue, step, why);
        let error = &refused.why;
        match step {
            _ if !news => tracing::debug!(queue = %queue, error, "queue is still refused"),
            Step::Fill => tracing::warn!(queue = %queue, error, "queue takes no wake-ups for now, they are repeated"),
            Step::Have | Step::Take => {
                tracing::warn!(queue = %queue, error, "queue is set aside, others go on; it is tried again");
            }
        }
        refused
    }

    /// Answers also whether it is news.
    fn refuse_at(&self, now: Instant, queue: &QueueName, step: Step, why: String) -> (SetAside, bool) {
        let mut queues = self.queues();
        let known = queues.remove(queue).filter(|e| !e.is_old(now));
        let mut entry =
            known.unwrap_or_else(|| Entry { why: String::new(), step, told: Vec::new(), failures: 0, retry_at: now });
        let news = entry.add(now, step, why);
        let refused = entry.set_aside(queue);
        queues.insert(queue.clone(), entry);
        self.count.store(queues.len(), Ordering::Release);
        (refused, news)
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
        self.queues().get(queue).map(|e| e.set_aside(queue))
    }

    /// All of them by name, without those that nobody has asked for since long.
    pub(super) fn list(&self) -> Vec<SetAside> {
        self.list_at(Instant::now(), Entry::set_aside)
    }

    fn list_at<T>(&self, now: Instant, told: fn(&Entry, &QueueName) -> T) -> Vec<T> {
        let mut queues = self.queues();
        queues.retain(|_, e| !e.is_old(now));
        self.count.store(queues.len(), Ordering::Release);
        let by_name: BTreeMap<&QueueName, &Entry> = queues.iter().collect();
        by_name.into_iter().map(|(queue, e)| told(e, queue)).collect()
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
        let parts: Vec<Part> = self.parts().keys().copied().collect();
        let queues = self.list_at(Instant::now(), Entry::note);
        queues.into_iter().chain(parts.into_iter().map(|p| p.lack().to_owned())).collect()
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
        assert_eq!(aside.list_at(now, Entry::set_aside), [SetAside { queue: queue.clone(), why: "no".into() }]);
        assert!(aside.notes()[0].contains("`heavy`"));
        assert_eq!(aside.list_at(now + Duration::from_secs(30) + FORGOTTEN, Entry::set_aside), []);
        assert!(aside.is_empty());
        aside.refuse(&queue, Step::Take, "no".into());
        assert_eq!(aside.step(&queue), Some(Step::Take));
        aside.admit(&queue);
        assert!(aside.is_empty() && aside.step(&queue).is_none());
    }

    /// As publishers and consumers of one queue do whose key in Redis is of another type.
    #[test]
    fn two_steps_that_alternate_are_told_once_each() {
        let (aside, queue, now) = (Aside::default(), QueueName::new("heavy").unwrap(), Instant::now());
        let refuse = |step, why: &str| {
            let (refused, news) = aside.refuse_at(now, &queue, step, why.into());
            (refused.why, news)
        };
        assert_eq!(refuse(Step::Have, "a key"), ("a key".to_owned(), true));
        assert_eq!(refuse(Step::Take, "the key 5"), ("the key 5".to_owned(), true));
        for _ in 0..3 {
            assert_eq!(refuse(Step::Have, "a key"), ("the key 5".to_owned(), false));
            assert_eq!(refuse(Step::Take, "the key 5"), ("the key 5".to_owned(), false));
        }
        assert_eq!(refuse(Step::Take, "the key 7"), ("the key 7".to_owned(), false));
        aside.admit(&queue);
        assert!(aside.refuse_at(now, &queue, Step::Have, "a key".into()).1, "it was served in the meantime");
        let later = now + Duration::from_secs(1) + FORGOTTEN;
        assert!(aside.refuse_at(later, &queue, Step::Have, "a key".into()).1, "it was forgotten");
    }

    #[test]
    fn a_full_queue_is_told_for_a_while_and_tried_at_once() {
        let (aside, queue, now) = (Aside::default(), QueueName::new("heavy").unwrap(), Instant::now());
        for news in [true, false, false] {
            assert_eq!(aside.refuse_at(now, &queue, Step::Fill, "full".into()).1, news);
            assert!(aside.waits(&queue).is_none());
        }
        assert!(aside.notes()[0].contains("`heavy` takes no wake-ups for now"));
        aside.refuse_at(now, &queue, Step::Have, "no".into());
        aside.refuse_at(now, &queue, Step::Fill, "full".into());
        assert_eq!((aside.step(&queue), aside.why(&queue).unwrap().why.as_str()), (Some(Step::Have), "no"));
        aside.admit(&queue);
        aside.refuse_at(now, &queue, Step::Fill, "full".into());
        assert_eq!(aside.list_at(now + FORGOTTEN, Entry::set_aside), []);
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
