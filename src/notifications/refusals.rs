//! Refusals in a row: whether they speak of one recipient or of us.
//!
//! A relay that no longer takes mail from us refuses everybody, and its code often says no more
//! than that. So each refusal is compared with those before it:
//!
//! | the provider refuses | that is the fault of |
//! |---|---|
//! | one recipient, or a few | the recipient |
//! | so many different ones as [`ALIKE`] with one sentence, and takes nobody in between | our side |
//! | one for the third time with one sentence, and took others after each time before | the recipient |
//!
//! The last row keeps a recipient of whom the relay speaks as if it meant us from holding up the
//! others again and again. Everything is part of the breaker's entry in the cache, so all workers
//! count together; it is small, and forgotten.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::channels::{Fault, Refusal, Sense};
use crate::base::clock::Timestamp;

/// So many different recipients refused with one sentence speak of us.
pub const ALIKE: usize = 5;
/// Most sentences that are counted at a time; the one heard longest ago goes first.
const SENTENCES: usize = 4;
/// A sentence that was not heard for this long is forgotten.
const HEARD: Duration = Duration::from_secs(3600);
/// A sentence heard again this soon is not written down anew: many workers may hear it at once.
const LATELY: Duration = Duration::from_secs(60);
/// Most recipients of whom it is remembered that the provider took others after it had refused
/// them.
const PASSED: usize = 64;
/// So often a recipient is refused with one sentence, others taken in between, until it is the
/// recipient's own fault.
const OWN: u8 = 2;

/// What a refusal means beside those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Too few were refused to tell more.
    Few,
    /// Nobody is taken.
    All,
    /// Others are taken, again and again; this one is not.
    Alone,
}

/// What a provider refused lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refusals {
    runs: Vec<Run>,
    passed: Vec<Passed>,
}

/// One sentence, and who heard it since the provider last took a message. Names and sentences are
/// fingerprints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    sentence: String,
    /// Different ones, up to [`ALIKE`].
    recipients: Vec<String>,
    at: Timestamp,
}

/// A sentence to one recipient, and how often the provider took others after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Passed {
    case: String,
    times: u8,
}

impl Refusals {
    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.passed.is_empty()
    }

    /// Notes a refusal: what is remembered then, and what it means.
    #[must_use]
    pub fn note(&self, refusal: &Refusal, recipient: &str, now: Timestamp) -> (Self, Meaning) {
        let (sentence, recipient) = (fingerprint(&refusal.sentence), fingerprint(recipient));
        let case = case(&sentence, &recipient);
        if self.passed.iter().any(|p| p.case == case && p.times >= OWN) {
            return (self.clone(), Meaning::Alone);
        }
        let mut next = self.clone();
        next.runs.retain(|run| now < run.at.plus(HEARD));
        let mut run = match next.runs.iter().position(|run| run.sentence == sentence) {
            Some(at) => next.runs.remove(at),
            None => Run { sentence, recipients: Vec::new(), at: now },
        };
        if now >= run.at.plus(LATELY) {
            run.at = now;
        }
        if run.recipients.len() < ALIKE && !run.recipients.contains(&recipient) {
            run.recipients.push(recipient);
        }
        let limit = if refusal.sense == Sense::Ours { 1 } else { ALIKE };
        let meaning = if run.recipients.len() >= limit { Meaning::All } else { Meaning::Few };
        // The one heard last comes last; of those heard at the same time the order must not change
        // the entry.
        let place = next.runs.partition_point(|other| (other.at, &other.sentence) < (run.at, &run.sentence));
        next.runs.insert(place, run);
        if next.runs.len() > SENTENCES {
            next.runs.remove(0);
        }
        (next, meaning)
    }

    /// What is remembered after the provider took a message.
    #[must_use]
    pub fn passed(&self) -> Self {
        let mut passed = self.passed.clone();
        for run in &self.runs {
            for recipient in &run.recipients {
                let case = case(&run.sentence, recipient);
                match passed.iter_mut().find(|p| p.case == case) {
                    Some(known) => known.times = known.times.saturating_add(1),
                    None => passed.push(Passed { case, times: 1 }),
                }
            }
        }
        let over = passed.len().saturating_sub(PASSED);
        passed.drain(..over);
        Self { runs: Vec::new(), passed }
    }
}

/// The fault of a refusal that means this beside those before it (nobody knows if the cache is
/// away), and a better sentence.
///
/// Mailboxes that do not exist fail for good, however many they are: lists have such, and their
/// mail must not stop that of others. But a relay that says so of everybody it is asked for is
/// believed only for the first few: the others are not suppressed, so that a relay which has lost
/// its table of users makes no customer unreachable. Told again of one of them after it took
/// others, it is believed.
pub(super) fn weigh(fault: Fault, refusal: &Refusal, meaning: Option<Meaning>) -> (Fault, Option<String>) {
    match (refusal.sense, meaning) {
        (Sense::Ours, Some(Meaning::Alone)) | (Sense::Mailbox, Some(Meaning::All) | None) => {
            (Fault::Recipient { suppress: false }, None)
        }
        (Sense::Unclear, Some(Meaning::All)) => (Fault::Configuration, Some(refusal.advice.clone())),
        _ => (fault, None),
    }
}

fn case(sentence: &str, recipient: &str) -> String {
    fingerprint(&format!("{sentence} {recipient}"))
}

