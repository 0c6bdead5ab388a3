//! Builds the mail itself.
//!
//! The same notification gives the same mail at every attempt, to the byte: Message-ID, date, boundary and signature come from
//! what was accepted and not from the moment. A relay or mailbox that sees it twice can tell.

use std::time::{Duration, UNIX_EPOCH};

use lettre::{
    Message as Mail,
    address::{Address as Mailbox, Envelope},
    message::{
        Mailbox as Named, MultiPart, MultiPartKind, SinglePart,
        header::{HeaderName, HeaderValue},
    },
};
use url::{Host, Url};

use super::{
    super::{Address, Content, Fault, Message, OpenError, SendError, console::wrong_channel},
    dkim::Signer,
};
use crate::config;

/// A header cannot be longer than a line of 998 characters, and a URL cannot be folded.
const URL_MAX: usize = 900;

/// A mail, ready to send.
pub(super) struct Composed {
    pub(super) envelope: Envelope,
    pub(super) bytes: Vec<u8>,
}

/// What all mails have in common.
pub(super) struct Composer {
    from: Named,
    signer: Option<Signer>,
}

impl Composer {
    pub(super) fn new(options: &config::Email) -> Result<Self, OpenError> {
        let address = mailbox(&options.from)
            .ok_or_else(|| OpenError(format!("`email.from` is \"{}\", which is no mail address", options.from)))?;
        Ok(Self { from: Named::new(name(&options.from_name), address), signer: Signer::new(options)? })
    }

    pub(super) fn compose(&self, message: &Message) -> Result<Composed, SendError> {
        let (Address::Email { mailbox: to, name: to_name }, Content::Email { subject, text, html }) =
            (&message.to, &message.content)
        else {
            return Err(wrong_channel("e-mail"));
        };
        let to = mailbox(to).ok_or_else(|| {
            SendError::new(Fault::Recipient { suppress: true }, "bad_address", "the recipient's mail address is none")
        })?;
        let envelope = Envelope::new(Some(self.from.email.clone()), vec![to.clone()]).map_err(refused)?;
        let date = UNIX_EPOCH + Duration::from_millis(u64::try_from(message.accepted_at.as_millis()).unwrap_or(0));
        let mut builder = Mail::builder()
            .from(self.from.clone())
            .to(Named::new(to_name.as_deref().and_then(name), to))
            .subject(line(subject))
            .date(date)
            .message_id(Some(format!("<{}@{}>", message.id, self.from.email.domain())))
            .raw_header(raw("Auto-Submitted", "auto-generated".to_owned()));
        if let Some(url) = &message.unsubscribe {
            builder = builder
                .raw_header(raw("List-Unsubscribe", format!("<{}>", unsubscribe(url)?)))
                .raw_header(raw("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".to_owned()));
        }
        let text = SinglePart::plain(crlf(text));
        let mail = match html {
            None => builder.singlepart(text),
            Some(html) => builder.multipart(
                MultiPart::builder()
                    .kind(MultiPartKind::Alternative)
                    .boundary(format!("part-{}", message.id.simple()))
                    .singlepart(text)
                    .singlepart(SinglePart::html(crlf(html))),
            ),
        };
        let mut bytes = mail.map_err(refused)?.formatted();
        // The end of the last line is sent with the final dot.
        while bytes.ends_with(b"\r\n") {
            bytes.truncate(bytes.len() - 2);
        }
        if let Some(signer) = &self.signer {
            bytes = signer.sign(&bytes, message.accepted_at);
        }
        Ok(Composed { envelope, bytes })
    }
}

fn refused(e: impl std::fmt::Display) -> SendError {
    SendError::new(Fault::Message, "bad_mail", format!("the mail cannot be built: {e}"))
}

/// A value that is printable ASCII on one line: constants, and what [`unsubscribe`] let through.
fn raw(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str(name), value.clone(), value)
}

/// The link as it may stand between `<` and `>`. The URL parser escapes everything that is not printable ASCII.
fn unsubscribe(url: &str) -> Result<String, SendError> {
    let wrong = |why| SendError::new(Fault::Message, "bad_unsubscribe", why);
    let url = Url::parse(url).map_err(|_detail| wrong("the unsubscribe link is no URL"))?;
    let text = url.as_str();
    match text.len() <= URL_MAX && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b',')) {
        true => Ok(text.to_owned()),
        false => Err(wrong("the unsubscribe link is too long, or holds a comma, `<` or `>`")),
    }
}

