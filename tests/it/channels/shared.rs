//! What every channel keeps to: a message that is taken gives a receipt, a provider that is down or silent is the provider's
//! fault within the time limit, and no error tells a secret.

use app::notifications::channels::{Address, Channels, Content, Fault, Message, SendError, generate_vapid};
use serde_json::json;

use super::{
    HUSH, channel, channels,
    fakes::{Act, HttpFake, Reply, SmtpFake, nobody},
    fcm, mail, message, parties, send, web_push, webhook,
};

/// How the other side is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Well,
    Down,
    Silent,
    Failing,
}

/// One channel before one other side.
struct Case {
    name: &'static str,
    channels: Channels,
    message: Message,
    provider: String,
    /// Kept open.
    _others: (Vec<SmtpFake>, Vec<HttpFake>, Option<tempfile::NamedTempFile>),
}

const LIMITS: [(&str, &str); 3] = [("email.timeout", "1s"), ("push.timeout", "1s"), ("webhook.timeout", "1s")];

fn set_up(more: &[(&str, &str)]) -> Channels {
    channels(&LIMITS.iter().chain(more).copied().collect::<Vec<_>>())
}

async fn http(side: Side, well: Reply) -> Option<HttpFake> {
    match side {
        Side::Well => Some(HttpFake::saying(well).await),
        Side::Down => None,
        Side::Silent => Some(HttpFake::saying(Reply::Hang).await),
        Side::Failing => Some(HttpFake::saying(Reply::with(500, &[], format!("I am {HUSH}"))).await),
    }
}

fn url(fake: Option<&HttpFake>) -> String {
    format!("http://127.0.0.1:{}", fake.map_or_else(nobody, |f| f.port))
}

fn email_case(side: Side) -> Case {
    let relay = match side {
        Side::Well => Some(SmtpFake::failing("", Act::Right)),
        Side::Down => None,
        Side::Silent => Some(SmtpFake::failing("greeting", Act::Hang)),
        Side::Failing => Some(SmtpFake::failing("AUTH", Act::Say("421 hush-hush-4711 is not welcome"))),
    };
    let port = relay.as_ref().map_or_else(nobody, |r| r.port).to_string();
    let channels = set_up(&[
        ("email.host", "127.0.0.1"),
        ("email.port", &port),
        ("email.tls", "none"),
        ("email.from", "shop@example.org"),
        ("email.username", "ada"),
        ("email.password", HUSH),
    ]);
    let provider = format!("smtp:127.0.0.1:{port}");
    Case { name: "email", channels, message: mail(), provider, _others: (relay.into_iter().collect(), vec![], None) }
}

async fn fcm_case(side: Side) -> Case {
    let token = json!({"access_token": HUSH, "expires_in": 3600});
    let tokens = HttpFake::saying(Reply::with(200, &[], token)).await;
    let firebase = http(side, Reply::with(200, &[], json!({"name": "m"}))).await;
    let key = parties::check("account", json!({})).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let account = json!({"project_id": "shop-7", "client_email": "a@b.org", "private_key": key["private"]});
    std::fs::write(file.path(), account.to_string()).unwrap();
    let channels = set_up(&[
        ("push.fcm_credentials", file.path().to_str().unwrap()),
        ("push.fcm_url", &url(firebase.as_ref())),
        ("push.fcm_token_url", &url(Some(&tokens))),
    ]);
    let others = firebase.into_iter().chain([tokens]).collect();
    Case {
        name: "fcm",
        channels,
        message: fcm(),
        provider: "fcm:shop-7".to_owned(),
        _others: (vec![], others, Some(file)),
    }
}

async fn web_push_case(side: Side) -> Case {
    let service = http(side, Reply::status(201)).await;
    let vapid = generate_vapid().unwrap();
    let channels =
        set_up(&[("push.vapid_private_key", vapid.private.reveal()), ("push.vapid_subject", "mailto:ops@example.org")]);
    let message = web_push(format!("{}/{HUSH}", url(service.as_ref())));
    let provider = "webpush:127.0.0.1".to_owned();
    Case { name: "webpush", channels, message, provider, _others: (vec![], service.into_iter().collect(), None) }
}