/// Short, of one length, and no recipient's name.
fn fingerprint(text: &str) -> String {
    Sha256::digest(text).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }

    fn refusal(sentence: &str, sense: Sense) -> Refusal {
        Refusal { sentence: sentence.to_owned(), sense, advice: String::new() }
    }

    /// Refuses these recipients one after the other; returns what the last refusal means.
    fn refuse(all: &mut Refusals, sentence: &str, sense: Sense, who: &[&str], now: i64) -> Option<Meaning> {
        let mut last = None;
        for name in who {
            let (next, meaning) = all.note(&refusal(sentence, sense), name, at(now));
            *all = next;
            last = Some(meaning);
        }
        last
    }

    #[test]
    fn five_different_recipients_refused_alike_speak_of_us() {
        let mut all = Refusals::default();
        let four = ["a", "b", "c", "d", "a", "b", "a"];
        assert_eq!(refuse(&mut all, "no", Sense::Unclear, &four, 0), Some(Meaning::Few), "no fifth one");
        assert_eq!(refuse(&mut all, "never", Sense::Unclear, &["e"], 0), Some(Meaning::Few), "another sentence");
        assert_eq!(refuse(&mut all, "no", Sense::Unclear, &["e"], 0), Some(Meaning::All));
        let before = all.clone();
        assert_eq!(refuse(&mut all, "no", Sense::Unclear, &["f", "g"], 1), Some(Meaning::All));
        assert_eq!(all, before, "more of the same changes nothing, so that workers do not fight for the entry");
        all = all.passed();
        assert_eq!(refuse(&mut all, "no", Sense::Unclear, &four, 2), Some(Meaning::Few), "one was taken in between");
    }

    #[test]
    fn a_sentence_about_us_needs_no_second_recipient() {
        let mut all = Refusals::default();
        assert_eq!(refuse(&mut all, "relay not permitted", Sense::Ours, &["a"], 0), Some(Meaning::All));
    }

    #[test]
    fn a_sentence_is_forgotten_after_an_hour_of_silence() {
        let mut all = Refusals::default();
        for (n, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let now = i64::try_from(n).unwrap() * 3599;
            assert_eq!(refuse(&mut all, "no", Sense::Unclear, &[name], now), Some(Meaning::Few));
        }
        let mut silent = all.clone();
        assert_eq!(refuse(&mut silent, "no", Sense::Unclear, &["e"], 4 * 3599), Some(Meaning::All));
        assert_eq!(refuse(&mut all, "no", Sense::Unclear, &["e"], 5 * 3600), Some(Meaning::Few));
    }

    #[test]
    fn who_alone_is_refused_again_and_again_holds_nobody_up() {
        let mut all = Refusals::default();
        for _ in 0..OWN {
            assert_eq!(refuse(&mut all, "access denied", Sense::Ours, &["a"], 0), Some(Meaning::All));
            all = all.passed();
        }
        assert_eq!(refuse(&mut all, "access denied", Sense::Ours, &["a"], 0), Some(Meaning::Alone));
        assert_eq!(refuse(&mut all, "access denied", Sense::Ours, &["b"], 0), Some(Meaning::All));
        assert_eq!(refuse(&mut all, "something else", Sense::Ours, &["a"], 0), Some(Meaning::All));
    }

    #[test]
    fn what_is_remembered_stays_small() {
        let mut all = Refusals::default();
        for n in 0..1000 {
            let who = [format!("r{n}"), format!("s{n}")];
            let who = [who[0].as_str(), who[1].as_str()];
            refuse(&mut all, &format!("sentence {n}"), Sense::Unclear, &who, n);
            if n % 7 == 0 {
                all = all.passed();
            }
        }
        assert!(all.runs.len() <= SENTENCES && all.passed.len() <= PASSED, "{all:?}");
        assert!(serde_json::to_vec(&all).unwrap().len() < 4 << 10);
    }

    #[test]
    fn a_refusal_is_weighed_beside_those_before_it() {
        use Meaning::{All, Alone, Few};
        let (gone, refused) = (Fault::Recipient { suppress: true }, Fault::Recipient { suppress: false });
        for (sense, fault, meaning, weighed) in [
            (Sense::Ours, Fault::Configuration, Some(All), Fault::Configuration),
            (Sense::Ours, Fault::Configuration, None, Fault::Configuration),
            (Sense::Ours, Fault::Configuration, Some(Alone), refused),
            (Sense::Unclear, refused, Some(Few), refused),
            (Sense::Unclear, refused, Some(All), Fault::Configuration),
            (Sense::Unclear, Fault::Message, Some(All), Fault::Configuration),
            (Sense::Unclear, refused, Some(Alone), refused),
            (Sense::Unclear, refused, None, refused),
            (Sense::Mailbox, gone, Some(Few), gone),
            (Sense::Mailbox, gone, Some(All), refused),
            (Sense::Mailbox, gone, Some(Alone), gone),
            (Sense::Mailbox, gone, None, refused),
        ] {
            let refusal = Refusal { sentence: "550 no".into(), sense, advice: "look".into() };
            let (found, message) = weigh(fault, &refusal, meaning);
            assert_eq!(found, weighed, "{sense:?} {fault:?} {meaning:?}");
            assert_eq!(message.is_some(), sense == Sense::Unclear && meaning == Some(All));
        }
    }
}
