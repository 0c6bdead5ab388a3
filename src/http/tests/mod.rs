//! Tests of the HTTP room: what every route shares, and each route.
//!
//! Items are kept in memory, so that failures can be injected; jobs are kept by the real store in a directory of the
//! test's own.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use actix_web::{
    dev::Service,
    http::{
        Method,
        header::{self, HeaderMap},
    },
    test::{TestRequest, init_service, read_body},
};
use async_trait::async_trait;
use futures_util::future::LocalBoxFuture;
use serde_json::Value;

use crate::{
    app::{App, build},
    base::{
        clock::{Clock, Timestamp},
        id::ItemId,
        page::{Cursor, Page, PageRequest},
        probe::Probe,
        store::StoreError,
    },
    config,
    events::{Bell, Event},
    http::{AuthRules, Bodies, Document, HttpLimits, HttpState, OriginRules, RequestLog, app},
    items::{Item, ItemFilter, ItemStore, Items},
};

mod auth;
mod browsers;
mod control;
mod dead_letters;
mod docs;
mod idempotency;
mod items;
mod jobs;
mod notifications;
mod rights;
mod server;
mod shared;
mod tasks;
mod users;

/// An item store in memory that can be told to be away, or to let another writer come first.
#[derive(Default)]
pub(super) struct FakeStore {
    items: Mutex<BTreeMap<ItemId, Item>>,
    pub(super) away: AtomicBool,
    /// So many of the next updates find that another writer came first.
    pub(super) races: AtomicU32,
}

impl FakeStore {
    fn open(&self) -> Result<std::sync::MutexGuard<'_, BTreeMap<ItemId, Item>>, StoreError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("secret-host:27017 refused the connection".to_owned()));
        }
        Ok(self.items.lock().unwrap())
    }
}

#[async_trait]
impl ItemStore for FakeStore {
    async fn insert(&self, item: Item, _: &Event) -> Result<(), StoreError> {
        self.open()?.insert(item.id, item);
        Ok(())
    }

    async fn get(&self, id: ItemId) -> Result<Option<Item>, StoreError> {
        Ok(self.open()?.get(&id).cloned())
    }

    async fn list(&self, filter: &ItemFilter, page: PageRequest) -> Result<Page<Item>, StoreError> {
        let name = filter.name_contains.as_ref().map(|n| n.to_lowercase());
        let items = self.open()?;
        let mut data: Vec<Item> = items
            .values()
            .rev()
            .filter(|i| page.after.is_none_or(|Cursor(after)| i.id.0 < after))
            .filter(|i| name.as_ref().is_none_or(|n| i.name.to_lowercase().contains(n)))
            .filter(|i| filter.category.as_ref().is_none_or(|c| i.metadata.get("category").is_some_and(|v| v == c)))
            .filter(|i| filter.created_after.is_none_or(|t| i.created_at >= t))
            .filter(|i| filter.created_before.is_none_or(|t| i.created_at < t))
            .take(page.limit + 1)
            .cloned()
            .collect();
        let more = data.len() > page.limit;
        data.truncate(page.limit);
        let next = if more { data.last().map(|i| Cursor(i.id.0)) } else { None };
        Ok(Page { data, next })
    }

    async fn update(&self, id: ItemId, expected: u64, item: Item, _: &Event) -> Result<bool, StoreError> {
        let mut items = self.open()?;
        let Some(stored) = items.get_mut(&id) else { return Ok(false) };
        if self.races.load(Ordering::Relaxed) > 0 {
            self.races.fetch_sub(1, Ordering::Relaxed);
            stored.version += 1;
            stored.metadata.insert("other".to_owned(), Value::from(stored.version));
        }
        if stored.version != expected {
            return Ok(false);
        }
        *stored = item;
        Ok(true)
    }

    async fn delete(&self, id: ItemId, _: &Event) -> Result<bool, StoreError> {
        Ok(self.open()?.remove(&id).is_some())
    }
}

/// A backend that works, says it does not, or never answers.
pub(super) struct FakeProbe(pub(super) &'static str, pub(super) Option<Result<(), String>>);

#[async_trait]
impl Probe for FakeProbe {
    fn name(&self) -> &'static str {
        self.0
    }
    async fn check(&self) -> Result<(), String> {
        match &self.1 {
            Some(answer) => answer.clone(),
            None => std::future::pending().await,
        }
    }
}

pub(super) const LIMITS: HttpLimits = HttpLimits { max_body: 200_000, max_bulk_body: 400_000, page_limit_max: 200 };

