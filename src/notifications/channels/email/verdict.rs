//! What a relay's answer means, by its code, its enhanced code (RFC 3463) and the step at which it came.
//!
//! | answer | means |
//! |---|---|
//! | none, before the final dot | the relay is away: again |
//! | none, after it | it may have been taken: again, with the same Message-ID |
//! | 421, and 4xx before a mail begins | the relay is away |
//! | 530, 534, 535, 538; any 5xx to AUTH and STARTTLS; a refused sender | we are not let in |
//! | any other to MAIL or RCPT whose words speak of us (see `words`) | we are not let in |
//! | 4xx | later, in minutes |
//! | 5xx to the greeting | the relay refuses us all: as if it were away |
//! | 550, 551, 553 with 5.1.x | no such mailbox: never again |
//! | 550, 551, 553 without an enhanced code to RCPT | this recipient is refused, for good, and nobody knows why |
//! | 5.2.2, and 552 that is not about the mail's size | the mailbox is full: later |
//! | any other 5xx, such as 5.7.x | this mail is refused, for good |
//!
//! What refuses a recipient carries its words along ([`Refusal`]): said to many alike, they speak of us.

use std::{error::Error as _, time::Duration};

use lettre::transport::smtp::Error;

use super::{
    super::{Fault, Refusal, SendError, Sense, fault::one_line},
    Step, words,
};

/// A code of RFC 3463, such as 5.1.1.
pub(super) type Enhanced = (u16, u16, u16);

/// For whom a mail is, and by which relay it goes.
#[derive(Clone, Copy)]
pub(super) struct Errand<'a> {
    /// The recipient.
    pub(super) mailbox: &'a str,
    /// The relay's host and port.
    pub(super) relay: &'a str,
}

/// Judges an error.
pub(super) fn of(step: Step, e: &Error, errand: Errand<'_>) -> SendError {
    if let Some(code) = e.status().map(u16::from) {
        let said = e.source().map(ToString::to_string).unwrap_or_default();
        return answered(step, code, &said, errand);
    }
    if e.is_client() && step == Step::LoggingIn {
        let why = "the relay offers no way to log in with a password (PLAIN or LOGIN)";
        return SendError::new(Fault::Configuration, "smtp_auth", why);
    }
    match step {
        Step::Dot => {
            SendError::new(Fault::Ambiguous, "connection_lost", format!("no answer after the end of the mail: {e}"))
        }
        Step::Waiting | Step::Connecting | Step::Encrypting => {
            SendError::new(Fault::Provider, "connect_failed", e.to_string())
        }
        _ => SendError::new(Fault::Provider, "connection_lost", e.to_string()),
    }
}

/// Judges an answer, and says what to look at if it means us.
fn answered(step: Step, code: u16, said: &str, errand: Errand<'_>) -> SendError {
    let (fault, refusal) = of_answer(step, code, said, errand.mailbox);
    let advice = |what: &str| {
        format!(
            "the relay {} {what}: check `email.host`, `email.username`, `email.password`, and whom it lets send; \
             it says: {code} {said}",
            errand.relay
        )
    };
    let message = match fault {
        Fault::Configuration if step == Step::LoggingIn => advice("does not let us log in"),
        Fault::Configuration => advice("takes no mail from us"),
        _ => format!("{code} {said}"),
    };
    let mut error = SendError::new(fault, format!("smtp_{code}"), message);
    error.refusal = refusal.map(|(sense, sentence)| {
        let advice = match sense {
            Sense::Ours => error.message.clone(),
            Sense::Unclear | Sense::Mailbox => one_line(&advice("refuses one recipient after another alike")),
        };
        Box::new(Refusal { sentence, sense, advice })
    });
    error
}

/// Judges a connection that would not begin anew; a fresh one is tried before this is ever told.
pub(super) fn worn() -> SendError {
    SendError::new(Fault::Provider, "connection_lost", "the relay would not take another mail on its connection")
}

