//! The guard before users' URLs, at the moment of connecting: names, literals, redirects.

use app::notifications::channels::{Channels, Fault, Guard};

use super::{
    REFUSED, assert_failed, channels, config,
    fakes::{HttpFake, Reply},
    send, web_push, webhook,
};

/// Channels that may call public addresses only, but by http.
fn guarded(more: &[(&str, &str)]) -> Channels {
    let vapid = app::notifications::channels::generate_vapid().unwrap();
    let base = [
        ("webhook.allow_http", "true"),
        ("push.vapid_private_key", vapid.private.reveal()),
        ("push.vapid_subject", "mailto:ops@example.org"),
    ];
    let all: Vec<_> = base.iter().chain(more).copied().collect();
    Channels::open(&config(&all)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_not_called_by_name_nor_by_number() {
    let here = HttpFake::saying(Reply::status(200)).await;
    let port = here.port;
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
    {
        for message in [webhook(format!("http://{host}:{port}/")), web_push(format!("http://{host}:{port}/"))] {
            let result = send(&guarded(&[]), &message).await;
            assert_failed(result, host, REFUSED, "private_address", None);
        }
    }
    assert!(here.requests().is_empty());
    // What an operator names is called.
    for host in ["localhost", "127.0.0.1"] {
        let open = guarded(&[("webhook.allow_networks", "127.0.0.0/8")]);
        send(&open, &webhook(format!("http://{host}:{port}/"))).await.unwrap();
    }
    assert_eq!(here.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_leads_nowhere() {
    let inside = HttpFake::saying(Reply::status(200)).await;
    let location = format!("location: {}", inside.url("/secrets"));
    let outside = HttpFake::saying(Reply::with(302, &[&location], "")).await;
    let channels = channels(&[]);
    assert_failed(send(&channels, &webhook(outside.url("/"))).await, "redirect", REFUSED, "redirected", None);
    assert_eq!((outside.requests().len(), inside.requests().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_must_not_be_is_refused_before_anything_is_sent() {
    let strict = Channels::open(&config(&[])).unwrap();
    for (url, code) in [
        ("http://example.org/", "insecure_url"),
        ("ftp://example.org/", "bad_url"),
        ("https://user:pass@example.org/", "bad_url"),
        ("nonsense", "bad_url"),
        ("https://169.254.169.254/latest/meta-data/", "private_address"),
    ] {
        assert_failed(send(&strict, &webhook(url.to_owned())).await, url, REFUSED, code, None);
        assert_eq!(Guard::new(&config(&[]).webhook).check(url).unwrap_err().code, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_found_may_be_found_later() {
    let result = send(&guarded(&[]), &webhook("http://hook.invalid/".to_owned())).await;
    assert_failed(result, "no such name", Fault::Provider, "connect_failed", None);
}
