//! Mail against a relay that fails: what each answer, and each silence, means.

use app::notifications::channels::{Address, Channels, Content, Fault};
use futures_util::future::join_all;

use super::{
    GONE, HUSH, REFUSED, assert_failed, channels, config,
    fakes::{Act, SmtpFake, nobody},
    mail, send,
};

/// Channels whose mail goes to a port of loopback without encryption.
fn to_port(port: u16, more: &[(&str, &str)]) -> Channels {
    let port = port.to_string();
    let base = [
        ("email.host", "127.0.0.1"),
        ("email.port", &port),
        ("email.tls", "none"),
        ("email.from", "shop@example.org"),
        ("email.timeout", "20s"),
    ];
    let all: Vec<_> = base.iter().chain(more).copied().collect();
    channels(&all)
}

/// A limit for those tests in which it passes.
const SHORT: (&str, &str) = ("email.timeout", "300ms");
const LOGIN: [(&str, &str); 2] = [("email.username", "ada"), ("email.password", HUSH)];

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_taken() {
    let relay = SmtpFake::failing("", Act::Right);
    let receipt = send(&to_port(relay.port, &[]), &mail()).await.unwrap();
    assert_eq!(receipt.answer, "250 2.0.0 queued as 77");
    assert_eq!(receipt.provider_id.as_deref(), Some("77"));
    assert!(relay.mails()[0].contains("Hello, Ada."), "{:?}", relay.mails());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_a_relay_has_its_meaning() {
    use Fault::{Configuration, Later, Message, Provider};
    for (step, said, fault, code) in [
        ("greeting", "421 4.3.2 closing", Provider, "smtp_421"),
        ("greeting", "554 5.7.1 you are listed", Provider, "smtp_554"),
        ("EHLO", "451 4.3.0 later", Provider, "smtp_451"),
        ("AUTH", "535 5.7.8 wrong", Configuration, "smtp_535"),
        ("AUTH", "534 5.7.9 too weak", Configuration, "smtp_534"),
        ("AUTH", "454 4.7.0 not now", Provider, "smtp_454"),
        ("MAIL", "530 5.7.0 log in first", Configuration, "smtp_530"),
        ("MAIL", "421 4.7.0 too many", Provider, "smtp_421"),
        ("MAIL", "451 4.3.0 later", Later, "smtp_451"),
        ("MAIL", "550 5.7.1 policy", Message, "smtp_550"),
        ("RCPT", "450 4.2.0 greylisted", Later, "smtp_450"),
        ("RCPT", "451 4.7.1 greylisted", Later, "smtp_451"),
        ("RCPT", "452 4.2.2 mailbox full", Later, "smtp_452"),
        ("RCPT", "421 4.3.2 closing", Provider, "smtp_421"),
        ("RCPT", "550 5.1.1 no such user", GONE, "smtp_550"),
        ("RCPT", "550 no such user", REFUSED, "smtp_550"),
        ("RCPT", "550 relay not permitted", Configuration, "smtp_550"),
        ("RCPT", "454 4.7.1 Relay access denied", Configuration, "smtp_454"),
        ("RCPT", "554 5.7.1 <ada@example.net>: Recipient address rejected: Access denied", Configuration, "smtp_554"),
        ("RCPT", "551 5.1.6 moved", GONE, "smtp_551"),
        ("RCPT", "553 5.1.3 bad mailbox", GONE, "smtp_553"),
        ("RCPT", "550 5.7.1 relaying denied", Configuration, "smtp_550"),
        ("RCPT", "552 5.2.2 mailbox full", Later, "smtp_552"),
        ("DATA", "451 4.3.0 later", Later, "smtp_451"),
        ("DATA", "554 5.5.1 no valid recipients", Message, "smtp_554"),
        (".", "451 4.3.0 later", Later, "smtp_451"),
        (".", "421 4.3.2 closing", Provider, "smtp_421"),
        (".", "550 5.1.1 no such user after all", GONE, "smtp_550"),
        (".", "550 spam", Message, "smtp_550"),
        (".", "552 5.3.4 too big", Message, "smtp_552"),
        (".", "552 5.2.2 mailbox full", Later, "smtp_552"),
        (".", "554 5.7.1 spam", Message, "smtp_554"),
    ] {
        let relay = SmtpFake::failing(step, Act::Say(said));
        let result = send(&to_port(relay.port, &LOGIN), &mail()).await;
        let e = assert_failed(result, &format!("{step}: {said}"), fault, code, None);
        match fault {
            // Whoever reads it can mend something, and is told what to look at.
            Configuration => {
                let relay = format!("the relay 127.0.0.1:{} ", relay.port);
                assert!(e.message.starts_with(&relay) && e.message.ends_with(&format!("it says: {said}")), "{e}");
            }
            _ => assert_eq!(e.message, said),
        }
    }
}

/// A relay whose rules were mended may still go by the old ones on the connections that it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_takes_nobody_costs_the_connection() {
    let relay = SmtpFake::start(|at| match (at.step, at.connection) {
        ("RCPT", 0) => Act::Say("550 relay not permitted"),
        _ => Act::Right,
    });
    let channels = to_port(relay.port, &[]);
    assert_failed(send(&channels, &mail()).await, "refused", Fault::Configuration, "smtp_550", None);
    send(&channels, &mail()).await.unwrap();
    assert_eq!((relay.mails().len(), relay.connections()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_wrong_kind_is_no_success() {
    for (step, said, fault) in [("DATA", "250 2.0.0 ok", Fault::Provider), (".", "354 go on", Fault::Ambiguous)] {
        let relay = SmtpFake::failing(step, Act::Say(said));
        let channels = to_port(relay.port, &[]);
        for _ in 0..2 {
            assert_failed(send(&channels, &mail()).await, said, fault, "bad_answer", None);
        }
        assert_eq!(relay.connections(), 2, "a dialogue out of step is not gone on with");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_not_there_is_the_providers_fault() {
    let e =
        assert_failed(send(&to_port(nobody(), &[]), &mail()).await, "refused", Fault::Provider, "connect_failed", None);
    assert!(e.message.contains("refused"), "{e}");
    let gone = to_port(25, &[("email.host", "relay.invalid")]);
    assert_failed(send(&gone, &mail()).await, "no such name", Fault::Provider, "connect_failed", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_breaks_off_before_the_final_dot_has_not_taken_the_mail() {
    for (step, code) in [
        ("greeting", "connect_failed"),
        ("EHLO", "connect_failed"),
        ("AUTH", "connection_lost"),
        ("MAIL", "connection_lost"),
        ("RCPT", "connection_lost"),
        ("DATA", "connection_lost"),
    ] {
        let relay = SmtpFake::failing(step, Act::Drop);
        assert_failed(send(&to_port(relay.port, &LOGIN), &mail()).await, step, Fault::Provider, code, None);
        let relay = SmtpFake::failing(step, Act::Hang);
        let all: Vec<_> = LOGIN.iter().copied().chain([SHORT]).collect();
        assert_failed(send(&to_port(relay.port, &all), &mail()).await, step, Fault::Provider, "timed_out", None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_falls_silent_after_the_final_dot_may_have_taken_the_mail() {
    let relay = SmtpFake::failing(".", Act::Drop);
    assert_failed(send(&to_port(relay.port, &[]), &mail()).await, "drop", Fault::Ambiguous, "connection_lost", None);
    assert_eq!(relay.mails().len(), 1, "it was sent once, and not again on another connection");
    let relay = SmtpFake::failing(".", Act::Hang);
    assert_failed(send(&to_port(relay.port, &[SHORT]), &mail()).await, "hang", Fault::Ambiguous, "timed_out", None);
}

/// More than the buffers of both sides of a connection hold, so that the sender notices before the final dot.
fn large() -> app::notifications::channels::Message {
    let mut m = mail();
    let text = "many words in a long mail that fills every buffer\n".repeat(120_000);
    m.content = Content::Email { subject: "Large".to_owned(), text, html: None };
    m
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_breaks_off_in_the_middle_of_a_mail_has_not_taken_it() {
    let relay = SmtpFake::failing("body", Act::Drop);
    assert_failed(send(&to_port(relay.port, &[]), &large()).await, "drop", Fault::Provider, "connection_lost", None);
    let relay = SmtpFake::failing("body", Act::Hang);
    let slow = to_port(relay.port, &[("email.timeout", "5s")]);
    assert_failed(send(&slow, &large()).await, "hang", Fault::Provider, "timed_out", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_starttls_nothing_is_told() {
    let relay = SmtpFake::failing("", Act::Right);
    let all: Vec<_> = LOGIN.iter().copied().chain([("email.tls", "starttls")]).collect();
    let result = send(&to_port(relay.port, &all), &mail()).await;
    assert_failed(result, "no STARTTLS", Fault::Configuration, "no_starttls", None);
    assert!(relay.commands().iter().all(|c| c.starts_with("EHLO")), "{:?}", relay.commands());

    let offers = "250-fake\r\n250 STARTTLS";
    let relay = SmtpFake::start(move |at| match at.step {
        "EHLO" => Act::Say(offers),
        "STARTTLS" => Act::Say("454 4.7.0 TLS not available"),
        _ => Act::Right,
    });
    let result = send(&to_port(relay.port, &all), &mail()).await;
    assert_failed(result, "STARTTLS later", Fault::Provider, "smtp_454", None);
    // It says go, and speaks no TLS.
    let relay = SmtpFake::start(move |at| if at.step == "EHLO" { Act::Say(offers) } else { Act::Right });
    let result = send(&to_port(relay.port, &all), &mail()).await;
    assert_failed(result, "no TLS after STARTTLS", Fault::Provider, "connect_failed", None);
    let relay = SmtpFake::failing("", Act::Right);
    let result = send(&to_port(relay.port, &[("email.tls", "implicit")]), &mail()).await;
    assert_failed(result, "no TLS at all", Fault::Provider, "connect_failed", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_repeats_the_password_does_not_spread_it() {
    let relay = SmtpFake::failing("AUTH", Act::Say("535 5.7.8 ada:hush-hush-4711 is wrong"));
    let e = assert_failed(
        send(&to_port(relay.port, &LOGIN), &mail()).await,
        "password",
        Fault::Configuration,
        "smtp_535",
        None,
    );
    assert!(e.message.contains("ada:*** is wrong"), "{e}");
    let none = SmtpFake::failing("EHLO", Act::Say("250 fake"));
    assert_failed(send(&to_port(none.port, &LOGIN), &mail()).await, "AUTH", Fault::Configuration, "smtp_auth", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again_and_never_more_than_allowed() {
    let relay = SmtpFake::failing("", Act::Right);
    let channels = to_port(relay.port, &[("email.max_connections", "2")]);
    let message = mail();
    for result in join_all((0..40).map(|_| send(&channels, &message))).await {
        result.unwrap();
    }
    assert_eq!(relay.mails().len(), 40);
    assert!(relay.peak() <= 2 && relay.connections() <= 2, "{} connections", relay.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_connection_counts_towards_the_limit() {
    let relay = SmtpFake::failing("greeting", Act::Hang);
    let channels = to_port(relay.port, &[SHORT, ("email.max_connections", "1")]);
    for result in join_all([mail(), mail(), mail()].iter().map(|m| send(&channels, m))).await {
        assert_failed(result, "waiting", Fault::Provider, "timed_out", None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_mail_does_not_cost_the_connection() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let relay = SmtpFake::start(move |at| {
        let first = at.step == "RCPT" && count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        if first { Act::Say("550 5.1.1 no such user") } else { Act::Right }
    });
    let channels = to_port(relay.port, &[]);
    assert_failed(send(&channels, &mail()).await, "refused", GONE, "smtp_550", None);
    send(&channels, &mail()).await.unwrap();
    assert_eq!(relay.connections(), 1);
    assert!(relay.commands().iter().any(|c| c == "RSET"), "{:?}", relay.commands());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ended_while_it_was_idle_is_no_failure() {
    // Closed without a word; closed with one; and one that will not begin anew.
    for (step, act) in [
        ("idle", Act::Drop),
        ("MAIL", Act::Say("421 4.4.2 idle for too long")),
        ("MAIL", Act::Drop),
        ("RCPT", Act::Drop),
        ("DATA", Act::Drop),
    ] {
        let name = format!("{step} {act:?}");
        let relay = SmtpFake::start(move |at| {
            let second = at.step == "idle" || at.mail == 1;
            if at.connection == 0 && at.step == step && second { act.clone() } else { Act::Right }
        });
        let channels = to_port(relay.port, &[]);
        for _ in 0..2 {
            send(&channels, &mail()).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        assert_eq!((relay.mails().len(), relay.connections()), (2, 2), "{name}");
    }
    // But once the mail was sent, it is not sent again.
    let relay = SmtpFake::start(|at| if at.step == "." && at.mail == 1 { Act::Drop } else { Act::Right });
    let channels = to_port(relay.port, &[]);
    send(&channels, &mail()).await.unwrap();
    assert_failed(send(&channels, &mail()).await, "dot", Fault::Ambiguous, "connection_lost", None);
    assert_eq!((relay.mails().len(), relay.connections()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_beyond_ascii_needs_a_relay_that_knows_it() {
    let relay = SmtpFake::failing("", Act::Right);
    let mut m = mail();
    m.to = Address::Email { mailbox: "jürgen@example.net".to_owned(), name: None };
    assert_failed(send(&to_port(relay.port, &[]), &m).await, "no SMTPUTF8", REFUSED, "no_smtputf8", None);
    m.to = Address::Email { mailbox: "no address".to_owned(), name: None };
    assert_failed(send(&to_port(relay.port, &[]), &m).await, "no address", GONE, "bad_address", None);
    // What stands behind the @ is written as the DNS knows it.
    m.to = Address::Email { mailbox: "ada@bücher.example".to_owned(), name: None };
    send(&to_port(relay.port, &[]), &m).await.unwrap();
    assert!(relay.commands().iter().any(|c| c == "RCPT TO:<ada@xn--bcher-kva.example>"), "{:?}", relay.commands());
}

#[test]
fn a_wrong_key_is_named_in_one_sentence() {
    let host = [("email.host", "h"), ("email.from", "a@b.org")];
    let dkim = [("email.dkim_domain", "d"), ("email.dkim_selector", "s"), ("email.dkim_private_key", HUSH)];
    for (flags, part) in [
        (vec![("email.from", "nobody")], "`email.from` is \"nobody\", which is no mail address"),
        (vec![("email.ca_file", "/nowhere/ca.pem")], "`email.ca_file` names /nowhere/ca.pem, which cannot be read"),
        (dkim.to_vec(), "`email.dkim_private_key` holds no private key that can be used"),
    ] {
        let all: Vec<_> = host.iter().copied().chain(flags).collect();
        let text = Channels::open(&config(&all)).err().expect(part).to_string();
        assert!(text.contains(part) && !text.contains(HUSH) && !text.contains('\n'), "{text}");
    }
}
