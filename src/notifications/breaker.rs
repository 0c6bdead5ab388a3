//! The circuit breaker of a provider: after five failures in a row nobody knocks for a minute.
//!
//! ```text
//! closed ──5 failures in a row, or a fault of our side──▶ open ──60 s──▶ half-open ──2 successes──▶ closed
//!                                                         ▲                 │
//!                                                         └────a failure────┘
//! ```
//! Its state is one entry of the cache, changed by compare-and-set, so all workers share it. Half-open admits one message at
//! a time. A cache that is away counts as closed: a breaker must not be what stops messages. A fault of our side is one that
//! the provider calls so, or that [`Refusals`] find when it refuses one recipient after the other with the same words.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    channels::{Refusal, Sense},
    refusals::{Meaning, Refusals},
};
use crate::{
    base::clock::{Clock, Timestamp},
    cache::{Cache, CacheError, Entry},
    events::{Bell, Event},
    records::RecordStore,
    telemetry::metrics as names,
};

/// Failures in a row that open it.
pub const FAILURES: u32 = 5;
/// How long it stays open.
pub const OPEN_FOR: Duration = Duration::from_secs(60);
/// Successes that close it again.
pub const SUCCESSES: u32 = 2;
/// After this long a probe that told nothing is given up, because its worker may have died.
const PROBE_FOR: Duration = Duration::from_secs(90);
/// When to ask again while another message probes.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How long a breaker that nobody touches is remembered.
const REMEMBERED: Duration = Duration::from_secs(86_400);
/// Attempts at a change against other workers.
const TRIES: u32 = 16;
/// Most providers in the list; each recipient's host is one.
const LISTED: usize = 200;
/// The entry that lists the providers.
const LIST: &str = "breakers";

/// Which way it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// Messages pass.
    #[default]
    Closed,
    /// None pass until a time.
    Open,
    /// One at a time passes.
    HalfOpen,
}

/// The state of one breaker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Which way it stands.
    pub position: Position,
    /// Failures in a row.
    pub failures: u32,
    /// Successes since it was half-open.
    pub successes: u32,
    /// Until when it is open.
    pub until: Option<Timestamp>,
    /// Until when a message that probes has time to tell.
    pub probe_until: Option<Timestamp>,
    /// Why it failed last.
    pub reason: Option<String>,
    /// Whom it refused, and with what words.
    #[serde(default, skip_serializing_if = "Refusals::is_empty")]
    pub refusals: Refusals,
}

/// What a message came back with, as far as its provider is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider takes recipients; the message may still be at fault.
    Success,
    /// The provider works, but whether it takes anybody is not known.
    Answered,
    /// The provider failed.
    Failure,
    /// Nothing will pass until someone mends our side.
    Refusal,
}

impl State {
    /// Asks for a message to pass: the state after, or when to ask again.
    fn admit(&self, now: Timestamp) -> Result<Option<Self>, Timestamp> {
        let probe =
            || Some(Self { position: Position::HalfOpen, probe_until: Some(now.plus(PROBE_FOR)), ..self.clone() });
        match self.position {
            Position::Closed => Ok(None),
            Position::Open => match self.until.filter(|t| *t > now) {
                Some(until) => Err(until),
                None => Ok(probe()),
            },
            Position::HalfOpen => match self.probe_until.filter(|t| *t > now) {
                Some(_) => Err(now.plus(ASK_AGAIN)),
                None => Ok(probe()),
            },
        }
    }

