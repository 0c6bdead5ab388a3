//! What a relay's answer means, by its code, its enhanced code (RFC 3463) and the step at which it came.
//!
//! | answer | means |
//! |---|---|
//! | none, before the final dot | the relay is away: again |
//! | none, after it | it may have been taken: again, with the same Message-ID |
//! | 421, and 4xx before a mail begins | the relay is away |
//! | 4xx | later, in minutes |
//! | 530, 534, 535, 538; any 5xx to AUTH and STARTTLS; a refused sender | we are not let in |
//! | 5xx to the greeting | the relay refuses us all: as if it were away |
//! | 550, 551, 553 with 5.1.x, or without an enhanced code to RCPT | no such mailbox: never again |
//! | 5.2.2, and 552 that is not about the mail's size | the mailbox is full: later |
//! | any other 5xx, such as 5.7.x | this mail is refused, for good |

use std::{error::Error as _, time::Duration};

use lettre::transport::smtp::Error;

use super::{
    super::{Fault, SendError},
    Step,
};

/// Judges an error.
pub(super) fn of(step: Step, e: &Error) -> SendError {
    if let Some(code) = e.status().map(u16::from) {
        let said = e.source().map(ToString::to_string).unwrap_or_default();
        return SendError::new(of_answer(step, code, &said), format!("smtp_{code}"), format!("{code} {said}"));
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

fn of_answer(step: Step, code: u16, said: &str) -> Fault {
    let enhanced = enhanced(said);
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
        (550 | 551 | 553, None) if step == Step::Recipient => Fault::Recipient { suppress: true },
        (_, Some((5, 2, 2))) => Fault::Later,
        (552, Some((5, 2 | 3, 3 | 4))) => Fault::Message,
        (552, _) if !matches!(enhanced, Some((5, 7, _))) => Fault::Later,
        _ => Fault::Message,
    }
}

/// The enhanced code at the beginning of an answer: `5.1.1`.
fn enhanced(said: &str) -> Option<(u16, u16, u16)> {
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
            (Step::Recipient, 550, "no such user", gone),
            (Step::Recipient, 550, "", gone),
            // Content that is refused without an enhanced code says nothing of the mailbox.
            (Step::Dot, 550, "spam", Message),
            (Step::Recipient, 550, "5.7.1 relaying denied", Message),
            (Step::Dot, 554, "5.7.1 spam", Message),
            (Step::Recipient, 552, "5.2.2 full", Later),
            (Step::Recipient, 550, "5.2.2 full", Later),
            (Step::Recipient, 552, "full", Later),
            (Step::Dot, 552, "5.3.4 too big", Message),
            (Step::Dot, 552, "5.7.0 attachment refused", Message),
            (Step::Recipient, 550, "5.2.1 disabled", Message),
            (Step::Recipient, 500, "what?", Message),
        ] {
            assert_eq!(of_answer(step, code, said), fault, "{step:?} {code} {said}");
        }
    }
}
