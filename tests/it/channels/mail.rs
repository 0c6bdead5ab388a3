//! Mail against a server that is not ours: aiosmtpd takes it, Python reads it, dkimpy checks its signature.

use app::notifications::channels::{Address, Channels, Content, Fault};
use serde_json::{Value, json};

use super::{GONE, HUSH, REFUSED, assert_failed, channels, mail, parties::MailParty, send};
use crate::support::exim::Exim;

fn to_party(party: &MailParty, more: &[(&str, &str)]) -> Channels {
    let port = party.port.to_string();
    let base = [("email.host", "localhost"), ("email.port", &port), ("email.from", "shop@example.org")];
    let all: Vec<_> = base.iter().chain(more).copied().collect();
    channels(&all)
}

fn header<'a>(mail: &'a Value, name: &str) -> Vec<&'a str> {
    let all = mail["headers"].as_array().unwrap().iter();
    all.filter(|h| h[0].as_str().unwrap().eq_ignore_ascii_case(name)).map(|h| h[1].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_what_arrives() {
    let party = MailParty::start(&["none"]).await;
    let channels = to_party(&party, &[("email.tls", "none"), ("email.from_name", "Bücher & Söhne, Köln")]);
    let mut m = mail();
    m.to = Address::Email {
        mailbox: "ada@example.net".to_owned(), name: Some("Ada “Augusta” Lovelace 🚀".to_owned())
    };
    let subject = format!("Ihre Bestellung № 7 ist unterwegs 🚚 {}", "und noch mehr Wörter ".repeat(10).trim_end());
    let text = "Grüße\n.\n..\n.hidden\nFrom here\n".to_owned() + &"ä".repeat(2000) + "\n";
    let html = "<p>Grüße</p>".to_owned();
    m.content = Content::Email { subject: subject.clone(), text: text.clone(), html: Some(html.clone()) };
    m.unsubscribe = Some("https://example.org/u?token=abc%20def&x=1".to_owned());
    let receipt = send(&channels, &m).await.unwrap();
    assert_eq!(
        (receipt.provider_id.as_deref(), receipt.answer.as_str()),
        (Some("PARTY1"), "250 2.0.0 Ok: queued as PARTY1")
    );

    let got = party.mail().await;
    assert_eq!((&got["from"], &got["to"]), (&json!("shop@example.org"), &json!(["ada@example.net"])));
    assert_eq!(got["defects"], json!([]), "{got}");
    assert_eq!(got["parts"], json!(["multipart/alternative", "text/plain", "text/html"]));
    assert_eq!(got["text"].as_str().unwrap().replace("\r\n", "\n"), text);
    assert_eq!(got["html"].as_str().unwrap().trim_end(), html);
    assert_eq!(got["to_name"], "Ada “Augusta” Lovelace 🚀");
    assert_eq!(got["from_name"], "Bücher & Söhne, Köln");
    assert_eq!(header(&got, "subject"), [subject]);
    assert_eq!(header(&got, "message-id"), [format!("<{}@example.org>", m.id)]);
    assert_eq!(got["date"], "2026-11-21T08:00:00+00:00");
    assert_eq!(header(&got, "list-unsubscribe"), ["<https://example.org/u?token=abc%20def&x=1>"]);
    assert_eq!(header(&got, "list-unsubscribe-post"), ["List-Unsubscribe=One-Click"]);

    // A mailbox beyond ASCII, to a relay that knows such.
    let mut beyond = mail();
    beyond.to = Address::Email { mailbox: "jürgen@example.net".to_owned(), name: Some("Jürgen".to_owned()) };
    send(&channels, &beyond).await.unwrap();
    let got = party.mail().await;
    assert_eq!((&got["to"], &got["to_name"]), (&json!(["jürgen@example.net"]), &json!("Jürgen")));

    // Without HTML there is one part, and without a link no header of it. The second attempt is the same mail.
    let mut plain = mail();
    for _ in 0..2 {
        send(&channels, &plain).await.unwrap();
        let got = party.mail().await;
        assert_eq!((&got["type"], &got["html"]), (&json!("text/plain"), &Value::Null));
        assert_eq!(header(&got, "message-id"), [format!("<{}@example.org>", plain.id)]);
        assert_eq!(got["date"], "2026-11-21T08:00:00+00:00");
        assert!(header(&got, "list-unsubscribe").is_empty() && header(&got, "list-unsubscribe-post").is_empty());
        plain.now = plain.now.plus(std::time::Duration::from_secs(600));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_can_begin_a_header() {
    let party = MailParty::start(&["none"]).await;
    let channels = to_party(&party, &[("email.tls", "none")]);
    let evil =
        "x\r\nBcc: all@example.org\r\n\r\nbody\rBcc: a@b.org\nBcc: c@d.org\u{2028}Bcc: e@f.org\u{85}Bcc: g@h.org";
    let mut m = mail();
    m.to = Address::Email { mailbox: "ada@example.net".to_owned(), name: Some(evil.to_owned()) };
    m.content = Content::Email { subject: evil.to_owned(), text: "Hello".to_owned(), html: None };
    m.unsubscribe = Some("https://example.org/\r\nBcc: all@example.org".to_owned());
    send(&channels, &m).await.unwrap();
    let got = party.mail().await;
    assert!(header(&got, "bcc").is_empty(), "{got}");
    assert_eq!((got["text"].as_str().unwrap().trim_end(), &got["to"]), ("Hello", &json!(["ada@example.net"])));
    for pair in got["headers"].as_array().unwrap() {
        assert!(!pair[1].as_str().unwrap().contains(['\r', '\n', '\u{2028}', '\u{85}']), "{pair}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_hold_and_cover_the_way_out() {
    let party = MailParty::start(&["none"]).await;
    for selector in ["dkim", "dkim-ed25519"] {
        let key = std::fs::read_to_string(party.file(&format!("{selector}.pem"))).unwrap();
        let channels = to_party(
            &party,
            &[
                ("email.tls", "none"),
                ("email.dkim_domain", "example.org"),
                ("email.dkim_selector", selector),
                ("email.dkim_private_key", &key),
            ],
        );
        let mut m = mail();
        m.unsubscribe = Some(format!("https://example.org/u?token={}", "a".repeat(300)));
        m.content = Content::Email {
            subject: "Ünicode  with   spaces".to_owned(),
            text: "  two  spaces \t\nand trailing ones   \n\n\n".to_owned(),
            html: Some("<p>é</p>\n\n".to_owned()),
        };
        send(&channels, &m).await.unwrap();
        let got = party.mail().await;
        assert_eq!(got["dkim"], true, "{got}");
        let signature = header(&got, "dkim-signature")[0].replace(char::is_whitespace, "");
        let signed = signature.split(';').find_map(|part| part.strip_prefix("h=")).unwrap();
        let signed: Vec<_> = signed.split(':').collect();
        for name in ["from", "to", "subject", "date", "message-id", "list-unsubscribe", "list-unsubscribe-post"] {
            assert!(signed.contains(&name), "{name} is not in {signature}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_encrypted_and_after_a_login() {
    for mode in ["starttls", "implicit"] {
        let party = MailParty::start(&[mode, "ada", HUSH]).await;
        let ca = party.file("ca.pem");
        let login = [("email.tls", mode), ("email.username", "ada"), ("email.ca_file", ca.to_str().unwrap())];
        let with = |password| to_party(&party, &[login[0], login[1], login[2], ("email.password", password)]);
        let right = with(HUSH);
        for _ in 0..2 {
            send(&right, &mail()).await.unwrap();
            let got = party.mail().await;
            assert_eq!((&got["tls"], &got["user"]), (&json!(true), &json!("ada")), "{mode}");
        }
        let wrong = send(&with("wrong"), &mail()).await;
        assert_failed(wrong, mode, Fault::Configuration, "smtp_535", None);
        let nobody = to_party(&party, &[login[0], login[2]]);
        assert_failed(send(&nobody, &mail()).await, mode, Fault::Configuration, "smtp_530", None);
        // A certificate that nobody vouches for, and one for another name.
        let other = MailParty::start(&[mode]).await;
        let strange = to_party(&other, &login[..1].iter().chain(&login[2..]).copied().collect::<Vec<_>>());
        assert_failed(send(&strange, &mail()).await, mode, Fault::Provider, "connect_failed", None);
        let renamed = to_party(&party, &[login[0], login[2], ("email.host", "127.0.0.2")]);
        assert_failed(send(&renamed, &mail()).await, mode, Fault::Provider, "connect_failed", None);
    }
}

/// What Debian's exim says by its own rules, and by texts that administrators write.
#[tokio::test(flavor = "multi_thread")]
async fn what_exim_says_has_its_meaning() {
    use Fault::{Configuration, Later, Message};
    let mut relay = Exim::start("accept").await;
    let port = relay.port.to_string();
    let to = [("email.host", "localhost"), ("email.port", &port), ("email.tls", "none")];
    for (rule, fault, code) in [
        ("require message = relay not permitted\n  domains = !*", Configuration, "smtp_550"),
        ("deny message = authentication required\n  !authenticated = *", Configuration, "smtp_550"),
        ("deny message = 554 5.7.1 Recipient address rejected: Access denied", Configuration, "smtp_554"),
        ("defer message = 454 4.7.1 Relay access denied", Configuration, "smtp_454"),
        ("deny message = Unrouteable address", REFUSED, "smtp_550"),
        ("deny message = Unknown user $local_part", REFUSED, "smtp_550"),
        ("deny", REFUSED, "smtp_550"),
        ("deny message = $sender_host_address is listed at zen.example.org", REFUSED, "smtp_550"),
        ("deny message = 550 5.7.1 $sender_host_address is listed at zen.example.org", Message, "smtp_550"),
        ("deny message = 550 5.1.1 No such user", GONE, "smtp_550"),
        ("defer message = greylisted", Later, "smtp_451"),
    ] {
        relay.mended(rule).await;
        let channels = channels(&[to[0], to[1], to[2], ("email.from", "shop@example.org")]);
        assert_failed(send(&channels, &mail()).await, rule, fault, code, None);
    }
    assert!(relay.took().is_empty());
    relay.mended("accept").await;
    let receipt = send(&channels(&[to[0], to[1], to[2], ("email.from", "shop@example.org")]), &mail()).await.unwrap();
    assert!(receipt.provider_id.is_some() && relay.took().len() == 1, "{receipt:?}");
}