    /// The state after a message came back; none if it is the same.
    fn after(&self, outcome: Outcome, reason: &str, now: Timestamp) -> Option<Self> {
        let refusals = match outcome {
            Outcome::Success => self.refusals.passed(),
            Outcome::Answered | Outcome::Failure | Outcome::Refusal => self.refusals.clone(),
        };
        let same = Self { refusals: refusals.clone(), ..self.clone() };
        let closed = || Self { refusals: refusals.clone(), ..Self::default() };
        let open = |failures| Self {
            position: Position::Open,
            failures,
            successes: 0,
            until: Some(now.plus(OPEN_FOR)),
            probe_until: None,
            reason: Some(reason.to_owned()),
            refusals: refusals.clone(),
        };
        let next = match (self.position, outcome) {
            (Position::Closed, Outcome::Success | Outcome::Answered) if self.failures > 0 => closed(),
            (Position::Closed, Outcome::Success | Outcome::Answered) => same,
            (Position::HalfOpen, Outcome::Success | Outcome::Answered) if self.successes + 1 >= SUCCESSES => closed(),
            (Position::HalfOpen, Outcome::Success | Outcome::Answered) => {
                Self { successes: self.successes + 1, probe_until: None, ..same }
            }
            // Sent before it opened: says nothing of how the provider is now.
            (Position::Open, _) => return None,
            (_, Outcome::Refusal) | (Position::HalfOpen, Outcome::Failure) => open(self.failures + 1),
            (Position::Closed, Outcome::Failure) if self.failures + 1 >= FAILURES => open(self.failures + 1),
            (Position::Closed, Outcome::Failure) => {
                Self { failures: self.failures + 1, reason: Some(reason.to_owned()), ..same }
            }
        };
        Some(next).filter(|next| next != self)
    }

    /// The state after a recipient was refused, and what the refusal means.
    fn refused(&self, refusal: &Refusal, recipient: &str, now: Timestamp) -> (Option<Self>, Meaning) {
        let (refusals, meaning) = self.refusals.note(refusal, recipient, now);
        let noted = Self { refusals, ..self.clone() };
        // A mailbox that does not exist says nothing of us, and lists with many such are common: they must not stop the mail.
        let opens = meaning == Meaning::All && refusal.sense != Sense::Mailbox;
        let outcome = if opens { Outcome::Refusal } else { Outcome::Answered };
        let next = noted.after(outcome, &refusal.advice, now).unwrap_or(noted);
        (Some(next).filter(|next| next != self), meaning)
    }
}

/// The breakers of all providers.
#[derive(Clone)]
pub struct Breakers {
    cache: Arc<dyn Cache>,
    records: Arc<dyn RecordStore>,
    bell: Arc<dyn Bell>,
    clock: Clock,
}

fn key(provider: &str) -> String {
    format!("breaker:{provider}")
}

fn read(entry: Option<&Entry>) -> State {
    // A shape of another version counts as closed: it is short-lived state.
    entry.and_then(|e| serde_json::from_slice(&e.value).ok()).unwrap_or_default()
}

impl Breakers {
    /// Breakers that are kept in `cache`.
    #[must_use]
    pub fn new(cache: Arc<dyn Cache>, records: Arc<dyn RecordStore>, bell: Arc<dyn Bell>, clock: Clock) -> Self {
        Self { cache, records, bell, clock }
    }

    /// How a provider's breaker stands.
    pub async fn state(&self, provider: &str) -> State {
        match self.cache.get(&key(provider)).await {
            Ok(entry) => read(entry.as_ref()),
            Err(_away) => State::default(),
        }
    }

    /// Asks to let one message pass. If it passes, [`Breakers::report`] must tell what came of it.
    ///
    /// # Errors
    /// When to ask again, if it is open.
    pub async fn admit(&self, provider: &str) -> Result<(), Timestamp> {
        let changed = self.change(provider, |state, now| match state.admit(now) {
            Ok(next) => (next, Ok(())),
            Err(until) => (None, Err(until)),
        });
        changed.await.unwrap_or(Ok(()))
    }

    /// Tells what came of a message.
    pub async fn report(&self, provider: &str, outcome: Outcome, reason: &str) {
        let told = self.change(provider, |state, now| (state.after(outcome, reason, now), ())).await;
        if let Err(e) = told {
            tracing::debug!(provider, error = %e, "breaker not told");
        }
    }

