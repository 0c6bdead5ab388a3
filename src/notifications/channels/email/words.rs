//! What the words of a refusal say, where its codes say nothing.
//!
//! Many relays refuse everything with a bare 550: a mailbox that does not exist, a client that may
//! not send, a block list. Words are compared without what names the recipient, and a few of them
//! are known to speak of us.

use super::verdict::Enhanced;

/// Longest sentence that is compared.
const LONGEST: usize = 200;

/// An answer without what differs from one recipient to the next: addresses, names, numbers, links.
/// In small letters.
pub(super) fn sentence(code: u16, said: &str, mailbox: &str) -> String {
    let mailbox = mailbox.to_lowercase();
    let (local, domain) = mailbox.rsplit_once('@').unwrap_or((&mailbox, ""));
    let mut words: Vec<String> = vec![code.to_string()];
    let said = said.to_lowercase();
    let mut rest = said.split_whitespace();
    // The enhanced code is what the relay means, not a number of this mail.
    if let Some(first) = said.split_whitespace().next().filter(|_| super::verdict::enhanced(&said).is_some()) {
        words.push(first.to_owned());
        rest.next();
    }
    for raw in rest {
        let word = raw.trim_matches(|c: char| c.is_ascii_punctuation());
        let named = word.contains('@') || word == local || !domain.is_empty() && word.contains(domain);
        let word = match word {
            _ if named => "@",
            "" => continue,
            w if w.contains("://") => "://",
            w if w.bytes().any(|b| b.is_ascii_digit()) => "#",
            w => w,
        };
        if words.last().is_some_and(|last| last == word) {
            continue;
        }
        words.push(word.to_owned());
    }
    words.join(" ").chars().take(LONGEST).collect()
}

const RELAY: [&str; 4] = ["relay", "relaying", "relayed", "relays"];
const REFUSED: [&str; 15] = [
    "not",
    "no",
    "denied",
    "deny",
    "prohibited",
    "refused",
    "rejected",
    "unable",
    "cannot",
    "forbidden",
    "disallowed",
    "disabled",
    "allowed",
    "permitted",
    "attempt",
];
const LOG_IN: [&str; 9] = [
    "authentication",
    "authenticate",
    "authenticated",
    "unauthenticated",
    "auth",
    "login",
    "log-in",
    "logged",
    "smtp-auth",
];
const NEEDED: [&str; 10] =
    ["required", "requires", "require", "need", "needed", "must", "first", "please", "not", "without"];
/// Who these words are about is a mailbox, whatever else is said.
const NOBODY: [&str; 4] = ["unknown", "exist", "exists", "such"];

/// Whether a sentence says that it is us who are refused, whoever the mail is for: we may not
/// relay, must log in, or call ourselves by a name that is not liked.
pub(super) fn speaks_of_us(sentence: &str, enhanced: Option<Enhanced>) -> bool {
    // 5.1 is about addresses and 5.2 about mailboxes; postfix says `User unknown in relay recipient
    // table`.
    if matches!(enhanced, Some((_, 1 | 2, _))) {
        return false;
    }
    // The name of a host may hold any of the words.
    let words: Vec<&str> = sentence.split([' ', '/', ';', ':', ',', '(', ')']).filter(|w| !w.contains('.')).collect();
    let any = |of: &[&str]| words.iter().any(|w| of.contains(w));
    if any(&NOBODY) {
        return false;
    }
    let policy = matches!(enhanced, None | Some((_, 7, _)));
    any(&RELAY) && any(&REFUSED)
        || any(&LOG_IN) && any(&NEEDED)
        || policy && sentence.contains("access denied")
        || sentence.contains("helo command rejected")
}

#[cfg(test)]
mod tests {
    use super::{super::verdict::enhanced, *};

    const ADA: &str = "Ada@Mail.example.com";

    #[test]
    fn what_names_the_recipient_is_left_out() {
        for (said, other, to) in [
            ("unknown user ada", "unknown user bob", "bob@mail.example.com"),
            ("<ada@mail.example.com>: no", "<bob@example.net>: no", "bob@example.net"),
            ("5.7.1 <ada@mail.example.com>... denied [10.0.0.1]", "5.7.1 <b@x.org>... denied [10.0.0.22]", "b@x.org"),
            ("see https://x.org/?e=ada for T4711", "see https://x.org/?e=bob for T4712", "bob@x.com"),
            ("mail.example.com is not served", "example.net is not served", "bob@example.net"),
            ("No thanks", "no   thanks", "bob@example.net"),
            ("try later 1 2 3", "try later 4", "bob@example.net"),
        ] {
            assert_eq!(sentence(550, said, ADA), sentence(550, other, to), "{said}");
        }
        assert_ne!(sentence(550, "no", ADA), sentence(551, "no", ADA));
        assert_ne!(sentence(550, "5.7.1 no", ADA), sentence(550, "5.4.1 no", ADA));
        assert_eq!(sentence(550, "5.7.1 No, ada!", ADA), "550 5.7.1 no @");
        assert_eq!(sentence(550, "", ADA), "550");
        assert!(sentence(550, &"é ü ".repeat(500), "nobody").chars().count() <= LONGEST);
    }

    #[test]
    fn words_that_speak_of_us_are_known() {
        for said in [
            // exim; postfix; sendmail; Exchange; qmail; courier; hMailServer; others.
            "relay not permitted",
            "4.7.1 <ada@mail.example.com>: Relay access denied",
            "5.7.1 <ada@mail.example.com>... Relaying denied. Proper authentication required.",
            "5.7.54 SMTP; Unable to relay recipient in non-accepted domain",
            "5.7.1 Unable to relay",
            "5.4.1 Relay Access Denied",
            "We do not relay: no valid cert for gatewaying",
            "Relaying not allowed",
            "relaying to <ada@mail.example.com> prohibited by administrator",
            "5.7.1 <ada@mail.example.com>: Recipient address rejected: Access denied",
            "Access denied",
            "5.7.3 Authentication required",
            "Authentication is required for relay",
            "SMTP authentication is required.",
            "5.7.1 Client was not authenticated",
            "Please authenticate first",
            "5.5.2 <vm>: Helo command rejected: need fully-qualified hostname",
        ] {
            assert!(speaks_of_us(&sentence(550, said, ADA), enhanced(said)), "{said}");
        }
        for said in [
            "",
            "Unrouteable address",
            "Invalid recipient",
            "I cannot deliver mail for {ada@mail.example.com}",
            "no such user",
            "5.1.1 <ada@mail.example.com>: Recipient address rejected: User unknown in relay recipient table",
            "User unknown in relay table",
            // Exchange Online says it of a mailbox that does not exist.
            "5.4.1 Recipient address rejected: Access denied. [AS(201806281)]",
            "5.7.1 we do not like you",
            "relay.example.org does not know ada",
            "5.2.1 The mailbox has been disabled, login required",
            "5.7.1 Service unavailable; client [10.0.0.1] blocked using zen.spamhaus.org",
        ] {
            assert!(!speaks_of_us(&sentence(550, said, ADA), enhanced(said)), "{said}");
        }
        // The recipient's own name is no word of the relay's.
        let said = "relay@example.com is not here";
        assert!(!speaks_of_us(&sentence(550, said, "relay@example.com"), enhanced(said)));
    }
}