async fn webhook_case(side: Side) -> Case {
    let receiver = http(side, Reply::status(200)).await;
    let message = webhook(format!("{}/{HUSH}", url(receiver.as_ref())));
    let provider = "webhook:127.0.0.1".to_owned();
    Case {
        name: "webhook",
        channels: set_up(&[]),
        message,
        provider,
        _others: (vec![], receiver.into_iter().collect(), None),
    }
}

async fn cases(side: Side) -> Vec<Case> {
    vec![email_case(side), fcm_case(side).await, web_push_case(side).await, webhook_case(side).await]
}

async fn failures(side: Side) -> Vec<(&'static str, SendError)> {
    let mut found = Vec::new();
    for case in cases(side).await {
        let e = send(&case.channels, &case.message).await.err().unwrap_or_else(|| panic!("{} succeeds", case.name));
        found.push((case.name, e));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_gives_a_receipt() {
    for case in cases(Side::Well).await {
        let receipt = send(&case.channels, &case.message).await.unwrap_or_else(|e| panic!("{}: {e:?}", case.name));
        assert!(!receipt.answer.is_empty(), "{}", case.name);
        assert_eq!(channel(&case.channels, &case.message).provider(&case.message.to), case.provider);
        // Twice is as good as once.
        send(&case.channels, &case.message).await.unwrap();
    }
    let console = message(Address::Console, Content::Console { text: "hello".to_owned() });
    let channels = channels(&[]);
    assert_eq!(send(&channels, &console).await.unwrap().answer, "logged");
    assert_eq!(channel(&channels, &console).provider(&console.to), "console");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_is_at_fault() {
    for (name, e) in failures(Side::Down).await {
        assert_eq!(
            (e.fault, e.code.as_str(), e.retry_after),
            (Fault::Provider, "connect_failed", None),
            "{name}: {e:?}"
        );
    }
    for (name, e) in failures(Side::Failing).await {
        assert_eq!((e.fault, e.retry_after), (Fault::Provider, None), "{name}: {e:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_provider_costs_no_more_than_the_limit() {
    for (name, e) in failures(Side::Silent).await {
        assert_eq!(e.code, "timed_out", "{name}: {e:?}");
        let expected = if matches!(name, "fcm" | "webpush") { Fault::Ambiguous } else { Fault::Provider };
        assert_eq!(e.fault, expected, "{name}: {e:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_tells_a_secret() {
    for side in [Side::Down, Side::Silent, Side::Failing] {
        for (name, e) in failures(side).await {
            // A receiver may repeat what it likes of its own; what is ours is not in it.
            if name != "webhook" && name != "webpush" && name != "fcm" || side != Side::Failing {
                assert!(!format!("{e:?} {e}").contains(HUSH), "{name}: {e:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_another_channel_is_refused() {
    let pairs = [
        (Address::Console, mail().content),
        (mail().to, Content::Console { text: "x".to_owned() }),
        (webhook("http://127.0.0.1:1".to_owned()).to, mail().content),
        (fcm().to, mail().content),
        (web_push("http://127.0.0.1:1".to_owned()).to, mail().content),
    ];
    let (email, fcm, web_push) = (email_case(Side::Down), fcm_case(Side::Down).await, web_push_case(Side::Down).await);
    for (to, content) in pairs {
        let channels = match &to {
            Address::Fcm { .. } => &fcm.channels,
            Address::WebPush { .. } => &web_push.channels,
            _ => &email.channels,
        };
        let e = send(channels, &message(to, content)).await.unwrap_err();
        assert_eq!((e.fault, e.code.as_str()), (Fault::Message, "wrong_channel"), "{e:?}");
    }
}

#[test]
fn a_channel_without_a_host_or_key_is_not_there() {
    let channels = channels(&[]);
    for message in [mail(), fcm(), web_push("https://push.example/".to_owned())] {
        assert!(channels.find(&message.to).is_none(), "{message:?}");
    }
    assert!(channels.find(&webhook("https://hook.example/".to_owned()).to).is_some());
}