    /// Tells that a recipient was refused, and returns what that means beside the refusals before; none if the cache is away.
    pub async fn refused(&self, provider: &str, refusal: &Refusal, recipient: &str) -> Option<Meaning> {
        match self.change(provider, |state, now| state.refused(refusal, recipient, now)).await {
            Ok(meaning) => Some(meaning),
            Err(e) => {
                tracing::debug!(provider, error = %e, "breaker not told");
                None
            }
        }
    }

    /// Closes a breaker, whatever it knows.
    ///
    /// # Errors
    /// If the cache is away.
    pub async fn reset(&self, provider: &str) -> Result<(), CacheError> {
        self.change(provider, |state, _| ((*state != State::default()).then(State::default), ())).await
    }

    /// Every provider that failed lately, with its state.
    ///
    /// # Errors
    /// If the cache is away.
    pub async fn list(&self) -> Result<Vec<(String, State)>, CacheError> {
        let entry = self.cache.get(LIST).await?;
        let mut all = Vec::new();
        for provider in listed(entry.as_ref()) {
            let state = self.cache.get(&key(&provider)).await?;
            all.push((provider, read(state.as_ref())));
        }
        Ok(all)
    }

    async fn change<T>(
        &self,
        provider: &str,
        next: impl Fn(&State, Timestamp) -> (Option<State>, T),
    ) -> Result<T, CacheError> {
        let key = key(provider);
        for _ in 0..TRIES {
            let entry = self.cache.get(&key).await?;
            let state = read(entry.as_ref());
            let (new, answer) = next(&state, self.clock.now());
            let Some(new) = new else { return Ok(answer) };
            let value = serde_json::to_vec(&new).map_err(|e| CacheError::Unavailable(e.to_string()))?;
            let version = entry.map(|e| e.version);
            if self.cache.update(&key, version, &value, REMEMBERED).await?.is_some() {
                self.tell(provider, &state, &new).await;
                return Ok(answer);
            }
        }
        Err(CacheError::Unavailable("others keep changing the breaker".to_owned()))
    }

    /// Counts, logs and tells a change of position.
    async fn tell(&self, provider: &str, old: &State, new: &State) {
        self.enlist(provider).await;
        if old.position == new.position {
            return;
        }
        let name = match new.position {
            Position::Open => "breaker.opened",
            Position::Closed => "breaker.closed",
            Position::HalfOpen => return,
        };
        let to = if new.position == Position::Open { "open" } else { "closed" };
        metrics::counter!(names::BREAKER_CHANGES, "to" => to).increment(1);
        let reason = new.reason.as_deref().or(old.reason.as_deref()).unwrap_or("-");
        tracing::warn!(provider, to, reason, "circuit breaker changed");
        let data = json!({ "provider": provider, "position": to, "reason": reason, "until": new.until });
        let events = [Event::new(&self.clock, name, provider, data)];
        match self.records.commit(Vec::new(), &events).await {
            Ok(_) => self.bell.ring(&events).await,
            Err(e) => tracing::error!(provider, error = %e, "event of a circuit breaker not stored"),
        }
    }

    async fn enlist(&self, provider: &str) {
        for _ in 0..TRIES {
            let Ok(entry) = self.cache.get(LIST).await else { return };
            let mut all = listed(entry.as_ref());
            if all.iter().any(|p| p == provider) {
                return;
            }
            all.insert(0, provider.to_owned());
            all.truncate(LISTED);
            let Ok(value) = serde_json::to_vec(&all) else { return };
            match self.cache.update(LIST, entry.map(|e| e.version), &value, REMEMBERED).await {
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return,
            }
        }
    }
}

