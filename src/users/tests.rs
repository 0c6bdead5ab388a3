//! Tests of the users service over the real store.

use std::{sync::Arc, time::Duration};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};

use super::{shelf::Account, *};
use crate::{
    app::{App, build},
    base::{
        clock::{Clock, Timestamp},
        id::{ContactId, UserId},
        page::PageRequest,
        secret::Secret,
        zone::Zones,
    },
    cache,
    config::{Sources, load},
    events::Bell,
    jobs::store::JobFilter,
    records::Write,
};

const PASSWORD: &str = "correct horse battery";
const ALL: PageRequest = PageRequest { limit: 50, after: None };

struct Under {
    app: App,
    users: Arc<Users>,
    _dir: tempfile::TempDir,
}

fn under() -> Under {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("app.db").display());
    let flags = [("store.url", url.as_str()), ("store.sync", "normal")];
    let flags = flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let config = load(&Sources { flags, ..Sources::default() }).unwrap();
    let app = build(config, Clock::manual(Timestamp::parse("2026-11-21T08:00:00Z").unwrap())).unwrap();
    Under { users: Arc::clone(&app.users), app, _dir: dir }
}

fn new(email: &str) -> NewUser {
    NewUser {
        email: email.to_owned(),
        name: "Ada".to_owned(),
        password: Some(Secret::new(PASSWORD)),
        ..NewUser::default()
    }
}

impl Under {
    async fn login(&self, email: &str, password: &str) -> Result<SignedIn, UserError> {
        self.users.login(email, &Secret::new(password), "192.0.2.1").await
    }

    async fn caller(&self, token: &Secret) -> Result<Caller, UserError> {
        self.users.authenticate(Proof::Bearer(token.reveal())).await
    }