/// Judges a send that took too long.
pub(super) fn timed_out(step: Step, limit: Duration) -> SendError {
    match step {
        Step::Dot => SendError::new(
            Fault::Ambiguous,
            "timed_out",
            format!("no answer to the end of the mail within {limit:?} of the beginning"),
        ),
        Step::Waiting => SendError::new(
            Fault::Provider,
            "timed_out",
            format!("no connection to the relay became free within {limit:?}"),
        ),
        _ => SendError::new(Fault::Provider, "timed_out", format!("not done within {limit:?}")),
    }
}

/// The fault; and if a recipient is refused, of whom that speaks, with its words.
fn of_answer(step: Step, code: u16, said: &str, mailbox: &str) -> (Fault, Option<(Sense, String)>) {
    let enhanced = enhanced(said);
    let at_envelope = matches!(step, Step::Sender | Step::Recipient);
    let sentence = words::sentence(code, said, mailbox);
    let fault = of_codes(step, code, enhanced);
    match fault {
        Fault::Later | Fault::Message | Fault::Recipient { suppress: false }
            if at_envelope && words::speaks_of_us(&sentence, enhanced) =>
        {
            (Fault::Configuration, Some((Sense::Ours, sentence)))
        }
        Fault::Recipient { suppress: true } => (fault, Some((Sense::Mailbox, sentence))),
        Fault::Message | Fault::Recipient { .. } if at_envelope => {
            let sense = if matches!(enhanced, Some((5, 1 | 2, _))) { Sense::Mailbox } else { Sense::Unclear };
            (fault, Some((sense, sentence)))
        }
        _ => (fault, None),
    }
}

fn of_codes(step: Step, code: u16, enhanced: Option<Enhanced>) -> Fault {
    let sender_refused = step == Step::Sender && matches!((code, enhanced), (550 | 551 | 553, None))
        || matches!(enhanced, Some((5, 1, 7 | 8)));
    match (code, enhanced) {
        (421, _) => Fault::Provider,
        (400..=499, _) if step < Step::Sender => Fault::Provider,
        (400..=499, _) => Fault::Later,
        (530 | 534 | 535 | 538, _) => Fault::Configuration,
        _ if matches!(step, Step::Encrypting | Step::LoggingIn) => Fault::Configuration,
        _ if step < Step::Sender => Fault::Provider,
        _ if sender_refused => Fault::Configuration,
        (550 | 551 | 553, Some((5, 1, _))) => Fault::Recipient { suppress: true },
        (550 | 551 | 553, None) if step == Step::Recipient => Fault::Recipient { suppress: false },
        (_, Some((5, 2, 2))) => Fault::Later,
        (552, Some((5, 2 | 3, 3 | 4))) => Fault::Message,
        (552, _) if !matches!(enhanced, Some((5, 7, _))) => Fault::Later,
        _ => Fault::Message,
    }
}