fn listed(entry: Option<&Entry>) -> Vec<String> {
    entry.and_then(|e| serde_json::from_slice(&e.value).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }

    fn after(state: &State, outcomes: &[Outcome]) -> State {
        outcomes.iter().fold(state.clone(), |s, o| s.after(*o, "x", at(0)).unwrap_or(s))
    }

    #[test]
    fn five_failures_in_a_row_open_it() {
        use Outcome::{Failure as F, Success as S};
        let closed = State::default();
        assert_eq!(after(&closed, &[F, F, F, F]).position, Position::Closed);
        assert_eq!(after(&closed, &[F, F, F, F, S]), closed);
        assert_eq!(after(&closed, &[F, F, F, F, S, F, F, F, F]).position, Position::Closed);
        let open = after(&closed, &[F, F, F, F, F]);
        assert_eq!((open.position, open.until), (Position::Open, Some(at(60))));
        assert_eq!(after(&open, &[S, S, F]), open, "late answers change nothing");
        assert_eq!(after(&closed, &[Outcome::Refusal]).position, Position::Open);
    }

    #[test]
    fn one_probe_at_a_time_and_two_successes_close_it() {
        use Outcome::{Failure as F, Success as S};
        let open = after(&State::default(), &[F; 5]);
        assert_eq!(open.admit(at(59)), Err(at(60)));
        let probing = open.admit(at(60)).unwrap().unwrap();
        assert_eq!(probing.position, Position::HalfOpen);
        assert_eq!(probing.admit(at(61)), Err(at(63)), "another probes");
        assert!(probing.admit(at(151)).unwrap().is_some(), "the probe told nothing");
        let once = after(&probing, &[S]);
        assert_eq!((once.position, once.successes), (Position::HalfOpen, 1));
        let again = once.admit(at(62)).unwrap().unwrap();
        assert_eq!(after(&again, &[S]), State::default());
        assert_eq!(after(&again, &[F]).position, Position::Open);
        assert_eq!(after(&probing, &[F]).until, Some(at(60)));
    }
    #[test]
    fn refusals_alike_open_it_and_a_message_taken_forgets_them() {
        let refusal = |sense| Refusal { sentence: "550 go away".into(), sense, advice: "look".into() };
        let refuse = |state: &State, sense, from: i64| {
            (from..from + 5).fold((state.clone(), Meaning::Few), |(s, _), n| {
                let (next, meaning) = s.refused(&refusal(sense), &n.to_string(), at(0));
                (next.unwrap_or(s), meaning)
            })
        };
        let (open, meaning) = refuse(&State::default(), Sense::Unclear, 0);
        assert_eq!((open.position, open.reason.as_deref(), meaning), (Position::Open, Some("look"), Meaning::All));
        let probing = open.admit(at(60)).unwrap().unwrap();
        let (again, meaning) = probing.refused(&refusal(Sense::Unclear), "new", at(61));
        let again = again.unwrap();
        assert_eq!((again.position, again.until, meaning), (Position::Open, Some(at(121)), Meaning::All));
        let taken = after(&again.admit(at(121)).unwrap().unwrap(), &[Outcome::Success]);
        let (one, meaning) = taken.refused(&refusal(Sense::Unclear), "new", at(121));
        assert_eq!((one.unwrap().position, meaning), (Position::Closed, Meaning::Few), "somebody was taken in between");
        let (listed, meaning) = refuse(&State::default(), Sense::Mailbox, 0);
        assert_eq!((listed.position, meaning), (Position::Closed, Meaning::All), "mailboxes never open it");
        let (named, meaning) = State::default().refused(&refusal(Sense::Ours), "a", at(0));
        assert_eq!((named.unwrap().position, meaning), (Position::Open, Meaning::All));
    }

    #[test]
    fn a_state_of_an_older_version_is_read() {
        let old = r#"{"position":"open","failures":5,"successes":0,"until":"2026-11-30T08:00:00Z","probe_until":null,
            "reason":"x"}"#;
        let state: State = serde_json::from_str(old).unwrap();
        assert!(state.position == Position::Open && state.refusals.is_empty());
    }
}
