//! The circuit breaker of a provider: after five failures in a row nobody knocks for a minute.
//!
//! ```text
//! closed ──5 failures in a row, or a configuration fault──▶ open ──60 s──▶ half-open ──2 successes──▶ closed
//!                                                            ▲                 │
//!                                                            └────a failure────┘
//! ```
//! Its state is one entry of the cache, changed by compare-and-set, so all workers share it. Half-open admits one message at
//! a time. A cache that is away counts as closed: a breaker must not be what stops messages.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::json;

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
}

/// What a message came back with, as far as its provider is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider works; the recipient or the message may still be at fault.
    Success,
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
        let open = |failures| Self {
            position: Position::Open,
            failures,
            successes: 0,
            until: Some(now.plus(OPEN_FOR)),
            probe_until: None,
            reason: Some(reason.to_owned()),
        };
        match (self.position, outcome) {
            (Position::Closed, Outcome::Success) => (self.failures > 0).then(Self::default),
            (Position::HalfOpen, Outcome::Success) if self.successes + 1 >= SUCCESSES => Some(Self::default()),
            (Position::HalfOpen, Outcome::Success) => {
                Some(Self { successes: self.successes + 1, probe_until: None, ..self.clone() })
            }
            // Sent before it opened: says nothing of how the provider is now.
            (Position::Open, _) => None,
            (_, Outcome::Refusal) | (Position::HalfOpen, Outcome::Failure) => Some(open(self.failures + 1)),
            (Position::Closed, Outcome::Failure) if self.failures + 1 >= FAILURES => Some(open(self.failures + 1)),
            (Position::Closed, Outcome::Failure) => {
                Some(Self { failures: self.failures + 1, reason: Some(reason.to_owned()), ..self.clone() })
            }
        }
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
}