/// The enhanced code at the beginning of an answer: `5.1.1`.
pub(super) fn enhanced(said: &str) -> Option<Enhanced> {
    let mut parts = said.split_whitespace().next()?.splitn(3, '.').map(str::parse);
    match (parts.next()?, parts.next()?, parts.next()?) {
        (Ok(class @ (2 | 4 | 5)), Ok(subject), Ok(detail)) => Some((class, subject, detail)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_meaning() {
        use Fault::{Configuration, Later, Message, Provider};
        let gone = Fault::Recipient { suppress: true };
        let refused = Fault::Recipient { suppress: false };
        for (step, code, said, fault) in [
            (Step::Recipient, 450, "4.2.0 greylisted", Later),
            (Step::Dot, 451, "try later", Later),
            (Step::Recipient, 452, "4.2.2 over quota", Later),
            (Step::Recipient, 421, "4.3.2 closing", Provider),
            (Step::Connecting, 450, "busy", Provider),
            (Step::Connecting, 554, "5.7.1 your address is listed", Provider),
            (Step::LoggingIn, 454, "4.7.0 later", Provider),
            (Step::LoggingIn, 535, "5.7.8 wrong", Configuration),
            (Step::LoggingIn, 504, "unknown mechanism", Configuration),
            (Step::Sender, 530, "5.7.0 log in first", Configuration),
            (Step::LoggingIn, 534, "5.7.9 too weak", Configuration),
            (Step::Sender, 553, "not yours", Configuration),
            (Step::Recipient, 550, "5.1.8 bad sender", Configuration),
            (Step::Sender, 550, "5.7.1 policy", Message),
            (Step::Recipient, 550, "5.1.1 no such user", gone),
            (Step::Recipient, 551, "5.1.6 moved", gone),
            (Step::Recipient, 553, "5.1.3 bad syntax", gone),
            (Step::Dot, 550, "5.1.1 no such user", gone),
            // Without an enhanced code nobody knows why; said to all, it would suppress all.
            (Step::Recipient, 550, "no such user", refused),
            (Step::Recipient, 550, "Unrouteable address", refused),
            (Step::Recipient, 550, "", refused),
            (Step::Recipient, 550, "relay not permitted", Configuration),
            (Step::Recipient, 554, "5.7.1 <ada@example.net>: Recipient address rejected: Access denied", Configuration),
            (Step::Recipient, 454, "4.7.1 <ada@example.net>: Relay access denied", Configuration),
            (Step::Sender, 550, "5.7.1 authentication required", Configuration),
            (Step::Recipient, 550, "5.1.1 <ada@example.net>: User unknown in relay recipient table", gone),
            (Step::Recipient, 550, "5.7.1 we do not like you", Message),
            // Whoever took the recipient does not mean relaying.
            (Step::Dot, 550, "relaying of spam is not permitted", Message),
            // Content that is refused without an enhanced code says nothing of the mailbox.
            (Step::Dot, 550, "spam", Message),
            (Step::Recipient, 550, "5.7.1 relaying denied", Configuration),
            (Step::Dot, 554, "5.7.1 spam", Message),
            (Step::Recipient, 552, "5.2.2 full", Later),
            (Step::Recipient, 550, "5.2.2 full", Later),
            (Step::Recipient, 552, "full", Later),
            (Step::Dot, 552, "5.3.4 too big", Message),
            (Step::Dot, 552, "5.7.0 attachment refused", Message),
            (Step::Recipient, 550, "5.2.1 disabled", Message),
            (Step::Recipient, 500, "what?", Message),
        ] {
            assert_eq!(of_answer(step, code, said, "ada@example.net").0, fault, "{step:?} {code} {said}");
        }
    }

    #[test]
    fn a_refusal_carries_its_words_along() {
        use Sense::{Mailbox, Ours, Unclear};
        for (step, code, said, sense) in [
            (Step::Recipient, 550, "no such user", Some(Unclear)),
            (Step::Sender, 550, "5.7.1 policy", Some(Unclear)),
            (Step::Recipient, 554, "5.7.1 blocked using a list", Some(Unclear)),
            (Step::Recipient, 550, "5.1.1 no such user", Some(Mailbox)),
            (Step::Recipient, 550, "5.2.1 disabled", Some(Mailbox)),
            (Step::Dot, 550, "5.1.1 no such user", Some(Mailbox)),
            (Step::Recipient, 550, "relay not permitted", Some(Ours)),
            (Step::Recipient, 454, "4.7.1 Relay access denied", Some(Ours)),
            // Of these somebody was taken, or nobody was asked for.
            (Step::Dot, 554, "5.7.1 spam", None),
            (Step::Recipient, 451, "greylisted", None),
            (Step::LoggingIn, 535, "5.7.8 wrong", None),
        ] {
            let errand = Errand { mailbox: "ada@example.net", relay: "mail.example.org:587" };
            let e = answered(step, code, said, errand);
            assert_eq!(e.refusal.as_ref().map(|r| r.sense), sense, "{step:?} {code} {said}");
            if e.fault == Fault::Configuration {
                assert!(e.message.contains("mail.example.org:587") && e.message.contains(said), "{e}");
            }
            if let Some(refusal) = &e.refusal {
                assert!(refusal.advice.contains("`email.host`") && refusal.advice.contains(said), "{refusal:?}");
            }
        }
    }
}