    fn pause(&self) {
        self.app.clock.advance(Duration::from_secs(3000));
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, UserError>, why: Refusal) {
    match result {
        Err(UserError::Unauthorized(refusal)) => assert_eq!(refusal, why),
        other => panic!("{other:?} is not refused as {why:?}"),
    }
}

#[tokio::test]
async fn a_user_and_the_news_of_it_are_one() {
    let t = under();
    let user = t.users.create(new("Ada@Example.com"), Some("r1".to_owned())).await.unwrap();
    assert_eq!(t.users.get(user.id).await.unwrap(), user);
    assert_eq!(t.users.by_email("ADA@example.com").await.unwrap().as_ref(), Some(&user));
    assert!(matches!(t.users.create(new("ada@example.COM"), None).await, Err(UserError::EmailTaken)));
    let filter = JobFilter { kind: Some("event".parse().unwrap()), ..JobFilter::default() };
    let events = t.app.stores.jobs.list(&filter, ALL).await.unwrap().data;
    assert_eq!(events.len(), 1, "none for the one that was refused");
    let event: serde_json::Value = serde_json::from_str(events[0].spec.payload.get()).unwrap();
    let told = (&event["name"], &event["subject"], &event["data"]["email"], &event["correlation_id"]);
    let id = user.id.to_string();
    assert_eq!(told, (&"user.registered".into(), &id.into(), &"ada@example.com".into(), &"r1".into()));
    assert!(!event.to_string().contains("argon2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_one_address_one_gets_it() {
    let t = under();
    let all: Vec<_> = (0..8)
        .map(|n| {
            let users = Arc::clone(&t.users);
            let email = if n % 2 == 0 { "a@example.com" } else { "A@EXAMPLE.com" };
            tokio::spawn(async move { users.create(NewUser { password: None, ..new(email) }, None).await })
        })
        .collect();
    let mut made = 0;
    for task in all {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(UserError::EmailTaken) => {}
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!((made, t.users.list(None, ALL).await.unwrap().data.len()), (1, 1));
}

#[tokio::test]
async fn who_knows_the_password_is_let_in() {
    let t = under();
    let user = t.users.create(new("ada@example.com"), None).await.unwrap();
    let nobody = NewUser { password: None, ..new("grace@example.com") };
    t.users.create(nobody, None).await.unwrap();
    let signed_in = t.login("ADA@example.com", PASSWORD).await.unwrap();
    assert_eq!(signed_in.expires_in, Duration::from_secs(3600));
    let caller = Caller::User { id: user.id, role: Role::User };
    assert_eq!(t.caller(&signed_in.token).await.unwrap(), caller);
    refused(t.login("ada@example.com", "wrong horse battery").await, Refusal::Credentials);
    refused(t.login("nobody@example.com", PASSWORD).await, Refusal::Credentials);
    refused(t.login("no address", PASSWORD).await, Refusal::Credentials);
    refused(t.login("grace@example.com", PASSWORD).await, Refusal::Credentials);
    refused(t.users.authenticate(Proof::Nothing).await, Refusal::Missing);
    refused(t.users.authenticate(Proof::Bearer("")).await, Refusal::Invalid);
    assert!(matches!(t.login("a@b.cd", &"x".repeat(257)).await, Err(UserError::Invalid(_))));
    t.app.clock.advance(Duration::from_secs(3600));
    refused(t.caller(&signed_in.token).await, Refusal::Expired);
}

#[tokio::test]
async fn what_a_user_may_do_changes_at_once() {
    let t = under();
    let user = t.users.create(new("ada@example.com"), None).await.unwrap();
    let token = t.login("ada@example.com", PASSWORD).await.unwrap().token;
    let patch = async |patch| t.users.patch(user.id, &patch).await.unwrap();
    patch(UserPatch { role: Some(Role::Admin), ..UserPatch::default() }).await;
    assert_eq!(t.caller(&token).await.unwrap(), Caller::User { id: user.id, role: Role::Admin });
    assert_eq!(t.users.list(Some(Role::Admin), ALL).await.unwrap().data.len(), 1);
    assert!(t.users.list(Some(Role::User), ALL).await.unwrap().data.is_empty());
    patch(UserPatch { disabled: Some(true), ..UserPatch::default() }).await;
    refused(t.caller(&token).await, Refusal::Invalid);
    refused(t.login("ada@example.com", PASSWORD).await, Refusal::Credentials);
    patch(UserPatch { disabled: Some(false), ..UserPatch::default() }).await;
    assert!(t.caller(&token).await.is_ok());
    t.users.delete(user.id).await.unwrap();
    refused(t.caller(&token).await, Refusal::Invalid);
    assert!(matches!(t.users.delete(user.id).await, Err(UserError::NotFound(_))));
}

#[tokio::test]
async fn a_new_password_ends_the_old_one_and_its_tokens() {
    let t = under();
    let user = t.users.create(new("ada@example.com"), None).await.unwrap();
    let token = t.login("ada@example.com", PASSWORD).await.unwrap().token;
    let change = async |present: Option<&str>, new: &str, trusted| {
        let present = present.map(Secret::new);
        t.users.change_password(user.id, present.as_ref(), &Secret::new(new), trusted).await
    };
    let long = "x".repeat(257);
    for (present, new, field, trusted) in [
        (None, "another password", "current_password", false),
        (Some("wrong horse battery"), "another password", "current_password", false),
        (Some(PASSWORD), "short", "new_password", false),
        (Some(long.as_str()), "another password", "current_password", false),
        (Some(long.as_str()), "another password", "current_password", true),
    ] {
        match change(present, new, trusted).await {
            Err(UserError::Invalid(faults)) => assert_eq!(faults[0].field, field),
            other => panic!("{other:?}"),
        }
    }
    assert!(t.caller(&token).await.is_ok());
    change(Some(PASSWORD), "another password", false).await.unwrap();
    refused(t.caller(&token).await, Refusal::Invalid);
    refused(t.login("ada@example.com", PASSWORD).await, Refusal::Credentials);
    let token = t.login("ada@example.com", "another password").await.unwrap().token;
    change(None, "given by an administrator", true).await.unwrap();
    refused(t.caller(&token).await, Refusal::Invalid);
    t.pause();
    assert!(t.login("ada@example.com", "given by an administrator").await.is_ok());
}

#[tokio::test]
async fn attempts_are_limited_for_an_address_and_for_a_client() {
    let t = under();
    t.users.create(new("ada@example.com"), None).await.unwrap();
    for _ in 0..5 {
        refused(t.login("ada@example.com", "wrong horse battery").await, Refusal::Credentials);
    }
    let Err(UserError::TooMany { retry_after }) = t.login("ADA@example.com", PASSWORD).await else { panic!("let in") };
    assert!(retry_after > Duration::from_secs(50) && retry_after <= Duration::from_secs(60), "{retry_after:?}");
    refused(t.login("grace@example.com", PASSWORD).await, Refusal::Credentials);
    t.app.clock.advance(retry_after);
    assert!(t.login("ada@example.com", PASSWORD).await.is_ok());
    for _ in 0..5 {
        refused(t.login("ada@example.com", "wrong horse battery").await, Refusal::Credentials);
    }
    // A client that tries address after address runs out of its own attempts.
    t.pause();
    for n in 0..20 {
        t.users.admit_client("192.0.2.7").await.unwrap_or_else(|e| panic!("{n}: {e}"));
    }
    assert!(matches!(t.users.admit_client("192.0.2.7").await, Err(UserError::TooMany { .. })));
    assert!(t.users.admit_client("192.0.2.8").await.is_ok());
}

#[tokio::test]
async fn a_cache_that_is_away_locks_nobody_out() {
    let t = under();
    let options = cache::Options { prefix: "x".to_owned(), max_entries: 1, max_bytes: 1, clock: t.app.clock.clone() };
    let away = cache::connect("redis://127.0.0.1:1", options).unwrap();
    let bell = Arc::clone(&t.app.jobs) as Arc<dyn Bell>;
    let (store, clock, auth) = (Arc::clone(&t.app.stores.records), t.app.clock.clone(), t.app.config.auth.clone());
    let through = |name| cache::Through::new(Arc::clone(&away), name, 1, Duration::from_secs(60));
    let users = Users::new(store, Arc::clone(&away), bell, clock, auth, Zones::bundled()).unwrap();
    let users = users.cached(through("users"), through("api_keys"));
    let user = users.create(new("ada@example.com"), None).await.unwrap();
    for _ in 0..6 {
        let wrong = users.login("ada@example.com", &Secret::new("wrong horse battery"), "x").await;
        refused(wrong, Refusal::Credentials);
    }
    let token = users.login("ada@example.com", &Secret::new(PASSWORD), "x").await.unwrap().token;
    let caller = users.authenticate(Proof::Bearer(token.reveal())).await.unwrap();
    assert_eq!(caller.user(), Some(user.id));
}

#[tokio::test]
async fn a_password_is_hashed_again_when_its_cost_is_outdated() {
    let t = under();
    let user = t.users.create(new("ada@example.com"), None).await.unwrap();
    let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(1024, 1, 1, None).unwrap());
    let hash = Secret::new(weak.hash_password(PASSWORD.as_bytes()).unwrap().to_string());
    let stale = Account { user: User { version: 2, ..user.clone() }, password: Some(hash.clone()) };
    let write = Write::Replace { record: stale.record().unwrap(), expected: 1 };
    t.app.stores.records.commit(vec![write], &[]).await.unwrap();
    let token = t.login("ada@example.com", PASSWORD).await.unwrap().token;
    let stored = t.users.account(user.id).await.unwrap().unwrap();
    let hash_now = stored.password.unwrap();
    assert!(hash_now != hash && hash_now.reveal().contains("m=19456,t=2,p=1"), "{}", hash_now.reveal());
    assert!(t.caller(&token).await.is_ok(), "nobody is logged out by it");
    t.login("ada@example.com", PASSWORD).await.unwrap();
    assert_eq!(t.users.account(user.id).await.unwrap().unwrap().password, Some(hash_now));
}

#[tokio::test]
async fn devices_are_kept_once_and_up_to_a_limit() {
    let t = under();
    let user = t.users.create(NewUser { password: None, ..new("ada@example.com") }, None).await.unwrap();
    let fcm = |n: usize, label: &str| NewPushToken {
        kind: PushKind::Fcm { token: Secret::new(format!("token-{n}")) },
        label: Some(label.to_owned()),
    };
    let first = t.users.add_push_token(user.id, fcm(0, "phone")).await.unwrap();
    let again = t.users.add_push_token(user.id, fcm(0, "old phone")).await.unwrap();
    assert_eq!((again.id, again.label.as_deref()), (first.id, Some("old phone")));
    for n in 1..model::PUSH_TOKENS_MAX {
        t.users.add_push_token(user.id, fcm(n, "x")).await.unwrap();
    }
    let over = t.users.add_push_token(user.id, fcm(99, "x")).await;
    assert!(matches!(over, Err(UserError::Full { max: 20, .. })), "{over:?}");
    for _ in 0..2 {
        t.users.drop_push_token(user.id, first.id).await.unwrap();
    }
    assert_eq!(t.users.get(user.id).await.unwrap().push_tokens.len(), 19);
    assert!(matches!(t.users.remove_push_token(user.id, first.id).await, Err(UserError::NotFound(_))));
    let nobody = UserId(uuid::Uuid::nil());
    t.users.drop_push_token(nobody, first.id).await.unwrap();
    let bad = NewPushToken { kind: PushKind::Fcm { token: Secret::new("a b") }, label: Some(String::new()) };
    let Err(UserError::Invalid(faults)) = t.users.add_push_token(user.id, bad).await else { panic!("was added") };
    assert_eq!(faults.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(), ["label", "token"]);
}

#[tokio::test]
async fn endpoints_have_secrets_that_are_rotated() {
    let t = under();
    let user = t.users.create(NewUser { password: None, ..new("ada@example.com") }, None).await.unwrap();
    let made = t.users.add_endpoint(user.id, "https://hooks.example.com/in").await.unwrap();
    assert!(made.secrets[0].reveal().starts_with("whsec_") && made.secrets.len() == 1);
    let rotated = t.users.rotate_endpoint(user.id, made.id).await.unwrap();
    assert_eq!((rotated.secrets.len(), &rotated.secrets[1]), (2, &made.secrets[0]));
    t.users.disable_endpoint(user.id, made.id).await.unwrap();
    let endpoints = async || t.users.get(user.id).await.unwrap().endpoints;
    assert!(endpoints().await[0].disabled);
    assert!(!t.users.enable_endpoint(user.id, made.id).await.unwrap().disabled);
    assert_eq!(endpoints().await, [rotated]);
    for n in 1..model::ENDPOINTS_MAX {
        t.users.add_endpoint(user.id, &format!("http://h{n}/")).await.unwrap();
    }
    let over = t.users.add_endpoint(user.id, "http://h/").await;
    assert!(matches!(over, Err(UserError::Full { max: 10, .. })), "{over:?}");
    t.users.remove_endpoint(user.id, made.id).await.unwrap();
    assert!(matches!(t.users.remove_endpoint(user.id, made.id).await, Err(UserError::NotFound(_))));
    t.users.disable_endpoint(user.id, ContactId(uuid::Uuid::nil())).await.unwrap();
    assert!(matches!(t.users.add_endpoint(user.id, "file:///x").await, Err(UserError::Invalid(_))));
}

#[tokio::test]
async fn keys_prove_programs_until_they_end_or_are_revoked() {
    let t = under();
    let end = t.app.clock.now().plus(Duration::from_secs(60));
    let new = |expires_at| NewKey { name: "ci".to_owned(), scopes: vec![Scope::ItemsRead], expires_at };
    let (lasting, text) = t.users.create_key(new(None)).await.unwrap();
    let (_, short) = t.users.create_key(new(Some(end))).await.unwrap();
    let caller = Caller::Key { id: lasting.id, scopes: vec![Scope::ItemsRead] };
    for proof in [Proof::Bearer(text.reveal()), Proof::Key(text.reveal())] {
        assert_eq!(t.users.authenticate(proof).await.unwrap(), caller);
    }
    let listed = t.users.list_keys(ALL).await.unwrap().data;
    assert_eq!((listed.len(), &listed[1]), (2, &lasting));
    assert!(t.users.authenticate(Proof::Key(short.reveal())).await.is_ok());
    t.app.clock.advance(Duration::from_secs(60));
    let other_secret = format!("{}x", text.reveal());
    for wrong in [short.reveal(), &other_secret, &text.reveal()[..70], "app_", "", "x"] {
        refused(t.users.authenticate(Proof::Key(wrong)).await, Refusal::Invalid);
    }
    t.users.revoke_key(lasting.id).await.unwrap();
    refused(t.users.authenticate(Proof::Key(text.reveal())).await, Refusal::Invalid);
    assert!(matches!(t.users.revoke_key(lasting.id).await, Err(UserError::NotFound(_))));
}

#[tokio::test]
async fn an_administrator_is_made_once() {
    let t = under();
    let make = async |email: &str, password: &str| t.users.create_admin(email, None, Secret::new(password)).await;
    let AdminMade::Created(user) = make("root@example.com", PASSWORD).await.unwrap() else { panic!("was there") };
    assert_eq!((user.role, user.name.as_str()), (Role::Admin, "Administrator"));
    assert_eq!(make("ROOT@example.com", PASSWORD).await.unwrap(), AdminMade::Unchanged(user.clone()));
    let shut_out = UserPatch { role: Some(Role::User), disabled: Some(true), ..UserPatch::default() };
    t.users.patch(user.id, &shut_out).await.unwrap();
    let AdminMade::Changed(again) = make("root@example.com", "another password").await.unwrap() else { panic!("not") };
    assert!(again.id == user.id && again.role == Role::Admin && !again.disabled);
    assert!(t.login("root@example.com", "another password").await.is_ok());
    assert!(matches!(make("root", PASSWORD).await, Err(UserError::Invalid(_))));
    assert!(matches!(make("root2@example.com", "short").await, Err(UserError::Invalid(_))));
}

#[tokio::test]
async fn secrets_are_not_shown_by_what_holds_them() {
    let t = under();
    let user = t.users.create(new("ada@example.com"), None).await.unwrap();
    let signed_in = t.login("ada@example.com", PASSWORD).await.unwrap();
    let endpoint = t.users.add_endpoint(user.id, "https://h/").await.unwrap();
    let (key, text) = t
        .users
        .create_key(NewKey { name: "k".to_owned(), scopes: vec![Scope::Admin], expires_at: None })
        .await
        .unwrap();
    let account = t.users.account(user.id).await.unwrap().unwrap();
    let shown = format!("{:?} {signed_in:?} {endpoint:?} {key:?} {text:?} {account:?}", new("x"));
    let hash = account.password.as_ref().unwrap().reveal();
    // Its own underscores are part of it: cut at the last one, a secret may be too short to be missed anywhere.
    let secret = text.reveal().splitn(3, '_').last().unwrap();
    for hidden in [PASSWORD, signed_in.token.reveal(), endpoint.secrets[0].reveal(), secret, hash] {
        assert!(!shown.contains(hidden), "{hidden} is in {shown}");
    }
}