/// The text with the ends of line that mail has. The library would put them in one by one, moving the rest each time: a
/// megabyte of short lines would take minutes.
fn crlf(text: &str) -> String {
    let plain = text.replace("\r\n", "\n").replace('\r', "\n");
    plain.replace('\n', "\r\n")
}

/// An address with its domain as the DNS knows it.
fn mailbox(text: &str) -> Option<Mailbox> {
    let (local, domain) = text.rsplit_once('@')?;
    if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return None;
    }
    match Host::parse(domain) {
        Ok(Host::Domain(domain)) => Mailbox::new(local, domain).ok(),
        // An address literal, `[192.0.2.1]`, or what the parser takes for one.
        _ => Mailbox::new(local, domain).ok(),
    }
}

fn name(text: &str) -> Option<String> {
    Some(line(text)).filter(|n| !n.is_empty())
}

/// One line: no header may begin inside another one's value.
fn line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if is_break(c) { ' ' } else { c }).collect();
    plain.trim().to_owned()
}

/// Control characters, and the line breaks of Unicode, which some readers take for ends of line.
fn is_break(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::base::clock::Timestamp;

    fn composer() -> Composer {
        Composer { from: Named::new(None, mailbox("shop@example.org").unwrap()), signer: None }
    }

    fn message(to: &str, name: Option<&str>, subject: &str, unsubscribe: Option<&str>) -> Message {
        Message {
            id: Uuid::nil(),
            accepted_at: Timestamp::parse("2026-11-21T08:00:00Z").unwrap(),
            now: Timestamp::parse("2026-11-21T09:00:00Z").unwrap(),
            to: Address::Email { mailbox: to.to_owned(), name: name.map(str::to_owned) },
            content: Content::Email { subject: subject.to_owned(), text: "hello\n.\nworld".to_owned(), html: None },
            urgent: false,
            unsubscribe: unsubscribe.map(str::to_owned),
        }
    }

    fn head(m: &Message) -> String {
        let bytes = composer().compose(m).unwrap().bytes;
        let text = String::from_utf8(bytes).unwrap();
        text.split_once("\r\n\r\n").unwrap().0.to_owned()
    }

    #[test]
    fn no_header_can_begin_inside_another() {
        let evil = "x\r\nBcc: all@example.org\r\n\r\nbody\u{2028}\0";
        let link = "https://example.org/u?a=\r\nBcc:%20x";
        let head = head(&message("a@example.net", Some(evil), evil, Some(link)));
        let names: Vec<_> =
            head.split("\r\n").filter(|l| !l.starts_with([' ', '\t'])).map(|l| l.split_once(':').unwrap().0).collect();
        let expected = [
            "From",
            "To",
            "Subject",
            "Date",
            "Message-ID",
            "Auto-Submitted",
            "List-Unsubscribe",
            "List-Unsubscribe-Post",
            "MIME-Version",
            "Content-Type",
            "Content-Transfer-Encoding",
        ];
        let (mut names, mut expected) = (names, expected);
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected, "{head}");
        assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']), "{head:?}");
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for bad in ["", "a", "a@", "@b.org", "a b@c.org", "a@b.org\r\nRCPT TO:<c@d.org>", "a@b.org>", "a@b,c@d.org"] {
            let e =
                composer().compose(&message(bad, None, "s", None)).err().unwrap_or_else(|| panic!("{bad} is taken"));
            assert_eq!((e.fault, e.code.as_str()), (Fault::Recipient { suppress: true }, "bad_address"), "{bad}");
        }
        let e = composer().compose(&message("a@b.org", None, "s", Some("/path"))).err().unwrap();
        assert_eq!((e.fault, e.code.as_str()), (Fault::Message, "bad_unsubscribe"));
        assert_eq!(mailbox("x@bücher.example").unwrap().domain(), "xn--bcher-kva.example");
    }

    #[test]
    fn every_attempt_sends_the_same_bytes() {
        let mut m = message("a@example.net", Some("Ada"), "s", None);
        m.content = Content::Email { subject: "s".to_owned(), text: "t".to_owned(), html: Some("<p>t</p>".to_owned()) };
        let first = composer().compose(&m).unwrap().bytes;
        m.now = m.now.plus(Duration::from_secs(3600));
        assert_eq!(composer().compose(&m).unwrap().bytes, first);
        let text = String::from_utf8(first).unwrap();
        assert!(text.contains("Message-ID: <00000000-0000-0000-0000-000000000000@example.org>\r\n"), "{text}");
        assert!(text.contains("Date: Sat, 21 Nov 2026 08:00:00 +0000\r\n"), "{text}");
    }
}