/// The job queue of one test, gone with it.
pub(super) struct Backing {
    pub(super) app: App,
    _dir: tempfile::TempDir,
}

impl Backing {
    fn new(flags: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("app.db").display());
        let mut flags: Vec<_> = flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        flags.extend([("store.url".to_owned(), url), ("store.sync".to_owned(), "normal".to_owned())]);
        let config = config::load(&config::Sources { flags, ..Default::default() }).unwrap();
        let clock = Clock::manual(Timestamp::parse("2026-11-21T08:00:00Z").unwrap());
        Self { app: build(config, clock).unwrap(), _dir: dir }
    }
}

pub(super) fn state_over(store: Arc<FakeStore>, backing: &Backing) -> HttpState {
    let clock = backing.app.clock.clone();
    HttpState {
        surface: crate::http::Surface::Api,
        items: Arc::new(Items::new(store, Arc::clone(&backing.app.jobs) as Arc<dyn Bell>, clock.clone())),
        jobs: Arc::clone(&backing.app.jobs),
        users: Arc::clone(&backing.app.users),
        post: backing.app.post.clone(),
        auth: AuthRules {
            required: backing.app.config.auth.mode == config::AuthMode::Required,
            client_header: Some(header::HeaderName::from_static("x-real-ip")),
        },
        origins: OriginRules::default(),
        bodies: Bodies::new(8 << 20, Duration::from_secs(10)),
        probes: Vec::new(),
        ready: Arc::new(AtomicBool::new(true)),
        version: "1.2.3",
        limits: LIMITS,
        metrics: Arc::new(|| "app_up 1\n".to_owned()),
        request_log: RequestLog::All,
        clock,
        document: Document::default(),
    }
}

/// The application under test and its store.
pub(super) struct Under {
    call: Box<dyn Fn(TestRequest) -> LocalBoxFuture<'static, Answer>>,
    pub(super) state: Arc<HttpState>,
    pub(super) store: Arc<FakeStore>,
    pub(super) backing: Backing,
}

impl Under {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut HttpState)) -> Self {
        Self::configured(&[], change).await
    }

    /// With these settings instead of the defaults.
    pub(super) async fn configured(flags: &[(&str, &str)], change: impl FnOnce(&mut HttpState)) -> Self {
        let (store, backing) = (Arc::new(FakeStore::default()), Backing::new(flags));
        let mut state = state_over(Arc::clone(&store), &backing);
        change(&mut state);
        let state = Arc::new(state);
        let service = Rc::new(init_service(app(&state)).await);
        let call = move |request: TestRequest| -> LocalBoxFuture<'static, Answer> {
            let service = Rc::clone(&service);
            Box::pin(async move {
                match service.call(request.to_request()).await {
                    Ok(response) => {
                        let (status, headers) = (response.status().as_u16(), response.headers().clone());
                        Answer { status, headers, bytes: read_body(response).await.to_vec() }
                    }
                    Err(error) => {
                        let response = error.error_response();
                        let (status, headers) = (response.status().as_u16(), response.headers().clone());
                        let bytes = actix_web::body::to_bytes(response.into_body()).await.unwrap().to_vec();
                        Answer { status, headers, bytes }
                    }
                }
            })
        };
        Self { call: Box::new(call), state, store, backing }
    }

    pub(super) async fn send(&self, request: TestRequest) -> Answer {
        (self.call)(request).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(TestRequest::get().uri(path)).await
    }

    /// Sends a JSON body that may be anything but JSON.
    pub(super) async fn body(&self, method: Method, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        let request = TestRequest::default().method(method).uri(path);
        self.send(request.insert_header(("content-type", "application/json")).set_payload(body.into())).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Answer {
        self.body(Method::POST, path, body.to_string()).await
    }
}

/// An answer with its body read.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    /// Checks that this is a complete problem document of this status; gives the fields it names.
    #[track_caller]
    pub(super) fn problem(&self, status: u16, slug: &str) -> Vec<String> {
        let body = self.json();
        assert_eq!((self.status, body["status"].as_u64()), (status, Some(u64::from(status))), "{body}");
        assert_eq!(body["type"], format!("/problems/{slug}"), "{body}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(body["request_id"], self.header("x-request-id"), "{body}");
        for text in ["title", "detail"] {
            assert!(!body[text].as_str().unwrap().is_empty(), "{body}");
        }
        body["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap().to_owned()).collect()
    }
}
